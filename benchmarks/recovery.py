"""How soon an installation reacts: a commit to the training it starts, and a lost machine to the run that goes on.

A server, workers and what ``reelstore deploy`` registers are started as in an installation, with the settings that are
shipped; only the worker's poll can be chosen.

* ``event``: a small MicroLens-shaped site is extracted; the time from each store's commit event to the moment when the
  training that it starts is Running.
* ``lost``: in the middle of an extraction its worker and all processes of its run are killed with SIGKILL, as when a
  machine is gone; the time until the run is Crashed, and until the run that takes its place has completed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

from datasets_spec.synthetic.site import write_site
from flows.local_server import environment, running_server, stop
from flows.names import HEARTBEAT_PATIENCE_SECONDS, HEARTBEAT_SECONDS, WORK_POOL
from flows.settings import REPOSITORY

EXTRACT, TRAIN = "extract-microlens", "train-mealrec"
COMMITTED = "featurestore.materialized"

Found = TypeVar("Found")


class Installation:
    """What runs, through plain HTTP."""

    def __init__(self, home: Path, url: str, variables: dict[str, str]) -> None:
        self.home, self.url, self.variables = home, url, variables
        self.api = httpx.Client(base_url=url, timeout=60)

    def deploy(self) -> None:
        """``reelstore deploy``."""
        command = [sys.executable, "-m", "flows.cli", "deploy"]
        values = environment(self.home, self.url, self.variables)
        subprocess.run(command, cwd=REPOSITORY, env=values, stdout=subprocess.DEVNULL, check=True)

    @contextlib.contextmanager
    def workers(self, number: int) -> Generator[list[subprocess.Popen[bytes]]]:
        """Workers that take one run at a time, as in the compose file."""
        words = ["worker", "start", "--pool", WORK_POOL, "--type", "process", "--limit", "1"]
        command = [sys.executable, "-m", "prefect", *words, "--install-policy", "never"]
        values = environment(self.home, self.url, self.variables)
        with (self.home / "worker.log").open("ab") as log:
            started = [
                subprocess.Popen(command, cwd=REPOSITORY, env=values, stdout=log, stderr=log) for _ in range(number)
            ]
            try:
                yield started
            finally:
                for worker in started:
                    stop(worker)

    def ask(self, path: str, **body: Any) -> Any:
        """POST, again while SQLite is locked."""
        for _ in range(60):
            answer = self.api.post(path, json=body)
            if answer.status_code != 503:
                return answer.raise_for_status().json()
            time.sleep(1)
        raise SystemExit(f"{path}: the database stays locked")

    def extract(self, site: Path, **options: Any) -> str:
        """Start the extraction of both features that the training reads; returns the run's id."""
        deployment = self.api.get(f"/deployments/name/{EXTRACT}/{EXTRACT}").raise_for_status().json()["id"]
        parameters = {"source": str(site), "checkpoint": "tiny", "prepare": {"k_user": 1, "k_item": 1}}
        body = {**parameters, "features": ["videomae", "bert"], "options": options}
        return self.ask(f"/deployments/{deployment}/create_flow_run", parameters=body)["id"]

    def runs(self, flow: str) -> list[dict[str, Any]]:
        """Runs of a flow."""
        return self.ask("/flow_runs/filter", flows={"name": {"any_": [flow]}}, sort="START_TIME_ASC", limit=200)

    def commits(self) -> list[datetime]:
        """When stores were committed to."""
        asked = {"event": {"name": [COMMITTED]}, "occurred": {"since": "2020-01-01T00:00:00Z"}}
        events = self.ask("/events/filter", filter=asked)["events"]
        return sorted(datetime.fromisoformat(event["occurred"]) for event in events)


def until(found: Callable[[], Found], what: str, *, seconds: float = 600.0) -> Found:
    """What a function returns once it is true."""
    end = time.monotonic() + seconds
    while not (value := found()):
        if time.monotonic() > end:
            raise SystemExit(f"no {what} after {seconds:.0f} s")
        time.sleep(0.2)
    return value


def state(place: Installation, run: str) -> str:
    """Name of a run's state."""
    return str(place.api.get(f"/flow_runs/{run}").raise_for_status().json()["state_name"])


def begun(place: Installation) -> list[datetime]:
    """When trainings were Running."""
    return sorted(datetime.fromisoformat(one["start_time"]) for one in place.runs(TRAIN) if one["start_time"])


def event(place: Installation, site: Path) -> None:
    """Print the seconds from each commit to the training it starts."""
    with place.workers(2):
        run = place.extract(site)
        until(lambda: state(place, run) == "Completed", "end of the extraction")
        commits = place.commits()
        until(lambda: len(begun(place)) >= len(commits), "training")
        times = begun(place)
    waits = [(begin - commit).total_seconds() for commit, begin in zip(commits, times, strict=True)]
    shown = ", ".join(f"{wait:.1f}" for wait in waits)
    print(f"commit to training Running: median {statistics.median(waits):.1f} s ({shown})")


def lost(place: Installation, site: Path, root: Path) -> None:
    """Print the seconds from the loss of a machine to Crashed, and to the end of the run that takes over."""
    shards = root / "stores" / "microlens-50k" / "videomae" / "shards"
    with place.workers(1) as (worker,):
        run = place.extract(site, task_size=2)
        until(lambda: len(list(shards.glob("*.parquet"))) >= 2, "shard")
        processes = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]
        before = len(list(shards.glob("*.parquet")))
        for process in processes:
            process.kill()
        killed = datetime.now(UTC)
        worker.wait()
    with place.workers(1):
        until(lambda: state(place, run) == "Crashed", "Crashed")
        crashed = (datetime.now(UTC) - killed).total_seconds()
        until(lambda: any(one["state_name"] == "Completed" for one in place.runs(EXTRACT)), "second attempt")
        done = (datetime.now(UTC) - killed).total_seconds()
    print(
        f"lost machine: Crashed after {crashed:.1f} s (a sign of life every {HEARTBEAT_SECONDS} s, patience "
        f"{HEARTBEAT_PATIENCE_SECONDS} s), all done after {done:.1f} s; {before} shards were there before"
    )


def main() -> None:
    """Start everything and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["event", "lost"])
    parser.add_argument("--poll", type=float, default=2.0, help="seconds between a worker's polls; the compose file: 2")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home, site = Path(folder) / "prefect", Path(folder) / "site"
        write_site(site, users=160, items=40, topics=4, seed=1)
        for name, measure in (("event", event), ("lost", lost)):
            if options.only in (None, name):
                root = Path(folder) / name
                variables = {"REELSTORE_ROOT": str(root), "PREFECT_WORKER_QUERY_SECONDS": str(options.poll)}
                with running_server(home / name, automations=True) as url:
                    place = Installation(home / name, url, variables)
                    place.deploy()
                    print(f"load {os.getloadavg()[0]:.1f}, poll every {options.poll:g} s")
                    measure(place, site, *([root] if name == "lost" else []))


if __name__ == "__main__":
    main()
