"""Files of the releases of Amazon Reviews: reviews and products as JSON lines, ratings as csv.

Every reader takes the names of the members, so that one code reads the releases of 2018 and of 2023. A file of another
release is refused by its first lines: read on, it would give a dataset that is not what its name says.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import polars as pl

from datasets_spec.errors import SchemaError
from datasets_spec.lines import json_columns, json_objects, read_chunks, read_json_lines, read_lines
from datasets_spec.products import clean_title
from datasets_spec.schema import RAW_INTERACTIONS, TIME, BadRow

#: Lines that are looked at to tell the release.
_HEAD = 100
_PYTHON_LITERAL = re.compile(rb"\s*\{\s*u?'")
_ONLY_IN_2014 = ("helpful", "imUrl", "salesRank", "related")
_ASIN_LENGTH = 10
_BLANK = " \t\r\n\ufeff"
#: A lone half of a surrogate pair: JSON can write it, UTF-8 cannot.
_SURROGATE = re.compile("[\ud800-\udfff]")
_ROWS: dict[str, pl.DataType] = {"user_id": pl.String(), "item_id": pl.String(), "time": pl.Int64()}

Fields = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Release:
    """How one release writes an interaction.

    Attributes:
        title: Name of the release, for messages.
        user: Key of the user id in a review.
        item: Key of the item id in a review and in a product.
        time: Key of the time in a review.
        milliseconds: How many of them a unit of time has: 1000 where times are in seconds.
        first: Lowest time that can be meant, in that unit.
        last: Highest.
    """

    title: str
    user: str
    item: str
    time: str
    milliseconds: int
    first: int
    last: int

    @property
    def unit(self) -> str:
        """The unit of time, for messages."""
        return "seconds" if self.milliseconds == 1000 else "milliseconds"


def read_reviews(path: Path, release: Release, bad_rows: list[BadRow]) -> pl.DataFrame:
    """Read one review a line.

    Args:
        path: JSON lines, gzip or not.
        release: Whose they are.
        bad_rows: Lines that hold no review are appended here.

    Returns:
        Columns ``RAW_INTERACTIONS``, a row per review; ``order`` is null.

    Raises:
        SchemaError: The file is of another release.
        DamagedFileError: The file is empty or its gzip stream is damaged.
    """
    check_release(path, release, (release.user, release.item, release.time))
    columns = {release.user: pl.String(), release.item: pl.String(), release.time: pl.Int64()}
    pieces: list[pl.DataFrame] = []
    for number, chunk in read_chunks(path):
        rows = json_columns(chunk, columns)
        if rows is not None:
            rows = rows.rename(dict(zip(columns, _ROWS, strict=True)))
        if rows is None or not rows.select(_usable(release).all()).item():
            rows = _review_by_review(path.name, number, chunk, release, bad_rows)
        pieces.append(rows)
    return _interactions(pieces, release)


def read_ratings(path: Path, release: Release, bad_rows: list[BadRow], *, header: str | None) -> pl.DataFrame:
    """Read one rating a line, four fields between commas.

    Args:
        path: The csv file, gzip or not.
        release: Whose it is.
        bad_rows: Lines that hold no rating are appended here.
        header: The first line, user before item; None = there is none, and the item comes before the user.

    Returns:
        Columns ``RAW_INTERACTIONS``, a row per rating; ``order`` is null.

    Raises:
        SchemaError: The file has other columns.
        DamagedFileError: The file is empty or its gzip stream is damaged.
    """
    names = ["item_id", "user_id"] if header is None else ["user_id", "item_id"]
    _check_columns(path, header)
    pieces: list[pl.DataFrame] = []
    for number, chunk in read_chunks(path):
        lines = chunk.removesuffix(b"\n").decode("utf-8", "replace").split("\n")
        frame = pl.DataFrame({"text": lines}).with_columns(
            pl.col("text").str.strip_chars(_BLANK), line=pl.int_range(number, number + len(lines), dtype=pl.Int64)
        )
        frame = frame.filter((pl.col("text") != "") & ((pl.col("line") > 1) | (header is None)))
        fields = pl.col("text").str.splitn(",", 5).struct
        frame = frame.with_columns(
            fields.field("field_0").alias(names[0]),
            fields.field("field_1").alias(names[1]),
            fields.field("field_3").cast(pl.Int64, strict=False).alias("time"),
            (fields.field("field_3").is_not_null() & fields.field("field_4").is_null()).alias("four"),
        ).with_columns((pl.col("four") & _usable(release).fill_null(value=False)).alias("good"))
        bad_rows.extend(
            BadRow(path.name, line, None, "malformed_row", f"expected 4 fields, the last in {release.unit}: {text}")
            for line, text in frame.filter(~pl.col("good")).select("line", "text").iter_rows()
        )
        pieces.append(frame.filter("good").select(*_ROWS))
    return _interactions(pieces, release)


def read_products(
    path: Path,
    release: Release,
    wanted: set[str],
    fields: Fields,
    schema: dict[str, pl.DataType],
    bad_rows: list[BadRow],
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Read the products that are wanted, each once.

    Of different rows for one product the fullest stays; among equally full ones the first by content, not by line.

    Args:
        path: JSON lines, gzip or not.
        release: Whose they are.
        wanted: Item ids.
        fields: Gives the columns after ``item_id`` and ``title`` of one object.
        schema: Columns of the result: ``item_id``, ``title`` and those of ``fields``.
        bad_rows: Lines that hold no product, and titles that are none, are appended here.

    Returns:
        The products, and notes about rows left out and items without a row.

    Raises:
        SchemaError: The file is of another release.
        DamagedFileError: The file is empty or its gzip stream is damaged.
    """
    check_release(path, release, (release.item,))
    rows: list[dict[str, Any]] = []
    for line, raw in read_json_lines(path, bad_rows, where=(release.item, wanted)):
        item_id = raw.get(release.item)
        if not _is_id(item_id):
            detail = f"expected a text {release.item}, got {item_id!r}"
            bad_rows.append(BadRow(path.name, line, None, "missing_id", detail))
        elif item_id in wanted:
            title, fault = clean_title(raw.get("title"))
            if fault is not None:
                bad_rows.append(BadRow(path.name, line, item_id, "broken_title", fault))
            rows.append({"item_id": item_id, "title": title} | fields(raw))
    frame = pl.DataFrame(rows, schema=schema).unique()
    missing = pl.sum_horizontal(pl.exclude("item_id").is_null()).alias("missing")
    ordered = frame.with_columns(missing).sort("item_id", "missing", *list(schema)[1:], nulls_last=True)
    products = ordered.unique("item_id", keep="first", maintain_order=True).drop("missing")
    notes = list[str]()
    if frame.height > products.height:
        notes.append(f"{frame.height - products.height} differing metadata rows of the same item left out")
    absent = len(wanted) - products.height
    if absent:
        notes.append(f"{absent} of {len(wanted)} reviewed items have no metadata row")
    return products, tuple(notes)


