"""Remote file systems in memory, registered with Beam: an object store (`obj://`) and one with folders (`had://`)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from apache_beam.io.filesystem import BeamIOError, CompressionTypes, FileMetadata, FileSystem


class Writer(io.BytesIO):
    """As with Beam's: closing the file, however it comes to that, completes it."""

    def __init__(self, files: dict[str, bytes], path: str, fault: Exception | None) -> None:
        super().__init__()
        self._files, self._path, self._fault = files, path, fault

    def write(self, data: Any) -> int:
        if self._fault:
            super().write(data[:3])
            raise self._fault
        return super().write(data)

    def close(self) -> None:
        if not self.closed:
            self._files[self._path] = self.getvalue()
        super().close()


class Reader(io.BytesIO):
    fault: Exception | None = None

    def read(self, n: int | None = -1) -> bytes:
        assert n is not None
        assert n >= 0, "an unbounded read is a request for every 8 kB"
        if self.fault:
            raise self.fault
        return super().read(n)


class StoreError(Exception):
    """As a client of a store raises it: not an OSError."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class ObjectStore(FileSystem):
    """An object store: no folders; a listing is all that starts so."""

    files: ClassVar[dict[str, bytes]] = {}
    fault: ClassVar[Exception | None] = None

    @classmethod
    def scheme(cls) -> str:
        return "obj"

    def has_dirs(self) -> bool:
        return False

    def _check(self, path: str) -> None:
        if self.fault:
            raise BeamIOError("the operation failed", {path: self.fault})

    def _list(self, dir_or_prefix: str) -> Iterator[FileMetadata]:
        self._check(dir_or_prefix)
        for path in list(self.files):
            if path.startswith(dir_or_prefix):
                yield self.metadata(path)

    def metadata(self, path: str) -> FileMetadata:
        self._check(path)
        if path not in self.files:
            raise BeamIOError("Metadata operation failed", {path: StoreError("gone", 404)})
        return FileMetadata(path, len(self.files[path]), 1.5)

    def exists(self, path: str) -> bool:
        self._check(path)
        return path in self.files

    def size(self, path: str) -> int:
        return int(self.metadata(path).size_in_bytes)

    def create(self, path: str, mime_type: str = "", compression_type: str = CompressionTypes.AUTO) -> Any:
        assert compression_type == CompressionTypes.UNCOMPRESSED
        return Writer(self.files, path, self.fault)

    def open(self, path: str, mime_type: str = "", compression_type: str = CompressionTypes.AUTO) -> Any:
        assert compression_type == CompressionTypes.UNCOMPRESSED
        self._check(path)
        if path not in self.files:
            raise StoreError("no such key", 404)
        return Reader(self.files[path])

    def delete(self, paths: list[str]) -> None:
        for path in paths:
            self._check(path)
            for name in list(self.files):
                if name == path or name.startswith(path.rstrip("/") + "/"):
                    del self.files[name]

    def rename(self, source_file_names: list[str], destination_file_names: list[str]) -> None:
        for source, target in zip(source_file_names, destination_file_names, strict=True):
            if target in self.files:
                raise BeamIOError("the target exists")
            self.files[target] = self.files.pop(source)

    join = split = mkdirs = copy = last_updated = checksum = lambda self, *args: pytest.fail("not used")


class Hadoop(ObjectStore):
    """A file system with folders, whose listing does not say what is one. Folders are what has files below it."""

    files: ClassVar[dict[str, bytes]] = {}

    @classmethod
    def scheme(cls) -> str:
        return "had"

    def has_dirs(self) -> bool:
        return True

    def _list(self, dir_or_prefix: str) -> Iterator[FileMetadata]:
        top = dir_or_prefix.rstrip("/") + "/"
        names = sorted({path[len(top) :].split("/")[0] for path in self.files if path.startswith(top)})
        if not names:
            raise BeamIOError("not a directory")
        for name in names:
            yield FileMetadata(top + name, len(self.files.get(top + name, b"")), 0)

    def exists(self, path: str) -> bool:
        return any(name == path or name.startswith(path.rstrip("/") + "/") for name in self.files)

    def metadata(self, path: str) -> FileMetadata:
        return FileMetadata(path, len(self.files.get(path, b"")), 2.0)
