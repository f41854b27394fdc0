"""Files of the MicroLens family: their names, and the three ways to write titles."""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from datasets_spec.microlens_pairs import ID, bad_lines, physical_lines, read_pairs, read_sequences
from datasets_spec.schema import BadRow, RawTables
from datasets_spec.spec import MediaKind, RemoteFile

Titles = Literal["quoted_csv", "first_comma"]
_QUOTED_RECORD = re.compile(r'\s*[0-9A-Za-z_-]+,(?:"|[^,]*$)')


@dataclass(frozen=True)
class MicroLensLayout:
    """Names of the files of one member of the family.

    Attributes:
        prefix: Beginning of the file names, such as ``MicroLens-50k``.
        titles: Name of the titles file.
        title_style: ``quoted_csv`` (header ``item,title``, quoted, CRLF) or ``first_comma`` (no header, the id, a
            comma, and then the title as it stands, quotes and commas included).
        categories: Name of the file ``id,category``; None = there is none.
        likes: Name of the file item, likes, views (tabs, no header); None = there is none.
        pins: SHA-256 and size of official files by name.
    """

    prefix: str
    titles: str
    title_style: Titles
    categories: str | None
    likes: str | None
    pins: dict[str, tuple[str, int]]

    @property
    def pairs(self) -> str:
        """Name of the interactions file: user, item, Unix milliseconds."""
        return f"{self.prefix}_pairs.csv"

    @property
    def sequences(self) -> str:
        """Name of the file that stands in for it: a user, a tab, and the items in order of time, without times."""
        return f"{self.prefix}_pairs.tsv"

    @property
    def media(self) -> dict[MediaKind, str]:
        """Paths of an item's video and cover: the file's stem is the item id."""
        return {"video": f"{self.prefix}_videos/{{id}}.mp4", "image": f"{self.prefix}_covers/{{id}}.jpg"}

    @property
    def archives(self) -> dict[MediaKind, str]:
        """Zip archives that hold the same files; that of the videos is split into volumes of 2 GB."""
        return {"video": f"{self.prefix}_videos.zip", "image": f"{self.prefix}_covers.zip"}

    def files(self) -> tuple[RemoteFile, ...]:
        """The raw files without media; only pairs and titles are required."""
        names = [(self.pairs, True), (self.titles, True), (self.categories, False), (self.likes, False)]
        return tuple(self._file(name, required=required) for name, required in names if name is not None)

    def _file(self, name: str, *, required: bool) -> RemoteFile:
        sha256, size = self.pins.get(name, (None, None))
        return RemoteFile(name, name, sha256=sha256, bytes=size, required=required)


LAYOUTS = {
    "microlens-50k": MicroLensLayout(
        prefix="MicroLens-50k",
        titles="MicroLens-50k_titles.csv",
        title_style="quoted_csv",
        categories=None,
        likes="MicroLens-50k_likes_and_views.txt",
        pins={
            "MicroLens-50k_pairs.csv": (
                "7ff8b91bcc84f5434ac2c5be7d0b7d7730f5e84f79f9648b5ae67a7641f97bbd",
                9_431_093,
            ),
            "MicroLens-50k_titles.csv": (
                "244aad5380cbbe0fb43458cfcda5ebe820f534384602f80a64dbbcd07dd30e49",
                2_392_145,
            ),
            "MicroLens-50k_likes_and_views.txt": (
                "9031dcd6fd575abc28776b6fe55a9b5a5a6446ff1d25bbb97d0e9437f480dfb2",
                386_787,
            ),
        },
    ),
    "microlens-100k": MicroLensLayout(
        prefix="MicroLens-100k",
        titles="MicroLens-100k_title_en.csv",
        title_style="first_comma",
        categories="tags_to_summary.csv",
        likes="MicroLens-100k_likes_and_views.txt",
        pins={},
    ),
    "microlens-1m": MicroLensLayout(
        prefix="MicroLens-1M",
        titles="MicroLens-1M_title.csv",
        title_style="first_comma",
        categories=None,
        likes=None,
        pins={},
    ),
}


