"""The work between a plan and a commit: read each content once, encode it with all who need it, write the shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from extractors.content import Progress
from extractors.errors import FrameError, PoolError
from extractors.frames import FrameBatch, sample_frames
from extractors.images import read_image
from extractors.lanes import Feature, Lane, Tally
from extractors.pool import DecodePool, FrameFailure
from extractors.spec import EncoderSpec, RowFault
from extractors.views import Views


def media_of(spec: EncoderSpec) -> tuple[str, str]:
    """What a feature reads: features that agree in it share their decoding."""
    return spec.modality, repr(sorted(spec.sampling.items()))


def run_visual(
    files: Mapping[str, Path],
    features: Sequence[Feature],
    *,
    pool: DecodePool | None = None,
    progress: Progress | None = None,
) -> dict[str, Tally]:
    """Encode videos, or pictures, with every feature that still needs them, and write the shards.

    Args:
        files: Item id and file, in the order in which shards are cut.
        features: Features over the same media, with the same frame sampling.
        pool: Processes that decode; None decodes here, one file after the other.
        progress: Called with ``("encode", done, total)`` after every file.

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
        _feed(files, readers, pool=pool, progress=progress)
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
    for done, (content, text) in enumerate(todo, start=1):
        lane.add(content, text)
        if progress is not None:
            progress("encode", done, len(todo))
    lane.flush()
    return lane.tally


def _feed(
    files: Mapping[str, Path],
    readers: Mapping[bytes, Sequence[Lane]],
    *,
    pool: DecodePool | None,
    progress: Progress | None,
) -> None:
    """Read every content once and hand its frames to the lanes that need them."""
    lanes = list(dict.fromkeys(lane for interested in readers.values() for lane in interested))
    transforms = {lane: lane.load().settings.transform for lane in lanes}
    views = Views(tuple(dict.fromkeys(transforms.values())))
    content_of = {interested[0].representative(content): content for content, interested in readers.items()}
    wanted = [(item_id, files[item_id]) for item_id in files if item_id in content_of]
    outcomes = _read(wanted, lanes[0].feature.spec, views=views, pool=pool)
    done = 0
    for item_id, outcome in lanes[0].tally.waited("read", outcomes):
        content = content_of[item_id]
        if isinstance(outcome, FrameFailure):
            for lane in readers[content]:
                lane.fail(content, stage=outcome.stage, fault=RowFault(outcome.reason, outcome.detail))
        else:
            data, n_distinct = outcome
            seen = views.split(data)
            for lane in readers[content]:
                lane.add(content, seen[transforms[lane]], n_distinct)
        done += 1
        if progress is not None:
            progress("encode", done, len(wanted))
    if done != len(wanted):
        raise PoolError(f"the decode pool ended after {done} of {len(wanted)} files")
    for lane in lanes:
        lane.flush()


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
