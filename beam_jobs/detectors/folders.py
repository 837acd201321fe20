"""What a model folder holds, read without TensorFlow: where the SavedModel is, its fingerprint, its categories."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from beam_jobs.detectors.cache import sha256_of
from beam_jobs.errors import UsageError

_PARTS = ("saved_model.pb", "variables", "assets")
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder with a SavedModel.

    Args:
        name: what people call it: the zoo's name, not `saved_model`.
        saved_model: the folder of `saved_model.pb`; absolute.
        root: the folder of `pipeline.config` and label maps; the same, or the one above.
    """

    name: str
    saved_model: Path
    root: Path


def find_saved_model(path: Path) -> ModelFolder:
    """The SavedModel in a SavedModel folder, or in a folder of the zoo's layout.

    Raises:
        UsageError: there is none; the message says what was found and what is needed.
    """
    path = path.absolute()
    for folder in (path, path / "saved_model"):
        if (folder / "saved_model.pb").is_file():
            # `x/saved_model` itself is the zoo's layout seen from inside.
            root = folder.parent if folder.name == "saved_model" else folder
            return ModelFolder(root.name, folder, root)
    needed = "A SavedModel folder holds saved_model.pb; a folder of the zoo's layout holds saved_model/saved_model.pb."
    if not path.is_dir():
        what = "is a file, not a folder" if path.exists() else "does not exist"
        needed += " Of files, a TFLite model is one."
        raise UsageError(f"--model {path} {what}. {needed}")
    names = sorted(child.name + "/" * child.is_dir() for child in path.iterdir())
    found = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    if "checkpoint/" in names:
        needed += " A checkpoint is exported to one by the Object Detection API's exporter_main_v2.py."
    raise UsageError(f"--model {path} holds no SavedModel, but {found or 'nothing'}. {needed}")


def fingerprint_of(saved_model: Path) -> str:
    """sha256 (hex) over saved_model.pb, variables/ and assets/, wherever the folder lies and whatever it is called.

    Of one line a file, in the order of their relative names: name, NUL, the file's sha256.
    """
    total = hashlib.sha256()
    for path in sorted(_files(saved_model), key=lambda path: path.relative_to(saved_model).as_posix()):
        total.update(f"{path.relative_to(saved_model).as_posix()}\0{sha256_of(path)}\n".encode())
    return total.hexdigest()


def _files(saved_model: Path) -> Iterable[Path]:
    for part in _PARTS:
        path = saved_model / part
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
    places = dict.fromkeys((folder.root, folder.root / "assets", folder.saved_model, folder.saved_model / "assets"))
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
