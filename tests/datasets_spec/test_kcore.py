import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets_spec import kcore
from datasets_spec.kcore import group_rows, k_core


def literal(user, item, k_user, k_item):
    """The definition: drop rows of users and items that have too few, until none has."""
    mask = np.ones(len(user), dtype=bool)
    while True:
        users, user_counts = np.unique(user[mask], return_counts=True)
        items, item_counts = np.unique(item[mask], return_counts=True)
        good_users, good_items = users[user_counts >= k_user], items[item_counts >= k_item]
        kept = mask & np.isin(user, good_users) & np.isin(item, good_items)
        if (kept == mask).all():
            return mask
        mask = kept


def path_graph(edges):
    """user 0 - item 0 - user 1 - item 1 - …: peeled from both ends, one node at a time."""
    user = (np.arange(edges) + 1) // 2
    item = np.arange(edges) // 2
    return user, item


@pytest.mark.parametrize("scans", [0, 1, 100], ids=["index at once", "index after a scan", "scans only"])
@pytest.mark.parametrize("small", [0, 64], ids=["numpy", "plain loop"])
@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 12), st.integers(-3, 9)), min_size=1, max_size=120),
    k_user=st.integers(0, 6),
    k_item=st.integers(0, 6),
)
def test_equals_the_literal_definition_with_duplicates_in_any_order(scans, small, rows, k_user, k_item):
    user, item = np.array(rows).T
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kcore, "_SCANS", scans)
        patch.setattr(kcore, "_SMALL_FRONTIER", small)
        mask, report = k_core(user, item, k_user=k_user, k_item=k_item)
    np.testing.assert_array_equal(mask, literal(user, item, k_user, k_item))
    assert report.kept == (len(set(user[mask])), len(set(item[mask])), mask.sum())
    assert (report.users, report.items, report.rows) == (len(set(user)), len(set(item)), len(rows))
    assert sum(entry.removed_rows for entry in report.rounds) == len(rows) - mask.sum()


@pytest.mark.parametrize("scans", [0, 100])
def test_equals_the_literal_definition_on_thousands_of_random_graphs(monkeypatch, scans):
    monkeypatch.setattr(kcore, "_SCANS", scans)
    generator = np.random.default_rng(scans)
    partly = 0
    for _ in range(1500):
        rows, n_users, n_items, k_user, k_item = generator.integers(1, (60, 20, 20, 6, 6))
        user, item = generator.integers(0, n_users, rows), generator.integers(0, n_items, rows)
        mask, _ = k_core(user, item, k_user=k_user, k_item=k_item)
        np.testing.assert_array_equal(mask, literal(user, item, k_user, k_item))
        partly += 0 < mask.sum() < rows
    assert partly > 200  # neither all nor nothing


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_literal_definition_where_frontiers_are_large(seed):
    generator = np.random.default_rng(seed)
    user = (generator.pareto(1.05, 60_000) * 300).astype(np.int64) % 20_000
    item = (generator.pareto(1.05, 60_000) * 100).astype(np.int64) % 9_000
    mask, report = k_core(user, item, k_user=5, k_item=3)
    np.testing.assert_array_equal(mask, literal(user, item, 5, 3))
    assert len(report.rounds) > 1
    assert report.rounds[0].removed_users > 64  # by numpy, not one by one


def test_the_order_of_rows_changes_nothing():
    generator = np.random.default_rng(3)
    user = (generator.pareto(1.05, 3000) * 30).astype(np.int64)
    item = (generator.pareto(1.05, 3000) * 30).astype(np.int64)
    mask, report = k_core(user, item, k_user=8, k_item=7)
    order = generator.permutation(3000)
    shuffled, report_shuffled = k_core(user[order], item[order], k_user=8, k_item=7)
    np.testing.assert_array_equal(shuffled, mask[order])
    assert report == report_shuffled
    assert 0 < mask.sum() < 3000


def test_a_path_is_peeled_completely_in_as_many_passes_as_it_is_long():
    user, item = path_graph(40_001)
    mask, report = k_core(user, item, k_user=2, k_item=2)
    assert not mask.any()
    assert len(report.rounds) == 100  # the later ones are added up
    assert sum(entry.passes for entry in report.rounds) > 5_000
    assert sum(entry.removed_rows for entry in report.rounds) == 40_001
    assert sum(entry.removed_users for entry in report.rounds) == report.users
    assert sum(entry.removed_items for entry in report.rounds) == report.items


