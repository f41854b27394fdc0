"""The interaction table of the ShortVideo dataset: one row per exposure and tag, times in Unix seconds."""

from pathlib import Path

import polars as pl

from datasets_spec.errors import DamagedFileError, SchemaError
from datasets_spec.schema import TIME, BadRow, RawTables

NEEDED = ("user_id", "pid", "exposed_time")
WATCHED_SECONDS = 3.0
_ID = r"^[0-9A-Za-z_-]+$"
_LAST_SECOND = 4_102_444_800  # 2100-01-01
_TRUE = ("true", "1", "1.0", "yes")
_FALSE = ("false", "0", "0.0", "no")


def parse_interactions(path: Path) -> RawTables:
    """Read the interaction csv, in any of its versions.

    Rows that differ in their tag alone are one exposure: (user_id, pid, exposed_time). An exposure is an interaction
    when its ``effective_view`` is true; where that column is absent, when it was watched for at least 3 s, which is
    how the authors define it.

    Args:
        path: The csv file.

    Returns:
        Interactions; items with ``title``, ``category`` (the tags, or else the category id) and ``duration`` in
        seconds, as far as the file has them, from its first row about each item; malformed rows with their numbers
        (exact as long as no quoted field spans lines).

    Raises:
        SchemaError: A column is missing.
        DamagedFileError: The file is empty or no csv file.
    """
    table = _read(path)
    missing = [name for name in NEEDED if name not in table.columns]
    if not {"effective_view", "watch_time"} & set(table.columns):
        missing.append("effective_view or watch_time")
    if missing:
        raise SchemaError(
            f"{path}: expected the columns {', '.join(NEEDED)} and effective_view or watch_time; "
            f"{', '.join(missing)} missing among {', '.join(table.columns)}"
        )
    table = table.with_columns(
        pl.col("exposed_time").cast(pl.Float64, strict=False).alias("second"), _effective(table).alias("effective")
    )
    reason = (
        pl.when(~(pl.col("user_id").str.contains(_ID) & pl.col("pid").str.contains(_ID)).fill_null(value=False))
        .then(pl.lit("bad_id"))
        .when(~pl.col("second").is_between(0, _LAST_SECOND).fill_null(value=False))
        .then(pl.lit("bad_timestamp"))
        .when(pl.col("effective").is_null())
        .then(pl.lit("bad_watch_time"))
    )
    table = table.with_columns(reason.alias("reason"))
    good = table.filter(pl.col("reason").is_null())
    exposures = good.unique(["user_id", "pid", "second"], keep="first", maintain_order=True)
    seen = exposures.filter(pl.col("effective"))
    interactions = seen.select(
        "user_id",
        pl.col("pid").alias("item_id"),
        (pl.col("second") * 1000).round().cast(pl.Int64).cast(TIME).alias("timestamp"),
        pl.col("line").alias("order"),
    )
    notes = [f"{exposures.height} exposures in {good.height} rows; {seen.height} of them are effective views"]
    if "effective_view" not in table.columns:
        notes.append(f"effective_view is absent: watch_time >= {WATCHED_SECONDS:g} s takes its place")
    return RawTables(interactions, _items(good), _bad_rows(path, table), (path,), tuple(notes))


def _read(path: Path) -> pl.DataFrame:
    """All columns as text, with the number of each row's line as ``line``."""
    if path.stat().st_size == 0:
        raise DamagedFileError(f"{path}: expected a csv file with a header, the file is empty")
    try:
        table = pl.read_csv(path, infer_schema=False, truncate_ragged_lines=True, encoding="utf8-lossy")
    except pl.exceptions.PolarsError as error:
        raise DamagedFileError(f"{path}: cannot be read as a csv file: {error}; fetch it again") from error
    table = table.rename(lambda name: name.strip().removeprefix("\ufeff"))
    return table.with_columns(pl.int_range(2, pl.len() + 2, dtype=pl.Int64).alias("line"))


def _effective(table: pl.DataFrame) -> pl.Expr:
    """Whether a row is an effective view; null where that cannot be said."""
    if "effective_view" not in table.columns:
        return pl.col("watch_time").cast(pl.Float64, strict=False) >= WATCHED_SECONDS
    text = pl.col("effective_view").str.strip_chars().str.to_lowercase()
    return pl.when(text.is_in(_TRUE)).then(pl.lit(value=True)).when(text.is_in(_FALSE)).then(pl.lit(value=False))


def _items(rows: pl.DataFrame) -> pl.DataFrame:
    """One row per pid, in order of appearance."""
    columns = [_first_text("title") if "title" in rows.columns else pl.lit(None, pl.String).alias("title")]
    if "tag_name" in rows.columns:
        tags = pl.col("tag_name").str.strip_chars().filter(pl.col("tag_name").str.strip_chars() != "")
        joined = tags.unique().sort().str.join(", ")
        columns.append(pl.when(joined != "").then(joined).alias("category"))
    elif "category_id" in rows.columns:
        columns.append(_first_text("category_id").alias("category"))
    if "duration" in rows.columns:
        columns.append(pl.col("duration").cast(pl.Float64, strict=False).drop_nulls().first())
    return rows.group_by("pid", maintain_order=True).agg(columns).rename({"pid": "item_id"})


def _first_text(column: str) -> pl.Expr:
    text = pl.col(column).str.strip_chars()
    return text.filter(text != "").first()


def _bad_rows(path: Path, table: pl.DataFrame) -> list[BadRow]:
    shown = [name for name in (*NEEDED, "watch_time", "effective_view") if name in table.columns]
    bad = table.filter(pl.col("reason").is_not_null()).select("line", "pid", "reason", pl.struct(shown).alias("row"))
    return [BadRow(path.name, line, pid, reason, str(row)) for line, pid, reason, row in bad.iter_rows()]
