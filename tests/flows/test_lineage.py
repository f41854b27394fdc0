"""From a run back to its raw files, and what is said when something on the way is gone or changed."""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from feature_store import FeatureShard, FeatureStore
from flows.commands.lineage import lineage
from flows.jobs.lineage import trace
from flows.jobs.provenance import git_sha, lock_hash
from flows.settings import Settings
from models.errors import RecordError
from models.evaluation.record import EvaluationProtocol, RunRecord, SplitMetrics, StoreVersion

VERSION = "ab" * 32
DATASET = "movielens-10m"
RATINGS = b"1::2::5::838985046\n"


def digest(data):
    return hashlib.sha256(data).hexdigest()


def write_dataset(settings, version=VERSION):
    raw = settings.raw(DATASET) / "ml-10M100K"
    raw.mkdir(parents=True, exist_ok=True)
    (raw / "ratings.dat").write_bytes(RATINGS)
    prepared = settings.prepared(DATASET)
    prepared.mkdir(parents=True, exist_ok=True)
    (prepared / "items.parquet").write_bytes(b"table")
    manifest = {
        "name": DATASET,
        "version": version,
        "created_at": "2026-01-02T03:04:05+00:00",
        "config": {"k_user": 5},
        "raw": [{"file": "ratings.dat", "bytes": len(RATINGS), "sha256": digest(RATINGS)}],
        "files": {"items.parquet": {"bytes": 5}},
    }
    (prepared / "manifest.json").write_text(json.dumps(manifest))


def write_store(settings, number):
    store = FeatureStore.open(settings.store(DATASET, "bert"), create=True)
    items = {f"i{item}": hashlib.sha256(f"{item} {number}".encode()).digest() for item in range(4)}
    spec = {
        "encoder": "bert",
        "checkpoint": {"weights_sha256": "cd" * 32, "toy": False},
        "recorded": {
            "checkpoint": {"source": "google-bert/bert-base-uncased", "revision": "86b5e093"},
            "dataset": DATASET,
            "dataset_version": VERSION,
        },
    }
    plan = store.plan(spec, items)
    values = np.random.default_rng(number).standard_normal((4, 3)).astype(np.float32)
    store.write_shard(FeatureShard(list(items), list(items.values()), values), plan)
    return store.commit(plan)


@pytest.fixture
def settings(tmp_path):
    """A finished run that read version 1 of a store; the store has a second version."""
    settings = Settings(root=tmp_path / "data")
    write_dataset(settings)
    write_store(settings, 1)
    write_store(settings, 2)
    metrics = SplitMetrics(unmasked={"hr@10": 0.5}, masked={"hr@10": 0.6})
    record = RunRecord(
        run_id="sasrec-run",
        model="sasrec",
        dataset=DATASET,
        dataset_version=VERSION,
        stores=(StoreVersion(name=f"{DATASET}/bert", version=1),),
        seed=3,
        config={},
        git_sha=git_sha(),
        lock_hash=lock_hash(),
        protocol=EvaluationProtocol(n_candidates=4, n_users={"test": 2}),
        metrics={"valid": metrics, "test": metrics},
        selected_epoch=1,
    )
    record.write(settings.runs / "sasrec-run")
    return settings


def problems(settings):
    """What is wrong with the data; other people may work in the checkout while the tests run."""
    found = trace(settings, "sasrec-run").problems
    return [problem for problem in found if not problem.startswith("code ")]


def test_a_run_is_followed_back_to_its_raw_files(settings):
    run = trace(settings, "sasrec-run")
    assert problems(settings) == []
    assert (run.kind, run.facts["model"], run.facts["seed"]) == ("run", "sasrec", 3)
    code, store, dataset = run.made_from
    assert code.facts == {"git_sha": git_sha(), "requirements_lock_sha256": lock_hash()}
    assert (store.kind, store.name, store.facts["rows"], store.facts["parent"]) == (
        "store",
        f"{DATASET}/bert@1",
        4,
        None,
    )
    weights, extracted_from = store.made_from
    assert (weights.name, weights.facts["weights_sha256"]) == ("google-bert/bert-base-uncased", "cd" * 32)
    assert extracted_from == dataset
    assert (dataset.name, dataset.facts["version"]) == (f"{DATASET}@{VERSION[:12]}", VERSION)
    (raw,) = dataset.made_from
    assert (raw.name, raw.facts) == ("ratings.dat", {"bytes": len(RATINGS), "sha256": digest(RATINGS)})


