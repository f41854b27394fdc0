"""The work between a plan and a commit: read each content once, encode it with all who need it, write the shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from extractors.content import Progress
from extractors.errors import FrameError, PoolError
from extractors.frames import FrameBatch, sample_frames
from extractors.images import read_image
from extractors.kept import KeptFrames
from extractors.lanes import Feature, Lane, Tally
from extractors.pool import DecodePool, FrameFailure
from extractors.resize import FrameTransform
from extractors.spec import EncoderSpec, RowFault
from extractors.views import Views, parts_of

STAGES = ("read", "encode", "write")
"""Where the time of a run goes; decoding in other processes goes on during all of them."""


@runtime_checkable
class StageProgress(Protocol):
    """A progress display that also shows where the time goes."""

    def shares(self, stages: Mapping[str, float], /) -> None:
        """Told before each step of the stages' parts of the time, see :func:`stage_shares`."""
        ...


def stage_shares(seconds: Mapping[str, float]) -> dict[str, float]:
    """Each stage's part of the time, 0 to 1; empty before any time has passed.

    Args:
        seconds: By stage, as in :class:`~extractors.lanes.Tally`.
    """
    total = sum(seconds.get(stage, 0.0) for stage in STAGES)
    return {stage: seconds.get(stage, 0.0) / total for stage in STAGES} if total else {}


def media_of(spec: EncoderSpec) -> tuple[str, str]:
    """What a feature reads: features that agree in it share their decoding."""
    return spec.modality, repr(sorted(spec.sampling.items()))


def run_visual(
    files: Mapping[str, Path],
    features: Sequence[Feature],
    *,
    pool: DecodePool | None = None,
    frames: KeptFrames | None = None,
    progress: Progress | None = None,
) -> dict[str, Tally]:
    """Encode videos, or pictures, with every feature that still needs them, and write the shards.

    Args:
        files: Item id and file, in the order in which shards are cut.
        features: Features over the same media, with the same frame sampling.
        pool: Processes that decode; None decodes here, one file after the other.
        frames: Frames that an earlier run kept; what they hold is not decoded, where sampling and geometry are those
            of the features.
        progress: Called with ``("encode", done, total)`` after every file; ``done`` counts what is encoded.

    Returns:
        Tally by feature name.

    Raises:
        EncodeError: When an encoder fails on everything.
        PoolError: When the pool itself cannot work.
        ValueError: When the features do not read the same frames.
    """
    if len({media_of(feature.spec) for feature in features}) > 1:
        raise ValueError("run_visual: expected features over the same media with the same frame sampling")
    lanes = [Lane(feature, list(files)) for feature in features]
    readers: dict[bytes, list[Lane]] = {}
    for lane in lanes:
        for content in lane.contents:
            readers.setdefault(content, []).append(lane)
    if readers:
        _feed(files, readers, pool=pool, frames=frames, progress=progress)
    return {lane.feature.name: lane.tally for lane in lanes}


def announce(texts: Mapping[str, str], feature: Feature) -> None:
    """Tell a text encoder of all that is to do, before it is done in several calls of :func:`run_text`.

    For encoders that read a large file for the words that occur, such as GloVe: one pass instead of one per call.
    Without work no model is loaded.

    Args:
        texts: Item id and text of all items.
        feature: A feature over texts.
    """
    upcoming = [texts[ids[0]] for ids in feature.groups(list(texts)).values()]
    if upcoming:
        Lane(feature, []).load().announce(upcoming)


def run_text(texts: Mapping[str, str], feature: Feature, *, progress: Progress | None = None) -> Tally:
    """Encode texts and write the shards.

    Args:
        texts: Item id and text, in the order in which shards are cut.
        feature: A feature over texts.
        progress: Called with ``("encode", done, total)``.

    Raises:
        EncodeError: When the encoder fails on everything.
    """
    lane = Lane(feature, list(texts))
    todo = [(content, texts[lane.representative(content)]) for content in lane.contents]
    if not todo:
        return lane.tally
    encoder = lane.load()
    with lane.tally.timed("read"):
        encoder.announce([text for _, text in todo])
    report = _Reporter([lane], len(todo), progress)
    for content, text in todo:
        lane.add(content, text)
        report.one()
    lane.flush()
    report.finish()
    return lane.tally


class _Reporter:
    """Tells a progress display what is encoded; rows that wait for their batch do not count yet."""

    def __init__(self, lanes: Sequence[Lane], total: int, progress: Progress | None) -> None:
        self._lanes = lanes
        self._total = total
        self._progress = progress
        self._read = 0
        self._said = -1

    def one(self) -> None:
        """One more content was read."""
        self._read += 1
        self._say(self._read - max(lane.pending for lane in self._lanes))

    def finish(self) -> None:
        """Nothing is pending any more."""
        self._say(self._read)

    def _say(self, done: int) -> None:
        if self._progress is None or done == self._said:
            return
        self._said = done
        display: object = self._progress
        if isinstance(display, StageProgress):
            total = Tally()
            for lane in self._lanes:
                total.add(lane.tally)
            display.shares(stage_shares(total.seconds))
        self._progress("encode", done, self._total)


