"""YooChoose, the data of the RecSys Challenge 2015: clicks and purchases of an online shop, by session.

Source: Ben-Shimon et al., «RecSys Challenge 2015 and the YOOCHOOSE Dataset», doi 10.1145/2792838.2798723. The archive
``yoochoose-data.7z`` holds two tables without header, separated by commas: ``yoochoose-clicks.dat`` (session, time,
item, category) and ``yoochoose-buys.dat`` (session, time, item, price, quantity). Times are written in UTC
(``2014-04-06T18:44:58.314Z``) and read as such whatever the zone of this machine is. Sessions are the users; nothing
links two sessions of one person. There are no item attributes: the category of a click is that of the page at the time.

``yoochoose`` is the purchases, ``yoochoose-clicks`` the clicks of the same archive. DimeRec does not say which of them
it uses. The set of that name in the line of work that it continues (DreamRec) has 128,468 sequences of 4.2 rows, which
fits the 509,696 sessions with a purchase and not the 9,249,729 with a click.
"""

from __future__ import annotations

import logging
from pathlib import Path

import polars as pl

from datasets_spec.archives import PackedTables, acquire_archive, find_tables
from datasets_spec.delimited import RowLayout, read_interactions
from datasets_spec.media_files import nothing_to_fetch
from datasets_spec.schema import BadRow, RawTables
from datasets_spec.spec import DatasetSpec, Licence, PrepareConfig, Progress, PublishedCounts, RemoteFile

NAMES = ("yoochoose", "yoochoose-clicks")

ARCHIVE = "yoochoose-data.7z"
_FOLDERS = ("", "yoochoose-data")
_TIME = pl.col("time").str.to_datetime("%Y-%m-%dT%H:%M:%S%.fZ", time_unit="ms", strict=False).cast(pl.Int64)
_LAYOUTS = {
    "yoochoose-buys.dat": RowLayout(",", ("session", "time", "item", "price", "quantity"), "session", "item", _TIME),
    "yoochoose-clicks.dat": RowLayout(",", ("session", "time", "item", "category"), "session", "item", _TIME),
}
_TABLES = {"yoochoose": "yoochoose-buys.dat", "yoochoose-clicks": "yoochoose-clicks.dat"}
_TITLES = {
    "yoochoose": "YooChoose purchases (RecSys Challenge 2015): 509,696 sessions, 19,949 items, 1,150,753 rows",
    "yoochoose-clicks": "YooChoose clicks (RecSys Challenge 2015): 9,249,729 sessions, 52,739 items, 33,003,944 rows",
}

_log = logging.getLogger(__name__)


def match(name: str) -> bool:
    """Whether this module serves ``name``."""
    return name in NAMES


def spec(name: str) -> DatasetSpec:
    """The purchases or the clicks."""
    counts = PublishedCounts("TA-Rec, table 4, as DreamRec prepares it (sessions)", 128_468, 9_514, 539_436)
    return DatasetSpec(
        name=name,
        title=_TITLES[name],
        licence=Licence(
            name="CC BY-NC-ND 4.0",
            url="https://recsys.acm.org/recsys15/challenge/",
            note="As stated in the readme of the archive: not for commercial use, no changed copies.",
        ),
        access=(
            f"Free download of {ARCHIVE}. source= takes a folder that holds the archive or the unpacked "
            f"{_TABLES[name]}."
        ),
        files=(RemoteFile(ARCHIVE, ARCHIVE),),
        media=(),
        config=PrepareConfig(
            k_user=3, k_item=5, split="user_811", base_url="https://s3-eu-west-1.amazonaws.com/yc-rdata"
        ),
        published=(counts,) if name == "yoochoose" else (),
        raw=None if name == "yoochoose" else "yoochoose",
    )


def acquire(
    spec: DatasetSpec, config: PrepareConfig, raw_dir: Path, *, source: str | None, progress: Progress | None
) -> None:
    """Download the archive, or point to a folder that holds it or its tables."""
    for line in acquire_archive(spec, _packed(spec), config, raw_dir, source=source, progress=progress):
        _log.info("%s: without %s", spec.name, line)


def parse(spec: DatasetSpec, config: PrepareConfig, raw_dir: Path) -> RawTables:
    """Read the table; there are no items to read."""
    del config
    paths, used = find_tables(spec, _packed(spec), raw_dir)
    table = _TABLES[spec.name]
    bad_rows: list[BadRow] = []
    interactions = read_interactions(paths[table], _LAYOUTS[table], bad_rows)
    items = pl.DataFrame(schema={"item_id": pl.String, "title": pl.String})
    return RawTables(interactions, items, bad_rows, used)


def _packed(spec: DatasetSpec) -> PackedTables:
    return PackedTables((_TABLES[spec.name],), folders=_FOLDERS)


acquire_media = nothing_to_fetch
