"""The command under torchrun: one run, one record, the figures of one process."""

import json
import os
import shutil
import subprocess
import sys

import polars as pl
import pytest
from small_lab import command, experiment, make_lab, train

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]


def torchrun(root, *words):
    """Two processes on this machine that run one command."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*launcher, "-m", "flows.cli", "--root", root, "--json", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


@pytest.fixture(scope="module")
def labs(tmp_path_factory):
    """Two copies of one root: for one process and for two."""
    alone = tmp_path_factory.mktemp("alone") / "data"
    make_lab(alone)
    shared = tmp_path_factory.mktemp("shared") / "lab"
    shutil.copytree(alone.parent, shared)
    return alone, shared / "data"


def test_two_processes_make_the_run_that_one_process_makes(labs, capsys):
    alone, shared = labs
    expected = train(alone, capsys, "sasrec", "missing=drop")
    done = torchrun(shared, "train", experiment(shared, "sasrec"), "missing=drop")
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads(done.stdout)  # the first process alone speaks
    assert (record["run_id"], record["fresh"]) == (expected["run_id"], True)
    assert (record["extra"]["processes"], expected["extra"]["processes"]) == (2, 1)
    assert record["selected_epoch"] == expected["selected_epoch"]
    for split, histories in expected["metrics"].items():
        for history, figures in histories.items():
            assert record["metrics"][split][history] == pytest.approx(figures, abs=1e-6)

    run_dir = shared / "runs" / record["run_id"]
    assert json.loads((run_dir / "record.json").read_text()) == {k: v for k, v in record.items() if k != "fresh"}
    ranks = [pl.read_parquet(root / "runs" / record["run_id"] / "ranks.parquet") for root in (shared, alone)]
    assert ranks[0].equals(ranks[1])
    log = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in log] == [1, 2]
    assert command(shared, capsys, "evaluate", record["run_id"])[1]["equal"] is True

    again = torchrun(shared, "train", experiment(shared, "sasrec"), "missing=drop")
    assert again.returncode == 0, again.stderr[-3000:]
    assert json.loads(again.stdout) == record | {"fresh": False}


def test_two_processes_fail_together(labs):
    _, shared = labs
    done = torchrun(shared, "train", experiment(shared, "sasrec"), "training.learning_rate=1e30", "training.epochs=50")
    assert done.returncode != 0
    assert "the loss is not finite at epoch" in done.stderr
    assert "failed_batch.parquet" in done.stderr
