"""Studies of real trainings on a small dataset; their figures and tests are computed again from ranks and rows."""

import argparse
import importlib.util
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from scipy import stats

from feature_store import StoreNotFoundError
from flows import cli
from flows.commands.study import study as study_command
from flows.config import parse_overrides
from flows.errors import WorkError
from flows.jobs.study_config import find_study
from models.evaluation.metrics import per_user

SCRIPT = Path(__file__).with_name("study_case.py")
_spec = importlib.util.spec_from_file_location("study_case", SCRIPT)
case = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(case)

FILES = {"results.parquet", "results.csv", "comparison.csv", "figure.svg", "study.html"}


def run(settings, name, *overrides):
    return study_command(settings, argparse.Namespace(study=name, overrides=list(overrides)))


def folder_of(settings, name, *overrides):
    return find_study(settings, name, parse_overrides(overrides)).folder


def results(settings, name, *overrides):
    return pl.read_parquet(folder_of(settings, name, *overrides) / "results.parquet")


def ranks_of(settings, run_id, split="test"):
    frame = pl.read_parquet(settings.runs / run_id / "ranks.parquet")
    return frame.filter(pl.col("split") == split).sort("user")["rank"].to_numpy()


def logs(settings):
    return {path: path.stat().st_mtime_ns for path in settings.runs.glob("*/metrics.jsonl")}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("studies")
    case.sweeps.small_root(root)
    case.write_studies(root)
    return root


@pytest.fixture(scope="module")
def settings(root):
    return case.sweeps.settings_at(root)


@pytest.fixture(scope="module")
def bars(settings):
    """Three bars of three seeds, trained once; the second cannot be trained."""
    return run(settings, "bars")


def test_a_study_of_bars_has_a_row_per_run_with_the_figures_of_its_ranks(settings, bars):
    rows = results(settings, "bars")
    assert list(zip(rows["label"], rows["seed"], strict=True)) == [
        (label, seed) for label in ("SASRec", "w/o sense", "wider") for seed in (0, 1, 2)
    ]
    for row in rows.filter(pl.col("status") == "finished").iter_rows(named=True):
        for split in ("valid", "test"):
            ranks = ranks_of(settings, row["run_id"], split)
            assert row[f"{split}_hr@5"] == (ranks < 5).mean()
            assert row[f"{split}_ndcg@5"] == pytest.approx(per_user(ranks, "ndcg@5").mean(), abs=1e-12)
    text = pl.read_csv(settings.root / "studies" / "bars" / "results.csv", schema_overrides=rows.schema)
    assert text.equals(rows)


def test_a_variant_whose_training_fails_is_rows_with_a_reason(settings, bars):
    failed = results(settings, "bars").filter(pl.col("label") == "w/o sense")
    assert failed["status"].to_list() == ["failed"] * 3
    assert all(reason.startswith("the loss is not finite at epoch 1, step 2") for reason in failed["reason"])
    assert failed["test_hr@5"].to_list() == [None] * 3
    assert [point["failed"].keys() for point in bars.payload["points"]] == [set(), {0, 1, 2}, set()]
    assert [point["test"]["hr@5"] == [] for point in bars.payload["points"]] == [False, True, False]


