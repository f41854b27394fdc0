"""The default decoder: know the wanted timestamps before decoding, and decode only what they need.

The tables of an MP4 file (:mod:`extractors.decoders.sample_table`), or one pass over the packets of any other file,
give every timestamp of the stream without decoding, so the plan is made first. Each wanted frame needs the packets from
the last entry point before it, in decoding order and in display order, up to its own. Of those, pictures that nothing
refers to are left out (H.264 and HEVC), or all on which no wanted one depends (AV1). Every frame that is kept carries
the timestamp it was asked for, which is the proof that it is the right one.

Where that proof fails, or the decoder reports damage, the same is tried without leaving pictures out, then from one and
from two entry points earlier; last, and at once for streams whose packets do not tell enough, the whole stream is
decoded (:mod:`extractors.decoders.sequential`). A frame is never replaced by another.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from extractors.decoders import sequential
from extractors.decoders.av1 import follow
from extractors.decoders.batch import FrameBatch
from extractors.decoders.container import (
    PacketReader,
    VideoPacket,
    decode,
    first_decodable,
    opened,
    prepare_stream,
    seconds,
    upright_rgb,
)
from extractors.decoders.nal import FrameNumbers
from extractors.decoders.pared import Paring, cut, pare
from extractors.decoders.scan import NotAsForetoldError, Scan, Supply, look_up, scan_packets
from extractors.sampling import SamplePlan, plan_samples

logger = logging.getLogger(__name__)

_RUNGS = (
    ("planned", True, 0),
    ("planned:unskipped", False, 0),
    ("planned:back1", False, 1),
    ("planned:back2", False, 2),
)
"""Name to record, whether to leave pictures out, and how many entry points further back to begin."""


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
        try:
            scan = look_up(path, container, stream) or scan_packets(container, stream)
            batch = _climb(path, stream, scan, n=n, fps=fps) if scan.problem is None else None
        except NotAsForetoldError:
            with opened(path) as fresh:
                stream = prepare_stream(fresh, index)
                scan = scan_packets(fresh, stream)
                batch = _climb(path, stream, scan, n=n, fps=fps) if scan.problem is None else None
        if batch is not None:
            return batch
        logger.debug("%s is decoded whole: %s", path, scan.problem or "its planned frames did not come out clean")
        with opened(path) as fresh:
            return sequential.sample_stream(path, fresh, index, n=n, fps=fps, decoder="planned:sequential")

    return first_decodable(path, read_stream)


def _climb(path: Path, stream: VideoStream, scan: Scan, *, n: int, fps: float) -> FrameBatch | None:
    """Try the rungs in turn; None when no rung gives all frames clean."""
    order = sorted((at for at, shown in enumerate(scan.shown) if shown), key=scan.pts.__getitem__)
    plan = plan_samples([scan.pts[at] for at in order], scan.duration[order[-1]], scan.time_base, n=n, fps=fps)
    wanted = [order[position] for position in plan.index]
    stamps = [scan.pts[at] for at in wanted]
    tried: list[tuple[list[tuple[int, int]], Paring]] = []
    for name, skip, back in _RUNGS:
        runs = _runs(scan, wanted, back)
        paring = _pare(scan, wanted, runs) if skip else Paring(set(), {})
        if (runs, paring) in tried:
            continue
        tried.append((runs, paring))
        with _supply(path, stream, scan) as (source, supply):
            result = _decode_runs(source, supply, runs, paring, set(stamps), scan.numbers)
        if result is None:
            continue
        frames, seen, decoded = result
        if all(pts in frames for pts in stamps) and _complete(scan, seen, runs, paring.spare):
            return _batch([frames[pts] for pts in stamps], scan, plan, name=name, decoded=decoded)
    return None


def _runs(scan: Scan, wanted: list[int], back: int) -> list[tuple[int, int]]:
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


def _pare(scan: Scan, wanted: list[int], runs: list[tuple[int, int]]) -> Paring:
    """What is left out between the entry points and the wanted pictures."""
    paring = Paring(scan.spare - set(wanted), {})
    if scan.codec != "av1":
        return paring
    for start, end in runs:
        pictures = follow(scan.frames[start : end + 1])
        if pictures is not None:
            spare, cuts = pare(pictures, start, set(wanted))
            paring.spare.update(spare)
            paring.cuts.update(cuts)
    return paring


def _decode_runs(
    stream: VideoStream,
    supply: Supply,
    runs: list[tuple[int, int]],
    paring: Paring,
    wanted: set[int],
    numbers: FrameNumbers | None,
) -> tuple[dict[int, VideoFrame], set[int], int] | None:
    """Decode stretches of a stream.

    Returns:
        The frames with the wanted timestamps, all timestamps that came out, and how many frames did; None when the
        decoder reports damage, or packets are missing.
    """
    frames: dict[int, VideoFrame] = {}
    seen: set[int] = set()
    decoded = 0
    for start, end in runs:
        if stream.codec_context.is_open:
            stream.codec_context.flush_buffers()
        packets = _needed(supply(start, end), paring, numbers)
        for produced, fault in decode(stream, packets):
            decoded += len(produced)
            if fault is not None:
                return None
            for frame in produced:
                if frame.is_corrupt:
                    return None
                pts = frame.pts
                if pts is not None:
                    seen.add(pts)
                    if pts in wanted:
                        frames[pts] = frame
        if numbers is not None and numbers.gap:
            return None
    return frames, seen, decoded


def _needed(
    packets: Iterator[tuple[int, VideoPacket]], paring: Paring, numbers: FrameNumbers | None
) -> Iterator[VideoPacket]:
    """What is needed of the packets of one stretch; all are watched for missing ones between them."""
    if numbers is not None:
        numbers.restart()
    for position, packet in packets:
        if numbers is not None:
            numbers.note(bytes(packet))
        if position in paring.cuts:
            yield cut(packet, paring.cuts[position])
        elif position not in paring.spare:
            yield packet


def _complete(scan: Scan, seen: set[int], runs: list[tuple[int, int]], spare: set[int]) -> bool:
    """Whether no picture was dropped without a word that a wanted one may rest on.

    Pictures that lead the first keyframe of a run are dropped by right. VP8 has packets that show nothing.
    """
    return scan.codec == "vp8" or all(
        scan.pts[at] in seen or at in spare or not scan.shown[at] or scan.pts[at] < scan.pts[start]
        for start, end in runs
        for at in range(start, end + 1)
    )


@contextmanager
def _supply(path: Path, stream: VideoStream, scan: Scan) -> Generator[tuple[VideoStream, Supply]]:
    """The packets by position, from memory or from the file again; and the stream to decode them with."""
    kept = scan.kept
    if scan.supply is not None:
        yield stream, scan.supply
        return
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


def _batch(frames: list[VideoFrame], scan: Scan, plan: SamplePlan, *, name: str, decoded: int) -> FrameBatch:
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
