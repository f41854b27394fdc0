"""``prefect.yaml`` as checked values: what ``reelstore deploy`` makes of a server.

The file is Prefect's own format, so ``prefect deploy --all`` reads it too; what Prefect has no words for (the work
pool with its queues, and concurrency limits) stands under the key ``reelstore``, which Prefect passes over.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

import yaml
from pydantic import Field

from flows.errors import CallError
from flows.names import DEPLOYMENTS, WORK_POOL
from flows.settings import REPOSITORY
from models.config import StrictModel, parse_strict, suggest

DEPLOYMENT_FILE = REPOSITORY / "prefect.yaml"


class QueueEntry(StrictModel):
    """A work queue; among waiting runs those of the queue with the lowest ``priority`` start first."""

    name: str
    priority: int = Field(ge=1)
    description: str = ""


class LimitEntry(StrictModel):
    """A global concurrency limit."""

    name: str
    limit: int = Field(ge=1)


class PoolEntry(StrictModel):
    """The work pool, its queues, and the concurrency limits beside it."""

    pool: str
    type: Literal["process"] = "process"
    description: str = ""
    queues: tuple[QueueEntry, ...]
    limits: tuple[LimitEntry, ...] = ()


class WorkPoolUse(StrictModel):
    """Where the runs of a deployment go; ``job_variables`` are those of Prefect's process worker."""

    name: str
    work_queue_name: str
    job_variables: dict[str, Any] = Field(default_factory=dict)


class ConcurrencyEntry(StrictModel):
    """How many runs of a deployment may run at once, and what becomes of one more."""

    limit: int = Field(ge=1)
    collision_strategy: Literal["CANCEL_NEW", "ENQUEUE"]


class ScheduleEntry(StrictModel):
    """A schedule; its ``slug`` names it within the deployment."""

    cron: str
    slug: str
    timezone: Literal["UTC"] = "UTC"
    active: bool = True
    parameters: dict[str, Any] = Field(default_factory=dict)


class DeploymentEntry(StrictModel):
    """One deployment; its flow has the same name."""

    name: str
    entrypoint: str = Field(pattern=r"^flows/\w+\.py:\w+$")
    description: str
    work_pool: WorkPoolUse
    parameters: dict[str, Any] = Field(default_factory=dict)
    tags: tuple[str, ...] = ()
    concurrency_limit: ConcurrencyEntry | None = None
    schedules: tuple[ScheduleEntry, ...] = ()


class DeployFile(StrictModel):
    """The whole file."""

    pool: PoolEntry
    deployments: dict[str, DeploymentEntry]


def read_file(path: Path = DEPLOYMENT_FILE) -> DeployFile:
    """Read and check ``prefect.yaml``.

    Raises:
        CallError: When it is not YAML, or when its names and those that the code knows differ.
        ConfigError: For an unknown key or an impossible value, with the near name.
    """
    try:
        document = cast("dict[str, Any]", yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise CallError(f"{path}: not valid YAML: {error}") from None
    pool = parse_strict(PoolEntry, document.get("reelstore") or {}, where=f"{path.name}: reelstore")
    entries = [
        parse_strict(DeploymentEntry, entry, where=f"{path.name}: {entry.get('name', f'deployment {number}')}")
        for number, entry in enumerate(document.get("deployments") or (), start=1)
    ]
    found = {entry.name: entry for entry in entries}
    _check_names(path, pool, found)
    return DeployFile(pool=pool, deployments=found)


def _check_names(path: Path, pool: PoolEntry, found: dict[str, DeploymentEntry]) -> None:
    if set(found) != set(DEPLOYMENTS):
        missing, extra = sorted(set(DEPLOYMENTS) - set(found)), sorted(set(found) - set(DEPLOYMENTS))
        raise CallError(f"{path.name} and flows/names.py differ: missing {missing}, unknown {extra}")
    if pool.pool != WORK_POOL:
        raise CallError(f"{path.name}: reelstore.pool is {pool.pool!r}, flows/names.py has {WORK_POOL!r}")
    queues = [queue.name for queue in pool.queues]
    for entry in found.values():
        if entry.work_pool.name != WORK_POOL:
            raise CallError(f"{path.name}: {entry.name}: work pool {entry.work_pool.name!r} is not {WORK_POOL!r}")
        if entry.work_pool.work_queue_name not in queues:
            name = entry.work_pool.work_queue_name
            raise CallError(f"{path.name}: {entry.name}: no work queue {name!r}; {suggest(name, queues)}")
