"""`--profile`: where the time of all cores went while pictures were detected."""

from __future__ import annotations

import time
from collections.abc import Mapping

from beam_jobs.engines.local import LocalRun
from beam_jobs.processes.pool import DetectorPool
from beam_jobs.words import counted

#: The lines of the table, and what of the detector processes' steps (`SPENT_STEPS`) is in each.
_LINES: Mapping[str, tuple[str, ...]] = {
    "read": ("read",),
    "decode": ("decode",),
    "batch": ("batch",),
    "infer": ("infer",),
    "post-process": ("post-process",),
    "write": ("annotate", "rows"),
}
_MEANINGS: Mapping[str, str] = {
    "batch": "the network's input, made of the pictures",
    "post-process": "where it is not inside the network",
    "write": "rows, tables, annotated pictures",
    "opening": "detectors, in processes that started later than the first",
    "Beam overhead": "the launcher: Beam, the detector processes' lines, progress",
    "idle": "waiting, and what other programs took",
}


class DetectStage:
    """CPU time of the detect stage on the local engine. Made at its start.

    Args:
        pool: its detector processes.
    """

    def __init__(self, pool: DetectorPool) -> None:
        self._pool = pool
        self._start, self._cpu_start = time.monotonic(), time.process_time()

    def cpu_s(self, run: LocalRun) -> dict[str, float]:
        """CPU seconds so far, by line of the table, without idle."""
        spent = self._pool.cpu_s
        seconds = {line: sum(spent[step] for step in steps) for line, steps in _LINES.items()}
        seconds["write"] += run.write_cpu_s
        seconds["opening"] = sum(
            max(0.0, load.ended - max(self._start, load.ended - load.seconds)) for load in self._pool.loads
        )
        seconds["Beam overhead"] = max(0.0, time.process_time() - self._cpu_start - run.write_cpu_s)
        return {line: round(value, 3) for line, value in seconds.items()}


def profile(cpu_s: Mapping[str, float], wall_s: float, cores: int, pictures: int) -> str:
    """The table: core milliseconds a picture and the share of all cores by step. The shares add up to 100%.

    Args:
        cpu_s: see `DetectStage.cpu_s`.
        wall_s: of the detect stage.
        pictures: that were done, whatever became of them.
    """
    whole = max(cores * wall_s, sum(cpu_s.values()))
    seconds = {line: value for line, value in cpu_s.items() if value or line != "opening"}
    seconds["idle"] = whole - sum(seconds.values())
    shares = dict(zip(seconds, _tenths([value / whole for value in seconds.values()]), strict=True))
    lines = [f"{'step':<14} {'ms a picture':>12} {'of all cores':>13}"]
    for line, value in seconds.items():
        share = shares[line] / 10
        words = f"{line:<14} {value * 1e3 / max(pictures, 1):>12.2f} {share:>12.1f}%"
        lines.append(f"{words}  {_MEANINGS[line]}" if line in _MEANINGS else words)
    lines.append(f"{'all':<14} {whole * 1e3 / max(pictures, 1):>12.2f} {sum(shares.values()) / 10:>12.1f}%")
    done = counted(pictures, "picture was", "pictures were")
    title = f"CPU time of the {wall_s:.1f} s in which {done} done, on {counted(cores, 'core')}"
    return "\n".join([title, *lines])


def _tenths(shares: list[float]) -> list[int]:
    """The shares in tenths of a percent, rounded so that they keep their sum."""
    exact = [share * 1000 for share in shares]
    rounded = [int(value) for value in exact]
    by_rest = sorted(range(len(exact)), key=lambda i: rounded[i] - exact[i])
    for i in by_rest[: round(sum(exact)) - sum(rounded)]:
        rounded[i] += 1
    return rounded
