import numpy as np
import pytest
import torch

from models.errors import RecommendationError
from models.modules.retrieval import score_all, top_k


def test_scores_are_inner_products_without_padding():
    h, table = torch.tensor([[1.0, 2.0]]), torch.tensor([[9.0, 9.0], [3.0, 4.0], [-1.0, 0.5]])
    assert score_all(h, table).tolist() == [[-np.inf, 11.0, 0.0]]


def test_gradients_pass_through_the_scores():
    h, table = torch.ones(1, 2, requires_grad=True), torch.ones(3, 2, requires_grad=True)
    score_all(h, table)[:, 1:].sum().backward()
    assert h.grad.tolist() == [[2.0, 2.0]]
    assert table.grad.tolist() == [[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]


def test_ties_go_to_the_smaller_id():
    scores = torch.tensor([[9.0, 1, 3, 3, 2, 3], [0, 5, 5, 5, 5, 5]])
    top = top_k(scores, 3)
    assert top.items.tolist() == [[2, 3, 5], [1, 2, 3]]
    assert top.scores.tolist() == [[3.0, 3.0, 3.0], [5.0, 5.0, 5.0]]
    assert scores[0, 0] == 9.0  # the caller's scores are left alone


@pytest.mark.parametrize("seed", range(10))
def test_equal_to_a_stable_sort(seed):
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, 8, size=(6, 30)).astype(np.float32)
    exclude = generator.integers(0, 30, size=(6, 9))
    top = top_k(torch.tensor(scores), 10, torch.tensor(exclude))
    for row in range(6):
        allowed = [item for item in range(1, 30) if item not in set(exclude[row])]
        expected = sorted(allowed, key=lambda item: (-scores[row, item], item))[:10]
        assert top.items[row].tolist() == expected


@pytest.mark.parametrize("k", [0, 4])
def test_lists_that_cannot_be_filled_are_refused(k):
    with pytest.raises(RecommendationError, match=f"expected 1 to 3 .*, got {k}"):
        top_k(torch.zeros(2, 6), k, torch.tensor([[1, 2], [3, 0]]))


def test_nan_scores_are_refused():
    with pytest.raises(RecommendationError, match="NaN scores"):
        top_k(torch.tensor([[0.0, 1.0, float("nan")]]), 1)
