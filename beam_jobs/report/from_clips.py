"""What the page of a run shows of its clips: how long they are, what is in them and when, stills where most is.

Parts are read one at a time, and those of the clips that are shown a second time.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from urllib.parse import quote

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_jobs import storage
from beam_jobs.formats.parquet_results import read_columns
from beam_jobs.report.content import ClipContent, ClipRow, ClipsContent, GalleryItem, Timeline
from beam_jobs.report.found_pictures import found_picture
from beam_jobs.report.frames import ClipFrames, is_live
from beam_jobs.report.gallery import Gallery
from beam_jobs.report.numbers import clock
from beam_jobs.runs import layout
from beam_jobs.runs.manifest import Manifest, table_files
from beam_jobs.runs.parts import read_table

#: Clips that are listed, and those of them that have a timeline and stills: the ones in which most was found.
MOST_LISTED, MOST_SHOWN = 500, 12
_STILLS = 3
_BINS = 80
_CLASSES = 8
_NAMED = 3


@dataclass(frozen=True, slots=True, eq=False)
class _Frames:
    """The frames of a clip that were looked at, ascending, and the detections that count.

    Args:
        rows: int64 [N], rows of the part's `images`.
        times: float64 [N], seconds.
        owner: int64 [D], the place of each detection's frame among the N.
        category_ids: int64 [D].
        names: of the categories, by id.
    """

    video: str
    uri: str
    rows: NDArray[np.int64]
    times: NDArray[np.float64]
    owner: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    names: Mapping[int, str]

    @property
    def end_s(self) -> float:
        """When the last frame ends, as far as it can be told: each lasts until the next."""
        steps = np.diff(self.times)
        return float(self.times[-1] + (np.median(steps) if len(steps) else 0.0))

    def counts(self) -> NDArray[np.int64]:
        """int64 [N], detections by frame."""
        return np.bincount(self.owner, minlength=len(self.rows))

    def frequent(self, limit: int) -> list[int]:
        """The classes with most detections."""
        ids, counts = np.unique(self.category_ids, return_counts=True)
        return [int(ids[i]) for i in np.argsort(-counts, kind="stable")[:limit]]


def clips_content(root: str, manifest: Manifest, min_score: float, budget: int | None, folder: str) -> ClipsContent:
    """The clips in which most was found.

    Args:
        min_score: the least score of what is counted and drawn.
        budget: bytes of the stills in the page; 0 for none, None for as many as a page has.
        folder: the run's as the page links to it; empty for no links.
    """
    if not manifest.counts.clips + manifest.counts.streams:
        return ClipsContent()
    tracked = manifest.counts.tracks > 0
    parts = _parts(manifest)
    order = count()
    kept: list[tuple[int, int, int, ClipRow]] = []
    for part, files in parts.items():
        tracks = _tracks(root, files)
        for clip in _clips(root, files, min_score):
            row = _row(clip, tracks.get(clip.video, 0))
            # The number settles ties: what comes first stays.
            heapq.heappush(kept, (row.detections, -next(order), part, row))
            if len(kept) > MOST_LISTED:
                heapq.heappop(kept)
    best = heapq.nlargest(MOST_SHOWN, kept)
    chosen = {row.video for *_, row in best}
    clips = [
        (clip, parts[part])
        for part in sorted({part for _, _, part, _ in best})
        for clip in _clips(root, parts[part], min_score)
        if clip.video in chosen
    ]
    stills = _stills(root, clips, min_score, budget)
    links = {file.path: f"{folder}/{quote(file.path)}" for file in manifest.files} if folder else {}
    shown = [_content(clip, stills.get(clip.video, ()), links) for clip, _ in clips]
    listed = sorted((row for *_, row in kept), key=lambda row: row.video)
    return ClipsContent(tuple(listed), tuple(sorted(shown, key=lambda one: one.video)), next(order), tracked)


#: The files of each table of a part.
_Files = Mapping[str, Sequence[str]]


def _parts(manifest: Manifest) -> dict[int, _Files]:
    found: dict[int, dict[str, list[str]]] = {}
    for table in ("images", "detections", "tracks"):
        for path in table_files(manifest.files, table):
            part = layout.part_of(path)
            assert part is not None
            found.setdefault(part, {"images": [], "detections": [], "tracks": []})[table].append(path)
    return dict(sorted(found.items()))


def _clips(root: str, files: _Files, min_score: float) -> Iterator[_Frames]:
    """The clips of a part of which some frame was looked at."""
    columns = ["video", "uri", "timestamp_s", "frame", "num_detections"]
    tables = [read_columns(storage.join(root, path), columns) for path in files["images"]]
    images = pa.concat_tables(tables).combine_chunks()
    videos = images["video"].combine_chunks().dictionary_encode()
    if videos.null_count == len(images):
        return
    some_ids, some_owners, begin = [], [], 0
    names: dict[int, str] = {}
    for table, path in zip(tables, files["detections"], strict=True):
        found = read_columns(storage.join(root, path), ["category_id", "category", "score"])
        sure = found["score"].to_numpy() >= np.float32(min_score)
        of_table = found["category_id"].to_numpy().astype(np.int64)
        unique, first = np.unique(of_table, return_index=True)
        names.update(zip(unique.tolist(), found["category"].take(pa.array(first)).to_pylist(), strict=True))
        some_ids.append(of_table[sure])
        some_owners.append(begin + np.repeat(np.arange(len(table)), table["num_detections"].to_numpy())[sure])
        begin += len(table)
    ids, owners = np.concatenate(some_ids), np.concatenate(some_owners)
    of_image = videos.indices.fill_null(-1).to_numpy()
    frames, times = images["frame"].to_numpy(), images["timestamp_s"].to_numpy()
    for number, video in enumerate(videos.dictionary.to_pylist()):
        rows = np.flatnonzero(of_image == number)
        rows = rows[np.argsort(frames[rows], kind="stable")]
        place = np.full(len(images), -1)
        place[rows] = np.arange(len(rows))
        own = place[owners] >= 0
        uri = images["uri"][int(rows[0])].as_py()
        yield _Frames(video, uri, rows, times[rows], place[owners[own]], ids[own], names)


def _tracks(root: str, files: _Files) -> dict[str, int]:
    """How many objects were followed in each clip of a part."""
    found: Counter[str] = Counter()
    for path in files["tracks"]:
        found.update(read_columns(storage.join(root, path), ["video"])["video"].to_pylist())
    return found


def _row(clip: _Frames, tracks: int) -> ClipRow:
    return ClipRow(
        clip.video,
        len(clip.rows),
        float(clip.times[0]),
        clip.end_s,
        len(clip.category_ids),
        int(clip.counts().max(initial=0)),
        tracks,
        tuple(clip.names[number] for number in clip.frequent(_NAMED)),
    )


def _content(clip: _Frames, stills: Sequence[GalleryItem], links: Mapping[str, str]) -> ClipContent:
    annotated = layout.annotated_clip_path(clip.video, clip.uri)
    timeline = _timeline(clip, _peaks(clip) if stills else [])
    return ClipContent(clip.video, links.get(annotated, ""), timeline, tuple(stills), is_live(clip.uri))


def _timeline(clip: _Frames, marked: Sequence[int]) -> Timeline:
    begin, end = float(clip.times[0]), clip.end_s
    bins = min(_BINS, len(clip.rows))
    width = (end - begin) / bins or 1.0
    of_frame = np.clip(((clip.times - begin) / width).astype(np.int64), 0, bins - 1)
    frames = np.bincount(of_frame, minlength=bins)
    lanes = []
    for number in clip.frequent(_CLASSES):
        found = np.bincount(of_frame[clip.owner[clip.category_ids == number]], minlength=bins)
        means = np.divide(found, frames, out=np.full(bins, np.nan), where=frames > 0)
        lanes.append((clip.names[number], tuple(means.tolist())))
    edges = tuple((begin + width * np.arange(bins + 1)).tolist())
    return Timeline(edges, tuple(lanes), tuple(clip.times[list(marked)].tolist()))


def _peaks(clip: _Frames) -> list[int]:
    """The frames with most detections, ascending: the first of equals, and none near another."""
    counts = clip.counts()
    apart = (clip.end_s - float(clip.times[0])) / (2 * _STILLS)
    chosen: list[int] = []
    for at in np.argsort(-counts, kind="stable").tolist():
        if len(chosen) == _STILLS or not counts[at]:
            break
        if all(abs(clip.times[at] - clip.times[other]) >= apart for other in chosen):
            chosen.append(at)
    return sorted(chosen)


def _stills(
    root: str, clips: Sequence[tuple[_Frames, _Files]], min_score: float, budget: int | None
) -> dict[str, list[GalleryItem]]:
    """The peaks of the clips as pictures, by clip."""
    if budget == 0:
        return {}
    frames = ClipFrames()
    candidates, owners = [], {}
    for clip, files in clips:
        if is_live(clip.uri):
            continue
        for images, detections in _rows(root, files, clip.rows[_peaks(clip)]):
            for image in images.to_pylist():
                one = found_picture(image, detections, min_score, frames.want(image["uri"], image["frame"]))
                candidates.append(replace(one, caption=f"{clock(image['timestamp_s'])}: {one.caption}"))
                owners[one.file_name] = clip.video
    made = Gallery(frames.read) if budget is None else Gallery(frames.read, budget=budget)
    found: dict[str, list[GalleryItem]] = {}
    for item in made.items(candidates):
        found.setdefault(owners[item.file_name], []).append(item)
    return found


def _rows(root: str, files: _Files, rows: NDArray[np.int64]) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Some rows of a part's `images`, a file at a time, with all detections of the file."""
    begin = 0
    for path, beside in zip(files["images"], files["detections"], strict=True):
        images = read_table(root, path)
        some = rows[(rows >= begin) & (rows < begin + len(images))] - begin
        begin += len(images)
        if len(some):
            yield images.take(np.sort(some)), read_table(root, beside)
