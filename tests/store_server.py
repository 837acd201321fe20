"""Object stores on loopback: moto's S3, and a GCS emulator, each in a process of its own, with faults on demand.

    python -m tests.store_server s3|gs

The port is its first line of output. The S3 server takes one access key and one session token (`KEY_ID`, `TOKEN`).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

BUCKET = "pictures"
KEY_ID, SECRET, TOKEN = "AKIALOOPBACKTESTKEY0", "sEcReT/Loopback+0123456789abcdefghijklmn", "tOkEn//loopback//98765"
_CONTROL = "/_control"


@dataclass(frozen=True)
class Fault:
    """What goes wrong.

    Args:
        kind: a status with a code (`503 SlowDown`), `reset` (the connection), `half` (the body of an answer), `wait`.
        method: of the requests that it happens to; `*` for all.
        path: a pattern that is searched for in their paths.
        times: how often, for each method and path; so the same requests fail in every run.
        seconds: of `wait`.
    """

    kind: str
    method: str = "GET"
    path: str = ""
    times: int = 1
    seconds: float = 0.0


@dataclass(frozen=True)
class Store:
    """A server that runs.

    Args:
        scheme: of the URLs of its objects.
        environment: what clients need to find it.
    """

    port: int
    scheme: str
    environment: dict[str, str]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def set_faults(self, *faults: Fault) -> None:
        self._control({"faults": [asdict(fault) for fault in faults]})

    def injected(self) -> int:
        """How many requests have failed, or waited, so far."""
        return int(self._control({})["injected"])

    def list_many(self, prefix: str, count: int) -> None:
        """Lists so many objects below a prefix, 1,000 a page as S3 does. By itself: moto sorts all for each page."""
        self._control({"many": [prefix, count]})

    def _control(self, what: dict[str, Any]) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        with contextlib.closing(connection):
            connection.request("POST", _CONTROL, json.dumps(what))
            answer = connection.getresponse()
            assert answer.status == 200
            return dict(json.loads(answer.read()))


@contextlib.contextmanager
def running(scheme: str) -> Iterator[Store]:
    """A server, as long as the block takes."""
    command = [sys.executable, "-m", "tests.store_server", scheme]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            endpoint = f"http://127.0.0.1:{port}"
            if scheme == "s3":
                environment = {"AWS_ENDPOINT_URL": endpoint, "AWS_DEFAULT_REGION": "us-east-1"}
            else:
                environment = {"STORAGE_EMULATOR_HOST": endpoint}
            yield Store(port, scheme, environment)
        finally:
            process.kill()


class _Faults:
    """Which request fails, by the rules of the last call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[Fault] = []
        self._seen: Counter[tuple[int, str, str]] = Counter()
        self.injected = 0

    def control(self, what: dict[str, Any]) -> None:
        with self._lock:
            if "faults" in what:
                self._rules = [Fault(**rule) for rule in what["faults"]]
                self._seen.clear()
                self.injected = 0

    def of(self, method: str, path: str) -> Fault | None:
        with self._lock:
            for i, rule in enumerate(self._rules):
                if rule.method in (method, "*") and re.search(rule.path, path):
                    self._seen[i, method, path] += 1
                    if self._seen[i, method, path] <= rule.times:
                        self.injected += 1
                        return rule
        return None


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(connection.detach())  # now, whoever else has the connection


def _serve_s3() -> None:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from moto.s3.models import s3_backends
    from werkzeug.serving import WSGIRequestHandler, make_server

    moto = DomainDispatcherApplication(create_backend_app)
    faults = _Faults()
    many: dict[str, int] = {}
    s3_backends["123456789012"]["aws"].create_bucket(BUCKET, "us-east-1")

    def page(start: Any, prefix: str, count: int, first: int) -> list[bytes]:
        last = min(first + 1000, count)
        token = f"<NextContinuationToken>{last}</NextContinuationToken>" if last < count else ""
        objects = "".join(
            f"<Contents><Key>{prefix}{i:06d}.jpg</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>1</Size>"
            "</Contents>"
            for i in range(first, last)
        )
        truncated = "true" if token else "false"
        body = f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{token}{objects}</ListBucketResult>".encode()
        start("200 OK", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]

    def refusal(start: Any, status: str, code: str) -> list[bytes]:
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>as asked for</Message></Error>".encode()
        start(f"{status} {code}", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]

    def application(environ: dict[str, Any], start: Any) -> Any:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if path == _CONTROL:
            what = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
            faults.control(what)
            many.update([what["many"]] if "many" in what else [])
            start("200 OK", [("Content-Type", "application/json")])
            return [json.dumps({"injected": faults.injected}).encode()]
        fault = faults.of(method, path)
        if fault is not None and fault.kind == "wait":
            time.sleep(fault.seconds)
        elif fault is not None:
            # The body is read first: a client that is still sending would see something else.
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            if fault.kind == "reset":
                _reset(environ["werkzeug.socket"])
                raise ConnectionResetError
            if fault.kind != "half":
                return refusal(start, *fault.kind.split(" ", 1))
        if f"Credential={KEY_ID}/" not in environ.get("HTTP_AUTHORIZATION", ""):
            return refusal(start, "403", "InvalidAccessKeyId")
        if environ.get("HTTP_X_AMZ_SECURITY_TOKEN", TOKEN) != TOKEN:
            return refusal(start, "403", "InvalidToken")
        query = parse_qs(environ["QUERY_STRING"])
        if "list-type" in query and (prefix := query.get("prefix", [""])[0]) in many:
            return page(start, prefix, many[prefix], int(query.get("continuation-token", ["0"])[0]))
        answer = moto(environ, start)
        if fault is not None and fault.kind == "half":
            body = b"".join(answer)
            return [body[: len(body) // 2]]  # less than Content-Length says, and then the connection is closed
        return answer

    class Handler(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"  # keeps connections, as stores do

        def log(self, type: str, message: str, *args: Any) -> None:
            pass

    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Handler)
    print(server.port, flush=True)
    server.serve_forever()


def _serve_gcs() -> None:
    from gcp_storage_emulator.handlers.buckets import create_bucket
    from gcp_storage_emulator.server import RequestHandler
    from gcp_storage_emulator.storage import Storage

    faults = _Faults()
    lock = threading.Lock()  # the emulator is made for one request at a time
    files = Storage(True)
    create_bucket(BUCKET, files)

    class Handler(RequestHandler):
        def __getattribute__(self, name: str) -> Any:
            if name.startswith("do_"):
                return partial(self._do, super().__getattribute__(name))
            return super().__getattribute__(name)

        def _do(self, do: Any) -> None:
            if self.path == _CONTROL:
                faults.control(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self._answer(200, json.dumps({"injected": faults.injected}).encode())
                return
            fault = faults.of(self.command, self.path)
            if fault is None:
                with lock:
                    do()
            elif fault.kind == "reset":
                _reset(self.connection)
            else:
                self._answer(int(fault.kind.split()[0]), b'{"error": {"message": "as asked for"}}')

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 64

    server = Server(("127.0.0.1", 0), partial(Handler, files))
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    os.environ.update(AWS_ACCESS_KEY_ID=KEY_ID, AWS_SECRET_ACCESS_KEY=SECRET)
    {"s3": _serve_s3, "gs": _serve_gcs}[sys.argv[1]]()
