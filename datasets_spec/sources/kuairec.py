"""KuaiRec 2.0: short videos that users of Kuaishou were shown, with the time they watched them.

Source: Gao et al., «KuaiRec», doi 10.1145/3511808.3557220; Zenodo record 18164998. ``KuaiRec.zip`` holds the exposures
of two months (``big_matrix.csv``; the nearly complete ``small_matrix.csv`` is a test bed and not read here) and item
tables. What the data look like, and what is done about it:

* Users see a video again: rows of equal (user, video) repeat, in part with all their columns. The first in time stays.
* Some rows have no time. They lie at no particular place of their user's rows, so their order is no time: they go to
  quarantine.
* Every exposure is an interaction, however long it was watched (``watch_ratio``): DimeRec states no bound. DreamRec's
  set of the same name seems to keep rows watched more than twice over, and to take a day of a user as a sequence; its
  92,090 sequences are therefore no users of ours.
* Captions are Chinese; some break their line. The tags are lists of numbers.
* Ids are those of version 2.0, in which a video was taken out and later ids moved down: they do not fit version 1.
"""

from __future__ import annotations

import csv
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from datasets_spec.archives import PackedTables, acquire_archive, find_tables
from datasets_spec.delimited import RowLayout, read_interactions
from datasets_spec.errors import SchemaError
from datasets_spec.lines import read_lines
from datasets_spec.media_files import nothing_to_fetch
from datasets_spec.schema import BadRow, RawTables
from datasets_spec.spec import DatasetSpec, Licence, PrepareConfig, Progress, PublishedCounts, RemoteFile

NAMES = ("kuairec",)

ARCHIVE = "KuaiRec.zip"
MATRIX, CAPTIONS, TAGS = "big_matrix.csv", "kuairec_caption_category.csv", "item_categories.csv"
_PACKED = PackedTables((MATRIX,), (CAPTIONS, TAGS), ("", "data", "KuaiRec/data", "KuaiRec 2.0/data"))
_MATRIX = RowLayout(
    ",",
    ("user_id", "video_id", "timestamp"),
    user="user_id",
    item="video_id",
    milliseconds=(pl.col("timestamp").cast(pl.Float64, strict=False) * 1000).round().cast(pl.Int64, strict=False),
    header=True,
    faults=(("missing_time", pl.col("timestamp").str.to_lowercase().is_in(["", "nan"])),),
)
_LEVELS = tuple(f"{level}_level_category_name" for level in ("first", "second", "third"))
_TEXTS = ("caption", "manual_cover_text")
_UNKNOWN = ("", "UNKNOWN")
_RECORD = re.compile(r'"?(0|[1-9][0-9]{0,17})"?,')

_log = logging.getLogger(__name__)


def match(name: str) -> bool:
    """Whether this module serves ``name``."""
    return name in NAMES


def spec(name: str) -> DatasetSpec:
    """The dataset."""
    return DatasetSpec(
        name=name,
        title="KuaiRec 2.0, big matrix: 7,176 users, 10,728 short videos, 12,530,806 exposures; captions in Chinese",
        licence=Licence(
            name="CC BY-SA 4.0",
            url="https://github.com/chongminggao/KuaiRec/blob/main/LICENSE",
            note="Name the authors; pass changed copies on under the same licence.",
        ),
        access=(
            f"Free download of {ARCHIVE} (432 MB) from Zenodo, which may be slow. source= takes a folder that holds "
            f"the archive or the unpacked {MATRIX}. The item tables {CAPTIONS} and {TAGS} may be missing."
        ),
        files=(RemoteFile(ARCHIVE, ARCHIVE), RemoteFile(CAPTIONS, CAPTIONS, required=False)),
        media=(),
        config=PrepareConfig(
            k_user=3, k_item=5, split="user_811", base_url="https://zenodo.org/records/18164998/files"
        ),
        published=(
            PublishedCounts("TA-Rec, table 4, as DreamRec prepares it (days of users)", 92_090, 7_261, 737_163),
        ),
    )


def acquire(
    spec: DatasetSpec, config: PrepareConfig, raw_dir: Path, *, source: str | None, progress: Progress | None
) -> None:
    """Download the archive and the captions, or point to a folder that holds the archive or its tables."""
    for line in acquire_archive(spec, _PACKED, config, raw_dir, source=source, progress=progress):
        _log.info("%s: without %s", spec.name, line)


