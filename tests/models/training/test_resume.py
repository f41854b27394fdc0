"""A run that is interrupted and started again ends bit for bit like one that was not."""

import importlib.util
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from models.errors import ResumeError
from models.training.checkpoint import find_checkpoint, save_checkpoint
from models.training.config import TrainingConfig
from models.training.loop import fit, load_best

SCRIPT = Path(__file__).with_name("killed_run.py")
_spec = importlib.util.spec_from_file_location("killed_run", SCRIPT)
run = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(run)


class Interrupt(Exception):
    pass


def interrupt():
    raise Interrupt


def train(folder, *, model=None, data=None, seed=5, **changes):
    config = TrainingConfig(**run.SETTINGS | changes)
    return fit(model or run.small_model(), data or run.small_data(), config, seed=seed, run_dir=folder)


def without_seconds(row):
    return {name: value for name, value in row.items() if "seconds" not in name}


def same_run(first, second):
    """Weights of both checkpoints, optimiser and log are equal."""
    for name in ("last", "best"):
        one, two = (load_file(folder / "checkpoints" / name / "weights.safetensors") for folder in (first, second))
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)
    states = [
        torch.load(f / "checkpoints" / "last" / "state.pt", weights_only=True)["optimiser"] for f in (first, second)
    ]
    for key, moments in states[0]["state"].items():
        assert all(torch.equal(moments[name], states[1]["state"][key][name]) for name in moments)
    logs = [[json.loads(line) for line in (f / "metrics.jsonl").read_text().splitlines()] for f in (first, second)]
    assert [without_seconds(row) for row in logs[0]] == [without_seconds(row) for row in logs[1]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, train(folder)


def test_the_reference_run_is_worth_comparing(whole):
    _, result = whole
    steps = [row["steps"] for row in result.rows]
    assert steps == [6, 12, 18, 24]  # 24 sequences of 5 targets, 20 targets a step
    assert len({row["loss"] for row in result.rows}) == 4


@pytest.mark.parametrize("step", [1, 2, 5, 6, 7, 10, 20, 24])
@pytest.mark.parametrize("checkpoint_steps", [0, 1, 4])
def test_interrupted_at_any_step(whole, tmp_path, step, checkpoint_steps):
    with pytest.raises(Interrupt):
        train(tmp_path, model=run.dying(run.small_model(), step, interrupt), checkpoint_steps=checkpoint_steps)
    resumed = train(tmp_path, checkpoint_steps=checkpoint_steps)
    same_run(whole[0], tmp_path)
    assert [without_seconds(row) for row in resumed.rows] == [without_seconds(row) for row in whole[1].rows]


def test_interrupted_with_batches_by_length(tmp_path):
    options = {"group_by_length": True, "positions": "last", "checkpoint_steps": 1, "epochs": 2}
    train(tmp_path / "whole", **options)
    with pytest.raises(Interrupt):
        train(tmp_path / "cut", model=run.dying(run.small_model(), 9, interrupt), **options)
    train(tmp_path / "cut", **options)
    same_run(tmp_path / "whole", tmp_path / "cut")


def test_killed_by_the_system(whole, tmp_path):
    done = subprocess.run([sys.executable, SCRIPT, tmp_path, "16"], check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    state = torch.load(tmp_path / "checkpoints" / "last" / "state.pt", weights_only=True)
    assert (state["counters"]["epoch"], state["counters"]["step"]) == (3, 2)  # 15 steps done: 6 + 6 + 3, saved at 2
    train(tmp_path, checkpoint_steps=2)
    same_run(whole[0], tmp_path)


def test_interrupted_many_times(whole, tmp_path):
    for _ in range(6):
        with pytest.raises(Interrupt):
            train(tmp_path, model=run.dying(run.small_model(), 4, interrupt), checkpoint_steps=2)
    train(tmp_path, checkpoint_steps=2)
    same_run(whole[0], tmp_path)


def test_the_caller_s_random_state_means_nothing_and_stays(whole, tmp_path):
    torch.manual_seed(99)
    before = torch.get_rng_state()
    train(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    same_run(whole[0], tmp_path)


def test_a_finished_run_is_not_repeated(whole, tmp_path):
    train(tmp_path)
    calls = []
    model = run.dying(run.small_model(), 1, lambda: calls.append("trained"))
    again = train(tmp_path, model=model)
    assert calls == []
    assert without_seconds(again.rows[-1]) == without_seconds(whole[1].rows[-1])
    best = load_file(tmp_path / "checkpoints" / "best" / "weights.safetensors")
    assert all(torch.equal(best[name], value) for name, value in model.state_dict().items() if name in best)


def test_more_epochs_go_on_where_the_run_ended(whole, tmp_path):
    train(tmp_path, epochs=2)
    train(tmp_path)
    same_run(whole[0], tmp_path)


def test_a_schedule_goes_on_where_it_was(tmp_path):
    settings = {"schedule": "cosine", "warmup_steps": 5, "optimiser": "adamw", "weight_decay": 0.1}
    train(tmp_path / "whole", **settings)
    with pytest.raises(Interrupt):
        train(tmp_path / "parts", model=run.dying(run.small_model(), 9, interrupt), checkpoint_steps=2, **settings)
    train(tmp_path / "parts", checkpoint_steps=2, **settings)
    same_run(tmp_path / "whole", tmp_path / "parts")


def test_draws_by_popularity_go_on_as_they_were(tmp_path):
    def model():
        return run.build("sasrec", run.MODEL | {"loss": "sampled", "negative_draw": "popularity"}, n_items=15)

    first = model()
    start = {name: value.clone() for name, value in first.state_dict().items()}
    train(tmp_path / "whole", model=first)
    broken = model()
    broken.load_state_dict(start)
    with pytest.raises(Interrupt):
        train(tmp_path / "parts", model=run.dying(broken, 9, interrupt))
    train(tmp_path / "parts", model=model())
    same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_cosine_to_the_last_epoch_cannot_be_made_longer(tmp_path):
    train(tmp_path, epochs=1, schedule="cosine")
    with pytest.raises(ResumeError, match=r"training\.epochs was 1, now 4"):
        train(tmp_path, schedule="cosine")


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"seed": 6}, "seed was 5, now 6"),
        ({"learning_rate": 0.02}, r"training.learning_rate was 0.01, now 0.02"),
        ({"positions": "last"}, 'training.positions was "all", now "last"'),
    ],
)
def test_another_run_in_the_same_folder_is_refused(whole, tmp_path, changes, key):
    train(tmp_path, epochs=1)
    with pytest.raises(ResumeError, match=f"holds another run: {key}; use another run folder"):
        train(tmp_path, **changes)


