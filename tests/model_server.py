"""A web server on loopback that serves archives, well or badly; and archives of models, good and bad."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import re
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

LAST_MODIFIED = "Sat, 11 Jul 2020 00:00:00 GMT"


@dataclass
class Fault:
    """What goes wrong with one GET.

    Args:
        kind: `stall` and `cut` after `after` bytes of the body; `status` answers with `code` instead; `lie` announces
            `after` bytes more (or fewer) than it sends.
    """

    kind: Literal["stall", "cut", "status", "lie"]
    after: int = 0
    code: int = 503
    then: Callable[[], None] = lambda: None


@dataclass
class ModelServer:
    """Serves `files` by path; every GET takes one of the `faults` first, as long as there are any.

    Args:
        understands: which headers of a resumed download it honours, and which it sends.
        asked: method, path and Range of every request.
        user: `name:password` that it wants to be given.
    """

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    understands: set[str] = field(default_factory=lambda: {"range", "if-range", "etag", "last-modified", "length"})
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    user: str | None = None
    stalled: threading.Event = field(default_factory=threading.Event)

    def asked_for(self, method: str = "GET") -> list[tuple[str, str | None]]:
        return [(path, range_) for how, path, range_ in self.asked if how == method]


def etag_of(data: bytes) -> str:
    return f'"{hashlib.sha256(data).hexdigest()[:16]}"'


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        ours = self.server.ours
        ours.asked.append((self.command, self.path, self.headers.get("Range")))
        data = ours.files.get(self.path)
        fault = ours.faults.pop(0) if body and ours.faults else None
        secret = base64.b64encode((ours.user or "").encode()).decode()
        is_known = ours.user is None or self.headers.get("Authorization") == f"Basic {secret}"
        if data is None or not is_known or (fault and fault.kind == "status"):
            self.send_response(fault.code if fault else 404 if is_known else 401)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = self._start(data)
        self.send_response(206 if start is not None else 200)
        if start is not None:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if "etag" in ours.understands:
            self.send_header("ETag", etag_of(data))
        if "last-modified" in ours.understands:
            self.send_header("Last-Modified", LAST_MODIFIED)
        sent = data[start or 0 :]
        length = len(sent) + (fault.after if fault and fault.kind == "lie" else 0)
        if "length" in ours.understands:
            self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")
        self.close_connection = True
        self.end_headers()
        if not body:
            return
        if fault and fault.kind in ("stall", "cut"):
            self.wfile.write(sent[: fault.after])
            self.wfile.flush()
            fault.then()
            if fault.kind == "stall":
                ours.stalled.wait(20)
            return
        self.wfile.write(sent[:length])

    def _start(self, data: bytes) -> int | None:
        ours = self.server.ours
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked is None or "range" not in ours.understands or int(asked[1]) >= len(data):
            return None
        condition = self.headers.get("If-Range")
        if condition and "if-range" in ours.understands and condition not in (etag_of(data), LAST_MODIFIED):
            return None
        return int(asked[1])


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    ours: ModelServer

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that stops in the middle is what is tested


@contextmanager
def serving() -> Iterator[ModelServer]:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.ours = ModelServer(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server.ours
        finally:
            server.ours.stalled.set()
            server.shutdown()
            thread.join()


#: A folder of the zoo's layout. Whoever only fetches it never looks into saved_model.pb.
ZOO_FILES: Mapping[str, bytes] = {
    "saved_model/saved_model.pb": b"graph",
    "saved_model/variables/variables.index": b"index",
    "saved_model/variables/variables.data-00000-of-00001": bytes(range(256)) * 400,
    "checkpoint/ckpt-0.index": b"checkpoint",
    "pipeline.config": b'num_classes: 90\nlabel_map_path: "PATH_TO_BE_CONFIGURED"\n',
}


def archive_of(files: Mapping[str, bytes], top: str = "model/") -> bytes:
    """A .tar.gz of files, incompressible enough to be cut off in the middle."""
    packed = io.BytesIO()
    zipped = gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=0, mtime=0)
    with zipped, tarfile.open(fileobj=zipped, mode="w|") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(top + name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def archive_of_members(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """A .tar.gz of members as they are, whatever they are."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for member, data in members:
            tar.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def member(
    name: str, data: bytes = b"", type: bytes = tarfile.REGTYPE, target: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = type, target, len(data)
    return info, data


def write_files(folder: Path, files: Mapping[str, bytes] = ZOO_FILES) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder
