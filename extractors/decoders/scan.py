"""What the packets of a stream say before anything is decoded: timestamps, entry points, pictures nothing refers to.

It is looked up in the tables of an MP4 file, or read from all packets of any other file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path

import av.error
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from extractors.decoders.av1 import Av1Reader
from extractors.decoders.container import PacketReader, VideoPacket, codec_name, time_base_of
from extractors.decoders.nal import FrameNumbers, NalReader
from extractors.decoders.notes import Frame, PacketNotes
from extractors.decoders.sample_table import HeaderReader, SampleTable, read_table

KEEP_BYTES = 256 << 20
"""Packets of a stream up to this size stay in memory between the scan and the decoding; larger ones are read twice."""

_PLANNABLE = {"av1", "h263", "h264", "hevc", "mjpeg", "mpeg1video", "mpeg2video", "mpeg4", "vp8", "vp9"}
"""Codecs whose keyframes are known to start a decoding, and whose packets each hold one shown frame or none."""

_DENSE = {"h263", "h264", "hevc", "mpeg4", "vp8", "vp9"}
"""Codecs without long runs of zeros (AV1 writes some in its headers). FFmpeg may pass over a packet with such a run,
and not say so."""

_ZEROS = bytes(20)
"""Half a dozen occur at the end of packets; some encoders of H.264 fill up with 15."""

Supply = Callable[[int, int], Iterator[tuple[int, VideoPacket]]]


@dataclass
class Scan:
    """What the packets of a stream say, in decoding order. Times in ticks."""

    codec: str
    time_base: Fraction
    pts: list[int] = field(default_factory=list[int])
    duration: list[int | None] = field(default_factory=list["int | None"])
    shown: list[bool] = field(default_factory=list[bool])
    entries: list[int] = field(default_factory=list[int])
    spare: set[int] = field(default_factory=set[int])
    frames: list[tuple[Frame, ...]] = field(default_factory=list["tuple[Frame, ...]"])
    kept: list[VideoPacket] | None = field(default_factory=list[VideoPacket])
    problem: str | None = None
    supply: Supply | None = None
    numbers: FrameNumbers | None = None

    def add(self, packet: VideoPacket, pts: int, *, entry: bool, keep: bool) -> None:
        """Note the next packet; ``keep`` says whether all up to this one are still worth their memory."""
        if entry:
            self.entries.append(len(self.pts))
        self.pts.append(pts)
        self.duration.append(packet.duration)
        self.shown.append(not packet.is_discard)
        if not keep:
            self.kept = None
        elif self.kept is not None:
            self.kept.append(packet)

    def finish(self, *, truncated: bool) -> None:
        """Note the first reason why the whole stream cannot be planned, if there is one."""
        shown = [pts for pts, shown in zip(self.pts, self.shown, strict=True) if shown]
        hurdles = {
            "the file ends early": truncated,
            "no packet is shown": not shown,
            "a timestamp occurs twice": len(set(self.pts)) < len(self.pts),
            "the first packet is no entry point": self.entries[:1] != [0],
            "pictures lead the first keyframe": bool(shown) and min(shown) < self.pts[0],
        }
        self.problem = next((problem for problem, met in hurdles.items() if met), None)


class NotAsForetoldError(Exception):
    """The tables of a file do not tell enough, or a packet is not the one they foretell."""


def look_up(path: Path, container: InputContainer, stream: VideoStream) -> Scan | None:
    """Know all packets of a stream from the tables of its file; None, with no packet read, where there are none.

    Raises:
        NotAsForetoldError: When these do not tell enough.
    """
    scan = Scan(codec_name(stream), time_base_of(stream))
    if _unfit(container, stream) is not None:
        return None
    table = read_table(path, container, stream)
    if table is None:
        return None
    foretold = table.dts + table.offset
    first = next(iter(PacketReader(container, stream)), None)
    if first is None or first.pts is None:
        raise NotAsForetoldError
    foretold += first.pts - foretold[0]
    scan.pts = foretold.tolist()
    scan.shown = (~table.discard).tolist()
    scan.kept = None
    scan.supply = partial(_foretold, container, stream, table, scan.pts)
    latest = int(np.where(table.discard, np.iinfo(np.int64).min, foretold).argmax())
    scan.duration = [None] * len(scan.pts)
    _, last = next(scan.supply(latest, latest))
    scan.duration[latest] = last.duration
    if scan.codec in _DENSE and _ZEROS in bytes(last):  # which no run decodes, though the centre rests on it
        scan.problem = "a packet is zeroed"
        return scan
    headers = _header_reader(scan.codec, stream.codec_context.extradata)
    if headers is None:
        scan.entries = np.flatnonzero(table.key).tolist()
    else:
        _note_headers(scan, table.notes(path, headers, scan.codec), stream.codec_context.extradata)
    if scan.problem is None:
        scan.finish(truncated=False)
    return scan


def _header_reader(codec: str, extradata: bytes | None) -> HeaderReader | None:
    """What reads the headers of a codec's packets; None where the container's keyframe flags must do."""
    if codec in ("h264", "hevc"):
        return NalReader(codec, extradata)
    return Av1Reader(extradata) if codec == "av1" else None


def _note_headers(scan: Scan, notes: list[PacketNotes], extradata: bytes | None) -> None:
    """Note which packets are entry points and which nothing refers to, as the packets themselves say."""
    if len(notes) != len(scan.pts):
        raise NotAsForetoldError
    kinds = {id(note): note for note in notes}.values()  # most packets share theirs
    if not all(note.whole for note in kinds):
        scan.problem = "a packet is damaged"
        return
    highest = max(note.layer for note in kinds)
    scan.entries = [at for at, note in enumerate(notes) if note.entry]
    scan.spare = {at for at, note in enumerate(notes) if not note.reference and note.layer == highest}
    scan.frames = [note.frames for note in notes]
    sets = _ParameterSets(extradata or b"")
    if not all(sets.known(note, first=at == 0) for at, note in enumerate(notes) if at == 0 or note.parameter_sets):
        scan.problem = "parameter sets change within the stream"


def _foretold(
    container: InputContainer, stream: VideoStream, table: SampleTable, pts: list[int], start: int, end: int
) -> Iterator[tuple[int, VideoPacket]]:
    """Packets from one position to another, each checked against what the tables foretell."""
    try:
        container.seek(int(table.dts[start]), stream=stream, any_frame=True)
    except av.error.FFmpegError as error:
        raise NotAsForetoldError from error
    position = start
    for packet in PacketReader(container, stream):
        if position == start and packet.dts is not None and packet.dts < table.dts[start]:
            continue  # FFmpeg seeks by display time, and so lands a few packets early
        here = (packet.pts, packet.dts, packet.pos, packet.size)
        if here != (pts[position], table.dts[position], table.position[position], table.size[position]):
            raise NotAsForetoldError
        yield position, packet
        if position == end:
            return
        position += 1
    raise NotAsForetoldError


def scan_packets(container: InputContainer, stream: VideoStream) -> Scan:
    """Read all packets of a stream; stops where one shows that the stream cannot be planned."""
    context = stream.codec_context
    scan = Scan(codec_name(stream), time_base_of(stream))
    scan.problem = _unfit(container, stream)
    reader = PacketReader(container, stream)
    headers = _header_reader(scan.codec, context.extradata)
    if scan.codec == "h264" and isinstance(headers, NalReader):
        scan.numbers = FrameNumbers(headers, context.extradata)
    sets = _ParameterSets(context.extradata or b"")
    spare: dict[int, int] = {}
    size = highest = 0
    for position, packet in enumerate(() if scan.problem else reader):
        pts, entry = packet.pts, packet.is_keyframe
        if pts is None:
            scan.problem = "a packet without a timestamp"
            return scan
        content = bytes(packet)
        if scan.codec in _DENSE and _ZEROS in content:
            scan.problem = "a packet is zeroed"
            return scan
        if headers is not None:
            notes = headers.read(content)
            scan.frames.append(notes.frames)
            entry, highest = notes.entry, max(highest, notes.layer)
            if not notes.reference:
                spare[position] = notes.layer
            if not notes.whole:
                scan.problem = "a packet is damaged"
                return scan
            if notes.parameter_sets and not sets.known(notes, first=position == 0):
                scan.problem = "parameter sets change within the stream"
                return scan
        size += packet.size
        scan.add(packet, pts, entry=entry, keep=size <= KEEP_BYTES)
    scan.spare = {position for position, layer in spare.items() if layer == highest}
    if scan.problem is None:
        scan.finish(truncated=reader.truncated)
    return scan


def _unfit(container: InputContainer, stream: VideoStream) -> str | None:
    """Why the packets of a stream do not tell enough to plan, as far as its headers say."""
    if codec_name(stream) not in _PLANNABLE:
        return f"codec {codec_name(stream)}"
    # AVI counts packets in decoding order: its times belong to other frames as soon as these are reordered.
    if container.format.name == "avi" and stream.codec_context.has_b_frames:
        return "the container has no display times"
    return None


class _ParameterSets:
    """Whether decoding may start anywhere without missing parameter sets that were sent earlier in the stream."""

    def __init__(self, extradata: bytes) -> None:
        self._extradata = extradata
        self._first: set[bytes] = set()

    def known(self, notes: PacketNotes, *, first: bool) -> bool:
        """Whether the sets of a packet are those of the first packet or of the container."""
        if first:
            self._first = set(notes.parameter_sets)
        return all(unit in self._first or unit in self._extradata for unit in notes.parameter_sets)
