"""Sweeps of real trainings on a small dataset; what they choose is computed again from the ranks of the runs."""

import argparse
import hashlib
import importlib.util
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from feature_store import FeatureShard, FeatureStore
from flows.commands.sweep import sweep as sweep_command
from flows.config import load_experiment
from flows.errors import CallError, WorkError
from flows.jobs.prepare import prepare_dataset
from flows.jobs.sweep import run_sweep
from flows.jobs.sweep_config import find_sweep
from flows.jobs.train import find_experiment, run_experiment
from flows.settings import REPOSITORY, Settings
from models.errors import ConfigError
from models.evaluation.record import RunRecord

SCRIPT = Path(__file__).with_name("sweep_case.py")
_spec = importlib.util.spec_from_file_location("sweep_case", SCRIPT)
case = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(case)

CHOICES = [(0.001, "full"), (0.001, "gbce"), (0.03, "full"), (0.03, "gbce")]
BEGIN = 'experiment = "sasrec-movielens-10m"\nseeds = [0]\n'
LR, LOSS = "training.learning_rate", "parameters.loss"


def run(settings, name, *overrides):
    return sweep_command(settings, argparse.Namespace(sweep=name, overrides=list(overrides)))


def results(settings, name):
    return pl.read_parquet(settings.root / "sweeps" / name / "results.parquet")


def hits_of(settings, run_id, split):
    """Share of users whose target is among the first five, from the saved ranks."""
    ranks = pl.read_parquet(settings.runs / run_id / "ranks.parquet").filter(pl.col("split") == split)["rank"]
    return (ranks < 5).to_numpy().mean()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("sweeps")
    case.small_root(root)
    case.write_sweep(root, "losses", case.GRID)
    return root


@pytest.fixture(scope="module")
def settings(root):
    return case.settings_at(root)


@pytest.fixture(scope="module")
def outcome(settings):
    """The whole grid, trained once."""
    return run(settings, "losses")


def test_a_grid_has_a_row_per_run_with_the_figures_of_its_ranks(settings, outcome):
    rows = results(settings, "losses")
    assert [(row[LR], row[LOSS]) for row in rows.iter_rows(named=True)] == [
        choice for choice in CHOICES for _ in range(2)
    ]
    assert rows["seed"].to_list() == [0, 1] * 4
    assert rows["run_id"].n_unique() == 8
    assert set(rows["status"]) == {"finished"}
    assert rows["valid_hr@5"].to_list() == [hits_of(settings, run_id, "valid") for run_id in rows["run_id"]]
    for row in rows.iter_rows(named=True):
        config = load_experiment(settings.runs / row["run_id"] / "config.toml", {})
        assert (config.training["learning_rate"], config.parameters["loss"]) == (row[LR], row[LOSS])
        log = [json.loads(line) for line in (settings.runs / row["run_id"] / "metrics.jsonl").read_text().splitlines()]
        assert row["seconds"] == pytest.approx(sum(epoch["seconds"] + epoch["eval_seconds"] for epoch in log))
        assert log[row["selected_epoch"] - 1]["valid"]["hr@5"] == row["valid_hr@5"]


def best_by(settings, rows, split):
    """The combination whose mean over its two runs is the highest, and that mean; the first of equals."""
    ids = rows["run_id"].to_list()
    means = [sum(hits_of(settings, run_id, split) for run_id in ids[2 * n : 2 * n + 2]) / 2 for n in range(4)]
    return CHOICES[means.index(max(means))], max(means)


def test_the_highest_mean_over_the_seeds_is_chosen(settings, outcome):
    rows = results(settings, "losses")
    choice, mean = best_by(settings, rows, "valid")
    assert outcome.payload["best"]["choice"] == dict(zip((LR, LOSS), choice, strict=True))
    (chosen,) = [tried for tried in outcome.payload["tried"] if tried["choice"] == outcome.payload["best"]["choice"]]
    assert chosen["mean"] == pytest.approx(mean, abs=1e-12)
    ids = chosen["run_ids"]
    test = sum(hits_of(settings, run_id, "test") for run_id in ids) / 2
    assert outcome.payload["best"]["test"]["hr@5"] == pytest.approx(test, abs=1e-12)
    last = outcome.text.split("\n")[-1]
    assert last.startswith("test figures of the chosen runs alone (mean of 2 seeds, unmasked): hr@3 ")
    assert f"hr@5 {test:.4f}" in last


