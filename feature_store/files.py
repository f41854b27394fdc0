"""The one place that touches storage: a folder on disk, or an object store such as S3 through obstore.

Three ways to write, each atomic: ``put`` replaces, ``create`` refuses what is already there (the commit of a
snapshot rests on it), ``delete`` forgives what is not there.

On disk the order is: write under a temporary name in the same folder; fsync the file; give it its name (rename for
``put``, hard link for ``create``); fsync the folder. ``delete`` unlinks and fsyncs the folder, and a new folder is
made known by an fsync of the one it lies in. So whatever was written before a call that returned survives a power
failure whenever the effect of a later call does. A crash leaves a ``.tmp`` file behind and nothing else.

``create`` on disk links the flushed file to its name instead of going through obstore: obstore's local store links
without flushing first, and a power failure could leave an empty manifest as the highest.

On an object store ``put`` and ``delete`` are single requests, and ``create`` is a PUT with ``If-None-Match: *``. A
request that is repeated because its answer was lost can find its own object; callers compare what is there with what
they wanted to write before they speak of a conflict.
"""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import ObjectStore

from feature_store import faults
from feature_store.errors import StorageError

#: Ending of files that are being written; a crash may leave them.
TEMPORARY = ".tmp"


@dataclass(frozen=True)
class Entry:
    """A file of the store.

    Attributes:
        path: Relative to the store, such as ``shards/ab….parquet``.
        size: Bytes.
        modified: UTC.
    """

    path: str
    size: int
    modified: datetime

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


class AlreadyThereError(Exception):
    """``create`` found the name taken: somebody else was first."""


class Files(Protocol):
    """What the store asks of its storage. Paths are relative and use ``/``."""

    @property
    def location(self) -> str:
        """Where the store is, for messages."""
        ...

    @property
    def folder(self) -> Path | None:
        """The folder on disk, None for an object store."""
        ...

    def entries(self, folder: str) -> list[Entry]:
        """Files of one folder sorted by name, temporary ones included; empty where there is no such folder."""
        ...

    def read(self, path: str) -> bytes:
        """The whole file.

        Raises:
            FileNotFoundError: When it is not there.
        """
        ...

    def source(self, path: str) -> str | io.RawIOBase:
        """What ``pyarrow.parquet.ParquetFile`` opens.

        Raises:
            FileNotFoundError: When it is not there (an object store says so now, a disk when the file is opened).
        """
        ...

    def put(self, path: str, data: bytes) -> None:
        """Write the file, replacing what is there."""
        ...

    def create(self, path: str, data: bytes) -> None:
        """Write the file if there is none; of several callers exactly one succeeds.

        Raises:
            AlreadyThereError: When there is one.
        """
        ...

    def delete(self, path: str) -> None:
        """Remove the file if it is there."""
        ...

    def touch(self, path: str) -> None:
        """Mark the file as used now, so that garbage collection spares it."""
        ...


