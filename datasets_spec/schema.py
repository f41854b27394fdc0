"""Column names and types of every table, written once, and the checks at the boundaries.

Raw tables come out of a source's ``parse``; prepared tables are what lies in ``prepared/<dataset>/``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from datasets_spec.errors import SchemaError

TIME = pl.Datetime("ms", "UTC")

#: Number 0 is padding: users and items are numbered from 1.
PADDING = 0

RAW_INTERACTIONS: dict[str, pl.DataType] = {
    "user_id": pl.String(),
    "item_id": pl.String(),
    "timestamp": TIME,
    "order": pl.Int64(),
}
INTERACTIONS: dict[str, pl.DataType] = {
    "user": pl.Int32(),
    "item": pl.Int32(),
    "user_id": pl.String(),
    "item_id": pl.String(),
    "timestamp": TIME,
    "position": pl.Int32(),
    "split": pl.String(),
}
#: Items have these first; the columns that the dataset has follow.
ITEMS: dict[str, pl.DataType] = {"item": pl.Int32(), "item_id": pl.String(), "title": pl.String()}
USERS: dict[str, pl.DataType] = {"user": pl.Int32(), "user_id": pl.String(), "interactions": pl.Int32()}
#: Rows of each user in each split.
SPLITS: dict[str, pl.DataType] = {"user": pl.Int32(), "train": pl.Int32(), "valid": pl.Int32(), "test": pl.Int32()}
QUARANTINE: dict[str, pl.DataType] = {
    "file": pl.String(),
    "line": pl.Int64(),
    "item_id": pl.String(),
    "stage": pl.String(),
    "reason": pl.String(),
    "detail": pl.String(),
}

#: Item columns that hold absolute paths of media files, and the columns that say where such a file can be had.
MEDIA_COLUMNS: dict[str, tuple[str, ...]] = {"video": ("video", "video_url"), "image": ("image", "image_url")}


@dataclass(frozen=True)
class BadRow:
    """A row of a raw file, or an item, that could not be used; it goes to ``quarantine.parquet``.

    Attributes:
        file: Name of the raw file, or address of the media file.
        line: Physical line, counted from 1; None where there is none.
        item_id: The item concerned, where known.
        reason: Short machine-readable word, such as ``malformed_json``.
        detail: What was found, for people; shortened to 300 characters.
    """

    file: str
    line: int | None
    item_id: str | None
    reason: str
    detail: str

    def __post_init__(self) -> None:
        """Shorten the detail."""
        object.__setattr__(self, "detail", self.detail[:300])


@dataclass(frozen=True)
class RawTables:
    """What ``parse`` returns.

    Attributes:
        interactions: Columns :data:`RAW_INTERACTIONS`. ``timestamp`` is null where the source has none; ``order`` is
            looked at only in rows without a timestamp, and there it is the time (it may be null elsewhere). Row
            order means nothing.
        items: ``item_id`` (unique), ``title`` and what the dataset has: ``category``, ``brand``, ``video``, ``image``
            (absolute paths), ``video_url``, ``image_url`` … Items of ``interactions`` may be absent here.
        bad_rows: Rows and items that could not be used.
        files: The raw files that were read; their hashes go to the manifest.
        notes: Sentences for the manifest and the log, such as that the metadata file is missing.
    """

    interactions: pl.DataFrame
    items: pl.DataFrame
    bad_rows: list[BadRow] = field(default_factory=list[BadRow])
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check columns, types, null ids and unique items.

        Raises:
            SchemaError: Naming the table and the column.
        """
        check_columns(self.interactions, RAW_INTERACTIONS, table="raw interactions")
        check_columns(self.items, {"item_id": pl.String(), "title": pl.String()}, table="raw items", exact=False)
        for frame, column in ((self.interactions, "user_id"), (self.interactions, "item_id"), (self.items, "item_id")):
            nulls = frame[column].null_count()
            if nulls:
                raise SchemaError(f"column {column!r}: expected no nulls, got {nulls}; the source must quarantine them")
        doubled = self.items.height - self.items["item_id"].n_unique()
        if doubled:
            raise SchemaError(f"raw items: expected unique item_id, got {doubled} repeated rows")

    def __repr__(self) -> str:
        return (
            f"RawTables(interactions={self.interactions.height} rows, items={self.items.height} rows "
            f"{self.items.columns}, bad_rows={len(self.bad_rows)})"
        )


def check_columns(frame: pl.DataFrame, expected: dict[str, pl.DataType], *, table: str, exact: bool = True) -> None:
    """Compare the columns of a table with what they must be.

    Args:
        frame: The table.
        expected: Name and type of each column, in order.
        table: What the message calls the table.
        exact: Refuse further columns, and another order.

    Raises:
        SchemaError: Naming the table, the column, the expected and the actual type.
    """
    for name, dtype in expected.items():
        if name not in frame.columns:
            raise SchemaError(f"{table}: expected a column {name!r}; got columns {', '.join(frame.columns)}")
        if frame.schema[name] != dtype:
            raise SchemaError(f"{table}: column {name!r}: expected {dtype}, got {frame.schema[name]}")
    if exact and frame.columns != list(expected):
        raise SchemaError(
            f"{table}: expected exactly the columns {', '.join(expected)}; got {', '.join(frame.columns)}"
        )


def bad_rows_frame(rows: list[BadRow], *, stage: str) -> pl.DataFrame:
    """The quarantine table (:data:`QUARANTINE`) of bad rows of one stage."""
    columns = {
        "file": [row.file for row in rows],
        "line": [row.line for row in rows],
        "item_id": [row.item_id for row in rows],
        "stage": [stage] * len(rows),
        "reason": [row.reason for row in rows],
        "detail": [row.detail for row in rows],
    }
    return pl.DataFrame(columns, schema=QUARANTINE)