def test_the_best_experiment_is_a_file_that_trains_to_the_same_run(settings, outcome):
    path = settings.root / "sweeps" / "losses" / "best.toml"
    again = run_experiment(settings, find_experiment(settings, str(path), {}))
    assert not again.fresh
    assert again.record.run_id == outcome.payload["best"]["run_ids"][0]
    assert path.read_text().startswith("# The best of sweep losses (grid, 4 combinations) by validation:\n")


def test_no_file_holds_a_test_figure_and_none_has_a_say(settings, outcome, tmp_path):
    rows = results(settings, "losses")
    assert [name for name in rows.columns if "test" in name] == []
    folder = settings.root / "sweeps" / "losses"
    assert "test" not in (folder / "best.toml").read_text()
    assert "test" not in (folder / "results.csv").read_text()
    best = outcome.payload["best"]["run_ids"]
    changed = {}
    for run_id in rows["run_id"].to_list():  # every run that was not chosen becomes perfect on the test split
        path = settings.runs / run_id / "record.json"
        changed[path] = path.read_text()
        record = json.loads(changed[path])
        for figures in record["metrics"]["test"].values():
            figures.update(dict.fromkeys(figures, 0.0 if run_id in best else 1.0))
        path.write_text(json.dumps(record))
    again = run(settings, "losses")
    for path, text in changed.items():
        path.write_text(text)
    assert again.payload["best"]["run_ids"] == best
    assert set(again.payload["best"]["test"].values()) == {0.0}
    assert results(settings, "losses").equals(rows)


def test_the_csv_holds_the_same_rows(settings, outcome):
    text = pl.read_csv(settings.root / "sweeps" / "losses" / "results.csv", schema_overrides={"reason": pl.String})
    assert text.equals(results(settings, "losses"))


def test_a_sweep_that_ended_trains_nothing_again(settings, outcome):
    logs = {path: path.stat().st_mtime_ns for path in settings.runs.glob("*/metrics.jsonl")}
    assert run(settings, "losses").payload == outcome.payload
    assert {path: path.stat().st_mtime_ns for path in settings.runs.glob("*/metrics.jsonl")} == logs


def test_a_killed_sweep_goes_on_and_ends_like_one_that_was_not(settings, outcome, tmp_path):
    other = case.small_root(tmp_path)
    case.write_sweep(tmp_path, "losses", case.GRID)
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path, "losses", "3"], check=False, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    part = results(other, "losses")
    finished = {path.parent.name for path in other.runs.glob("*/record.json")}
    assert (len(part), set(part["run_id"])) == (2, finished)
    assert not (other.root / "sweeps" / "losses" / "best.toml").exists()
    (broken,) = {path.name for path in other.runs.iterdir()} - finished
    before = (other.runs / broken / "metrics.jsonl").read_text()
    assert before.count("\n") == 2

    resumed = run(other, "losses")
    assert resumed.payload["best"] == outcome.payload["best"]
    assert results(other, "losses").drop("seconds").equals(results(settings, "losses").drop("seconds"))
    best = [(place.root / "sweeps" / "losses" / "best.toml").read_text() for place in (settings, other)]
    assert best[0] == best[1]
    after = (other.runs / broken / "metrics.jsonl").read_text()
    assert after.startswith(before)  # with its seconds: the first two epochs were not trained again


def test_a_loss_that_is_not_finite_is_a_row_and_is_not_tried_again(root, settings):
    case.write_sweep(
        root,
        "diverging",
        BEGIN + '[axes]\n"training.learning_rate" = [1e37, 1e-3]\n',
    )
    first = run(settings, "diverging")
    assert first.payload["best"]["choice"] == {LR: 0.001}
    bad, good = results(settings, "diverging").iter_rows(named=True)
    assert (bad["status"], good["status"], good["reason"]) == ("failed", "finished", None)
    assert bad["reason"].startswith("the loss is not finite at epoch 1, step ")
    assert (bad["valid_hr@5"], bad["selected_epoch"], bad["seconds"]) == (None, None, None)
    assert good["valid_hr@5"] == hits_of(settings, good["run_id"], "valid")
    assert first.payload["tried"][0] == {
        "choice": {LR: 1e37}, "mean": None, "values": (None,), "run_ids": (bad["run_id"],)
    }  # fmt: skip

    batch = next((settings.runs / bad["run_id"]).glob("*batch*"))
    batch.unlink()  # the trainer would write it again
    assert run(settings, "diverging").payload == first.payload
    assert not batch.exists()
    assert results(settings, "diverging")["status"].to_list() == ["failed", "finished"]


def test_a_sweep_without_a_combination_that_trains_says_why(root, settings):
    case.write_sweep(
        root,
        "hopeless",
        BEGIN + '[axes]\n"training.learning_rate" = [1e37]\n',
    )
    with pytest.raises(
        WorkError, match=r"no combination that was tried could .*results\.csv .* the loss is not finite"
    ):
        run(settings, "hopeless")


def test_a_coordinate_search_shares_its_runs_with_the_grid(root, settings, outcome):
    case.write_sweep(root, "walk", case.GRID.replace('"grid"', '"coordinate"'))
    before = {path.name for path in settings.runs.iterdir()}
    walked = run(settings, "walk")
    assert {path.name for path in settings.runs.iterdir()} == before
    means = {tuple(tried["choice"].values()): tried["mean"] for tried in outcome.payload["tried"]}
    rate = max((0.001, 0.03), key=lambda value: means[value, "full"])  # max keeps the first of equals
    loss = max(("full", "gbce"), key=lambda value: means[rate, value])
    tried = [tuple(entry["choice"].values()) for entry in walked.payload["tried"]]
    assert tried[:3] == [(0.001, "full"), (0.03, "full"), (rate, "gbce")]
    best = tuple(walked.payload["best"]["choice"].values())
    assert best == (max((0.001, 0.03), key=lambda value: means[value, loss]), loss)


def test_columns_have_the_kind_of_their_axis(root, settings):
    case.write_sweep(
        root,
        "kinds",
        BEGIN + '[base]\n"training.epochs" = 1\n[axes]\n"training.grad_clip" = [0, 0.5]\n"parameters.layers" = [1]\n',
    )
    run(settings, "kinds", "training.epochs=2")
    rows = results(settings, "kinds")
    assert rows["training.grad_clip"].to_list() == [0.0, 0.5]
    assert rows.schema["parameters.layers"] == pl.Int64
    config = load_experiment(settings.runs / rows["run_id"][0] / "config.toml", {})
    assert config.training["epochs"] == 2  # the command line wins over [base]


