"""Bring the feature stores of a dataset or a folder up to date, all of it in this process."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from extractors.audit import Comparison
from extractors.extract import ExtractReport
from feature_store import QualityGateError
from flows.jobs.choices import split_audit
from flows.jobs.extraction import Extraction
from flows.jobs.outcomes import ItemOutcome
from flows.jobs.prepare import ProgressCallback
from flows.jobs.shards import Shard
from flows.settings import Settings


@dataclass
class Extracted:
    """What an extraction did.

    Attributes:
        dataset: Name of the dataset or the folder.
        partial: Whether only a part of the work was asked for.
        reports: One per feature.
        items: What became of each item of a folder, and of the quarantined items of a dataset, feature by feature.
        shards: The shards as the stores have them now.
        ignored: What in a folder is no item of these features, with the reason.
        audit: The videos that were decoded again; None where none were to be.
    """

    dataset: str
    partial: bool
    reports: list[ExtractReport] = field(default_factory=list[ExtractReport])
    items: list[ItemOutcome] = field(default_factory=list[ItemOutcome])
    shards: list[Shard] = field(default_factory=list[Shard])
    ignored: dict[str, str] = field(default_factory=dict[str, str])
    audit: list[Comparison] | None = None


def extract_features(
    settings: Settings,
    dataset: str,
    *,
    features: Sequence[str] | None,
    overrides: Mapping[str, Any],
    progress: ProgressCallback | None = None,
) -> Extracted:
    """Encode, commit and, with ``verify=0.01`` among the overrides, decode that part of the videos again.

    Arguments and errors as for :class:`~flows.jobs.extraction.Extraction`.

    Raises:
        QualityGateError: For all features whose figures do not keep their limits; the others are published.
    """
    audited, values = split_audit(overrides)
    blocked: list[QualityGateError] = []
    with Extraction(settings, dataset, features=features, overrides=values, progress=progress) as extraction:
        videos = extraction.videos(audited.verify)
        done = Extracted(extraction.dataset, extraction.selection.partial, ignored=extraction.ignored())
        for group in extraction.groups:
            for number in group.open_shards():
                extraction.run(group, group.work(number))
            extraction.release(group)
            before = len(blocked)
            for name in [feature.name for feature in group.features]:
                try:
                    done.reports.append(extraction.commit(group, name))
                except QualityGateError as error:
                    blocked.append(error)
            done.shards += group.states()
            if len(blocked) == before:
                done.items += extraction.outcomes(group)
        if videos:
            done.audit = [entry for group in videos for entry in extraction.audit(group, audited.verify)]
    raise_together(blocked)
    return done


def raise_together(blocked: Collection[object]) -> None:
    """Raise the messages of all blocked features as one error.

    Raises:
        QualityGateError: When there is any.
    """
    if blocked:
        raise QualityGateError("\n".join(map(str, blocked)))
