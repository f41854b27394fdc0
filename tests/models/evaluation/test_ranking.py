import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from models.errors import RecordError, SequenceDataError
from models.evaluation.ranking import RankTable, count_ranks, evaluate, read_ranks, write_ranks
from models.sequences.dataset import SequenceData

NAN = float("nan")


class FixedScores(nn.Module):
    """Scores looked up by user; remembers in which mode it was asked."""

    causal = False

    def __init__(self, scores):
        super().__init__()
        self.n_items = scores.shape[1] - 1
        self.register_buffer("scores", scores)
        self.part = nn.Dropout(0.5)
        self.part.eval()
        self.modes, self.draws = [], []

    def score(self, batch, *, generator):
        self.modes.append((self.training, torch.is_grad_enabled()))
        self.draws.append(torch.rand(1, generator=generator).item())
        return self.scores[batch.user]


def one_history_per_user(histories, n_items):
    rows = [(user, item, place) for user, history in enumerate(histories) for place, item in enumerate(history)]
    lengths = {user: len(history) for user, history in enumerate(histories)}
    split = ["test" if place == lengths[user] - 1 else "train" for user, _, place in rows]
    user, item, position = zip(*rows, strict=True)
    return SequenceData.from_arrays(user, item, position, split, n_items=n_items)


def brute_force(scores, target, history):
    """Rank by looping over the items: whoever is not clearly worse stands before the target."""
    others = [item for item in range(1, len(scores)) if item != target]
    before = [item for item in others if not scores[item] < scores[target]]
    ties = [item for item in others if scores[item] == scores[target]]
    return len(before), len([item for item in before if item not in set(history)]), len(ties)


@pytest.mark.parametrize("seed", range(20))
def test_counting_equals_brute_force(seed):
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, 6, size=(8, 16)).astype(np.float32)  # few values: many ties
    scores[:, 0] = -np.inf
    target = generator.integers(1, 16, size=8)
    seen = generator.integers(0, 16, size=(8, 7))  # repetitions, padding and sometimes the target itself
    rank, masked, ties = count_ranks(torch.tensor(scores), torch.tensor(target), torch.tensor(seen))
    expected = [brute_force(scores[row], target[row], seen[row]) for row in range(8)]
    assert list(zip(rank.tolist(), masked.tolist(), ties.tolist(), strict=True)) == expected


def test_hand_table_with_ties():
    #        pad   1    2    3    4
    scores = [
        [0.0, 5.0, 3.0, 3.0, 1.0],
        [9.0, 2.0, 2.0, 2.0, 2.0],
        [0.0, 1.0, NAN, 3.0, 2.0],
        [0.0, NAN, 1.0, 2.0, 3.0],
    ]
    target = torch.tensor([2, 3, 4, 1])
    seen = torch.tensor([[1, 1, 0], [3, 1, 2], [3, 0, 0], [2, 2, 4]])
    rank, masked, ties = count_ranks(torch.tensor(scores), target, seen)
    # One better and one equal; three equal; 3 is better and NaN counts as better; NaN itself: the last of four.
    assert rank.tolist() == [2, 3, 2, 3]
    # Taken out: 1; 1 and 2 (3 is the target, it stays); 3; 2 and 4.
    assert masked.tolist() == [1, 1, 1, 1]
    assert ties.tolist() == [1, 3, 0, -1]


def test_a_collapsed_model_hits_nothing():
    data = one_history_per_user([[1, 2, 3], [4, 5, 6]], n_items=30)
    table = evaluate(FixedScores(torch.zeros(2, 31)), data, "test", max_length=5)
    assert table.rank.tolist() == [29, 29]
    assert table.n_tied == 2
    assert set(table.metrics().values()) == {0.0}


def test_evaluate_counts_every_user_once_whatever_the_batch_size():
    generator = torch.Generator().manual_seed(3)
    histories = [torch.randint(1, 41, (2 + user % 9,), generator=generator).tolist() for user in range(23)]
    scores = torch.randint(0, 20, (23, 41), generator=generator).float()
    data = one_history_per_user(histories, n_items=40)
    tables = [evaluate(FixedScores(scores), data, "test", max_length=2, batch_size=size) for size in (1, 7, 23, 100)]
    expected = [brute_force(scores[user], history[-1], history[:-1]) for user, history in enumerate(histories)]
    for table in tables:
        found = zip(table.rank.tolist(), table.rank_masked.tolist(), table.tie_count.tolist(), strict=True)
        assert list(found) == expected
        assert table.user.tolist() == list(range(23))
        assert table.target.tolist() == [history[-1] for history in histories]


