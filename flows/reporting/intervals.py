"""Means over seeds with Student's intervals, and how they are printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from scipy import stats

from flows.reporting.view import Cell


@dataclass(frozen=True)
class Interval:
    """A mean over seeds.

    Attributes:
        mean: Of the seeds' values.
        half: Half the width of the 95 % interval of the mean; None for one seed, whose spread is unknown.
        n: Number of seeds.
    """

    mean: float
    half: float | None
    n: int

    @property
    def text(self) -> str:
        """The interval, such as ``[0.0840, 0.0866]``."""
        return "one seed" if self.half is None else f"[{self.mean - self.half:.4f}, {self.mean + self.half:.4f}]"

    @property
    def cell(self) -> Cell:
        """The mean, with the interval below it."""
        return Cell(f"{self.mean:.4f}", "number", below=self.text)


def over_seeds(values: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """Mean and Student's interval: mean ± t(n - 1) · s / √n, s being the sample standard deviation.

    Raises:
        statistics.StatisticsError: For no values.
    """
    n = len(values)
    if n == 1:
        return Interval(mean(values), None, n)
    quantile = float(stats.t.ppf(0.5 + confidence / 2, n - 1))
    return Interval(mean(values), quantile * stdev(values) / n**0.5, n)
