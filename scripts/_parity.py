"""Whether our detectors find what the Object Detection API itself finds, family by family.

For each config the real API, in the environment that `beam-detect export` makes, builds a model of seeded random
weights, exports it as the zoo's models are, and runs its own detect_fn on the pictures (`_parity_api.py`). Our detector
then opens the SavedModel, and the checkpoint alone (exported on first use), each in a process of its own, and must find
the same on the same pixels: raw tensors within `_RAW`; detections as sets, each with one of the same class within
`_SCORE` in score and `_BOX` of the picture's sides in every coordinate; keypoints likewise, and masks within `_MASK`.

What is made is kept in `--work`, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beam_jobs.cli import demo
from beam_jobs.detectors import catalogue, open_detector
from beam_jobs.detectors.od_api import environment
from beam_jobs.detectors.od_api.export import run_program
from beam_jobs.errors import UsageError
from beam_jobs.imaging.decode import decode
from scripts._benchmark_measuring import heading

_HERE = Path(__file__).parent
_CONFIGS = _HERE / "parity-configs"
_SEED = 1
_SCORE, _BOX, _RAW, _MASK = 1e-4, 1e-3, 1e-3, 1e-3
_MOST_MOVED = 100
_RAW_TENSORS = ("raw_detection_boxes", "raw_detection_scores")
ROUTES = ("SavedModel", "checkpoint")

Tensors = Mapping[str, NDArray[Any]]


@dataclass(slots=True)
class Agreement:
    """How far two lists of detections of one picture or of many are apart.

    Args:
        matched: detections of the API that we have too.
        lost: detections of the API that we have not, and of ours that it has not.
        differences: the largest, by what differs: `box`, `mask` and `keypoint` places as shares, scores as they are.
    """

    matched: int = 0
    lost: int = 0
    differences: dict[str, float] = field(default_factory=dict)

    def note(self, what: str, difference: float) -> None:
        """Keeps the larger."""
        self.differences[what] = max(difference, self.differences.get(what, 0.0))

    def add(self, other: Agreement) -> None:
        """Those of another picture."""
        self.matched += other.matched
        self.lost += other.lost
        for what, difference in other.differences.items():
            self.note(what, difference)

    @property
    def faults(self) -> list[str]:
        """What is beyond tolerance, as sentences."""
        limits = {"score": _SCORE, "box": _BOX, "raw": _RAW, "mask": _MASK, "keypoint": _BOX, "keypoint score": _SCORE}
        faults = [f"{what} differs by {d:.2g}" for what, d in self.differences.items() if d > limits[what]]
        faults += [f"{self.lost} detections without a counterpart"] * (self.lost > 0)
        return faults + ["nothing was compared"] * (self.matched == 0)


def agreement(api: Tensors, ours: Tensors) -> Agreement:
    """Matches the API's detections of one picture with ours, each at most once.

    Args:
        api, ours: the API's tensors of one picture, without batch dimension.
    """
    result = Agreement()
    left = list(range(int(ours["num_detections"])))
    for i in range(int(api["num_detections"])):
        boxes = np.abs(ours["detection_boxes"] - api["detection_boxes"][i]).max(axis=1)
        scores = np.abs(ours["detection_scores"] - api["detection_scores"][i])
        same = ours["detection_classes"] == api["detection_classes"][i]
        near = [j for j in left if same[j] and scores[j] <= _SCORE and boxes[j] <= _BOX]
        if not near:
            result.lost += 1
            continue
        j = min(near, key=lambda j: float(boxes[j]))
        left.remove(j)
        result.matched += 1
        result.note("box", float(boxes[j]))
        result.note("score", float(scores[j]))
        for what, key in (
            ("mask", "detection_masks"),
            ("keypoint", "detection_keypoints"),
            ("keypoint score", "detection_keypoint_scores"),
        ):
            if key in api:
                result.note(what, float(np.abs(api[key][i] - ours[key][j]).max()))
    result.lost += len(left)
    return result


def find(model: str, pixels: Path, output: Path) -> None:
    """What our detector finds with a model on pictures, as the API's tensors, and how long it takes; into a folder.

    In a process of its own: threads, and memory that TensorFlow does not give back.
    """
    start = time.monotonic()
    spec = catalogue.resolve(model, label_map=None, threads=1)
    resolved = time.monotonic()
    detector = open_detector(spec)
    opened = time.monotonic()
    found: dict[str, NDArray[Any]] = {}
    with np.load(pixels) as pictures:
        for name in pictures.files:
            picture = pictures[name]
            [detections] = detector.detect([picture])
            sides = np.array([picture.shape[0], picture.shape[1]] * 2, np.float32)
            tensors: dict[str, Any] = {
                "num_detections": np.array(len(detections)),
                "detection_scores": detections.scores,
                "detection_classes": detections.category_ids.astype(np.float32),
                "detection_boxes": detections.boxes[:, [1, 0, 3, 2]] / sides,
            }
            if detections.masks is not None:
                tensors["detection_masks"] = detections.masks.grids
            if detections.keypoints is not None:
                tensors["detection_keypoints"] = detections.keypoints[..., [1, 0]] / sides[:2]
                tensors["detection_keypoint_scores"] = detections.keypoints[..., 2]
            found |= {f"{name}/{key}": tensor for key, tensor in tensors.items()}
        detected = time.monotonic()
        raw = _raw_tensors(spec.location, pictures)
    _save(output / "found.npz", found | raw)
    seconds = {"resolve": resolved - start, "open": opened - resolved, "picture": (detected - opened) / len(pictures)}
    about = {"seconds": seconds, "details": dict(detector.info.details)}
    (output / "about.json").write_text(json.dumps(about, indent=1))


def _raw_tensors(location: str, pictures: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The SavedModel's outputs before non-maximum suppression, which our detector does not read."""
    import tensorflow as tf

    model = tf.saved_model.load(location)
    signature = model.signatures["serving_default"]
    [(name, takes)] = signature.structured_input_signature[1].items()
    found: dict[str, NDArray[Any]] = {}
    if set(_RAW_TENSORS) <= set(signature.structured_outputs):
        for index, picture in pictures.items():
            given = signature(**{name: tf.cast(picture[np.newaxis], takes.dtype)})
            found |= {f"{index}/{key}": given[key][0].numpy() for key in _RAW_TENSORS}
    return found


