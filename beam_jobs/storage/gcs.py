"""Google Cloud Storage, through its own client."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import IO, Any

import requests
from google.api_core import exceptions as faults
from google.auth.exceptions import GoogleAuthError
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY

from beam_jobs.storage.entry import Entry
from beam_jobs.storage.objects import Block, split

#: 408, 429, 5xx and broken connections, bodies included, with doubling waits, for so many seconds.
_RETRY = DEFAULT_RETRY.with_timeout(60.0)
_LISTED = "items(name,size,updated),prefixes,nextPageToken"


class GcsClient:
    """See `objects.Client`. Credentials are those that Beam finds; an emulator (STORAGE_EMULATOR_HOST) needs none."""

    def __init__(self) -> None:
        self._gcs = _client()

    def read(self, url: str, start: int, length: int) -> Block:
        """See `Client`. The version is the checksum of the whole object, which comes with each piece of it."""
        blob = self._blob(url)
        with _os_errors(url):
            try:
                data = blob.download_as_bytes(start=start, end=start + length - 1, raw_download=True, retry=_RETRY)
            except faults.RequestRangeNotSatisfiable:  # past the end
                return Block(b"", None)
        return Block(data, blob.crc32c)

    def stat(self, url: str) -> Entry | None:
        """See `Client`."""
        blob = self._blob(url)
        try:
            with _os_errors(url):
                blob.reload(retry=_RETRY)
        except FileNotFoundError:
            return None
        return _entry(blob)

    def walk(self, prefix: str) -> Iterator[Entry]:
        """See `Client`."""
        bucket, key = split(prefix)
        with _os_errors(prefix):
            for blob in self._gcs.list_blobs(bucket, prefix=key, fields=_LISTED, retry=_RETRY):
                yield _entry(blob)

    def names(self, folder: str) -> Iterator[str]:
        """See `Client`."""
        bucket, key = split(folder)
        with _os_errors(folder):
            found = self._gcs.list_blobs(bucket, prefix=key, delimiter="/", fields=_LISTED, retry=_RETRY)
            for page in found.pages:
                yield from (f"gs://{bucket}/{blob.name}" for blob in page)
                yield from (f"gs://{bucket}/{prefix}" for prefix in page.prefixes)

    def write(self, url: str, file: IO[bytes], size: int) -> None:
        """See `Client`."""
        with _os_errors(url):
            self._blob(url).upload_from_file(file, size=size, retry=_RETRY)

    def delete(self, url: str) -> None:
        """See `Client`."""
        with _os_errors(url):
            self._blob(url).delete(retry=_RETRY)

    def _blob(self, url: str) -> storage.Blob:
        bucket, key = split(url)
        return self._gcs.bucket(bucket).blob(key)


def _client() -> storage.Client:
    if os.environ.get("STORAGE_EMULATOR_HOST"):
        return storage.Client.create_anonymous_client()
    from apache_beam.io.gcp.gcsio import create_storage_client
    from apache_beam.options.pipeline_options import PipelineOptions

    given = sys.modules["apache_beam.io.filesystems"].FileSystems._pipeline_options
    return create_storage_client(given or PipelineOptions([]))


def _entry(blob: Any) -> Entry:
    return Entry(f"gs://{blob.bucket.name}/{blob.name}", blob.size, int(blob.updated.timestamp()) * 10**9)


@contextlib.contextmanager
def _os_errors(url: str) -> Iterator[None]:
    """What the client raises, as OSErrors; their texts are the same for the same fault."""
    try:
        yield
    except faults.RetryError as error:
        with _os_errors(url):
            raise error.cause or OSError(errno.EREMOTEIO, "no answer", url) from error
    except faults.GoogleAPICallError as error:
        if error.code == 404:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), url) from error
        if error.code in (401, 403):
            raise OSError(errno.EACCES, f"{os.strerror(errno.EACCES)} (HTTP {error.code})", url) from error
        raise OSError(errno.EREMOTEIO, f"{type(error).__name__} (HTTP {error.code})", url) from error
    except GoogleAuthError as error:
        raise OSError(errno.EACCES, f"no credentials ({type(error).__name__})", url) from error
    except requests.RequestException as error:
        raise OSError(errno.EREMOTEIO, f"no whole answer ({type(error).__name__})", url) from error
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error).split("\n", 1)[0][:300], url) from error
