"""What looks after an installation: ages of stores, trainings that are out of date, and one training at a time."""

import gc
import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import numpy as np
import pytest
from prefect_api import client

from feature_store import FeatureShard, FeatureStore
from flows.config import load_experiment
from flows.durations import parse_duration
from flows.errors import CallError
from flows.extract import extract_microlens, extract_shortvideo
from flows.jobs.freshness import Age, ages, refresh_parameters
from flows.jobs.outdated import outdated_experiments
from flows.jobs.pinning import missing_stores
from flows.jobs.prepare import prepare_dataset
from flows.jobs.train import run_experiment
from flows.reconcile import check_freshness, reconcile
from flows.settings import REPOSITORY, Settings
from flows.train import train_mealrec

DATASET = "microlens-50k"

pytestmark = [
    pytest.mark.timeout(600),
    # a flow that runs in this process leaves sockets of Prefect's client to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def _collected():
    """The sockets are closed here, where their warnings are passed over, and not in a test of another file."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def settings(tmp_path_factory, configs, site):
    """A prepared dataset without any store."""
    settings = Settings(root=tmp_path_factory.mktemp("reconcile") / "data", configs=configs, workers=1)
    prepare_dataset(settings, DATASET, {"source": site, "limit": 30, "k_user": 1, "k_item": 1})
    return settings


@pytest.fixture
def environment(settings, monkeypatch):
    monkeypatch.setenv("REELSTORE_ROOT", str(settings.root))
    monkeypatch.setenv("REELSTORE_CONFIGS", str(settings.configs))
    return settings


def experiment(settings, model):
    return load_experiment(settings.configs / "experiments" / f"{model}-{DATASET}.toml", {})


def write_store(settings, dataset, feature, *, toy):
    store = FeatureStore.open(settings.store(dataset, feature), create=True)
    items = {f"i{item}": hashlib.sha256(str(item).encode()).digest() for item in range(4)}
    plan = store.plan({"encoder": feature, "checkpoint": {"toy": toy}}, items)
    values = np.random.default_rng(1).standard_normal((4, 3)).astype(np.float32)
    store.write_shard(FeatureShard(list(items), list(items.values()), values), plan)
    store.commit(plan)


def test_of_two_trainings_at_once_one_trains_and_the_other_returns_what_it_made(settings):
    config = experiment(settings, "sasrec")
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: run_experiment(settings, config), range(2))
    assert sorted([one.fresh, other.fresh]) == [False, True]
    assert one.record == other.record
    assert run_experiment(settings, config).fresh is False


def test_only_what_was_trained_before_is_out_of_date_unless_new_ones_are_asked_for(settings):
    run_experiment(settings, experiment(settings, "sasrec"))
    assert outdated_experiments(settings) == []
    (never,) = outdated_experiments(settings, new=True)  # mealrec and imecd read stores that are not there
    assert (never.name, never.model, never.reason) == (f"dimerec-{DATASET}", "dimerec", "never trained")


def test_reconcile_starts_a_training_once(registered, environment):
    def row(**parameters):
        return next(row for row in call(reconcile(**parameters)) if row["experiment"] == f"dimerec-{DATASET}")

    assert row(new=True, dry_run=True)["flow_run"] is None
    started = row(new=True)["flow_run"]
    with client(registered.url) as api:
        run = api.get(f"/flow_runs/{started}").raise_for_status().json()
    assert run["parameters"]["experiment"] == f"dimerec-{DATASET}"
    again = row(new=True)
    assert (again["flow_run"], again["reason"]) == (None, "never trained; a run of it is under way")


def call(coroutine):
    import asyncio

    return asyncio.run(coroutine)


def test_a_training_that_comes_before_its_stores_waits_for_them(registered, environment):
    assert missing_stores(environment, experiment(environment, "mealrec")) == [f"{DATASET}/bert", f"{DATASET}/videomae"]
    state = train_mealrec(f"mealrec-{DATASET}", return_state=True)
    assert state.is_completed()
    assert state.message == f"waiting for store {DATASET}/bert, {DATASET}/videomae"


def test_stale_stores_are_told_with_what_extracts_them_again(registered, environment):
    write_store(environment, DATASET, "vit", toy=True)
    write_store(environment, "shortvideo", "bert", toy=False)
    rows = check_freshness(max_age_days=1, datasets={DATASET: 1e-9})
    assert {row["store"]: row["stale"] for row in rows} == {f"{DATASET}/vit": True, "shortvideo/bert": False}
    found = ages(environment, 1, {DATASET: 1e-9})
    assert refresh_parameters(environment, [age for age in found if age.stale]) == {
        "variant": "50k", "features": ["vit"], "checkpoint": "tiny", "limit": 30,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("dataset", "variant"),
    [
        ("amazon-2023-all-beauty", "2023-all-beauty"),
        ("amazon-toys", "toys"),
        ("microlens-small", "small"),
        ("shortvideo", "full"),
        ("shortvideo-big", "big"),
    ],
)
def test_a_dataset_that_is_not_cut_and_not_toy_is_extracted_whole(tmp_path, dataset, variant):
    stale = [Age(f"{dataset}/{feature}", 1, 31.0, 30.0, toy=False) for feature in ("vit", "bert")]
    assert refresh_parameters(Settings(root=tmp_path), stale) == {
        "variant": variant, "features": ["bert", "vit"], "checkpoint": None, "limit": None,
    }  # fmt: skip


@pytest.mark.parametrize("flow", [extract_microlens, extract_shortvideo])
def test_the_flow_of_a_family_takes_every_dataset_of_it(tmp_path, flow):
    family = flow.name.removeprefix("extract-")
    datasets = {path.stem for path in (REPOSITORY / "configs" / "datasets").glob(f"{family}*.toml")}
    stale = [Age(f"{dataset}/bert", 1, 31.0, 30.0, toy=False) for dataset in sorted(datasets)]
    variants = [refresh_parameters(Settings(root=tmp_path), [age])["variant"] for age in stale]
    assert sorted(flow.parameters.model_dump()["properties"]["variant"]["enum"]) == sorted(variants)


def test_a_store_is_stale_above_its_limit_and_not_at_it():
    assert Age("a/b", 1, 30.01, 30.0, toy=False).stale
    assert not Age("a/b", 1, 30.0, 30.0, toy=False).stale


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7d", timedelta(days=7)),
        ("12h", timedelta(hours=12)),
        ("1.5m", timedelta(seconds=90)),
        ("0s", timedelta(0)),
    ],
)
def test_durations(text, expected):
    assert parse_duration(text, name="grace") == expected


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "7 d", "7w", "1.d"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(CallError, match="grace: expected a number and d, h, m or s"):
        parse_duration(text, name="grace")