def test_an_axis_of_mixed_kinds_is_json_text(root, settings):
    axes = '"parameters.dropout" = ["0.1", 0.2]\n'  # pydantic reads a number in quotes
    case.write_sweep(root, "mixed", BEGIN + '[base]\n"training.epochs" = 1\n[axes]\n' + axes)
    run(settings, "mixed")
    assert results(settings, "mixed")["parameters.dropout"].to_list() == ['"0.1"', "0.2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BEGIN, "axes: Field required"),
        (BEGIN + '[axes]\n"training.learning_rat" = [1]\n', "learning_rat = 1: .*did you mean 'learning_rate'"),
        (BEGIN + "[axes]\ntraining.learning_rate = [1e-3]\n", 'quotes: "training.learning_rate" ='),
        (BEGIN + '[axes]\nseed = [1, 2]\n', "seed cannot be an axis"),
        (BEGIN + '[axes]\n"training.select" = ["hr@5"]\n', "training.select cannot be an axis"),
        (BEGIN + '[axes]\n"parameters.d" = []\n', r"parameters.d: expected one or more different values, got \[\]"),
        (BEGIN + '[axes]\n"parameters.d" = [8, 8]\n', "different values"),
        (BEGIN + '[axes]\n"parameters.d" = [8, -8]\n', r"bad.toml: parameters.d = -8: .*greater than or equal to 1"),
        (BEGIN.replace("[0]", "[1, 1]") + '[axes]\n"parameters.d" = [8]\n', "expected different seeds"),
        (BEGIN + 'metod = "grid"\n[axes]\n"parameters.d" = [8]\n', "did you mean 'method'"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_before_anything_is_trained(root, settings, text, message):
    case.write_sweep(root, "bad", text)
    with pytest.raises(ConfigError, match=message):
        find_sweep(settings, "bad", {})


def test_a_wrong_call_names_what_is_wrong(root, settings):
    with pytest.raises(CallError, match=r"no sweep at .*did you mean 'losses.toml'"):
        find_sweep(settings, "loses", {})
    with pytest.raises(CallError, match=r"training\.learning_rate is set for all runs, but the sweep varies it"):
        find_sweep(settings, "losses", {"training.learning_rate": 0.1})
    with pytest.raises(CallError, match="seed is set for all runs"):
        find_sweep(settings, str(settings.configs / "sweeps" / "losses.toml"), {"seed": 1})


def on_first_call(act):
    """A progress callback that does something once, amid the first training."""
    calls = []

    def progress(stage, done, total):
        if not calls:
            calls.append(stage)
            act()

    return progress


def test_a_dataset_that_is_prepared_anew_amid_a_sweep_ends_it(tmp_path):
    place = case.small_root(tmp_path)
    case.write_sweep(tmp_path, "losses", case.GRID)
    source = {"source": str(tmp_path / "raw"), "k_user": 1, "k_item": 1}
    progress = on_first_call(lambda: prepare_dataset(place, "movielens-10m", source | {"split": "user_811"}))
    sweep = find_sweep(place, "losses", {"training.epochs": 1})
    with pytest.raises(WorkError, match="movielens-10m was prepared anew during the sweep; start the sweep again"):
        run_sweep(sweep, progress=progress)
    assert results(place, "losses")["run_id"].n_unique() == 1


def commit(settings, number):
    """Version ``number`` of a store of text vectors."""
    store = FeatureStore.open(settings.store("movielens-10m", "bert"), create=True)
    items = {str(film): hashlib.sha256(f"{film} {number}".encode()).digest() for film in range(1, 13)}
    plan = store.plan({"encoder": "bert"}, items)
    vectors = np.random.default_rng(number).standard_normal((12, 6)).astype(np.float32)
    store.write_shard(FeatureShard(list(items), list(items.values()), vectors), plan)
    return store.commit(plan)


TEDREC = """
dataset = "movielens-10m"
model = "tedrec"
[parameters]
text_table = "bert"
max_length = 5
d = 8
layers = 1
inner = 16
experts = 2
[training]
epochs = 1
max_length = 5
device = "cpu"
threads = 1
"""


def test_all_runs_read_the_store_as_it_was_at_the_start(tmp_path):
    place = case.small_root(tmp_path)
    (place.configs / "experiments" / "tedrec-movielens-10m.toml").write_text(TEDREC)
    case.write_sweep(tmp_path, "seeds", BEGIN.replace("sasrec", "tedrec") + '[axes]\n"parameters.experts" = [2, 3]\n')
    commit(place, 1)
    outcome = run_sweep(find_sweep(place, "seeds", {}), progress=on_first_call(lambda: commit(place, 2)))
    records = [RunRecord.read(place.runs / run_id) for tried in outcome.tried for run_id in tried.run_ids]
    assert [[str(store) for store in record.stores] for record in records] == [["movielens-10m/bert@1"]] * 2
    assert FeatureStore.open(place.store("movielens-10m", "bert")).latest().version == 2
    assert "bert = 1" in (place.root / "sweeps" / "seeds" / "best.toml").read_text()


SWEEPS = sorted((REPOSITORY / "configs" / "sweeps").glob("*.toml"))


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_the_sweeps_of_the_repository_are_read(path, tmp_path):
    sweep = find_sweep(Settings(root=tmp_path), path.stem, {})
    assert sweep.folder == tmp_path / "sweeps" / path.stem
    assert path.read_text(encoding="utf-8").startswith(f"# reelstore sweep {path.stem}\n")
