"""The reference: decode the whole stream from its first packet to its last, then take the frames.

Two passes over the file, so that no more than the wanted frames are ever held: the first learns when each frame goes on
screen, the second keeps those that the plan takes. Nothing but the decoder's own output decides. Damaged H.264 takes a
pass more, in which the damage does not outlast the next entry point (:mod:`extractors.decoders.renewal`).

Timestamps are those of the decoded frames. AVI has none of its own: FFmpeg counts packets in decoding order, so the
times are handed out in output order instead. Streams without any timestamp (raw H.264) last as long as the durations of
their frames say, else as their frame rate says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

from av.container import InputContainer
from av.video.frame import VideoFrame

from extractors.decoders.batch import FrameBatch
from extractors.decoders.container import (
    NothingDecodedError,
    PacketReader,
    VideoPacket,
    codec_name,
    first_decodable,
    opened,
    prepare_stream,
    seconds,
    time_base_of,
    upright_rgb,
)
from extractors.decoders.renewal import Decoding
from extractors.errors import FrameError
from extractors.sampling import SamplePlan, plan_samples


def read(path: Path, *, n: int, fps: float) -> FrameBatch:
    """Sample a video by decoding all of it.

    Args:
        path: Video file.
        n: How many frames.
        fps: Frames per second around the centre.

    Returns:
        The frames.

    Raises:
        FrameError: Why there are none.
        SamplingError: When ``n`` or ``fps`` cannot be sampled.
    """

    def read_stream(container: InputContainer, index: int) -> FrameBatch:
        return sample_stream(path, container, index, n=n, fps=fps, decoder="sequential")

    return first_decodable(path, read_stream)


def sample_stream(path: Path, container: InputContainer, index: int, *, n: int, fps: float, decoder: str) -> FrameBatch:
    """Sample one stream of a video that was just opened by decoding all of it; ``decoder`` is the name to record.

    Raises:
        FrameError: Why there are no frames.
        SamplingError: When ``n`` or ``fps`` cannot be sampled.
    """
    survey = _survey(path, container, index)
    damaged = frozenset(survey.faults) if survey.codec == "h264" else frozenset[int]()
    if damaged:
        with opened(path) as fresh:
            survey = _survey(path, fresh, index, damaged, before=survey)
    stamps, time_base = survey.stamps()
    order = sorted(range(len(stamps)), key=stamps.__getitem__)
    times = [stamps[ordinal] for ordinal in order]
    plan = plan_samples(times, survey.shown[order[-1]].duration, time_base, n=n, fps=fps)
    taken = [order[position] for position in plan.index]
    survey.require_sound(taken, plan, time_base)
    frames = _take(path, index, taken, damaged)
    return FrameBatch(
        data=upright_rgb([frames[ordinal] for ordinal in taken]),
        pts_seconds=seconds([stamps[ordinal] for ordinal in taken], time_base),
        n_distinct=plan.n_distinct,
        decoder=decoder,
        codec=survey.codec,
        duration_seconds=float(plan.duration),
        policy=plan.policy,
        rotation=frames[taken[0]].rotation % 360,
        truncated=survey.truncated,
        decoded=len(survey.shown) + max(taken) + 1,
    )


@dataclass(frozen=True)
class _Shown:
    """One decoded frame: its times in ticks, and the position of the packet it came from."""

    pts: int | None
    dts: int | None
    duration: int | None
    position: int


@dataclass
class _Survey:
    """What a full decode of one stream shows."""

    codec: str
    avi: bool
    rate: Fraction
    time_base: Fraction
    truncated: bool = False
    shown: list[_Shown] = field(default_factory=list[_Shown])
    packets: list[tuple[int | None, bool]] = field(default_factory=list[tuple[int | None, bool]])
    faults: dict[int, str] = field(default_factory=dict[int, str])
    renewed: set[int] = field(default_factory=set[int])

    def stamps(self) -> tuple[list[int], Fraction]:
        """When each frame goes on screen, in output order, and the length of a tick."""
        pts = [frame.pts for frame in self.shown if frame.pts is not None]
        if len(pts) == len(self.shown):
            return (sorted(pts) if self.avi else pts), self.time_base
        dts = [frame.dts for frame in self.shown if frame.dts is not None]
        if len(dts) == len(self.shown) and dts == sorted(set(dts)):
            return dts, self.time_base
        durations = [frame.duration for frame in self.shown if frame.duration]
        if len(durations) == len(self.shown):
            return list(accumulate(durations[:-1], initial=0)), self.time_base
        return list(range(len(self.shown))), 1 / self.rate

    def require_sound(self, taken: list[int], plan: SamplePlan, time_base: Fraction) -> None:
        """Refuse frames that a decoding error may have touched.

        A frame is sound when nothing went wrong between the keyframe that its decoding rests on and its own packet
        (H.264: since a decoder began with which nothing was wrong), and no packet was lost that should have been on
        screen by its target. Nor may a packet be lost before the first or after the last frame, for that would move the
        centre; a file that ends early has the centre of what is there.

        Raises:
            FrameError: ``corrupt``.
        """
        if not self.faults:
            return
        shown = [frame.pts for frame in self.shown if frame.pts is not None]
        begin = next((position for position, (_, key) in enumerate(self.packets) if key), 0)
        for position, fault in self.faults.items():
            lost = self.packets[position][0]
            outside = lost is not None and shown and not min(shown) <= lost <= max(shown)
            if outside and position >= begin and not self.truncated:
                raise FrameError(
                    "corrupt", f"packet {position} of {len(self.packets)}, at an end, is damaged ({fault})"
                )
        for ordinal, target in zip(taken, plan.targets, strict=True):
            frame = self.shown[ordinal]
            start = self._base(frame.position, frame.pts)
            for position, fault in self.faults.items():
                lost = self.packets[position][0]
                replaced = lost is not None and frame.pts is not None and frame.pts < lost <= target / time_base
                if start <= position <= frame.position or self._spoils(position, frame.position) or replaced:
                    raise FrameError(
                        "corrupt",
                        f"packet {position} of {len(self.packets)} is damaged ({fault}), which touches the frame at "
                        f"{float(target):.2f} s; {len(self.faults)} packets are damaged",
                    )

    def watched(self, packets: Iterable[VideoPacket], place: dict[int, int]) -> Iterator[VideoPacket]:
        """The packets, each noted on its way to the decoder."""
        for packet in packets:
            if packet.pts is not None:
                place[packet.pts] = len(self.packets)
            self.packets.append((packet.pts, packet.is_keyframe))
            yield packet

    def note(self, frames: list[VideoFrame], fault: str | None, place: dict[int, int]) -> None:
        """Note what the decoder gave after the latest packet."""
        latest = len(self.packets) - 1
        if fault is not None:
            self.faults.setdefault(latest, fault)
        for frame in frames:
            position = latest if frame.pts is None else place.get(frame.pts, latest)
            self.shown.append(_Shown(frame.pts, frame.dts, frame.duration, position))
            if frame.is_corrupt:
                self.faults.setdefault(position, "the decoder conceals errors")

    def _spoils(self, fault: int, position: int) -> bool:
        """Whether a decoder of H.264 went on from a damaged packet to another one."""
        return self.codec == "h264" and fault <= position and not any(fault < at <= position for at in self.renewed)

    def require_shown(self, earlier: _Survey) -> None:
        """Note the frames that came out in an earlier pass and do not in this one: they rest on damaged packets."""
        shown = {frame.position for frame in self.shown}
        for frame in earlier.shown:
            if frame.position not in shown:
                self.faults.setdefault(frame.position, "what it refers to is damaged")

    def _base(self, end: int, pts: int | None) -> int:
        """Position of the keyframe that the packet at ``end`` rests on."""
        for position in range(end, -1, -1):
            stamp, key = self.packets[position]
            if key and (pts is None or stamp is None or stamp <= pts):
                return position
        return 0


def _survey(
    path: Path,
    container: InputContainer,
    index: int,
    damaged: AbstractSet[int] = frozenset(),
    before: _Survey | None = None,
) -> _Survey:
    """Decode all of one stream and note what comes out.

    Args:
        path: The file.
        container: The file, just opened.
        index: The stream.
        damaged: Positions of packets that an earlier pass found damaged.
        before: What that pass saw.

    Raises:
        NothingDecodedError: When not one frame does.
    """
    stream = prepare_stream(container, index)
    rate = stream.guessed_rate or stream.average_rate or Fraction(25)
    survey = _Survey(codec_name(stream), container.format.name == "avi", rate, time_base_of(stream))
    reader = PacketReader(container, stream)
    place: dict[int, int] = {}
    decoding = Decoding(path, stream, damaged)
    for frames, fault in decoding.run(survey.watched(reader, place)):
        survey.note(frames, fault, place)
    survey.truncated, survey.renewed = reader.truncated, decoding.renewed
    if before is not None:
        survey.require_shown(before)
    if survey.shown:
        return survey
    total = len(survey.packets)
    if survey.faults:
        fault = next(iter(survey.faults.values()))
        raise NothingDecodedError("corrupt", f"none of {total} packets of stream {index} could be decoded: {fault}")
    raise NothingDecodedError("no_frames", f"stream {index} has {total} packets and gives no frame")


def _take(path: Path, index: int, taken: list[int], damaged: AbstractSet[int]) -> dict[int, VideoFrame]:
    """Decode again and keep the frames of the given ordinals.

    Raises:
        FrameError: ``corrupt`` when the second pass gives fewer frames than the first.
    """
    wanted, last, ordinal = set(taken), max(taken), 0
    kept: dict[int, VideoFrame] = {}
    with opened(path) as container:
        stream = prepare_stream(container, index)
        for frames, _ in Decoding(path, stream, damaged).run(PacketReader(container, stream)):
            for frame in frames:
                if ordinal in wanted:
                    kept[ordinal] = frame
                ordinal += 1
            if ordinal > last:
                return kept
    raise FrameError("corrupt", f"a second decode gives {ordinal} frames where the first gave more than {last}")
