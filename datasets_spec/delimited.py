"""Interaction tables with a separator and no quoting, read in blocks of lines as columns.

A table of ten million rows is never walked row by row: each block is split, judged and converted by expressions, and
only what is kept stays in memory. A row that cannot be used becomes a bad row with the number of its physical line.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from datasets_spec.errors import SchemaError
from datasets_spec.lines import read_chunks
from datasets_spec.schema import TIME, BadRow

#: 2100-01-01, in milliseconds: no row of any dataset is that young.
LAST_MS = 4_102_444_800_000
#: An id of these files: a number of at most 64 bits, without sign and leading zeros, so that none has two spellings.
_ID = r"^(?:0|[1-9][0-9]{0,17})$"
_BLOCK = 16 << 20


@dataclass(frozen=True)
class RowLayout:
    """How the rows of a table are written.

    Attributes:
        separator: Between the fields of a line.
        columns: Names of the fields in their order; with a header, the names that have to be in it.
        user: The column of user ids.
        item: The column of item ids.
        milliseconds: Time in milliseconds since 1970 UTC, of the columns as texts; null where none can be read.
        header: The first line names the columns, in any order and with any others between them.
        faults: Further reasons to refuse a row, each with an expression over the columns as texts.
    """

    separator: str
    columns: tuple[str, ...]
    user: str
    item: str
    milliseconds: pl.Expr
    header: bool = False
    faults: tuple[tuple[str, pl.Expr], ...] = ()


def read_interactions(path: Path, layout: RowLayout, bad_rows: list[BadRow]) -> pl.DataFrame:
    """Read a table of interactions; gzip is recognised by content.

    Args:
        path: The file. Bytes that are not UTF-8 make bad rows.
        layout: How its rows are written.
        bad_rows: Rows that cannot be used are appended: ``malformed_row`` for a wrong number of fields, ``bad_id`` for
            an id that is no whole number, a reason of the layout, ``bad_timestamp`` for a time before 1970 or after
            2099.

    Returns:
        ``user_id`` and ``item_id`` (Int64, as the schema of raw interactions allows) and ``timestamp``, in the order
        of the lines. Blank lines are passed over.

    Raises:
        SchemaError: The first line has other columns than the layout says.
        DamagedFileError: The file is empty, or a gzip stream that ends early.
    """
    names: list[str] = []
    parts: list[pl.DataFrame] = []
    for number, chunk in read_chunks(path, size=_BLOCK):
        lines = _lines(number, chunk)
        if number == 1:
            names = _columns(path, str(lines["line"][0]), layout)
            lines = lines[1:] if layout.header else lines
        judged = _judge(lines, names, layout)
        bad_rows.extend(_bad_rows(path, judged, layout))
        parts.append(
            judged.filter(pl.col("reason").is_null()).select(
                pl.col(layout.user).cast(pl.Int64).alias("user_id"),
                pl.col(layout.item).cast(pl.Int64).alias("item_id"),
                pl.col("ms").cast(TIME).alias("timestamp"),
            )
        )
    return pl.concat(parts)


def _lines(number: int, chunk: bytes) -> pl.DataFrame:
    """Lines as columns ``number`` and ``line``, without carriage returns and byte order mark."""
    try:
        lines = pl.read_lines(io.BytesIO(chunk))
    except pl.exceptions.ComputeError:
        lines = pl.read_lines(io.BytesIO(chunk.decode("utf-8", errors="replace").encode()))
    text = pl.col("line").str.strip_chars_end("\r")
    if number == 1:
        text = text.str.strip_prefix("\ufeff")
    return lines.select(pl.int_range(number, number + pl.len(), dtype=pl.Int64).alias("number"), text)


def _columns(path: Path, first: str, layout: RowLayout) -> list[str]:
    """Names of the fields, of which the first line is the witness."""
    fields = [field.strip() for field in first.split(layout.separator)]
    shown = layout.separator.join(layout.columns)
    if layout.header:
        if set(layout.columns) <= set(fields) and len(set(fields)) == len(fields):
            return fields
        raise SchemaError(f"{path}, line 1: expected a header with the columns {shown}, found {first[:200]!r}")
    names = list(layout.columns)
    if len(fields) == len(names) and fields[names.index(layout.user)].isdigit():
        return names
    raise SchemaError(
        f"{path}, line 1: expected {len(names)} fields {shown} and no header, found {len(fields)} in {first[:200]!r}"
    )


def _judge(lines: pl.DataFrame, names: Sequence[str], layout: RowLayout) -> pl.DataFrame:
    """Add the needed columns as texts, ``ms``, and ``reason``: null for a good row, ``blank`` for no row at all."""
    expressions = (layout.milliseconds, *(fault for _, fault in layout.faults))
    needed = {layout.user, layout.item, *(name for each in expressions for name in each.meta.root_names())}
    last, rest = f"field_{len(names) - 1}", f"field_{len(names)}"
    fields = pl.col("line").str.splitn(layout.separator, len(names) + 1).alias("fields")
    table = lines.with_columns(fields).unnest("fields")
    wrong_number = pl.col(last).is_null() | pl.col(rest).is_not_null()
    table = table.select(
        "number",
        "line",
        *(pl.col(f"field_{names.index(name)}").str.strip_chars().alias(name) for name in sorted(needed)),
        wrong_number.alias("wrong_number"),
    ).with_columns(layout.milliseconds.alias("ms"))
    good_ids = pl.col(layout.user).str.contains(_ID) & pl.col(layout.item).str.contains(_ID)
    reasons = (
        ("blank", pl.col("line").str.strip_chars() == ""),
        ("malformed_row", pl.col("wrong_number")),
        ("bad_id", ~good_ids),
        *layout.faults,
        ("bad_timestamp", ~pl.col("ms").is_between(1, LAST_MS).fill_null(value=False)),
    )
    first = pl.coalesce([pl.when(fault).then(pl.lit(reason)) for reason, fault in reasons])
    return table.with_columns(first.alias("reason"))


def _bad_rows(path: Path, judged: pl.DataFrame, layout: RowLayout) -> list[BadRow]:
    bad = judged.filter(pl.col("reason") != "blank").select("number", layout.item, "reason", "line")
    return [BadRow(path.name, number, item_id, reason, line) for number, item_id, reason, line in bad.iter_rows()]
