import numpy as np
import pytest

from models.errors import RecordError
from models.evaluation.figures import check_figures
from models.evaluation.ranking import RankTable, read_ranks, write_ranks
from models.evaluation.record import EvaluationProtocol, RunRecord, SplitMetrics


def ranks(split="test"):
    rank = np.array([0, 2, 9, 10, 30], dtype=np.int32)
    return RankTable(split, np.arange(5, dtype=np.int32), rank + 1, rank, rank // 2, np.zeros_like(rank))


def record(*, users=5, **changed):
    table = ranks()
    metrics = SplitMetrics(unmasked=table.metrics() | changed, masked=table.metrics(masked=True))
    return RunRecord(
        run_id="r1",
        model="popularity",
        dataset="toy",
        dataset_version="v",
        seed=0,
        config={},
        git_sha=None,
        lock_hash=None,
        protocol=EvaluationProtocol(n_candidates=40, n_users={"test": users}),
        metrics={"test": metrics},
        selected_epoch=1,
    )


def test_a_true_record_passes_after_the_way_through_its_files(tmp_path):
    write_ranks(tmp_path / "ranks.parquet", [ranks()])
    record().write(tmp_path)
    check_figures(RunRecord.read(tmp_path), read_ranks(tmp_path / "ranks.parquet"))


def test_a_figure_that_its_ranks_do_not_give_is_named():
    with pytest.raises(RecordError, match=r"run r1: .*test unmasked: mrr@20 is 0.5, its ranks give 0\.3"):
        check_figures(record(**{"mrr@20": 0.5}), {"test": ranks()})


def test_an_impossible_figure_is_named():
    with pytest.raises(RecordError, match=r"test unmasked: ndcg from 0 to 5 grows by 0\.900000, expected"):
        check_figures(record(**{"ndcg@5": 0.9}), {"test": ranks()})


def test_missing_ranks_and_missing_users_are_named():
    with pytest.raises(RecordError, match="test: metrics without ranks"):
        check_figures(record(), {"valid": ranks("valid")})
    with pytest.raises(RecordError, match="test: 5 ranks for 6 users"):
        check_figures(record(users=6), {"test": ranks()})
