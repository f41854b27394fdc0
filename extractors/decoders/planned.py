"""The default decoder: know the wanted timestamps before decoding, and decode only what they need.

One pass over the packets (no decoding) gives every timestamp of the stream, so the plan is made first. Each wanted
frame needs the packets from the last entry point before it, in decoding order and in display order, up to its own; of
those, pictures that nothing refers to are left out (H.264 and HEVC). Every frame that is kept carries the timestamp it
was asked for, which is the proof that it is the right one.

Where that proof fails, or the decoder reports damage, the same is tried without leaving pictures out, then from one and
from two entry points earlier; last, and at once for streams whose packets do not tell enough, the whole stream is
decoded (:mod:`extractors.decoders.sequential`). A frame is never replaced by another.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from extractors.decoders import sequential
from extractors.decoders.batch import FrameBatch
from extractors.decoders.container import (
    PacketReader,
    VideoPacket,
    codec_name,
    decode,
    first_decodable,
    opened,
    prepare_stream,
    seconds,
    time_base_of,
    upright_rgb,
)
from extractors.decoders.nal import NalReader, PacketNotes
from extractors.sampling import SamplePlan, plan_samples

logger = logging.getLogger(__name__)

KEEP_BYTES = 256 << 20
"""Packets of a stream up to this size stay in memory between the scan and the decoding; larger ones are read twice."""

_PLANNABLE = {"av1", "h263", "h264", "hevc", "mjpeg", "mpeg1video", "mpeg2video", "mpeg4", "vp8", "vp9"}
"""Codecs whose keyframes are known to start a decoding, and whose packets each hold one shown frame or none."""

_RUNGS = (
    ("planned", True, 0),
    ("planned:unskipped", False, 0),
    ("planned:back1", False, 1),
    ("planned:back2", False, 2),
)
"""Name to record, whether to leave pictures out, and how many entry points further back to begin."""

Supply = Callable[[int, int], Iterator[tuple[int, VideoPacket]]]


@dataclass
class _Scan:
    """What the packets of a stream say, in decoding order. Times in ticks."""

    codec: str
    time_base: Fraction
    pts: list[int] = field(default_factory=list[int])
    duration: list[int | None] = field(default_factory=list["int | None"])
    shown: list[bool] = field(default_factory=list[bool])
    entries: list[int] = field(default_factory=list[int])
    spare: set[int] = field(default_factory=set[int])
    kept: list[VideoPacket] | None = field(default_factory=list[VideoPacket])
    problem: str | None = None

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


def read(path: Path, *, n: int, fps: float) -> FrameBatch:
    """Sample a video, decoding as little as exactness allows.

    Args:
        path: Video file.
        n: How many frames.
        fps: Frames per second around the centre.

    Returns:
        The same frames as a full sequential decode.

    Raises:
        FrameError: Why there are none.
        SamplingError: When ``n`` or ``fps`` cannot be sampled.
    """

    def read_stream(container: InputContainer, index: int) -> FrameBatch:
        stream = prepare_stream(container, index)
        scan = _scan(container, stream)
        batch = _climb(path, stream, scan, n=n, fps=fps) if scan.problem is None else None
        if batch is not None:
            return batch
        logger.debug("%s is decoded whole: %s", path, scan.problem or "its planned frames did not come out clean")
        with opened(path) as fresh:
            return sequential.sample_stream(path, fresh, index, n=n, fps=fps, decoder="planned:sequential")

    return first_decodable(path, read_stream)


def _scan(container: InputContainer, stream: VideoStream) -> _Scan:
    """Read all packets of a stream; stops where one shows that the stream cannot be planned."""
    context = stream.codec_context
    scan = _Scan(codec_name(stream), time_base_of(stream))
    scan.problem = _unfit(container, stream)
    reader = PacketReader(container, stream)
    headers = NalReader(scan.codec, context.extradata) if scan.codec in ("h264", "hevc") else None
    sets = _ParameterSets(context.extradata or b"")
    spare: dict[int, int] = {}
    size = highest = 0
    for position, packet in enumerate(() if scan.problem else reader):
        pts, entry = packet.pts, packet.is_keyframe
        if pts is None:
            scan.problem = "a packet without a timestamp"
            return scan
        if headers is not None:
            notes = headers.read(bytes(packet))
            entry, highest = notes.entry, max(highest, notes.layer)
            if not notes.reference:
                spare[position] = notes.layer
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


def _climb(path: Path, stream: VideoStream, scan: _Scan, *, n: int, fps: float) -> FrameBatch | None:
    """Try the rungs in turn; None when no rung gives all frames clean."""
    order = sorted((at for at, shown in enumerate(scan.shown) if shown), key=scan.pts.__getitem__)
    plan = plan_samples([scan.pts[at] for at in order], scan.duration[order[-1]], scan.time_base, n=n, fps=fps)
    wanted = [order[position] for position in plan.index]
    stamps = [scan.pts[at] for at in wanted]
    tried: list[tuple[list[tuple[int, int]], set[int]]] = []
    for name, skip, back in _RUNGS:
        runs, spare = _runs(scan, wanted, back), scan.spare - set(wanted) if skip else set[int]()
        if (runs, spare) in tried:
            continue
        tried.append((runs, spare))
        with _supply(path, stream, scan) as (source, supply):
            result = _decode_runs(source, supply, runs, spare, set(stamps))
        if result is None:
            continue
        frames, seen, decoded = result
        if all(pts in frames for pts in stamps) and _complete(scan, seen, runs, spare):
            return _batch([frames[pts] for pts in stamps], scan, plan, name=name, decoded=decoded)
    return None


def _runs(scan: _Scan, wanted: list[int], back: int) -> list[tuple[int, int]]:
    """First and last packet of each stretch to decode, ascending and apart from each other."""
    runs: list[tuple[int, int]] = []
    for position in sorted(set(wanted)):
        entry = bisect_right(scan.entries, position) - 1
        while entry > 0 and scan.pts[scan.entries[entry]] > scan.pts[position]:
            entry -= 1
        start = scan.entries[max(entry - back, 0)]
        while runs and start <= runs[-1][1]:
            start = min(start, runs.pop()[0])
        runs.append((start, position))
    return runs


def _decode_runs(
    stream: VideoStream, supply: Supply, runs: list[tuple[int, int]], spare: set[int], wanted: set[int]
) -> tuple[dict[int, VideoFrame], set[int], int] | None:
    """Decode stretches of a stream.

    Returns:
        The frames with the wanted timestamps, all timestamps that came out, and how many frames did; None when the
        decoder reports damage.
    """
    frames: dict[int, VideoFrame] = {}
    seen: set[int] = set()
    decoded = 0
    for start, end in runs:
        if stream.codec_context.is_open:
            stream.codec_context.flush_buffers()
        packets = (packet for position, packet in supply(start, end) if position not in spare)
        for produced, fault in decode(stream, packets):
            decoded += len(produced)
            if fault is not None or any(frame.is_corrupt for frame in produced):
                return None
            seen.update(frame.pts for frame in produced if frame.pts is not None)
            frames.update((frame.pts, frame) for frame in produced if frame.pts in wanted)
    return frames, seen, decoded


def _complete(scan: _Scan, seen: set[int], runs: list[tuple[int, int]], spare: set[int]) -> bool:
    """Whether no picture was dropped without a word that a wanted one may rest on.

    Pictures that lead the first keyframe of a run are dropped by right. VP8 has packets that show nothing.
    """
    return scan.codec == "vp8" or all(
        scan.pts[at] in seen or at in spare or not scan.shown[at] or scan.pts[at] < scan.pts[start]
        for start, end in runs
        for at in range(start, end + 1)
    )


@contextmanager
def _supply(path: Path, stream: VideoStream, scan: _Scan) -> Generator[tuple[VideoStream, Supply]]:
    """The packets by position, from memory or from the file again; and the stream to decode them with."""
    kept = scan.kept
    if kept is not None:
        yield stream, lambda start, end: zip(range(start, end + 1), kept[start : end + 1], strict=True)
        return
    with opened(path) as container:
        fresh = prepare_stream(container, stream.index)
        packets = enumerate(PacketReader(container, fresh))
        yield fresh, lambda start, end: _between(packets, start, end)


def _between(packets: Iterator[tuple[int, VideoPacket]], start: int, end: int) -> Iterator[tuple[int, VideoPacket]]:
    for position, packet in packets:
        if position >= start:
            yield position, packet
        if position >= end:
            return


def _batch(frames: list[VideoFrame], scan: _Scan, plan: SamplePlan, *, name: str, decoded: int) -> FrameBatch:
    ticks = [frame.pts for frame in frames if frame.pts is not None]
    return FrameBatch(
        data=upright_rgb(frames),
        pts_seconds=seconds(ticks, scan.time_base),
        n_distinct=plan.n_distinct,
        decoder=name,
        codec=scan.codec,
        duration_seconds=float(plan.duration),
        policy=plan.policy,
        rotation=frames[0].rotation % 360,
        decoded=decoded,
    )
