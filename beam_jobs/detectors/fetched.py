"""Fetched models in the cache: each host fetches one once, and knows it again.

The entry of a model holds its files in a folder of the model's name, and `source.json`. Where a job is started, what
arrives must be what arrived the first time (`pins`); on a worker, what the job was started with.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec

from beam_jobs import storage
from beam_jobs.detectors import archive, cache, download, transfer, zoo
from beam_jobs.detectors.base import Origin
from beam_jobs.detectors.cache import Report
from beam_jobs.detectors.download import DownloadError, NotThereError, Watch
from beam_jobs.detectors.pins import Pin, lock_path, read_pin, write_pin
from beam_jobs.detectors.sources import MIRROR, Source
from beam_jobs.errors import UsageError
from beam_jobs.words import shown_url

# Of the layout of an entry: raise it when that changes.
_RECIPE = "fetched 1"
_SOURCE = "source.json"
# Models that are one file: TFLite, and frozen graphs of TensorFlow 1.
_MODEL_FILES = (".tflite", ".pb")


class Provenance(msgspec.Struct, frozen=True):
    """`source.json` of an entry: where it was fetched from.

    Args:
        given: what stands for it on a command line.
        url: without what may be secret in it.
        archive_sha256: of the archive (hex); None when it was a folder.
        stamp: what changes when it changes there; "" when that cannot be told.
    """

    name: str
    given: str
    url: str
    archive_sha256: str | None
    stamp: str


@dataclass(frozen=True, slots=True)
class _Expected:
    """What must arrive, as far as it is known (sha256, hex), who says so, and what to do when something else does.

    In `remedy`, `(found)` stands for the sha256 of what arrived.
    """

    archive: str | None = None
    contents: str | None = None
    said_by: str = ""
    remedy: str = ""

    def is_met(self, archive_sha256: str | None, contents: Callable[[], str]) -> bool:
        """Whether this is it. An archive is compared before it is unpacked, if it can be."""
        if self.archive and archive_sha256:
            return self.archive == archive_sha256
        return self.contents is None or self.contents == contents()


def nobody(have: int, size: int | None) -> None:
    """A `Watch` that shows nothing."""


def fetch(source: Source, report: Report, watch: Watch = nobody, sha256: str | None = None) -> Origin:
    """Has the model in this machine's cache, fetched first when need be.

    Args:
        sha256: (hex) of the archive, or of a folder's contents: what must arrive, whatever arrived before.

    Raises:
        UsageError: it cannot be fetched or kept, or it is not what is expected; the message says how to go on.
    """
    pin = read_pin(source.entry)
    if sha256 is not None:
        expected = _Expected(sha256, sha256, "--sha256 says", "Fetch it from where that one is.")
    elif pin is not None:
        remedy = f"If the new one is meant: beam-detect models fetch {source.given} --sha256 (found)"
        expected = _Expected(pin.archive_sha256, pin.contents_sha256, f"{lock_path()}, of its first time, has", remedy)
    else:
        expected = _Expected()
    stamp = ""
    if not source.is_fixed and cache.is_cached(source.entry):
        stamp = transfer.stamp_of(source.urls[0])
        if not stamp:
            report(f"whether {source.given} has changed cannot be told: the cached one is used")
    entry = _ensure(source, expected, report, watch, stamp)
    found = provenance(entry)
    new = Pin(found.url, contents_of(entry, found.name), found.archive_sha256)
    if new != pin:
        try:
            write_pin(source.entry, new)
        except OSError as error:  # a cache that came with an image may be read-only
            report(f"{lock_path()} cannot be written: {storage.reason(error)}")
    return Origin(source.name, source.entry, source.urls, new.contents_sha256, new.archive_sha256)


def fetch_again(origin: Origin, report: Report) -> Path:
    """The entry in this machine's cache that holds what `origin` says, and nothing else.

    Raises:
        UsageError: as `fetch`.
    """
    source = Source(origin.name, origin.entry, origin.urls, is_fixed=True, given=shown_url(origin.urls[0]))
    remedy = "It has changed since the job was started: start the job again."
    expected = _Expected(origin.archive_sha256, origin.contents_sha256, "the job was started with", remedy)
    return _ensure(source, expected, report, nobody, "")


def model_in(folder: Path) -> Path:
    """What was fetched, as a path that `--model` could have been given: the folder, or the only file in it."""
    found = list(folder.iterdir())
    return found[0] if len(found) == 1 and found[0].suffix in _MODEL_FILES else folder


def provenance(entry: Path) -> Provenance:
    """Where an entry was fetched from. FileNotFoundError when it was not fetched by this module."""
    return msgspec.json.decode((entry / _SOURCE).read_bytes(), type=Provenance)


def contents_of(entry: Path, name: str) -> str:
    """sha256 (hex) of the model's files in an entry, as its manifest says they are."""
    top = f"{name}/"
    return _digest({path.removeprefix(top): said for path, said in cache.files_of(entry).items() if path != _SOURCE})


