"""The flows ``extract-microlens``, ``extract-shortvideo`` and ``extract-amazon``.

Each prepares its dataset, plans against the stores, encodes in tasks of a bounded number of items, and commits once per
feature. The store decides what is done: tasks never cache, and a rerun after a crash encodes only what is missing.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated, Any, Literal

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event
from pydantic import Field

from flows import settings as settings_module
from flows.prepare import prepare_dataset

if TYPE_CHECKING:  # torch takes seconds to import, and a run that has nothing to encode needs none
    from extractors.extract import ExtractReport
    from flows.jobs.extract import Extraction, Group

MATERIALIZED_EVENT = "featurestore.materialized"

Limit = Annotated[int | None, Field(ge=1)]
Options = dict[str, Any] | None


def extract_dataset(
    dataset: str, *, features: list[str] | None = None, options: Options = None
) -> list[dict[str, Any]]:
    """Bring the stores of a prepared dataset up to date, inside a flow.

    Args:
        dataset: Name of a prepared dataset.
        features: Encoders; None for all that the dataset has media for.
        options: ``key=value`` of the extraction or of the encoders.

    Returns:
        One report per feature, as plain values.
    """
    from flows.jobs.extract import Extraction

    logger = get_run_logger()
    settings = settings_module.load()
    reports: list[ExtractReport] = []
    with Extraction(settings, dataset, features=features, overrides=options) as extraction:
        for group in extraction.groups:
            tasks = group.tasks(extraction.config.task_size)
            logger.info("%s: %d tasks", group.label, len(tasks))
            for number, item_ids in enumerate(tasks, start=1):
                _encode(extraction, group, f"{group.label} {number}/{len(tasks)}", item_ids)
            reports += _commit(extraction, group)
    rows = [report.as_dict() for report in reports]
    create_table_artifact(key=f"extract-{dataset}", table=rows, description=f"Feature stores of {dataset}")
    if any(report.toy for report in reports):
        logger.warning("%s: seeded TOY checkpoints: these features carry no knowledge of the world", dataset)
    if not any(report.encoded for report in reports):
        logger.info("%s: nothing changed, no item was encoded again", dataset)
    return rows


def _encode(extraction: Extraction, group: Group, name: str, item_ids: list[str]) -> None:
    """Encode some items as one task; the closure names the items, so only counts pass through Prefect."""

    @task(name="encode", task_run_name=name, cache_policy=NO_CACHE, persist_result=False)
    def encode() -> dict[str, dict[str, int]]:
        done = extraction.run(group, item_ids)
        return {feature: {"encoded": tally.encoded, "failed": tally.failed} for feature, tally in done.items()}

    encode()


def _commit(extraction: Extraction, group: Group) -> list[ExtractReport]:
    """Commit a group as one task and say so with an event per new version."""

    @task(name="commit", task_run_name=f"commit {group.label}", cache_policy=NO_CACHE, persist_result=False)
    def commit() -> list[ExtractReport]:
        return extraction.commit(group)

    before = {feature.name: feature.plan.base for feature in group.features}
    reports = commit()
    for report in reports:
        if report.version is not None and report.version != before[report.feature]:
            _announce(extraction.dataset, report)
    return reports


def _announce(dataset: str, report: ExtractReport) -> None:
    payload = {"dataset": dataset, "feature": report.feature, "version": report.version, "toy": report.toy}
    resource = {"prefect.resource.id": f"featurestore.{dataset}.{report.feature}"}
    with contextlib.suppress(OSError):  # the store is committed; `reconcile` finds what an event missed
        emit_event(MATERIALIZED_EVENT, resource=resource, payload=payload)


def _prepare_and_extract(
    dataset: str,
    *,
    source: str | None,
    limit: int | None,
    checkpoint: str | None,
    features: list[str] | None,
    prepare: Options,
    options: Options,
) -> list[dict[str, Any]]:
    preparation = dict(prepare or {}) | ({"limit": limit} if limit is not None else {})
    prepare_dataset(dataset, source=source, options=preparation)
    chosen = dict(options or {}) | ({"checkpoint": checkpoint} if checkpoint else {})
    return extract_dataset(dataset, features=features, options=chosen)


@flow(name="extract-microlens")
def extract_microlens(
    variant: Literal["50k", "100k", "1m"] = "50k",
    source: str | None = None,
    limit: Limit = None,
    checkpoint: str | None = None,
    features: list[str] | None = None,
    prepare: Options = None,
    options: Options = None,
) -> list[dict[str, Any]]:
    """Prepare MicroLens and bring its feature stores up to date.

    Args:
        variant: Which release.
        source: Path or URL that replaces the official place of the raw files.
        limit: Keep the first items by id only, for smoke runs.
        checkpoint: Checkpoint of every encoder; ``tiny`` for the seeded toy ones, None for the configured ones.
        features: Encoders; None for all that the dataset has media for.
        prepare: Further fields of ``PrepareConfig``, such as ``{"k_user": 4}``.
        options: Further settings of the extraction or of the encoders, such as ``{"videomae.batch_size": 16}``.
    """
    return _prepare_and_extract(
        f"microlens-{variant}", source=source, limit=limit, checkpoint=checkpoint, features=features, prepare=prepare,
        options=options,
    )  # fmt: skip


@flow(name="extract-shortvideo")
def extract_shortvideo(
    source: str | None = None,
    limit: Limit = None,
    checkpoint: str | None = None,
    features: list[str] | None = None,
    prepare: Options = None,
    options: Options = None,
) -> list[dict[str, Any]]:
    """Prepare Shortvideo and bring its feature stores up to date; arguments as for ``extract-microlens``."""
    return _prepare_and_extract(
        "shortvideo", source=source, limit=limit, checkpoint=checkpoint, features=features, prepare=prepare,
        options=options,
    )  # fmt: skip


@flow(name="extract-amazon")
def extract_amazon(
    category: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")] = "toys",
    source: str | None = None,
    limit: Limit = None,
    checkpoint: str | None = None,
    features: list[str] | None = None,
    prepare: Options = None,
    options: Options = None,
) -> list[dict[str, Any]]:
    """Prepare one Amazon category and bring its feature stores up to date.

    ``category`` is in kebab case, such as ``toys`` or ``gift-cards``; other arguments as for ``extract-microlens``.
    """
    return _prepare_and_extract(
        f"amazon-{category}", source=source, limit=limit, checkpoint=checkpoint, features=features, prepare=prepare,
        options=options,
    )  # fmt: skip
