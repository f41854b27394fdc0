"""The log-uniform sampler against its formula and its frequencies."""

import math

import pytest
import torch

from models.modules.log_uniform import by_frequency, log_uniform_log_q, log_uniform_negatives


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_order_is_that_of_the_counts_and_ids_break_ties():
    assert by_frequency(torch.tensor([99, 2, 5, 2, 0])).tolist() == [2, 1, 3, 4]


def test_probabilities_of_three_items_by_hand():
    """log 2, log 3/2 and log 4/3 over log 4, for the ranks in the order 2, 3, 1."""
    q = log_uniform_log_q(torch.tensor([2, 3, 1])).exp()
    assert q.tolist() == pytest.approx([0.0, 0.207519, 0.5, 0.292481], abs=1e-6)


@pytest.mark.parametrize("n_items", [1, 2, 1000])
def test_probabilities_sum_to_one(n_items):
    q = log_uniform_log_q(torch.arange(1, n_items + 1)).double().exp()
    assert float(q.sum()) == pytest.approx(1.0, abs=1e-5)


def test_items_are_drawn_as_often_as_their_probability_says():
    order, draws = torch.tensor([4, 2, 7, 1, 3, 6, 5]), 70_000
    counts = torch.bincount(log_uniform_negatives(order, draws, generator=seeded()), minlength=8)
    assert counts[0] == 0
    for rank, item in enumerate(order.tolist()):
        q = math.log((rank + 2) / (rank + 1)) / math.log(8)
        assert abs(int(counts[item]) - draws * q) < 5 * math.sqrt(draws * q * (1 - q))


def test_a_single_item_is_always_drawn():
    assert log_uniform_negatives(torch.tensor([1]), 5, generator=seeded()).tolist() == [1] * 5


def test_the_generator_fixes_the_draw():
    order = torch.arange(1, 101)
    first, second, other = (log_uniform_negatives(order, 30, generator=seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
