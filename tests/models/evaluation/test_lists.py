import dimerec_cases
import numpy as np
import pytest
import torch
from torch import nn

from models.evaluation.lists import ListTable, list_metrics, next_best, next_lists, recommended_lists
from models.interface import TopK
from models.modules.retrieval import top_k
from models.sequences.dataset import SequenceData

COUNTS = np.array([0, 5, 3, 1, 0])
CATEGORIES = np.array([0, 1, 2, 2, 0])


def lists(*rows, n_items=4):
    return ListTable("test", np.arange(len(rows), dtype=np.int32), np.array(rows, dtype=np.int32), n_items)


def test_figures_by_hand():
    found = list_metrics(lists([1, 2], [2, 3], [4, 2]), COUNTS, categories=CATEGORIES)
    assert found == pytest.approx(
        {
            "coverage@2": 4 / 4,
            "popularity@2": (5 + 3 + 3 + 1 + 0 + 3) / 6,
            "log_popularity@2": np.log([6, 4, 4, 2, 1, 4]).mean(),
            "popularity_rank@2": np.mean([0, 1 / 3, 1 / 3, 2 / 3, 1, 1 / 3]),
            "categories@2": (2 + 1 + 1) / 3,  # items 2 and 3 share a category, item 4 has none
        }
    )


def test_equally_popular_items_share_their_places():
    found = list_metrics(lists([2], [3]), np.array([0, 9, 1, 1, 0]))
    assert found["popularity_rank@1"] == pytest.approx(1.5 / 3)
    assert "categories@1" not in found


def test_a_model_that_gives_everybody_one_list_covers_k_items():
    assert list_metrics(lists([1, 2], [1, 2], [2, 1]), COUNTS)["coverage@2"] == 0.5


def test_tables_of_another_catalogue_are_refused():
    with pytest.raises(ValueError, match=r"counts: expected 5 rows .* got 4"):
        list_metrics(lists([1]), COUNTS[1:])
    with pytest.raises(ValueError, match="categories: expected 5 rows"):
        list_metrics(lists([1]), COUNTS, categories=CATEGORIES[1:])


class Descending(nn.Module):
    """Scores items by their id, the highest first."""

    causal = False
    n_items = 6

    def score(self, batch, *, generator):
        return torch.arange(7.0).expand(len(batch), -1)

    def recommend(self, batch, *, k, exclude, generator) -> TopK:
        return top_k(self.score(batch, generator=generator), k, exclude)


def test_lists_follow_the_split_and_leave_the_whole_history_out():
    rows = [(0, 6, 0, "train"), (0, 5, 1, "train"), (0, 1, 2, "test"), (3, 2, 0, "train"), (3, 6, 1, "test")]
    data = SequenceData.from_arrays(*zip(*rows, strict=True), n_items=6)
    found = recommended_lists(Descending(), data, "test", k=3, max_length=1, batch_size=1)
    assert found.user.tolist() == [0, 3]
    assert found.items.tolist() == [[4, 3, 2], [6, 5, 4]]  # item 6 lies beyond the model's reach, yet it was read
    unmasked = recommended_lists(Descending(), data, "test", k=3, max_length=1, masked=False)
    assert unmasked.items.tolist() == [[6, 5, 4], [6, 5, 4]]
    assert found.frame().columns == ["user", "items", "split"]
    assert found.frame()["items"].to_list() == [[4, 3, 2], [6, 5, 4]]


def test_one_user_s_list_is_the_same_asked_alone():
    """DimeRec starts from noise: the draw does not depend on who is asked about, nor on how many at once."""
    rows = [(user, 1 + (user + step) % 12, step, "train") for user in range(7) for step in range(4)]
    data, dimerec = SequenceData.from_arrays(*zip(*rows, strict=True), n_items=12), dimerec_cases.model()
    lists = [next_lists(dimerec, data, k=5, max_length=6, batch_size=size, seed=3).items.tolist() for size in (2, 7)]
    alone = [next_best(dimerec, data, [user], k=5, max_length=6, seed=3) for user in range(7)]
    assert lists[0] == lists[1] == [best.items[0].tolist() for best in alone]
    assert all(torch.equal(best.scores, best.scores.sort(descending=True).values) for best in alone)
    assert not torch.equal(alone[0].scores, next_best(dimerec, data, [0], k=5, max_length=6, seed=4).scores)