def _feed(
    files: Mapping[str, Path],
    readers: Mapping[bytes, Sequence[Lane]],
    *,
    pool: DecodePool | None,
    frames: KeptFrames | None,
    progress: Progress | None,
) -> None:
    """Read every content once and hand its frames to the lanes that need them."""
    lanes = list(dict.fromkeys(lane for interested in readers.values() for lane in interested))
    transforms = {lane: lane.load().settings.transform for lane in lanes}
    clock, report = lanes[0].tally, _Reporter(lanes, len(readers), progress)
    kept = _kept(frames, readers, transforms)
    if frames is not None:
        for content, data, n_distinct in clock.waited("read", frames.read(kept)):
            for lane in readers[content]:
                lane.add(content, frames.views.part(data, transforms[lane]), n_distinct)
            report.one()
    views = Views(tuple(dict.fromkeys(part for transform in transforms.values() for part in parts_of(transform))))
    content_of = {
        interested[0].representative(content): content for content, interested in readers.items() if content not in kept
    }
    wanted = [(item_id, files[item_id]) for item_id in files if item_id in content_of]
    outcomes = _read(wanted, lanes[0].feature.spec, views=views, pool=pool) if wanted else iter(())
    done = 0
    for item_id, outcome in clock.waited("read", outcomes):
        content = content_of[item_id]
        if isinstance(outcome, FrameFailure):
            for lane in readers[content]:
                lane.fail(content, stage=outcome.stage, fault=RowFault(outcome.reason, outcome.detail))
        else:
            data, n_distinct = outcome
            for lane in readers[content]:
                lane.add(content, views.part(data, transforms[lane]), n_distinct)
        done += 1
        report.one()
    if done != len(wanted):
        raise PoolError(f"the decode pool ended after {done} of {len(wanted)} files")
    for lane in lanes:
        lane.flush()
    report.finish()


def _kept(
    frames: KeptFrames | None,
    readers: Mapping[bytes, Sequence[Lane]],
    transforms: Mapping[Lane, FrameTransform | Views],
) -> set[bytes]:
    """Contents that need no decoding, because their frames were kept in every geometry that is asked for."""
    lanes = next(iter(readers.values()))
    if frames is None or not frames.sampled_like(lanes[0].feature.spec.sampling):
        return set()
    fits = {lane: frames.serves([transform]) for lane, transform in transforms.items()}
    return {
        content
        for content, interested in readers.items()
        if content in frames and all(fits[lane] for lane in interested)
    }


Frames = tuple[np.ndarray, int]
"""uint8 ``[f, h, w, 3]`` of a video or ``[h, w, 3]`` of a picture, and how many of the frames differ."""


def _read(
    wanted: Sequence[tuple[str, Path]], spec: EncoderSpec, *, views: Views, pool: DecodePool | None
) -> Iterator[tuple[str, Frames | FrameFailure]]:
    """Frames of each file, or why there are none; once for each file, in any order."""
    if spec.modality == "image":
        if pool is None:
            return _read_here(wanted, lambda path: (views(read_image(path)[np.newaxis])[0], 1))
        pictures = pool.map_images(wanted, transform=views)
        return ((item_id, _picture(outcome)) for item_id, outcome in pictures)
    n, fps, decoder = (spec.sampling[key] for key in ("frames", "fps", "decoder"))
    if pool is None:
        return _read_here(wanted, lambda path: _sampled(sample_frames(path, n, fps, decoder), views))
    videos = pool.map(wanted, n=n, fps=fps, decoder=decoder, transform=views)
    return ((item_id, _video(outcome)) for item_id, outcome in videos)


def _read_here(
    wanted: Sequence[tuple[str, Path]], read: Callable[[Path], Frames]
) -> Iterator[tuple[str, Frames | FrameFailure]]:
    for item_id, path in wanted:
        try:
            yield item_id, read(path)
        except FrameError as error:
            yield item_id, FrameFailure(item_id, "decode", error.reason, error.detail)


def _sampled(batch: FrameBatch, views: Views) -> Frames:
    return views(batch.data), batch.n_distinct


def _picture(outcome: np.ndarray | FrameFailure) -> Frames | FrameFailure:
    return outcome if isinstance(outcome, FrameFailure) else (outcome, 1)


def _video(outcome: FrameBatch | FrameFailure) -> Frames | FrameFailure:
    return outcome if isinstance(outcome, FrameFailure) else (outcome.data, outcome.n_distinct)
