"""Deliberate damage: the ways in which files of a real site are broken, spread over about 3 % of the items."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

VIDEO_DAMAGE: dict[str, str] = {
    "truncated": "only the first 40 % of the file, its index is lost",
    "cut_index_first": "index at the start, then only half of the pictures",
    "empty": "zero bytes",
    "html": "an HTML error page under the name of a video",
    "flipped": "bytes inside the pictures are flipped",
    "sound_only": "an mp4 without a video stream",
    "missing": "no file, the server answers 404",
}
COVER_DAMAGE: dict[str, str] = {
    "truncated": "only the first 30 % of the JPEG",
    "missing": "no file, the server answers 404",
}
TITLE_DAMAGE: dict[str, str] = {"empty": "the title is empty"}

VIDEO_SHARE = 0.03
_HTML = (
    b"<!DOCTYPE html>\n<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>\n"
)


@dataclass(frozen=True)
class Damage:
    """One deliberate defect: the item, what of it ("video", "cover", "title"), and the kind, a key of the tables."""

    item: int
    part: str
    kind: str


def draw_damage(items: int, rng: np.random.Generator) -> tuple[Damage, ...]:
    """Choose defects: 3 % of the videos (each kind once on sites of 21 items or more), two covers and one title."""
    kinds = list(VIDEO_DAMAGE)
    count = min(max(len(kinds), round(VIDEO_SHARE * items)), items // 3)
    parts = [("video", kinds[i % len(kinds)]) for i in range(count)]
    parts += [("cover", kind) for kind in COVER_DAMAGE] if items >= 2 * len(COVER_DAMAGE) + count else []
    parts += [("title", kind) for kind in TITLE_DAMAGE] if items > len(parts) else []
    victims = rng.choice(items, size=len(parts), replace=False) + 1
    return tuple(Damage(int(item), part, kind) for item, (part, kind) in zip(victims, parts, strict=True))


def damage_of(damages: Sequence[Damage], item: int, part: str) -> str | None:
    """Kind of damage done to this part of the item, or None."""
    return next((d.kind for d in damages if d.item == item and d.part == part), None)


def damage_bytes(path: Path, kind: str, rng: np.random.Generator) -> None:
    """Damage a whole file in place as `kind` says; "missing" removes it."""
    data = path.read_bytes()
    match kind:
        case "missing":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "html":
            path.write_bytes(_HTML)
        case "flipped":
            path.write_bytes(_flip(data, rng))
        case "cut_index_first":
            path.write_bytes(data[: _pictures(data)[0] + (_pictures(data)[1] - _pictures(data)[0]) // 2])
        case "truncated":
            path.write_bytes(data[: int(len(data) * 0.4)])
        case _:
            raise ValueError(f"no way to damage the bytes of a file as {kind!r}")


def _pictures(data: bytes) -> tuple[int, int]:
    """Byte range of the payload of the mp4's `mdat` box."""
    position = 0
    while position + 8 <= len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        if data[position + 4 : position + 8] == b"mdat":
            return position + 8, position + size
        position += max(size, 8)
    raise ValueError("the mp4 that is to be damaged has no mdat box")


def _flip(data: bytes, rng: np.random.Generator) -> bytes:
    """Turn over one byte in forty inside the pictures, beyond the first tenth so that the stream headers survive."""
    start, end = _pictures(data)
    start += (end - start) // 10
    damaged = bytearray(data)
    for position in rng.integers(start, end, size=max(1, (end - start) // 40)):
        damaged[position] ^= 0xFF
    return bytes(damaged)
