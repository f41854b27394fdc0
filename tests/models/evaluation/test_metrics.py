import math

import ir_measures
import numpy as np
import pytest
from ir_measures import RR, ScoredDoc, Success, nDCG

from models.errors import ConfigError
from models.evaluation.metrics import impossible_values, metrics_from_ranks, parse_metric, per_user

HAND_TABLE = {
    # ranks 0, 2, 9, 10 and 30: hits at 10 are the first three
    "hr@5": 2 / 5,
    "ndcg@5": (1 + 1 / 2) / 5,
    "mrr@5": (1 + 1 / 3) / 5,
    "hr@10": 3 / 5,
    "ndcg@10": (1 + 1 / 2 + 1 / math.log2(11)) / 5,
    "mrr@10": (1 + 1 / 3 + 1 / 10) / 5,
    "hr@20": 4 / 5,
    "ndcg@20": (1 + 1 / 2 + 1 / math.log2(11) + 1 / math.log2(12)) / 5,
    "mrr@20": (1 + 1 / 3 + 1 / 10 + 1 / 11) / 5,
}


def test_hand_table():
    found = metrics_from_ranks([0, 2, 9, 10, 30])
    assert list(found) == list(HAND_TABLE)
    assert found == pytest.approx(HAND_TABLE, abs=1e-15)


@pytest.mark.parametrize("k", [1, 5, 10, 20, 50])
def test_equal_to_ir_measures(k):
    generator = np.random.default_rng(k)
    n_items, n_users = 80, 200
    scores = generator.permuted(np.tile(np.arange(n_items, dtype=np.float64), (n_users, 1)), axis=1)
    targets = generator.integers(n_items, size=n_users)
    ranks = (scores > scores[np.arange(n_users), targets][:, None]).sum(axis=1)
    qrels = [ir_measures.Qrel(str(user), str(item), 1) for user, item in enumerate(targets)]
    run = [
        ScoredDoc(str(user), str(item), float(scores[user, item])) for user in range(n_users) for item in range(n_items)
    ]
    oracle = ir_measures.calc_aggregate([Success @ k, nDCG @ k, RR @ k], qrels, run)
    expected = {f"hr@{k}": oracle[Success @ k], f"ndcg@{k}": oracle[nDCG @ k], f"mrr@{k}": oracle[RR @ k]}
    assert metrics_from_ranks(ranks, (k,)) == pytest.approx(expected, abs=1e-9)


def test_per_user_values_average_to_the_metric():
    ranks = np.array([0, 3, 12], dtype=np.int32)
    assert per_user(ranks, "ndcg@10").tolist() == pytest.approx([1.0, 1 / math.log2(5), 0.0])
    assert per_user(ranks, "mrr@20").mean() == pytest.approx(metrics_from_ranks(ranks)["mrr@20"])


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        ([], "at least one rank"),
        ([[0, 1]], "one dimension"),
        ([0, -1], "0 is the best"),
        ([0.5], "whole numbers"),
    ],
)
def test_unusable_ranks_are_refused(ranks, message):
    with pytest.raises(ValueError, match=message):
        metrics_from_ranks(ranks)


@pytest.mark.parametrize("name", ["ndcg@0", "map@10", "hr@", "ndcg@10 ", "HR@10"])
def test_unknown_metrics_are_refused(name):
    with pytest.raises(ConfigError, match="expected hr@K, recall@K, ndcg@K or mrr@K"):
        parse_metric(name)


def test_cutoff_below_one_is_refused():
    with pytest.raises(ConfigError, match="'hr@0'"):
        metrics_from_ranks([1], (0,))


@pytest.mark.parametrize("seed", range(5))
def test_every_true_table_passes_the_arithmetic_gate(seed):
    ranks = np.random.default_rng(seed).integers(0, 60, size=50)
    assert impossible_values(metrics_from_ranks(ranks, (5, 10, 20, 50))) == []


def test_the_gate_bounds_are_reached_at_the_extremes():
    """All hits at rank k - 1 reach the lower bound, all at rank j the upper one."""
    assert impossible_values(metrics_from_ranks([9, 9, 40]), tolerance=1e-15) == []
    assert impossible_values(metrics_from_ranks([5, 5, 40]), tolerance=1e-15) == []


def test_a_published_row_that_cannot_be_true_is_named():
    """A baseline's row in a printed table: .0058 / .0309 = .188 is below 1/log2(21) = .2277."""
    row = {"hr@10": 0.0830, "ndcg@10": 0.0478, "hr@20": 0.1139, "ndcg@20": 0.0536}
    assert impossible_values(row, tolerance=1.5e-4) == [
        "ndcg from 10 to 20 grows by 0.005800, expected 0.007035 to 0.008619"
    ]
    assert impossible_values({"hr@10": 0.1, "ndcg@10": 0.2}) == [
        "ndcg from 0 to 10 grows by 0.200000, expected 0.028906 to 0.100000"
    ]
