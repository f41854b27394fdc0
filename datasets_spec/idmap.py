"""Ids as numbers: codes from 0 while rows are filtered, numbers 1..n in the result, and hashes for drawing.

Numbers of a prepared dataset are append-only; 0 is padding. A dataset that grows keeps the number of every user and
item it had, so that row i of a feature table stays item i. When a member of the old map is gone, numbers could not
stay without gaps, and all are given anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

#: Digits that surely fit into int64.
_NUMERIC = r"^[0-9]{1,18}$"
_VALUE = pl.when(pl.col("id").str.contains(_NUMERIC)).then(pl.col("id")).cast(pl.Int64)
#: Rows that are looked at together, so that no step makes a second copy of a long column.
_PIECE = 1 << 22

Codes = npt.NDArray[np.int32]
Words = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class IdMap:
    """Texts in the order of their numbers.

    Attributes:
        ids: String ``[n]``; ``ids[i]`` has the number ``i + 1``.
        kept: How many have the number they had before.
        renumbered: An earlier map was there and could not be kept.
    """

    ids: pl.Series
    kept: int
    renumbered: bool

    def __len__(self) -> int:
        return len(self.ids)

    def frame(self, number: str, text: str) -> pl.DataFrame:
        """The map as a table: int32 column ``number`` and string column ``text``."""
        numbers = pl.int_range(1, len(self.ids) + 1, dtype=pl.Int32, eager=True)
        return pl.DataFrame({number: numbers, text: self.ids})

    def numbers(self, ids: pl.Series) -> Codes:
        """The number of each id: int32 ``[len(ids)]``."""
        wanted = pl.DataFrame({"id": ids})
        return wanted.join(self.frame("number", "id"), on="id", how="left", maintain_order="left")["number"].to_numpy()


def natural_order(ids: pl.Series) -> pl.Series:
    """Sort distinct ids: those of digits only come first by value, then the others by code point."""
    return pl.DataFrame({"id": ids.unique()}).sort(_VALUE, "id", nulls_last=True)["id"]


def number(ids: pl.Series, previous: pl.Series | None = None) -> IdMap:
    """Number the distinct values of ``ids``.

    Args:
        ids: String ``[rows]``, repeated values allowed.
        previous: The ids of an earlier map, in the order of their numbers.

    Returns:
        The map. Old numbers are kept when all of ``previous`` are still there; new ids follow in natural order.
    """
    distinct = natural_order(ids)
    if previous is None or previous.is_empty():
        return IdMap(distinct, kept=0, renumbered=False)
    if not previous.is_in(distinct.implode()).all():
        return IdMap(distinct, kept=0, renumbered=True)
    new = distinct.filter(~distinct.is_in(previous.implode()))
    return IdMap(pl.concat([previous.alias("id"), new]), kept=len(previous), renumbered=False)


def encode(column: pl.Series, *, natural: bool) -> tuple[Codes, pl.Series]:
    """Give each distinct id a code from 0, in the order of the ids.

    Args:
        column: ``[rows]`` without nulls: String, Categorical, Enum or integers, whose text is their decimal form.
        natural: Order as :func:`natural_order` does; otherwise all by code point.

    Returns:
        int32 ``[rows]`` codes, and String ``[codes]`` the id of each code.
    """
    places, ids = _distinct(column)
    keys = (_VALUE, pl.col("id")) if natural else (pl.col("id"),)
    order = pl.DataFrame({"id": ids}).with_row_index("place").sort(*keys, nulls_last=True)
    rank = np.empty(len(ids), dtype=np.int32)
    rank[order["place"].to_numpy()] = np.arange(len(ids), dtype=np.int32)
    for start in range(0, len(places), _PIECE):
        piece = slice(start, start + _PIECE)
        places[piece] = rank[places[piece]]
    return places, order["id"]


def _distinct(column: pl.Series) -> tuple[Codes, pl.Series]:
    """Any numbering of the distinct ids: int32 ``[rows]`` (to be written into), and the texts."""
    if isinstance(column.dtype, pl.Categorical | pl.Enum):
        texts = column.unique()
        names = pl.DataFrame({"code": texts.to_physical().cast(pl.String), "text": texts.cast(pl.String)})
        places, codes = _distinct(column.to_physical())
        return places, pl.DataFrame({"code": codes}).join(names, on="code", how="left", maintain_order="left")["text"]
    if column.dtype.is_integer() and len(column):
        found = _distinct_close(column.to_numpy())
        if found is not None:
            return found
    array = column.to_arrow()
    encoded = array.dictionary_encode()
    codes = np.array(encoded.indices, dtype=np.int32)
    return codes, pl.Series(encoded.dictionary).cast(pl.String)


def _distinct_close(values: npt.NDArray[np.integer[Any]]) -> tuple[Codes, pl.Series] | None:
    """Integers whose range is not much wider than the column is long: by a table instead of a search."""
    low, high = int(values.min()), int(values.max())
    if high - low >= 4 * len(values) + 1024 or high >= 2**62:
        return None
    there = np.zeros(high - low + 1, dtype=np.bool_)
    pieces = [slice(start, start + _PIECE) for start in range(0, len(values), _PIECE)]
    for piece in pieces:
        there[values[piece].astype(np.int64) - low] = True
    place = np.cumsum(there, dtype=np.int32) - np.int32(1)
    codes = np.empty(len(values), dtype=np.int32)
    for piece in pieces:
        codes[piece] = place[values[piece].astype(np.int64) - low]
    return codes, pl.Series(np.flatnonzero(there) + low).cast(pl.String)


def draw_order(ids: pl.Series, *, seed: int, purpose: str) -> npt.NDArray[np.uint32]:
    """A random order of distinct ids that depends on each id, the seed and the purpose alone.

    Args:
        ids: String ``[n]``.
        seed: Another seed, another order.
        purpose: Keeps draws for different purposes independent of each other.

    Returns:
        uint32 ``[n]`` places in ``ids``, by ascending hash. Neither the order of ``ids`` nor any library's generator
        or hash has a say.
    """
    salt = split_mix(hash_ids(pl.Series([purpose])) ^ split_mix(np.array([seed], dtype=np.uint64)))
    keys = split_mix(hash_ids(ids) ^ salt)
    frame = pl.DataFrame({"key": keys, "id": ids}).with_row_index("place")
    return frame.sort("key", "id")["place"].to_numpy()


def hash_ids(ids: pl.Series) -> Words:
    """Hash texts: SplitMix64 chained over their length and their UTF-8 bytes, eight at a time, little-endian.

    Args:
        ids: String ``[n]``.

    Returns:
        uint64 ``[n]``, the same on every machine and with every library version.
    """
    hashes = np.empty(len(ids), dtype=np.uint64)
    for start in range(0, len(ids), _PIECE // 4):
        piece = ids.slice(start, _PIECE // 4)
        hashes[start : start + len(piece)] = _hash_piece(piece)
    return hashes


def _hash_piece(ids: pl.Series) -> Words:
    lengths = ids.str.len_bytes().to_numpy().astype(np.int64)
    text = np.frombuffer(ids.str.join("").item().encode() + bytes(8), dtype=np.uint8)
    begins = np.cumsum(lengths) - lengths
    hashes = split_mix(lengths.astype(np.uint64))
    for word in range(int(lengths.max(initial=0) + 7) // 8):
        longer = np.flatnonzero(lengths > 8 * word)
        place = begins[longer] + 8 * word
        rest = np.minimum(lengths[longer] - 8 * word, 8)
        block = text[place[:, None] + np.arange(8)] * (np.arange(8) < rest[:, None])
        hashes[longer] = split_mix(hashes[longer] ^ block.astype(np.uint8).view("<u8")[:, 0])
    return hashes


def split_mix(words: Words) -> Words:
    """One step of SplitMix64 (Steele, Lea, Flood, doi 10.1145/2660193.2660195) for each word."""
    x = words + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