class LocalFiles:
    """A folder on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def location(self) -> str:
        """The path as given."""
        return str(self._folder)

    @property
    def folder(self) -> Path | None:
        """The folder."""
        return self._folder

    def entries(self, folder: str) -> list[Entry]:
        """See :class:`Files`."""
        found: list[Entry] = []
        try:
            listing = sorted(os.scandir(self._folder / folder), key=lambda entry: entry.name)
        except FileNotFoundError:
            return found
        for entry in listing:
            try:
                status = entry.stat()
            except FileNotFoundError:  # a temporary file that got its name, or a removed one
                continue
            if entry.is_file():
                modified = datetime.fromtimestamp(status.st_mtime, UTC)
                found.append(Entry(f"{folder}/{entry.name}", status.st_size, modified))
        return found

    def read(self, path: str) -> bytes:
        """See :class:`Files`."""
        return (self._folder / path).read_bytes()

    def source(self, path: str) -> str:
        """See :class:`Files`."""
        return str(self._folder / path)

    def put(self, path: str, data: bytes) -> None:
        """See :class:`Files`."""
        target = self._folder / path
        faults.reached("put.begin")
        self._write_temporary(target, data).replace(target)
        faults.reached("put.named")
        _flush_folder(target.parent)
        faults.reached("put.done")

    def create(self, path: str, data: bytes) -> None:
        """See :class:`Files`."""
        target = self._folder / path
        faults.reached("create.begin")
        temporary = self._write_temporary(target, data)
        try:
            target.hardlink_to(temporary)
            faults.reached("create.linked")
        except FileExistsError:
            raise AlreadyThereError(path) from None
        finally:
            temporary.unlink()
        faults.reached("create.unlinked")
        _flush_folder(target.parent)
        faults.reached("create.done")

    def delete(self, path: str) -> None:
        """See :class:`Files`."""
        target = self._folder / path
        faults.reached("delete.begin")
        try:
            target.unlink()
        except FileNotFoundError:
            return
        faults.reached("delete.unlinked")
        _flush_folder(target.parent)
        faults.reached("delete.done")

    def touch(self, path: str) -> None:
        """See :class:`Files`."""
        os.utime(self._folder / path)

    def _write_temporary(self, target: Path, data: bytes) -> Path:
        make_folder(target.parent)
        temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY}")
        try:
            with temporary.open("wb") as stream:
                faults.reached("put.opened")
                stream.write(data)
                stream.flush()
                faults.reached("put.written")
                os.fsync(stream.fileno())
        except OSError as error:  # such as a full disk: do not fill it further
            temporary.unlink(missing_ok=True)
            raise StorageError(
                f"{target}: {len(data)} bytes could not be written ({error.strerror}); nothing of them is visible. "
                "Make room and run again: what is finished is reused"
            ) from error
        faults.reached("put.flushed")
        return temporary


class ObjectFiles:
    """A prefix of an object store; every put is atomic by itself."""

    def __init__(self, store: ObjectStore, location: str) -> None:
        self._store = store
        self._location = location

    @property
    def location(self) -> str:
        """The URL."""
        return self._location

    @property
    def folder(self) -> Path | None:
        """None: not on this disk."""
        return None

    def entries(self, folder: str) -> list[Entry]:
        """See :class:`Files`."""
        with self._request(folder):
            listing: Sequence[obstore.ObjectMeta] = obstore.list(self._store, folder).collect()
        found = [Entry(meta["path"], meta["size"], meta["last_modified"]) for meta in listing]
        return sorted(found, key=lambda entry: entry.path)

    def read(self, path: str) -> bytes:
        """See :class:`Files`."""
        with self._request(path):
            return bytes(obstore.get(self._store, path).bytes())

    def source(self, path: str) -> io.RawIOBase:
        """See :class:`Files`."""
        with self._request(path):
            return _RangeReader(obstore.open_reader(self._store, path))

    def put(self, path: str, data: bytes) -> None:
        """See :class:`Files`."""
        faults.reached("object.put")
        with self._request(path):
            obstore.put(self._store, path, data)
        faults.reached("object.put.done")

    def create(self, path: str, data: bytes) -> None:
        """See :class:`Files`."""
        faults.reached("object.create")
        try:
            with self._request(path):
                obstore.put(self._store, path, data, mode="create")
        except AlreadyExistsError:
            raise AlreadyThereError(path) from None
        faults.reached("object.create.done")

    def delete(self, path: str) -> None:
        """See :class:`Files`."""
        faults.reached("object.delete")
        try:
            with self._request(path):
                obstore.delete(self._store, path)
        except FileNotFoundError:
            return
        faults.reached("object.delete.done")

    def touch(self, path: str) -> None:
        """See :class:`Files`: an object's time changes only with its bytes, so it is copied onto itself."""
        self.put(path, self.read(path))

    @contextmanager
    def _request(self, path: str) -> Generator[None]:
        """Let a request that failed say where; that a name is taken or not there is an answer."""
        try:
            yield
        except (FileNotFoundError, AlreadyExistsError):
            raise
        except BaseError as error:
            reason = str(error).partition("\n")[0]
            raise StorageError(
                f"{self._location}/{path}: the request failed ({reason}); what is finished is kept, run again"
            ) from error


class _RangeReader(io.RawIOBase):
    """Lets pyarrow read ranges of an object."""

    def __init__(self, reader: obstore.ReadableFile) -> None:
        super().__init__()
        self._reader = reader

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._reader.seek(offset, whence)

    def tell(self) -> int:
        return self._reader.tell()

    def read(self, size: int = -1, /) -> bytes:
        return bytes(self._reader.read(size) if size >= 0 else self._reader.readall())


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, each known to the device before anything is put into it."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _flush_folder(folder.parent)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
