"""The work pool, its queues and the concurrency limits of a server."""

from __future__ import annotations

from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import (
    GlobalConcurrencyLimitCreate,
    GlobalConcurrencyLimitUpdate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.exceptions import ObjectNotFound

from flows.deployfile import LimitEntry, PoolEntry, QueueEntry
from flows.difference import Change, Make, differing
from flows.errors import WorkError


async def pool_changes(client: PrefectClient, wanted: PoolEntry) -> list[Change]:
    """What makes the pool, its queues and the limits as the file says.

    Raises:
        WorkError: When there is a pool of that name whose workers are of another type.
    """
    changes = [
        *await _pool(client, wanted),
        *await _queues(client, wanted),
    ]
    for limit in wanted.limits:
        changes += await _limit(client, limit)
    return changes


async def _pool(client: PrefectClient, wanted: PoolEntry) -> list[Change]:
    async def create(client: PrefectClient) -> None:
        await client.create_work_pool(
            WorkPoolCreate(name=wanted.pool, type=wanted.type, description=wanted.description)
        )

    async def update(client: PrefectClient) -> None:
        await client.update_work_pool(wanted.pool, WorkPoolUpdate(description=wanted.description, is_paused=False))

    try:
        current = await client.read_work_pool(wanted.pool)
    except ObjectNotFound:
        return [Change("create", "work pool", wanted.pool, create)]
    if current.type != wanted.type:
        raise WorkError(
            f"the server has a work pool {wanted.pool!r} of type {current.type!r}, expected {wanted.type!r}: "
            f"remove it (`prefect work-pool delete {wanted.pool}`) or use another server"
        )
    was = {"description": current.description or "", "is_paused": current.is_paused}
    fields = differing(was, {"description": wanted.description, "is_paused": False})
    return [Change("change", "work pool", wanted.pool, update, fields)] if fields else []


async def _queues(client: PrefectClient, wanted: PoolEntry) -> list[Change]:
    """Queues in the order of their priorities: the server moves others down when one takes their place."""
    try:
        present = {queue.name: queue for queue in await client.read_work_queues(work_pool_name=wanted.pool)}
    except ObjectNotFound:
        present = {}
    changes: list[Change] = []
    for entry in sorted(wanted.queues, key=lambda queue: queue.priority):
        make = _queue_maker(wanted.pool, entry)
        current = present.get(entry.name)
        if current is None:
            changes.append(Change("create", "work queue", entry.name, make))
            continue
        was = {"priority": current.priority, "description": current.description or ""}
        fields = differing(was, {"priority": entry.priority, "description": entry.description})
        if fields:
            changes.append(Change("change", "work queue", entry.name, make, fields))
    return changes


def _queue_maker(pool: str, entry: QueueEntry) -> Make:
    """Create or change: a new pool brings its default queue with it."""

    async def make(client: PrefectClient) -> None:
        present: dict[str, UUID] = {
            queue.name: queue.id for queue in await client.read_work_queues(work_pool_name=pool)
        }
        if entry.name not in present:
            created = await client.create_work_queue(entry.name, work_pool_name=pool)
            present[entry.name] = created.id
        await client.update_work_queue(present[entry.name], description=entry.description, priority=entry.priority)

    return make


async def _limit(client: PrefectClient, wanted: LimitEntry) -> list[Change]:
    async def create(client: PrefectClient) -> None:
        await client.create_global_concurrency_limit(
            GlobalConcurrencyLimitCreate(name=wanted.name, limit=wanted.limit, active=True)
        )

    async def update(client: PrefectClient) -> None:
        await client.update_global_concurrency_limit(
            wanted.name, GlobalConcurrencyLimitUpdate(limit=wanted.limit, active=True)
        )

    try:
        current = await client.read_global_concurrency_limit_by_name(wanted.name)
    except ObjectNotFound:
        return [Change("create", "limit", wanted.name, create)]
    fields = differing({"limit": current.limit, "active": current.active}, {"limit": wanted.limit, "active": True})
    return [Change("change", "limit", wanted.name, update, fields)] if fields else []