def check_release(path: Path, release: Release, needed: tuple[str, ...]) -> None:
    """Look whether the first lines of a file are those of a release.

    Args:
        path: JSON lines, gzip or not.
        release: Whose they should be.
        needed: Keys that some of the first hundred objects must have.

    Raises:
        SchemaError: They are not: what was expected, what was found, and whose the file seems to be.
        DamagedFileError: The file is empty or its gzip stream is damaged.
    """
    head = [line for _, line in itertools.islice(read_lines(path), _HEAD)]
    first = next((line for line in head if line.strip()), b"")
    if _PYTHON_LITERAL.match(first):
        raise SchemaError(
            f"{path}: expected JSON, one object a line, as in {release.title}; its first line is a Python literal: "
            f"{first[:80].decode('utf-8', 'replace')!r}. So are the files of the 2014 release (v1), which is another "
            f"dataset. Take the file of {release.title} instead."
        )
    found: dict[str, None] = {}
    for _, row in json_objects(path.name, enumerate(head, start=1), []):
        found |= dict.fromkeys(row)
    whose = _whose(found)
    absent = [key for key in needed if key not in found]
    if found and (absent or whose == "the 2014 release (v1)"):
        raise SchemaError(
            f"{path}: expected objects with {', '.join(needed)}, as in {release.title}; found {', '.join(found)}"
            + (f". The file seems to be of {whose}." if whose else ".")
        )


def _whose(found: dict[str, None]) -> str | None:
    """The release that objects with these keys belong to."""
    if any(key in found for key in _ONLY_IN_2014):
        return "the 2014 release (v1)"
    if "parent_asin" in found:
        return "the 2023 release: datasets amazon-2023-CATEGORY"
    if "reviewerID" in found or ("asin" in found and "title" in found):
        return "the 2018 release (v2): datasets amazon-CATEGORY"
    return None


def _check_columns(path: Path, header: str | None) -> None:
    """Raise SchemaError when the first line of a csv file is not as it must be."""
    first = next(read_lines(path))[1].decode("utf-8", "replace").strip(_BLANK)
    if header is not None:
        if first != header:
            raise SchemaError(f"{path}, line 1: expected the header {header}, found {first[:200]!r}")
        return
    fields = first.split(",")
    if len(fields) != 4 or not fields[3].isdigit():
        raise SchemaError(f"{path}, line 1: expected item,user,rating,seconds and no header, found {first[:200]!r}")
    if len(fields[0]) != _ASIN_LENGTH and len(fields[1]) == _ASIN_LENGTH:
        raise SchemaError(
            f"{path}, line 1: expected item,user,rating,seconds, found the user first: {first[:200]!r}. So is the "
            "rating file of the 2014 release (v1), which is another dataset."
        )


def _review_by_review(name: str, number: int, chunk: bytes, release: Release, bad_rows: list[BadRow]) -> pl.DataFrame:
    """The slow way, which names every line that holds no review."""
    rows: list[tuple[str, str, int]] = []
    lines = enumerate(chunk.removesuffix(b"\n").split(b"\n"), start=number)
    for line, raw in json_objects(name, lines, bad_rows):
        user, item, time = raw.get(release.user), raw.get(release.item), raw.get(release.time)
        if not (_is_id(user) and _is_id(item)):
            detail = f"expected texts {release.user} and {release.item}, got {user!r} and {item!r}"
            bad_rows.append(BadRow(name, line, None, "missing_id", detail))
        elif not isinstance(time, int) or isinstance(time, bool) or not release.first <= time <= release.last:
            detail = f"expected {release.time} in {release.unit}, got {time!r}"
            bad_rows.append(BadRow(name, line, item, "bad_time", detail))
        else:
            rows.append((user, item, time))
    return pl.DataFrame(rows, schema=_ROWS, orient="row")


def _is_id(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and value != "" and _SURROGATE.search(value) is None


def _usable(release: Release) -> pl.Expr:
    named = (pl.col("user_id") != "") & (pl.col("item_id") != "")
    return named & pl.col("time").is_between(release.first, release.last)


def _interactions(pieces: list[pl.DataFrame], release: Release) -> pl.DataFrame:
    rows = pl.concat([pl.DataFrame(schema=_ROWS), *pieces])
    timestamp = (pl.col("time") * release.milliseconds).cast(TIME).alias("timestamp")
    order = pl.lit(None, RAW_INTERACTIONS["order"]).alias("order")
    return rows.select("user_id", "item_id", timestamp, order)
