"""Servers of live streams on loopback: MJPEG over HTTP, MPEG-TS over UDP, RTSP. Frames show their numbers."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
from PIL import Image

from tests.clips import HEIGHT, WIDTH, frame_pixels

_ROOT = Path(__file__).parents[1]
#: It has GStreamer's bindings, where there are some.
_SYSTEM_PYTHON = "/usr/bin/python3"
#: Numbers repeat: a frame can show 8 bits.
NUMBERS = 256


class MjpegServer:
    """A camera's page of JPEGs.

    Args:
        rate: frames a second.
        stays: so many frames in a row show the same number.
        breaks: after so many frames of a connection it is cut; None for never.
        connections: it takes so many, and says 503 to later ones; None for any.
    """

    def __init__(self, rate: float, breaks: int | None, connections: int | None, stays: int) -> None:
        self.rate, self.breaks, self.connections, self.stays = rate, breaks, connections, stays
        self.opened: list[float] = []
        self.sent = 0
        self.stopped = threading.Event()


def _jpeg(number: int) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(frame_pixels(number % NUMBERS)).save(sink, "JPEG", quality=95)
    return sink.getvalue()


@contextmanager
def mjpeg_server(
    rate: float, breaks: int | None = None, connections: int | None = None, stays: int = 1
) -> Iterator[tuple[str, MjpegServer]]:
    """Serves; gives the address, with a user, a password and a query, and what has happened."""
    state = MjpegServer(rate, breaks, connections, stays)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.opened.append(time.monotonic())
            if state.connections is not None and len(state.opened) > state.connections:
                self.send_error(503)
                return
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            sent = 0
            try:
                while not state.stopped.wait(1 / state.rate) and sent != state.breaks:
                    data = _jpeg(state.sent // state.stays)
                    self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data))
                    self.wfile.write(data + b"\r\n")
                    sent += 1
                    state.sent += 1
            except OSError:
                return

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
    try:
        yield f"http://user:secret@127.0.0.1:{server.server_port}/mjpeg?key=secret", state
    finally:
        state.stopped.set()
        server.shutdown()
        server.server_close()


@contextmanager
def udp_sender(rate: int) -> Iterator[str]:
    """Sends MPEG-TS with H.264 to a free port, for ever; gives the address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    stopped = threading.Event()

    def send() -> None:
        target = f"udp://127.0.0.1:{port}?pkt_size=1316"
        with av.open(target, "w", format="mpegts", options={"flush_packets": "1"}) as container:
            stream: Any = container.add_stream(
                "libx264", rate=rate, options={"g": "5", "tune": "zerolatency", "preset": "ultrafast"}
            )
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            stream.codec_context.thread_count = 1
            number = 0
            while not stopped.wait(1 / rate):
                frame = av.VideoFrame.from_ndarray(frame_pixels(number % NUMBERS), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, rate)
                container.mux(stream.encode(frame))
                number += 1

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield f"udp://127.0.0.1:{port}"
    finally:
        stopped.set()
        thread.join(5)


def has_rtsp_server() -> bool:
    """Whether GStreamer's is there, with what it needs."""
    needed = "for n in ('qtdemux', 'h264parse', 'rtph264pay'): assert Gst.ElementFactory.find(n)"
    code = f"import tests.rtsp_server; from gi.repository import Gst; Gst.init(None)\n{needed}"
    return (
        os.path.exists(_SYSTEM_PYTHON)
        and subprocess.run([_SYSTEM_PYTHON, "-c", code], cwd=_ROOT, capture_output=True).returncode == 0
    )


@contextmanager
def rtsp_server(clip: Path) -> Iterator[str]:
    """Serves an MP4 with H.264, each connection from its beginning; gives the address."""
    command = [_SYSTEM_PYTHON, str(_ROOT / "tests/rtsp_server.py"), str(clip)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"rtsp://127.0.0.1:{int(process.stdout.readline())}/clip"
        finally:
            process.kill()
