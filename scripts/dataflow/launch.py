"""What the launcher of the Flex Template runs (`FLEX_TEMPLATE_PYTHON_PY_FILE`)."""

import sys

from beam_jobs.cli.flex_template import main

if __name__ == "__main__":
    sys.exit(main())
