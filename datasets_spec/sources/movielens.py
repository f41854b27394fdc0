"""MovieLens 10M: ratings of films, 0.5 to 5 stars in halves.

Source: Harper and Konstan, «The MovieLens Datasets», doi 10.1145/2827872. The archive ``ml-10m.zip`` holds
``ratings.dat`` (``UserID::MovieID::Rating::Timestamp``, seconds since 1970 UTC, no header) and ``movies.dat``
(``MovieID::Title (Year)::Genre|Genre``, UTF-8). Every rating is an interaction, whatever its stars: it says which film
the user turned to, liked or not. Users rated films by the dozen in one sitting, so that many times are equal or seconds
apart; ties break by item id.

How DimeRec prepares it is not published; the choices made here stand in ``configs/datasets/movielens-10m.toml``.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

import polars as pl

from datasets_spec.archives import PackedTables, acquire_archive, find_tables
from datasets_spec.delimited import LAST_MS, RowLayout, read_interactions
from datasets_spec.lines import read_lines
from datasets_spec.media_files import nothing_to_fetch
from datasets_spec.schema import BadRow, RawTables
from datasets_spec.spec import DatasetSpec, Licence, PrepareConfig, Progress, RemoteFile

NAMES = ("movielens-10m",)

ARCHIVE = "ml-10m.zip"
_PACKED = PackedTables(("ratings.dat", "movies.dat"), folders=("", "ml-10M100K"))
_STARS = pl.col("rating").cast(pl.Float64, strict=False)
_SECONDS = pl.col("timestamp").cast(pl.Int64, strict=False).clip(-1, LAST_MS)  # times 1000 it stays within 64 bits
_RATINGS = RowLayout(
    "::",
    ("user", "movie", "rating", "timestamp"),
    user="user",
    item="movie",
    milliseconds=_SECONDS * 1000,
    faults=(("bad_rating", ~(_STARS.is_between(0.5, 5) & (_STARS * 2 % 1 == 0)).fill_null(value=False)),),
)
_ITEMS: dict[str, pl.DataType] = {
    "item_id": pl.String(),
    "title": pl.String(),
    "category": pl.String(),
    "year": pl.Int64(),
}
_MOVIE = re.compile(r"(0|[1-9][0-9]{0,17})::(.*)::([^:]*)")
_YEAR = re.compile(r"\((\d{4})\)$")
_NO_GENRE = "(no genres listed)"

_log = logging.getLogger(__name__)


def match(name: str) -> bool:
    """Whether this module serves ``name``."""
    return name in NAMES


def spec(name: str) -> DatasetSpec:
    """The dataset."""
    return DatasetSpec(
        name=name,
        title="MovieLens 10M: 10,000,054 ratings of 10,681 films by 69,878 users",
        licence=Licence(
            name="GroupLens terms of use",
            url="https://files.grouplens.org/datasets/movielens/ml-10m-README.html",
            note="For research with acknowledgement; no redistribution and no commercial use without permission.",
        ),
        access=(
            f"Free download of {ARCHIVE} (63 MB). source= takes a folder that holds the archive or the unpacked "
            "ratings.dat and movies.dat."
        ),
        files=(RemoteFile(ARCHIVE, ARCHIVE),),
        media=(),
        config=PrepareConfig(split="user_811", base_url="https://files.grouplens.org/datasets/movielens"),
    )


def acquire(
    spec: DatasetSpec, config: PrepareConfig, raw_dir: Path, *, source: str | None, progress: Progress | None
) -> None:
    """Download the archive, or point to a folder that holds it or its tables."""
    for line in acquire_archive(spec, _PACKED, config, raw_dir, source=source, progress=progress):
        _log.info("%s: without %s", spec.name, line)


def parse(spec: DatasetSpec, config: PrepareConfig, raw_dir: Path) -> RawTables:
    """Read the ratings, and all films: title with year, genres, year."""
    del config
    paths, used = find_tables(spec, _PACKED, raw_dir)
    bad_rows: list[BadRow] = []
    interactions = read_interactions(paths["ratings.dat"], _RATINGS, bad_rows)
    return RawTables(interactions, read_movies(paths["movies.dat"], bad_rows), bad_rows, used)


def read_movies(path: Path, bad_rows: list[BadRow]) -> pl.DataFrame:
    """Read ``MovieID::Title (Year)::Genre|Genre``; a film whose line cannot be used has no row.

    Args:
        path: The file.
        bad_rows: Lines that are malformed, repeated or not UTF-8 are appended.

    Returns:
        ``item_id``, ``title`` as it stands, ``category`` (genres, ``Comedy, Drama``; null for none), ``year``.

    Raises:
        DamagedFileError: The file is empty.
    """
    rows: dict[str, tuple[str, str | None, str | None, int | None]] = {}
    for number, raw in read_lines(path):
        line = raw.decode("utf-8-sig" if number == 1 else "utf-8", errors="replace").strip()
        found = _MOVIE.fullmatch(line)
        if not line:
            continue
        if found is None or "\ufffd" in line or found[1] in rows:
            reason = "malformed_row" if found is None else "bad_encoding" if "\ufffd" in line else "repeated_item"
            bad_rows.append(BadRow(path.name, number, found[1] if found else None, reason, line))
            continue
        item_id, title = found[1], " ".join(found[2].split())
        genres = [genre.strip() for genre in found[3].split("|") if genre.strip() not in ("", _NO_GENRE)]
        year = _YEAR.search(title)
        rows[item_id] = (item_id, title or None, ", ".join(genres) or None, int(year[1]) if year else None)
    return pl.DataFrame(list(rows.values()), schema=_ITEMS, orient="row")


acquire_media = nothing_to_fetch