def test_other_data_and_other_models_are_refused(tmp_path):
    train(tmp_path, epochs=1)
    data = run.small_data()
    changed = type(data)(data.items[::-1].copy(), data.labels, data.offsets, data.users, data.n_items)
    with pytest.raises(ResumeError, match="holds another run: data was"):
        train(tmp_path, data=changed)
    wider = run.build("sasrec", run.MODEL | {"d": 16}, n_items=15)
    with pytest.raises(ResumeError, match="holds another run: model was"):
        train(tmp_path, model=wider)


def test_a_damaged_checkpoint_is_named(tmp_path):
    train(tmp_path, epochs=1)
    (tmp_path / "checkpoints" / "last" / "state.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(ResumeError, match=r"last/state.pt: unreadable .*delete the run's checkpoints"):
        train(tmp_path)


def test_weights_of_another_model_are_named(tmp_path):
    train(tmp_path, epochs=1)
    with pytest.raises(ResumeError, match="these weights do not fit the model"):
        load_best(tmp_path, run.build("popularity", None, n_items=15))
    with pytest.raises(ResumeError, match="the run has not finished an epoch"):
        load_best(tmp_path / "elsewhere", run.small_model())


def test_a_checkpoint_being_replaced_is_still_found(tmp_path):
    folder = tmp_path / "last"
    model = torch.nn.Linear(2, 2)
    save_checkpoint(folder, model, {"epoch": 1})
    save_checkpoint(folder, model, {"epoch": 2})
    assert find_checkpoint(folder) == folder
    assert [path.name for path in tmp_path.iterdir()] == ["last"]
    folder.rename(tmp_path / "last.old")  # as if killed between the two renames
    (tmp_path / "last.new").mkdir()
    assert find_checkpoint(folder) == tmp_path / "last.old"
    save_checkpoint(folder, model, {"epoch": 3})
    assert find_checkpoint(folder) == folder
    assert find_checkpoint(tmp_path / "other") is None
