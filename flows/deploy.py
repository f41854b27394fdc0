"""Bring a Prefect server up to date with ``prefect.yaml``: pool, queues, limits, deployments, schedules, automations.

Idempotent: every object is compared field by field, and only what differs is written. What is ours and no longer
wanted, such as a schedule that left the file, is cleared.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from http import HTTPStatus

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError

from flows.automations import automation_changes
from flows.deployfile import DEPLOYMENT_FILE, DeployFile, read_file
from flows.deployments import deployment_changes
from flows.difference import Change
from flows.errors import WorkError
from flows.pools import pool_changes
from flows.settings import Settings, load


async def plan(settings: Settings, wanted: DeployFile) -> list[Change]:
    """What :func:`run` would change on the server that ``PREFECT_API_URL`` names, in the order of the making."""
    async with get_client() as client:
        changes = await pool_changes(client, wanted.pool)
        for entry in wanted.deployments.values():
            changes += await deployment_changes(client, entry)
        return changes + await automation_changes(client, settings)


async def apply(changes: list[Change]) -> None:
    """Make the changes, in order."""
    async with get_client() as client:
        for change in changes:
            if change.make is None:
                continue
            try:
                await change.make(client)
            except PrefectHTTPStatusError as error:
                raise WorkError(f"the server refused to {replace(change, fields=())}: {error}") from None


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


def differences(settings: Settings) -> list[Change]:
    """What differs between the server and ``prefect.yaml``.

    Raises:
        CallError: When the file is not usable.
        WorkError: When no server is configured, it does not answer, or it does not let us in.
    """
    url = require_server()
    wanted = read_file(DEPLOYMENT_FILE)
    try:
        return asyncio.run(plan(settings, wanted))
    except httpx.TransportError as error:
        raise WorkError(f"no Prefect server answers at {url} ({error}): start it or correct PREFECT_API_URL") from None
    except PrefectHTTPStatusError as error:
        if error.response.status_code == HTTPStatus.UNAUTHORIZED:
            raise WorkError(f"{url} asks for a password: set PREFECT_API_AUTH_STRING=user:password") from None
        raise WorkError(f"{url}: {error}") from None


def run(*, dry_run: bool, settings: Settings | None = None) -> tuple[list[Change], list[str]]:
    """Apply ``prefect.yaml`` to the configured server.

    Args:
        dry_run: Only say what would change.
        settings: Where the experiments lie; those of the environment by default.

    Returns:
        The changes, and the names of those among them that were cleared (empty in a dry run).

    Raises:
        CallError: When the file is not usable.
        WorkError: When no server is usable or it refuses something.
    """
    changes = differences(settings or load())
    if dry_run or not changes:
        return changes, []
    asyncio.run(apply(changes))
    return changes, [change.name for change in changes if change.action == "clear"]