def test_the_tree_and_the_json_object(settings):
    outcome = lineage(settings, argparse.Namespace(run_id="sasrec-run"))
    lines = outcome.text.split("\n")
    assert lines[0].startswith("run sasrec-run  model sasrec, seed 3, created_at ")
    assert lines[2] == f"├─ store {DATASET}/bert@1  encoder bert, rows 4, created_at {lines[2][-25:]}"
    assert lines[3].startswith(
        "│  ├─ weights google-bert/bert-base-uncased  revision 86b5e093, weights_sha256 cdcdcdcdcdcd"
    )
    assert lines[4].startswith(f"│  └─ dataset {DATASET}@abababababab")
    assert lines[5] == f"│     └─ raw file ratings.dat  bytes 19, sha256 {digest(RATINGS)[:12]}"
    assert lines[6].startswith(f"└─ dataset {DATASET}@abababababab")
    payload = json.loads(json.dumps(outcome.payload))
    assert payload["made_from"][1]["name"] == f"{DATASET}/bert@1"
    assert outcome.code == 0


def raw_file(settings):
    return settings.raw(DATASET) / "ml-10M100K" / "ratings.dat"


def shard_of_version_1(settings):
    (shard,) = FeatureStore.open(settings.store(DATASET, "bert")).at(1).manifest.shards
    return settings.store(DATASET, "bert") / "shards" / f"{shard.sha256}.parquet"


CHANGES = {
    "the raw file is gone": (lambda s: raw_file(s).unlink(), "raw file ratings.dat: gone: there is no ratings.dat in"),
    "the raw file is longer": (lambda s: raw_file(s).write_bytes(RATINGS * 2), "has 38 bytes, not 19"),
    "the raw file is another": (
        lambda s: raw_file(s).write_bytes(RATINGS[::-1]),
        "has another content of the same size",
    ),
    "the dataset is gone": (lambda s: shutil.rmtree(s.prepared(DATASET)), "gone: there is no prepared dataset at"),
    "the dataset is another": (
        lambda s: write_dataset(s, "ef" * 32),
        "holds version efefefefefef, prepared at 2026-01-02",
    ),
    "a table is torn": (
        lambda s: (s.prepared(DATASET) / "items.parquet").write_bytes(b"tor"),
        "items.parquet: expected 5 bytes, got 3",
    ),
    "a shard is gone": (lambda s: shard_of_version_1(s).unlink(), "changed: 1 of 1 shards are missing"),
    "the version is gone": (
        lambda s: (s.store(DATASET, "bert") / "manifests" / "00000001.json").unlink(),
        "has no version 1; versions there are: 2",
    ),
    "the version is damaged": (
        lambda s: (s.store(DATASET, "bert") / "manifests" / "00000001.json").write_text("{}"),
        "not a manifest",
    ),
    "the store is gone": (lambda s: shutil.rmtree(s.store(DATASET, "bert")), "bert@1: gone: "),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_gone_or_changed_is_said(settings, change):
    do, message = CHANGES[change]
    do(settings)
    (problem,) = problems(settings)
    assert message in problem
    text = lineage(settings, argparse.Namespace(run_id="sasrec-run")).text
    assert problem in text
    assert "  ! GONE" in text or "  ! CHANGED" in text


def test_other_code_is_said(settings):
    path = settings.runs / "sasrec-run" / "record.json"
    record = RunRecord.read(path.parent)
    record.model_copy(update={"git_sha": "12" * 20, "lock_hash": "34" * 32}).write(path.parent)
    run = trace(settings, "sasrec-run")
    assert run.made_from[0].problem.startswith("changed: this checkout is at ")
    assert "requirements.lock hashes to" in run.made_from[0].problem


def test_a_run_that_is_not_there_is_a_wrong_call(settings):
    with pytest.raises(RecordError, match="no-such-run"):
        trace(settings, "no-such-run")


def test_the_command(settings):
    command = [sys.executable, "-m", "flows.cli", "lineage", "sasrec-run", "--json"]
    environment = {**os.environ, "REELSTORE_ROOT": str(settings.root)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["name"] == "sasrec-run"
