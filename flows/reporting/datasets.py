"""What the page says about one prepared dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from datasets_spec.dataset import PreparedDataset
from datasets_spec.errors import DatasetsError
from flows.config import dump_toml
from flows.reporting import plots
from flows.reporting.contact_sheet import ContactSheet
from flows.reporting.stores import reasons_table, rows_table
from flows.reporting.view import Cell, Fact, Picture, Table, bytes_text, code, count, real, text, time_text
from flows.settings import Settings

SPLITS = (("train", "training"), ("valid", "validation"), ("test", "test"))


@dataclass(frozen=True)
class DatasetSection:
    """One prepared dataset, for the page.

    Attributes:
        name: Name.
        title: One line for people.
        version: Version of the prepared tables; empty where they cannot be read.
        interactions: Rows.
        bad_rows: Rows in quarantine.
        facts: Licence, date, configuration.
        tables: Statistics, steps, k-core rounds, split, raw files.
        pictures: k-core rounds, sequence lengths, popularity.
        leakage: The split's leakage line.
        sentences: Notes and what is missing.
        config_toml: The settings of the preparation.
        reasons: Bad rows by reason; None for none.
        bad: The bad rows, at most 50.
        raw_files: Number of raw files.
        sheet: Sampled frames and covers.
        fault: Why the dataset cannot be read, else empty.
    """

    name: str
    title: str = ""
    version: str = ""
    interactions: int = 0
    bad_rows: int = 0
    facts: tuple[Fact, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    leakage: str = ""
    sentences: tuple[str, ...] = ()
    config_toml: str = ""
    reasons: Table | None = None
    bad: Table | None = None
    raw_files: int = 0
    sheet: ContactSheet | None = None
    fault: str = ""


def names(settings: Settings) -> list[str]:
    """Datasets that have a prepared folder."""
    return sorted(path.parent.name for path in (settings.root / "prepared").glob("[!.]*/manifest.json"))


def collect(prepared: PreparedDataset, sheet: ContactSheet) -> DatasetSection:
    """Describe one dataset; a table that cannot be read is a section that says so."""
    try:
        return _section(prepared, sheet)
    except DatasetsError as error:
        return DatasetSection(name=prepared.name, fault=str(error))


def _section(prepared: PreparedDataset, sheet: ContactSheet) -> DatasetSection:
    manifest = prepared.manifest
    rows = prepared.interactions
    bad = prepared.quarantine
    rounds: list[dict[str, int]] = manifest["kcore"]["rounds"]
    pictures = [
        plots.sequence_lengths(rows.group_by("user").len()["len"].to_numpy()),
        plots.popularity(rows.group_by("item").len()["len"].to_numpy()),
    ]
    if rounds:
        removed = {side: [entry[f"removed_{side}"] for entry in rounds] for side in ("users", "items", "rows")}
        pictures.append(plots.kcore_rounds(removed))
    tables = (
        _statistics_table(manifest["stats"], manifest["items_with"]),
        _spread_table(manifest["stats"]),
        _steps_table(manifest["steps"]),
        _kcore_table(manifest["kcore"]),
        _split_table(rows),
        _raw_table(manifest["raw"]),
    )
    return DatasetSection(
        name=prepared.name,
        title=manifest["title"],
        version=prepared.version,
        interactions=rows.height,
        bad_rows=bad.height,
        facts=_facts(manifest),
        tables=tables,
        pictures=tuple(pictures),
        leakage=manifest["split"]["line"],
        sentences=tuple(manifest["notes"]),
        config_toml=dump_toml(manifest["config"]),
        reasons=reasons_table(bad, caption="Raw rows, items and media files that could not be used, by reason."),
        bad=rows_table(bad, ("file", "line", "item_id", "stage", "reason", "detail"), caption="These rows."),
        raw_files=len(manifest["raw"]),
        sheet=sheet,
    )


def _facts(manifest: Mapping[str, Any]) -> tuple[Fact, ...]:
    licence = manifest["licence"]
    return (
        Fact("version", code(manifest["version"], short=16)),
        Fact("prepared", text(time_text(manifest["created_at"]))),
        Fact("licence", text(f"{licence['name']}. {licence['note']}" if licence["note"] else licence["name"])),
    )


def _statistics_table(stats: Mapping[str, Any], items_with: Mapping[str, int]) -> Table:
    header = ("users", "items", "interactions", "density", *(f"items with {kind}" for kind in items_with))
    figures = [count(stats[name]) for name in ("users", "items", "interactions")]
    density = Cell(f"{100 * stats['density']:.4f} %", "number")
    first, last = stats["first"], stats["last"]
    times = f"Interactions from {time_text(first)} to {time_text(last)}." if first else "The source has no times."
    row = (*figures, density, *(count(number) for number in items_with.values()))
    return Table("Statistics after filtering.", header, (row,), times)


def _spread_table(stats: Mapping[str, Any]) -> Table:
    rows = tuple(
        (
            text(name),
            count(spread["min"]),
            real(spread["mean"], 2),
            real(spread["median"], 1),
            count(spread["max"]),
            real(spread["gini"], 3),
        )
        for name, spread in (("per user", stats["per_user"]), ("per item", stats["per_item"]))
    )
    note = "Gini: 0 = all have equally many; near 1 = a few have nearly all."
    return Table("Interactions per user and per item.", ("", "min", "mean", "median", "max", "Gini"), rows, note)


def _steps_table(steps: Sequence[Mapping[str, Any]]) -> Table:
    rows = tuple(
        (code(s["name"]), count(s["users"]), count(s["items"]), count(s["rows"]), text(s["note"])) for s in steps
    )
    return Table("What was left after each step of the preparation.", ("step", "users", "items", "rows", "note"), rows)


def _kcore_table(kcore: Mapping[str, Any]) -> Table:
    header = ("round", "users removed", "items removed", "rows removed", "users left", "items left", "rows left")
    rows: list[tuple[Cell, ...]] = [
        (text("in"), count(0), count(0), count(0), count(kcore["users"]), count(kcore["items"]), count(kcore["rows"]))
    ]
    number = 1
    for entry in kcore["rounds"]:
        passes = entry["passes"]
        name = f"{number}" if passes == 1 else f"{number} to {number + passes - 1}"
        number += passes
        figures = [entry[f"removed_{side}"] for side in ("users", "items", "rows")]
        figures += [entry[side] for side in ("users", "items", "rows")]
        rows.append((text(name), *(count(figure) for figure in figures)))
    note = "" if kcore["rounds"] else "Nothing had to leave: every user and item had enough rows from the start."
    caption = f"k-core, round by round: users with fewer than {kcore['k_user']} rows and items with fewer than "
    return Table(f"{caption}{kcore['k_item']} leave.", header, tuple(rows), note)


def _split_table(interactions: pl.DataFrame) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for key, name in SPLITS:
        part = interactions.filter(pl.col("split") == key)
        rows.append((text(name), count(part.height), count(part["user"].n_unique()), count(part["item"].n_unique())))
    return Table("Rows, users and items of each part of the split.", ("part", "rows", "users", "items"), tuple(rows))


def _raw_table(files: Sequence[Mapping[str, Any]]) -> Table:
    rows = tuple((code(f["file"]), Cell(bytes_text(f["bytes"]), "number"), code(f["sha256"], short=16)) for f in files)
    return Table("Raw files that were read.", ("file", "size", "sha256"), rows)