def test_comparisons_are_scipys_on_the_written_rows(settings, bars):
    rows = results(settings, "bars")
    found = pl.read_csv(settings.root / "studies" / "bars" / "comparison.csv")
    assert found["variant"].to_list() == ["wider"] * 3
    assert found["reference"].to_list() == ["SASRec"] * 3
    assert list(zip(found["over"], found["metric"], found["n"], strict=True)) == [
        ("seeds", "hr@5", 3),
        ("seeds", "ndcg@5", 3),
        ("users", "ndcg@10", 36),
    ]
    first, wider = (rows.filter(pl.col("label") == label) for label in ("SASRec", "wider"))
    pairs = [(wider[f"test_{metric}"].to_numpy(), first[f"test_{metric}"].to_numpy()) for metric in ("hr@5", "ndcg@5")]
    pairs.append(tuple(per_user(ranks_of(settings, side["run_id"][0]), "ndcg@10") for side in (wider, first)))
    tests = [stats.ttest_rel(*pair) for pair in pairs]
    assert found["p"].to_list() == pytest.approx([test.pvalue for test in tests], rel=1e-9)
    assert found["t"].to_list() == pytest.approx([test.statistic for test in tests], rel=1e-9)
    assert found["difference"].to_list() == pytest.approx([(a - b).mean() for a, b in pairs], abs=1e-12)
    assert found["effect_size"].to_list() == pytest.approx(
        [(a - b).mean() / (a - b).std(ddof=1) for a, b in pairs], rel=1e-9
    )
    for row, test in zip(found[:2].iter_rows(named=True), tests, strict=False):
        interval = test.confidence_interval()
        assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert found["p_holm"].to_list() == found["p"].to_list()  # one comparison per metric


def test_figure_and_page_show_every_variant(settings, bars):
    folder = settings.root / "studies" / "bars"
    assert {path.name for path in folder.iterdir()} == FILES
    figure, page = ((folder / name).read_text(encoding="utf-8") for name in ("figure.svg", "study.html"))
    for label in ("SASRec", "w/o sense", "wider", "HR@5, test split", "NDCG@5, test split"):
        assert f"<!-- {label} -->" in figure
    mean = results(settings, "bars").filter(pl.col("label") == "wider")["test_hr@5"].mean()
    for text in ("A small study", "Nobody, Fig. 1", "reelstore study bars", "3 runs failed", f"{mean:.4f}", "0 of 3"):
        assert text in page
    assert page.count("the loss is not finite") == 3


def test_a_study_that_ended_trains_nothing_again(settings, bars):
    before = logs(settings)
    batches = list(settings.runs.glob("*/*batch*"))
    assert len(batches) == 3
    for batch in batches:
        batch.unlink()  # the trainer would write it again
    assert run(settings, "bars").payload == bars.payload
    assert logs(settings) == before
    assert not list(settings.runs.glob("*/*batch*"))


