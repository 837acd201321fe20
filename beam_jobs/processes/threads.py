"""The threads inside a detector process: all settings of all libraries, made before any of them is loaded."""

from __future__ import annotations


def thread_settings(threads: int) -> dict[str, str]:
    """Environment variables of a detector process with so many threads inside a call.

    There is a process for each core, so that more threads would only be in each other's way. What a call computes with
    is set where the model is opened, too (TensorFlow's pools, XNNPACK's through LiteRT), as results depend on it.
    """
    return {
        "OMP_NUM_THREADS": str(threads),  # OpenMP, and Arrow
        "OPENBLAS_NUM_THREADS": str(threads),  # numpy
        "MKL_NUM_THREADS": str(threads),  # numpy, where it is built with it
        "TF_NUM_INTRAOP_THREADS": str(threads),
        "TF_NUM_INTEROP_THREADS": "1",
    }
