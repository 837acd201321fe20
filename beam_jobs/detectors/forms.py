"""In which of its forms a job opens a model: decided once, by who starts it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from beam_jobs.detectors import frozen_form, litert_forms
from beam_jobs.detectors.base import DetectorSpec, Engine, Picture
from beam_jobs.detectors.cache import Report
from beam_jobs.errors import UsageError


def choose(
    spec: DetectorSpec, engine: Engine, pictures: Callable[[], Sequence[Picture]], report: Report
) -> DetectorSpec:
    """`spec` in the form that the job shall use; makes and checks it first where there is none yet.

    Args:
        engine: what was asked for when the spec was resolved.
        pictures: gives a few of the job's pictures, uint8 [height, width, 3], to check a form on, besides made ones;
            called only when one is made.
        report: takes a line before one is made.

    Raises:
        UsageError: LiteRT was asked for, and does not run this model.
    """
    if spec.form == "litert":
        spec = litert_forms.choose(spec, pictures, report)
        if spec.form == "litert":
            return spec
        if engine == "litert":
            raise UsageError(f"--engine litert: {spec.name} is run by TensorFlow only; {spec.form_note}.")
    return frozen_form.choose(spec, pictures, report)
