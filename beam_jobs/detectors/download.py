"""Downloading a file by http(s): resumed where it was cut off, tried again when it stalls, checked against its length.

Beside the unfinished file lies a note of what the server said of it (ETag, Last-Modified, length), so that a later
try, also one of another process, goes on only with the same file: RFC 9110, sections 13.1.5 (If-Range) and 14.
"""

from __future__ import annotations

import base64
import http.client
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from beam_jobs.errors import DECODE_ERRORS
from beam_jobs.words import shown_url, without_user

#: Takes how many bytes have arrived, and how many there will be, if that is known.
Watch = Callable[[int, int | None], None]

#: A server that says nothing for so long is given up, and asked again.
STALL_SECONDS = 30.0
#: The waits between tries that brought nothing new; after the last one the download has failed.
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
#: So many of them when no connection comes about at all: without a network nobody should wait for long.
CONNECTING_PAUSES = 1
#: The zoo's largest archives have 1.5 GB.
MAX_BYTES = 8 << 30

_CHUNK = 1 << 16
_TRY_AGAIN = (408, 425, 429)
_GONE = (404, 410)


class DownloadError(Exception):
    """The file cannot be downloaded. The message names the address and the reason; what to do is for the caller."""


class NotThereError(DownloadError):
    """The server has no such file."""


class _TryAgainError(Exception):
    """This try failed, another may not.

    Args:
        pauses: how many further tries it is worth.
    """

    def __init__(self, reason: str, pauses: int | None = None) -> None:
        super().__init__(reason)
        self.pauses = len(PAUSES) if pauses is None else min(pauses, len(PAUSES))


class _Note(msgspec.Struct, frozen=True):
    """What the server said of a file, by which it can be recognised. Empty: it did not say."""

    url: str
    etag: str
    last_modified: str
    size: int | None

    @staticmethod
    def of(url: str, headers: Message, size: int | None) -> _Note:
        return _Note(url, headers.get("ETag", ""), headers.get("Last-Modified", ""), size)

    @property
    def validator(self) -> str:
        """For If-Range; a weak ETag does not promise the same bytes."""
        return self.last_modified if self.etag.startswith("W/") or not self.etag else self.etag

    @property
    def stamp(self) -> str:
        return f"{self.etag or self.last_modified} {self.size}" if self.etag or self.last_modified else ""


def is_http(url: str) -> bool:
    """Whether it is for this module."""
    return re.match(r"https?://", url, re.IGNORECASE) is not None


def download(url: str, part: Path, watch: Watch) -> str:
    """Downloads to the file `part`, going on with what an earlier try left there.

    Returns:
        What `stamp_of` says of the file, or "" when the server says nothing of the kind.

    Raises:
        NotThereError: the server has no such file.
        DownloadError: it cannot be reached, refuses, goes on failing, or the file has more than `MAX_BYTES`.
        OSError: `part` cannot be written.
    """
    most, failures = 0, 0
    while True:
        try:
            return _try(url, part, watch)
        except _TryAgainError as error:
            have = _size(part)
            failures = 0 if have > most else failures + 1
            most = max(most, have)
            if failures > error.pauses:
                raise DownloadError(f"{shown_url(url)} cannot be downloaded: {error}") from error
            time.sleep(PAUSES[max(failures - 1, 0)])


def stamp_of(url: str) -> str:
    """What changes when the file does, from the server's headers alone; "" when it cannot be told."""
    try:
        with _open(url, "HEAD", {}) as answer:
            return _Note.of(url, answer.headers, _length(answer.headers)).stamp
    except (DownloadError, _TryAgainError):
        return ""


def discard(part: Path) -> None:
    """Forgets what has been downloaded to `part`."""
    for path in (part, _note_path(part)):
        path.unlink(missing_ok=True)


