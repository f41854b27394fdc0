"""Items of the ShortVideo dataset, gathered from the rows of its interaction table and its list of categories."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from datasets_spec.errors import DamagedFileError, SchemaError

_LONGEST_SECONDS = 86_400
_CATEGORY_COLUMNS = ("category_id", "category_level", "parent_id", "root_id")
_NAMES = {"category": "category_name_cn", "category_en": "category_name_en"}


def gather_items(rows: pl.LazyFrame, names: list[str], categories: Path | None) -> tuple[pl.DataFrame, list[str]]:
    """One row per pid; what is taken from several rows does not depend on their order.

    Args:
        rows: Good rows, all columns text.
        names: Columns of ``rows``.
        categories: The list of category names; None = there is none.

    Returns:
        ``item_id`` and ``title`` (Chinese), and as far as the files have them: ``tags``, joined by ``", "``;
        ``category`` and ``category_en``, the path of names of the deepest category; ``duration`` in seconds. Without
        the list ``category`` is the tags, or else the category's number. Sorted by item id. And notes.

    Raises:
        SchemaError: The list lacks a column.
        DamagedFileError: The list is empty or no csv file.
    """
    items, notes = _texts_and_durations(rows, names)
    if "tag_name" in names:
        items = items.join(_tags(rows), on="pid", how="left")
    if "category_id" in names:
        deepest = _deepest_category(rows, names)
        if categories is None:
            items = items.join(deepest.select("pid", category="category_id"), on="pid", how="left")
        else:
            named, category_notes = _named(deepest, categories)
            notes += category_notes
            items = items.join(named, on="pid", how="left")
    if "tags" in items.columns and categories is None:
        items = items.with_columns(category=pl.col("tags"))
    order = ("pid", "title", "tags", "category", "category_en", "duration")
    return items.select(name for name in order if name in items.columns).rename({"pid": "item_id"}).sort(
        "item_id"
    ), notes


def _clean(column: str) -> pl.Expr:
    """White space collapsed; blank is null."""
    text = pl.col(column).str.replace_all(r"\s+", " ").str.strip_chars()
    return pl.when(text != "").then(text)


def _texts_and_durations(rows: pl.LazyFrame, names: list[str]) -> tuple[pl.DataFrame, list[str]]:
    """Title and duration of each pid; where its rows differ the smallest, which no order of rows changes."""
    columns = [pl.col("pid")]
    if "title" in names:
        columns.append(pl.when(pl.col("title").str.strip_chars() != "").then("title"))
    if "duration" in names:
        seconds = pl.col("duration").str.strip_chars().cast(pl.Float64, strict=False)
        possible = (seconds > 0) & (seconds <= _LONGEST_SECONDS)
        columns.append(pl.when(possible).then(seconds).alias("duration"))
    told = [name for name in ("title", "duration") if name in names]
    spread = [pl.col(name).min() for name in told] + [pl.col(name).max().alias(f"{name}_max") for name in told]
    items = rows.select(columns).group_by("pid").agg(spread).collect(engine="streaming")
    notes = list[str]()
    for name in told:
        several = int((items[name] != items[f"{name}_max"]).sum())
        if several:
            notes.append(f"{several} of {items.height} items have more than one {name}; the smallest is taken")
    if "duration" in told and items["duration"].null_count():
        notes.append(f"{items['duration'].null_count()} of {items.height} items have no usable duration")
    title = _clean("title") if "title" in told else pl.lit(None, pl.String).alias("title")
    items = items.with_columns(title)
    return items.drop([f"{name}_max" for name in told]), notes


def _tags(rows: pl.LazyFrame) -> pl.DataFrame:
    distinct = rows.select("pid", "tag_name").unique().collect(engine="streaming")
    cleaned = distinct.select("pid", _clean("tag_name")).drop_nulls().unique().sort("pid", "tag_name")
    return cleaned.group_by("pid", maintain_order=True).agg(pl.col("tag_name").str.join(", ").alias("tags"))


def _deepest_category(rows: pl.LazyFrame, names: list[str]) -> pl.DataFrame:
    """Of the categories of a pid that of the highest level, and of several the one with the smallest number."""
    there = [name for name in _CATEGORY_COLUMNS if name in names]
    distinct = rows.select("pid", *there).unique().collect(engine="streaming")
    absent = [pl.lit(None, pl.String).alias(name) for name in _CATEGORY_COLUMNS if name not in names]
    cleaned = distinct.select("pid", *(_clean(name) for name in there), *absent).drop_nulls("category_id")
    number = pl.col("category_id").cast(pl.Int64, strict=False)
    level = pl.col("category_level").cast(pl.Int64, strict=False)
    ranked = cleaned.sort(
        *("pid", level, number, "category_id", "parent_id", "root_id"),
        descending=[False, True, False, False, False, False],
        nulls_last=True,
    )
    return ranked.unique("pid", keep="first", maintain_order=True)


def _named(deepest: pl.DataFrame, path: Path) -> tuple[pl.DataFrame, list[str]]:
    """The paths of names, ``root > parent > category``, in Chinese and English."""
    listed, notes = _read_categories(path)
    combinations = deepest.select(_CATEGORY_COLUMNS).unique()
    paths = {kind: [_path(row, listed[kind]) for row in combinations.iter_rows(named=True)] for kind in _NAMES}
    named = combinations.with_columns(pl.Series(kind, texts, dtype=pl.String) for kind, texts in paths.items())
    joined = deepest.join(named, on=_CATEGORY_COLUMNS, how="left", nulls_equal=True)
    without = joined["category"].null_count()
    if without:
        notes.append(f"{without} items have a category that is not in {path.name}")
    return joined.select("pid", *_NAMES), notes


def _path(row: dict[str, str | None], names: dict[str, str]) -> str | None:
    """Names from the root to the category itself; levels repeat the ids of the levels above them."""
    if row["category_id"] not in names:
        return None
    ids = dict.fromkeys(row[column] for column in ("root_id", "parent_id", "category_id"))
    return " > ".join(names[number] for number in ids if number in names)


def _read_categories(path: Path) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Names by category id, in Chinese and English; of several rows of an id the first counts."""
    if path.stat().st_size == 0:
        raise DamagedFileError(f"{path}: expected a csv file with a header, the file is empty")
    table = pl.read_csv(path, infer_schema=False, truncate_ragged_lines=True, encoding="utf8-lossy")
    table = table.rename(lambda name: name.strip().removeprefix("\ufeff"))
    expected = ("category_id", *_NAMES.values())
    missing = [name for name in expected if name not in table.columns]
    if missing:
        raise SchemaError(
            f"{path}: expected the columns {', '.join(expected)}; {', '.join(missing)} missing among "
            f"{', '.join(table.columns)[:500]}"
        )
    table = table.select(_clean(name) for name in expected).filter(pl.col("category_id").is_not_null())
    first = table.unique("category_id", keep="first", maintain_order=True)
    notes = list[str]()
    if first.height < table.height:
        several = table.height - table.filter(pl.col("category_id").is_unique()).height
        notes.append(f"{path.name}: {several} rows share their category id with another; the first of each counts")
    names = {
        kind: {number: name for number, name in first.select("category_id", column).iter_rows() if name is not None}
        for kind, column in _NAMES.items()
    }
    return names, notes
