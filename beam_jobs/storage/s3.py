"""S3, and what speaks as it does, through boto3."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Iterator
from typing import IO, Any

import boto3
from boto3.s3.transfer import TransferConfig
from botocore import exceptions as faults
from botocore.config import Config

from beam_jobs.storage.entry import Entry
from beam_jobs.storage.objects import Block, split

#: Requests a request, unless AWS_MAX_ATTEMPTS says otherwise. The waits double up to 20 s: half a minute in all.
_ATTEMPTS = 8
#: A connection that is silent for so long is given up.
_SILENCE_SECONDS = 20
#: An object of up to so many bytes is one request.
_SINGLE_PUT = 64 << 20
_REFUSED = ("AccessDenied", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch")
_BROKEN = (faults.HTTPClientError, faults.IncompleteReadError, OSError)


class S3Client:
    """See `objects.Client`. Its options are Beam's (`--s3_…`), if they were given."""

    def __init__(self) -> None:
        environment = {"AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE"} & os.environ.keys()
        retries = None if environment else {"mode": "standard", "total_max_attempts": _ATTEMPTS}
        with _os_errors("s3://"):
            self._s3 = boto3.session.Session().client(
                "s3",
                config=Config(
                    retries=retries,
                    connect_timeout=_SILENCE_SECONDS,
                    read_timeout=_SILENCE_SECONDS,
                    max_pool_connections=32,
                ),
                **_options(),
            )
        self._transfer = TransferConfig(multipart_threshold=_SINGLE_PUT, multipart_chunksize=_SINGLE_PUT)

    def read(self, url: str, start: int, length: int) -> Block:
        """See `Client`."""
        bucket, key = split(url)
        wanted = f"bytes={start}-{start + length - 1}"
        for attempt in range(1, _ATTEMPTS + 1):
            with _os_errors(url):
                try:
                    answer = self._s3.get_object(Bucket=bucket, Key=key, Range=wanted)
                except faults.ClientError as error:
                    if error.response["ResponseMetadata"].get("HTTPStatusCode") == 416:  # past the end
                        return Block(b"", None)
                    raise
                try:
                    return Block(answer["Body"].read(), answer.get("ETag"))
                except _BROKEN:  # on the way, which is too late for the client's own retries
                    if attempt == _ATTEMPTS:
                        raise
            time.sleep(min(20.0, 0.1 * 2**attempt))
        raise AssertionError

    def stat(self, url: str) -> Entry | None:
        """See `Client`."""
        bucket, key = split(url)
        with _os_errors(url):
            try:
                found = self._s3.head_object(Bucket=bucket, Key=key)
            except faults.ClientError as error:
                if error.response["ResponseMetadata"].get("HTTPStatusCode") == 404:
                    return None
                raise
        return Entry(url, found["ContentLength"], _ns(found["LastModified"]))

    def walk(self, prefix: str) -> Iterator[Entry]:
        """See `Client`."""
        bucket, _ = split(prefix)
        for page in self._pages(prefix):
            for found in page.get("Contents", ()):
                yield Entry(f"s3://{bucket}/{found['Key']}", found["Size"], _ns(found["LastModified"]))

    def names(self, folder: str) -> Iterator[str]:
        """See `Client`."""
        bucket, _ = split(folder)
        for page in self._pages(folder, Delimiter="/"):
            for found in page.get("Contents", ()):
                yield f"s3://{bucket}/{found['Key']}"
            for found in page.get("CommonPrefixes", ()):
                yield f"s3://{bucket}/{found['Prefix']}"

    def write(self, url: str, file: IO[bytes], size: int) -> None:
        """See `Client`. What was uploaded of a large one is taken away when it fails."""
        bucket, key = split(url)
        with _os_errors(url):
            if size <= _SINGLE_PUT:
                self._s3.put_object(Bucket=bucket, Key=key, Body=file)
            else:
                self._s3.upload_fileobj(file, bucket, key, Config=self._transfer)

    def delete(self, url: str) -> None:
        """See `Client`."""
        bucket, key = split(url)
        with _os_errors(url):
            self._s3.delete_object(Bucket=bucket, Key=key)

    def _pages(self, prefix: str, **more: str) -> Iterator[dict[str, Any]]:
        bucket, key = split(prefix)
        with _os_errors(prefix):
            yield from self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key, **more)


def _options() -> dict[str, Any]:
    """What Beam's options say. Where nobody has imported Beam, nobody has given any."""
    filesystems = sys.modules.get("apache_beam.io.filesystems")
    given = filesystems and filesystems.FileSystems._pipeline_options
    if not given:
        return {}
    from apache_beam.options.pipeline_options import S3Options

    s3 = given.view_as(S3Options)
    return {
        "endpoint_url": s3.s3_endpoint_url,
        "region_name": s3.s3_region_name,
        "api_version": s3.s3_api_version,
        "use_ssl": not s3.s3_disable_ssl,
        "verify": s3.s3_verify,
        "aws_access_key_id": s3.s3_access_key_id,
        "aws_secret_access_key": s3.s3_secret_access_key,
        "aws_session_token": s3.s3_session_token,
    }


def _ns(when: Any) -> int:
    return int(when.timestamp()) * 10**9


@contextlib.contextmanager
def _os_errors(url: str) -> Iterator[None]:
    """What boto3 raises, as OSErrors. Their texts hold no host, key, request or time: the same fault, the same text."""
    try:
        yield
    except faults.ClientError as error:
        code = error.response["Error"].get("Code", "")
        status = error.response["ResponseMetadata"].get("HTTPStatusCode")
        if code == "NoSuchBucket":
            raise OSError(errno.ENOENT, "there is no such bucket", url) from error
        if code in _REFUSED or status in (401, 403):
            raise OSError(errno.EACCES, f"{os.strerror(errno.EACCES)} ({code})", url) from error
        if status == 404:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), url) from error
        text = f"HTTP {status}" if code == str(status) else f"{code} (HTTP {status})"
        raise OSError(errno.EREMOTEIO, text, url) from error
    except (faults.NoCredentialsError, faults.PartialCredentialsError, faults.CredentialRetrievalError) as error:
        text = "there are no credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or a role give them"
        raise OSError(errno.EACCES, text, url) from error
    except (faults.HTTPClientError, faults.ConnectionError, faults.IncompleteReadError) as error:
        raise OSError(errno.EREMOTEIO, f"no whole answer ({type(error).__name__})", url) from error
    except boto3.exceptions.S3UploadFailedError as error:
        cause = error.__cause__ or error.__context__
        with _os_errors(url):
            raise cause or OSError(errno.EREMOTEIO, "the upload failed", url) from error
    except (faults.BotoCoreError, ValueError) as error:
        raise OSError(errno.EINVAL, str(error).split("\n", 1)[0][:300], url) from error
