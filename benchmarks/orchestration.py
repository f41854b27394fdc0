"""What Prefect costs: an extraction as a flow run against the same work without it, and a run with nothing to do.

A server and a worker of our own are started, and everything goes through them as in an installation.

* ``overhead``: 2,000 made-up videos are prepared and encoded by ``extract-microlens`` and by the same functions in a
  plain process, in turn, each into an empty root. A flow run's time is that from Running to Completed; the plain
  process's is taken from before its imports to its end.
* ``unchanged``: 20,000 titles are extracted once; then the deployment runs again and finds nothing to do.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings

from datasets_spec.synthetic.site import write_site
from flows.local_server import environment, running_server, running_worker
from flows.settings import REPOSITORY

DATASET, FLOW = "microlens-50k", "extract-microlens"
#: Every item stays, whatever the made-up users did.
KEEP_ALL = {"k_user": 1, "k_item": 1}
PLAIN = """
import json, sys, time
begin = time.perf_counter()
from flows import settings
from flows.jobs.extract import extract_features
from flows.jobs.prepare import prepare_dataset
call = json.loads(sys.argv[1])
places = settings.load()
prepare_dataset(places, call["dataset"], {**call["prepare"], "source": call["source"]})
done = extract_features(places, call["dataset"], features=call["features"], overrides=call["options"])
print(json.dumps({"seconds": time.perf_counter() - begin, "encoded": done.reports[0].encoded}))
"""


@dataclass(frozen=True)
class Call:
    """What to extract; the same for the flow and for the plain process."""

    source: Path
    features: list[str]
    prepare: dict[str, Any]
    options: dict[str, Any]

    def parameters(self) -> dict[str, Any]:
        """Of the deployment."""
        return {
            "source": str(self.source), "features": self.features, "checkpoint": "tiny", "prepare": self.prepare,
            "options": self.options,
        }  # fmt: skip

    def plain(self, root: Path) -> dict[str, Any]:
        """Do it without Prefect; returns seconds and encoded items."""
        call = {
            "dataset": DATASET, "source": str(self.source), "features": self.features, "prepare": self.prepare,
            "options": {**self.options, "checkpoint": "tiny"},
        }  # fmt: skip
        command = [sys.executable, "-c", PLAIN, json.dumps(call)]
        variables = {**os.environ, "REELSTORE_ROOT": str(root)}
        done = subprocess.run(command, cwd=REPOSITORY, env=variables, stdout=subprocess.PIPE, check=True)
        return json.loads(done.stdout.splitlines()[-1])


class Installation:
    """A server, a worker and what is deployed; ``root`` is emptied between extractions."""

    def __init__(self, client: SyncPrefectClient, root: Path) -> None:
        self.client, self.root = client, root

    def run(self, parameters: dict[str, Any], *, name: str = FLOW) -> FlowRun:
        """Start a deployment and wait for its end."""
        deployment = self.client.read_deployment_by_name(f"{name}/{name}")
        run = self.client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
        while True:
            run = self.client.read_flow_run(run.id)
            if run.state is not None and run.state.is_final():
                break
            time.sleep(0.5)
        if not run.state.is_completed():
            raise SystemExit(f"{name} ended as {run.state.name}: {run.state.message}")
        return run

    def clear(self) -> None:
        """An empty root."""
        shutil.rmtree(self.root, ignore_errors=True)


def seconds(run: FlowRun) -> float:
    """From Running to the end, without the start of the process."""
    return run.total_run_time.total_seconds()


def waited(run: FlowRun) -> float:
    """From the call to Running: the worker's poll, a process, the imports."""
    assert run.start_time is not None
    assert run.created is not None
    return (run.start_time - run.created).total_seconds()


def overhead(place: Installation, work: Path, items: int, rounds: int) -> None:
    """Print the ratio of the flow's time to the plain one's."""
    site = work / f"site-{items}"
    write_site(site, users=items, items=items)
    call = Call(site, ["videomae"], {**KEEP_ALL, "media": "video"}, {})
    flows, plain, starts = [], [], []
    for number in range(rounds):
        passes: list[Callable[[], None]] = [
            lambda: plain.append(call.plain(place.root)["seconds"]),
            lambda: _add(place.run(call.parameters()), flows, starts),
        ]
        for one in passes if number % 2 == 0 else passes[::-1]:
            place.clear()
            one()
    ratios = [ours / theirs for ours, theirs in zip(flows, plain, strict=True)]
    print(f"{items} videos, {rounds} rounds, load {os.getloadavg()[0]:.1f}")
    print(f"flow run {statistics.median(flows):.1f} s, plain {statistics.median(plain):.1f} s")
    print(f"overhead {statistics.median(ratios) - 1:+.1%} ({', '.join(f'{ratio - 1:+.1%}' for ratio in ratios)})")
    print(f"from the call to Running {statistics.median(starts):.1f} s")


def _add(run: FlowRun, flows: list[float], starts: list[float]) -> None:
    flows.append(seconds(run))
    starts.append(waited(run))


def write_titles(folder: Path, items: int) -> None:
    """MicroLens-50k's tables alone: one user for every ten items."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    words = ["lake", "drum", "bread", "violet", "storm", "paper", "camel", "glass", "train", "amber"]
    with (folder / "MicroLens-50k_titles.csv").open("w", newline="") as sink:
        rows = csv.writer(sink)
        rows.writerow(["item", "title"])
        rows.writerows([item, f"{' '.join(rng.choice(words, 4))} {item}"] for item in range(1, items + 1))
    with (folder / "MicroLens-50k_pairs.csv").open("w", newline="") as sink:
        rows = csv.writer(sink)
        rows.writerow(["user", "item", "timestamp"])
        for start in range(0, items, 10):
            rows.writerows([start // 10 + 1, start + place + 1, 1_600_000_000_000 + place] for place in range(10))


def unchanged(place: Installation, work: Path, items: int, rounds: int) -> None:
    """Print the time of runs that find nothing to do."""
    write_titles(work / "titles", items)
    call = Call(work / "titles", ["bert"], {**KEEP_ALL, "media": ""}, {})
    place.clear()
    first = place.run(call.parameters())
    runs = [place.run(call.parameters()) for _ in range(rounds)]
    print(f"{items} titles: first extraction {seconds(first):.1f} s")
    print(
        f"unchanged: {statistics.median(map(seconds, runs)):.1f} s from Running to Completed, "
        f"{statistics.median(seconds(run) + waited(run) for run in runs):.1f} s from the call"
    )


def main() -> None:
    """Start everything and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=2_000)
    parser.add_argument("--titles", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["overhead", "unchanged"])
    options = parser.parse_args()
    work = REPOSITORY / "data" / "benchmarks" / "orchestration"
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        home, root = Path(folder) / "prefect", Path(folder) / "root"
        variables = {"REELSTORE_ROOT": str(root)}
        with running_server(home) as url, temporary_settings({PREFECT_API_URL: url}):
            deploy = [sys.executable, "-m", "flows.cli", "deploy"]
            subprocess.run(deploy, cwd=REPOSITORY, env=environment(home, url, variables), check=True)
            with running_worker(home, url, extra=variables, log=home / "worker.log"):
                place = Installation(get_client(sync_client=True), root)
                if options.only != "unchanged":
                    overhead(place, work, options.videos, options.rounds)
                if options.only != "overhead":
                    unchanged(place, work, options.titles, options.rounds)


if __name__ == "__main__":
    main()
