"""Who is told of an epoch, when, and of which."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.registry import build
from models.training.config import TrainingConfig
from models.training.loop import fit

SCRIPT = Path(__file__).with_name("told_run.py")
_spec = importlib.util.spec_from_file_location("told_run", SCRIPT)
run = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(run)


def written(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_every_row_is_told_once_it_is_in_the_log(tmp_path):
    seen = []
    run.train(tmp_path, lambda row: seen.append((row, written(tmp_path))))
    assert [row["epoch"] for row, _ in seen] == [1, 2, 3]
    assert [(row, log[-1], len(log)) for row, log in seen] == [
        (json.loads(json.dumps(row)), row, epoch) for epoch, (row, _) in enumerate(seen, start=1)
    ]
    assert {"epoch", "steps", "seconds", "loss", "parts", "valid", "valid_masked", "eval_seconds"} == set(seen[-1][0])


def test_a_resumed_run_tells_only_what_is_new(tmp_path):
    class Stop(Exception):
        pass

    first, second, third = [], [], []

    def stop_after_two(row):
        first.append(row)
        if row["epoch"] == 2:
            raise Stop

    with pytest.raises(Stop):
        run.train(tmp_path, stop_after_two)
    run.train(tmp_path, second.append)
    run.train(tmp_path, third.append)
    assert ([row["epoch"] for row in first], [row["epoch"] for row in second], third) == ([1, 2], [3], [])
    assert first + second == written(tmp_path)


def test_an_epoch_without_training_is_told_too(tmp_path):
    rows = []
    config = TrainingConfig(device="cpu", max_length=4, epochs=0, threads=1)
    fit(build("popularity", None, n_items=12), run.small_data(), config, seed=5, run_dir=tmp_path, on_epoch=rows.append)
    assert [row["epoch"] for row in rows] == [0]
    assert rows == written(tmp_path)


@pytest.mark.slow
def test_of_several_processes_the_first_is_told(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", SCRIPT, tmp_path]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    told = [json.loads((tmp_path / f"told_{rank}.json").read_text()) for rank in (0, 1)]
    assert told == [written(tmp_path), []]
    assert [row["epoch"] for row in told[0]] == [1, 2, 3]
