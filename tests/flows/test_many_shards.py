"""A thousand shard tasks in one flow on a real server: none is lost, and the flow's process does not grow with them."""

import csv
import threading

import psutil
import pytest
from prefect import flow
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_EPHEMERAL_ENABLED, temporary_settings

from feature_store import FeatureStore
from flows import settings
from flows.extract import extract_dataset
from flows.jobs.prepare import prepare_dataset

pytestmark = [pytest.mark.timeout(1800), pytest.mark.slow]

SHARDS = 1_000
WARM = 100  # shards after which models are loaded and every module is imported


@flow(name="extract-a-thousand-shards")
def extract():
    # The words of the small checkpoint do not tell the numbers of the titles apart.
    options = {"checkpoint": "tiny", "task_size": 1, "gates.max_suspicious_duplicates": 1.0}
    return extract_dataset("microlens-50k", features=["glove"], options=options)


class Growth(threading.Thread):
    """Samples this process's resident memory from the WARM-th shard on."""

    def __init__(self, shards):
        super().__init__(daemon=True)
        self.shards, self.done = shards, threading.Event()
        self.sizes = []

    def run(self):
        process = psutil.Process()
        while not self.done.wait(0.25):
            if len(list(self.shards.glob("*.parquet"))) >= WARM:
                self.sizes.append(process.memory_info().rss)


@pytest.fixture
def titles(tmp_path):
    """MicroLens tables without videos: 1,000 different titles and 100 users."""
    folder = tmp_path / "titles"
    folder.mkdir()
    with (folder / "MicroLens-50k_titles.csv").open("w", newline="") as sink:
        csv.writer(sink).writerows([["item", "title"], *([item, f"the clip {item}"] for item in range(1, SHARDS + 1))])
    with (folder / "MicroLens-50k_pairs.csv").open("w", newline="") as sink:
        pairs = [[(item - 1) // 10 + 1, item, 1_600_000_000_000 + item] for item in range(1, SHARDS + 1)]
        csv.writer(sink).writerows([["user", "item", "timestamp"], *pairs])
    return folder


def test_a_thousand_shards_do_not_let_a_flow_grow(automatic_server, titles, tmp_path, monkeypatch):
    monkeypatch.setenv("REELSTORE_ROOT", str(tmp_path / "data"))
    prepare = {"source": str(titles), "k_user": 1, "k_item": 1, "media": ""}
    prepare_dataset(settings.load(), "microlens-50k", prepare)
    store = settings.load().stores / "microlens-50k" / "glove"
    growth = Growth(store / "shards")
    growth.start()
    with temporary_settings({PREFECT_API_URL: automatic_server, PREFECT_SERVER_EPHEMERAL_ENABLED: False}):
        (report,) = extract()
    growth.done.set()
    growth.join()
    assert (report["encoded"], FeatureStore.open(store).latest().rows) == (SHARDS, SHARDS)
    assert len(list((store / "shards").glob("*.parquet"))) == SHARDS
    assert len(growth.sizes) > 10
    assert max(growth.sizes) - growth.sizes[0] < 100 * 2**20
