"""Which settings to try: the whole grid, or one axis after the other. Nothing is known here about what a try is.

An objective gives the value of a choice, the larger the better, or None for a choice that cannot be judged; such a
choice is never the best. Of equal values the one that comes first in the order of the axes and of their values wins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

Choice = dict[str, Any]
Axes = Mapping[str, Sequence[Any]]
Objective = Callable[[Choice], float | None]


def combinations(axes: Axes) -> list[Choice]:
    """Every combination of the values of all axes; the last axis changes fastest."""
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


def grid(axes: Axes, objective: Objective) -> Choice | None:
    """The best of all combinations; None when none can be judged."""
    return _first_best(combinations(axes), objective)


def coordinate(axes: Axes, objective: Objective, *, rounds: int) -> Choice | None:
    """Set one axis after the other to its best value while the others keep theirs.

    Begins at the first value of every axis. Where the objective is a sum of functions of one axis each, the first
    round ends at the best point of the grid, at the cost of the sum of the lengths instead of their product.

    Args:
        axes: Values by name; walked in this order.
        objective: Asked for the same choice several times.
        rounds: Ends after so many rounds, or after one that changed nothing.

    Returns:
        The best point that was reached; None when no value of some axis could be judged.
    """
    point = {name: values[0] for name, values in axes.items()}
    for _ in range(rounds):
        before = dict(point)
        for name, values in axes.items():
            best = _first_best([{**point, name: value} for value in values], objective)
            if best is None:
                return None
            point = best
        if point == before:
            break
    return point


def _first_best(choices: Sequence[Choice], objective: Objective) -> Choice | None:
    best: Choice | None = None
    highest: float | None = None
    for choice in choices:
        value = objective(choice)
        if value is not None and (highest is None or value > highest):
            best, highest = choice, value
    return best
