"""Every deployment, run by a real process worker against a real server. The tests build on each other, in order."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prefect_api import ask

from feature_store import FeatureStore
from flows.deployfile import read_file
from flows.names import DEPLOYMENTS
from flows.settings import REPOSITORY

SHARED = Path(os.environ.get("REELSTORE_SHARED", REPOSITORY.parent / "shared"))
GIFT_CARDS = SHARED / "data" / "amazon_v2_gift_cards"

pytestmark = pytest.mark.timeout(1200)


def run(service, name, *parameters, expect="Completed"):
    words = [word for parameter in parameters for word in ("-p", parameter)]
    if expect == "Completed":
        output = service.prefect("deployment", "run", name, "--watch", *words)
        assert "finished successfully" in output
        return output
    from flows.errors import WorkError

    with pytest.raises(WorkError, match=expect):
        service.prefect("deployment", "run", name, "--watch", *words)
    return ""


def reelstore(service, *words):
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "--json", *words],
        env=service.environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_the_file_and_the_contract_name_the_same_deployments():
    assert set(read_file().deployments) == set(DEPLOYMENTS)


def test_deploy_registers_everything_and_is_idempotent(service):
    first = reelstore(service, "deploy")
    assert {f"create deployment {name}" for name in DEPLOYMENTS} <= set(first["changes"])
    assert reelstore(service, "deploy", "--dry-run") == {"changes": [], "cleared": [], "dry_run": True}
    listed = service.prefect("deployment", "ls")
    for name in DEPLOYMENTS:
        assert name in listed


def test_extract_microlens_fills_the_stores_from_a_site(service):
    run(
        service,
        "extract-microlens/extract-microlens",
        "variant=50k",
        f"source={service.site}",
        "checkpoint=tiny",
        'features=["videomae", "bert", "roberta", "vit"]',
    )
    stores = service.settings.stores / "microlens-50k"
    snapshot = FeatureStore.open(stores / "videomae").latest()
    assert snapshot.version == 1
    assert snapshot.rows > 20
    assert snapshot.spec["checkpoint"]["toy"] is True
    assert FeatureStore.open(stores / "bert").latest().rows >= snapshot.rows
    assert {"frames", "embedding"} <= set(snapshot.columns)


def test_the_short_name_works_from_the_repository_root_and_changes_nothing(service):
    output = run(
        service,
        "extract-microlens",  # after the option --watch or before it, see test_prefect_plugin
        "variant=50k",
        f"source={service.site}",
        "checkpoint=tiny",
        'features=["videomae", "bert"]',
    )
    assert "extract-microlens/extract-microlens" in output
    assert FeatureStore.open(service.settings.stores / "microlens-50k" / "videomae").versions() == [1]


def test_a_parameter_out_of_range_is_refused_before_anything_runs(service):
    run(service, "extract-microlens/extract-microlens", "limit=0", expect="limit")
    run(service, "extract-microlens/extract-microlens", "variant=70k", expect="variant")


def test_prepare_dataset(service):
    run(service, "prepare-dataset/prepare-dataset", "dataset=amazon-gift-cards", f"source={GIFT_CARDS}")
    manifest = json.loads((service.settings.prepared("amazon-gift-cards") / "manifest.json").read_text())
    assert manifest["stats"]["interactions"] == 2941
    assert manifest["stats"]["users"] == 453
    assert manifest["stats"]["items"] == 147


def test_extract_amazon(service):
    run(
        service,
        "extract-amazon/extract-amazon",
        "category=gift-cards",
        f"source={GIFT_CARDS}",
        "checkpoint=tiny",
        'features=["roberta"]',
    )
    assert FeatureStore.open(service.settings.stores / "amazon-gift-cards" / "roberta").latest().rows == 147


def test_extract_shortvideo(service, tmp_path):
    folder = write_shortvideo(tmp_path / "shortvideo", service)
    run(
        service,
        "extract-shortvideo/extract-shortvideo",
        f"source={folder}",
        "checkpoint=tiny",
        'features=["bert"]',
    )
    assert FeatureStore.open(service.settings.stores / "shortvideo" / "bert").latest().rows == 6


@pytest.mark.parametrize("model", ["mealrec", "imecd", "dimerec"])
def test_training(service, model):
    run(service, f"train-{model}/train-{model}", f"experiment={model}-microlens-50k")
    records = list(service.settings.runs.glob(f"{model}-microlens-50k-*/record.json"))
    assert len(records) == 1
    record = json.loads(records[0].read_text())
    assert set(record["metrics"]) == {"valid", "test"}
    assert (records[0].parent / "ranks.parquet").is_file()


def test_a_training_flow_refuses_an_experiment_of_another_model(service):
    run(service, "train-imecd/train-imecd", "experiment=mealrec-microlens-50k", expect="Failed")


def test_a_crash_that_is_none_starts_nothing_again(service):
    (trained,) = ask(service.url, "/flow_runs/filter", flows={"name": {"any_": ["train-dimerec"]}})
    run(service, "rerun-crashed/rerun-crashed", f"flow_run_id={trained['id']}")
    assert flow_run_states(service, "train-dimerec") == ["COMPLETED"]


def test_pipeline(service):
    run(
        service,
        "pipeline/pipeline",
        "dataset=microlens-50k",
        f"source={service.site}",
        "checkpoint=tiny",
        'features=["videomae", "bert"]',
        'experiments=["sasrec-microlens-50k", "mealrec-microlens-50k"]',
    )
    summary = json.loads((service.settings.root / "pipelines" / "microlens-50k.json").read_text())
    assert sum(row["encoded"] for row in summary["extracted"]) == 0
    assert [row["fresh"] for row in summary["runs"]] == [True, False]
    assert Path(summary["report"]).stat().st_size > 10_000


def test_freshness_and_garbage_collection(service):
    run(service, "check-freshness/check-freshness", "max_age_days=1")
    run(service, "gc-stores/gc-stores", "keep=1", "grace=0s", "apply=true")
    for feature in ("videomae", "bert"):
        store = FeatureStore.open(service.settings.stores / "microlens-50k" / feature)
        assert store.verify() == []
        assert store.latest().rows > 0


def test_reconcile_starts_the_trainings_whose_inputs_moved_on(service):
    """A training that ran on an older dataset is started again by itself; the worker then makes the new run."""
    run(service, "extract-microlens/extract-microlens", "variant=50k", f"source={service.site}", "checkpoint=tiny",
        'features=["videomae", "bert", "roberta", "vit"]', 'prepare={"k_user": 5, "k_item": 5}')  # fmt: skip
    run(service, "reconcile/reconcile", "dry_run=true")
    assert flow_run_states(service, "train-dimerec") == ["COMPLETED"]
    run(service, "reconcile/reconcile")
    deadline = time.monotonic() + 400
    while flow_run_states(service, "train-dimerec") != ["COMPLETED", "COMPLETED"] and time.monotonic() < deadline:
        time.sleep(1)
    assert flow_run_states(service, "train-dimerec") == ["COMPLETED", "COMPLETED"]
    assert len(list(service.settings.runs.glob("dimerec-microlens-50k-*/record.json"))) == 2


def flow_run_states(service, flow):
    """States of all runs of a flow, as the server's API tells them."""
    runs = ask(service.url, "/flow_runs/filter", flows={"name": {"any_": [flow]}})
    return sorted(run["state_type"] for run in runs)


def write_shortvideo(folder, service):
    """Twelve rows of the published column names: two users, six videos."""
    from datasets_spec.sources import shortvideo

    assert "shortvideo" in shortvideo.NAMES
    folder.mkdir(parents=True)
    header = "user_id,pid,exposed_time,watch_time,title,category_level,category_id,duration,tag_name"
    rows = [
        f"{user},{8400 + item},{1663286400 + 60 * item},{5 + item},funny cats number {item},1,3,{10 + item},tag"
        for user in range(6)
        for item in range(6)
    ]
    (folder / "interaction.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder
