"""What the page says about one feature store: what it holds, how it was made, what is wrong with it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from feature_store import FeatureStore, Snapshot, StoreError, list_stores
from flows.reporting.view import Cell, Fact, Table, bytes_text, code, count, plural, real, text, time_text
from flows.settings import Settings

log = logging.getLogger(__name__)

#: Rows of a quarantine that are listed; the others are counted.
MOST_ROWS = 50


@dataclass(frozen=True)
class StoreSection:
    """One store, for the page.

    Attributes:
        name: ``<dataset>/<feature>``.
        version: Of the latest snapshot; None where there is none.
        rows: Live rows.
        toy: The latest features were made with seeded random weights.
        toy_versions: All versions for which this holds.
        spec_hash: Identity of the spec.
        dataset_version: Version of the prepared dataset that the items came from, where it is recorded.
        summary: What it holds.
        making: How the numbers were made.
        quality: Figures about the vectors.
        spec_json: The whole spec.
        quarantined: Number of items in quarantine.
        reasons: Counts by stage and reason; None without quarantine.
        bad: The rows, at most ``MOST_ROWS``.
        sampling: Settings of the frame sampler of a video store, else empty.
        quarantined_ids: Ids of the items in quarantine.
        fault: Why the store cannot be read, else empty.
    """

    name: str
    version: int | None = None
    rows: int = 0
    toy: bool = False
    toy_versions: frozenset[int] = frozenset()
    spec_hash: str = ""
    dataset_version: str | None = None
    summary: tuple[Fact, ...] = ()
    making: tuple[Fact, ...] = ()
    quality: Table | None = None
    spec_json: str = ""
    quarantined: int = 0
    reasons: Table | None = None
    bad: Table | None = None
    sampling: Mapping[str, Any] | None = None
    quarantined_ids: frozenset[str] = frozenset()
    fault: str = ""

    @property
    def dataset(self) -> str:
        """The first part of the name."""
        return self.name.partition("/")[0]


def collect(settings: Settings) -> list[StoreSection]:
    """All stores by name; a store that cannot be read is a section that says so."""
    return [_section(name, store) for name, store in list_stores(settings.stores)]


def _section(name: str, store: FeatureStore) -> StoreSection:
    try:
        quarantined = store.quarantined()
    except StoreError as error:
        return StoreSection(name=name, fault=str(error))
    failures = _failures(name, quarantined)
    try:
        snapshot = store.latest()
    except StoreError as error:
        return StoreSection(name=name, fault=str(error), **failures)
    recorded = _part(snapshot.spec, "recorded")
    return StoreSection(
        name=name,
        version=snapshot.version,
        rows=snapshot.rows,
        toy=_is_toy(snapshot.spec),
        toy_versions=_toy_versions(store),
        spec_hash=snapshot.spec_hash,
        dataset_version=_dataset_version(recorded, snapshot.manifest.recorded),
        summary=_summary(snapshot, store.versions()),
        making=_making(snapshot.spec),
        quality=_quality(snapshot),
        spec_json=json.dumps({"spec": snapshot.spec, "recorded": snapshot.manifest.recorded}, indent=2),
        sampling=_part(snapshot.spec, "sampling"),
        **failures,
    )


def _is_toy(spec: Mapping[str, Any]) -> bool:
    return bool(_part(spec, "checkpoint").get("toy"))


def _toy_versions(store: FeatureStore) -> frozenset[int]:
    """Versions made with a toy checkpoint; an older version that cannot be read counts as none."""
    found: set[int] = set()
    for version in store.versions():
        try:
            if _is_toy(store.at(version).spec):
                found.add(version)
        except StoreError as error:
            log.warning("%s: %s", store.name, error)
    return frozenset(found)


def _part(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    part = values.get(key)
    return dict(part) if isinstance(part, Mapping) else {}


def _dataset_version(*recorded: Mapping[str, Any]) -> str | None:
    """The version of the prepared dataset, wherever the run recorded it."""
    for facts in recorded:
        version = facts.get("dataset_version", _part(facts, "dataset").get("version"))
        if isinstance(version, str):
            return version
    return None


def _summary(snapshot: Snapshot, versions: list[int]) -> tuple[Fact, ...]:
    manifest = snapshot.manifest
    coverage = snapshot.quality.coverage
    shapes = ", ".join(f"{name} {info.dtype} {_shape(info.shape)}" for name, info in manifest.columns.items())
    covered = f"{coverage.present:,} of {coverage.catalogue:,} items ({100 * coverage.share:.1f} %)"
    return (
        Fact("version", text(f"{snapshot.version} (of {plural(len(versions), 'version')})")),
        Fact("rows", count(snapshot.rows)),
        Fact("coverage", text(covered)),
        Fact("columns", text(shapes)),
        Fact("files", text(f"{plural(manifest.counts.shards, 'shard')}, {bytes_text(manifest.counts.bytes)}")),
        Fact("committed", text(time_text(manifest.created_at))),
        Fact("spec hash", code(snapshot.spec_hash, short=16)),
    )


def _shape(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]" if shape else "scalar"


def _making(spec: Mapping[str, Any]) -> tuple[Fact, ...]:
    checkpoint = _part(spec, "checkpoint")
    source = _part(_part(spec, "recorded"), "checkpoint")
    facts = {
        "encoder": text(spec.get("encoder")),
        "modality": text(spec.get("modality")),
        "checkpoint": code(source.get("source")),
        "revision": code(source.get("revision"), short=16),
        "weights sha256": code(checkpoint.get("weights_sha256"), short=16),
        "licence of the weights": text(source.get("licence")),
        "sampling": text(_settings_text(spec.get("sampling"))),
        "preprocessing": text(_settings_text(spec.get("preprocessing"))),
        "pooling": text(spec.get("pooling")),
        "arithmetic": text(spec.get("precision")),
        "stored as": text(spec.get("dtype")),
    }
    return tuple(Fact(name, value) for name, value in facts.items())


def _settings_text(values: object) -> str:
    if isinstance(values, Mapping):
        return ", ".join(f"{key} {_settings_text(value)}" for key, value in values.items())
    if isinstance(values, list):
        return "[" + ", ".join(map(_settings_text, values)) + "]"
    return f"{values:.6g}" if isinstance(values, float) else str(values if values is not None else "")


def _quality(snapshot: Snapshot) -> Table:
    quality = snapshot.quality
    suspicious = {
        "zero vectors": quality.zero_vectors,
        "norm outliers": quality.norm_outliers,
        "duplicates": quality.duplicate_vectors,
        "duplicates of other content": quality.suspicious_duplicates,
        "constant dimensions": quality.constant_dims,
    }
    figures = (
        real(quality.norm_median, 3),
        real(quality.norm_mad, 3),
        Cell(f"{quality.norm_min:.3f} to {quality.norm_max:.3f}", "number"),
        *(Cell(f"{number:,}", "warning" if number else "number") for number in suspicious.values()),
    )
    return Table(
        caption="Quality of the column embedding over all live rows.",
        header=("norm: median", "norm: MAD", "norm: range", *suspicious),
        rows=(figures,),
        note="MAD: median absolute deviation. Outlier: a norm more than 6 · 1.4826 · MAD, and 0.1 %, from the median.",
    )


def _failures(name: str, quarantined: pl.DataFrame) -> dict[str, Any]:
    return {
        "quarantined": quarantined.height,
        "quarantined_ids": frozenset(quarantined["item_id"].to_list()),
        "reasons": reasons_table(quarantined, caption=f"Quarantine of {name} by reason."),
        "bad": rows_table(
            quarantined,
            ("item_id", "stage", "reason", "detail", "attempts"),
            caption=f"Items of {name} in quarantine.",
        ),
    }


def reasons_table(rows: pl.DataFrame, *, caption: str) -> Table | None:
    """Counts by ``stage`` and ``reason``, most frequent first; None for no rows."""
    if rows.is_empty():
        return None
    counts = (
        rows.group_by("stage", "reason").len("rows").sort("rows", "stage", "reason", descending=[True, False, False])
    )
    cells = tuple((text(stage), code(reason), count(number)) for stage, reason, number in counts.iter_rows())
    return Table(caption, ("stage", "reason", "rows"), cells)


def rows_table(rows: pl.DataFrame, columns: tuple[str, ...], *, caption: str) -> Table | None:
    """The first ``MOST_ROWS`` rows, with a count of the others; None for no rows."""
    if rows.is_empty():
        return None
    shown = rows.select(columns).head(MOST_ROWS)
    cells = tuple(tuple(_cell(value) for value in row) for row in shown.iter_rows())
    others = rows.height - shown.height
    note = f"{plural(others, 'further row')} not shown." if others else ""
    return Table(caption, tuple(column.replace("_", " ") for column in columns), cells, note)


def _cell(value: object) -> Cell:
    return count(value) if isinstance(value, int) else text(value)
