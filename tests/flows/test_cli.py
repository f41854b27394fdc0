"""The command line as a user meets it: a real process, exit codes, one clear message."""

import json
import os
import subprocess
import sys

import pytest


def reelstore(*words, root, timeout=120):
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *words],
        env={**os.environ, "REELSTORE_ROOT": str(root)},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prepare", "microlens-5k"], "did you mean 'microlens-50k'"),
        (["prepare", "synthetic", "k_usr=3"], "did you mean 'k_user'"),
        (["prepare", "synthetic", "k_user"], "expected key=value, got 'k_user'"),
        (["prepare", "amazon-gift-cards", "source=/nowhere/at/all"], "/nowhere/at/all"),
        (["extract", "synthetic", "--features", "videome"], "did you mean 'videomae'"),
        (["extract", "synthetic", "--features", "videome", "checkpoint=tiny"], "did you mean 'videomae'"),
        (["extract", "synthetic", "checkpoint=tiny", "--features", "videome"], "did you mean 'videomae'"),
        (["extract", "synthetic"], "reelstore prepare synthetic"),
        (["train", "configs/experiments/mealrec-synthetik.toml"], "did you mean 'mealrec-synthetic.toml'"),
        (["train", "configs/experiments/mealrec-synthetic.toml", "training.epoch=1"], "did you mean 'epochs'"),
        (["store", "show", "synthetic/videomae"], "reelstore extract"),
        (["evaluate", "no-such-run"], "no-such-run"),
        (["recommend", "no-such-run", "--user", "u1"], "no-such-run"),
        (["index", "no-such-run", "--out", "served"], "no-such-run"),
        (["slices", "no-such-run"], "no-such-run"),
    ],
)
def test_a_wrong_call_ends_with_2_and_one_clear_message(words, message, tmp_path):
    done = reelstore(*words, root=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


NO_COMMANDS = [["no-such-command"], ["store", "melt", "a/b"], ["stores", "a=b"], ["stores", "--x"], []]


@pytest.mark.parametrize("words", NO_COMMANDS)
def test_words_that_are_no_command_end_with_2(words, tmp_path):
    assert reelstore(*words, root=tmp_path).returncode == 2


def test_json_is_one_object_on_stdout(tmp_path):
    done = reelstore("--json", "stores", root=tmp_path)
    assert done.returncode == 0
    assert json.loads(done.stdout) == {"stores": []}
    refused = reelstore("prepare", "microlens-5k", "--json", root=tmp_path)
    assert json.loads(refused.stdout)["kind"] == "UnknownDatasetError"


def test_datasets_lists_what_the_contract_names(tmp_path):
    done = reelstore("--json", "datasets", root=tmp_path)
    names = {entry["name"] for entry in json.loads(done.stdout)["datasets"]}
    assert {"microlens-50k", "microlens-100k", "microlens-1m", "amazon-toys", "synthetic"} <= names


def test_importing_the_command_line_loads_nothing_heavy():
    heavy = ["torch", "transformers", "prefect", "polars", "pyarrow", "matplotlib", "pydantic", "av"]
    code = f"import sys, flows.cli; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_names_every_command_of_the_contract(tmp_path):
    done = reelstore("--help", root=tmp_path)
    assert done.returncode == 0
    for command in (
        "datasets",
        "prepare",
        "extract",
        "stores",
        "store",
        "train",
        "sweep",
        "evaluate",
        "report",
        "recommend",
        "index",
        "slices",
        "tails",
        "probe",
        "study",
        "deploy",
        "doctor",
    ):
        assert command in done.stdout
