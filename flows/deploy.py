"""Register everything with a Prefect server: pool, deployments of ``prefect.yaml``, and clear schedules that left it.

Idempotent: a second call changes nothing. Prefect upserts schedules by slug and keeps those that were deleted from the
file, so stale ones are removed here.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectNotFound

from flows.errors import CallError, WorkError
from flows.names import DEPLOYMENTS, WORK_POOL
from flows.settings import REPOSITORY

DEPLOYMENT_FILE = REPOSITORY / "prefect.yaml"


@dataclass(frozen=True)
class Change:
    """One difference between the server and the file."""

    kind: str
    name: str
    action: str

    def __str__(self) -> str:
        return f"{self.action} {self.kind} {self.name}"


def read_deployments(path: Path = DEPLOYMENT_FILE) -> dict[str, dict[str, Any]]:
    """The deployments of ``prefect.yaml`` by name.

    Raises:
        CallError: When the file and the names that the code knows differ.
    """
    document = cast("dict[str, Any]", yaml.safe_load(path.read_text(encoding="utf-8")))
    found = {str(entry["name"]): cast("dict[str, Any]", entry) for entry in document["deployments"]}
    if set(found) != set(DEPLOYMENTS):
        missing, extra = sorted(set(DEPLOYMENTS) - set(found)), sorted(set(found) - set(DEPLOYMENTS))
        raise CallError(f"{path.name} and flows/names.py differ: missing {missing}, unknown {extra}")
    return found


async def plan() -> list[Change]:
    """What :func:`deploy` would change on the server that ``PREFECT_API_URL`` names."""
    entries = read_deployments()
    async with get_client() as client:
        changes = [] if await _has_pool(client) else [Change("work pool", WORK_POOL, "create")]
        for name, entry in entries.items():
            changes.extend(await _deployment_changes(client, name, entry))
        return changes


async def prepare_pool() -> None:
    """Create the work pool where it is missing."""
    async with get_client() as client:
        if not await _has_pool(client):
            await client.create_work_pool(WorkPoolCreate(name=WORK_POOL, type="process"))


async def clear_stale_schedules() -> list[str]:
    """Delete schedules whose slug is no longer in ``prefect.yaml``; returns ``deployment:slug`` of each."""
    cleared: list[str] = []
    async with get_client() as client:
        for name, entry in read_deployments().items():
            wanted = {str(schedule["slug"]) for schedule in entry.get("schedules", ())}
            deployment = await client.read_deployment_by_name(f"{name}/{name}")
            for schedule in deployment.schedules:
                if schedule.slug not in wanted:
                    await client.delete_deployment_schedule(deployment.id, schedule.id)
                    cleared.append(f"{name}:{schedule.slug or schedule.id}")
    return cleared


async def _has_pool(client: PrefectClient) -> bool:
    try:
        await client.read_work_pool(WORK_POOL)
    except ObjectNotFound:
        return False
    return True


async def _deployment_changes(client: PrefectClient, name: str, entry: dict[str, Any]) -> list[Change]:
    try:
        current = await client.read_deployment_by_name(f"{name}/{name}")
    except ObjectNotFound:
        return [Change("deployment", name, "create")]
    changes: list[Change] = []
    facts = {
        "entrypoint": (current.entrypoint, entry["entrypoint"]),
        "parameters": (current.parameters, entry.get("parameters", {})),
        "work pool": (current.work_pool_name, entry["work_pool"]["name"]),
    }
    changes += [Change(fact, name, f"change {was!r} to {now!r}:") for fact, (was, now) in facts.items() if was != now]
    wanted = {str(schedule["slug"]) for schedule in entry.get("schedules", ())}
    present = {schedule.slug for schedule in current.schedules}
    changes += [Change("schedule", f"{name}:{slug}", "create") for slug in sorted(wanted - present)]
    changes += [Change("schedule", f"{name}:{slug}", "clear") for slug in sorted(map(str, present - wanted))]
    return changes


def require_server() -> str:
    """The API URL that clients use.

    Raises:
        WorkError: When none is configured: an ephemeral server would forget everything at once.
    """
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    if not url:
        raise WorkError(
            "no Prefect server is configured: start one with `prefect server start` and set "
            "PREFECT_API_URL=http://127.0.0.1:4200/api (or run `reelstore demo`, which brings its own)"
        )
    return url


def client_environment() -> dict[str, str]:
    """The environment for Prefect's command line when it applies the file: never ask, never start a server."""
    return {**os.environ, "PREFECT_CLI_PROMPT": "false", "PREFECT_SERVER_EPHEMERAL_ENABLED": "false"}


def run(*, dry_run: bool) -> tuple[list[Change], list[str]]:
    """Apply ``prefect.yaml`` to the configured server.

    Args:
        dry_run: Only say what would change.

    Returns:
        The changes, and the schedules that were cleared (empty in a dry run).

    Raises:
        CallError: When the file is not usable.
        WorkError: When no server is configured or Prefect refuses the file.
    """
    require_server()
    changes = asyncio.run(plan())
    if dry_run or not changes:
        return changes, []
    asyncio.run(prepare_pool())
    command = [
        sys.executable,
        "-m",
        "prefect",
        "--no-prompt",
        "deploy",
        "--all",
        "--prefect-file",
        str(DEPLOYMENT_FILE),
    ]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=client_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise WorkError(f"prefect deploy failed with code {done.returncode}:\n{done.stdout[-4000:]}")
    return changes, asyncio.run(clear_stale_schedules())
