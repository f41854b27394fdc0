"""Is a video file that of the table's row? The duration in the table against that of the file.

For tables whose ids and file names may be shifted against each other: for the files that do not fit their own row it
is counted how many fit the row of the next and of the previous id, beside how many would by chance.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import polars as pl
from av.error import FFmpegError

#: Durations fit when they differ by at most so many seconds, or by this share where that is more.
TOLERANCE_SECONDS = 1.0
TOLERANCE_SHARE = 0.05
OFFSETS = (1, -1)
_READERS = 4


@dataclass(frozen=True)
class Mismatch:
    """A file that does not fit its row.

    Attributes:
        expected: Seconds, in the table.
        actual: Seconds, of the file.
        neighbours: Seconds in the table for ``id + offset``, by offset, where that is among the items.
    """

    expected: float
    actual: float
    neighbours: dict[int, float]

    def fits(self, offset: int) -> bool:
        """Whether the file fits the row of ``id + offset``."""
        return offset in self.neighbours and durations_fit(self.actual, self.neighbours[offset])

    def __str__(self) -> str:
        found = [f"; id {offset:+d} has {self.neighbours[offset]:.1f} s" for offset in OFFSETS if self.fits(offset)]
        return f"the table says {self.expected:.1f} s, the file lasts {self.actual:.1f} s{''.join(found)}"


@dataclass(frozen=True)
class DurationCheck:
    """Outcome for all files.

    Attributes:
        checked: Files compared with their row.
        unknown: Files whose duration, or whose row's, is not known; they are not compared.
        mismatches: Those that do not fit, by item id.
        by_chance: How many of those are expected to fit the row of an item drawn at random: durations gather around
            a few values, so that some shifts fit without meaning.
    """

    checked: int
    unknown: int
    mismatches: dict[str, Mismatch]
    by_chance: float

    def shifted(self, offset: int) -> tuple[int, int]:
        """Of the mismatches, how many fit the row of ``id + offset``, and for how many that id is among the items."""
        comparable = [wrong for wrong in self.mismatches.values() if offset in wrong.neighbours]
        return sum(wrong.fits(offset) for wrong in comparable), len(comparable)

    def __str__(self) -> str:
        line = (
            f"durations of {self.checked} videos compared with the table: {self.checked - len(self.mismatches)} fit, "
            f"{len(self.mismatches)} do not; {self.unknown} could not be compared"
        )
        if not self.mismatches:
            return line
        shifts = ", ".join(
            "{1} of {2} fit the row of id {0:+d}".format(offset, *self.shifted(offset)) for offset in OFFSETS
        )
        return f"{line}; of those that do not, {shifts}, about {self.by_chance:.1f} would fit a row at random"


def durations_fit(actual: float, expected: float) -> bool:
    """Whether two durations in seconds are those of one video."""
    return abs(actual - expected) <= max(TOLERANCE_SECONDS, TOLERANCE_SHARE * expected)


def check_durations(items: pl.DataFrame) -> DurationCheck:
    """Compare all files with their rows.

    Args:
        items: ``item_id`` text, ``video`` path or null, ``duration`` seconds or null.

    Returns:
        What fits and what does not. A file that cannot be opened counts as unknown: what is wrong with it is said
        where it is decoded.
    """
    rows = items.select("item_id", "video", pl.col("duration").cast(pl.Float64))
    table = {item_id: seconds for item_id, _, seconds in rows.iter_rows() if seconds is not None}
    files = {item_id: video for item_id, video, _ in rows.iter_rows() if video is not None and item_id in table}
    with ThreadPoolExecutor(_READERS, thread_name_prefix="duration") as pool:
        measured = dict(zip(files, pool.map(file_seconds, files.values()), strict=True))
    known = {item_id: seconds for item_id, seconds in measured.items() if seconds is not None}
    mismatches = {
        item_id: Mismatch(table[item_id], seconds, _neighbours(item_id, table))
        for item_id, seconds in known.items()
        if not durations_fit(seconds, table[item_id])
    }
    with_video = rows["video"].len() - rows["video"].null_count()
    by_chance = _by_chance([wrong.actual for wrong in mismatches.values()], list(table.values()))
    return DurationCheck(len(known), with_video - len(known), mismatches, by_chance)


def file_seconds(path: str | Path) -> float | None:
    """Duration that the container declares, in seconds; None where it declares none or cannot be opened."""
    try:
        with av.open(str(path)) as container:
            return None if container.duration is None else container.duration / av.time_base
    except (FFmpegError, OSError, UnicodeDecodeError):
        return None


def _neighbours(item_id: str, table: dict[str, float]) -> dict[int, float]:
    if not (item_id.isascii() and item_id.isdigit()):
        return {}
    shifted = {offset: str(int(item_id) + offset) for offset in OFFSETS}
    return {offset: table[other] for offset, other in shifted.items() if other in table}


def _by_chance(actual: list[float], table: list[float]) -> float:
    """Expected number of files that fit a row drawn at random: for each, the share of rows that it fits."""
    rows = np.array(table, dtype=np.float64)
    allowed = np.maximum(TOLERANCE_SECONDS, TOLERANCE_SHARE * rows)
    return float(sum((np.abs(rows - seconds) <= allowed).mean() for seconds in actual))
