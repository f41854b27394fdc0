"""Tasks of an extraction: encode one shard, commit one feature; and how the shards get to their processes.

Tasks get a description of the job and the number of a shard, never arrays; the process that runs one opens the
extraction, or has it open from the task before.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from prefect import Task, flow, get_run_logger, task
from prefect.assets import add_asset_metadata, materialize
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

from flows.jobs import device_lock, sessions
from flows.jobs.sessions import Job
from flows.runners import Cluster, cluster_runner, windowed
from flows.transient import is_transient

if TYPE_CHECKING:  # torch takes seconds to import
    from extractors.extract import ExtractReport, Tally
    from flows.jobs.extraction import Extraction
    from flows.jobs.group import Group

Figures = dict[str, dict[str, Any]]
"""By feature: rows ``encoded``, items ``failed``, ``seconds`` by stage, ``counts`` of the encoder."""

#: Shards under way on a cluster at the same time: enough to keep it busy, few enough to pass around.
WINDOW = 16


def _may_retry(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    return isinstance(state.data, BaseException) and is_transient(state.data)


@task(
    name="encode",
    task_run_name="{group} shard {shard}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=3,
    retry_delay_seconds=exponential_backoff(10),
    retry_jitter_factor=0.5,
    retry_condition_fn=_may_retry,
)
def encode_shard(job: Job, group: str, shard: int) -> Figures:
    """Encode what a shard still needs and write it.

    Args:
        job: The extraction.
        group: Label of the features.
        shard: Number of the shard.

    Returns:
        What became of its items, by feature.
    """
    # Through the module: a cluster gets this function by value with its globals, and a module by name.
    with sessions.SESSIONS.borrowed(job) as extraction:
        chosen = extraction.group(group)
        extraction.refresh(chosen)
        item_ids = chosen.work(shard)
        get_run_logger().info("%d items, in process %d on %s", len(item_ids), os.getpid(), socket.gethostname())
        return {name: _figures(tally) for name, tally in (extraction.run(chosen, item_ids) if item_ids else {}).items()}


def _commit(job: Job, group: str, feature: str, figures: dict[str, Any]) -> ExtractReport:
    with sessions.SESSIONS.borrowed(job) as extraction:
        return extraction.commit(extraction.group(group), feature, _tally(figures))


@task(name="commit", task_run_name="commit {feature}", cache_policy=NO_CACHE, persist_result=False)
def commit_nothing_new(job: Job, group: str, feature: str, figures: dict[str, Any]) -> ExtractReport:
    """Confirm a feature that nothing was encoded for; arguments as for :func:`commit`."""
    return _commit(job, group, feature, figures)


@materialize(
    "reelstore://stores/dataset/feature",
    name="commit",
    task_run_name="commit {feature}",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def commit(job: Job, group: str, feature: str, figures: dict[str, Any]) -> ExtractReport:
    """Publish a feature as a new version, which Prefect knows as an asset.

    Args:
        job: The extraction.
        group: Label of the features.
        feature: Name of the feature.
        figures: Sum over its shards.
    """
    report = _commit(job, group, feature, figures)
    facts = {"version": report.version, "encoded": report.encoded, "failed": report.failed, "toy": report.toy}
    add_asset_metadata(asset_key(job.dataset, feature), facts)
    return report


def commit_feature(job: Job, extraction: Extraction, group: Group, feature: str, figures: Figures) -> ExtractReport:
    """Commit a feature of a group as a task.

    Raises:
        QualityGateError: When its figures do not keep their limits.
    """
    extraction.refresh(group)
    changed = any(member.found.changed for member in group.members if member.feature.name == feature)
    chosen = commit.with_options(assets=[asset_key(job.dataset, feature)]) if changed else commit_nothing_new
    return chosen(job, group.label, feature, figures.get(feature, {}))


def asset_key(dataset: str, feature: str) -> str:
    """What Prefect calls a store."""
    return f"reelstore://stores/{re.sub(r'[^A-Za-z0-9._-]+', '-', dataset)}/{feature}"


def encode_here(job: Job, extraction: Extraction, group: Group) -> Figures:
    """Encode all open shards of a group, one after the other."""
    total: Figures = {}
    numbers = group.open_shards()
    with _ready(extraction, group, len(numbers)) as run:
        for number in numbers:
            _add(total, run(job, group.label, number))
    return total


def encode_shared(job: Job, extraction: Extraction, group: Group) -> Figures:
    """Encode the open shards of a group together with other processes that do the same.

    Each shard is done by the process that has claimed it; when this returns, none is open any more.
    """
    total: Figures = {}
    numbers = group.open_shards()

    with _ready(extraction, group, len(numbers)) as run:

        def encode(number: int) -> None:
            extraction.refresh(group)
            if group.work(number):
                _add(total, run(job, group.label, number))

        extraction.claims(group).share(numbers, encode, logger=get_run_logger())
    return total


def encode_on_cluster(
    job: Job, extraction: Extraction, group: Group, *, cluster: Cluster, address: str | None
) -> Figures:
    """Encode the open shards of a group in processes of a Ray or Dask cluster.

    The cluster's machines see the same root, and have the project installed.
    """
    numbers = group.open_shards()
    if not numbers:
        return {}
    get_run_logger().info("%s: %d shards go to %s", group.label, len(numbers), cluster)
    inner = encode_on_runner.with_options(task_runner=cluster_runner(cluster, address))
    with _gpu_each(cluster, extraction.device):
        parts = inner(job, group.label, numbers, extraction.config.task_timeout_seconds)
    total: Figures = {}
    for part in parts:
        _add(total, part)
    return total


@flow(name="encode-on-cluster", persist_result=False)
def encode_on_runner(job: Job, group: str, numbers: list[int], timeout_seconds: float) -> list[Figures]:
    """Submit shards to the task runner of this flow, a bounded number at a time."""
    run = encode_shard.with_options(timeout_seconds=timeout_seconds)
    return windowed(lambda number: run.submit(job, group, number), numbers, window=WINDOW)


@contextlib.contextmanager
def _gpu_each(cluster: Cluster, device: str) -> Generator[None]:
    """On Ray, ask for a GPU per task where the encoders run on one."""
    if cluster != "ray" or not device.startswith("cuda"):
        yield
        return
    from prefect_ray.context import remote_options  # pyright: ignore[reportMissingImports, reportUnknownVariableType]

    with remote_options(num_gpus=1):
        yield


@contextlib.contextmanager
def _ready(extraction: Extraction, group: Group, shards: int) -> Generator[Task[..., Figures]]:
    """The task of a shard with what its configuration says, once the device is free."""
    get_run_logger().info("%s: %d shards to do", group.label, shards)
    if shards:
        extraction.hold_device(group)
    yield encode_shard.with_options(
        timeout_seconds=extraction.config.task_timeout_seconds, tags=device_lock.tags(extraction.device)
    )


def _figures(tally: Tally) -> dict[str, Any]:
    return {
        "encoded": tally.encoded,
        "failed": tally.failed,
        "seconds": dict(tally.seconds),
        "counts": dict(tally.counts),
    }


def _tally(figures: dict[str, Any]) -> Tally:
    from extractors.extract import Tally

    tally = Tally(encoded=figures.get("encoded", 0), failed=figures.get("failed", 0))
    tally.seconds.update(figures.get("seconds", {}))
    tally.counts.update(figures.get("counts", {}))
    return tally


def _add(total: Figures, part: Figures) -> None:
    for feature, figures in part.items():
        both = _tally(total.get(feature, {}))
        both.add(_tally(figures))
        total[feature] = _figures(both)
