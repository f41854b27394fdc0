"""Several targets per held-out user, with lists that are known."""

import math

import pytest
import torch
from torch import nn

from models.errors import RecommendationError, SequenceDataError
from models.evaluation.tails import tail_metrics
from models.interface import TopK
from models.modules.retrieval import top_k
from models.sequences.dataset import SequenceData

N_ITEMS = 9


class Descending(nn.Module):
    """Recommends 9, 8, 7, .. to everybody and remembers what it was shown."""

    n_items, causal = N_ITEMS, False

    def __init__(self):
        super().__init__()
        self.seen = []

    def recommend(self, batch, *, k, exclude, generator):
        self.seen += [row[mask].tolist() for row, mask in zip(batch.item_ids, batch.mask, strict=True)]
        scores = torch.arange(N_ITEMS + 1.0).repeat(len(batch), 1)
        scores[:, 0] = -math.inf
        found = top_k(scores, k, exclude)
        return TopK(found.items, found.scores)


def users(*histories, splits):
    rows = [(user, item, place) for user, history in enumerate(histories) for place, item in enumerate(history)]
    user, item, position = zip(*rows, strict=True)
    return SequenceData.from_arrays(user, item, position, [splits[u] for u in user], n_items=N_ITEMS)


def held_out():
    """The test users have 4 + 1, 8 + 2 (item 9 in both) and 1 + 1 rows; one user trains, one is too short."""
    return users(
        [1, 2, 3],
        [1, 2, 3, 4, 8],
        [1, 2, 3, 4, 5, 6, 9, 8, 7, 9],
        [9, 1],
        [5],
        splits=["train", "test", "test", "test", "test"],
    )


def test_figures_by_hand():
    """The list 9, 8, 7 holds 8 at place 2; 7 and 9 at places 3 and 1; and not 1."""
    gain = [1 / math.log2(place + 1) for place in (1, 2, 3)]
    found = tail_metrics(Descending(), held_out(), "test", max_length=10, ks=(1, 3))
    assert found == pytest.approx(
        {
            "recall@1": (0 + 1 / 2 + 0) / 3,
            "hr@1": 1 / 3,
            "ndcg@1": (0 + 1 + 0) / 3,
            "recall@3": (1 + 2 / 2 + 0) / 3,
            "hr@3": 2 / 3,
            "ndcg@3": (gain[1] + (gain[0] + gain[2]) / (gain[0] + gain[1]) + 0) / 3,
        }
    )


@pytest.mark.parametrize("batch_size", [1, 2, 256])
def test_the_model_reads_the_newest_of_the_first_part(batch_size):
    model = Descending()
    tail_metrics(model, held_out(), "test", max_length=3, ks=(1,), batch_size=batch_size)
    assert model.seen == [[2, 3, 4], [6, 9, 8], [9]]


def test_an_item_that_repeats_is_one_target():
    """Ten rows, of which the last two are item 9: one target, which is first in the list."""
    data = users([1, 2, 3, 4, 5, 6, 7, 8, 9, 9], splits=["test"])
    assert set(tail_metrics(Descending(), data, "test", max_length=4, ks=(1, 5)).values()) == {1.0}


def test_the_whole_history_leaves_the_lists_where_asked():
    """Item 8 is second to 9, which the model does not see any more and the user has."""
    data = users([2, 9, 3, 4, 8], splits=["test"])
    found = [tail_metrics(Descending(), data, "test", max_length=1, ks=(1,), masked=masked) for masked in (False, True)]
    assert [figures["hr@1"] for figures in found] == [0.0, 1.0]


def test_ids_do_not_have_to_be_adjacent_to_their_rows():
    data = users([2, 4, 6, 8, 9], [1, 3, 5, 7, 9], splits=["valid", "test"])
    assert tail_metrics(Descending(), data, "valid", max_length=4, ks=(1,))["recall@1"] == 1.0


@pytest.mark.parametrize(
    ("splits", "split", "message"),
    [
        (["train", "valid"], "test", "no user of split 'test' has a history and a target"),
        (["train", "test"], "next", "expected 'valid' or 'test', got 'next'"),
    ],
)
def test_splits_without_users_are_refused(splits, split, message):
    with pytest.raises(SequenceDataError, match=message):
        tail_metrics(Descending(), users([1, 2], [3, 4], splits=splits), split, max_length=4)


def test_rows_of_the_training_are_no_targets():
    data = SequenceData.from_arrays([1, 1, 1], [1, 2, 3], [0, 1, 2], ["train", "valid", "test"], n_items=N_ITEMS)
    with pytest.raises(SequenceDataError, match=r"1 users have rows in split 'test' and rows in another.*user_811"):
        tail_metrics(Descending(), data, "test", max_length=4)


def test_more_places_than_items_are_refused():
    with pytest.raises(RecommendationError):
        tail_metrics(Descending(), held_out(), "test", max_length=4, ks=(20,))


def test_cut_offs_begin_at_1():
    with pytest.raises(SequenceDataError, match=r"at least 1, got \[-1, 20\]"):
        tail_metrics(Descending(), held_out(), "test", max_length=10, ks=(20, -1))
