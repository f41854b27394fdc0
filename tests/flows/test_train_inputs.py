"""What a training reads and what it refuses, through the command: missing rows, the seal, wrong calls, damage."""

import json
import shutil

import numpy as np
import polars as pl
import pytest
from small_lab import ABSENT, DATASET, IDS, command, experiment, histories, train, vectors

from flows.config import load_experiment
from flows.jobs import ranking
from flows.jobs.pinning import pin
from flows.jobs.prepare import open_prepared
from flows.jobs.run_inputs import read_inputs
from flows.jobs.train import run_experiment
from flows.settings import Settings
from models.errors import RecordError
from models.evaluation.record import RunRecord, SplitMetrics

KEPT = [item for item in IDS if item not in ABSENT]


@pytest.fixture
def root(lab, tmp_path):
    """A copy to damage, without runs."""
    shutil.copytree(lab.parent, tmp_path / "copy", ignore=shutil.ignore_patterns("runs"))
    return tmp_path / "copy" / "data"


def settings(root):
    return Settings(root=root)


def inputs(root, policy):
    config = load_experiment(experiment(root, "tedrec"), {"missing": policy})
    prepared = open_prepared(settings(root), DATASET)
    return read_inputs(*((pinned := pin(settings(root), config, prepared))[0], prepared, pinned[1]))


def test_zero_and_mean_leave_the_catalogue_as_it_is(lab):
    rows = vectors("bert", 4)
    mean = np.mean(list(rows.values()), axis=0, dtype=np.float64)
    for policy, fill in (("zero", np.zeros(4)), ("mean", mean)):
        found = inputs(lab, policy)
        assert found.item_ids == IDS
        expected = np.stack([np.zeros(4), *(rows.get(item, fill) for item in IDS)])
        np.testing.assert_allclose(found.tables["bert"].numpy(), expected, rtol=0, atol=1e-6)
        assert found.numbers.tolist() == list(range(13))
        assert found.missing == {"policy": policy, "dropped": 0, "tables": {"bert": {"items": 3, "first": ABSENT}}}


def test_drop_takes_the_items_out_of_catalogue_tables_and_histories(lab):
    found = inputs(lab, "drop")
    assert found.item_ids == KEPT
    assert found.numbers.tolist() == [0, *(IDS.index(item) + 1 for item in KEPT)]
    rows = vectors("bert", 4)
    np.testing.assert_array_equal(found.tables["bert"].numpy()[1:], np.stack([rows[item] for item in KEPT]))
    expected = [[item for item in items if item in KEPT] for items in histories().values()]
    data = found.data
    ids = np.array(["", *KEPT])[data.items]
    assert [part.tolist() for part in np.split(ids, data.offsets[1:-1])] == [items for items in expected if items]
    assert (data.n_items, found.missing["dropped"]) == (9, 3)


def test_a_run_with_drop_agrees_on_the_numbering_everywhere(lab, capsys):
    record = train(lab, capsys, "tedrec", "missing=drop")
    run_id, run_dir = record["run_id"], lab / "runs" / record["run_id"]
    assert record["extra"]["missing"] == {
        "policy": "drop",
        "dropped": 3,
        "tables": {"bert": {"items": 3, "first": ABSENT}},
    }
    assert record["config"]["missing"] == "drop"
    assert record["protocol"]["n_candidates"] == 9

    # ranks.parquet has the numbers of the prepared dataset: the targets are the last items of the histories.
    prepared = open_prepared(settings(lab), DATASET)
    ranks = pl.read_parquet(run_dir / "ranks.parquet").filter(split="test")
    named = ranks.join(prepared.users, on="user").join(prepared.items, left_on="target", right_on="item")
    last = {user: items[-1] for user, items in histories().items() if items[-1] in KEPT}
    assert dict(named.select("user_id", "item_id").iter_rows()) == last
    assert ranks["rank"].max() < 9

    code, again, _ = command(lab, capsys, "evaluate", run_id)
    assert (code, again["equal"]) == (0, True)
    code, best, _ = command(lab, capsys, "recommend", run_id, "--user", "u00", "-k", "5")  # 4 of the 9 it has had
    assert code == 0
    assert {row["item_id"] for row in best["items"]} == set(KEPT) - set(histories()["u00"])
    assert all(row["title"] == f"Clip {row['item_id']}" for row in best["items"])
    assert command(lab, capsys, "recommend", run_id, "--user", "u24")[0] == 2
    code, sliced, _ = command(lab, capsys, "slices", run_id, "-k", "3")
    assert code == 0
    assert sum(part["n_users"] for part in sliced["slices"]["history length"]) == len(last)
    assert command(lab, capsys, "lineage", run_id)[0] == 0


