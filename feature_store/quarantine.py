"""Quarantine: items that could not be encoded, each with a reason, so that a failure is a row and not an exception.

``quarantine/<sha256>.parquet`` files are written once and never changed; a report of failures adds one, a commit
folds them into one. Of several rows about an item the newest counts. A row takes an item out of later plans as long
as neither its content nor the spec changes (``known_bad``), until ``retry`` marks it; the number of attempts goes on
counting up. The row goes when a commit finds the item encoded, or its content changed.
"""

from __future__ import annotations

import functools
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store import faults
from feature_store.errors import DamagedStoreError, SpecError
from feature_store.files import Entry, Files
from feature_store.key import DIGEST_BYTES, check_item_id

QUARANTINE = "quarantine"

_ARROW = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("last_seen", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("content_sha256", pa.binary(DIGEST_BYTES)),
        pa.field("spec_hash", pa.string(), nullable=False),
        pa.field("retry", pa.bool_(), nullable=False),
    ]
)

#: Columns of the quarantine. ``content_sha256`` is null where the content could not be read at all; ``retry`` is
#: true for rows that the next plan tries again.
COLUMNS = pl.Schema(
    {
        "item_id": pl.String(),
        "stage": pl.String(),
        "reason": pl.String(),
        "detail": pl.String(),
        "attempts": pl.Int32(),
        "last_seen": pl.Datetime("us", "UTC"),
        "content_sha256": pl.Binary(),
        "spec_hash": pl.String(),
        "retry": pl.Boolean(),
    }
)


@dataclass(frozen=True)
class QuarantineRow:
    """One item that failed.

    Attributes:
        item_id: The item.
        stage: Where it failed, such as ``decode`` or ``encode``.
        reason: A short code, such as ``no_video``.
        detail: One sentence for a person.
        content_sha256: 32 bytes, or None where the content could not be read.
    """

    item_id: str
    stage: str
    reason: str
    detail: str
    content_sha256: bytes | None

    def __post_init__(self) -> None:
        """Refuse rows that no reader could make sense of."""
        check_item_id(self.item_id)
        if not self.stage or not self.reason:
            raise SpecError(f"item {self.item_id!r}: a quarantine row needs a stage and a reason")
        if self.content_sha256 is not None and len(self.content_sha256) != DIGEST_BYTES:
            raise SpecError(f"item {self.item_id!r}: expected a 32-byte content hash or None")


def read(files: Files) -> pl.DataFrame:
    """The newest row of every item, sorted by ``item_id``.

    Raises:
        DamagedStoreError: Naming the file that cannot be read.
    """
    frames = _read_files(files)
    while frames is None:  # another process folded the files while they were read: list them anew
        frames = _read_files(files)
    rows = pl.concat([pl.DataFrame(schema=COLUMNS), *frames])
    newest = rows.sort("last_seen", "attempts", "retry").unique("item_id", keep="last", maintain_order=True)
    return newest.sort("item_id")


def paths(files: Files) -> list[str]:
    """The quarantine files."""
    return [entry.path for entry in _entries(files)]


def append(files: Files, rows: Sequence[QuarantineRow], spec_hash: str) -> None:
    """Report failures of one run; of several rows about one item the last counts."""
    if not rows:
        return
    now = datetime.now(UTC)
    report = pl.DataFrame(
        {
            "item_id": [row.item_id for row in rows],
            "stage": [row.stage for row in rows],
            "reason": [row.reason for row in rows],
            "detail": [row.detail for row in rows],
            "content_sha256": pl.Series([row.content_sha256 for row in rows], dtype=pl.Binary),
            "spec_hash": spec_hash,
            "retry": False,
        }
    ).unique("item_id", keep="last", maintain_order=True)
    before = read(files).select("item_id", "content_sha256", "spec_hash", attempts_before="attempts", seen="last_seen")
    # The same content and spec failed again: count on. Anything else is a first attempt.
    counted = report.join(
        before.drop("seen"), on=["item_id", "content_sha256", "spec_hash"], how="left", nulls_equal=True
    ).join(before.select("item_id", "seen"), on="item_id", how="left")
    # A clock that was set back must not make the new row the older one.
    later = pl.col("seen") + timedelta(microseconds=1)
    faults.reached("quarantine.append")
    write(
        files,
        counted.with_columns(
            attempts=pl.col("attempts_before").fill_null(0) + 1,
            last_seen=pl.max_horizontal(pl.lit(now, pl.Datetime("us", "UTC")), later),
        ),
    )


def mark_for_retry(files: Files, reason: str | None) -> int:
    """Let the next plan try items again.

    Args:
        files: The store.
        reason: Only rows with this reason; None for all.

    Returns:
        How many rows were marked; those marked before are not counted again.
    """
    rows = read(files).filter(~pl.col("retry"))
    if reason is not None:
        rows = rows.filter(pl.col("reason") == reason)
    faults.reached("quarantine.retry")
    if len(rows):
        write(files, rows.with_columns(retry=pl.lit(value=True)))
    return len(rows)


def fold(files: Files, before: list[str], keep: pl.DataFrame) -> None:
    """Replace files by one with these rows; does nothing where that is so already.

    Args:
        files: The store.
        before: The files, listed before the rows were read: a report that another writer adds in between stays.
        keep: What they amount to.
    """
    if not before:
        return
    faults.reached("quarantine.fold")
    after = write(files, keep) if len(keep) else None
    faults.reached("quarantine.folded")
    for path in before:
        if path != after:
            files.delete(path)


def write(files: Files, rows: pl.DataFrame) -> str:
    """Write rows under the hash of their file; returns its path."""
    table = rows.select(COLUMNS.names()).cast(COLUMNS).to_arrow().cast(_ARROW)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    data = sink.getvalue().to_pybytes()
    path = f"{QUARANTINE}/{hashlib.sha256(data).hexdigest()}.parquet"
    files.put(path, data)
    return path


def decode(data: bytes) -> pl.DataFrame:
    """Rows of a quarantine file.

    Raises:
        ValueError: When the bytes are not one.
    """
    try:
        table = pq.read_table(io.BytesIO(data)).select(_ARROW.names).cast(_ARROW)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ValueError(str(error).partition("\n")[0]) from None
    return pl.DataFrame(table, schema=COLUMNS)


def _entries(files: Files) -> list[Entry]:
    return [entry for entry in files.entries(QUARANTINE) if entry.name.endswith(".parquet")]


def _read_files(files: Files) -> list[pl.DataFrame] | None:
    """All files, None when one of them went away in the meantime."""
    frames: list[pl.DataFrame] = []
    for entry in _entries(files):
        try:
            frames.append(_read_file(files, entry))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise DamagedStoreError(
                f"{files.location}/{entry.path} is damaged ({error}); remove it, and the items it named are tried again"
            ) from None
    return frames


@functools.lru_cache(maxsize=4096)
def _read_file(files: Files, entry: Entry) -> pl.DataFrame:
    """Rows of one file, which never changes: a run that reports after every shard reads each report once."""
    return decode(files.read(entry.path))