def test_a_ring_stays():
    user, item = path_graph(10_000)  # from user 0 to user 5,000; item 5,000 joins its ends
    user, item = np.append(user, [0, 5_000]), np.append(item, [5_000, 5_000])
    mask, report = k_core(user, item, k_user=2, k_item=2)
    assert mask.all()
    assert report.rounds == []


def test_the_report_of_a_case_that_a_person_can_check():
    # user c has one row, so it leaves with item y's second row; then y has one row and leaves with a's second row.
    user = ["a", "a", "b", "c", "b"]
    item = ["x", "y", "x", "y", "x"]
    mask, report = k_core(user, item, k_user=2, k_item=2)
    assert mask.tolist() == [False, False, True, False, True]
    first, second = report.rounds
    assert (first.removed_users, first.rows_by_users, first.removed_items, first.removed_rows) == (1, 1, 1, 2)
    assert (second.removed_users, second.removed_items, second.removed_rows) == (1, 0, 1)
    assert (second.users, second.items, second.rows) == (1, 1, 2)
    assert report.lines() == [
        "in: 5 rows, 3 users, 2 items (k_user=2, k_item=2)",
        "round 1: -1 users below k_user with 1 rows, -1 items below k_item with 1 rows; left: 3 rows, 2 users, 1 items",
        "round 2: -1 users below k_user with 1 rows, -0 items below k_item with 0 rows; left: 2 rows, 1 users, 1 items",
    ]


@pytest.mark.parametrize("k", [0, 1])
def test_bounds_of_zero_and_one_bind_nothing(k):
    mask, report = k_core([1, 2, 3], [4, 4, 5], k_user=k, k_item=k)
    assert mask.tolist() == [True] * 3
    assert report.kept == (3, 2, 3)


@pytest.mark.parametrize(
    ("user", "item"),
    [
        (np.array([7, 7, 9]), np.array([2**40, 2**40, 5])),
        (np.array([7, 7, 9], dtype=np.uint8), np.array([2, 2, 5], dtype=np.int16)),
        (np.array([7, 7, 2**64 - 1], dtype=np.uint64), np.array([0, 0, 1], dtype=np.uint64)),
        (["u", "u", "v"], ["x", "x", "y"]),
        (np.array(["u", "u", "v"]), np.array(["x", "x", "y"], dtype=object)),
        (pl.Series(["u", "u", "v"]), pl.Series([1, 1, 2])),
        (pl.Series(["u", "u", "v"], dtype=pl.Categorical), (1, 1, 2)),
    ],
    ids=["int64", "small ints", "unsigned", "lists", "string arrays", "series", "categorical"],
)
def test_all_kinds_of_columns(user, item):
    mask, report = k_core(user, item, k_user=2, k_item=2)
    assert mask.dtype == np.bool_
    assert mask.tolist() == [True, True, False]
    assert (report.users, report.items, report.rows) == (2, 2, 3)


def test_rows_by_group_keep_their_order():
    starts, rows = group_rows(np.array([2, 0, 2, 3, 0]), 5)
    assert starts.tolist() == [0, 2, 2, 4, 5, 5]
    assert rows.tolist() == [1, 4, 0, 2, 3]


def test_no_rows():
    mask, report = k_core([], [], k_user=5, k_item=5)
    assert mask.shape == (0,)
    assert report.kept == (0, 0, 0)


def test_columns_of_different_length_are_refused():
    with pytest.raises(ValueError, match="equally long columns, got 2 users and 1 items"):
        k_core([1, 2], [1], k_user=1, k_item=1)


def test_nulls_are_refused():
    with pytest.raises(ValueError, match="item: expected no nulls, got 1"):
        k_core(["a", "b"], pl.Series(["x", None]), k_user=1, k_item=1)


def test_a_negative_bound_is_refused():
    with pytest.raises(ValueError, match="k_item: expected a number >= 0, got -1"):
        k_core([1], [1], k_user=1, k_item=-1)


def test_two_dimensions_are_refused():
    with pytest.raises(ValueError, match=r"user: expected one dimension, got shape \[2, 1\]"):
        k_core(np.ones((2, 1), dtype=int), [1, 2], k_user=1, k_item=1)
