"""The interaction table of the ShortVideo dataset: one row per exposure, tag and category, times in Unix seconds.

The table has up to 6.8 million rows in 1.4 GB, of which six on average are one exposure. It is scanned in streams, once
per question, and never held as a whole.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from datasets_spec.errors import DamagedFileError, SchemaError
from datasets_spec.schema import TIME, BadRow, RawTables
from datasets_spec.shortvideo_items import gather_items

NEEDED = ("user_id", "pid", "exposed_time")
WATCHED_SECONDS = 3.0
#: Rows that become quarantine rows; of more, the number is given.
MOST_BAD_ROWS = 100_000
_ID = r"^[0-9A-Za-z_-]+$"
#: Exposures are of September 2022; what lies outside 2010..2030 is no time in seconds.
_FIRST_SECOND, _LAST_SECOND = 1_262_304_000, 1_893_456_000
#: A video may be watched several times over, but not for more than a day.
_LONGEST_WATCH = 86_400
_TRUE = ("true", "1", "1.0", "yes")
_FALSE = ("false", "0", "0.0", "no")
_REPLACED = "\ufffd"


def parse_interactions(path: Path, categories: Path | None = None) -> RawTables:
    """Read the interaction csv, in any of its versions.

    Rows that differ in their tag or category alone are one exposure: (user_id, pid, exposed_time). An exposure is an
    interaction when its ``effective_view`` is true; where that column is absent, when it was watched for at least 3 s,
    which is how the publishers define it.

    Args:
        path: The csv file.
        categories: The list of category names; None = there is none.

    Returns:
        Interactions; the items of all good rows (:func:`datasets_spec.shortvideo_items.gather_items`); malformed rows
        with their numbers (that of the line as long as no title before it holds a line break).

    Raises:
        SchemaError: A column is missing, in the table or in the list.
        DamagedFileError: A file is empty or no csv file.
    """
    try:
        return _parse(path, categories)
    except pl.exceptions.PolarsError as error:
        raise DamagedFileError(
            f"{path}: expected a csv file in which every quote has its partner: {str(error)[:200]}; fetch it again"
        ) from None  # the error may quote the rest of the file


def _parse(path: Path, categories: Path | None) -> RawTables:
    table = scan(path)
    names = table.collect_schema().names()
    _check_columns(path, names)
    table = table.with_columns(second=_number("exposed_time"), effective=_effective(names))
    table = table.with_columns(reason=_reason(names))
    counts = _counts(table, names)
    good = table.filter(pl.col("reason").is_null())
    exposures, interactions = _interactions(good)
    items, item_notes = gather_items(good, names, categories)
    notes = [
        f"{exposures} exposures in {counts['rows'] - counts['bad']} rows, of which those that differ in tag or "
        f"category alone are one; {interactions.height} of them are effective views",
        "interactions are effective views only: a video is exposed by the platform's choice and watched by the user's",
    ]
    if "effective_view" not in names:
        notes.append(f"effective_view is absent: watch_time >= {WATCHED_SECONDS:g} s takes its place")
    if counts["bad"] > MOST_BAD_ROWS:
        notes.append(f"{counts['bad']} rows are malformed; the first {MOST_BAD_ROWS} of them are in quarantine")
    if counts["replaced"]:
        notes.append(
            f"{counts['replaced']} rows hold a title or tag with bytes that are not UTF-8, read as {_REPLACED}"
        )
    bad_rows = _bad_rows(path, table, names) if counts["bad"] else []
    files = (path,) if categories is None else (path, categories)
    return RawTables(interactions, items, bad_rows, files, (*notes, *item_notes))


def scan(path: Path) -> pl.LazyFrame:
    """All columns as text, and the number of each row's line as ``line``.

    Bytes that are not UTF-8 become U+FFFD.

    Raises:
        DamagedFileError: The file is empty.
    """
    if path.stat().st_size == 0:
        raise DamagedFileError(f"{path}: expected a csv file with a header, the file is empty")
    return pl.scan_csv(
        path,
        infer_schema=False,
        truncate_ragged_lines=True,
        encoding="utf8-lossy",
        with_column_names=lambda names: [name.strip().removeprefix("\ufeff") for name in names],
        row_index_name="line",
        row_index_offset=2,
    ).with_columns(pl.col("line").cast(pl.Int64))


def _check_columns(path: Path, names: list[str]) -> None:
    missing = [name for name in NEEDED if name not in names]
    if not {"effective_view", "watch_time"} & set(names):
        missing.append("effective_view or watch_time")
    if missing:
        found = ", ".join(name for name in names if name != "line")
        raise SchemaError(
            f"{path}: expected the columns {', '.join(NEEDED)} and effective_view or watch_time; "
            f"{', '.join(missing)} missing among {found[:500]}"
        )


def _number(column: str) -> pl.Expr:
    return pl.col(column).str.strip_chars().cast(pl.Float64, strict=False)


def _effective(names: list[str]) -> pl.Expr:
    """Whether a row is an effective view; null where that cannot be said."""
    if "effective_view" not in names:
        return _number("watch_time") >= WATCHED_SECONDS
    text = pl.col("effective_view").str.strip_chars().str.to_lowercase()
    return pl.when(text.is_in(_TRUE)).then(pl.lit(value=True)).when(text.is_in(_FALSE)).then(pl.lit(value=False))


def _reason(names: list[str]) -> pl.Expr:
    """What is wrong with a row; null when nothing is."""
    ids = pl.col("user_id").str.contains(_ID) & pl.col("pid").str.contains(_ID)
    second = pl.col("second").is_between(_FIRST_SECOND, _LAST_SECOND)
    reason = pl.when(~ids.fill_null(value=False)).then(pl.lit("bad_id"))
    reason = reason.when(~second.fill_null(value=False)).then(pl.lit("bad_timestamp"))
    if "watch_time" in names:
        given = pl.col("watch_time").str.strip_chars().fill_null("") != ""
        possible = _number("watch_time").is_between(0, _LONGEST_WATCH).fill_null(value=False)
        needed = pl.lit(value="effective_view" not in names)
        reason = reason.when((given | needed) & ~possible).then(pl.lit("bad_watch_time"))
    return reason.when(pl.col("effective").is_null()).then(pl.lit("bad_effective_view"))


def _counts(table: pl.LazyFrame, names: list[str]) -> dict[str, int]:
    """Rows, malformed rows, and rows whose title or tag holds bytes that are not UTF-8."""
    texts = [
        pl.col(name).str.contains(_REPLACED, literal=True).fill_null(value=False)
        for name in ("title", "tag_name")
        if name in names
    ]
    counts = table.select(
        rows=pl.len(),
        bad=pl.col("reason").is_not_null().sum(),
        replaced=pl.any_horizontal(texts).sum() if texts else pl.lit(0),
    )
    return counts.collect(engine="streaming").row(0, named=True)


def _interactions(good: pl.LazyFrame) -> tuple[int, pl.DataFrame]:
    """Number of exposures, and those that are effective views."""
    exposures = (
        good.select("user_id", "pid", (pl.col("second") * 1000).round().cast(pl.Int64).alias("ms"), "effective")
        .group_by("user_id", "pid", "ms")
        .agg(pl.col("effective").any())
        .collect(engine="streaming")
    )
    seen = exposures.filter(pl.col("effective")).select(
        "user_id",
        pl.col("pid").alias("item_id"),
        pl.col("ms").cast(TIME).alias("timestamp"),
    )
    return exposures.height, seen


def _bad_rows(path: Path, table: pl.LazyFrame, names: list[str]) -> list[BadRow]:
    shown = [name for name in (*NEEDED, "watch_time", "effective_view") if name in names]
    bad = table.filter(pl.col("reason").is_not_null()).select("line", "pid", "reason", pl.struct(shown).alias("row"))
    rows = bad.head(MOST_BAD_ROWS).collect(engine="streaming").sort("line")
    return [BadRow(path.name, line, pid, reason, str(row)) for line, pid, reason, row in rows.iter_rows()]
