"""Is one model better than another? Paired differences, with an interval beside every p-value.

Pairs that all differ by the same amount have no spread that a difference could be held against: they are not tested.

Two questions, two tests: over training seeds (does the method win again when trained again?) and over users (does
this trained model win on other users?). The second says nothing about the first.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

#: Rounding of metrics and of their differences, in units of the largest metric.
_ROUNDING = 16 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class PairedComparison:
    """A mean paired difference, first minus second.

    Where all pairs differ by the same amount but for rounding, t, p and the interval are NaN; where that amount is 0,
    t is 0, p is 1 and the interval is 0.

    Attributes:
        difference: Mean of the differences.
        relative: The difference divided by the second's mean; NaN when that is 0.
        low: Lower end of the interval.
        high: Upper end of the interval.
        t: Student's t.
        df: Degrees of freedom.
        p: Two-sided p-value.
        n: Number of pairs.
    """

    difference: float
    relative: float
    low: float
    high: float
    t: float
    df: int
    p: float
    n: int


def compare_seeds(first: ArrayLike, second: ArrayLike, *, confidence: float = 0.95) -> PairedComparison:
    """Paired t-test over seeds: one value of a metric per seed and model, the same seeds in the same order.

    The interval is Student's.

    Raises:
        ValueError: For fewer than two pairs or different numbers of values.
    """
    ours, theirs = _paired(first, second)
    if _without_spread(ours, theirs):
        return _not_tested(ours, theirs)
    half = float(stats.t.ppf(0.5 + confidence / 2, len(ours) - 1)) * _standard_error(ours - theirs)
    return _tested(ours, theirs, low=float((ours - theirs).mean()) - half, high=float((ours - theirs).mean()) + half)


def compare_users(
    first: ArrayLike,
    second: ArrayLike,
    *,
    generator: np.random.Generator,
    samples: int = 2000,
    confidence: float = 0.95,
) -> PairedComparison:
    """Paired t-test over users, with a percentile bootstrap interval (Efron 1979) of the mean difference.

    Args:
        first: A metric of every user (``metrics.per_user``) under the first model.
        second: The same users in the same order under the second.
        generator: Draws the bootstrap samples.
        samples: Number of bootstrap samples.
        confidence: Coverage of the interval.

    Raises:
        ValueError: For fewer than two pairs or different numbers of values.
    """
    ours, theirs = _paired(first, second)
    if _without_spread(ours, theirs):
        return _not_tested(ours, theirs)
    differences = ours - theirs
    n = len(differences)
    means = [float(differences[generator.integers(n, size=n)].mean()) for _ in range(samples)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return _tested(ours, theirs, low=float(low), high=float(high))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjustment of the p-values of several tests, in the order in which they came.

    NaN, where nothing was tested, stays NaN and counts as no test.
    """
    values = np.asarray(p_values, dtype=np.float64)
    tests = int(np.count_nonzero(~np.isnan(values)))
    order = np.argsort(values)[:tests]  # NaN is sorted last
    scaled = values[order] * np.arange(tests, 0, -1)
    adjusted = np.full(len(values), np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return [float(value) for value in adjusted]


def holm_within(families: Sequence[Hashable], p_values: Sequence[float]) -> list[float]:
    """:func:`holm` of the p-values of each family by itself; tests that answer different questions are not one family.

    Args:
        families: The family of each test.
        p_values: In the same order.
    """
    adjusted = [float("nan")] * len(p_values)
    for family in dict.fromkeys(families):
        places = [place for place, one in enumerate(families) if one == family]
        for place, p in zip(places, holm([p_values[place] for place in places]), strict=True):
            adjusted[place] = p
    return adjusted


def _paired(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    ours, theirs = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if ours.shape != theirs.shape or ours.ndim != 1 or len(ours) < 2:
        raise ValueError(f"expected two lists of the same length >= 2, got shapes {ours.shape} and {theirs.shape}")
    return ours, theirs


def _standard_error(differences: NDArray[np.float64]) -> float:
    return float(differences.std(ddof=1) / np.sqrt(len(differences)))


def _without_spread(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> bool:
    """All pairs differ by the same amount but for rounding."""
    return float(np.ptp(ours - theirs)) <= _rounding(ours, theirs)


def _rounding(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    return _ROUNDING * float(max(np.abs(ours).max(), np.abs(theirs).max()))


def _not_tested(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> PairedComparison:
    difference, nan = float((ours - theirs).mean()), float("nan")
    if abs(difference) <= _rounding(ours, theirs):
        return _comparison(theirs, difference=0.0, low=0.0, high=0.0, t=0.0, p=1.0)
    return _comparison(theirs, difference=difference, low=nan, high=nan, t=nan, p=nan)


def _tested(ours: NDArray[np.float64], theirs: NDArray[np.float64], *, low: float, high: float) -> PairedComparison:
    difference = float((ours - theirs).mean())
    t = difference / _standard_error(ours - theirs)
    p = float(2 * stats.t.sf(abs(t), len(ours) - 1))
    return _comparison(theirs, difference=difference, low=low, high=high, t=t, p=p)


def _comparison(
    theirs: NDArray[np.float64], *, difference: float, low: float, high: float, t: float, p: float
) -> PairedComparison:
    base, n = float(theirs.mean()), len(theirs)
    relative = difference / base if base else float("nan")
    return PairedComparison(difference, relative, low, high, t, n - 1, p, n)
