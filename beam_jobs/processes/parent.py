"""What a process of ours does when the one that started it is gone."""

from __future__ import annotations

import os
import threading
import time


def end_with_parent() -> None:
    """Ends this process when its parent is gone, also in the middle of its work: nobody would take the result."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()
