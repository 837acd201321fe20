"""What detector processes are spread over: the GPUs of this host, without asking TensorFlow, or else its cores."""

from __future__ import annotations

import os
from pathlib import Path

#: Tells CUDA which GPUs a process may see.
GPU_VARIABLE = "CUDA_VISIBLE_DEVICES"

_DRIVER_FOLDER = Path("/proc/driver/nvidia/gpus")


def suitable_processes() -> int:
    """How many detector processes this host should have: one a GPU, or else one a core."""
    return len(visible_gpus()) or len(os.sched_getaffinity(0))


def visible_gpus(folder: Path = _DRIVER_FOLDER) -> tuple[str, ...]:
    """The GPUs that may be used, each as a value of `CUDA_VISIBLE_DEVICES`; none without NVIDIA's driver.

    Whether TensorFlow can work with them, only it knows.
    """
    there = len(os.listdir(folder)) if folder.is_dir() else 0
    said = os.environ.get(GPU_VARIABLE)
    if said is None or not there:
        return tuple(map(str, range(there)))
    names = [name.strip() for name in said.split(",")]
    # As CUDA reads it: what is no GPU ends the list.
    ends = (i for i, name in enumerate(names) if name in ("", "-1") or (name.isdecimal() and int(name) >= there))
    return tuple(names[: next(ends, len(names))])
