"""What is tried and what is chosen, on objectives whose best point is known."""

import pytest

from flows.jobs.search import coordinate, grid

AXES = {"a": [0, 1, 2, 3], "b": [-2, -1, 0], "c": [5, 7]}


class Asked:
    """An objective that remembers what it was asked for."""

    def __init__(self, function):
        self.function, self.points = function, []

    def __call__(self, choice):
        self.points.append(tuple(choice.values()))
        return self.function(*choice.values())


def bowl(a, b, c):
    """Largest at (2, -1, 7)."""
    return -((a - 2) ** 2) - 3 * (b + 1) ** 2 - (c - 7) ** 2


def test_a_grid_asks_for_every_combination_once_and_finds_the_best():
    objective = Asked(bowl)
    assert grid(AXES, objective) == {"a": 2, "b": -1, "c": 7}
    assert objective.points == [(a, b, c) for a in AXES["a"] for b in AXES["b"] for c in AXES["c"]]


def test_one_round_is_enough_where_the_axes_are_independent():
    objective = Asked(bowl)
    assert coordinate(AXES, objective, rounds=1) == {"a": 2, "b": -1, "c": 7}
    assert len(objective.points) == 4 + 3 + 2
    assert objective.points == [
        *((a, -2, 5) for a in (0, 1, 2, 3)),
        *((2, b, 5) for b in (-2, -1, 0)),
        *((2, -1, c) for c in (5, 7)),
    ]


def test_the_search_ends_after_a_round_that_changes_nothing():
    objective = Asked(bowl)
    coordinate(AXES, objective, rounds=10)
    assert len(objective.points) == 2 * 9


def tilted(a, b):
    """On 0 to 2: from (0, 0) a alone leads to 1, then b to 1; only another round brings a to 2, then b to 2."""
    return [[0, -1, -1], [1, 2, -1], [0, 3, 4]][a][b]


@pytest.mark.parametrize(("rounds", "best"), [(1, (1, 1)), (2, (2, 2)), (3, (2, 2))])
def test_dependent_axes_need_more_rounds(rounds, best):
    axes = {"a": [0, 1, 2], "b": [0, 1, 2]}
    assert tuple(coordinate(axes, Asked(tilted), rounds=rounds).values()) == best


@pytest.mark.parametrize("search", [grid, lambda axes, objective: coordinate(axes, objective, rounds=3)])
def test_of_equal_values_the_first_wins(search):
    assert search({"a": ["x", "y"], "b": [2, 1]}, lambda choice: 0.5) == {"a": "x", "b": 2}


@pytest.mark.parametrize("search", [grid, lambda axes, objective: coordinate(axes, objective, rounds=3)])
def test_what_cannot_be_judged_is_never_the_best(search):
    axes = {"a": [1, 2, 3]}
    assert search(axes, lambda choice: {1: None, 2: -7.0, 3: -8.0}[choice["a"]]) == {"a": 2}
    assert search(axes, lambda choice: None) is None
