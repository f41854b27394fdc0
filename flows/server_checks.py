"""The part of ``reelstore doctor`` that asks the Prefect server: does it answer, is a worker there, is all deployed."""

from __future__ import annotations

import asyncio
import importlib.metadata
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx

from flows.errors import WorkError
from flows.names import WORK_POOL
from flows.settings import Settings

#: State, what, what was found, what to do.
Line = tuple[str, str, str, str]

_ASKS_PASSWORD = (401, 403)


def check_server(settings: Settings) -> Iterator[Line]:
    """Server, worker and deployments; the later checks only where the earlier ones let them."""
    from prefect.settings import get_current_settings

    api = get_current_settings().api
    if not api.url:
        advice = "only needed for deployments: `prefect server start`, then set PREFECT_API_URL"
        yield "NOTE", "server", "PREFECT_API_URL is not set", advice
        return
    auth = api.auth_string.get_secret_value() if api.auth_string else None
    line = _server(api.url, auth)
    yield line
    if line[0] != "FAIL":
        yield asyncio.run(_worker())
        yield _deployments(settings)


def _server(url: str, auth: str | None) -> Line:
    user, _, password = (auth or "").partition(":")
    try:
        with httpx.Client(timeout=5.0, auth=(user, password) if auth else None) as client:
            client.get(f"{url}/health").raise_for_status()
            answer = client.get(f"{url}/admin/version")
    except httpx.HTTPError as error:
        return "FAIL", "server", f"{url} does not answer: {error}", "start it, or correct PREFECT_API_URL"
    if answer.status_code in _ASKS_PASSWORD:
        said = "the password in PREFECT_API_AUTH_STRING is not the server's" if auth else "it asks for a password"
        return "FAIL", "server", f"{url}: {said}", "set PREFECT_API_AUTH_STRING=user:password as the server has it"
    if not answer.is_success:
        return "FAIL", "server", f"{url}/admin/version answers {answer.status_code}", "is this a Prefect server?"
    server, client_version = str(answer.json()), importlib.metadata.version("prefect")
    detail = f"{url}, version {server}"
    if server.split(".")[:2] != client_version.split(".")[:2]:
        return "NOTE", "server", f"{detail}, the client has {client_version}", "install the same version on both"
    return "OK", "server", detail, ""


async def _worker() -> Line:
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    start = f"start one: `prefect worker start --pool {WORK_POOL} --type process --limit 1`"
    async with get_client() as client:
        try:
            workers = await client.read_workers_for_work_pool(WORK_POOL)
        except ObjectNotFound:
            return "NOTE", "worker", f"no work pool {WORK_POOL!r}", "run `reelstore deploy`, then start a worker"
    if not workers:
        return "NOTE", "worker", f"none has ever polled the pool {WORK_POOL!r}", start
    online = [worker for worker in workers if worker.status.value == "ONLINE"]
    last = max((worker.last_heartbeat_time for worker in workers if worker.last_heartbeat_time), default=None)
    ago = f"last heartbeat {(datetime.now(UTC) - last).total_seconds():.0f} s ago" if last else "no heartbeat"
    if not online:
        return "NOTE", "worker", f"none is polling; {ago}", start
    return "OK", "worker", f"{len(online)} polling ({', '.join(worker.name for worker in online)}); {ago}", ""


def _deployments(settings: Settings) -> Line:
    from flows.deploy import differences

    try:
        changes = differences(settings)
    except WorkError as error:
        return "FAIL", "deployments", str(error), "correct what it names, then run `reelstore deploy`"
    if changes:
        first = changes[0]
        detail = f"{len(changes)} differences from prefect.yaml, such as: {first.action} {first.kind} {first.name}"
        return "NOTE", "deployments", detail, "run `reelstore deploy` (`--dry-run` lists them)"
    return "OK", "deployments", "as prefect.yaml says", ""