def compare(folder: Path, route: str, pixels: Path) -> tuple[Agreement, dict[str, Any]]:
    """How far what we find in a zoo folder by one route is from what the API found; what `find` says of it."""
    output = folder / f"by-{route}"
    if not (output / "about.json").is_file():
        output.mkdir(exist_ok=True)
        model = folder / "zoo"
        if route == "checkpoint":
            model = folder / "only-checkpoint"
            shutil.copytree(folder / "zoo" / "checkpoint", model / "checkpoint", dirs_exist_ok=True)
            shutil.copyfile(folder / "zoo" / "pipeline.config", model / "pipeline.config")
        environ = os.environ | {"PYTHONPATH": str(_HERE.parent)}
        command = [sys.executable, "-P", __file__, "--find", str(model), str(pixels), str(output)]
        subprocess.run(command, env=environ, check=True)
    api, ours = _by_picture(folder / "zoo" / "reference.npz"), _by_picture(output / "found.npz")
    whole = Agreement()
    for index in api:
        whole.add(agreement(api[index], ours[index]))
        if set(_RAW_TENSORS) <= set(api[index]):
            whole.note("raw", raw_difference(*(_raw(tensors[index]) for tensors in (api, ours))))
    return whole, json.loads((output / "about.json").read_text())


def raw_difference(api: NDArray[Any], ours: NDArray[Any]) -> float:
    """The largest difference of raw tensors, both [rows, values].

    A two-stage model's rows are its proposals in the order of their scores: those of nearly the same change places. So
    a row that differs from its counterpart is compared with the nearest of all that do.
    """
    differences = np.abs(api - ours).max(axis=1)
    moved = np.flatnonzero(differences > _RAW)
    if 0 < len(moved) <= _MOST_MOVED:
        between = np.abs(api[moved, None] - ours[None, moved]).max(axis=2)
        differences[moved] = np.maximum(between.min(axis=0), between.min(axis=1))
    return float(differences.max())


def _raw(tensors: Tensors) -> NDArray[Any]:
    return np.concatenate([tensors[key] for key in _RAW_TENSORS], axis=1)


def _by_picture(file: Path) -> dict[str, dict[str, NDArray[Any]]]:
    tensors: dict[str, dict[str, NDArray[Any]]] = {}
    with np.load(file) as found:
        for name in found.files:
            index, key = name.split("/")
            tensors.setdefault(index, {})[key] = found[name]
    return tensors