def _digest(files: Mapping[str, Mapping[str, int | str]]) -> str:
    """Of one line a file, in the order of their names: name, NUL, the file's sha256."""
    lines = "".join(f"{name}\0{said['sha256']}\n" for name, said in sorted(files.items()))
    return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()


def _ensure(source: Source, expected: _Expected, report: Report, watch: Watch, stamp: str) -> Path:
    def is_wanted(entry: Path) -> bool:
        found = provenance(entry)
        is_current = not stamp or found.stamp == stamp
        return is_current and expected.is_met(found.archive_sha256, lambda: contents_of(entry, found.name))

    return cache.ensure(
        source.entry, _RECIPE, lambda folder: _build(folder, source, expected, report, watch), report, is_wanted
    )


def _build(folder: Path, source: Source, expected: _Expected, report: Report, watch: Watch) -> None:
    tree = folder / source.name
    tree.mkdir()
    part = folder.parent / f".{source.entry}.part"
    arrived = _bring_first(source, part, tree, report, watch)
    where = shown_url(arrived.url)
    archive_sha256 = None
    if arrived.is_file:
        try:
            archive_sha256 = _take_file(part, tree, source, where, expected)
        except UsageError:
            download.discard(part)  # it would be wrong the next time, too
            raise

    def contents() -> str:
        return _digest(cache.describe(tree))

    if not expected.is_met(archive_sha256, contents):
        raise _mismatch(source, where, contents(), expected.contents or "", expected)
    made = Provenance(source.name, source.given, where, archive_sha256, arrived.stamp)
    (folder / _SOURCE).write_bytes(msgspec.json.format(msgspec.json.encode(made), indent=1) + b"\n")
    download.discard(part)


def _bring_first(source: Source, part: Path, tree: Path, report: Report, watch: Watch) -> transfer.Arrived:
    """Brings the model from the first of its places where it is."""
    missing: list[str] = []
    for url in source.urls:
        if not missing:
            report(f"fetching {source.name} from {shown_url(url)} …")
        try:
            return transfer.bring(url, part, tree, watch)
        except NotThereError as error:
            missing.append(str(error))
        except DownloadError as error:
            raise UsageError(f"{error}. {_remedy(source)}") from error
    raise UsageError(f"{'; '.join(missing)}. {_remedy(source)}")


def _take_file(part: Path, tree: Path, source: Source, where: str, expected: _Expected) -> str:
    """Checks the file that arrived; puts it, or what is in it if it is an archive, into `tree`. Gives its sha256."""
    found = cache.sha256_of(part)
    if expected.archive not in (None, found):
        raise _mismatch(source, where, found, expected.archive or "", expected)
    ending = PurePosixPath(where.removesuffix("?…")).suffix
    if archive.is_gzip(part):
        _unpack(part, tree, source, where)
    elif ending in _MODEL_FILES:
        shutil.copyfile(part, tree / f"{source.name}{ending}")
    else:
        raise UsageError(f"{where} is no model: it is a file, but no .tar.gz. {_remedy(source)}")
    return found


def _unpack(part: Path, tree: Path, source: Source, where: str) -> None:
    """Unpacks an archive to `tree`, without the one folder that holds all, if there is one."""
    unpacked = tree.with_name(".unpacked")  # no model is called so
    unpacked.mkdir()
    try:
        archive.unpack(part, unpacked)
    except archive.ArchiveError as error:
        raise UsageError(f"{where} cannot be unpacked: it {error}. {_remedy(source)}") from error
    # Archives made on a Mac hold files `._x` beside x, with what only a Mac knows of it.
    tops = [path for path in unpacked.iterdir() if not path.name.startswith("._")]
    is_model = (unpacked / "saved_model").is_dir()
    top = tops[0] if len(tops) == 1 and tops[0].is_dir() and not is_model else unpacked
    tree.rmdir()
    top.rename(tree)
    shutil.rmtree(unpacked, ignore_errors=True)


def _mismatch(source: Source, where: str, found: str, wanted: str, expected: _Expected) -> UsageError:
    return UsageError(
        f"{source.name} from {where} is not what is expected: its sha256 is {found}; {expected.said_by} {wanted}. "
        f"{expected.remedy.replace('(found)', found)}"
    )


def _remedy(source: Source) -> str:
    by_hand = "or put the unpacked model into a folder and give --model its path."
    is_of_zoo = source.entry in zoo.ZOO
    if is_of_zoo and Path(source.name).is_dir():
        by_hand = f"or give --model ./{source.name}, the folder that is here."
    mirror = f"let {MIRROR} name a server or folder with the zoo's layout, " if is_of_zoo else ""
    return f"Check the address, the network and the proxy (http_proxy, https_proxy), {mirror}{by_hand}"
