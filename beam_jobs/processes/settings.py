"""What a detector process is started with: settings of all its libraries, made before any of them is loaded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa


def process_settings(threads: int) -> dict[str, str]:
    """Environment variables of a detector process with so many threads inside a call.

    Threads: there is a process for each core, so that more would only be in each other's way. One process with as many
    threads is no better, not for TensorFlow either: exports of SSD MobileNetV2 and EfficientDet-D0 took 85 and 590 ms
    of CPU a picture with one thread, 130 and 600 to 870 with two, and were no quicker with these. What a call computes
    with is set where the model is opened, too (TensorFlow's pools, XNNPACK's through LiteRT): results depend on it.

    Memory: decoded and resized pictures are megabytes each. By itself glibc gives that back to the system when it is
    freed, and the system makes and zeroes each page anew for the next picture, which takes longer than the resizing.
    """
    return {
        "OMP_NUM_THREADS": str(threads),  # OpenMP, and Arrow
        "OPENBLAS_NUM_THREADS": str(threads),  # numpy
        "MKL_NUM_THREADS": str(threads),  # numpy, where it is built with it
        "TF_NUM_INTRAOP_THREADS": str(threads),
        "TF_NUM_INTEROP_THREADS": "1",
        "MALLOC_MMAP_THRESHOLD_": str(32 << 20),  # the most that glibc takes
        "MALLOC_TRIM_THRESHOLD_": str(128 << 20),
    }


def keep_pandas_out() -> None:
    """Has pyarrow go without pandas for good. Whoever asks it for a data frame later still gets one.

    Not for processes with code of somebody else's, which may give pyarrow something of pandas'.
    """
    with without_pandas():
        pa.array([0])  # pyarrow looks once


@contextmanager
def without_pandas() -> Iterator[None]:
    """What is imported meanwhile goes without pandas, which takes 0.2 s or more.

    pyarrow and Beam import it only to know what is pandas' by sight.
    """
    sys.meta_path.insert(0, _NoPandas)
    try:
        yield
    finally:
        sys.meta_path.remove(_NoPandas)


class _NoPandas:
    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)
