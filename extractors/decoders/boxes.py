"""The boxes of an MP4 file (ISO/IEC 14496-12), and which tracks are encrypted (ISO/IEC 23001-7)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_CONTAINERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl"}


def has_encrypted_video(path: Path) -> bool:
    """Whether a video track's sample entry says that its samples are encrypted (``encv``).

    Returns:
        False also for files that are no MP4 or cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return any(kind == b"encv" for kind in _sample_entries(stream, 0, path.stat().st_size, 0))
    except OSError:
        return False


def _sample_entries(stream: BinaryIO, start: int, end: int, depth: int) -> Iterator[bytes]:
    """Types of all sample entries below one box."""
    for kind, body, stop in boxes(stream, start, end):
        if kind in _CONTAINERS and depth < 8:
            yield from _sample_entries(stream, body, stop, depth + 1)
        elif kind == b"stsd":
            yield from (entry for entry, _, _ in boxes(stream, body + 8, stop))


def boxes(stream: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Type, start of the body and end of every box in a range; stops at the first that makes no sense."""
    while start + 8 <= end:
        stream.seek(start)
        head = stream.read(16)
        if len(head) < 8:
            return
        size, kind, body = int.from_bytes(head[:4], "big"), head[4:8], start + 8
        if size == 1 and len(head) == 16:
            size, body = int.from_bytes(head[8:16], "big"), start + 16
        stop = end if size == 0 else start + size
        if stop < body or stop > end:
            return
        yield kind, body, stop
        start = stop
