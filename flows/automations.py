"""The automations of a server: what starts by itself when a store is committed, goes stale, or a run dies.

All are made by code and named ``reelstore: …``, so that one that is no longer wanted is found and removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ActionTypes, ChangeFlowRunState, RunDeployment
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

from flows.config import load_experiment
from flows.difference import Change, Make, differing
from flows.extract import MATERIALIZED_EVENT
from flows.jobs.pinning import stores_read
from flows.names import (
    DATASET_LABEL,
    DEPLOYMENTS,
    HEARTBEAT_PATIENCE_SECONDS,
    RERUN_TAG,
    STALE_EVENT,
    TAG,
)
from flows.settings import Settings

PREFIX = "reelstore: "

#: A run that no longer sends signs of life has not died when one of these came.
ENDS_WATCH = ("Completed", "Failed", "Cancelled", "Crashed", "Paused", "Suspended", "AwaitingRetry")

_PAGE = 200


@dataclass(frozen=True)
class Trigger:
    """Which events fire an automation.

    Attributes:
        expect: Event names.
        resources: Ids of the resources that the events are about; a trailing ``*`` stands for any end.
        related: Id of a resource that the events must be related to.
        for_each: Label of the resource by which events are counted apart.
        within: Reactive: fire once in this time. Proactive: fire when nothing of ``expect`` came for so long.
        after: Proactive: the event that starts the watch; empty for a reactive trigger.
    """

    expect: tuple[str, ...]
    resources: tuple[str, ...]
    related: str | None = None
    for_each: str | None = None
    within: timedelta = timedelta(0)
    after: str | None = None


@dataclass(frozen=True)
class Wanted:
    """One automation: it runs ``deployment`` with ``parameters``, or without one marks the run as crashed."""

    name: str
    description: str
    trigger: Trigger
    deployment: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])


def wanted_automations(settings: Settings) -> list[Wanted]:
    """Every automation, by the experiments of ``configs/experiments``."""
    return [*_trainings(settings), *_extractions(), *_crashes()]


def _trainings(settings: Settings) -> list[Wanted]:
    """A training per experiment that reads stores; ones with toy weights count too, a smoke run is to show it."""
    found: list[Wanted] = []
    for path in sorted((settings.configs / "experiments").glob("*.toml")):
        config = load_experiment(path, {})
        deployment = f"train-{config.model}"
        features = stores_read(config) if deployment in DEPLOYMENTS else []
        if not features:
            continue
        found.append(
            Wanted(
                name=f"{PREFIX}train {path.stem}",
                description=f"A new version of {' or '.join(features)} of {config.dataset} starts this training.",
                trigger=Trigger(
                    expect=(MATERIALIZED_EVENT,),
                    resources=tuple(f"featurestore.{config.dataset}.{feature}" for feature in features),
                ),
                deployment=deployment,
                parameters={"experiment": path.stem},
            )
        )
    return found


def _extractions() -> list[Wanted]:
    """An extraction at most once a day per stale dataset, with what the event says about its stores."""
    same = {key: _payload(key) for key in ("features", "checkpoint", "limit")}
    sources = {
        "extract-microlens": ("microlens-*", {"variant": _payload("variant")}),
        "extract-shortvideo": ("shortvideo*", {"variant": _payload("variant")}),
        "extract-amazon": ("amazon-*", {"category": _payload("variant")}),
    }
    return [
        Wanted(
            name=f"{PREFIX}refresh by {deployment}",
            description="A store that is too old is extracted again; only what changed is encoded.",
            trigger=Trigger(
                expect=(STALE_EVENT,),
                resources=(f"featurestore.{pattern}",),
                for_each=DATASET_LABEL,
                within=timedelta(days=1),
            ),
            deployment=deployment,
            parameters={**own, **same},
        )
        for deployment, (pattern, own) in sources.items()
    ]


def _crashes() -> list[Wanted]:
    heartbeat = "prefect.flow-run.heartbeat"
    return [
        Wanted(
            name=f"{PREFIX}mark dead runs as crashed",
            description=f"A run without a sign of life for {HEARTBEAT_PATIENCE_SECONDS} s has died with its worker.",
            trigger=Trigger(
                expect=(heartbeat, *(f"prefect.flow-run.{state}" for state in ENDS_WATCH)),
                resources=("prefect.flow-run.*",),
                related=f"prefect.tag.{TAG}",
                for_each="prefect.resource.id",
                within=timedelta(seconds=HEARTBEAT_PATIENCE_SECONDS),
                after=heartbeat,
            ),
        ),
        Wanted(
            name=f"{PREFIX}rerun crashed runs",
            description="A crashed run is started again with the same parameters, three attempts in all.",
            trigger=Trigger(
                expect=("prefect.flow-run.Crashed",),
                resources=("prefect.flow-run.*",),
                related=f"prefect.tag.{RERUN_TAG}",
            ),
            deployment="rerun-crashed",
            # rendered as text: an identifier is no JSON value
            parameters={"flow_run_id": {"__prefect_kind": "jinja", "template": "{{ flow_run.id }}"}},
        ),
    ]


def _payload(key: str) -> str:
    """A template that keeps the value's type: the server renders it from the event."""
    return f"{{{{ event.payload.{key} }}}}"


