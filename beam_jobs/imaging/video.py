"""Clips: files of moving pictures, told apart by content, demuxed and decoded by FFmpeg through PyAV.

How frames become 8-bit RGB: matrix and range are those that the frame states; where it states no matrix, BT.709 from
720 lines on and BT.601 below, as players do. Of more than 8 bits the upper ones are kept; no tone mapping, no gamma,
alpha is ignored, and pixels that are not square stay as they are stored. The display matrix is applied.

A clip is opened with the demuxer of its own kind, so that no file makes FFmpeg open others, as a playlist would.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from beam_jobs import storage
from beam_jobs.errors import InputError
from beam_jobs.imaging.decode import Decoded

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

#: So many bytes of a file tell whether it is a clip.
HEAD_BYTES = 512
#: Bytes that are asked of a file at a time.
_BUFFER = 1 << 17
#: Packets after which somebody is told that reading goes on.
_TELL_PACKETS = 256

#: FFmpeg's demuxers: where the mark is, the mark.
_MARKS: tuple[tuple[str, tuple[tuple[int, bytes], ...]], ...] = (
    *(("mov", ((4, kind),)) for kind in (b"ftyp", b"moov", b"mdat", b"wide", b"pnot", b"styp")),
    ("matroska", ((0, b"\x1a\x45\xdf\xa3"),)),
    ("avi", ((0, b"RIFF"), (8, b"AVI "))),
    ("mpegts", ((0, b"G"), (188, b"G"), (376, b"G"))),
    ("mpegts", ((4, b"G"), (196, b"G"), (388, b"G"))),
    ("mpeg", ((0, b"\0\0\1\xba"),)),
    ("mpegvideo", ((0, b"\0\0\1\xb3"),)),
    ("flv", ((0, b"FLV\1"),)),
    ("asf", ((0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),)),
    ("ogg", ((0, b"OggS"),)),
    ("ivf", ((0, b"DKIF"),)),
    ("yuv4mpegpipe", ((0, b"YUV4MPEG2 "),)),
)
#: What begins like an MP4 and is a picture.
_PICTURE_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis", b"jxl ", b"crx ")


def demuxer_of(head: bytes) -> str | None:
    """FFmpeg's name of the kind of clip that begins with `head` (`HEAD_BYTES` of it); None for anything else."""
    if head[4:8] == b"ftyp" and head[8:12] in _PICTURE_BRANDS:
        return None
    for demuxer, marks in _MARKS:
        if all(head.startswith(mark, at) for at, mark in marks):
            return demuxer
    return None


@dataclass(frozen=True, slots=True)
class ClipFile:
    """A clip.

    Args:
        uri: the path that is opened.
        demuxer: of `demuxer_of`.
    """

    uri: str
    demuxer: str


def clip_at(uri: str) -> ClipFile | None:
    """What a file is, if it is a clip. Raises `OSError`: it cannot be read."""
    with storage.open_read(uri) as stream:
        demuxer = demuxer_of(stream.read(HEAD_BYTES))
    return ClipFile(uri, demuxer) if demuxer else None


class Encoded(NamedTuple):
    """What is known of the packet that a frame was in."""

    bytes: int
    sha256: str


class Shown(NamedTuple):
    """A frame as it leaves the decoder, in order of presentation; what went wrong in the place of one that did not.

    Args:
        pts: its presentation time in units of the stream's time base; None where nobody says.
        encoded: of the packet it was in, if the decoder says which.
    """

    pts: int | None
    frame: VideoFrame | None
    codec: str = ""
    encoded: Encoded | None = None
    error: str = ""


@contextmanager
def opened(clip: ClipFile) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The clip, and its first video stream that is no cover.

    Raises:
        InputError: stage `decode`: it is damaged, or has no video.
        OSError: it cannot be read.
    """
    import av

    with storage.open_read(clip.uri) as file:
        try:
            container = av.open(file, "r", format=clip.demuxer, buffer_size=_BUFFER, metadata_errors="replace")
        except av.FFmpegError as error:
            why = f"its beginning or its index is damaged or missing ({error_words(error)})"
            raise InputError("decode", "corrupt", f"The clip cannot be opened: {why}.") from error
        with container:
            streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
            if not streams:
                what = "sound and no pictures" if container.streams.audio else "no video stream"
                raise InputError("decode", "no_video", f"The clip has {what}.")
            stream = streams[0]
            if stream.codec_context is None:
                raise InputError("decode", "unsupported", "The codec of the clip is not known.")
            stream.codec_context.thread_count = 1
            yield container, stream


def error_words(error: Exception) -> str:
    """FFmpeg's words for an error, without addresses and file names."""
    return str(getattr(error, "strerror", None) or type(error).__name__)


