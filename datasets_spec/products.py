"""Fields of product pages: what scraped metadata hold, and what of it can be used."""

from __future__ import annotations

import html
import re
from typing import Any

_NOT_A_TEXT = re.compile(r"<\s*/?\s*(?:span|div|script|style|img|table|input|a|p|br|b|i|ul|li)\b|getTime|<!--", re.I)
_PRICE = re.compile(r"\$?\s*(\d[\d,]*(?:\.\d+)?)")
_RANK = re.compile(r"#?\s*(\d[\d,]*)\s+in\b")


def clean_text(value: Any) -> str | None:
    """Entities resolved, white space collapsed; None for what is no text or blank."""
    if not isinstance(value, str):
        return None
    return " ".join(html.unescape(value).split()) or None


def clean_title(value: Any) -> tuple[str | None, str | None]:
    """The title, and what is wrong with it: ``(None, fault)`` for a piece of a web page, ``(None, None)`` for none."""
    if value is None:
        return None, None
    if not isinstance(value, str):
        return None, f"expected a text, got {type(value).__name__}"
    text = clean_text(value)
    if text is not None and _NOT_A_TEXT.search(text):
        return None, f"a piece of a web page: {text[:120]!r}"
    return text, None


def clean_brand(value: Any) -> str | None:
    """The brand without the ``by`` that stands on a line before it; HTML is None."""
    text = clean_text(re.sub(r"^\s*by\s*\n", "", value)) if isinstance(value, str) else None
    return None if text is None or _NOT_A_TEXT.search(text) else text


def clean_category(value: Any) -> str | None:
    """The category path, ``Toys & Games > Puzzles``; parts that repeat the one before, or hold HTML, are left out."""
    parts: list[str] = []
    for entry in value if isinstance(value, list) else []:  # pyright: ignore[reportUnknownVariableType]
        part = clean_text(entry)
        if part is not None and not _NOT_A_TEXT.search(part) and parts[-1:] != [part]:
            parts.append(part)
    return " > ".join(parts) or None


def parse_price(value: Any) -> float | None:
    """``"$1,250.00"`` -> 1250.0; style sheets, ranges and blanks -> None."""
    found = _PRICE.fullmatch(value.strip()) if isinstance(value, str) else None
    return float(found[1].replace(",", "")) if found else None


def parse_rank(value: Any) -> int | None:
    """First sales rank of a text ``"1,234 in Toys & Games ("`` or of a list ``[">#1,234 in …"]``."""
    for entry in value if isinstance(value, list) else [value]:  # pyright: ignore[reportUnknownVariableType]
        found = _RANK.search(entry) if isinstance(entry, str) else None
        if found:
            return int(found[1].replace(",", ""))
    return None


def first_image(raw: dict[str, Any]) -> str | None:
    """Address of the first image in full resolution, else of the first small one."""
    for key in ("imageURLHighRes", "imageURL"):
        entries = raw.get(key)
        for entry in entries if isinstance(entries, list) else []:  # pyright: ignore[reportUnknownVariableType]
            if isinstance(entry, str) and entry.startswith(("http://", "https://")):
                return entry
    return None
