"""Sampled frames of some videos and some cover images, as small pictures in data URIs.

The choice is deterministic: evenly spaced over the items in item order. Videos that a store holds in quarantine are
not opened again; where a file gives no frames, the next one takes its place and the failure is shown.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from datasets_spec.dataset import PreparedDataset
from flows.reporting.view import Table, code, plural, text

ProgressCallback = Callable[[str, int, int | None], None]
Pixels = np.ndarray[Any, np.dtype[np.uint8]]
T = TypeVar("T")

COVERS = 4

#: Files that are opened at most, for each strip that is wanted.
_TRIES_PER_STRIP = 3
#: Arguments of ``sample_frames`` by their name in the spec of a store.
_ARGUMENTS = {"frames": "n", "fps": "fps", "decoder": "decoder"}
_BOX = (208, 156)
_JPEG_QUALITY = 78


@dataclass(frozen=True)
class Thumbnail:
    """A small picture with a line below it."""

    uri: str
    label: str


@dataclass(frozen=True)
class Strip:
    """The sampled frames of one video.

    Attributes:
        item_id: The item.
        title: Its title, empty where it has none.
        frames: Labelled with their presentation times.
        n_distinct: How many of them differ.
        about: Size, duration, codec, decoder.
    """

    item_id: str
    title: str
    frames: tuple[Thumbnail, ...]
    n_distinct: int
    about: str


@dataclass(frozen=True)
class Cover:
    """A cover image."""

    item_id: str
    title: str
    picture: Thumbnail


@dataclass(frozen=True)
class ContactSheet:
    """Frames and covers of a dataset, and what could not be shown."""

    caption: str
    strips: tuple[Strip, ...] = ()
    covers: tuple[Cover, ...] = ()
    failures: Table | None = None


def build(
    prepared: PreparedDataset,
    *,
    videos: int,
    sampling: Mapping[str, Any],
    quarantined: Collection[str],
    progress: ProgressCallback | None = None,
) -> ContactSheet:
    """Sample frames of up to ``videos`` videos and read a few covers.

    Args:
        prepared: The dataset.
        videos: How many strips.
        sampling: ``frames``, ``fps`` and ``decoder`` of the dataset's video store, so that the page shows what the
            encoder saw; the defaults of ``sample_frames`` where it names none.
        quarantined: Items that are not opened.
        progress: Called as ``progress("frames of <dataset>", done, videos)``.
    """
    titles = dict(prepared.items.select("item_id", "title").iter_rows())
    media = prepared.media("video")
    usable = [(item_id, path) for item_id, path in media if item_id not in quarantined]
    failures: list[tuple[str, str, str]] = []
    strips: list[Strip] = []
    settings = {argument: sampling[key] for key, argument in _ARGUMENTS.items() if key in sampling}
    for item_id, path in _order(usable, videos)[: videos * _TRIES_PER_STRIP]:
        if len(strips) == videos:
            break
        strip = _strip(item_id, titles.get(item_id) or "", path, settings, failures)
        if strip is not None:
            strips.append(strip)
        if progress is not None:
            progress(f"frames of {prepared.name}", len(strips), videos)
    images = [(item_id, path) for item_id, path in prepared.media("image") if item_id not in quarantined]
    covers = [_cover(item_id, titles.get(item_id) or "", path, failures) for item_id, path in _evenly(images, COVERS)]
    return ContactSheet(
        caption=_caption(len(media), len(media) - len(usable), len(strips)),
        strips=tuple(strips),
        covers=tuple(cover for cover in covers if cover is not None),
        failures=_failure_table(failures),
    )


def _caption(there: int, left_out: int, shown: int) -> str:
    if there == 0:
        return "No item of this dataset has a video on this machine, so there are no frames to show."
    skipped = f"; {plural(left_out, 'quarantined video')} left out" if left_out else ""
    return (
        f"{shown} of {plural(there, 'video')}, evenly spaced over the items{skipped}. Each row shows the frames that "
        "an encoder sees, with the time in seconds at which each goes on screen."
    )


def _evenly(items: Sequence[T], number: int) -> list[T]:
    """Up to ``number`` items at equal distances, the first and the last among them."""
    if len(items) <= number:
        return list(items)
    return [items[index] for index in np.linspace(0, len(items) - 1, number).round().astype(int).tolist()]


def _order(items: Sequence[tuple[str, Path]], number: int) -> list[tuple[str, Path]]:
    """The evenly spaced ones, then the others, which stand in for those that fail."""
    first = _evenly(items, number)
    chosen = {item_id for item_id, _ in first}
    return [*first, *(entry for entry in items if entry[0] not in chosen)]


def _strip(
    item_id: str, title: str, path: Path, settings: Mapping[str, Any], failures: list[tuple[str, str, str]]
) -> Strip | None:
    from extractors.frames import FrameError, sample_frames

    try:
        batch = sample_frames(path, **settings)
    except FrameError as error:
        failures.append((item_id, error.reason, error.detail))
        return None
    labels = [f"{seconds:.2f} s" for seconds in batch.pts_seconds.tolist()]
    height, width = batch.data.shape[1:3]
    cut = ", truncated file" if batch.truncated else ""
    return Strip(
        item_id=item_id,
        title=title,
        frames=tuple(Thumbnail(_jpeg(pixels), label) for pixels, label in zip(batch.data, labels, strict=True)),
        n_distinct=batch.n_distinct,
        about=f"{width} × {height}, {batch.duration_seconds:.2f} s, {batch.codec}, {batch.decoder}{cut}",
    )


def _cover(item_id: str, title: str, path: Path, failures: list[tuple[str, str, str]]) -> Cover | None:
    from extractors.errors import FrameError
    from extractors.images import read_image

    try:
        pixels = read_image(path)
    except FrameError as error:
        failures.append((item_id, error.reason, error.detail))
        return None
    height, width = pixels.shape[:2]
    return Cover(item_id, title, Thumbnail(_jpeg(pixels), f"{width} × {height}"))


def _jpeg(pixels: Pixels) -> str:
    """A small copy as a data URI."""
    from PIL import Image

    picture = Image.fromarray(pixels)
    picture.thumbnail(_BOX)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _failure_table(failures: Sequence[tuple[str, str, str]]) -> Table | None:
    if not failures:
        return None
    rows = tuple((text(item_id), code(reason), text(detail)) for item_id, reason, detail in failures)
    return Table("Files that were opened for this sheet and gave no picture.", ("item id", "reason", "detail"), rows)
