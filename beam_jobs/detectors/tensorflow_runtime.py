"""TensorFlow itself, and its threads. Whoever needs TensorFlow takes it from here: importing it takes five seconds."""

from __future__ import annotations

import os

from beam_jobs.errors import UsageError

# TensorFlow reads it once, on import; a job's own lines would drown in its start-up notes.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

__all__ = ["set_threads", "tf"]


def set_threads(threads: int) -> None:
    """One thread pool of `threads`, and one operation at a time: results depend on how sums are split.

    Raises:
        UsageError: TensorFlow is in use with other numbers, which cannot be changed any more.
    """
    config = tf.config.threading
    wanted = (threads, 1)
    if (config.get_intra_op_parallelism_threads(), config.get_inter_op_parallelism_threads()) == wanted:
        return
    try:
        config.set_intra_op_parallelism_threads(threads)
        config.set_inter_op_parallelism_threads(1)
    except RuntimeError as error:
        raise UsageError(
            f"TensorFlow already runs in this process with other threads than the {threads} asked for: "
            "open the detector first, or in a process of its own."
        ) from error
