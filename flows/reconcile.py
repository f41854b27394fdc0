"""The flows that keep an installation going: ``reconcile``, ``check-freshness``, ``gc-stores``, ``rerun-crashed``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.client.orchestration import PrefectClient, get_client
from prefect.events import emit_event
from pydantic import Field

from feature_store import list_stores
from flows import settings as settings_module
from flows.durations import DURATION_PATTERN, parse_duration
from flows.jobs.freshness import ages, refresh_parameters
from flows.jobs.outdated import Outdated, outdated_experiments
from flows.names import DATASET_LABEL, DEPLOYMENTS, STALE_EVENT
from flows.rerun import rerun, unfinished_runs

Days = Annotated[float, Field(gt=0)]


@flow(name="reconcile")
async def reconcile(dry_run: bool = False, new: bool = False) -> list[dict[str, Any]]:  # noqa: FBT001, FBT002 - named
    """Start every training that an event missed: its stores or its dataset are newer than its last run.

    Args:
        dry_run: Only list what would be started.
        new: Also start experiments that never ran and whose inputs are there.
    """
    outdated = outdated_experiments(settings_module.load(), new=new)
    async with get_client() as client:
        rows = [await _start(client, experiment, dry_run=dry_run) for experiment in outdated]
    get_run_logger().info(
        "%d trainings are out of date, %d started", len(rows), sum(row["flow_run"] is not None for row in rows)
    )
    create_table_artifact(key="reconcile", table=rows, description="Trainings whose inputs are newer than their run")
    return rows


async def _start(client: PrefectClient, experiment: Outdated, *, dry_run: bool) -> dict[str, Any]:
    """Start a training, once a day at most for the same inputs: one that fails is not repeated every time."""
    row: dict[str, Any] = {"experiment": experiment.name, "reason": experiment.reason, "flow_run": None}
    name = f"train-{experiment.model}"
    if name not in DEPLOYMENTS:
        return {**row, "reason": f"{experiment.reason}; no deployment trains {experiment.model}"}
    if dry_run:
        return row
    deployment = await client.read_deployment_by_name(f"{name}/{name}")
    running = await unfinished_runs(client, deployment.id)
    if any(run.parameters.get("experiment") == experiment.name for run in running):
        return {**row, "reason": f"{experiment.reason}; a run of it is under way"}
    run = await client.create_flow_run_from_deployment(
        deployment.id,
        parameters={"experiment": experiment.name},
        idempotency_key=f"{experiment.run_id}@{datetime.now(UTC).date()}",
    )
    return {**row, "flow_run": str(run.id)}


@flow(name="check-freshness")
def check_freshness(max_age_days: Days = 30.0, datasets: dict[str, Days] | None = None) -> list[dict[str, Any]]:
    """Say how old every store is and emit ``featurestore.stale`` for those that are too old.

    Args:
        max_age_days: Age above which a store counts as stale.
        datasets: Other limits by dataset, such as ``{"microlens-50k": 7}``.
    """
    settings = settings_module.load()
    found = ages(settings, max_age_days, datasets or {})
    stale = [age for age in found if age.stale]
    for age in stale:
        parameters = refresh_parameters(settings, [other for other in stale if other.dataset == age.dataset])
        resource = {"prefect.resource.id": f"featurestore.{age.dataset}.{age.feature}", DATASET_LABEL: age.dataset}
        emit_event(STALE_EVENT, resource=resource, payload={**age.as_dict(), **parameters})
    rows = [age.as_dict() for age in found]
    create_table_artifact(key="freshness", table=rows, description=f"Older than {max_age_days} days is stale")
    get_run_logger().info("%d stores, %d stale", len(found), len(stale))
    return rows


@flow(name="gc-stores")
def gc_stores(
    keep: Annotated[int, Field(ge=1)] = 3,
    grace: Annotated[str, Field(pattern=DURATION_PATTERN)] = "7d",
    apply: bool = False,  # noqa: FBT001, FBT002 - a flow's parameters are named
) -> list[dict[str, Any]]:
    """Remove old versions of every store and the shards that only they held.

    Args:
        keep: How many of the latest versions stay.
        grace: Younger files are never removed; such as 7d, 12h, 30m.
        apply: Remove; otherwise only list.
    """
    rows: list[dict[str, Any]] = []
    for name, store in list_stores(settings_module.load().stores):
        garbage = store.gc(keep, parse_duration(grace, name="grace"), apply=apply)
        rows.append(
            {"store": name, "versions": len(garbage.manifests), "files": len(garbage.paths), "bytes": garbage.bytes}
        )
    create_table_artifact(key="gc-stores", table=rows, description="Removed" if apply else "Would be removed")
    return rows


@flow(name="rerun-crashed")
async def rerun_crashed(flow_run_id: UUID) -> dict[str, Any]:
    """Start a crashed run again with the same parameters, three attempts in all.

    A run with other parameters does other work and does not stand in the way; a newer one with the same does.

    Args:
        flow_run_id: The run that crashed.
    """
    async with get_client() as client:
        outcome = await rerun(client, flow_run_id)
    started = f"started {outcome.flow_run}" if outcome.flow_run else "nothing started"
    get_run_logger().info("run %s: %s (%s)", flow_run_id, started, outcome.reason)
    return {"flow_run": str(outcome.flow_run) if outcome.flow_run else None, "reason": outcome.reason}
