"""What an MP4 file's own tables and bytes say about every packet of a stream, without reading packet after packet.

FFmpeg builds an index of an MP4 track when it opens the file: decoding time, place, size and keyframe flag of every
sample, edit lists applied. The display offsets (``ctts``, ISO/IEC 14496-12, 8.6.1.3) are not in it and are read here.
The two together give each packet's timestamp up to one constant, which the first packet gives; whoever reads a packet
later checks that it is the foretold one.

Nothing is guessed: fragmented or truncated files, tables that do not agree, and several sample descriptions all give
None, and the packets are read one by one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO

import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from extractors.decoders.av1 import Av1Reader
from extractors.decoders.boxes import boxes
from extractors.decoders.nal import NalReader
from extractors.decoders.notes import PacketNotes

_HEAD = 6  # bytes: the length of a sample's first unit, and its header
_AT_ONCE = 1 << 16  # bytes
_KEYFRAME, _DISCARD = 1, 2  # AVINDEX_KEYFRAME, AVINDEX_DISCARD_FRAME
_LARGEST_OFFSET = 1 << 28  # FFmpeg leaves out a table with a larger one
_PICTURES = {"h264": [1, 5], "hevc": [*range(10), *range(16, 22)]}


HeaderReader = NalReader | Av1Reader


@dataclass(frozen=True)
class SampleTable:
    """Every sample of a track, in decoding order; int64 or bool ``[n]``, times in ticks.

    Attributes:
        dts: Decoding times.
        offset: Display time less decoding time, up to one constant.
        position: Where the sample begins in the file.
        size: Its length in bytes.
        key: Whether the container flags it as a keyframe.
        discard: Whether the edit list hides it.
    """

    dts: np.ndarray
    offset: np.ndarray
    position: np.ndarray
    size: np.ndarray
    key: np.ndarray
    discard: np.ndarray

    def notes(self, path: Path, reader: HeaderReader, codec: str) -> list[PacketNotes]:
        """What the headers of each sample say.

        Most samples are one picture in one unit behind a length of four bytes; such with equal headers say the same, so
        that each kind is read once.
        """
        with path.open("rb", buffering=0) as file:
            headers = self._headers(file.fileno(), reader, codec) if codec in _PICTURES else [-1] * len(self.position)
            if headers is None:
                return []
            alike: dict[int, PacketNotes] = {}
            found: list[PacketNotes] = []
            for header, size, position in zip(headers, self.size.tolist(), self.position.tolist(), strict=True):
                notes = alike.get(header)
                if notes is None:
                    notes = reader.read(os.pread(file.fileno(), size, position))
                    if header >= 0:
                        alike[header] = notes
                found.append(notes)
            return found

    def _heads(self, file: int) -> np.ndarray | None:
        """The first bytes of each sample, int64 ``[n, 6]``; None where a sample or the file is shorter."""
        if (self.size < _HEAD).any():
            return None
        heads = np.empty((len(self.position), _HEAD), dtype=np.int64)
        done = 0
        while done < len(heads):  # one read for as many samples as lie close to each other
            start = int(self.position[done])
            stop = done + int(np.searchsorted(self.position[done:], start + _AT_ONCE, side="right"))
            places = self.position[done:stop, None] - start + np.arange(_HEAD)
            length = int(places[-1, -1]) + 1
            block = np.frombuffer(os.pread(file, length, start), dtype=np.uint8)
            if len(block) < length:
                return None
            heads[done:stop] = block[places]
            done = stop
        return heads

    def _headers(self, file: int, reader: HeaderReader, codec: str) -> list[int] | None:
        """The header of the only unit of each sample; -1 where there are several, or the unit is no picture."""
        first = self._heads(file)
        if first is None:
            return None
        length = first[:, :4] @ np.array([1 << 24, 1 << 16, 1 << 8, 1])
        kind = first[:, 4] & 31 if codec == "h264" else first[:, 4] >> 1 & 63
        plain = (length + 4 == self.size) & np.isin(kind, _PICTURES[codec]) & (reader.length_size == 4)
        return np.where(plain, first[:, 4] << 8 | (first[:, 5] if codec == "hevc" else 0), -1).tolist()


def read_table(path: Path, container: InputContainer, stream: VideoStream) -> SampleTable | None:
    """Read the sample table of a stream; None where the file's tables do not tell all of it for certain."""
    if "mp4" not in container.format.name.split(","):
        return None
    index = stream.index_entries
    if not 0 < stream.frames == len(index):
        return None
    length = path.stat().st_size
    with path.open("rb") as file:
        offset = _display_offsets(file, length, stream.id, stream.frames)
    if offset is None:
        return None
    rows = chain.from_iterable(map(attrgetter("timestamp", "pos", "size", "flags"), index))
    dts, position, size, flags = np.fromiter(rows, np.int64, 4 * len(index)).reshape(-1, 4).T
    if (np.diff(dts) <= 0).any() or (np.diff(position) <= 0).any():
        return None
    if (size < 1).any() or (position < 0).any() or (position + size > length).any():
        return None
    return SampleTable(dts, offset, position, size, (flags & _KEYFRAME) > 0, (flags & _DISCARD) > 0)


def _display_offsets(file: BinaryIO, size: int, track: int, count: int) -> np.ndarray | None:
    """The ``ctts`` table of one track, one entry for each sample; zeros where the track has none."""
    movies = [(body, stop) for kind, body, stop in boxes(file, 0, size) if kind == b"moov"]
    if len(movies) != 1:
        return None
    within = [(kind, body, stop) for kind, body, stop in boxes(file, *movies[0])]
    tracks = [(body, stop) for kind, body, stop in within if kind == b"trak" and _track_id(file, body, stop) == track]
    if any(kind == b"mvex" for kind, _, _ in within) or len(tracks) != 1:
        return None
    start, stop = tracks[0]
    for wanted in (b"mdia", b"minf", b"stbl"):
        found = [(body, end) for kind, body, end in boxes(file, start, stop) if kind == wanted]
        if len(found) != 1:
            return None
        start, stop = found[0]
    tables = {kind: _content(file, body, end) for kind, body, end in boxes(file, start, stop)}
    if tables.get(b"stsd", b"")[4:8] != b"\0\0\0\1":
        return None
    if b"ctts" not in tables:
        return np.zeros(count, dtype=np.int64)
    return _expand(tables[b"ctts"], count)


def _expand(table: bytes, count: int) -> np.ndarray | None:
    """Write out a run-length coded table of display offsets."""
    entries = int.from_bytes(table[4:8], "big")
    if len(table) != 8 + 8 * entries:
        return None
    runs = np.frombuffer(table, dtype=np.dtype([("count", ">u4"), ("offset", ">i4")]), offset=8)
    lengths, values = runs["count"].astype(np.int64), runs["offset"].astype(np.int64)
    if lengths.sum() != count or (abs(values) >= _LARGEST_OFFSET).any():
        return None
    return np.repeat(values, lengths)


def _track_id(file: BinaryIO, start: int, stop: int) -> int | None:
    for kind, body, end in boxes(file, start, stop):
        if kind == b"tkhd":
            header = _content(file, body, end)
            at = 20 if header[:1] == b"\1" else 12
            return int.from_bytes(header[at : at + 4], "big")
    return None


def _content(file: BinaryIO, start: int, stop: int) -> bytes:
    file.seek(start)
    return file.read(stop - start)
