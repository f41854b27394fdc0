"""Nearest items by hand and beside scikit-learn."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity

from models.modules.neighbours import nearest_items

# Users 0..3; item 1 is read by 0 1 2, item 2 by 0 1 (twice by 1), item 3 by 1 3, item 4 by 3, item 5 by nobody.
ITEMS = torch.tensor([1, 2, 2, 1, 3, 2, 1, 3, 4])
OFFSETS = torch.tensor([0, 2, 6, 7, 9])


def random_histories(users=200, n_items=60, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 12, users)
    items = torch.from_numpy(rng.integers(1, n_items + 1, lengths.sum()))
    return items, torch.from_numpy(np.append(0, np.cumsum(lengths)))


def dense(items, offsets, n_items):
    matrix = np.zeros((len(offsets) - 1, n_items + 1))
    for user, (start, end) in enumerate(pairwise(offsets)):
        matrix[user, items[start:end].numpy()] = 1
    return matrix


def test_a_table_by_hand():
    ids, similarity = nearest_items(ITEMS, OFFSETS, n_items=5, k=2)
    assert ids.dtype == torch.int32
    assert ids.tolist() == [[0, 0], [2, 3], [1, 3], [4, 2], [3, 0], [0, 0]]
    six, four, two = math.sqrt(6), math.sqrt(4), math.sqrt(2)
    expected = [[0, 0], [2 / six, 1 / six], [2 / six, 1 / four], [1 / two, 1 / four], [1 / two, 0], [0, 0]]
    assert similarity.dtype == torch.float32
    torch.testing.assert_close(similarity, torch.tensor(expected))


def test_shrinking_divides_by_more():
    ids, similarity = nearest_items(ITEMS, OFFSETS, n_items=5, k=1, shrink=10.0)
    assert ids[1:4, 0].tolist() == [2, 1, 4]
    expected = [2 / (math.sqrt(6) + 10), 2 / (math.sqrt(6) + 10), 1 / (math.sqrt(2) + 10)]
    torch.testing.assert_close(similarity[1:4, 0], torch.tensor(expected))


def test_it_is_the_cosine_of_another_library():
    items, offsets = random_histories()
    matrix = dense(items, offsets, 60)
    cosine = cosine_similarity(matrix.T)
    np.fill_diagonal(cosine, 0)
    ids, similarity = nearest_items(items, offsets, n_items=60, k=60)
    found = np.zeros_like(cosine)
    np.put_along_axis(found, ids.numpy().astype(np.int64), similarity.numpy(), axis=1)
    np.testing.assert_allclose(found, cosine, atol=1e-6)
    assert (similarity.diff(dim=1) <= 0).all()


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_pieces_do_not_change_the_result(piece):
    items, offsets = random_histories()
    whole = nearest_items(items, offsets, n_items=60, k=7)
    pieces = nearest_items(items, offsets, n_items=60, k=7, piece=piece)
    assert torch.equal(whole[0], pieces[0])
    assert torch.equal(whole[1], pieces[1])


def test_of_equal_similarities_the_smaller_id_comes_first():
    """Everybody read everything: all cosines are 1."""
    items = torch.tensor([4, 2, 3, 1]).repeat(3)
    ids, similarity = nearest_items(items, torch.tensor([0, 4, 8, 12]), n_items=4, k=3)
    assert ids.tolist() == [[0, 0, 0], [2, 3, 4], [1, 3, 4], [1, 2, 4], [1, 2, 3]]
    assert (similarity[1:] == 1).all()
