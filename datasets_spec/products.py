"""Fields of product pages: what scraped metadata hold, and what of it can be used."""

from __future__ import annotations

import html
import re
from typing import Any, cast

_NOT_A_TEXT = re.compile(
    r"</?(?:span|div|script|style|img|table|input|a|p|br|b|i|ul|li)\b|getTime|<!--|[\w-]\s*\{[^{}]*:[^{}]*;[^{}]*\}",
    re.I,
)
_PRICE = re.compile(r"\$?\s*(\d[\d,]{0,14}(?:\.\d+)?)")
_RANK = re.compile(r"(?<![\d,])(\d[\d,]{0,14})\s+in\b")
#: A lone half of a surrogate pair: JSON can write it, UTF-8 cannot.
_SURROGATE = re.compile("[\ud800-\udfff]")


def clean_text(value: Any) -> str | None:
    """Entities resolved, white space collapsed; None for what is no text or blank."""
    if not isinstance(value, str):
        return None
    return " ".join(_SURROGATE.sub("\ufffd", html.unescape(value)).split()) or None


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
    for entry in _entries(value):
        part = clean_text(entry)
        if part is not None and not _NOT_A_TEXT.search(part) and parts[-1:] != [part]:
            parts.append(part)
    return " > ".join(parts) or None


def parse_price(value: Any) -> float | None:
    """``"$1,250.00"`` and ``1250`` -> 1250.0; style sheets, ranges, "from" prices, blanks and dashes -> None."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value) if 0 <= value < 1e12 else None
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
        for entry in _entries(raw.get(key)):
            if _is_address(entry):
                return entry
    return None


def main_image(images: Any) -> str | None:
    """Address of the main image of a list of ``{"variant", "large", "hi_res", "thumb"}``, else of the first one.

    ``large`` comes first: its sides of some 500 pixels are more than an encoder looks at, for a fraction of the bytes
    of ``hi_res``, which many products lack.
    """
    pictures = [entry for entry in _entries(images) if isinstance(entry, dict)]
    for picture in sorted(pictures, key=lambda entry: entry.get("variant") != "MAIN"):
        for size in ("large", "hi_res", "thumb"):
            if _is_address(picture.get(size)):
                return picture[size]
    return None


def _entries(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []


def _is_address(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("http://", "https://"))