def test_a_killed_study_goes_on_and_ends_like_one_that_was_not(settings, bars, tmp_path):
    other = case.sweeps.small_root(tmp_path)
    case.write_study(tmp_path, "bars", case.BARS)
    done = subprocess.run([sys.executable, SCRIPT, tmp_path, "bars", "3"], check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    finished = {path.parent.name for path in other.runs.glob("*/record.json")}
    part = results(other, "bars")
    assert (len(part), set(part["run_id"])) == (2, finished)
    assert {path.name for path in (other.root / "studies" / "bars").iterdir()} == {"results.parquet", "results.csv"}
    (broken,) = {path.name for path in other.runs.iterdir()} - finished
    before = (other.runs / broken / "metrics.jsonl").read_text()
    assert before.count("\n") == 2

    resumed = run(other, "bars")
    assert resumed.payload["comparisons"] == bars.payload["comparisons"]
    ignored = ("seconds", "reason")  # a reason names the folder of its batch
    assert results(other, "bars").drop(ignored).equals(results(settings, "bars").drop(ignored))
    assert (other.runs / broken / "metrics.jsonl").read_text().startswith(before)
    figures = [(place.root / "studies" / "bars" / "figure.svg").read_text() for place in (settings, other)]
    assert figures[0] == figures[1]


def test_lines_walk_each_axis_alone_and_share_runs(settings):
    outcome = run(settings, "lines", "training.epochs=1")
    folder = folder_of(settings, "lines", "training.epochs=1")
    rows = results(settings, "lines", "training.epochs=1")
    assert len(rows) == 2 * (2 * 4 + 1)
    curve = rows.filter((pl.col("label") == "gBCE") & (pl.col("seed") == 0))
    assert curve["parameters.d"].to_list() == [4, 8, None, None]
    assert curve["parameters.dropout"].to_list() == [None, None, 0.2, 0.5]
    assert curve["run_id"][1] == curve["run_id"][2]  # d = 8 and dropout = 0.2 are the experiment's own
    across = rows.filter(pl.col("label") == "popularity")
    assert len(across) == 2
    assert across["run_id"].str.starts_with("popularity-movielens-10m-s").all()
    figure = (folder / "figure.svg").read_text(encoding="utf-8")
    for text in ("full softmax", "gBCE", "popularity", "width d", "dropout", "test HR@5", "0.5"):
        assert f"<!-- {text} -->" in figure
    assert outcome.payload["comparisons"] == []
    assert not (folder / "comparison.csv").exists()
    page = (folder / "study.html").read_text(encoding="utf-8")
    assert "reelstore study lines training.epochs=1" in page


def test_a_heat_map_has_every_cell_and_crosses_out_the_failed_ones(settings):
    run(settings, "heatmap")
    rows = results(settings, "heatmap")
    assert rows.select("parameters.d", "training.weight_decay", "status").rows() == [
        (d, decay, status) for d in (4, 8, 16) for decay, status in ((0.0, "finished"), (1e38, "failed"))
    ]
    figure = (settings.root / "studies" / "heatmap" / "figure.svg").read_text(encoding="utf-8")
    for value in rows["test_hr@5"].drop_nulls():
        assert f"<!-- {value:.4f} -->".replace("0.", ".") in figure
    assert figure.count("<!-- × -->") == 6  # three cells in each of two maps
    best = rows.drop_nulls("test_ndcg@5").sort("test_ndcg@5")["parameters.d"][-1]
    page = (settings.root / "studies" / "heatmap" / "study.html").read_text(encoding="utf-8")
    assert f"test NDCG@5 is highest at d {best}, weight decay 0" in page
    for text in ("d", "weight decay", "test HR@5", "test NDCG@5", "1e+38"):
        assert f"<!-- {text} -->" in figure


def test_a_bar_is_compared_with_the_one_that_it_names(root, settings, bars):
    pairs = """figure = "bars"
[[variants]]
label = "narrow"
overrides = { "parameters.d" = 4 }
[[variants]]
label = "narrow, gBCE"
overrides = { "parameters.d" = 4, "parameters.loss" = "gbce" }
[[variants]]
label = "wide"
[[variants]]
label = "wide, gBCE"
overrides = { "parameters.loss" = "gbce" }
against = "wide"
"""
    case.write_study(root, "pairs", case.HEAD + pairs)
    outcome = run(settings, "pairs", "training.epochs=1", "seeds=[0]")
    found = [(one["variant"], one["reference"], one["over"]) for one in outcome.payload["comparisons"]]
    assert found == [("narrow, gBCE", "narrow", "users"), ("wide, gBCE", "wide", "users")]
    assert "narrow, gBCE against narrow, ndcg@10 over 36 users: " in outcome.text


def test_a_study_in_which_nothing_trains_says_why_and_leaves_no_older_figure(root, settings):
    text = case.LINES.replace("seeds = [0, 1]", "seeds = [0]").partition('[[series]]\nlabel = "popularity"')[0]
    base = '"training.epochs" = 1'
    case.write_study(root, "hopeless", text.replace("[axes]", f"base = {{ {base} }}\n[axes]"))
    folder = settings.root / "studies" / "hopeless"
    run(settings, "hopeless")
    assert (folder / "figure.svg").is_file()
    base += ', "training.optimiser" = "adamw", "training.weight_decay" = 1e38'
    case.write_study(root, "hopeless", text.replace("[axes]", f"base = {{ {base} }}\n[axes]"))
    with pytest.raises(WorkError, match=r"no training succeeded; .*results\.csv has the reasons, the first: the loss"):
        run(settings, "hopeless")
    assert results(settings, "hopeless")["status"].to_list() == ["failed"] * 8
    assert {path.name for path in folder.iterdir()} == {"results.parquet", "results.csv"}


def test_a_missing_store_ends_a_study_before_anything_is_trained(root, settings):
    text = case.BARS.replace('overrides = { "parameters.d" = 16 }', 'model = "tedrec"\nparameters = { max_length = 5 }')
    case.write_study(root, "stores", text)
    before = {path.name for path in settings.runs.iterdir()}
    with pytest.raises(StoreNotFoundError, match="bert"):
        run(settings, "stores", "training.learning_rate=0.002")
    assert {path.name for path in settings.runs.iterdir()} == before


DIMEREC = """
dataset = "movielens-10m"
model = "dimerec"
[parameters]
max_length = 5
d = 8
[training]
epochs = 1
max_length = 5
device = "cpu"
threads = 1
"""
GUIDANCE = """
title = "Guidance"
source = "DimeRec, Table 3"
experiment = "dimerec-movielens-10m"
seeds = [0]
metrics = ["hr@20"]
printed = ["Table 3"]
figure = "bars"
[[variants]]
label = "ComiRec-SA"
[[variants]]
label = "MLP"
overrides = { "parameters.gem" = "mlp" }
"""


def test_the_papers_figures_stand_beside_ours_on_the_papers_dataset(root, settings):
    (settings.configs / "experiments" / "dimerec-movielens-10m.toml").write_text(DIMEREC)
    case.write_study(root, "guidance", GUIDANCE)
    run(settings, "guidance")
    page = (settings.root / "studies" / "guidance" / "study.html").read_text(encoding="utf-8")
    assert "DimeRec, Table 3, ML-10M (movielens-10m)." in page
    rows = [line for line in page.splitlines() if "guidance " in line]
    printed = {"guidance SASRec": "0.2291", "guidance MLP": "0.1915", "guidance ComiRec-SA": "0.2758"}
    for name, value in printed.items():
        (row,) = [line for line in rows if name in line]
        assert value in row
        assert ("not run" in row) == (name == "guidance SASRec")  # 12 items: the others' HR@20 is 1
        assert ("1.0000" in row) == (name != "guidance SASRec")
    assert "KuaiRec" not in page


def test_the_command_lists_runs_and_refuses(settings, monkeypatch, capsys):
    monkeypatch.setenv("REELSTORE_CONFIGS", str(settings.configs))

    def command(*words):
        capsys.readouterr()
        code = cli.main(["--root", str(settings.root), "--json", *words])
        return code, json.loads(capsys.readouterr().out)

    code, payload = command("study")
    about = {one["name"]: one for one in payload["studies"]}
    assert code == 0
    assert about["bars"] == {
        "name": "bars",
        "title": "A small study",
        "source": "Nobody, Fig. 1",
        "figure": "bars",
        "experiment": "sasrec-movielens-10m",
        "runs": 9,
    }
    assert about["lines"]["runs"] == 18
    code, payload = command("study", "bar")
    assert code == 2
    assert "did you mean 'bars.toml'?" in payload["error"]
    code, payload = command("study", "seeds=[0]")
    assert (code, payload["kind"]) == (2, "CallError")


def test_each_experiment_has_its_own_folder_of_results(settings):
    path = settings.configs / "experiments" / "sasrec-movielens-10m.toml"
    assert find_study(settings, "bars", {}).folder == settings.root / "studies" / "bars"
    replaced = find_study(settings, "bars", {"experiment": str(path)}).folder
    assert replaced == settings.root / "studies" / "bars--sasrec-movielens-10m"


def test_a_file_from_elsewhere_writes_beside_a_study_of_its_name(settings, tmp_path):
    copy = tmp_path / "mine" / "bars.toml"
    copy.parent.mkdir()
    copy.write_text(case.BARS, encoding="utf-8")
    mine = find_study(settings, str(copy), {})
    assert re.fullmatch(r"bars--[0-9a-f]{8}", mine.folder.name)
    (tmp_path / "other").mkdir()
    assert find_study(settings, str(tmp_path / "other" / ".." / "mine" / "bars.toml"), {}).folder == mine.folder
    assert find_study(settings, str(settings.configs / "studies" / "bars.toml"), {}).folder.name == "bars"
