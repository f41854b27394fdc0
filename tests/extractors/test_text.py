"""Normalisation and batches under a token budget."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extractors.text import normalise, token_batches


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  a \t b\n", "a b"),
        ("cafe\u0301", "caf\u00e9"),
        ("a\x00b\u0085c", "a b c"),
        ("a\u3000b\u00a0c", "a b c"),
        ("\ud83dcat", "cat"),
        ("👩‍🍳 成都", "👩‍🍳 成都"),
        ("", ""),
    ],
)
def test_normalise(text, expected):
    assert normalise(text) == expected
    assert normalise(expected) == expected


def test_batches_by_hand():
    # Sorted: 2, 3, 3, 7, 20. Two rows of 3 make 6 <= 9, three would too (9), a row of 7 beside them would not.
    assert token_batches([3, 20, 2, 7, 3], 9) == [[2, 0, 4], [3], [1]]
    assert token_batches([], 9) == []
    assert token_batches([50], 9) == [[0]]


@given(st.lists(st.integers(1, 60), max_size=80), st.integers(1, 200))
def test_every_row_is_in_one_batch_and_budgets_hold(lengths, budget):
    batches = token_batches(lengths, budget)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= budget


def test_sorting_by_length_wastes_little():
    lengths = [1 + (index * 37) % 50 for index in range(1000)]
    padded = sum(len(batch) * max(lengths[row] for row in batch) for batch in token_batches(lengths, 1024))
    assert sum(lengths) / padded > 0.9


def test_a_batch_ends_where_padding_costs_more_than_another_batch():
    assert token_batches([1, 1, 9, 9, 10], 100) == [[0, 1, 2, 3, 4]]
    assert token_batches([1, 1, 9, 9, 10], 100, padding=2) == [[0, 1], [2, 3, 4]]
    assert token_batches([1, 1, 9, 9, 10], 100, padding=1) == [[0, 1], [2, 3], [4]]


@given(st.lists(st.integers(1, 60), max_size=80), st.integers(1, 200), st.integers(0, 40))
def test_padding_keeps_its_limit(lengths, budget, padding):
    batches = token_batches(lengths, budget, padding)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        read = [lengths[row] for row in batch]
        assert len(batch) * max(read) - sum(read) <= padding
