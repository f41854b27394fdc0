"""The flows ``reconcile``, ``check-freshness`` and ``gc-stores``: what events and schedules may have missed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.deployments import run_deployment
from prefect.events import emit_event
from pydantic import Field

from feature_store import list_stores
from flows import settings as settings_module
from flows.jobs.train import Outdated, outdated_experiments
from flows.names import DEPLOYMENTS

STALE_EVENT = "featurestore.stale"


@flow(name="reconcile")
async def reconcile(dry_run: bool = False) -> list[dict[str, Any]]:  # noqa: FBT001, FBT002 - a flow's parameters are named
    """Start every training whose stores or dataset are newer than its last run.

    An experiment counts once it has been trained before: a new one is started by a person.

    Args:
        dry_run: Only list what would be started.
    """
    outdated = outdated_experiments(settings_module.load())
    started = [await _start(experiment, dry_run=dry_run) for experiment in outdated]
    get_run_logger().info("%d trainings are out of date", len(started))
    create_table_artifact(key="reconcile", table=started, description="Trainings whose inputs are newer than their run")
    return started


async def _start(experiment: Outdated, *, dry_run: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"experiment": experiment.name, "reason": experiment.reason, "flow_run": None}
    deployment = f"train-{experiment.model}"
    if deployment not in DEPLOYMENTS or dry_run:
        return row
    run = await run_deployment(  # type: ignore[misc]  # awaitable inside an async flow
        f"{deployment}/{deployment}", parameters={"experiment": experiment.name}, timeout=0, as_subflow=False
    )
    return {**row, "flow_run": str(run.id)}


@flow(name="check-freshness")
def check_freshness(max_age_days: Annotated[float, Field(gt=0)] = 30.0) -> list[dict[str, Any]]:
    """Say how old every store is and emit ``featurestore.stale`` for those that are too old.

    Args:
        max_age_days: Age above which a store counts as stale.
    """
    rows: list[dict[str, Any]] = []
    for name, store in list_stores(settings_module.load().stores):
        snapshot = store.latest()
        age = (datetime.now(UTC) - snapshot.manifest.created_at).total_seconds() / 86400
        rows.append(
            {"store": name, "version": snapshot.version, "age_days": round(age, 2), "stale": age > max_age_days}
        )
    for row in rows:
        if row["stale"]:
            emit_event(STALE_EVENT, resource={"prefect.resource.id": f"featurestore.{row['store']}"}, payload=row)
    create_table_artifact(key="freshness", table=rows, description=f"Stores older than {max_age_days} days are stale")
    get_run_logger().info("%d stores, %d stale", len(rows), sum(row["stale"] for row in rows))
    return rows


@flow(name="gc-stores")
def gc_stores(
    keep: Annotated[int, Field(ge=1)] = 3,
    grace_days: Annotated[float, Field(ge=0)] = 7.0,
    apply: bool = False,  # noqa: FBT001, FBT002 - a flow's parameters are named
) -> list[dict[str, Any]]:
    """Remove old versions of every store and the shards that only they held.

    Args:
        keep: How many of the latest versions stay.
        grace_days: Files younger than this are never removed.
        apply: Remove; otherwise only list.
    """
    rows: list[dict[str, Any]] = []
    for name, store in list_stores(settings_module.load().stores):
        garbage = store.gc(keep, timedelta(days=grace_days), apply=apply)
        rows.append(
            {"store": name, "versions": len(garbage.manifests), "files": len(garbage.paths), "bytes": garbage.bytes}
        )
    create_table_artifact(key="gc-stores", table=rows, description="Removed" if apply else "Would be removed")
    return rows
