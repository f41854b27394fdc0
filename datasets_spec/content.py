"""Digests of tables that depend on their values alone: not on file format, compression or library version."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import polars as pl

from datasets_spec.schema import INTERACTIONS, CodedInteractions

#: Rows that are looked at together; a multiple of 8, since nulls are counted in bits.
_PIECE = 1 << 20


def digest(table: pl.DataFrame | CodedInteractions) -> str:
    """SHA-256 over names, types and values of a table, in hexadecimal.

    Numbers and times enter as their bytes, texts as their lengths and their UTF-8 bytes; nulls as a mask. Columns of
    other types enter as JSON text.
    """
    state = hashlib.sha256()
    schema = table.schema if isinstance(table, pl.DataFrame) else INTERACTIONS
    for name, dtype in schema.items():
        state.update(f"{name}\0{dtype}\0{table.height}\0".encode())
        for piece in _pieces(table, name):
            state.update(np.packbits(piece.is_null().to_numpy()).tobytes())
        if dtype == pl.String or dtype.is_nested():
            for piece in _pieces(table, name):
                state.update(_text(piece).str.len_bytes().cast(pl.UInt32).to_numpy().tobytes())
            for piece in _pieces(table, name):
                state.update(_text(piece).str.join("").item().encode())
        else:
            for piece in _pieces(table, name):
                state.update(piece.to_physical().fill_null(0).to_numpy().tobytes())
    return state.hexdigest()


def _pieces(table: pl.DataFrame | CodedInteractions, name: str) -> Iterator[pl.Series]:
    for start in range(0, table.height, _PIECE):
        if isinstance(table, CodedInteractions):
            yield table.column(name, start, _PIECE)
        else:
            yield table[name].slice(start, _PIECE)


def _text(piece: pl.Series) -> pl.Series:
    texts = _json(piece) if piece.dtype.is_nested() else piece
    return texts.fill_null("")


def _json(column: pl.Series) -> pl.Series:
    return pl.DataFrame({"value": column}).to_struct("row").struct.json_encode()


def version(digests: dict[str, str]) -> str:
    """SHA-256 over the digests of several tables, in hexadecimal."""
    state = hashlib.sha256()
    for name in sorted(digests):
        state.update(f"{name}\0{digests[name]}\0".encode())
    return state.hexdigest()