def make(config: Path, folder: Path, pixels: Path, *, verbose: bool) -> None:
    """Has the API make the zoo folder of a config, with what it finds in the pictures, if there is none yet."""
    zoo = folder / "zoo"
    if zoo.is_dir():
        return
    python = environment.ensure(say)
    new = folder / "new"
    shutil.rmtree(folder, ignore_errors=True)
    new.mkdir(parents=True)
    command = [str(_HERE / "_parity_api.py"), str(config), str(pixels), str(new), str(_SEED)]
    run_program(python, command, lambda step: say(f"{config.stem}: {step}"), verbose=verbose)
    new.rename(zoo)


def row(name: str, route: str, whole: Agreement, about: Mapping[str, Any]) -> str:
    """The line of the table for a family and a route."""
    differences = whole.differences
    extras = [
        f"{what} {differences[what]:.1e}" for what in ("mask", "keypoint", "keypoint score") if what in differences
    ]
    seconds = about["seconds"]
    cells = (
        name,
        route,
        about["details"].get("batch", "?"),
        "no: " + ", ".join(whole.faults) if whole.faults else f"yes, {whole.matched} detections",
        f"{differences['raw']:.1e}" if "raw" in differences else "none",
        f"{differences.get('box', np.nan):.1e}",
        f"{differences.get('score', np.nan):.1e}",
        ", ".join(extras) or "none",
        f"{seconds['open']:.1f}" + (f" + {seconds['resolve']:.0f}" if route == "checkpoint" else ""),
        f"{seconds['picture']:.2f}",
    )
    return f"| {' | '.join(cells)} |"


_HEADER = (
    "| family | from | batch | same as the API | raw tensors | boxes | scores | masks, keypoints | open, s | call, s |",
    f"{'|---' * 10}|",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Compares; prints the table as Markdown; returns 1 when something differs."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["--find"]:
        find(words[1], Path(words[2]), Path(words[3]))
        return 0
    options = _options(words)
    configs = {path.stem: path for path in sorted(options.configs.glob("*.config"))}
    names = options.families or list(configs)
    if unknown := [name for name in names if name not in configs]:
        raise UsageError(f"there is no {unknown[0]}.config in {options.configs}: it has {', '.join(configs)}")
    options.work.mkdir(parents=True, exist_ok=True)
    pixels = _pixels(options.pictures, options.work)
    lines: list[str] = []
    differs = False
    for name in names:
        folder = options.work / name
        make(configs[name], folder, pixels, verbose=options.verbose)
        for route in ROUTES:
            say(f"{name}: detecting from the {route}")
            whole, about = compare(folder, route, pixels)
            lines.append(row(name, route, whole, about))
            differs |= bool(whole.faults)
            say(lines[-1])
    report = "\n".join([*heading(), "", *_HEADER, *lines]) + "\n"
    print(report, end="")
    if options.output:
        options.output.write_text(report)
    return int(differs)


def _options(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="parity",
        description="Compares what our detectors find with what the Object Detection API finds: models of random "
        "weights, one of each family. The first run of a family takes five to twenty minutes.",
    )
    parser.add_argument("families", nargs="*", metavar="FAMILY", help="names of configs (all)")
    parser.add_argument("--configs", type=Path, default=_CONFIGS, metavar="DIR", help="pipeline configs (%(default)s)")
    parser.add_argument(
        "--pictures", type=Path, nargs="+", default=[], metavar="FILE", help="pictures (those of the demo)"
    )
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="where models and results are kept")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the table there, too")
    parser.add_argument("--verbose", action="store_true", help="show what the API and TensorFlow say")
    return parser.parse_args(words)


def _pixels(pictures: Sequence[Path], work: Path) -> Path:
    """The decoded pictures as one file; all results in `work` are of the same."""
    file = work / "pixels.npz"
    if not file.is_file():
        chosen = pictures or [demo.photographs() / name for name in demo.PHOTOGRAPHS[-4:]]
        _save(file, {str(i): decode(path.read_bytes()).pixels for i, path in enumerate(chosen)})
    return file.absolute()


def _save(file: Path, arrays: dict[str, Any]) -> None:
    np.savez(file, **arrays)


def say(line: str) -> None:
    """Tells whoever waits."""
    print(f"parity: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UsageError as error:
        sys.exit(f"parity: {error}")
