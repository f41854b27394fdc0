"""``reelstore demo``: the whole pipeline through a local Prefect server and a process worker, on generated data.

Everything lies below the root: the server's database in ``.prefect``, the generated site in ``raw/synthetic``. No
network is used beyond the loopback interface. A second call finds the finished stores and runs and repeats nothing.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

from flows.commands.outcome import Outcome, table
from flows.errors import WorkError
from flows.jobs.summary import read_summary
from flows.local_server import environment, prefect, running_server, running_worker
from flows.settings import Settings

DATASET = "synthetic"
#: What is trained, what takes longest first, and with how many seeds: SASRec and MealRec are compared over paired ones
#: (more of them, and their ablations: `reelstore study three-models`).
TRAINED = {
    "mealrec-synthetic": 2,
    "imecd-synthetic": 1,
    "dimerec-synthetic": 1,
    "sasrec-synthetic": 2,
    "popularity-synthetic": 1,
}
POLL_SECONDS = 1.0
NOTICE = (
    "NOTE: the encoders are seeded toy checkpoints of the true architectures (no weights can be assumed offline);\n"
    "      the pipeline is real, the numbers say nothing about real data."
)


def run_demo(settings: Settings, *, port: int) -> Outcome:
    """Start a server and a worker, deploy, run ``pipeline/pipeline`` and wait for it.

    Args:
        settings: Places; everything is written below ``settings.root``.
        port: Port of the server; 0 takes a free one.

    Raises:
        WorkError: When the flow run does not complete.
    """
    home = settings.root / ".prefect"
    started = time.monotonic()
    _say(NOTICE)
    with running_server(home, port=port) as url:
        _say(f"Prefect server at {url.removesuffix('/api')} (SQLite in {home})")
        _deploy(home, url)
        parameters = {
            "dataset": DATASET,
            "checkpoint": "tiny",
            "experiments": list(TRAINED),
            "repeats": TRAINED,
            "train_workers": min(4, os.cpu_count() or 1),
        }
        worker_environment = {"REELSTORE_ROOT": str(settings.root), "REELSTORE_CONFIGS": str(settings.configs)}
        with running_worker(home, url, extra=worker_environment):
            _say("worker started; running the deployment pipeline/pipeline")
            run = asyncio.run(_run_deployment(home, url, parameters))
    result = {**run, **read_summary(settings, DATASET)}
    result["seconds"] = round(time.monotonic() - started, 1)
    return Outcome(result, _summary(result))


def _deploy(home: Path, url: str) -> None:
    os.environ.update({key: value for key, value in environment(home, url).items() if key.startswith("PREFECT_")})
    from flows import deploy

    changes, _ = deploy.run(dry_run=False)
    _say(f"deployed: {len(changes)} changes" if changes else "deployments are up to date")


async def _run_deployment(home: Path, url: str, parameters: dict[str, Any]) -> dict[str, Any]:
    from prefect.client.orchestration import get_client

    async with get_client() as client:
        deployment = await client.read_deployment_by_name("pipeline/pipeline")
        run = await client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
        while True:
            run = await client.read_flow_run(run.id)
            if run.state is not None and run.state.is_final():
                break
            await asyncio.sleep(POLL_SECONDS)
    if not run.state.is_completed():
        log = prefect(["flow-run", "logs", str(run.id)], home=home, url=url)
        raise WorkError(f"the flow run {run.name} ended as {run.state.name}: {run.state.message}\n{log[-6000:]}")
    return {"flow_run": run.name}


def _summary(result: dict[str, Any]) -> str:
    features = [
        [row["feature"], row["encoded"], row["reused"], row["failed"] + row["known_bad"], f"v{row['version']}"]
        for row in result["extracted"]
    ]
    runs = [
        [run["run_id"], run["hr@10"], run["ndcg@10"], "trained" if run["fresh"] else "kept"] for run in result["runs"]
    ]
    encoded = sum(row["encoded"] for row in result["extracted"])
    trained = sum(run["fresh"] for run in result["runs"])
    verdict = (
        f"{encoded} items were encoded and {trained} runs trained"
        if encoded or trained
        else "nothing changed since the last call: no item was encoded again and no run was trained again"
    )
    return "\n\n".join(
        (
            table(("feature", "encoded", "reused", "quarantined", "version"), features),
            table(("run", "test HR@10", "test NDCG@10", ""), runs),
            f"{verdict}; {result['seconds']:.0f} s in all",
            NOTICE,
            f"report: {result['report']}",
        )
    )


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