def test_the_policy_is_part_of_the_run_and_is_told(lab, capsys):
    zero, mean = train(lab, capsys, "tedrec"), train(lab, capsys, "tedrec", "missing=mean")
    assert zero["run_id"] != mean["run_id"]
    assert zero["config"]["missing"] == "zero"
    assert train(lab, capsys, "tedrec", "missing=zero")["fresh"] is False
    from flows import cli

    assert cli.main(["--root", str(lab), "train", str(experiment(lab, "tedrec"))]) == 0
    assert "bert has no row for 3 items (i02, i07, i10); missing = 'zero'" in capsys.readouterr().out


def test_error_lists_the_items_and_says_what_to_do(lab, capsys):
    code, payload, err = command(lab, capsys, "train", experiment(lab, "tedrec"), "missing=error")
    assert code == 2
    assert "'bert' has no row for 3 of 12 items: i02, i07, i10; extract them, or choose missing =" in payload["error"]
    assert f"reelstore store quarantine {DATASET}/<feature>" in err
    assert train(lab, capsys, "sasrec", "missing=error")["extra"]["missing"]["tables"] == {}


WRONG = {
    "a policy that is none": ("tedrec", ["missing=dorp"], "missing: Input should be 'zero', 'mean', 'drop' or 'error'"),
    "a version that is not there": ("tedrec", ["stores.bert=99"], "has no version 99; versions there are: 1"),
    "a store that it does not read": ("tedrec", ["stores.vit=1"], "stores: tedrec reads bert, not vit"),
    "a parameter of another model": ("tedrec", ["parameters.steps=3"], "parameters: steps: unknown key (got 3)"),
    "too few frames": ("mealrec", [], "expected [items, frames >= 5, width], got [13, 3, 6]"),
    "vectors of another width": (
        "mealrec",
        ["parameters.frames=3", "parameters.video_table=bert"],
        "'bert': expected [items, 6], as wide as 'videomae.frames', got [13, 4]",
    ),
    "a column that is not there": (
        "tedrec",
        ["parameters.text_table=bert.frames"],
        "no column 'frames'; columns there",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_inputs_that_do_not_fit_end_with_2_and_one_clear_message(lab, capsys, wrong):
    model, overrides, message = WRONG[wrong]
    code, payload, err = command(lab, capsys, "train", experiment(lab, model), *overrides)
    assert (code, "Traceback" in err) == (2, False)
    assert message in payload["error"]


@pytest.mark.parametrize("place", [20, -20], ids=["header", "tensor"])
def test_flipped_bytes_of_the_weights_are_found(root, capsys, place):
    run_id = train(root, capsys, "sasrec")["run_id"]
    path = root / "runs" / run_id / "checkpoints" / "best" / "weights.safetensors"
    damaged = bytearray(path.read_bytes())
    damaged[place] ^= 0xFF
    path.write_bytes(damaged)
    for words in (["evaluate", run_id], ["recommend", run_id, "--user", "u00"]):
        code, payload, _ = command(root, capsys, *words)
        assert code == 1
        assert payload["error"].startswith(f"{path}: damaged: expected the weights that the run recorded")
        assert f"put a copy of the file back, or remove {root / 'runs' / run_id}" in payload["error"]


def test_weights_that_are_gone_are_named(root, capsys):
    run_id = train(root, capsys, "sasrec")["run_id"]
    (root / "runs" / run_id / "checkpoints" / "best" / "weights.safetensors").unlink()
    code, payload, _ = command(root, capsys, "evaluate", run_id)
    assert code == 2
    assert "checkpoints/best/weights.safetensors" in payload["error"]


def test_a_loss_that_is_not_a_number_names_the_file_with_the_batch(root, capsys):
    huge = ["training.learning_rate=1e30", "training.epochs=50"]
    code, payload, _ = command(root, capsys, "train", experiment(root, "sasrec"), *huge)
    assert code == 1
    assert "the loss is not finite at epoch" in payload["error"]
    path = next((root / "runs").glob("*/failed_batch.parquet"))
    assert f"the batch is in {path}" in payload["error"]
    batch = pl.read_parquet(path)
    assert set(batch["user"]) <= set(open_prepared(settings(root), DATASET).users["user"])
    assert not path.with_name("record.json").exists()


def test_the_test_split_is_opened_for_one_choice_only(root, capsys):
    record = train(root, capsys, "sasrec")
    run_dir = root / "runs" / record["run_id"]
    seal = run_dir / "test_opened.json"
    opened = json.loads(seal.read_text())
    assert opened == {"selected_epoch": record["selected_epoch"], "configuration": record["run_id"]}
    assert command(root, capsys, "evaluate", record["run_id"])[0] == 0  # the same choice

    seal.write_text(json.dumps(opened | {"selected_epoch": 99}))
    code, payload, _ = command(root, capsys, "evaluate", record["run_id"])
    assert code == 2
    assert "the test split was opened for epoch 99" in payload["error"]

    for name in ("record.json", "ranks.parquet"):
        (run_dir / name).unlink()
    assert command(root, capsys, "train", experiment(root, "sasrec"))[0] == 2
    assert not (run_dir / "ranks.parquet").exists()  # nothing was ranked

    seal.write_text(json.dumps(opened))
    assert train(root, capsys, "sasrec")["metrics"] == record["metrics"]


def test_figures_that_cannot_stand_are_not_recorded(root, monkeypatch):
    def wrong(ranks, cutoffs):
        true = ranks.metrics(cutoffs)
        return SplitMetrics(unmasked=true | {"hr@10": true["hr@10"] + 0.01}, masked=ranks.metrics(cutoffs, masked=True))

    monkeypatch.setattr(ranking, "split_metrics", wrong)
    with pytest.raises(RecordError, match="these figures cannot stand"):
        run_experiment(settings(root), load_experiment(experiment(root, "sasrec"), {}))
    assert list((root / "runs").glob("*/record.json")) == []


def test_a_run_of_a_gpu_is_returned_and_used_where_there_is_none(root, capsys):
    here = train(root, capsys, "sasrec")["run_id"]
    on_gpu = load_experiment(experiment(root, "sasrec"), {"training.device": "cuda:7"})
    there = pin(settings(root), on_gpu, open_prepared(settings(root), DATASET))[0].run_id
    (root / "runs" / here).rename(root / "runs" / there)
    run_dir = root / "runs" / there
    record = RunRecord.read(run_dir).model_copy(update={"run_id": there, "config": on_gpu.model_dump(mode="json")})
    record.write(run_dir)
    (run_dir / "test_opened.json").unlink()

    assert train(root, capsys, "sasrec", "training.device=cuda:7")["fresh"] is False
    assert command(root, capsys, "evaluate", there)[1]["equal"] is True
    other = command(root, capsys, "train", experiment(root, "sasrec"), "training.device=cuda:7", "seed=1")
    assert other[0] == 2
    assert "torch finds no CUDA device here" in other[1]["error"]


def test_every_epoch_is_told_as_it_is_logged(root):
    rows = []
    record = run_experiment(
        settings(root), load_experiment(experiment(root, "sasrec"), {}), on_epoch=lambda row: rows.append(dict(row))
    ).record
    log = (root / "runs" / record.run_id / "metrics.jsonl").read_text().splitlines()
    assert rows == [json.loads(line) for line in log]
    assert record.extra["model"] == {}  # SASRec has nothing to say of itself beyond its settings
    assert [row["epoch"] for row in rows] == [1, 2]