def parse_microlens(layout: MicroLensLayout, folder: Path) -> RawTables:
    """Read the raw files of a member of the family.

    Args:
        layout: Names and styles.
        folder: Where the files lie.

    Returns:
        Interactions (of the file without times where the other is absent) and all items (``title``, null where there
        is none; ``category``, ``likes``, ``views`` where there are files for them); malformed lines with their numbers.

    Raises:
        SchemaError: The pairs file has another header than expected.
        DamagedFileError: A file is empty.
    """
    bad_rows: list[BadRow] = []
    notes: list[str] = []
    pairs = folder / layout.pairs
    if pairs.is_file():
        interactions = read_pairs(pairs, bad_rows)
    else:
        pairs = folder / layout.sequences
        interactions = read_sequences(pairs, bad_rows)
        notes.append(f"{layout.pairs} is missing: {layout.sequences} gives the order of the interactions, and no times")
    titles = read_titles(folder / layout.titles, layout.title_style, bad_rows)
    items = pl.DataFrame(
        {"item_id": list(titles), "title": [title or None for title in titles.values()]},
        schema={"item_id": pl.String, "title": pl.String},
    )
    untitled = interactions.select("item_id").unique().join(items, on="item_id", how="anti").sort("item_id")
    items = pl.concat([items, untitled], how="diagonal")
    files = [pairs, folder / layout.titles]
    for name, read in ((layout.categories, _read_categories), (layout.likes, _read_likes)):
        if name is None:
            continue
        if not (folder / name).is_file():
            notes.append(f"the optional file {name} is missing")
            continue
        items = items.join(read(folder / name, bad_rows), on="item_id", how="left", maintain_order="left")
        files.append(folder / name)
    return RawTables(interactions, items, bad_rows, tuple(files), tuple(notes))


def read_titles(path: Path, style: Titles, bad_rows: list[BadRow]) -> dict[str, str]:
    """Read titles by item id, in file order; malformed, repeated and empty ones are appended to `bad_rows`.

    An empty title stays in the result as an empty text.
    """
    records = _quoted_records(path) if style == "quoted_csv" else _first_comma_records(path)
    titles: dict[str, str] = {}
    for number, item_id, title, text in records:
        if item_id is None or title is None:
            reason = "malformed_row"
        elif "\ufffd" in text:
            reason = "bad_encoding"
        elif item_id in titles:
            reason = "repeated_item"
        else:
            titles[item_id] = title
            if title:
                continue
            reason = "empty_title"
        bad_rows.append(BadRow(path.name, number, item_id, reason, text))
    return titles


Record = tuple[int, str | None, str | None, str]  # line number, item id, title, the text as it stands


def _first_comma_records(path: Path) -> Iterator[Record]:
    """Each physical line is ``id,title``; a pair of quotes round the whole title is taken off, others stay."""
    for number, line in physical_lines(path).select("number", "line").iter_rows():
        if not line.strip():
            continue
        item_id, comma, title = line.partition(",")
        item_id, title = item_id.strip(), title.strip()
        if len(title) >= 2 and title[0] == title[-1] == '"' and title.count('"') % 2 == 0:
            title = title[1:-1].replace('""', '"').strip()
        good = bool(comma) and re.match(ID, item_id) is not None
        yield number, item_id if good else None, title if good else None, line


def _quoted_records(path: Path) -> Iterator[Record]:
    """Records of a quoted csv file with the header ``item,title``; one broken record never swallows the next."""
    pending, start = "", 0
    for number, line in physical_lines(path).select("number", "line").iter_rows():
        if number == 1 and line.replace('"', "").strip().lower() in ("item,title", "id,title", "item_id,title"):
            continue
        if pending and pending.count('"') % 2 == 1 and _QUOTED_RECORD.match(line) is None:
            pending += "\n" + line
            continue
        if pending.strip():
            yield _quoted_record(start, pending)
        pending, start = line, number
    if pending.strip():
        yield _quoted_record(start, pending)


def _quoted_record(number: int, text: str) -> Record:
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error:
        rows = []
    if len(rows) != 1 or len(rows[0]) != 2 or re.match(ID, rows[0][0].strip()) is None:
        return number, None, None, text
    return number, rows[0][0].strip(), rows[0][1].strip(), text


def _read_categories(path: Path, bad_rows: list[BadRow]) -> pl.DataFrame:
    categories = read_titles(path, "first_comma", bad_rows)
    return pl.DataFrame(
        {"item_id": list(categories), "category": [value or None for value in categories.values()]},
        schema={"item_id": pl.String, "category": pl.String},
    )


def _read_likes(path: Path, bad_rows: list[BadRow]) -> pl.DataFrame:
    fields = pl.col("line").str.splitn("\t", 3)
    table = (
        physical_lines(path)
        .filter(pl.col("line").str.strip_chars() != "")
        .with_columns(
            *(
                fields.struct.field(f"field_{i}").str.strip_chars().alias(name)
                for i, name in enumerate(("item_id", "likes", "views"))
            )
        )
        .with_columns(pl.col("likes", "views").cast(pl.Int64, strict=False))
        .with_columns(
            pl.when(pl.col("item_id").str.contains(ID) & pl.col("likes").is_not_null() & pl.col("views").is_not_null())
            .then(pl.when(pl.col("item_id").is_first_distinct()).then(None).otherwise(pl.lit("repeated_item")))
            .otherwise(pl.lit("malformed_row"))
            .alias("reason")
        )
    )
    bad_rows.extend(bad_lines(path, table.filter(pl.col("reason").is_not_null())))
    return table.filter(pl.col("reason").is_null()).select("item_id", "likes", "views")
