"""Digests of tables that depend on their values alone: not on file format, compression or library version."""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl


def digest(frame: pl.DataFrame) -> str:
    """SHA-256 over names, types and values of a table, in hexadecimal.

    Numbers and times enter as their bytes, texts as their lengths and their UTF-8 bytes; nulls as a mask. Columns of
    other types enter as JSON text.
    """
    state = hashlib.sha256()
    for column in frame.get_columns():
        state.update(f"{column.name}\0{column.dtype}\0{len(column)}\0".encode())
        state.update(np.packbits(column.is_null().to_numpy()).tobytes())
        physical = _json(column) if column.dtype.is_nested() else column.to_physical()
        if physical.dtype == pl.String:
            text = physical.fill_null("")
            state.update(text.str.len_bytes().cast(pl.UInt32).to_numpy().tobytes())
            state.update("".join(text.to_list()).encode())
        else:
            state.update(physical.fill_null(0).to_numpy().tobytes())
    return state.hexdigest()


def _json(column: pl.Series) -> pl.Series:
    return pl.DataFrame({"value": column}).to_struct("row").struct.json_encode()


def version(digests: dict[str, str]) -> str:
    """SHA-256 over the digests of several tables, in hexadecimal."""
    state = hashlib.sha256()
    for name in sorted(digests):
        state.update(f"{name}\0{digests[name]}\0".encode())
    return state.hexdigest()