def _try(url: str, part: Path, watch: Watch) -> str:
    note, start = _kept(url, part)
    headers = {"Range": f"bytes={start}-", "If-Range": note.validator} if note else {}
    with _open(url, "GET", headers) as answer:
        if note and answer.status == 206 and _goes_on(note, start, answer.headers):
            size = note.size
        elif answer.status == 200:
            size, start = _length(answer.headers), 0
            note = _Note.of(url, answer.headers, size)
            discard(part)
            _note_path(part).write_bytes(msgspec.json.encode(note))
        else:
            discard(part)
            raise _TryAgainError(f"the server gave another part of the file than was asked for (HTTP {answer.status})")
        if size is not None and size > MAX_BYTES:
            raise DownloadError(
                f"{shown_url(url)} has {size:,} bytes, more than the {MAX_BYTES:,} that a model may have"
            )
        have = _receive(url, answer, part, start, size, watch)
    if size is not None and have != size:
        raise _TryAgainError(f"it ends after {have:,} of the {size:,} bytes that the server announced")
    return note.stamp


def _kept(url: str, part: Path) -> tuple[_Note | None, int]:
    """The note of what is there of this file, and from which byte on to ask for the rest."""
    try:
        note = msgspec.json.decode(_note_path(part).read_bytes(), type=_Note)
    except (OSError, *DECODE_ERRORS):
        return None, 0
    # The last byte is asked for once more: there is no asking for nothing when all is there.
    start = _size(part) - 1
    return (note, start) if note.url == url and note.validator and start >= 0 else (None, 0)


def _goes_on(note: _Note, start: int, headers: Message) -> bool:
    """Whether the answer is the rest of the same file. A server that does not know If-Range shows it here."""
    said = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", "").strip())
    if said is None or int(said[1]) != start:
        return False
    size = None if said[2] == "*" else int(said[2])
    new = _Note.of(note.url, headers, note.size)
    return (size is None or note.size is None or size == note.size) and new.stamp == note.stamp


def _receive(url: str, answer: Any, part: Path, start: int, size: int | None, watch: Watch) -> int:
    """Writes the answer to `part` from byte `start` on; returns how many bytes there are then."""
    have = start
    with part.open("r+b" if start else "wb") as file:
        file.seek(start)
        while True:
            watch(have, size)
            try:
                data = answer.read1(_CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise _TryAgainError(_reason(error)) from error
            if not data:
                return have
            have += len(data)
            if have > MAX_BYTES:
                raise DownloadError(f"{shown_url(url)} has more than the {MAX_BYTES:,} bytes that a model may have")
            file.write(data)
            file.flush()  # what a killed process has, the next one need not fetch


def _open(url: str, method: str, headers: Mapping[str, str]) -> Any:
    # identity: a proxy must not compress what is resumed by bytes.
    ours = {"User-Agent": "beam-detect", "Accept-Encoding": "identity", **headers}
    try:
        request = urllib.request.Request(without_user(url), headers=ours, method=method)
        if user := urlsplit(url).netloc.rpartition("@")[0]:
            secret = base64.b64encode(unquote(user).encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {secret}")
        return urllib.request.urlopen(request, timeout=STALL_SECONDS)
    except urllib.error.HTTPError as error:
        with error:
            reason = f"HTTP {error.code} {error.reason}".strip()
            if error.code in _GONE:
                raise NotThereError(f"{shown_url(url)} is not there ({reason})") from error
            if error.code in _TRY_AGAIN or error.code >= 500:
                raise _TryAgainError(f"the server says {reason}") from error
            if error.code == 416 and headers:  # the file has become shorter
                raise _TryAgainError(f"the server says {reason}") from error
            raise DownloadError(f"{shown_url(url)} cannot be downloaded: the server says {reason}") from error
    except urllib.error.URLError as error:
        cause = error.reason
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise DownloadError(f"{shown_url(url)} cannot be trusted: {cause.verify_message}") from error
        reason = _reason(cause) if isinstance(cause, Exception) else str(cause)
        raise _TryAgainError(reason, CONNECTING_PAUSES) from error
    except (ValueError, http.client.InvalidURL) as error:
        raise DownloadError(f"{shown_url(url)} is no address: {error}") from error
    except (OSError, http.client.HTTPException) as error:  # while it waited for the answer
        raise _TryAgainError(_reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"the server said nothing for {STALL_SECONDS:g} s"
    if isinstance(error, socket.gaierror):
        return f"its host cannot be found ({error.strerror})"
    if isinstance(error, http.client.IncompleteRead | ConnectionError) and not isinstance(
        error, ConnectionRefusedError
    ):
        return "the connection broke"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _length(headers: Message) -> int | None:
    said = headers.get("Content-Length", "")
    return int(said) if said.isdecimal() else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _note_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")
