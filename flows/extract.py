"""The flows ``extract-microlens``, ``extract-shortvideo``, ``extract-amazon`` and ``encode-shards``.

Each of the first three prepares its dataset, asks the stores what is to do, encodes shard by shard in tasks, and
commits once per feature. The store decides what is done: tasks never cache, and a rerun after a crash encodes only
what is missing. ``encode-shards`` is what other workers run to help; it encodes and never commits.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from prefect import flow, get_run_logger
from prefect.events import emit_event
from pydantic import Field

from flows import artifacts
from flows import settings as settings_module
from flows.encode import commit_feature, encode_here, encode_on_cluster, encode_shared
from flows.errors import CallError, WorkError
from flows.fan_out import HELPER, helpers
from flows.jobs.sessions import SESSIONS, Job
from flows.parameters import Limit, Only, Options, Runner, Shards, Since, Verify, Workers
from flows.prepare import prepare_dataset

if TYPE_CHECKING:  # torch takes seconds to import, and a run that has nothing to encode needs none
    from extractors.audit import Comparison
    from extractors.extract import ExtractReport
    from flows.jobs.extraction import Extraction
    from flows.jobs.group import Group
    from flows.jobs.shards import Shard

MATERIALIZED_EVENT = "featurestore.materialized"


@dataclass(frozen=True)
class Fleet:
    """Who encodes.

    Attributes:
        workers: Workers of the pool that take part, this flow's own among them.
        task_runner: ``local`` encodes in the workers themselves, ``ray`` and ``dask`` in the processes of a cluster.
        address: Of the cluster; None for ``RAY_ADDRESS`` or ``DASK_ADDRESS``, and without it one on this machine.
    """

    workers: int = 1
    task_runner: Runner = "local"
    address: str | None = None

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        if self.workers > 1 and self.task_runner != "local":
            raise CallError(f"workers={self.workers} and task_runner={self.task_runner} exclude each other; choose one")


@dataclass
class _Made:
    """What the groups of an extraction came to."""

    reports: list[ExtractReport] = field(default_factory=list["ExtractReport"])
    shards: list[Shard] = field(default_factory=list["Shard"])
    blocked: dict[str, str] = field(default_factory=dict[str, str])
    audit: list[Comparison] = field(default_factory=list["Comparison"])


def extract_dataset(
    dataset: str,
    *,
    features: list[str] | None = None,
    options: Options = None,
    fleet: Fleet | None = None,
    verify: float = 0.0,
) -> list[dict[str, Any]]:
    """Bring the stores of a prepared dataset up to date, inside a flow.

    Args:
        dataset: Name of a prepared dataset.
        features: Encoders; None for all that the dataset has media for.
        options: ``key=value`` of the extraction or of the encoders.
        fleet: Who encodes; None for this process alone.
        verify: Part of the videos to decode again in full, 0 to 1.

    Returns:
        One report per feature, as plain values.

    Raises:
        QualityGateError: For all features whose figures do not keep their limits; the others are published.
        WorkError: When a video that was decoded again differs.
    """
    from flows.jobs.extract import raise_together

    fleet = fleet or Fleet()
    job = Job.of(dataset, features=features, options=options)
    with SESSIONS.opened(job) as extraction:
        extraction.videos(verify)
        with helpers(job, fleet.workers - 1):
            made = _encode_and_commit(job, extraction, fleet)
        for group in extraction.videos(verify):
            made.audit += extraction.audit(group, verify)
        _show(extraction, made, audited=verify > 0)
    raise_together(made.blocked.values())
    differing = [entry.item_id for entry in made.audit if entry.verdict == "different"]
    if differing:
        raise WorkError(
            f"verify: {len(differing)} of {len(made.audit)} videos of {dataset} decode differently in full, the first "
            f"is {differing[0]}; the table {artifacts.key('verify', dataset)} lists them"
        )
    return [report.as_dict() for report in made.reports]


def _encode_and_commit(job: Job, extraction: Extraction, fleet: Fleet) -> _Made:
    """Do one group after the other; a gate that holds one feature back stops none of the others."""
    from feature_store import QualityGateError

    made = _Made()
    for group in extraction.groups:
        figures = _encode(job, extraction, group, fleet)
        extraction.release(group)
        for feature in group.features:
            try:
                report = commit_feature(job, extraction, group, feature.name, figures)
            except QualityGateError as error:
                made.blocked[feature.name] = str(error)
            else:
                made.reports.append(report)
                if report.version is not None and report.version != feature.plan.base:
                    _announce(extraction.dataset, report, feature.plan.spec_hash)
        made.shards += group.states()
    return made


def _encode(job: Job, extraction: Extraction, group: Group, fleet: Fleet) -> dict[str, dict[str, Any]]:
    if fleet.task_runner != "local":
        return encode_on_cluster(job, extraction, group, cluster=fleet.task_runner, address=fleet.address)
    return (encode_shared if fleet.workers > 1 else encode_here)(job, extraction, group)


def _show(extraction: Extraction, made: _Made, *, audited: bool) -> None:
    """Leave the artifacts of a run, and say what a person has to know."""
    dataset, logger = extraction.dataset, get_run_logger()
    artifacts.features(dataset, [report.as_dict() for report in made.reports])
    artifacts.shards(dataset, made.shards)
    artifacts.quality(extraction, made.blocked)
    if audited:
        artifacts.differences(dataset, made.audit)
    if any(report.toy for report in made.reports):
        logger.warning("%s: seeded TOY checkpoints: these features carry no knowledge of the world", dataset)
    if any(report.encoded for report in made.reports):
        artifacts.frames(extraction)
    else:
        logger.info("%s: nothing changed, no item was encoded again", dataset)
    artifacts.report(settings_module.load(), dataset)


def _announce(dataset: str, report: ExtractReport, spec_hash: str) -> None:
    payload = {
        "dataset": dataset,
        "feature": report.feature,
        "spec_hash": spec_hash,
        "version": report.version,
        "toy": report.toy,
    }
    resource = {"prefect.resource.id": f"featurestore.{dataset}.{report.feature}"}
    with contextlib.suppress(OSError):  # the store is committed; `reconcile` finds what an event missed
        emit_event(MATERIALIZED_EVENT, resource=resource, payload=payload)


@flow(name=HELPER)
def encode_shards(
    dataset: str, features: list[str] | None = None, options: Options = None, started: str | None = None
) -> dict[str, int]:
    """Help a run that extracts the same: encode the shards that nobody else does, and commit nothing.

    Args:
        dataset: Name of a prepared dataset.
        features: Encoders, as that run has them.
        options: Settings, as that run has them.
        started: When that run started, ISO 8601; None for now.

    Returns:
        Rows that this run wrote, by feature.
    """
    job = Job.of(dataset, features=features, options=options, started=started)
    rows: dict[str, int] = {}
    with SESSIONS.opened(job) as extraction:
        for group in extraction.groups:
            figures = encode_shared(job, extraction, group)
            extraction.release(group)
            rows |= {feature: part["encoded"] for feature, part in figures.items()}
    get_run_logger().info("%s: this run wrote %s", dataset, rows or "nothing")
    return rows


@dataclass(frozen=True)
class _Call:
    """What the flows have in common, see :func:`extract_microlens`."""

    source: str | None
    limit: int | None
    checkpoint: str | None
    features: list[str] | None
    prepare: Options
    options: Options
    only: str | None
    shards: str | None
    since: str | None
    verify: float
    fleet: Fleet

    def run(self, dataset: str) -> list[dict[str, Any]]:
        """Prepare and extract a dataset."""
        preparation = dict(self.prepare or {}) | ({"limit": self.limit} if self.limit is not None else {})
        prepare_dataset(dataset, source=self.source, options=preparation)
        named = {"checkpoint": self.checkpoint, "only": self.only, "shards": self.shards, "since": self.since}
        chosen = dict(self.options or {}) | {key: value for key, value in named.items() if value is not None}
        return extract_dataset(dataset, features=self.features, options=chosen, fleet=self.fleet, verify=self.verify)


@flow(name="extract-microlens")
def extract_microlens(  # noqa: PLR0913  parameters of a deployment are named one by one
    variant: Literal["50k", "100k", "1m", "small", "big"] = "50k",
    source: str | None = None,
    limit: Limit = None,
    checkpoint: str | None = None,
    features: list[str] | None = None,
    prepare: Options = None,
    options: Options = None,
    only: Only = None,
    shards: Shards = None,
    since: Since = None,
    verify: Verify = 0.0,
    workers: Workers = 1,
    task_runner: Runner = "local",
    address: str | None = None,
) -> list[dict[str, Any]]:
    """Prepare MicroLens and bring its feature stores up to date.

    Args:
        variant: Which release, or which of the two subsets that MealRec's paper takes.
        source: Path or URL that replaces the official place of the raw files.
        limit: Keep the first items by id only, for smoke runs.
        checkpoint: Checkpoint of every encoder; ``tiny`` for the seeded toy ones, None for the configured ones.
        features: Encoders; None for all that the dataset has media for.
        prepare: Further fields of ``PrepareConfig``, such as ``{"k_user": 4}``.
        options: Further settings of the extraction or of the encoders, such as ``{"videomae.batch_size": 16}``.
        only: ``failed`` retries what is in quarantine and does nothing else.
        shards: Numbers of the shards to do, such as ``3``, ``3..7`` or ``3,5..9``; None for all.
        since: Only items whose file was modified on that day (UTC) or later, such as ``2026-11-01``.
        verify: Part of the videos to decode again in full afterwards, 0 to 1; the run fails where one differs.
        workers: Workers of the pool that encode together.
        task_runner: Where shards are encoded: ``local`` in the workers, ``ray`` or ``dask`` on a cluster.
        address: Of the cluster; None for ``RAY_ADDRESS`` or ``DASK_ADDRESS``, and without it one on this machine.
    """
    fleet = Fleet(workers, task_runner, address)
    return _Call(source, limit, checkpoint, features, prepare, options, only, shards, since, verify, fleet).run(
        f"microlens-{variant}"
    )


@flow(name="extract-shortvideo")
def extract_shortvideo(  # noqa: PLR0913  parameters of a deployment are named one by one
    variant: Literal["full", "small", "big"] = "full",
    source: str | None = None,
    limit: Limit = None,
    checkpoint: str | None = None,
    features: list[str] | None = None,
    prepare: Options = None,
    options: Options = None,
    only: Only = None,
    shards: Shards = None,
    since: Since = None,
    verify: Verify = 0.0,
    workers: Workers = 1,
    task_runner: Runner = "local",
    address: str | None = None,
) -> list[dict[str, Any]]:
    """Prepare Shortvideo and bring its feature stores up to date; arguments as for ``extract-microlens``."""
    fleet = Fleet(workers, task_runner, address)
    return _Call(source, limit, checkpoint, features, prepare, options, only, shards, since, verify, fleet).run(
        "shortvideo" if variant == "full" else f"shortvideo-{variant}"
    )


@flow(name="extract-amazon")
def extract_amazon(  # noqa: PLR0913  parameters of a deployment are named one by one
    category: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")] = "toys",
    source: str | None = None,
    limit: Limit = None,
    checkpoint: str | None = None,
    features: list[str] | None = None,
    prepare: Options = None,
    options: Options = None,
    only: Only = None,
    shards: Shards = None,
    since: Since = None,
    verify: Verify = 0.0,
    workers: Workers = 1,
    task_runner: Runner = "local",
    address: str | None = None,
) -> list[dict[str, Any]]:
    """Prepare one Amazon category and bring its feature stores up to date.

    ``category`` is in kebab case, such as ``toys`` or ``gift-cards``; other arguments as for ``extract-microlens``.
    """
    fleet = Fleet(workers, task_runner, address)
    return _Call(source, limit, checkpoint, features, prepare, options, only, shards, since, verify, fleet).run(
        f"amazon-{category}"
    )
