"""Which `.tflite` file a path means, and the names of its classes: label files inside it, or beside it."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from beam_jobs.detectors import folders
from beam_jobs.detectors.flatbuffer import FlatbufferError
from beam_jobs.detectors.tflite_model import is_tflite, read_model
from beam_jobs.errors import UsageError

_MAX_LABELS_BYTES = 1 << 20
#: What a class without a name is called in the label files of COCO's models.
_GAP = "???"


def find_tflite(path: Path) -> Path | None:
    """The TFLite file that `path` is, or that is the only one of the folder `path`; absolute.

    None for what is something else, and for folders that hold a SavedModel too: that one is meant.

    Raises:
        UsageError: several are there, or what is called `.tflite` is none.
    """
    path = path.absolute()
    if path.is_dir():
        holds_saved_model = any((path / place / "saved_model.pb").is_file() for place in ("", "saved_model"))
        files = [] if holds_saved_model else sorted(path.glob("*.tflite"))
    else:
        files = [path] if path.is_file() else []
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise UsageError(f"--model {path} holds several TFLite files ({names}): name one of them.")
    for file in files:
        with file.open("rb") as opened:
            if is_tflite(opened.read(8)):
                return file
        if file.suffix == ".tflite":
            raise UsageError(f"--model {file} is not a TFLite model: it does not have TFL3 at its bytes 4 to 8.")
    return None


def categories_of(file: Path) -> dict[int, str]:
    """category_id to name, category_id being the model's class + 1; empty when no label file is there.

    Label files are looked for inside (TFLite metadata append them as a zip), then beside: the model's own name with
    .txt, then labels.txt, labelmap.txt, label_map.txt and label maps of the Object Detection API (.pbtxt).

    Raises:
        UsageError: several files could be meant, or the one cannot be read, or the model itself is cut off.
    """
    try:
        named = read_model(file.read_bytes()).label_files
    except FlatbufferError as error:
        raise UsageError(f"--model {file} is cut off or damaged: {error}. Fetch or make it again.") from error
    if inside := _labels_inside(file, named):
        return inside
    own = file.with_suffix(".txt")
    others = [file.with_name(name) for name in ("labels.txt", "labelmap.txt", "label_map.txt")]
    found = [own] if own.is_file() else [path for path in others if path.is_file()] + folders.label_maps_in(file.parent)
    if len(found) > 1:
        listed = ", ".join(path.name for path in found)
        raise UsageError(f"--model {file} has several label files beside it ({listed}): choose one with --label_map.")
    if named and not found:
        raise UsageError(
            f"--model {file} names its classes in {named[0]}, which should be inside it, and is not: perhaps it was "
            "cut off. Fetch it again, or name the classes with --label_map."
        )
    return load_labels(str(found[0])) if found else {}


def load_labels(path: str) -> dict[int, str]:
    """category_id to name: a label map as `formats.label_map` reads it, or a label file, called `.txt`.

    Raises:
        UsageError: it cannot be read, or names no class.
    """
    # Imported here: a model with labels inside has no use for it.
    from beam_jobs.formats.label_map import load_label_map
    from beam_jobs.formats.textfile import read_whole

    if not path.lower().endswith(".txt"):
        return load_label_map(path)
    data = read_whole(path, "label file", _MAX_LABELS_BYTES)
    return load_label_map(path) if folders.has_items(data) else _parse(data, path)


def parse_labels(text: str) -> dict[int, str]:
    """category_id to name, from a label file: a line a class, in the order of the model's classes.

    A first line of `???` or `background` is not one of the classes; `???` and empty lines are classes without a name,
    as in COCO's 90 classes, of which 80 are used. Or each line starts with its class's number, from 0: `0  person`.
    """
    lines = [line.strip() for line in text.splitlines()]
    numbered = [re.fullmatch(r"(\d+)[\s:]+(.+)", line) for line in lines if line]
    if numbered and all(numbered):
        names = {int(match[1]): match[2] for match in numbered if match}
        # From 0 and growing: else the numbers are part of the names.
        if next(iter(names)) == 0 and list(names) == sorted(names) and len(names) == len(numbered):
            return {number + 1: name for number, name in names.items() if name != _GAP}
    first = 0 if lines and lines[0].lower() in (_GAP, "background") else 1
    return {i: name for i, name in enumerate(lines, first) if i > 0 and name not in ("", _GAP)}


def _labels_inside(file: Path, named: Sequence[str]) -> dict[int, str]:
    if not zipfile.is_zipfile(file):
        return {}
    try:
        with zipfile.ZipFile(file) as archive:
            name = _chosen(file, named, archive.namelist())
            if name is None:
                return {}
            # Not the size that the archive states: bombs lie.
            with archive.open(name) as opened:
                return _parse(opened.read(_MAX_LABELS_BYTES + 1), f"{file}: {name}")
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise UsageError(
            f"--model {file}: the label file inside it cannot be read ({error}). Name the classes with --label_map."
        ) from error


def _chosen(file: Path, named: Sequence[str], there: Sequence[str]) -> str | None:
    """The label file of the archive: the one that the metadata name first, or else the only .txt file."""
    if known := [name for name in named if name in there]:
        return known[0]
    texts = [name for name in there if name.endswith(".txt")]
    if len(texts) > 1:
        raise UsageError(
            f"--model {file} has several text files inside it ({', '.join(texts)}), and its metadata do not say which "
            "names the classes: do it with --label_map."
        )
    return texts[0] if texts else None


def _parse(data: bytes, place: str) -> dict[int, str]:
    try:
        names = parse_labels(data.decode("utf-8-sig")) if len(data) <= _MAX_LABELS_BYTES else {}
    except UnicodeDecodeError:
        names = {}
    if not names:
        raise UsageError(
            f"the label file {place} names no class: it must be UTF-8 text with a line a class, and at most "
            f"{_MAX_LABELS_BYTES >> 20} MiB. Name the classes with --label_map."
        )
    return names
