"""Which frames of a video are sampled: exact arithmetic on presentation timestamps.

The video is presented from its first timestamp to its last timestamp plus the duration of the last frame; this span is
the duration. Durations that a container declares play no part: they include audio, or are absent, or are wrong.
The duration of the last frame is the one that its packet carries; where that is missing or not positive, it is the step
between the last two timestamps; a single frame without a duration lasts no time.

For ``n`` frames at ``fps`` around the centre ``c = first + duration / 2`` the targets are

    t_j = c + (j - (n - 1) / 2) / fps                  j = 0 .. n - 1        ("centre")

and where the video is shorter than ``n / fps`` seconds, the middles of ``n`` equal parts

    t_j = first + duration * (j + 1/2) / n                                    ("short")

Each target takes the frame on screen at that time: the largest timestamp not after the target, or the first frame.
All arithmetic is on integers and fractions, so that a target that falls exactly on a timestamp takes that frame.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import floor
from typing import Literal

from extractors.errors import SamplingError

Policy = Literal["centre", "short"]


@dataclass(frozen=True)
class SamplePlan:
    """The frames to take from one video.

    Attributes:
        targets: The ``n`` wanted times, in seconds on the container's clock.
        index: For each target, the index into the timestamps it was planned from.
        policy: Which of the two rules gave the targets.
        duration: Presented duration in seconds.
    """

    targets: tuple[Fraction, ...]
    index: tuple[int, ...]
    policy: Policy
    duration: Fraction

    @property
    def n_distinct(self) -> int:
        """How many different frames the plan takes."""
        return len(set(self.index))


def presented_ticks(pts: Sequence[int], last_duration: int | None) -> int:
    """Presented duration of a video, in ticks of its time base.

    Args:
        pts: Timestamps of the shown frames, ascending, at least one.
        last_duration: Duration of the last frame; None or not positive where it is unknown.

    Returns:
        ``pts[-1] + duration of the last frame - pts[0]``.
    """
    if last_duration is not None and last_duration > 0:
        step = last_duration
    else:
        step = pts[-1] - pts[-2] if len(pts) > 1 else 0
    return pts[-1] + step - pts[0]


def require_rate(n: int, fps: float) -> Fraction:
    """Check what is asked for, and give the rate as a fraction.

    Raises:
        SamplingError: When ``n`` or ``fps`` cannot be sampled.
    """
    if n < 1:
        raise SamplingError(f"n: expected at least 1 frame, got {n}")
    if not 0 < fps < float("inf"):
        raise SamplingError(f"fps: expected a finite rate above 0, got {fps}")
    rate = Fraction(fps).limit_denominator(1_000_000)
    if rate == 0:
        raise SamplingError(f"fps: expected at least one frame in a million seconds, got {fps}")
    return rate


def target_times(
    first: Fraction, duration: Fraction, *, n: int = 5, fps: float = 1.0
) -> tuple[tuple[Fraction, ...], Policy]:
    """The ``n`` times to look at, in seconds.

    Args:
        first: First timestamp.
        duration: Presented duration.
        n: How many frames, at least 1.
        fps: Frames per second around the centre, above 0.

    Returns:
        Targets ``[n]`` in ascending order, and the rule that gave them.

    Raises:
        SamplingError: When ``n`` or ``fps`` cannot be sampled.
    """
    rate = require_rate(n, fps)
    if duration < n / rate:
        return tuple(first + duration * Fraction(2 * j + 1, 2 * n) for j in range(n)), "short"
    centre = first + duration / 2
    return tuple(centre + Fraction(2 * j - (n - 1), 2) / rate for j in range(n)), "centre"


def plan_samples(
    pts: Sequence[int], last_duration: int | None, time_base: Fraction, *, n: int = 5, fps: float = 1.0
) -> SamplePlan:
    """Choose the frames of one video.

    Args:
        pts: Timestamps of all shown frames in ticks, ascending, at least one.
        last_duration: Duration of the last frame in ticks, None where unknown.
        time_base: Seconds in a tick.
        n: How many frames.
        fps: Frames per second around the centre.

    Returns:
        The plan.

    Raises:
        SamplingError: When ``n`` or ``fps`` cannot be sampled.
        ValueError: When there are no timestamps, or they descend.
    """
    if not pts:
        raise ValueError("pts: expected at least one timestamp, got none")
    if any(later < earlier for earlier, later in pairwise(pts)):
        raise ValueError("pts: expected ascending timestamps")
    duration = presented_ticks(pts, last_duration) * time_base
    targets, policy = target_times(pts[0] * time_base, duration, n=n, fps=fps)
    index = tuple(max(bisect_right(pts, floor(target / time_base)) - 1, 0) for target in targets)
    return SamplePlan(targets, index, policy, duration)
