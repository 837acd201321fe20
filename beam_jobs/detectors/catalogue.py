"""Which detector a `--model` means: known, fingerprinted and named, but not loaded. Neither TensorFlow nor Beam."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from beam_jobs.detectors import (
    cache,
    coco_ssd,
    factory,
    fetched,
    folders,
    litert_forms,
    pipeline_config,
    sources,
    tflite_files,
)
from beam_jobs.detectors.base import DetectorSpec, Engine, Origin
from beam_jobs.detectors.cache import Report, report_to_stderr, sha256_of
from beam_jobs.detectors.download import Watch
from beam_jobs.detectors.od_api import checkpoint, export
from beam_jobs.detectors.resizing import Resizer
from beam_jobs.detectors.sources import Source
from beam_jobs.detectors.zoo import ZOO, ZooModel
from beam_jobs.errors import UsageError

_LOGGER = logging.getLogger(__name__)

DEFAULT = coco_ssd.NAME


@dataclass(frozen=True, slots=True)
class CatalogueModel:
    """A detector that has a name here.

    Args:
        card: what people are told of it.
        fingerprint: sha256 (hex) of what it is made from.
        locate: gives its folder on this machine, fetching it first when need be: with `saved_model/`, and `litert/` as
            `litert_form` describes it.
        categories: gives category_id to name.
    """

    name: str
    card: ZooModel
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
            ZooModel(coco_ssd.NAME, "SSD", "300x300", None, None, dates=()),
            coco_ssd.SOURCE.fingerprint(),
            coco_ssd.ensure,
            _coco_categories,
        ),
    )
}


def resolve(
    model: str,
    *,
    label_map: str | None,
    threads: int,
    engine: Engine = "auto",
    min_score: float = 0.0,
    report: Report = report_to_stderr,
    watch: Watch = fetched.nobody,
) -> DetectorSpec:
    """The detector that `model` names: a catalogue or zoo name, a URL, a folder or file, `module:factory`.

    They are tried in this order; a folder that is called like a model of the zoo is meant by `./NAME`.

    Args:
        label_map: a `.pbtxt` or COCO JSON that names the categories; wins over what the model says of itself.
        threads: threads inside one call, 1 or more.
        engine: what runs it; `auto` is LiteRT for a model that has such a form. What comes of it, `forms.choose` says.
        min_score: detections of a lower score are not asked for.
        report: takes a line before something that takes long, such as fetching.
        watch: is told how far a download is.

    Raises:
        UsageError: nothing is there, or it is not what is needed.
    """
    try:
        spec = _with_engine(_find(model, label_map is None, report, watch), engine)
        spec = replace(spec, threads=threads, min_score=min_score)
        return spec if label_map is None else _with_categories(spec, label_map)
    except OSError as error:
        raise UsageError(f"--model {model} cannot be read: {error.strerror or error}: {error.filename}.") from error


def on_this_host(spec: DetectorSpec, report: Report = report_to_stderr) -> DetectorSpec:
    """The same detector where it lies in this host's cache, fetched first when it is not there.

    Raises:
        UsageError: it cannot be fetched, or is not the same any more.
    """
    origin = spec.origin
    if origin is None:
        return spec
    if origin.urls:
        return replace(spec, location=str(fetched.fetch_again(origin, report) / origin.inside))
    known = CATALOGUE.get(origin.name)
    if known is None or known.fingerprint != spec.fingerprint:
        here = known.fingerprint if known else "none"
        raise UsageError(
            f"{origin.name} of this host ({here}) is not that of the job ({spec.fingerprint}): "
            "install the same version of beam-detect on all hosts."
        )
    return replace(spec, location=str(known.locate(report) / Path(spec.location).name))


def _find(model: str, wants_categories: bool, report: Report, watch: Watch) -> DetectorSpec:
    if known := CATALOGUE.get(model):
        categories = known.categories() if wants_categories else {}
        location = str(known.locate(report) / "saved_model")
        origin = Origin(known.name, known.name)
        return DetectorSpec("saved_model", known.name, location, known.fingerprint, categories, origin=origin)
    if source := sources.find(model):
        return _find_fetched(source, wants_categories, report, watch)
    path = Path(model)
    if model and (trained := checkpoint.source_in(path)):
        return _find_exported(path, trained, wants_categories, report)
    if model and path.exists():
        if file := tflite_files.find_tflite(path):
            categories = tflite_files.categories_of(file) if wants_categories else {}
            return DetectorSpec("tflite", file.stem, str(file), sha256_of(file), categories)
        folder = folders.find_model(path)
        return _spec_of(folder, folders.fingerprint_of(folder.model), wants_categories)
    if factory.is_location(model):
        made_by = factory.load_factory(model)
        categories = factory.categories_of(model, made_by) if wants_categories else {}
        fingerprint = factory.fingerprint_of(model, made_by)
        return DetectorSpec("factory", model, model, fingerprint, categories)
    raise UsageError(_unknown(model))


def _find_fetched(source: Source, wants_categories: bool, report: Report, watch: Watch) -> DetectorSpec:
    """The detector in a fetched folder, whatever kind it is of."""
    origin = fetched.fetch(source, report, watch)
    entry = cache.models_folder() / origin.entry
    try:
        spec = _find(str(fetched.model_in(entry / origin.name)), wants_categories, report, watch)
    except UsageError as error:
        raise UsageError(f"{source.given}, as it was fetched: {error}") from error
    origin = replace(origin, inside=os.path.relpath(spec.location, entry))
    return replace(spec, name=source.name, origin=origin)


def _find_exported(path: Path, source: tuple[Path, Path], wants_categories: bool, report: Report) -> DetectorSpec:
    """The detector in a folder with a checkpoint and no SavedModel: what the API makes of it, in the cache."""
    entry, fingerprint = export.exported(*source, report)
    # The user's own folder has the name, label maps and the config.
    folder = folders.ModelFolder(path.absolute().name, entry / "saved_model", path.absolute())
    return _spec_of(folder, fingerprint, wants_categories)


def _spec_of(folder: folders.ModelFolder, fingerprint: str, wants_categories: bool) -> DetectorSpec:
    categories = folders.categories_of(folder) if wants_categories else {}
    resizer = _resizer_of(folder)
    return DetectorSpec(folder.kind, folder.name, str(folder.model), fingerprint, categories, resizer=resizer)


def _resizer_of(folder: folders.ModelFolder) -> Resizer | None:
    try:
        config = pipeline_config.find(folder.root)
    except UsageError as error:
        # The model itself needs no config.
        _LOGGER.warning("%s Only pictures of one size share calls of the detector.", error)
        return None
    return config.resizer if config else None


def _with_engine(spec: DetectorSpec, engine: Engine) -> DetectorSpec:
    """The detector as `engine` runs it.

    Raises:
        UsageError: it cannot be run by that.
    """
    if spec.kind == "saved_model" and engine != "tensorflow":
        return replace(spec, form="litert") if engine == "litert" else litert_forms.if_beside(spec)
    if engine in ("auto", spec.engine):
        return spec
    raise UsageError(
        f"--engine {engine}: {spec.name} is run by {'Python' if spec.engine == 'python' else spec.engine} only. "
        "Leave --engine out."
    )


def _with_categories(spec: DetectorSpec, label_map: str) -> DetectorSpec:
    if spec.kind == "tflite":
        return replace(spec, categories=tflite_files.load_labels(label_map))
    from beam_jobs.formats.label_map import load_label_map

    return replace(spec, categories=load_label_map(label_map))


def _unknown(model: str) -> str:
    near = difflib.get_close_matches(model, [*CATALOGUE, *ZOO], 1, 0.5)
    problem = f"did you mean {near[0]}?" if near else "no such name, folder or module."
    return (
        f"--model {model}: {problem} It takes a name that `beam-detect models` lists ({DEFAULT} and the zoo's), a "
        "SavedModel folder, a folder of the zoo's layout (with saved_model/saved_model.pb), a .tflite file, a frozen "
        "graph (FILE.pb), the URL of one or of its .tar.gz, or module:factory."
    )
