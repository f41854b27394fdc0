import subprocess
import sys

import pytest

from models.errors import RecordError
from models.evaluation.record import EvaluationProtocol, RunRecord, SplitMetrics, StoreVersion


def a_record(**changes):
    values = {
        "run_id": "sasrec-synthetic-1",
        "model": "sasrec",
        "dataset": "synthetic",
        "dataset_version": "ab" * 32,
        "stores": (StoreVersion(name="synthetic/videomae", version=3),),
        "seed": 7,
        "config": {"training": {"epochs": 3}},
        "git_sha": None,
        "lock_hash": None,
        "protocol": EvaluationProtocol(n_candidates=40, n_users={"valid": 10, "test": 9}),
        "metrics": {"valid": SplitMetrics(unmasked={"hr@10": 0.5}, masked={"hr@10": 0.6})},
        "selected_epoch": 2,
        "extra": {"terminal_signal": 0.364},
    }
    return RunRecord(**values | changes)


def test_a_record_survives_the_file(tmp_path):
    record = a_record()
    path = record.write(tmp_path / "runs" / "1")
    assert RunRecord.read(path.parent) == record
    assert [file.name for file in path.parent.iterdir()] == ["record.json"]
    assert str(record.stores[0]) == "synthetic/videomae@3"
    assert record.created_at.tzinfo is not None


def test_an_absent_record_is_named(tmp_path):
    with pytest.raises(RecordError, match="the run did not finish"):
        RunRecord.read(tmp_path)


@pytest.mark.parametrize(("text", "message"), [("{", "Invalid JSON"), ('{"run_id": 3}', "run_id: .*string")])
def test_a_file_that_is_no_record_is_named(tmp_path, text, message):
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(RecordError, match=f"record.json: not a run record: .*{message}"):
        RunRecord.read(tmp_path)


def test_records_are_read_without_torch():
    code = "import sys, models.evaluation.record, models.config, models.registry; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
