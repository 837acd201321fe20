"""Classes that a user names."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from beam_jobs.errors import UsageError


def chosen_ids(names: Sequence[str], categories: Mapping[int, str]) -> frozenset[int]:
    """The category ids of names or numbers.

    Raises:
        UsageError: a name that no class has.
    """
    by_name = {name: category_id for category_id, name in categories.items()}
    ids = set()
    for name in names:
        if name in by_name:
            ids.add(by_name[name])
        elif name.isdigit():
            ids.add(int(name))
        else:
            near = difflib.get_close_matches(name, by_name, n=1)
            hint = (
                f"did you mean {near[0]}?" if near else f"the model's classes are {', '.join(by_name) or 'not named'}."
            )
            raise UsageError(f"--categories: the label map has no class {name}; {hint}")
    return frozenset(ids)
