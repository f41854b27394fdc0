import numpy as np
import pytest

from models.errors import SequenceDataError
from models.evaluation.ranking import RankTable, read_ranks, write_ranks
from models.evaluation.slices import by_history_length, by_target_count
from models.sequences.dataset import SequenceData

#: Test targets: 5 (never in training), 1 (three times), 2 (once), 5; histories of 3, 2, 1 and 1.
HISTORIES = [[1, 3, 2, 5], [1, 4, 1], [3, 2], [1, 5]]


def data(histories=HISTORIES):
    rows = [
        (user, item, place, "test" if place == len(history) - 1 else "train")
        for user, history in enumerate(histories)
        for place, item in enumerate(history)
    ]
    return SequenceData.from_arrays(*zip(*rows, strict=True), n_items=6)


def ranks():
    rank = np.array([0, 4, 9, 20], dtype=np.int32)
    target = np.array([5, 1, 2, 5], dtype=np.int32)
    return RankTable("test", np.arange(4, dtype=np.int32), target, rank, rank // 2, np.zeros_like(rank))


def test_cold_targets_by_hand():
    cold, rare, frequent = by_target_count(ranks(), data(), edges=(0, 1, 2), ks=(10,))
    assert [part.label for part in (cold, rare, frequent)] == ["0", "1", "2+"]
    assert [part.n_users for part in (cold, rare, frequent)] == [2, 1, 1]
    assert cold.unmasked == {"hr@10": 0.5, "ndcg@10": 0.5, "mrr@10": 0.5}
    assert frequent.unmasked["mrr@10"] == pytest.approx(1 / 5)
    assert frequent.masked["mrr@10"] == pytest.approx(1 / 3)


def test_history_lengths_by_hand():
    parts = by_history_length(ranks(), data(), edges=(1, 2, 4), ks=(5,))
    assert [(part.label, part.n_users) for part in parts] == [("1", 2), ("2-3", 2), ("4+", 0)]
    assert [part.unmasked.get("hr@5") for part in parts] == [0.0, 1.0, None]


def test_slices_of_the_whole_range_average_to_the_whole():
    table = ranks()
    parts = by_target_count(table, data())
    weighted = sum(part.n_users * part.unmasked["ndcg@20"] for part in parts if part.n_users) / 4
    assert weighted == pytest.approx(table.metrics()["ndcg@20"])


def test_saved_ranks_are_enough(tmp_path):
    write_ranks(tmp_path / "ranks.parquet", [ranks()])
    read = read_ranks(tmp_path / "ranks.parquet")["test"]
    assert by_history_length(read, data()) == by_history_length(ranks(), data())


def test_ranks_of_other_data_are_refused():
    with pytest.raises(SequenceDataError, match="the 4 ranks of split 'test' are not of this data"):
        by_target_count(ranks(), data([*HISTORIES[:3], [1, 4]]))
