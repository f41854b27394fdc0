"""The deployments of a server, compared with ``prefect.yaml`` and made equal to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions, DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.utilities.callables import ParameterSchema, parameter_schema

from flows.deployfile import DeploymentEntry, ScheduleEntry
from flows.difference import Change, Make, differing
from flows.errors import WorkError
from flows.settings import REPOSITORY


async def deployment_changes(client: PrefectClient, entry: DeploymentEntry) -> list[Change]:
    """What makes one deployment and its schedules as the file says.

    The server replaces all schedules of a deployment that is registered anew, so stale ones go with any change.

    Raises:
        WorkError: When the entry point has no flow of the deployment's name.
    """
    flow = _load(entry)
    make = _maker(entry, flow)
    try:
        current = await client.read_deployment_by_name(f"{entry.name}/{entry.name}")
    except ObjectNotFound:
        return [Change("create", "deployment", entry.name, make)]
    fields = (
        *differing(_facts_of(current), _facts_wanted(entry)),
        *_schema_changes(current.parameter_openapi_schema or {}, parameter_schema(flow)),
    )
    schedules = _schedule_changes(entry, current.schedules)
    if not fields and not schedules:
        return []
    if fields:
        return [Change("change", "deployment", entry.name, make, fields), *schedules]
    return [replace(schedules[0], make=make), *schedules[1:]]


def _load(entry: DeploymentEntry) -> Flow[..., Any]:
    path, _, function = entry.entrypoint.partition(":")
    if not (REPOSITORY / path).is_file():
        raise WorkError(f"{entry.name}: no file {path} for the entry point {entry.entrypoint}")
    flow = load_flow_from_entrypoint(f"{path[:-3].replace('/', '.')}.{function}")
    if flow.name != entry.name:
        raise WorkError(f"{entry.entrypoint} is the flow {flow.name!r}, expected {entry.name!r}")
    return flow


def _facts_of(current: DeploymentResponse) -> dict[str, Any]:
    limit, options = current.global_concurrency_limit, current.concurrency_options
    return {
        "entrypoint": current.entrypoint,
        "description": current.description or "",
        "parameters": current.parameters,
        "tags": sorted(current.tags),
        "work pool": current.work_pool_name,
        "work queue": current.work_queue_name,
        "job variables": current.job_variables,
        "pull steps": current.pull_steps,
        "concurrency limit": limit.limit if limit else None,
        "collision strategy": options.collision_strategy.value if options and limit else None,
        "enforce parameter schema": current.enforce_parameter_schema,
        "paused": current.paused,
    }


def _facts_wanted(entry: DeploymentEntry) -> dict[str, Any]:
    limit = entry.concurrency_limit
    return {
        "entrypoint": entry.entrypoint,
        "description": entry.description,
        "parameters": entry.parameters,
        "tags": sorted(entry.tags),
        "work pool": entry.work_pool.name,
        "work queue": entry.work_pool.work_queue_name,
        "job variables": entry.work_pool.job_variables,
        "pull steps": pull_steps(),
        "concurrency limit": limit.limit if limit else None,
        "collision strategy": limit.collision_strategy if limit else None,
        "enforce parameter schema": True,
        "paused": False,
    }


def _schema_changes(current: dict[str, Any], wanted: ParameterSchema) -> list[str]:
    """Which parameters of the flow the server knows otherwise; their schemas are too long to print."""
    was, now = current.get("properties", {}), wanted.model_dump_for_openapi()["properties"]
    differ = [name for name in dict.fromkeys([*was, *now]) if was.get(name) != now.get(name)]
    verbs = {(False, True): "new", (True, False): "gone", (True, True): "changed"}
    lines = [f"parameter {name}: {verbs[name in was, name in now]}" for name in differ]
    if current.get("additionalProperties") is not False:
        lines.append("unknown parameters: accepted → refused")
    return lines


def _closed_schema(flow: Flow[..., Any]) -> dict[str, Any]:
    """The flow's parameters, and no others: a misspelt one must not pass unnoticed."""
    return {**parameter_schema(flow).model_dump_for_openapi(), "additionalProperties": False}


def pull_steps() -> list[dict[str, Any]]:
    """Runs work in this checkout; ``prefect deploy`` from the repository root writes the same."""
    return [{"prefect.deployments.steps.set_working_directory": {"directory": str(REPOSITORY)}}]


def _schedule_changes(entry: DeploymentEntry, present: list[DeploymentSchedule]) -> list[Change]:
    wanted = {schedule.slug: schedule for schedule in entry.schedules}
    current = {schedule.slug or str(schedule.id): schedule for schedule in present}
    changes = [
        Change("create", "schedule", f"{entry.name}:{slug}", fields=(wanted[slug].cron,))
        for slug in wanted
        if slug not in current
    ]
    for slug, schedule in current.items():
        name = f"{entry.name}:{slug}"
        if slug not in wanted:
            changes.append(Change("clear", "schedule", name))
            continue
        fields = differing(_schedule_facts(schedule), wanted[slug].model_dump(exclude={"slug"}))
        if fields:
            changes.append(Change("change", "schedule", name, fields=fields))
    return changes


def _schedule_facts(current: DeploymentSchedule) -> dict[str, Any]:
    schedule = current.schedule
    return {
        "cron": schedule.cron if isinstance(schedule, CronSchedule) else str(schedule),
        "timezone": getattr(schedule, "timezone", None),
        "active": current.active,
        "parameters": current.parameters or {},
    }


def _maker(entry: DeploymentEntry, flow: Flow[..., Any]) -> Make:
    async def make(client: PrefectClient) -> None:
        limit = entry.concurrency_limit
        strategy = ConcurrencyLimitStrategy(limit.collision_strategy) if limit else None
        await client.create_deployment(
            flow_id=await client.create_flow_from_name(flow.name),
            name=entry.name,
            entrypoint=entry.entrypoint,
            path=".",
            description=entry.description,
            parameters=entry.parameters,
            parameter_openapi_schema=_closed_schema(flow),
            enforce_parameter_schema=True,
            tags=list(entry.tags),
            work_pool_name=entry.work_pool.name,
            work_queue_name=entry.work_pool.work_queue_name,
            job_variables=entry.work_pool.job_variables,
            pull_steps=pull_steps(),
            schedules=[_schedule(schedule) for schedule in entry.schedules],
            concurrency_limit=limit.limit if limit else None,
            concurrency_options=ConcurrencyOptions(collision_strategy=strategy) if strategy else None,
            paused=False,
        )

    return make


def _schedule(entry: ScheduleEntry) -> DeploymentScheduleCreate:
    return DeploymentScheduleCreate(
        schedule=CronSchedule(cron=entry.cron, timezone=entry.timezone),
        active=entry.active,
        parameters=entry.parameters,
        slug=entry.slug,
    )
