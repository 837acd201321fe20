"""Where the pictures of a page are: in the run that found them, or in a folder that the user names."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_jobs import storage
from beam_jobs.errors import InputError, UsageError
from beam_jobs.formats.image_join import Joined
from beam_jobs.formats.parquet_results import read_columns
from beam_jobs.formats.tf_example import parse_image
from beam_jobs.formats.tfrecord import read_records
from beam_jobs.report.frames import ClipFrames
from beam_jobs.runs import layout
from beam_jobs.runs.manifest import Manifest, table_files

#: A picture that is larger is not read for a page.
MOST_BYTES = 1 << 28
#: Bytes of records that are looked through for a page: some seconds.
_MOST_SEARCHED = 1 << 30
_COLUMNS = ("image_id", "uri", "file_name", "sha256", "frame", "video")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a picture is.

    Args:
        record: the SHA-256 of a picture that is in a record of the file, else empty.
        frame: what the frames are asked for, of a frame of a clip; else empty.
    """

    uri: str
    record: str = ""
    frame: str = ""


class Pictures:
    """The encoded pictures of some images of a ground truth.

    Records are found by the SHA-256 of their pictures: a run does not say at which byte of its file one is.
    """

    def __init__(self, image_ids: Collection[int]) -> None:
        """Of the images with these ids of the truth; nothing says yet where they are."""
        self._places: dict[int, list[_Place]] = {number: [] for number in image_ids}
        self._records: dict[str, dict[str, bytes]] = {}
        self._searched = 0
        self._frames = ClipFrames()

    def add_run(self, root: str, manifest: Manifest, joined: Joined) -> None:
        """Those that a run has looked at.

        Args:
            joined: which image of the run is which of the truth.
        """
        at = np.flatnonzero(np.isin(joined.truth_ids, np.array(list(self._places), np.int64)))
        of_truth = dict(zip(joined.image_ids[at].tolist(), joined.truth_ids[at].tolist(), strict=True))
        ids = pa.array(sorted(of_truth), pa.int64())
        left = len(of_truth)
        for path in table_files(manifest.files, "images"):
            if not left:
                break
            table = read_columns(storage.join(root, path), _COLUMNS)
            for row in table.filter(pc.is_in(table["image_id"], value_set=ids)).to_pylist():
                self._places[of_truth[row["image_id"]]].append(self._place(row))
                left -= 1

    def add_folder(self, folder: str, images: pa.Table) -> None:
        """Those in a folder, by the name that the truth gives them, with and without its folders.

        Args:
            images: rows of `TRUTH_IMAGES`.
        """
        wanted = images.filter(pc.is_in(images["image_id"], value_set=pa.array(list(self._places), pa.int64())))
        for row in wanted.select(["image_id", "file_name"]).to_pylist():
            for name in dict.fromkeys((row["file_name"], row["file_name"].rpartition("/")[2])):
                self._places[row["image_id"]].append(_Place(storage.join(folder, name)))

    def read(self, image_id: int) -> bytes:
        """The picture of an image, from the first place that has it.

        Raises:
            InputError: there is no place, or no picture in it.
            OSError: the last place cannot be read.
        """
        failed: OSError | InputError = InputError("read", "not_found", "the run does not have it")
        for place in self._places[image_id]:
            try:
                return self._read(place)
            except (OSError, InputError) as error:
                failed = error
        raise failed

    def _place(self, row: Mapping[str, Any]) -> _Place:
        if row["video"] is not None:
            return _Place(row["uri"], frame=self._frames.want(row["uri"], row["frame"]))
        return _Place(row["uri"], "" if _is_file_of(row["uri"], row["file_name"]) else row["sha256"])

    def _read(self, place: _Place) -> bytes:
        if place.frame:
            return self._frames.read(place.frame)
        return self._record(place) if place.record else storage.read_bytes(place.uri, MOST_BYTES)

    def _record(self, place: _Place) -> bytes:
        if place.uri not in self._records:
            wanted = {one.record for places in self._places.values() for one in places if one.uri == place.uri}
            self._records[place.uri] = self._search(place.uri, wanted)
        try:
            return self._records[place.uri][place.record]
        except KeyError:
            why = "its record is far into its TFRecord file" if self._searched >= _MOST_SEARCHED else "it is gone"
            raise InputError("read", "not_found", why) from None

    def _search(self, uri: str, wanted: set[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        with storage.open_read(uri) as stream:
            for record in read_records(stream, max_bytes=MOST_BYTES):
                if isinstance(record, InputError):
                    continue
                self._searched += len(record)
                try:
                    encoded = parse_image(record).encoded
                except InputError:
                    continue
                digest = hashlib.sha256(encoded).hexdigest()
                if digest in wanted:
                    found[digest] = encoded
                if len(found) == len(wanted) or self._searched >= _MOST_SEARCHED:
                    break
        return found


def run_manifest(source: str) -> Manifest | None:
    """That of a run, if results are one that this version can read."""
    if not storage.exists(storage.join(source, layout.MANIFEST)):
        return None
    try:
        return Manifest.read(source)
    except UsageError:
        return None


def pictures_of(
    image_ids: Collection[int], images: pa.Table, runs: Iterable[tuple[str, Manifest | None, Joined]], folder: str
) -> Pictures:
    """The pictures of images of a truth, wherever they may be.

    Args:
        images: rows of `TRUTH_IMAGES`.
        runs: results, their manifest if they are a run, and which image is which of the truth.
        folder: of the pictures, by the truth's names; empty for none.
    """
    found = Pictures(image_ids)
    if folder:
        found.add_folder(folder, images)
    for root, manifest, joined in runs:
        if manifest:
            found.add_run(root, manifest, joined)
    return found


def _is_file_of(uri: str, file_name: str) -> bool:
    """Whether the picture is the file itself: a record has a name of its own."""
    return uri.rpartition("/")[2] == file_name.rpartition("/")[2]
