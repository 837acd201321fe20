"""GPUs, as TensorFlow sees them."""

from __future__ import annotations

from beam_jobs.detectors.tensorflow_runtime import tf
from beam_jobs.errors import UsageError

#: Threads that call a model of a fixed batch of 1: while one is at the GPU, others prepare and read back.
GPU_CALLERS = 4


def claim_gpus(memory_limit_mb: int | None) -> int:
    """Says what memory TensorFlow may take of each GPU, before its first use; returns how many it sees.

    Args:
        memory_limit_mb: the most; None to begin with little and take more as it is needed. (Left to itself, TensorFlow
            takes all at once.)

    Raises:
        UsageError: it is in use already with other settings.
    """
    config = tf.config
    gpus = config.list_physical_devices("GPU")
    try:
        for gpu in gpus:
            if memory_limit_mb is None:
                config.experimental.set_memory_growth(gpu, True)
            else:
                limit = config.LogicalDeviceConfiguration(memory_limit=memory_limit_mb)
                config.set_logical_device_configuration(gpu, [limit])
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            "TensorFlow already uses the GPU in this process with other settings of memory: "
            "open the detector first, or in a process of its own."
        ) from error
    return len(gpus)
