"""Amazon Beauty 2014 as sequential recommenders are compared on it: ready sequences, one user a line.

A line is ``user item item …``: whole numbers between blanks, the items in the order in which the user reviewed them.
The file is that of S3-Rec (Zhou et al., CIKM 2020, doi 10.1145/3340531.3411954), made of the review file of 2014
(McAuley et al., SIGIR 2015, doi 10.1145/2766462.2767755): already the 5-core, without times and titles. The place in
the line is the order; nothing else is known of time.

The k-core and the removal of repeated pairs run all the same, and change nothing.
"""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl

from datasets_spec.lines import read_lines
from datasets_spec.media_files import nothing_to_fetch
from datasets_spec.raw import acquire_files, raw_file
from datasets_spec.schema import TIME, BadRow, RawTables
from datasets_spec.spec import DatasetSpec, Licence, PrepareConfig, Progress, PublishedCounts, RemoteFile

NAMES = ("amazon-beauty-2014",)

FILE = "Beauty.txt"
BASE = "https://raw.githubusercontent.com/RUCAIBox/CIKM2020-S3Rec/2a81540ae18615d88ef88227b0c066e5b74781e5/data"
_SHA256 = "226cce9c3105299ca0db9615d7d3fb32b3175e90da43100ae352599f0f0107b8"
#: A number of at most 64 bits, without sign and leading zeros, so that no id has two spellings.
_ID = re.compile(rb"0|[1-9][0-9]{0,17}")


def match(name: str) -> bool:
    """Whether this module serves ``name``."""
    return name in NAMES


def spec(name: str) -> DatasetSpec:
    """The dataset."""
    return DatasetSpec(
        name=name,
        title="Amazon Beauty 2014, 5-core, as sequences: 198,502 reviews of 12,101 products by 22,363 users",
        licence=Licence(
            name="none stated",
            url="https://github.com/RUCAIBox/CIKM2020-S3Rec",
            note="For research; cite McAuley et al. (SIGIR 2015). Do not redistribute.",
        ),
        access=f"Free download of {FILE} (1 MB). source= takes a folder that holds it, or any file of that form.",
        files=(RemoteFile(FILE, FILE, sha256=_SHA256, bytes=1_090_094),),
        media=(),
        config=PrepareConfig(base_url=BASE),
        published=(PublishedCounts("S3-Rec, statistics of the data sets", 22_363, 12_101, 198_502),),
    )


def acquire(
    spec: DatasetSpec, config: PrepareConfig, raw_dir: Path, *, source: str | None, progress: Progress | None
) -> None:
    """Download the file, or point to a folder that holds it."""
    acquire_files(spec, config, raw_dir, source=source, progress=progress)


def parse(spec: DatasetSpec, config: PrepareConfig, raw_dir: Path) -> RawTables:
    """Read the sequences; there are no item tables."""
    del config
    path = raw_file(raw_dir, spec.files[0].path)
    bad_rows: list[BadRow] = []
    interactions = read_sequences(path, bad_rows)
    items = pl.DataFrame(schema={"item_id": pl.String, "title": pl.String})
    return RawTables(interactions, items, bad_rows, (path,), ("there is no table of items: no titles",))


acquire_media = nothing_to_fetch


def read_sequences(path: Path, bad_rows: list[BadRow]) -> pl.DataFrame:
    """Read lines ``user item item …``; a line is taken as a whole or not at all.

    Args:
        path: The file, gzip or not. Blank lines are passed over.
        bad_rows: Lines that cannot be used are appended: ``bad_id`` for a field that is no whole number,
            ``no_items`` for a user alone, ``repeated_user`` for a user who has an earlier line.

    Returns:
        ``user_id`` and ``item_id`` (Int64), ``timestamp`` (null), ``order``: the place in the line, from 0.

    Raises:
        DamagedFileError: The file is empty, or a gzip stream that ends early.
    """
    sequences: dict[int, list[int]] = {}
    for number, raw in read_lines(path):
        fields = raw.removeprefix(b"\xef\xbb\xbf").split()
        if not fields:
            continue
        wrong = [field for field in fields if not _ID.fullmatch(field)]
        reason = "bad_id" if wrong else "no_items" if len(fields) == 1 else None
        if reason is None and int(fields[0]) in sequences:
            reason = "repeated_user"
        if reason is None:
            user, *items = map(int, fields)
            sequences[user] = items
        else:
            shown = f"{wrong[0].decode('utf-8', 'replace')!r} in " if wrong else ""
            detail = f"{shown}{raw[:200].decode('utf-8', 'replace').strip()!r}"
            bad_rows.append(BadRow(path.name, number, None, reason, detail))
    lists = {"user_id": list(sequences), "item_id": list(sequences.values())}
    frame = pl.DataFrame(lists, schema={"user_id": pl.Int64, "item_id": pl.List(pl.Int64)})
    order = pl.int_ranges(pl.col("item_id").list.len(), dtype=pl.Int64).alias("order")
    return (
        frame.with_columns(order)
        .explode("item_id", "order")
        .select("user_id", "item_id", pl.lit(None, TIME).alias("timestamp"), "order")
    )
