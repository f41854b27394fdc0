"""Where the volumes of a split archive lie, and bytes that run from one into the next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from datasets_spec.errors import MissingSourceError
from datasets_spec.remote_ranges import Windows

_CHUNK = 1 << 18


class Volumes(Protocol):
    """The volumes of an archive."""

    def stream(self, names: Sequence[str], offset: int, length: int, scratch: Path) -> Iterator[bytes]:
        """Bytes from `offset` of the first of some volumes on, going on at the beginning of each next one.

        Args:
            names: Names of the volumes, in order.
            offset: First byte in the first of them.
            length: How many bytes; fewer come where the last volume ends before.
            scratch: A folder for this stream; bytes that have to be fetched stay there.
        """
        ...


class LocalVolumes:
    """Volumes in a folder, read in place.

    Args:
        folder: Where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def stream(self, names: Sequence[str], offset: int, length: int, scratch: Path) -> Iterator[bytes]:  # noqa: ARG002
        """See :meth:`Volumes.stream`; raises MissingSourceError where a volume is absent."""
        for name in names:
            if not length:
                return
            path = self.folder / name
            if not path.is_file():
                raise MissingSourceError(
                    f"expected the volume {name} of a split archive in {self.folder}, not found: place it there"
                )
            with path.open("rb") as file:
                file.seek(offset)
                while length and (chunk := file.read(min(_CHUNK, length))):
                    length -= len(chunk)
                    yield chunk
            offset = 0


class RemoteVolumes:
    """Volumes below an address, of which byte windows are fetched.

    Args:
        base: The address above them.
        windows: Fetches them.
    """

    def __init__(self, base: str, windows: Windows) -> None:
        self.base = base.rstrip("/")
        self.windows = windows

    def stream(self, names: Sequence[str], offset: int, length: int, scratch: Path) -> Iterator[bytes]:
        """See :meth:`Volumes.stream`; raises WindowError where a window cannot be had."""
        for number, name in enumerate(names):
            if not length:
                return
            scratch.mkdir(parents=True, exist_ok=True)
            piece = self.windows.fetch(f"{self.base}/{name}", offset, length, scratch / str(number))
            with piece.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    length -= len(chunk)
                    yield chunk
            offset = 0


class ByteReader:
    """Reads from chunks as from a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._buffer = bytearray()

    def read(self, size: int) -> bytes:
        """The next `size` bytes; fewer at the end."""
        while len(self._buffer) < size and (chunk := next(self._chunks, b"")):
            self._buffer += chunk
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data
