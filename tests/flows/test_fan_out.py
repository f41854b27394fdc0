"""Two real workers on one extraction: each does some of the shards, none is done twice, one commit."""

import os
from collections import Counter
from pathlib import Path

import polars as pl
import prefect_api
import pytest
from services import wait_until

from feature_store import FeatureStore
from flows.jobs.claims import Claims
from flows.jobs.file_lock import FileLock
from flows.local_server import running_worker
from flows.settings import REPOSITORY

SHARED = Path(os.environ.get("REELSTORE_SHARED", REPOSITORY.parent / "shared"))
GIFT_CARDS = SHARED / "data" / "amazon_v2_gift_cards"
ITEMS, SIZE = 147, 8  # 19 shards
SHARDS = 19

DEPLOYMENTS = """
deployments:
  - name: fan-out
    entrypoint: flows/extract.py:extract_amazon
    work_pool: {name: reelstore}
  - name: encode-shards
    entrypoint: flows/extract.py:encode_shards
    work_pool: {name: reelstore}
"""

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]


def ask(service, what, **body):
    return prefect_api.ask(service.url, f"/{what}/filter", **body)


def runs_of(service, flow):
    return ask(service, "flow_runs", flows={"name": {"any_": [flow]}}, sort="START_TIME_DESC")


def start(service, **parameters):
    words = [word for key, value in parameters.items() for word in ("-p", f"{key}={value}")]
    service.prefect("deployment", "run", "extract-amazon/fan-out", "--flow-run-name", "parent", *words)


def test_two_workers_share_the_shards_of_one_extraction(service, tmp_path):
    path = tmp_path / "deployments.yaml"
    path.write_text(DEPLOYMENTS)
    service.prefect("--no-prompt", "deploy", "--all", "--prefect-file", str(path))
    stores = service.settings.stores / "amazon-gift-cards"
    Claims(stores, "bert")
    locks = [FileLock(stores / ".claims" / "bert" / f"{number:06}.lock") for number in range(SHARDS)]
    assert all(lock.acquire() for lock in locks)
    with running_worker(service.home, service.url, extra=service.variables, log=tmp_path / "second.log"):
        start(service, category="gift-cards", source=GIFT_CARDS, checkpoint="tiny", features='["bert"]', workers=2,
              options=f'{{"task_size": {SIZE}}}')  # fmt: skip

        def waiting():
            told = ask(service, "logs", logs={"level": {"ge_": 20}}, sort="TIMESTAMP_DESC")
            return len({log["flow_run_id"] for log in told if f"waiting for {SHARDS} shards" in log["message"]})

        try:
            wait_until(lambda: waiting() == 2, "both workers wait for the shards that this test holds")
        finally:
            for lock in locks:
                lock.release()

        def ended():
            runs = [*runs_of(service, "extract-amazon")[:1], *runs_of(service, "encode-shards")[:1]]
            return [run["state_type"] for run in runs] == ["COMPLETED", "COMPLETED"]

        wait_until(ended, "both runs are completed")
    shards = [pl.read_parquet(file) for file in sorted((stores / "bert" / "shards").glob("*.parquet"))]
    assert Counter(pl.concat(shards)["item_id"].to_list()).most_common(1)[0][1] == 1
    assert sum(map(len, shards)) == ITEMS
    snapshot = FeatureStore.open(stores / "bert").latest()
    assert (snapshot.version, snapshot.rows) == (1, ITEMS)

    def encoded(flow):
        tasks = ask(service, "task_runs", flow_runs={"id": {"any_": [runs_of(service, flow)[0]["id"]]}})
        return [task["name"] for task in tasks if task["name"].startswith("bert shard")]

    def by_either():
        return [encoded(flow) for flow in ("extract-amazon", "encode-shards")]

    wait_until(lambda: sum(map(len, by_either())) >= SHARDS, "the server knows of all tasks")  # they arrive as events
    first, second = by_either()
    assert first
    assert second
    assert Counter(first + second) == Counter({f"bert shard {number}": 1 for number in range(SHARDS)})