def test_nan_scores_are_counted_and_rank_last(caplog):
    data = one_history_per_user([[1, 2], [3, 4]], n_items=5)
    scores = torch.arange(12, dtype=torch.float32).view(2, 6)
    scores[0, 2] = NAN
    table = evaluate(FixedScores(scores), data, "test", max_length=5)
    assert (table.rank.tolist(), table.n_errors) == ([4, 1], 1)
    assert "NaN for 1 of 2 users" in caplog.text


def test_the_model_is_evaluated_without_dropout_and_left_as_it_was():
    model = FixedScores(torch.zeros(1, 4))
    evaluate(model, one_history_per_user([[1, 2]], n_items=3), "test", max_length=5)
    assert model.modes == [(False, False)]
    assert (model.training, model.part.training) == (True, False)
    assert torch.is_grad_enabled()


def test_the_seed_alone_fixes_the_draws():
    """And every batch of a split has the same ones."""
    data = one_history_per_user([[1, 2], [2, 3]], n_items=3)
    draws = []
    for seed in (0, 0, 1):
        model = FixedScores(torch.zeros(2, 4))
        evaluate(model, data, "test", max_length=5, batch_size=1, seed=seed)
        draws.append(model.draws)
    assert draws[0] == draws[1]
    assert [len({*drawn}) for drawn in draws] == [1, 1, 1]
    assert draws[0] != draws[2]


def test_progress_ends_at_the_number_of_users():
    calls = []
    data = one_history_per_user([[1, 2], [2, 3], [3, 1]], n_items=3)
    model = FixedScores(torch.zeros(3, 4))
    evaluate(model, data, "test", max_length=5, batch_size=2, progress=lambda *call: calls.append(call))
    assert calls == [("evaluate test", 2, 3), ("evaluate test", 3, 3)]


def test_a_model_of_another_catalogue_is_refused():
    data = one_history_per_user([[1, 2]], n_items=3)
    with pytest.raises(SequenceDataError, match="ranks 7 items, the data has 3"):
        evaluate(FixedScores(torch.zeros(1, 8)), data, "test", max_length=5)


def test_a_split_without_users_is_refused():
    data = one_history_per_user([[1, 2]], n_items=3)
    with pytest.raises(SequenceDataError, match="no user has a row labelled 'valid'"):
        evaluate(FixedScores(torch.zeros(1, 4)), data, "valid", max_length=5)


def table_of(split, rank):
    rank = np.array(rank, dtype=np.int32)
    return RankTable(split, np.arange(len(rank), dtype=np.int32), rank + 1, rank, rank, np.zeros_like(rank))


def test_ranks_survive_the_file(tmp_path):
    path = tmp_path / "run" / "ranks.parquet"
    write_ranks(path, [table_of("valid", [3, 0]), table_of("test", [7, 2])])
    assert pl.read_parquet_schema(path) == {
        "user": pl.Int32,
        "target": pl.Int32,
        "rank": pl.Int32,
        "rank_masked": pl.Int32,
        "tie_count": pl.Int32,
        "split": pl.String,
    }
    tables = read_ranks(path)
    assert list(tables) == ["valid", "test"]
    assert tables["test"].metrics((5,)) == pytest.approx({"hr@5": 0.5, "ndcg@5": 0.25, "mrr@5": 1 / 6})
    assert tables["valid"].target.tolist() == [4, 1]
    assert [file.name for file in path.parent.iterdir()] == ["ranks.parquet"]


def test_files_that_hold_no_ranks_are_refused(tmp_path):
    with pytest.raises(RecordError, match="no ranks here"):
        read_ranks(tmp_path / "ranks.parquet")
    pl.DataFrame({"user": [1]}).write_parquet(tmp_path / "ranks.parquet")
    with pytest.raises(RecordError, match=r"missing .*'target'"):
        read_ranks(tmp_path / "ranks.parquet")
