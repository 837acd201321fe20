"""What a model folder holds, read without TensorFlow: where the model is, its fingerprint, its categories."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from beam_jobs.detectors.cache import sha256_of
from beam_jobs.errors import UsageError

_SAVED_MODEL = "saved_model.pb"
_PARTS = (_SAVED_MODEL, "variables", "assets")
#: What TF1's exporter called it.
_FROZEN = "frozen_inference_graph.pb"
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder with a model.

    Args:
        name: what people call it: the zoo's name, not `saved_model`.
        model: the folder of `saved_model.pb`, or the file of a frozen graph; absolute.
        root: the folder of `pipeline.config` and label maps.
        kind: which of the two it is.
    """

    name: str
    model: Path
    root: Path
    kind: Literal["saved_model", "frozen_graph"] = "saved_model"


def find_model(path: Path) -> ModelFolder:
    """The SavedModel in its own folder or in one of the zoo's layout; a frozen graph's file, or the one in a folder.

    Raises:
        UsageError: there is none; the message says what was found and what is needed.
    """
    path = path.absolute()
    for folder in (path, path / "saved_model"):
        if (folder / _SAVED_MODEL).is_file():
            # `x/saved_model` itself is the zoo's layout seen from inside.
            root = folder.parent if folder.name == "saved_model" else folder
            return ModelFolder(root.name, folder, root)
    if path.is_file() and path.suffix == ".pb" and path.name != _SAVED_MODEL:
        name = path.parent.name if path.name == _FROZEN else path.stem
        return ModelFolder(name, path, path.parent, "frozen_graph")
    if (path / _FROZEN).is_file():
        return ModelFolder(path.name, path / _FROZEN, path, "frozen_graph")
    needed = (
        f"A SavedModel folder holds {_SAVED_MODEL}; a folder of the zoo's layout holds saved_model/{_SAVED_MODEL}; "
        f"a frozen graph is a file NAME.pb, or {_FROZEN} in a folder."
    )
    if not path.is_dir():
        what = "is a file, not a folder" if path.exists() else "does not exist"
        needed += " Of files, a TFLite model is one."
        raise UsageError(f"--model {path} {what}. {needed}")
    names = sorted(child.name + "/" * child.is_dir() for child in path.iterdir())
    found = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    if "checkpoint/" in names:
        needed += " A checkpoint is exported to one with the pipeline.config it was trained by: beam-detect export."
    raise UsageError(f"--model {path} holds no SavedModel, but {found or 'nothing'}. {needed}")


def fingerprint_of(model: Path) -> str:
    """sha256 (hex) of a file, or over a SavedModel: saved_model.pb, variables/ and assets/, whatever it is called.

    The latter of one line a file, in the order of their relative names: name, NUL, the file's sha256.
    """
    if model.is_file():
        return sha256_of(model)
    total = hashlib.sha256()
    for path in sorted(_files(model), key=lambda path: path.relative_to(model).as_posix()):
        total.update(f"{path.relative_to(model).as_posix()}\0{sha256_of(path)}\n".encode())
    return total.hexdigest()


def _files(model: Path) -> Iterable[Path]:
    for part in _PARTS:
        path = model / part
        yield from [path] if path.is_file() else filter(Path.is_file, path.rglob("*"))


def categories_of(folder: ModelFolder) -> dict[int, str]:
    """category_id to name: of the folder's own label map, or COCO's for a COCO model; else empty.

    Raises:
        UsageError: several label maps are there, or the one cannot be read.
    """
    # Imported here: whoever names categories with --label_map has no use for it.
    from beam_jobs.formats.label_map import COCO_CATEGORIES, load_label_map

    maps = _label_maps(folder)
    if len(maps) > 1:
        names = ", ".join(str(path.relative_to(folder.root)) for path in maps)
        raise UsageError(f"--model {folder.root} holds several label maps ({names}): choose one with --label_map.")
    if maps:
        return load_label_map(str(maps[0]))
    return dict(COCO_CATEGORIES) if _is_coco(folder) else {}


def _label_maps(folder: ModelFolder) -> list[Path]:
    places = dict.fromkeys((folder.root, folder.root / "assets", folder.model, folder.model / "assets"))
    return [path for place in places for path in label_maps_in(place)]


def label_maps_in(folder: Path) -> list[Path]:
    """The `.pbtxt` files that are label maps."""
    return [path for path in sorted(folder.glob("*.pbtxt")) if has_items(path.read_bytes())]


def has_items(data: bytes) -> bool:
    """Whether a text has items, as a StringIntLabelMap has them; graphs in text and label files have none."""
    return re.search(rb"^\s*item\s*:?\s*\{", data, re.MULTILINE) is not None


def _is_coco(folder: ModelFolder) -> bool:
    """Whether class ids are COCO's: 90 of them by `pipeline.config`, and its label map or the folder says COCO.

    The zoo's own configs name no label map (PATH_TO_BE_CONFIGURED). Without a config only the zoo's `coco17` counts.
    """
    try:
        config = (folder.root / "pipeline.config").read_text(errors="replace")
    except FileNotFoundError:
        return "coco17" in folder.name.lower()
    has_90 = re.search(r"^\s*num_classes:\s*90\b", config, re.MULTILINE) is not None
    label_maps = re.findall(r"^\s*label_map_path:\s*[\"'](.*?)[\"']", config, re.MULTILINE)
    is_coco = any("coco" in Path(path).name.lower() or "PATH_TO_BE_CONFIGURED" in path for path in label_maps)
    return has_90 and (is_coco or "coco" in folder.name.lower())
