"""Object detectors: what `--model` may name, and how each kind is opened.

`catalogue.resolve` says which detector a name means, without loading it; `open_detector` loads it.
"""

from __future__ import annotations

from beam_jobs.detectors.base import Detector, DetectorSpec


def open_detector(spec: DetectorSpec) -> Detector:
    """Loads `spec`; imports TensorFlow for the kinds that need it, and only then.

    Once per process: TensorFlow's number of threads cannot be changed after its first use. A model that this host has
    not got in its cache, as on a worker, is fetched first.

    Raises:
        UsageError: what is there is not a detector; the message says what was found and what is needed.
    """
    # Loaders are imported where they are used: describing a detector must not cost TensorFlow's five seconds.
    if spec.origin is not None:
        from beam_jobs.detectors.catalogue import on_this_host

        spec = on_this_host(spec)
    if spec.kind == "factory":
        from beam_jobs.detectors.factory import open_factory

        return open_factory(spec)
    if spec.form == "litert":
        from beam_jobs.detectors.litert_detector import open_litert
        from beam_jobs.detectors.litert_forms import obtain

        return open_litert(obtain(spec), spec)
    if spec.kind == "tflite":
        from beam_jobs.detectors.tflite import open_tflite

        return open_tflite(spec)
    from beam_jobs.detectors.tensorflow_detector import open_tensorflow

    return open_tensorflow(spec)
