"""What the page is made of: tables, pictures and sections, without a word of HTML.

Collecting modules build these values, the template prints them; everything here is plain text that the template
escapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

Kind = Literal["text", "number", "best", "code", "warning", "absent"]

ABSENT = "–"


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: What it says.
        kind: How it is set.
        hint: Shown when the pointer rests on it.
        below: Smaller, on a line of its own.
    """

    text: str
    kind: Kind = "text"
    hint: str = ""
    below: str = ""


@dataclass(frozen=True)
class Table:
    """A table with a caption that says what it shows."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """An image as a data URI; ``caption`` says what it shows, ``alternative`` stands in for it."""

    uri: str
    caption: str
    alternative: str
    wide: bool = False


@dataclass(frozen=True)
class Part:
    """A headed piece of a chapter; it is left out of the page where it holds nothing."""

    title: str
    sentences: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()

    @property
    def empty(self) -> bool:
        """Nothing to show."""
        return not (self.sentences or self.tables or self.pictures)


@dataclass(frozen=True)
class Fact:
    """A named value outside a table."""

    name: str
    value: Cell


def text(value: object) -> Cell:
    """Plain text; a dash for None and for nothing."""
    return Cell(ABSENT if value is None or value == "" else str(value))


def code(value: object, *, short: int | None = None) -> Cell:
    """A hash, a path or a name in a fixed-width font; ``short`` keeps the first characters and hints at the rest."""
    if value is None or value == "":
        return Cell(ABSENT)
    full = str(value)
    return Cell(full[:short], "code", full if short is not None and len(full) > short else "")


def count(value: int | None) -> Cell:
    """A whole number with thousands separated."""
    return Cell(ABSENT, "number") if value is None else Cell(f"{value:,}", "number")


def real(value: float | None, digits: int = 4) -> Cell:
    """A number with a fixed number of decimals."""
    return Cell(ABSENT, "number") if value is None else Cell(f"{value:,.{digits}f}", "number")


def time_text(value: datetime | str) -> str:
    """A moment, or its ISO form, as ``2024-03-01 12:30 UTC``."""
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def bytes_text(value: int) -> str:
    """Such as ``3.4 MB``."""
    size = float(value)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def seconds_text(value: float) -> str:
    """Such as ``4.2 s`` or ``1 h 03 min``."""
    if value < 120:
        return f"{value:.1f} s"
    minutes = round(value / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def plural(number: int, word: str) -> str:
    """``1 video``, ``3 videos``."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"
