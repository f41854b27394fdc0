"""Shards in the processes of real Ray and Dask clusters of two workers on this machine."""

import os
import re
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
import ray
from distributed import LocalCluster
from prefect import flow
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_EPHEMERAL_ENABLED, temporary_settings
from prefect_api import ask

from feature_store import FeatureStore
from flows import settings
from flows.extract import Fleet, extract_dataset
from flows.jobs.prepare import prepare_dataset
from flows.settings import REPOSITORY

SHARED = Path(os.environ.get("REELSTORE_SHARED", REPOSITORY.parent / "shared"))
GIFT_CARDS = SHARED / "data" / "amazon_v2_gift_cards"
ITEMS, SIZE = 147, 16  # 10 shards

# Ray itself leaves a file open that it warns about when its driver ends.
pytestmark = [pytest.mark.timeout(1800), pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture(params=["ray", "dask"])
def cluster(request, tmp_path, monkeypatch):
    """Two worker processes; Ray keeps its token in the home folder, which here is the test's own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("REELSTORE_ROOT", str(tmp_path / "data"))
    if request.param == "ray":
        monkeypatch.setenv("RAY_worker_niceness", "0")  # at Ray's 15 they starve beside other tests
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield "ray"
        ray.shutdown()
        return
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        monkeypatch.setenv("DASK_ADDRESS", cluster.scheduler_address)
        yield "dask"


@flow
def extract(cluster):
    options = {"checkpoint": "tiny", "task_size": SIZE}
    return extract_dataset("amazon-gift-cards", features=["bert"], options=options, fleet=Fleet(task_runner=cluster))


def test_two_processes_encode_the_shards(automatic_server, cluster):
    prepare_dataset(settings.load(), "amazon-gift-cards", {"source": str(GIFT_CARDS)})
    begun = datetime.now(UTC).isoformat()
    with temporary_settings({PREFECT_API_URL: automatic_server, PREFECT_SERVER_EPHEMERAL_ENABLED: False}):
        (report,) = extract(cluster)
    assert (report["encoded"], report["failed"], report["version"]) == (ITEMS, 0, 1)
    store = settings.load().stores / "amazon-gift-cards" / "bert"
    rows = pl.concat([pl.read_parquet(file) for file in (store / "shards").glob("*.parquet")])
    assert Counter(rows["item_id"].to_list()).most_common(1)[0][1] == 1
    assert FeatureStore.open(store).latest().rows == len(rows) == ITEMS

    def processes():
        body = {"sort": "TIMESTAMP_DESC", "logs": {"level": {"ge_": 20}, "timestamp": {"after_": begun}}}
        logs = ask(automatic_server, "/logs/filter", **body)
        return {found[1] for log in logs if (found := re.search(r"items, in process (\d+) on", log["message"]))}

    end = time.monotonic() + 240  # logs reach the server a little later
    while len(processes()) < 2 and time.monotonic() < end:
        time.sleep(0.5)
    assert len(processes()) == 2
    assert str(os.getpid()) not in processes()
