"""Your own interactions: ``reelstore prepare custom-NAME source=FOLDER``.

The folder holds ``interactions.parquet`` (or ``.csv``, ``.tsv``) with a user, an item and a time in each row, and may
hold ``items.parquet`` (or ``.csv``, ``.tsv``) with titles, categories, brands, and paths of videos and images below
the folder. Columns are found by name, whatever the case and the underscores: see :data:`INTERACTIONS`, :data:`ITEMS`.

* Ids are texts or integers. Integers are never turned into texts row by row.
* A time is a date column, a text in ISO 8601 (UTC where it names no zone), or a number since 1970. The unit of a number
  is the ending of the column's name (``timestamp_s``, ``_ms``, ``_us``, ``_ns``). Without such an ending it is told by
  size: every value that could be a time between March 1973 and 2106 must be one in the same unit; the ranges of the
  units do not touch. Other values, such as 0, are bad times.
* Where there is no time, a column ``order`` or ``position`` of integers takes its place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from datasets_spec.errors import DamagedFileError, MissingSourceError, SchemaError
from datasets_spec.media_files import nothing_to_fetch, source_url
from datasets_spec.raw import acquire_files, raw_root
from datasets_spec.schema import TIME, BadRow, RawTables
from datasets_spec.spec import DatasetSpec, Licence, PrepareConfig, Progress, RemoteFile

NAMES: tuple[str, ...] = ()  # any custom-NAME

_NAME = re.compile(r"custom-[a-z0-9]+(?:-[a-z0-9]+)*")
_ENDINGS = (".parquet", ".csv", ".tsv")
#: Columns of the interactions, and the names they may have: lower case, without ``_``, ``-`` and blanks.
INTERACTIONS: dict[str, tuple[str, ...]] = {
    "user_id": ("userid", "user", "uid", "reviewerid", "visitorid", "customerid", "memberid"),
    "item_id": ("itemid", "item", "iid", "videoid", "movieid", "productid", "articleid", "asin", "pid"),
    "timestamp": (
        *("timestamp", "time", "ts", "datetime", "date", "unixtime", "unixreviewtime", "eventtime", "createdat"),
        *(f"{name}{unit}" for name in ("timestamp", "time", "ts") for unit in ("s", "ms", "us", "ns")),
    ),
    "order": ("order", "position"),
}
#: Columns of the items, and the names they may have.
ITEMS: dict[str, tuple[str, ...]] = {
    "item_id": INTERACTIONS["item_id"],
    "title": ("title", "name", "text", "caption"),
    "category": ("category", "categories", "genre", "genres"),
    "brand": ("brand", "store"),
    "video": ("video", "videopath", "videofile"),
    "image": ("image", "imagepath", "imagefile", "cover"),
}
#: Milliseconds in a unit of time, and how a second is written in it.
_UNITS = {"s": (1000.0, 1), "ms": (1.0, 1000), "us": (1e-3, 10**6), "ns": (1e-6, 10**9)}
_FIRST_SECOND, _LAST_SECOND = 10**8, 2**32
#: Bad rows of one kind beyond these are counted in a note and not listed.
_LISTED = 1000


def match(name: str) -> bool:
    """Whether ``name`` is ``custom-`` and a name in kebab case."""
    return _NAME.fullmatch(name) is not None


def spec(name: str) -> DatasetSpec:
    """The dataset: everything about it is in the folder."""
    files = (f"{table}{ending}" for table in ("interactions", "items") for ending in _ENDINGS)
    return DatasetSpec(
        name=name,
        title="Your own interactions and items",
        licence=Licence("your own", "", "Your own data, under whatever terms they have."),
        access=(
            "source=FOLDER with interactions.parquet, .csv or .tsv (columns user, item, timestamp) and, where there is "
            "one, items.parquet, .csv or .tsv (columns item, title, category, brand, and video, image: paths below the "
            "folder)."
        ),
        files=tuple(RemoteFile(file, file, required=False) for file in files),
        media=("video", "image"),
        config=PrepareConfig(),
    )


def acquire(
    spec: DatasetSpec, config: PrepareConfig, raw_dir: Path, *, source: str | None, progress: Progress | None
) -> None:
    """Point to the folder, or download the tables from an address.

    Raises:
        MissingSourceError: There is no interaction table.
    """
    if source is not None or raw_root(raw_dir) != raw_dir or source_url(raw_dir, None) is not None:
        acquire_files(spec, config, raw_dir, source=source, progress=progress)
    _table(spec, raw_dir, "interactions")


def _table(spec: DatasetSpec, raw_dir: Path, table: str) -> Path:
    folder = raw_root(raw_dir)
    paths = [folder / f"{table}{ending}" for ending in _ENDINGS]
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        there = ", ".join(sorted(path.name for path in folder.iterdir())[:10]) if folder.is_dir() else ""
        raise MissingSourceError(
            f"{spec.name}: expected one of {', '.join(path.name for path in paths)} in {folder}; found there: "
            f"{there or 'nothing'}. {spec.access}"
        )
    return found


def parse(spec: DatasetSpec, config: PrepareConfig, raw_dir: Path) -> RawTables:
    """Read interactions and, where there are any, items."""
    del config
    path = _table(spec, raw_dir, "interactions")
    interactions, bad_rows, notes = _interactions(path)
    try:
        items_path = _table(spec, raw_dir, "items")
    except MissingSourceError:
        empty = pl.DataFrame(schema={"item_id": pl.String, "title": pl.String})
        return RawTables(interactions, empty, bad_rows, (path,), (*notes, "there is no table of items: no titles"))
    items, bad_items, item_notes = _items(items_path)
    return RawTables(interactions, items, bad_rows + bad_items, (path, items_path), (*notes, *item_notes))


#: The paths were looked up when the items were read.
acquire_media = nothing_to_fetch


def _interactions(path: Path) -> tuple[pl.DataFrame, list[BadRow], tuple[str, ...]]:
    header = _header(path)
    found = _find(path, header, INTERACTIONS)
    moment = "timestamp" if "timestamp" in found else "order"
    absent = [column for column in ("user_id", "item_id", moment) if column not in found]
    if absent:
        what = ", ".join("timestamp (or order)" if column == "order" else column for column in absent)
        raise SchemaError(
            f"{path}: expected columns user, item, timestamp; found no {what} among the columns {', '.join(header)}. "
            "Rename the columns, such as user_id, item_id, timestamp_s"
        )
    wanted = {column: found[column] for column in ("user_id", "item_id", moment)}
    frame = _read(path, wanted)
    for column in ("user_id", "item_id"):
        _check_ids(path, frame[column], wanted[column])
    if moment == "timestamp":
        frame = frame.with_columns(timestamp=_times(path, frame["timestamp"], wanted["timestamp"]))
    else:
        order = frame["order"].cast(pl.Int64, strict=False)
        frame = frame.with_columns(timestamp=pl.lit(None, TIME), order=order)
    faults = {
        "missing_id": _no_id(frame, "user_id") | _no_id(frame, "item_id"),
        "bad_time": pl.col(moment).is_null(),
    }
    good = frame.select(~pl.any_horizontal(faults.values())).to_series()
    columns = ["user_id", "item_id", "timestamp", *(["order"] if moment == "order" else [])]
    if good.all():
        return frame.select(columns), [], ()
    bad_rows, notes = _bad_rows(path, frame.with_row_index("row").filter(~good), faults, wanted)
    return frame.select(columns).filter(good), bad_rows, notes


def _no_id(frame: pl.DataFrame, column: str) -> pl.Expr:
    empty = pl.col(column) == "" if frame.schema[column] == pl.String else pl.lit(value=False)
    return pl.col(column).is_null() | empty


def _bad_rows(
    path: Path, bad: pl.DataFrame, faults: Mapping[str, pl.Expr], wanted: Mapping[str, str]
) -> tuple[list[BadRow], tuple[str, ...]]:
    """Quarantine rows: the first of each kind, and a note where there are more."""
    first = 1 if path.suffix == ".parquet" else 2  # line 1 of a text file is its header
    rows: list[BadRow] = []
    notes: list[str] = []
    for reason, fault in faults.items():
        hit = bad.filter(fault)
        for row in hit.head(_LISTED).iter_rows(named=True):
            values = ", ".join(f"{wanted[column]}={row[column]!r}" for column in wanted)
            item = row["item_id"]
            rows.append(BadRow(path.name, row["row"] + first, None if item is None else str(item), reason, values))
        if hit.height > _LISTED:
            notes.append(f"{hit.height} rows of {path.name} are bad ({reason}); the first {_LISTED} are listed")
        bad = bad.filter(~fault)
    return rows, tuple(notes)


def _check_ids(path: Path, ids: pl.Series, name: str) -> None:
    if not (ids.dtype.is_integer() or isinstance(ids.dtype, pl.String | pl.Categorical | pl.Enum)):
        raise SchemaError(f"{path}: column {name!r}: expected texts or integers, got {ids.dtype}; convert it")


def _times(path: Path, values: pl.Series, name: str) -> pl.Series:
    """Times of any kind as :data:`TIME`; null where there is none."""
    if values.dtype == pl.String:
        values = _from_text(values)
    if values.dtype == pl.Date:
        values = values.cast(pl.Datetime("ms"))
    if isinstance(values.dtype, pl.Datetime):
        in_utc = values.dt.convert_time_zone if values.dtype.time_zone else values.dt.replace_time_zone
        return in_utc("UTC").dt.cast_time_unit("ms")
    if not values.dtype.is_numeric():
        raise SchemaError(f"{path}: column {name!r}: expected times or numbers, got {values.dtype}; convert it")
    named = re.search(r"(?:^|[_\-. ])(s|ms|us|ns)$", name.lower())
    low, high, unit = (None, None, named[1]) if named else _unit_by_size(path, values, name)
    factor = _UNITS[unit][0]
    if values.dtype.is_integer():
        times = values.cast(pl.Int64) * int(factor) if factor >= 1 else values.cast(pl.Int64) // round(1 / factor)
    else:
        times = (pl.select(pl.when(values.is_finite()).then(values)).to_series() * factor).round().cast(pl.Int64)
    if low is not None:
        times = pl.select(pl.when(values.is_between(low, high, closed="left")).then(times)).to_series()
    return times.cast(TIME)


def _from_text(texts: pl.Series) -> pl.Series:
    """Texts as integers, as numbers or as times: as the first of these that most of them are."""
    most = (len(texts) - texts.null_count()) / 2
    for dtype in (pl.Int64, pl.Float64):
        numbers = texts.cast(dtype, strict=False)
        if len(numbers) - numbers.null_count() > most:
            return numbers
    return texts.str.to_datetime(time_unit="ms", time_zone="UTC", strict=False)


def _unit_by_size(path: Path, values: pl.Series, name: str) -> tuple[int, int, str]:
    """The unit in which values are times between 1973 and 2106, and that range in it."""
    ranges = {unit: (_FIRST_SECOND * scale, _LAST_SECOND * scale) for unit, (_, scale) in _UNITS.items()}
    counts = {unit: int(values.is_between(*ends, closed="left").sum()) for unit, ends in ranges.items()}
    found = [unit for unit, count in counts.items() if count]
    if len(found) != 1:
        sizes = ", ".join(f"{counts[unit]} in {unit}" for unit in found) or "none"
        raise SchemaError(
            f"{path}: column {name!r}: expected times since 1970 in one unit, found by size {sizes} of {len(values)} "
            f"values between {values.min()} and {values.max()}. Say the unit in the name: {name}_s, _ms, _us or _ns; "
            "name the column order if its numbers are only an order"
        )
    return (*ranges[found[0]], found[0])


def _items(path: Path) -> tuple[pl.DataFrame, list[BadRow], tuple[str, ...]]:
    header = _header(path)
    found = _find(path, header, ITEMS)
    if "item_id" not in found:
        raise SchemaError(f"{path}: expected a column item; found the columns {', '.join(header)}. Rename one to item")
    frame = _read(path, found)
    _check_ids(path, frame["item_id"], found["item_id"])
    frame = frame.with_columns(_as_text(frame.schema[column], column) for column in found)
    if "title" not in found:
        frame = frame.with_columns(title=pl.lit(None, pl.String))
    faults = {"missing_id": pl.col("item_id").is_null()}
    bad_rows, notes = _bad_rows(path, frame.with_row_index("row").filter(faults["missing_id"]), faults, found)
    columns = ["item_id", "title", *(column for column in found if column not in ("item_id", "title"))]
    # Of different rows for one item the first by content stays, not the first by line.
    rows = frame.filter(pl.col("item_id").is_not_null()).select(columns).unique().sort(columns, nulls_last=True)
    items = rows.unique("item_id", keep="first", maintain_order=True)
    if rows.height > items.height:
        notes = (*notes, f"{rows.height - items.height} differing rows of the same item left out of {path.name}")
    for kind in ("video", "image"):
        if kind in found:
            items, missing = _look_up(items, kind, path)
            bad_rows += missing
    return items, bad_rows, notes


def _as_text(dtype: pl.DataType, column: str) -> pl.Expr:
    """Texts without blanks around them; null where nothing is left. Lists are joined by commas."""
    text = pl.col(column).list.join(", ") if isinstance(dtype, pl.List) else pl.col(column).cast(pl.String)
    return text.str.strip_chars().replace("", None).alias(column)


def _look_up(items: pl.DataFrame, kind: str, table: Path) -> tuple[pl.DataFrame, list[BadRow]]:
    """Absolute paths of the media files, and the items whose file is not there."""
    folder = table.parent.resolve()
    paths: list[str | None] = []
    bad_rows: list[BadRow] = []
    for item, value in items.select("item_id", kind).iter_rows():
        path = None if value is None else (folder / value).resolve()
        fault = None
        if path is not None and not path.is_relative_to(folder):
            fault = ("outside_folder", f"expected a {kind} below {folder}, got {value}")
        elif path is not None and not path.is_file():
            fault = ("not_found", f"{kind}: found no file at {path}")
        if fault:
            bad_rows.append(BadRow(table.name, None, item, *fault))
        paths.append(None if fault or path is None else str(path))
    return items.with_columns(pl.Series(kind, paths, dtype=pl.String)), bad_rows


def _find(path: Path, header: list[str], roles: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """The column of each role, where there is one: the one with the name that stands first in the role's list."""
    plain: dict[str, list[str]] = {}
    for column in header:
        plain.setdefault(re.sub(r"[_\-. ]", "", column.lower()), []).append(column)
    found: dict[str, str] = {}
    for role, names in roles.items():
        columns = next((plain[name] for name in names if name in plain), [])
        if len(columns) > 1:
            raise SchemaError(f"{path}: expected one column for {role}, found {', '.join(columns)}; rename one")
        if columns:
            found[role] = columns[0]
    return found


def _header(path: Path) -> list[str]:
    try:
        if path.suffix == ".parquet":
            return list(pl.read_parquet_schema(path))
        return pl.read_csv(path, n_rows=0, infer_schema=False, separator=_separator(path)).columns
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DamagedFileError(f"{path}: cannot be read as a {path.suffix[1:]} file: {error}") from error


def _read(path: Path, wanted: Mapping[str, str]) -> pl.DataFrame:
    """These columns, under the names of their roles; those of text files are texts."""
    columns = list(wanted.values())
    roles = {column: role for role, column in wanted.items()}
    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(path, columns=columns).rename(roles).select(*wanted)
        table = pl.read_csv(
            path, columns=columns, infer_schema=False, separator=_separator(path), truncate_ragged_lines=True
        )
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DamagedFileError(f"{path}: cannot be read as a {path.suffix[1:]} file: {error}") from error
    return table.rename(roles).select(pl.col(*wanted).str.strip_chars())


def _separator(path: Path) -> str:
    return "\t" if path.suffix == ".tsv" else ","
