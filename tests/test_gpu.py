"""GPUs without one: what is asked of TensorFlow, and which process gets which. Nothing here has seen a real GPU."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from beam_jobs.cli.detect_job import processes_for
from beam_jobs.detectors.base import DetectorInfo
from beam_jobs.errors import UsageError
from beam_jobs.processes import calls, gpus, pool
from beam_jobs.processes.work import PictureSettings
from tests.test_pool import spec


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a driver with two GPUs."""
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / "gpus" / name).mkdir(parents=True)
    monkeypatch.delenv(gpus.GPU_VARIABLE, raising=False)
    return tmp_path / "gpus"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (None, ("0", "1")),
        ("1", ("1",)),
        ("1, 0", ("1", "0")),
        ("GPU-8f2,MIG-3", ("GPU-8f2", "MIG-3")),
        ("", ()),
        ("-1", ()),
        ("0,7,1", ("0",)),
    ],
)
def test_the_gpus_that_may_be_used(
    driver: Path, monkeypatch: pytest.MonkeyPatch, said: str | None, expected: tuple[str, ...]
) -> None:
    if said is not None:
        monkeypatch.setenv(gpus.GPU_VARIABLE, said)
    assert gpus.visible_gpus(driver) == expected
    assert gpus.visible_gpus(driver / "nothing") == ()


def test_processes_take_turns_at_the_gpus(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "visible_gpus", lambda: ("1", "3"))
    two = pool.DetectorPool(spec("colours"), PictureSettings(), 2)
    try:
        assert [two._environment(slot)[gpus.GPU_VARIABLE] for slot in range(3)] == ["1", "3", "1"]
        two.grow(3)
        assert two.size == 3
    finally:
        two.close()


def test_one_process_a_gpu_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    many = SimpleNamespace(inputs=1000, bytes=1 << 30)
    monkeypatch.setattr(gpus, "visible_gpus", lambda: ("0", "1", "2"))
    of_files = {"display": False, "input": ["in"], "input_format": "auto"}
    assert processes_for(SimpleNamespace(workers=None, **of_files), many, local=True) == 3  # type: ignore[arg-type]
    assert processes_for(SimpleNamespace(workers=7, **of_files), many, local=True) == 7  # type: ignore[arg-type]


def test_pictures_share_calls_on_a_gpu_unless_told_otherwise() -> None:
    on_gpu, on_cpu = DetectorInfo("tensorflow", on_gpu=True), DetectorInfo("tensorflow")
    assert calls.batch_pixels(None, on_gpu) == calls.GPU_BATCH_PIXELS
    assert [calls.batch_pixels(0, on_gpu), calls.batch_pixels(None, on_cpu), calls.batch_pixels(9, on_cpu)] == [0, 0, 9]


class _Config:
    """`tf.config` of a machine with two GPUs."""

    LogicalDeviceConfiguration = SimpleNamespace

    def __init__(self, *, in_use: bool = False) -> None:
        self.said: list[tuple[Any, ...]] = []
        self.in_use = in_use
        self.experimental = self

    def list_physical_devices(self, kind: str) -> list[str]:
        return [f"{kind}:0", f"{kind}:1"]

    def set_memory_growth(self, gpu: str, enable: bool) -> None:
        if self.in_use:
            raise RuntimeError("Physical devices cannot be modified after being initialized")
        self.said.append((gpu, enable))

    def set_logical_device_configuration(self, gpu: str, devices: list[Any]) -> None:
        self.said.append((gpu, [device.memory_limit for device in devices]))


def test_memory_grows_unless_it_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    from beam_jobs.detectors import gpu

    for limit, expected in ((None, True), (2000, [2000])):
        config = _Config()
        monkeypatch.setattr(gpu, "tf", SimpleNamespace(config=config))
        assert gpu.claim_gpus(limit) == 2
        assert config.said == [("GPU:0", expected), ("GPU:1", expected)]


def test_a_gpu_in_use_with_other_settings_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from beam_jobs.detectors import gpu

    monkeypatch.setattr(gpu, "tf", SimpleNamespace(config=_Config(in_use=True)))
    with pytest.raises(UsageError, match="open the detector first"):
        gpu.claim_gpus(None)


def test_without_a_gpu_nothing_is_claimed() -> None:
    from beam_jobs.detectors.gpu import claim_gpus

    assert claim_gpus(1000) == 0
