"""Start a crashed run again: the same deployment and parameters, a bounded number of times."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType

from flows.names import ATTEMPT_TAG

MAX_ATTEMPTS = 3

_UNFINISHED = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING]


@dataclass(frozen=True)
class Rerun:
    """What became of a crashed run: ``flow_run`` is the new run, None where none was started."""

    attempt: int
    flow_run: UUID | None
    reason: str


async def rerun(client: PrefectClient, flow_run_id: UUID) -> Rerun:
    """Start a run again unless it is no longer crashed, had its attempts, or a newer one does its work.

    Another call for the same run gives the same new run.

    Args:
        client: A client of the server.
        flow_run_id: The crashed run.
    """
    crashed = await client.read_flow_run(flow_run_id)
    attempt = attempt_of(crashed.tags)
    if crashed.state_type is not StateType.CRASHED:
        return Rerun(attempt, None, f"it is {crashed.state_name}, not Crashed")
    if crashed.deployment_id is None:
        return Rerun(attempt, None, "it belongs to no deployment")
    if attempt >= MAX_ATTEMPTS:
        return Rerun(attempt, None, f"attempt {attempt} of {MAX_ATTEMPTS} was the last")
    newer = await unfinished_runs(client, crashed.deployment_id, like=crashed)
    if newer:
        return Rerun(attempt, None, f"the newer run {newer[0].name} does the same work")
    tags = [tag for tag in crashed.tags if not tag.startswith(ATTEMPT_TAG)]
    started = await client.create_flow_run_from_deployment(
        crashed.deployment_id,
        parameters=crashed.parameters,
        tags=[*tags, f"{ATTEMPT_TAG}{attempt + 1}"],
        idempotency_key=f"rerun-{crashed.id}",
    )
    return Rerun(attempt + 1, started.id, f"attempt {attempt + 1} of {MAX_ATTEMPTS}")


def attempt_of(tags: list[str]) -> int:
    """The number of the attempt that a run's tags name; 1 for a run that was not started again."""
    numbers = [tag.removeprefix(ATTEMPT_TAG) for tag in tags if tag.startswith(ATTEMPT_TAG)]
    return max((int(number) for number in numbers if number.isdecimal()), default=1)


async def unfinished_runs(client: PrefectClient, deployment_id: UUID, *, like: FlowRun | None = None) -> list[FlowRun]:
    """Runs of a deployment that are running or due.

    Args:
        client: A client of the server.
        deployment_id: The deployment. Runs that its schedule made for later do not count.
        like: Only runs with this run's parameters that were made after it: others do other work.
    """
    found = await client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_UNFINISHED))),
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id])),
    )
    now = datetime.now(UTC)
    due = [run for run in found if run.state_type is not StateType.SCHEDULED or _start(run) <= now]
    if like is None:
        return due
    return [run for run in due if run.parameters == like.parameters and _made(run) > _made(like)]


def _start(run: FlowRun) -> datetime:
    return run.next_scheduled_start_time or run.expected_start_time or _made(run)


def _made(run: FlowRun) -> datetime:
    return run.created or datetime.min.replace(tzinfo=UTC)
