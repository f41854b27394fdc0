"""What a call of a study leaves as it was, and what it prints: JSON, and the command that makes the page again."""

import html
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from flows import cli

_spec = importlib.util.spec_from_file_location("study_case", Path(__file__).with_name("study_case.py"))
case = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(case)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    root = tmp_path_factory.mktemp("studies")
    found = case.sweeps.small_root(root)
    case.write_study(root, "floors", case.FLOORS)
    return found


@pytest.fixture
def call(settings, monkeypatch, capsys):
    """Run ``reelstore --json study`` and return what it printed, read as strict JSON."""
    monkeypatch.setenv("REELSTORE_CONFIGS", str(settings.configs))

    def run(*words):
        capsys.readouterr()
        assert cli.main(["--root", str(settings.root), "--json", "study", *words]) == 0
        return json.loads(capsys.readouterr().out, parse_constant=pytest.fail)

    return run


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_trial_leaves_every_file_of_the_study_as_it_was(settings, call):
    folder = Path(call("floors")["folder"])
    before = contents(folder)
    assert folder == settings.root / "studies" / "floors"
    assert set(before) == {"results.parquet", "results.csv", "comparison.csv", "figure.svg", "study.html"}
    trial = Path(call("floors", "training.epochs=1", "seeds=[0]")["folder"])
    assert pl.read_parquet(trial / "results.parquet")["seed"].to_list() == [0, 0]
    assert trial != folder
    assert contents(folder) == before


def test_json_has_null_where_a_comparison_is_not_finite(call):
    over_seeds = [one for one in call("floors")["comparisons"] if one["over"] == "seeds"]
    assert [one["metric"] for one in over_seeds] == ["hr@5", "ndcg@5"]
    for one in over_seeds:
        assert one["difference"] != 0
        assert [one[name] for name in ("t", "effect_size", "p", "p_holm", "low", "high")] == [None] * 6


def test_the_pages_command_makes_the_page_again_when_pasted(settings, call, tmp_path):
    file = tmp_path / "my studies" / "small floors.toml"
    file.parent.mkdir()
    file.write_text(case.FLOORS)
    overrides = ("seeds=[0]", "experiment=sasrec-movielens-10m", "training.learning_rate=1e-3")
    page = Path(call(str(file), *overrides)["page"])
    (command,) = re.findall(r"<pre><code>reelstore (.+)</code></pre>", page.read_text(encoding="utf-8"))
    page.unlink()
    pasted = f"{shlex.quote(sys.executable)} -m flows.cli {html.unescape(command)}"
    environment = {**os.environ, "REELSTORE_ROOT": str(settings.root), "REELSTORE_CONFIGS": str(settings.configs)}
    done = subprocess.run(pasted, shell=True, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert page.is_file()
