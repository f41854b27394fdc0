"""Several workers of one pool on one extraction: start runs that help, and end those that came too late."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator
from typing import TYPE_CHECKING, cast
from uuid import UUID

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Cancelling

from flows.errors import CallError
from flows.jobs.sessions import Job

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

#: Flow and deployment of a run that helps.
HELPER = "encode-shards"


@contextlib.contextmanager
def helpers(job: Job, number: int) -> Generator[None]:
    """Have other workers of the pool help for the time of a block.

    When the block ends, runs that no worker has taken yet are cancelled; those that encode find nothing left and end
    by themselves. When it fails, all are cancelled.

    Args:
        job: What to help with.
        number: How many runs to start.

    Raises:
        CallError: When the deployment of the helpers is not registered.
    """
    started: list[UUID] = []
    try:
        started.extend(_start(job) for _ in range(number))
        yield
    except BaseException:
        _end(started, running=True)
        raise
    _end(started, running=False)


def _start(job: Job) -> UUID:
    parameters = {
        "dataset": job.dataset,
        "features": list(job.features) or None,
        "options": json.loads(job.options),
        "started": job.started,
    }
    try:
        name = f"{HELPER}/{HELPER}"
        run = cast("FlowRun", run_deployment(name, parameters=parameters, timeout=0, as_subflow=True))
    except ObjectNotFound:
        raise CallError(
            f"workers: there is no deployment {HELPER}/{HELPER} to start; `reelstore deploy` registers it"
        ) from None
    get_run_logger().info("asked for help: flow run %s", run.name)
    return run.id


def _end(started: list[UUID], *, running: bool) -> None:
    """Cancel helpers: always those that are only scheduled; with ``running`` also those that are at work."""
    if not started:
        return
    with get_client(sync_client=True) as client:
        for run_id in started:
            state = client.read_flow_run(run_id).state
            if state is None or state.is_final():
                continue
            if state.is_scheduled():
                client.set_flow_run_state(run_id, Cancelled(message="the work was done before a worker was free"))
            elif running:
                client.set_flow_run_state(run_id, Cancelling(message="the run that asked for help has failed"))
