"""The folder that a command writes to, where its files have fixed names."""

from __future__ import annotations

import os
from collections.abc import Sequence

from beam_jobs import storage
from beam_jobs.errors import UsageError


def check_output(root: str, shown: str, what: str, files: Sequence[str], *, overwrite: bool, scratch: str = "") -> None:
    """Refuses a folder that holds anything; with `overwrite` takes away `files` in it, if it holds nothing else.

    Args:
        shown: the folder as the user named it.
        what: what the files are together: `comparison`.
        files: the first is the one that is written last.
        scratch: a folder in it that an unfinished command may have left, with nothing but files.

    Raises:
        UsageError: the folder cannot be used; the remedy.
    """
    try:
        names = storage.list_dir(root)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise UsageError(f"--output {shown} is a file: name a folder.") from None
    except OSError as error:
        raise UsageError(f"--output {shown} cannot be looked at: {storage.reason(error)}.") from error
    # What a killed writer left is nobody's.
    left = [name for name in names if name.startswith(storage.TEMP_PREFIX)]
    held = set(names) - set(left)
    if not names:
        return
    if not held <= {*files, scratch}:
        raise UsageError(f"--output {shown} is not empty, and what it holds is no {what}: name another folder.")
    if held and not overwrite:
        a = ("an" if what[0] in "aeiou" else "a") if files[0] in held else "an unfinished"
        raise UsageError(f"--output {shown} holds {a} {what}: name another folder, or give --overwrite.")
    if scratch in held:
        folder = storage.join(root, scratch)
        for name in storage.list_dir(folder):
            storage.remove(storage.join(folder, name))
        storage.remove_dir(folder)
    for name in set(names) - {scratch}:
        storage.remove(storage.join(root, name))


def make_output(root: str, shown: str) -> None:
    """Makes the folder, before what takes long.

    Args:
        shown: the folder as the user named it.

    Raises:
        UsageError: it cannot be made, or not be written to.
    """
    try:
        storage.make_dirs(root)
    except OSError as error:
        raise UsageError(f"--output {shown} cannot be made: {storage.reason(error)}. Name another folder.") from error
    if not storage.is_remote(root) and not os.access(root, os.W_OK | os.X_OK):
        raise UsageError(f"--output {shown} cannot be written to: it is not yours. Name another folder.")