async def automation_changes(client: PrefectClient, settings: Settings) -> list[Change]:
    """What makes the server's automations of our prefix as the code says."""
    names = await _deployment_names(client)
    present = [item for item in await _read_all(client) if item.name.startswith(PREFIX.strip())]
    changes: list[Change] = []
    kept: set[UUID] = set()
    for wanted in wanted_automations(settings):
        current = next((item for item in present if item.name == wanted.name), None)
        make = _maker(wanted, current.id if current else None)
        if current is None:
            changes.append(Change("create", "automation", wanted.name, make))
            continue
        kept.add(current.id)
        fields = differing(_facts_of(current, names), _facts_wanted(wanted))
        if fields:
            changes.append(Change("change", "automation", wanted.name, make, fields))
    changes += [Change("clear", "automation", item.name, _remover(item.id)) for item in present if item.id not in kept]
    return changes


async def _read_all(client: PrefectClient) -> list[Automation]:
    found: list[Automation] = []
    while True:
        page = await client.read_automations(limit=_PAGE, offset=len(found))
        found += page
        if len(page) < _PAGE:
            return found


async def _deployment_names(client: PrefectClient) -> dict[UUID, str]:
    found = await client.read_deployments(limit=_PAGE)
    return {deployment.id: deployment.name for deployment in found}


def _facts_of(current: Automation, names: Mapping[UUID, str]) -> dict[str, Any]:
    trigger, action = current.trigger, current.actions[0] if len(current.actions) == 1 else None
    facts: dict[str, Any] = {"description": current.description, "enabled": current.enabled}
    if isinstance(trigger, EventTrigger):
        facts |= {
            "match": _specification(trigger.match),
            "related": _specification(trigger.match_related),
            "expect": sorted(trigger.expect),
            "after": sorted(trigger.after),
            "for each": sorted(trigger.for_each),
            "posture": trigger.posture.value,
            "threshold": trigger.threshold,
            "within": trigger.within.total_seconds(),
        }
    if isinstance(action, RunDeployment):
        name = names.get(action.deployment_id) if action.deployment_id else None
        facts |= {"runs": name, "parameters": action.parameters or {}}
    elif isinstance(action, ChangeFlowRunState):
        facts |= {"runs": f"mark {action.state.value}", "parameters": {}}
    return facts


def _specification(value: Any) -> dict[str, list[str]]:
    """Labels with their values as sorted lists: the server keeps a single value as it came."""
    plain: dict[str, str | list[str]] = value.model_dump() if isinstance(value, ResourceSpecification) else dict(value)
    return {key: sorted([entry] if isinstance(entry, str) else entry) for key, entry in plain.items()}


def _facts_wanted(wanted: Wanted) -> dict[str, Any]:
    trigger = wanted.trigger
    return {
        "description": wanted.description,
        "enabled": True,
        "match": {"prefect.resource.id": sorted(trigger.resources)},
        "related": {"prefect.resource.id": [trigger.related]} if trigger.related else {},
        "expect": sorted(trigger.expect),
        "after": [trigger.after] if trigger.after else [],
        "for each": [trigger.for_each] if trigger.for_each else [],
        "posture": _posture(trigger).value,
        "threshold": 1,
        "within": trigger.within.total_seconds(),
        "runs": wanted.deployment or f"mark {StateType.CRASHED.value}",
        "parameters": dict(wanted.parameters),
    }


def _posture(trigger: Trigger) -> Literal[Posture.Reactive, Posture.Proactive]:
    return Posture.Proactive if trigger.after else Posture.Reactive


def _maker(wanted: Wanted, current: UUID | None) -> Make:
    async def make(client: PrefectClient) -> None:
        automation = await _automation(client, wanted)
        if current is None:
            await client.create_automation(automation)
        else:
            await client.update_automation(current, automation)

    return make


def _remover(automation_id: UUID) -> Make:
    async def remove(client: PrefectClient) -> None:
        await client.delete_automation(automation_id)

    return remove


async def _automation(client: PrefectClient, wanted: Wanted) -> AutomationCore:
    trigger = wanted.trigger
    related: dict[str, str | list[str]] = {"prefect.resource.id": trigger.related} if trigger.related else {}
    return AutomationCore(
        name=wanted.name,
        description=wanted.description,
        enabled=True,
        trigger=EventTrigger(
            type="event",
            match=ResourceSpecification({"prefect.resource.id": list(trigger.resources)}),
            match_related=ResourceSpecification(related),
            expect=set(trigger.expect),
            after={trigger.after} if trigger.after else set(),
            for_each={trigger.for_each} if trigger.for_each else set(),
            posture=_posture(trigger),
            threshold=1,
            within=trigger.within,
        ),
        actions=[await _action(client, wanted)],
    )


async def _action(client: PrefectClient, wanted: Wanted) -> ActionTypes:
    if wanted.deployment is None:
        return ChangeFlowRunState(
            type="change-flow-run-state",
            state=StateType.CRASHED,
            name="Crashed",
            force=False,
            message=f"no sign of life for {HEARTBEAT_PATIENCE_SECONDS} s",
        )
    deployment = await client.read_deployment_by_name(f"{wanted.deployment}/{wanted.deployment}")
    return RunDeployment(
        type="run-deployment",
        source="selected",
        deployment_id=deployment.id,
        parameters=dict(wanted.parameters),
        job_variables=None,
    )