def parse(spec: DatasetSpec, config: PrepareConfig, raw_dir: Path) -> RawTables:
    """Read the exposures, and the videos of both item tables: caption, category path, tags."""
    del config
    paths, used = find_tables(spec, _PACKED, raw_dir)
    bad_rows: list[BadRow] = []
    interactions = read_interactions(paths[MATRIX], _MATRIX, bad_rows)
    captions = read_captions(paths[CAPTIONS], bad_rows) if CAPTIONS in paths else {}
    tags = read_tags(paths[TAGS], bad_rows) if TAGS in paths else {}
    ids = sorted({*captions, *tags}, key=int)
    items = pl.DataFrame(
        {
            "item_id": ids,
            "title": [captions.get(item_id, (None, None))[0] for item_id in ids],
            "category": [captions.get(item_id, (None, None))[1] for item_id in ids],
            "tags": [tags.get(item_id) for item_id in ids],
        },
        schema={"item_id": pl.String, "title": pl.String, "category": pl.String, "tags": pl.String},
    )
    without = {CAPTIONS: "titles and categories are null", TAGS: "tags are null"}
    notes = [f"the optional table {name} is missing: {what}" for name, what in without.items() if name not in paths]
    return RawTables(interactions, items, bad_rows, used, tuple(notes))


def read_captions(path: Path, bad_rows: list[BadRow]) -> dict[str, tuple[str | None, str | None]]:
    """Read titles and categories by video id.

    Args:
        path: ``kuairec_caption_category.csv``.
        bad_rows: Records that are malformed, repeated or not UTF-8 are appended.

    Returns:
        Title (the caption, else the text on the cover) and category path (``美食 > 小吃``), each None for none.

    Raises:
        SchemaError: It lacks a column.
        DamagedFileError: It is empty.
    """
    found: dict[str, tuple[str | None, str | None]] = {}
    for _, item_id, row in _records(path, ("video_id", *_TEXTS, *_LEVELS), bad_rows):
        texts = [text for column in _TEXTS if (text := _clean(row[column]))]
        levels = [text for column in _LEVELS if (text := _clean(row[column]))]
        found[item_id] = (texts[0] if texts else None, " > ".join(levels) or None)
    return found


def read_tags(path: Path, bad_rows: list[BadRow]) -> dict[str, str | None]:
    """Read the tags by video id: ``[27, 9]`` -> ``27, 9``.

    Args:
        path: ``item_categories.csv``.
        bad_rows: Records that are malformed or repeated, or whose ``feat`` is no list of whole numbers, are appended.

    Returns:
        Numbers of the tags, with commas; None for none.

    Raises:
        SchemaError: It lacks a column.
        DamagedFileError: It is empty.
    """
    found: dict[str, str | None] = {}
    for line, item_id, row in _records(path, ("video_id", "feat"), bad_rows):
        try:
            numbers: Any = json.loads(row["feat"])  # a list of numbers is written in JSON as in Python
        except (ValueError, RecursionError):
            numbers = None
        if isinstance(numbers, list) and all(type(number) is int for number in numbers):
            found[item_id] = ", ".join(map(str, numbers)) or None
        else:
            detail = f"feat: expected a list of whole numbers, found {row['feat']!r}"
            bad_rows.append(BadRow(path.name, line, item_id, "malformed_row", detail))
    return found


def _clean(text: str) -> str | None:
    text = " ".join(text.split())
    return None if text in _UNKNOWN else text


Record = tuple[int, str, dict[str, str]]  # line number, id, fields by name


def _records(path: Path, columns: tuple[str, ...], bad_rows: list[BadRow]) -> Iterator[Record]:
    """The usable records of a csv file, the first of each id."""
    names: list[str] = []
    seen: set[str] = set()
    for number, text in _joined(path):
        fields = _fields(text)
        if not names:
            names = [name.strip() for name in fields or ()]
            if not set(columns) <= set(names):
                raise SchemaError(
                    f"{path}, line 1: expected a header with the columns {', '.join(columns)}, found {text[:200]!r}"
                )
            continue
        found = _RECORD.match(text)
        item_id = found[1] if found else None
        if fields is None or item_id is None or len(fields) != len(names):
            reason = "malformed_row"
        elif "\ufffd" in text:
            reason = "bad_encoding"
        elif item_id in seen:
            reason = "repeated_item"
        else:
            seen.add(item_id)
            yield number, item_id, dict(zip(names, fields, strict=True))
            continue
        bad_rows.append(BadRow(path.name, number, item_id, reason, text))


def _joined(path: Path) -> Iterator[tuple[int, str]]:
    """Records with the numbers of their first lines.

    A line that does not begin with an id continues the record before it, whether or not quotes are open: captions
    break their lines in both ways. A quote that is never closed thus spoils its own record only.
    """
    begun, start = "", 0
    for number, raw in read_lines(path):
        line = raw.decode("utf-8-sig" if number == 1 else "utf-8", errors="replace").strip("\r\n").replace("\r", " ")
        if number == 1 or _RECORD.match(line):
            if begun:
                yield start, begun
            begun, start = line, number
        elif line.strip():
            begun = f"{begun} {line}"
    if begun:
        yield start, begun


def _fields(text: str) -> list[str] | None:
    try:
        return next(csv.reader([text], strict=True), None)
    except csv.Error:
        return None


acquire_media = nothing_to_fetch
