"""Column names and types of every table, written once, and the checks at the boundaries.

Raw tables come out of a source's ``parse``; prepared tables are what lies in ``prepared/<dataset>/``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from datasets_spec.errors import SchemaError

TIME = pl.Datetime("ms", "UTC")

#: Number 0 is padding: users and items are numbered from 1.
PADDING = 0

#: Ids may also be integers or Categorical, which save memory; their texts are what counts. ``order`` may be left out.
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
#: Parts of a split; a row's part is held as an index into these.
PARTS = ("train", "valid", "test")
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
            looked at only in rows without a timestamp, and there it is the time (it may be null elsewhere, and absent
            where every row has a timestamp). Row order means nothing.
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
        check_columns(self.interactions, _raw_columns(self.interactions), table="raw interactions")
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


def _raw_columns(frame: pl.DataFrame) -> dict[str, pl.DataType]:
    """:data:`RAW_INTERACTIONS`, with what a source may choose as it is in ``frame``."""
    compact = {
        name: dtype
        for name, dtype in frame.schema.items()
        if name in ("user_id", "item_id") and (dtype.is_integer() or isinstance(dtype, pl.Categorical | pl.Enum))
    }
    expected = {**RAW_INTERACTIONS, **compact}
    return {name: dtype for name, dtype in expected.items() if name != "order" or name in frame.columns}


@dataclass(frozen=True)
class CodedInteractions:
    """Prepared interactions with users and items as numbers; their texts are looked up piece by piece when asked for.

    Attributes:
        rows: ``user`` and ``item`` (Int32, from 1), ``timestamp``, ``position`` (Int32) and ``split`` (UInt8, index
            into :data:`PARTS`); sorted by (user, position).
        users: String ``[users]`` id of user ``i + 1``.
        items: String ``[items]`` id of item ``i + 1``.
    """

    rows: pl.DataFrame
    users: pl.Series
    items: pl.Series

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.rows.height

    def column(self, name: str, start: int, length: int) -> pl.Series:
        """A piece of a column of :data:`INTERACTIONS`."""
        if name in ("user_id", "item_id"):
            texts = self.users if name == "user_id" else self.items
            found = texts.gather(self.rows[name.removesuffix("_id")].slice(start, length) - 1)
        elif name == "split":
            found = pl.Series(PARTS).gather(self.rows["split"].slice(start, length))
        else:
            found = self.rows[name].slice(start, length)
        return found.alias(name)

    def frame(self, start: int, length: int) -> pl.DataFrame:
        """Rows with the columns :data:`INTERACTIONS`."""
        return pl.DataFrame([self.column(name, start, length) for name in INTERACTIONS])

    def __repr__(self) -> str:
        return f"CodedInteractions({self.height} rows, {len(self.users)} users, {len(self.items)} items)"


def starts_of(user: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
    """Where each run of equal numbers begins in ``[rows]``, and the number of rows at the end: ``[runs + 1]``."""
    if len(user) == 0:
        return np.zeros(1, dtype=np.int64)
    return np.concatenate([[0], np.flatnonzero(user[1:] != user[:-1]) + 1, [len(user)]])


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
