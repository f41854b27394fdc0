"""Decoder audit: some of the videos decoded again in full, and what their decoder gave instead.

A decoder that shows the wrong picture raises nothing: only the full decode of the same file tells. Which videos are
looked at follows from their contents alone, so that the same audit can be done again anywhere.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from extractors.decoders.batch import FrameBatch
from extractors.errors import FrameError
from extractors.frames import sample_frames
from extractors.pool import DecodePool, FrameFailure, Item

REFERENCE = "sequential"
VERDICTS = ("equal", "different", "failed")

_CLOCK_SECONDS = 1e-3
"""Times that differ by less are the same: some decoders give them as float32."""

_DETAIL_CHARACTERS = 200

Verdict = Literal["equal", "different", "failed"]


@dataclass(frozen=True)
class Comparison:
    """What became of one video.

    Attributes:
        item_id: The item.
        decoder: Which decoder served, with the rung of its ladder, such as ``planned:sequential``.
        verdict: ``equal``; ``different`` (other pictures, or pictures where the full decode has none, or the reverse);
            ``failed`` (neither gives pictures, or the comparison was ended by a limit of the pool). Times alone make
            no difference: some decoders begin every video at 0.
        detail: One sentence; empty for ``equal``.
    """

    item_id: str
    decoder: str
    verdict: Verdict
    detail: str

    def as_dict(self) -> dict[str, str]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class DecoderCount:
    """How many videos one decoder served, and how they compare; ``checked`` is the sum of the other three."""

    decoder: str
    checked: int
    equal: int
    different: int
    failed: int

    def as_dict(self) -> dict[str, str | int]:
        """Plain values."""
        return asdict(self)


def choose(hashes: Mapping[str, bytes], share: float) -> list[str]:
    """Items to look at: those whose content hashes are smallest, one of each content.

    Args:
        hashes: SHA-256 of the content by item id.
        share: Part of the distinct contents, above 0 and at most 1; rounded up, so that there is at least one.

    Returns:
        Item ids, by content hash.

    Raises:
        ValueError: When the share is not between 0 and 1.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share: expected a number above 0 and at most 1, got {share!r}")
    first: dict[bytes, str] = {}
    for item_id, content in hashes.items():
        first.setdefault(content, item_id)
    return [first[content] for content in sorted(first)[: math.ceil(share * len(first))]]


def audit(items: Iterable[Item], *, n: int, fps: float, decoder: str, pool: DecodePool) -> Iterator[Comparison]:
    """Compare a decoder with the full decode, each video in a process of the pool and within its limits.

    Args:
        items: Item ids and paths.
        n: Frames of a video.
        fps: Frames per second around the centre.
        decoder: The decoder under test.
        pool: Where to decode.

    Yields:
        One comparison for each item, in any order.

    Raises:
        PoolError: When the processes do not start.
    """
    options = {"n": n, "fps": fps, "decoder": decoder}
    for item_id, outcome in pool.run("extractors.pool_tasks:comparison", items, options):
        if isinstance(outcome, FrameFailure):
            yield Comparison(item_id, decoder, "failed", f"{outcome.reason}: {outcome.detail}")
        elif outcome.get("verdict") not in VERDICTS:
            yield Comparison(item_id, decoder, "failed", "error: the decode process sent no valid answer")
        else:
            yield Comparison(item_id, str(outcome["decoder"]), outcome["verdict"], str(outcome["detail"]))


def count(comparisons: Iterable[Comparison]) -> list[DecoderCount]:
    """Add up by decoder, sorted by its name."""
    verdicts: dict[str, list[Verdict]] = {}
    for comparison in comparisons:
        verdicts.setdefault(comparison.decoder, []).append(comparison.verdict)
    return [
        DecoderCount(decoder, len(found), **{verdict: found.count(verdict) for verdict in VERDICTS})
        for decoder, found in sorted(verdicts.items())
    ]


def compare(path: Path, *, n: int, fps: float, decoder: str) -> dict[str, Any]:
    """Decode one video with a decoder and in full.

    Returns:
        ``decoder``, ``verdict`` and ``detail`` of a :class:`Comparison`.
    """
    given = _frames(path, n, fps, decoder)
    served = decoder if isinstance(given, FrameError) else given.decoder
    verdict, detail = _verdict(given, _frames(path, n, fps, REFERENCE))
    return {"decoder": served, "verdict": verdict, "detail": detail}


def _frames(path: Path, n: int, fps: float, decoder: str) -> FrameBatch | FrameError:
    try:
        return sample_frames(path, n, fps, decoder)
    except FrameError as error:
        return error


def _verdict(given: FrameBatch | FrameError, full: FrameBatch | FrameError) -> tuple[Verdict, str]:
    if isinstance(given, FrameError):
        if isinstance(full, FrameError):
            return "failed", f"{_brief(given)}; the full decode: {_brief(full)}"
        return "different", f"no pictures where the full decode has them: {_brief(given)}"
    if isinstance(full, FrameError):
        return "different", f"pictures where the full decode has none: {_brief(full)}"
    if given.data.shape != full.data.shape:
        return "different", f"pictures {_size(given)}, of the full decode {_size(full)}"
    apart = [_distance(mine, whole) for mine, whole in zip(given.data, full.data, strict=True)]
    if any(apart):
        which = f"{np.count_nonzero(apart)} of {len(apart)} pictures differ, by up to {max(apart):.1f} grey levels"
        moved = np.abs(given.pts_seconds - full.pts_seconds).max() > _CLOCK_SECONDS
        when = f"; on screen at {_times(given)} s, of the full decode at {_times(full)} s" if moved else ""
        return "different", which + " on average" + when
    if given.n_distinct != full.n_distinct:
        return "different", f"{given.n_distinct} distinct pictures, of the full decode {full.n_distinct}"
    return "equal", ""


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """Mean distance of two pictures in grey levels; 0 for equal ones alone."""
    return 0.0 if np.array_equal(one, other) else float(np.abs(one.astype(np.int16) - other).mean())


def _brief(error: FrameError) -> str:
    return textwrap.shorten(str(error), _DETAIL_CHARACTERS, placeholder=" …")


def _size(batch: FrameBatch) -> str:
    frames, height, width = batch.data.shape[:3]
    return f"{frames} of {width}×{height}"


def _times(batch: FrameBatch) -> str:
    return ", ".join(f"{seconds:.3f}" for seconds in batch.pts_seconds)
