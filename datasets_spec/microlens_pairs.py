"""Interactions of the MicroLens family: pairs with times, or a sequence per user without."""

import io
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from datasets_spec.errors import DamagedFileError, SchemaError
from datasets_spec.schema import RAW_INTERACTIONS, TIME, BadRow

#: What user and item ids look like; such an id is a safe file name.
ID = r"^[0-9A-Za-z_-]+$"
_PLAIN = ("user_id", "item_id", "timestamp")
#: The names in the file and those in its readme, in lower case, and ours.
_HEADERS = {
    **dict.fromkeys(("user", "userid", "user_id"), "user_id"),
    **dict.fromkeys(("item", "itemid", "item_id", "video", "videoid"), "item_id"),
    "timestamp": "timestamp",
}
_LAST_MS = 4_102_444_800_000  # 2100-01-01


def read_pairs(path: Path, bad_rows: list[BadRow]) -> pl.DataFrame:
    """Read ``user,item,timestamp`` (milliseconds); malformed lines are appended to `bad_rows`.

    Returns:
        Columns of ``RAW_INTERACTIONS``; ``order`` is the line number.

    Raises:
        SchemaError: The header is another.
        DamagedFileError: The file is empty.
    """
    lines = physical_lines(path)
    if lines.is_empty():
        raise DamagedFileError(f"{path}: expected the header user,item,timestamp and rows, the file is empty")
    columns = _header(path, str(lines["line"][0]))
    if columns is not None:
        lines = lines[1:]
    fields = pl.col("line").str.splitn(",", 4)
    table = lines.with_columns(
        *(fields.struct.field(f"field_{i}").str.strip_chars().alias(name) for i, name in enumerate(columns or _PLAIN)),
        fields.struct.field("field_3").alias("rest"),
    ).with_columns(pl.col("timestamp").cast(pl.Int64, strict=False).alias("ms"))
    reason = (
        pl.when(pl.col("line").str.strip_chars() == "")
        .then(pl.lit("blank"))
        .when(pl.col("rest").is_not_null() | pl.col("timestamp").is_null())
        .then(pl.lit("malformed_row"))
        .when(~(pl.col("user_id").str.contains(ID) & pl.col("item_id").str.contains(ID)))
        .then(pl.lit("bad_id"))
        .when(pl.col("ms").is_null() | ~pl.col("ms").is_between(0, _LAST_MS))
        .then(pl.lit("bad_timestamp"))
    )
    table = table.with_columns(reason.alias("reason"))
    bad = table.filter(pl.col("reason") != "blank")
    bad_rows.extend(bad_lines(path, bad))
    return (
        table.filter(pl.col("reason").is_null())
        .select("user_id", "item_id", pl.col("ms").cast(TIME).alias("timestamp"), pl.col("number").alias("order"))
        .cast({"order": RAW_INTERACTIONS["order"]})
    )


def read_sequences(path: Path, bad_rows: list[BadRow]) -> pl.DataFrame:
    """Read lines of a user, a tab and the items in order of time; what is malformed is appended to `bad_rows`.

    Returns:
        Columns of ``RAW_INTERACTIONS``; ``timestamp`` is null, ``order`` the place of the item in its line, from 1.

    Raises:
        DamagedFileError: The file is empty.
    """
    lines = physical_lines(path)
    if lines.is_empty():
        raise DamagedFileError(f"{path}: expected lines of a user, a tab and items, the file is empty")
    fields = pl.col("line").str.splitn("\t", 2)
    lines = (
        lines.filter(pl.col("line").str.strip_chars() != "")
        .with_columns(
            fields.struct.field("field_0").str.strip_chars().alias("user_id"),
            fields.struct.field("field_1").str.extract_all(r"\S+").alias("item_id"),
        )
        .with_columns(
            pl.when(pl.col("item_id").list.len().fill_null(0) == 0)
            .then(pl.lit("malformed_row"))
            .when(~pl.col("user_id").str.contains(ID))
            .then(pl.lit("bad_id"))
            .when(~pl.col("user_id").is_first_distinct())
            .then(pl.lit("repeated_user"))
            .alias("reason")
        )
    )
    bad = lines.filter(pl.col("reason").is_not_null()).with_columns(pl.lit(None, pl.String).alias("item_id"))
    bad_rows.extend(bad_lines(path, bad))
    rows = (
        lines.filter(pl.col("reason").is_null())
        .with_columns(pl.int_ranges(1, pl.col("item_id").list.len() + 1, dtype=pl.Int64).alias("order"))
        .explode("item_id", "order")
    )
    good = pl.col("item_id").str.contains(ID)
    bad_rows.extend(bad_lines(path, rows.filter(~good).with_columns(pl.lit("bad_id").alias("reason"))))
    return rows.filter(good).select("user_id", "item_id", pl.lit(None, TIME).alias("timestamp"), "order")


def _header(path: Path, first: str) -> list[str] | None:
    """Our names for the columns of the header line; None when the file starts with data."""
    names = [name.strip().strip('"') for name in first.split(",")]
    if len(names) == 3 and names[2].isdigit():
        return None
    known = [_HEADERS.get(name.lower(), name) for name in names]
    if sorted(known) != sorted(_PLAIN):
        raise SchemaError(f"{path}, line 1: expected the header user,item,timestamp, got {first[:200]!r}")
    return known


def bad_lines(path: Path, table: pl.DataFrame) -> Iterator[BadRow]:
    """A row for each line of a table with the columns ``number``, ``item_id``, ``reason`` and ``line``."""
    columns = table.select("number", "item_id", "reason", "line")
    for number, item_id, reason, line in columns.iter_rows():
        yield BadRow(path.name, number, item_id, reason, line)


def physical_lines(path: Path) -> pl.DataFrame:
    """Physical lines as columns ``number`` (from 1) and ``line``, without byte order mark and carriage returns.

    Bytes that are not UTF-8 become U+FFFD.
    """
    try:
        lines = pl.read_lines(path)
    except pl.exceptions.ComputeError:
        lines = pl.read_lines(io.BytesIO(path.read_bytes().decode("utf-8", errors="replace").encode()))
    text = pl.col("line").str.strip_chars_end("\r").str.strip_prefix("\ufeff")
    return lines.select(pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias("number"), text)
