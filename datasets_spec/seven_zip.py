"""7z archives, read with py7zr one member at a time, without a file of its choosing ever being written."""

from __future__ import annotations

from typing import BinaryIO

import py7zr
from py7zr.exceptions import ArchiveError
from py7zr.io import Py7zIO, WriterFactory

from datasets_spec.archives import Member, Sink, UnreadableError


class SevenZip:
    """A reader for :func:`datasets_spec.archives.unpack`.

    Args:
        stream: The archive, open. (With a path instead, py7zr would unpack by several threads.)

    Raises:
        UnreadableError: It is damaged, or encrypted.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        try:
            self._archive = py7zr.SevenZipFile(stream)
        except (ArchiveError, py7zr.PasswordRequired) as error:
            raise _unreadable(error) from error

    def members(self) -> list[Member]:
        """All members."""
        return [
            Member(info.filename, info.uncompressed, info.is_directory, info.is_file) for info in self._archive.list()
        ]

    def copy(self, member: Member, sink: Sink) -> None:
        """Unpack one member; its checksum is verified.

        Raises:
            UnreadableError: It is damaged, encrypted, or packed by a method that is not known.
        """
        try:
            self._archive.reset()
            self._archive.extract(targets=[member.name], factory=_OneFile(sink))
        except (ArchiveError, py7zr.PasswordRequired) as error:
            raise _unreadable(error) from error


def _unreadable(error: Exception) -> UnreadableError:
    return UnreadableError(f"{type(error).__name__}: {error}")


class _OneFile(WriterFactory):
    """Gives py7zr the sink in place of a file."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def create(self, filename: str) -> Py7zIO:  # noqa: ARG002 (name of the base class)
        return _SinkIO(self._sink)


class _SinkIO(Py7zIO):
    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, s: bytes | bytearray) -> int:
        return self._sink.write(s)

    def read(self, size: int | None = None) -> bytes:  # noqa: ARG002 (name of the base class)
        return b""

    def seek(self, offset: int, whence: int = 0) -> int:  # noqa: ARG002 (name of the base class)
        return offset

    def flush(self) -> None:
        """Leave it to the owner of the file."""

    def size(self) -> int:
        return self._sink.bytes
