"""What is left when the flow's process, the worker or both are killed, or the run is cancelled, amid an extraction.

A real server with its automations, real process workers. The videos are encoded two at a time, so that there are many
shards to be killed between; a dead run is noticed after 35 s here, of heartbeats every 30 s.
"""

import contextlib
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import polars as pl
import psutil
import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_EPHEMERAL_ENABLED, temporary_settings
from prefect_api import client, notice_dead_runs, train_nothing
from services import wait_until

from feature_store import FeatureStore
from flows import deploy
from flows.jobs.file_lock import FileLock
from flows.local_server import environment, running_server, stop
from flows.settings import REPOSITORY, Settings

pytestmark = [pytest.mark.timeout(1200), pytest.mark.slow]

NAME = "extract-microlens"
ENDED = {"Completed", "Failed", "Crashed", "Cancelled"}


@dataclass
class Installation:
    """A server on which everything is deployed; workers are started by the tests."""

    url: str
    home: Path
    settings: Settings
    site: str
    api: httpx.Client
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def store(self) -> Path:
        return self.settings.stores / "microlens-50k" / "videomae"

    def worker(self) -> subprocess.Popen[bytes]:
        """A worker as an installation has it, with a shorter poll."""
        variables = {
            "REELSTORE_ROOT": str(self.settings.root),
            "REELSTORE_WORKERS": "1",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
        }
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "reelstore", "--type", "process",
                   "--limit", "1", "--install-policy", "never"]  # fmt: skip
        with (self.home / "workers.log").open("ab") as log:
            values = environment(self.home, self.url, variables)
            worker = subprocess.Popen(command, cwd=REPOSITORY, env=values, stdout=log, stderr=log)
        self.workers.append(worker)
        return worker

    def start(self, **options) -> str:
        """Ask for an extraction; returns the id of the run."""
        parameters = {
            "source": self.site, "checkpoint": "tiny", "features": ["videomae"], "prepare": {"k_user": 1, "k_item": 1},
            "options": {"task_size": 2, **options},
        }  # fmt: skip
        deployment = self.api.get(f"/deployments/name/{NAME}/{NAME}").raise_for_status().json()["id"]
        answer = self.api.post(f"/deployments/{deployment}/create_flow_run", json={"parameters": parameters})
        return answer.raise_for_status().json()["id"]

    def state(self, run: str) -> str:
        return self.api.get(f"/flow_runs/{run}").raise_for_status().json()["state_name"]

    def runs(self, **wanted) -> dict[str, str]:
        """Name of the state by id, of all runs of the flows ``wanted``."""
        answer = self.api.post("/flow_runs/filter", json=wanted)
        return {run["id"]: run["state_name"] for run in answer.raise_for_status().json()}

    def extractions(self) -> dict[str, str]:
        return self.runs(flows={"name": {"any_": [NAME]}})

    def clear(self) -> None:
        """End the workers and what they started, and forget the runs that are not at their end."""
        for worker in self.workers:
            started = psutil.Process(worker.pid).children(recursive=True) if worker.poll() is None else []
            stop(worker)
            for process in started:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        self.workers.clear()
        for run, state in self.runs().items():
            if state not in ENDED:
                self.api.delete(f"/flow_runs/{run}").raise_for_status()


@pytest.fixture(scope="module")
def installation(tmp_path_factory, site):
    base = tmp_path_factory.mktemp("killed")
    settings = Settings(root=base / "data", workers=1)
    with (
        running_server(base / "prefect", automations=True) as url,
        temporary_settings({PREFECT_API_URL: url, PREFECT_SERVER_EPHEMERAL_ENABLED: False}),
        client(url) as api,
    ):
        deploy.run(dry_run=False, settings=settings)
        train_nothing(api)
        notice_dead_runs(api, after_seconds=35)
        yield Installation(url, base / "prefect", settings, site, api)


@pytest.fixture
def place(installation):
    """No stores yet; nothing of this test is left for the next one, however it ended."""
    shutil.rmtree(installation.settings.stores, ignore_errors=True)
    yield installation
    installation.clear()


def shards(place):
    return list((place.store / "shards").glob("*.parquet"))


def flow_process(worker):
    """The process of the run that the worker has under way."""
    (found,) = (child for child in psutil.Process(worker.pid).children() if "prefect.engine" in child.cmdline())
    return found


def amid_the_extraction(place, worker):
    """Wait for the first shards; returns the flow's process."""
    wait_until(lambda: len(shards(place)) >= 2, "two shards are written", pause_seconds=0.05)
    return flow_process(worker)


def everything_is_there_once(place):
    store = FeatureStore.open(place.store)
    assert store.verify() == []
    encoded = Counter(pl.concat(pl.read_parquet(path, columns=["item_id"]) for path in shards(place))["item_id"])
    assert set(encoded.values()) == {1}  # nothing was encoded twice
    assert store.latest().rows == len(encoded)
    items = pl.read_parquet(place.settings.prepared("microlens-50k") / "items.parquet")
    assert len(encoded) + store.quarantined().height == items["video"].count() > 30
    return len(encoded)


def completed_since(place, known):
    """Whether a run that is not among the ``known`` ones is done."""
    return "Completed" in {state for run, state in place.extractions().items() if run not in known}


def test_a_killed_flow_is_run_again_and_encodes_the_rest(place):
    known = place.extractions()
    worker = place.worker()
    run = place.start()
    amid_the_extraction(place, worker).kill()
    before = len(shards(place))
    wait_until(lambda: place.state(run) == "Crashed", "the run is known to be dead")
    wait_until(lambda: completed_since(place, known), "a second attempt is completed")
    assert everything_is_there_once(place) > 2 * before


def test_a_killed_worker_takes_nothing_with_it(place):
    worker = place.worker()
    run = place.start()
    flow = amid_the_extraction(place, worker)
    worker.kill()
    wait_until(lambda: place.state(run) == "Completed", "the run ends")
    flow.wait(120)
    everything_is_there_once(place)


def test_a_lost_machine_is_noticed_and_another_worker_goes_on(place):
    known = place.extractions()
    worker = place.worker()
    run = place.start()
    flow = amid_the_extraction(place, worker)
    for process in (worker, flow, *flow.children(recursive=True)):
        process.kill()
    worker.wait()
    place.worker()
    wait_until(lambda: place.state(run) == "Crashed", "the run is known to be dead")
    wait_until(lambda: completed_since(place, known), "a second attempt is completed")
    everything_is_there_once(place)


def test_a_cancelled_run_ends_its_decoders_and_frees_the_device(place, tmp_path):
    worker = place.worker()
    run = place.start(device_lock=True, lock_folder=str(tmp_path))
    flow = amid_the_extraction(place, worker)
    decoders = flow.children(recursive=True)
    assert decoders
    (lock,) = tmp_path.glob("*.lock")
    assert not FileLock(lock).acquire()
    for decoder in decoders:
        decoder.suspend()  # else all could be done before the worker hears of it
    body = {"state": {"type": "CANCELLING", "name": "Cancelling"}, "force": True}
    place.api.post(f"/flow_runs/{run}/set_state", json=body).raise_for_status()
    wait_until(lambda: place.state(run) == "Cancelled", "the run ends")
    assert psutil.wait_procs([flow, *decoders], timeout=120)[1] == []
    assert FileLock(lock).acquire()
    committed = (place.store / "manifests").glob("*.json")
    assert list(committed) == []  # nothing half-done is visible