def decoded(clip: ClipFile, key: int | None, told: Callable[[], None], *, keyframes: bool = False) -> Iterator[Shown]:
    """The frames from a keyframe on, in order of presentation. Of those before it in time, some may come first.

    Args:
        key: the keyframe's presentation time; None for the beginning of the clip.
        told: called now and then while nothing comes.
        keyframes: only keyframes are wanted: a decoder that can leaves out the others.

    Raises:
        InputError: the clip does not have this keyframe, or cannot be opened.
        OSError: it cannot be read.
    """
    for seeks in (True, False) if key is not None else (False,):
        found = False
        with opened(clip) as (container, stream):
            codec = stream.codec_context
            codec.copy_opaque = True
            if keyframes:
                codec.skip_frame = "NONKEY"
            for packet in _packets_from(container, stream, key, told, seeks=seeks):
                found = True
                yield from _decode(stream, packet)
            if found or key is None:
                yield from _decode(stream, None)
                return
    raise InputError("decode", "changed", "The clip is not what it was when its frames were listed.")


def _packets_from(
    container: InputContainer, stream: VideoStream, key: int | None, told: Callable[[], None], *, seeks: bool
) -> Iterator[Packet[VideoStream]]:
    """The packets from a keyframe on; none if it was missed."""
    import av

    if seeks and key is not None:
        try:
            container.seek(key, stream=stream)
        except av.FFmpegError:
            return
    begun = key is None
    try:
        for count, packet in enumerate(container.demux(stream)):
            if count % _TELL_PACKETS == 0:
                told()
            if not begun:
                if packet.is_keyframe and packet.pts == key:
                    begun = True
                elif seeks and packet.dts is not None and key is not None and packet.dts > key:
                    return
                else:
                    continue
            if packet.size:
                yield packet
    except av.FFmpegError:
        return  # the index has found this, and says where the clip breaks off


def _decode(stream: VideoStream, packet: Packet[VideoStream] | None) -> Iterator[Shown]:
    import av

    if packet is not None:
        data = bytes(packet)
        packet.opaque = Encoded(len(data), hashlib.sha256(data).hexdigest())
    try:
        frames = stream.codec_context.decode(packet)
    except av.EOFError:
        return
    except av.FFmpegError as error:
        yield Shown(None if packet is None else packet.pts, None, error=error_words(error))
        return
    for frame in frames:
        encoded: Any = frame.opaque
        yield Shown(frame.pts, frame, stream.codec_context.name, encoded)


def to_rgb(frame: VideoFrame, codec: str) -> Decoded:
    """The frame upright in RGB; the policy is in the module's docstring.

    Raises:
        InputError: stage `decode`, `unsupported`: there is no way from its pixels to RGB.
    """
    import av
    from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

    global _REFORMATTER
    _REFORMATTER = _REFORMATTER or VideoReformatter()
    unspecified = frame.colorspace == _UNSPECIFIED
    matrix = (Colorspace.ITU709 if frame.height >= _HD_LINES else Colorspace.ITU601) if unspecified else None
    try:
        rgb = _REFORMATTER.reformat(
            frame, format="rgb24", src_colorspace=matrix, dst_color_range=ColorRange.JPEG, threads=1
        )
        pixels: NDArray[np.uint8] = rgb.to_ndarray()
    except (av.FFmpegError, ValueError) as error:
        kind = frame.format.name
        raise InputError("decode", "unsupported", f"Frames of the pixel format {kind} are not read.") from error
    orientation = _orientation(frame)
    return Decoded(np.ascontiguousarray(_UPRIGHT[orientation](pixels)), codec.upper(), orientation)


_REFORMATTER: Any = None
_UNSPECIFIED, _HD_LINES = 2, 720

#: What makes a frame upright, by the EXIF orientation that says the same as its display matrix.
_UPRIGHT: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: pixels.transpose(1, 0, 2)[:, ::-1],
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: lambda pixels: pixels.transpose(1, 0, 2)[::-1],
}
#: x' = a x + c y, y' = b x + d y, as signs (a, b, c, d).
_ORIENTATIONS = {
    (-1, 0, 0, 1): 2,
    (-1, 0, 0, -1): 3,
    (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5,
    (0, 1, -1, 0): 6,
    (0, -1, -1, 0): 7,
    (0, -1, 1, 0): 8,
}


def _orientation(frame: VideoFrame) -> int:
    """The display matrix as an EXIF orientation; 1 for turns that are not by right angles.

    FFmpeg's form of it: nine int32, a b u c d v x y w, the first in 16.16 (libavutil/display.h).
    """
    from av.sidedata.sidedata import SideDataContainer

    # Not `frame.side_data`: a frame that holds what holds it stays in memory until Python looks for such circles.
    side_data: Any = SideDataContainer
    matrix = side_data(frame).get("DISPLAYMATRIX")
    if matrix is None:
        return 1
    a, b, _, c, d, *_ = np.frombuffer(bytes(matrix), np.int32)[:9].tolist()
    return _ORIENTATIONS.get(tuple(round(each / 65536) for each in (a, b, c, d)), 1)
