"""Shards of a catalogue with stable numbers, and what of each is done.

Shard k of some media holds items k·size to (k+1)·size - 1 in item order; an item whose content equals that of an
earlier one belongs to the shard of the first, so that no content is encoded by two shards. The numbers depend on the
catalogue and the size alone: every process that opens the same extraction cuts the same shards, and no plan has to be
passed around. What a shard still needs is asked of the store.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from flows.errors import CallError

#: ``3``, ``3..7`` (both ends belong to it), and several of them separated by commas.
SHARDS_PATTERN = r"^\d{1,9}(\.\.\d{1,9})?(,\d{1,9}(\.\.\d{1,9})?)*$"


@dataclass(frozen=True)
class Shard:
    """What the store says about one shard.

    Attributes:
        group: Features that share the shard, joined by ``+``.
        shard: Its number, from 0.
        items: Items in it.
        done: Items that every feature has a row of, live or in a finished file of an earlier run.
        quarantined: Items that a feature has in quarantine and none still has to encode.
        missing: Items that a feature still has to encode.
    """

    group: str
    shard: int
    items: int
    done: int
    quarantined: int
    missing: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def cut(item_ids: Iterable[str], contents: Mapping[str, bytes], size: int) -> list[list[str]]:
    """Cut a catalogue into shards.

    Args:
        item_ids: All items in item order.
        contents: Digest of each item's content; an item without one is equal to no other.
        size: Items in a shard, before equal contents are brought together.

    Returns:
        Item ids by shard number, in item order; a shard is empty where all its items equal earlier ones.
    """
    shards: list[list[str]] = []
    home: dict[bytes, int] = {}
    for index, item_id in enumerate(item_ids):
        number = index // size
        if number == len(shards):
            shards.append([])
        content = contents.get(item_id)
        shards[number if content is None else home.setdefault(content, number)].append(item_id)
    return shards


def states(
    group: str, shards: Sequence[Sequence[str]], *, missing: Collection[str], quarantined: Collection[str]
) -> Iterator[Shard]:
    """The state of each shard.

    Args:
        group: Label of the features.
        shards: Item ids by number.
        missing: Items that a feature still has to encode.
        quarantined: Items in the quarantine of a feature; those that are missing too count as missing.
    """
    for number, item_ids in enumerate(shards):
        lacking = sum(item_id in missing for item_id in item_ids)
        bad = sum(item_id in quarantined and item_id not in missing for item_id in item_ids)
        yield Shard(group, number, len(item_ids), len(item_ids) - lacking - bad, bad, lacking)


def parse_shards(text: str) -> frozenset[int]:
    """Numbers that ``3``, ``3..7`` or ``3,5..9`` name.

    Raises:
        CallError: When the text names none.
    """
    if not re.match(SHARDS_PATTERN, text):
        raise CallError(f"shards: expected numbers from 0 such as 3, 3..7 or 3,5..9, got {text!r}")
    numbers: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("..")
        start, end = int(first), int(last or first)
        if end < start:
            raise CallError(f"shards: {part} ends before it starts; did you mean {end}..{start}?")
        if end - start > 1_000_000:
            raise CallError(f"shards: {part} names more than a million shards")
        numbers.update(range(start, end + 1))
    return frozenset(numbers)
