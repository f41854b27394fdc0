"""Two processes that share a batch take the step that one process takes."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch

from models.distributed import ALONE, gather_rows, own_rows
from models.evaluation.ranking import evaluate

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("shared_run.py")
_spec = importlib.util.spec_from_file_location("shared_run", SCRIPT)
run = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(run)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The folder that two processes under torchrun have filled."""
    folder = tmp_path_factory.mktemp("shared")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", SCRIPT, folder]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def views(shared):
    return [json.loads((shared / f"seen_by_{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("positions", ["all", "last"])
def test_weights_and_losses_are_those_of_one_process(shared, tmp_path, positions):
    model, result = run.train(tmp_path, positions=positions)
    assert result.steps > 10
    weights = torch.load(shared / f"{positions}.pt", weights_only=True)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-6)
    rows = json.loads((shared / f"{positions}.json").read_text())
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in result.rows], abs=1e-6)
    assert [row["valid"] for row in rows] == [row["valid"] for row in result.rows]


def test_both_processes_end_alike(views):
    first, second = views
    assert {name for name in first if first[name] != second[name]} == set()


def test_ranks_are_gathered_once_per_user_and_in_order(shared, views):
    model = run.small_model()
    model.load_state_dict(torch.load(shared / "last.pt", weights_only=True))
    alone = evaluate(model, run.small_data(), "test", max_length=6, batch_size=4)
    assert len(alone) == 25  # 7 batches: the processes hold different numbers of them, and the last one is shorter
    assert views[0]["user"] == alone.user.tolist()
    assert views[0]["rank"] == alone.rank.tolist()


def test_only_the_first_process_writes(shared):
    log = [json.loads(line) for line in (shared / "all" / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in log] == [1, 2, 3]
    assert sorted(path.name for path in (shared / "all" / "checkpoints").iterdir()) == ["best", "last"]


def test_a_loss_that_is_not_finite_in_one_process_stops_both(shared, views):
    assert "the loss is not finite at epoch 1" in views[1]["message"]
    saved = pl.read_parquet(shared / "breaking" / "failed_batch.parquet")
    assert 7 in saved["user"].to_list()
    assert len(saved) > 1  # the whole batch, not one process's rows


def test_gathered_rows_carry_their_gradients(views):
    expected = run.contrastive_gradient(0, 1)
    torch.testing.assert_close(torch.tensor(views[0]["gradient"]), expected, rtol=1e-5, atol=1e-6)


def test_losses_between_rows_see_the_whole_batch(views):
    expected, *_ = run.between_rows(0, 1)
    torch.testing.assert_close(torch.tensor(views[0]["between"]), torch.tensor(expected), rtol=1e-4, atol=1e-6)


def test_codes_move_by_the_whole_batch_and_alike(views):
    _, codes, filled, seeds = run.between_rows(0, 1)
    first, second = (torch.tensor(view["codes"]) for view in views)
    assert torch.equal(first, second)
    torch.testing.assert_close(first[:3], torch.tensor(codes)[:3])  # code 3 starts again from another row
    assert views[0]["filled"][:3] == filled[:3]
    assert views[0]["codes"][3] in seeds
    assert any(views[0]["filled"][3])


def test_different_numbers_of_rows_are_gathered_without_padding(views):
    assert views[0]["ragged"] == [0, 0, 1, 2]


def test_a_process_by_itself_exchanges_nothing():
    rows = torch.ones(3, 2, requires_grad=True)
    assert gather_rows(rows) is rows
    assert own_rows(rows) == slice(0, 3)
    assert ALONE.total(rows) is rows
    assert ALONE.first
