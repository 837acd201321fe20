"""What there is to export: a pipeline config and a checkpoint that belong together, found without TensorFlow."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from beam_jobs.detectors import pipeline_config
from beam_jobs.detectors.cache import sha256_of
from beam_jobs.errors import UsageError

_STATE = "checkpoint"
_SHARD = re.compile(r"\.data-(\d{5})-of-(\d{5})$")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model to export.

    Args:
        config: the pipeline config.
        prefix: the path of the checkpoint's files without `.index` and `.data-00000-of-00001`.
        label_map: a `.pbtxt`, or None.
    """

    config: Path
    prefix: Path
    label_map: Path | None

    @property
    def files(self) -> list[Path]:
        """The checkpoint's own files, in order of their names."""
        return sorted(
            path
            for path in self.prefix.parent.iterdir()
            if path.name == f"{self.prefix.name}.index"
            or (path.name.startswith(f"{self.prefix.name}.data-") and _SHARD.search(path.name))
        )

    def fingerprint(self) -> str:
        """sha256 (hex) over the config and the checkpoint's files, whatever their names are."""
        total = hashlib.sha256()
        for path in (self.config, *self.files):
            total.update(f"{path.name.removeprefix(self.prefix.name) if path != self.config else 'config'}\0".encode())
            total.update(f"{sha256_of(path)}\n".encode())
        return total.hexdigest()


def find_checkpoint(config: str, checkpoint: str, label_map: str | None) -> Checkpoint:
    """The model that two flags name, with a label map: the one given, or the config's own where it can be read.

    Raises:
        UsageError: one is not there, or the API cannot export it: no config, one of TF1, a TF1 checkpoint, a missing
            part.
    """
    path = Path(config)
    if path.is_dir() and (path / "pipeline.config").is_file():
        raise UsageError(f"--pipeline_config {config} is a folder: did you mean {path / 'pipeline.config'}?")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"--pipeline_config {config} cannot be read: {error.strerror}.") from error
    _check_config(config, data)
    if label_map is not None and not Path(label_map).is_file():
        raise UsageError(f"--label_map {label_map} is not a file.")
    found = Path(label_map) if label_map is not None else _label_map_of(path, without_comments(data.decode()))
    return Checkpoint(path, find_prefix(checkpoint), found)


def source_in(folder: Path) -> tuple[Path, Path] | None:
    """The config and the folder of the checkpoint of a model folder that has no SavedModel; None for any other."""
    config, checkpoint = folder / "pipeline.config", folder / "checkpoint"
    if any((place / "saved_model.pb").is_file() for place in (folder, folder / "saved_model")):
        return None
    return (config, checkpoint) if config.is_file() and checkpoint.is_dir() else None


def find_prefix(checkpoint: str) -> Path:
    """The prefix of the checkpoint that a folder or a prefix names; of a folder the one that training saved last.

    Raises:
        UsageError: there is none, there are several, a file of it is missing, or TensorFlow 1 wrote it.
    """
    path = Path(checkpoint)
    prefix = _latest(path) if path.is_dir() else Path(re.sub(r"\.index$|\.data-\d{5}-of-\d{5}$", "", checkpoint))
    if not prefix.with_name(f"{prefix.name}.index").is_file():
        raise UsageError(
            f"{checkpoint}: {prefix.name}.index is not there. A checkpoint is a folder with its "
            "files (ckpt-0.index, ckpt-0.data-00000-of-00001), or their prefix (…/ckpt-0)."
        )
    if prefix.with_name(f"{prefix.name}.meta").exists():
        raise UsageError(
            f"{checkpoint} is of TensorFlow 1 ({prefix.name}.meta is beside it): only what the "
            "API's TF2 training wrote can be exported. TF1 models are used as frozen graphs or SavedModels."
        )
    shards = {match[1]: int(match[2]) for path in prefix.parent.iterdir() if (match := _shard_of(path, prefix))}
    wanted = max(shards.values(), default=1)
    missing = [name for i in range(wanted) if (name := f"{i:05d}") not in shards]
    if missing:
        raise UsageError(f"{checkpoint} is not whole: {prefix.name}.data-{missing[0]}-of-{wanted:05d} is missing.")
    return prefix


def _shard_of(path: Path, prefix: Path) -> re.Match[str] | None:
    return _SHARD.search(path.name) if _SHARD.sub("", path.name) == prefix.name else None


def _latest(folder: Path) -> Path:
    """The prefix that the state file `checkpoint` names, or the only one in the folder."""
    names = sorted(path.name.removesuffix(".index") for path in folder.glob("*.index"))
    try:
        state = (folder / _STATE).read_text(errors="replace")
    except OSError:
        state = ""
    if named := re.search(r'^\s*model_checkpoint_path:\s*"(.+?)"', state, re.MULTILINE):
        # An absolute path is one of the machine that it was trained on.
        return folder / Path(named[1]).name
    if len(names) == 1:
        return folder / names[0]
    inner = folder / "checkpoint"
    if not names and inner.is_dir():
        raise UsageError(f"{folder} holds no checkpoint: did you mean {inner}?")
    found = f"several ({', '.join(names)}), and no file that says which: give the prefix of one" if names else "none"
    raise UsageError(f"{folder} holds the files of {found} (ckpt-0.index, ckpt-0.data-00000-of-00001).")


def without_comments(text: str) -> str:
    """A text proto without its comments; a # within quotes is none."""
    return re.sub(r"""("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')|#[^\n]*""", lambda match: match[1] or "", text)


def _check_config(config: str, data: bytes) -> None:
    """Refuses what the API's TF2 part cannot build, as far as the text tells: making its environment takes minutes."""
    said = pipeline_config.parse(data, config)
    # All types of SSD and Faster R-CNN end like this in TF2, and none does in TF1. CenterNet is TF2's alone.
    name = said.feature_extractor
    if said.family in ("ssd", "faster_rcnn") and name and not name.endswith("_keras"):
        raise UsageError(
            f"{config} is of TensorFlow 1: its feature extractor {name} has no TF2 counterpart of that name (those end "
            "in _keras). TF1 models are used as frozen graphs or SavedModels."
        )


def _label_map_of(config: Path, text: str) -> Path | None:
    """The label map that the config names, as it stands or beside the config; None when it cannot be read."""
    for name in re.findall(r"""\blabel_map_path\s*:\s*["'](.+?)["']""", text):
        for path in (Path(name), config.parent / Path(name).name):
            if path.is_file():
                return path
    return None
