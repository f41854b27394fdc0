"""Targets for decoders that tell times as floating-point seconds."""

from __future__ import annotations

from fractions import Fraction

from extractors.sampling import Policy, target_times

SLACK = Fraction(1, 50_000)
"""Added to each target, in seconds: more than single-precision times of a minute are off, less than a frame lasts. A
target that falls exactly on a timestamp would otherwise miss that frame by the rounding."""

_MICROSECONDS = 1_000_000


def float_targets(first: float, end: float, *, n: int, fps: float) -> tuple[list[float], Policy, float]:
    """The times to look at.

    Args:
        first: First timestamp in seconds.
        end: When the last frame leaves the screen, in seconds.
        n: How many frames.
        fps: Frames per second around the centre.

    Returns:
        Targets ``[n]`` in seconds, the rule that gave them, and the presented duration in seconds.

    Raises:
        SamplingError: When ``n`` or ``fps`` cannot be sampled.
    """
    begin = Fraction(round(first * _MICROSECONDS), _MICROSECONDS)
    duration = max(Fraction(round(end * _MICROSECONDS), _MICROSECONDS) - begin, Fraction(0))
    targets, policy = target_times(begin, duration, n=n, fps=fps)
    return [float(target + SLACK) for target in targets], policy, float(duration)
