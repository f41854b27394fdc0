"""The file that a download grows in, and the record of which remote file its bytes came from."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Origin:
    """Which remote file some bytes came from.

    Attributes:
        url: Its address.
        etag: As the server sent it.
        last_modified: As the server sent it.
        total: Size of the whole file in bytes, where the server said.
    """

    url: str
    etag: str | None = None
    last_modified: str | None = None
    total: int | None = None

    @classmethod
    def of(cls, url: str, headers: Mapping[str, str]) -> Origin:
        """Read it from the headers of a 200 or a 206 answer."""
        whole = headers.get("content-range", "").rpartition("/")[2] or headers.get("content-length", "")
        return cls(url, headers.get("etag"), headers.get("last-modified"), int(whole) if whole.isdigit() else None)

    def validator(self) -> str | None:
        """What may stand in ``If-Range``: a strong ETag, else the time of the last change (RFC 9110, 13.1.5)."""
        if self.etag is not None and not self.etag.startswith("W/"):
            return self.etag
        return self.last_modified

    def same_file(self, other: Origin) -> bool:
        """Whether the validators prove that both are the same version of the same file."""
        return self.validator() is not None and (self.url, self.validator(), self.total) == (
            other.url,
            other.validator(),
            other.total,
        )


class Part:
    """The growing ``<name>.part``, with its origin in ``<name>.part.json``.

    Args:
        dest: The file it is to become.

    Attributes:
        path: Where the bytes lie.
        origin: Where they came from; None when there are none.
    """

    def __init__(self, dest: Path) -> None:
        self.path = dest.with_name(dest.name + ".part")
        self._origin_path = dest.with_name(dest.name + ".part.json")
        self.origin: Origin | None = self._read_origin()
        if self.origin is None:
            self.path.unlink(missing_ok=True)

    def _read_origin(self) -> Origin | None:
        try:
            return Origin(**json.loads(self._origin_path.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def size(self) -> int:
        """Bytes at hand."""
        return self.path.stat().st_size if self.path.exists() else 0

    def restart(self) -> None:
        """Forget all bytes."""
        self.path.unlink(missing_ok=True)
        self._origin_path.unlink(missing_ok=True)
        self.origin = None

    def begin(self, origin: Origin) -> None:
        """Forget all bytes and remember where those to come are from."""
        self.restart()
        self._origin_path.write_text(json.dumps(asdict(origin)))
        self.origin = origin

    def finish(self, dest: Path) -> None:
        """Rename to the destination, durably."""
        self.path.replace(dest)
        self._origin_path.unlink(missing_ok=True)
        sync_folder(dest.parent)


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
