"""Reading the numbers of a shard straight out of its pages.

Parquet knows no fixed-size list: each number carries levels that say in which list it lies, and a reader spends most
of its time on decoding them. In a shard they can only say one thing, for nothing is nullable and every list has the
same length. Pages are neither compressed nor dictionary-coded, so that the numbers of a page are its last bytes, in
order. They are copied from there; anything that is not as expected is left to Arrow.

Format: https://github.com/apache/parquet-format (``PageHeader`` in ``parquet.thrift``, Thrift's compact protocol).
"""

from __future__ import annotations

import os

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

#: Bytes that are read to find a page's header; it has about 30 where there are no statistics.
_HEADER_BYTES = 256

_DATA_PAGE = 0
_PLAIN = 0
_PLAIN_CHUNK = frozenset({"PLAIN", "RLE"})

#: How the stored types lie in a page; the numbers of other columns are wider there than in memory.
_PHYSICAL = {"FLOAT": np.dtype(np.float32), "FIXED_LEN_BYTE_ARRAY": np.dtype(np.float16)}

# Types of Thrift's compact protocol.
_TRUE, _FALSE, _STRUCT = 1, 2, 12
_INTEGERS = frozenset({4, 5, 6})


class _UnexpectedError(Exception):
    """The bytes are not what this module reads."""


def read_plain(descriptor: int, chunk: pq.ColumnChunkMetaData, target: NDArray[np.generic]) -> bool:
    """Copy all numbers of a column chunk into an array.

    Args:
        descriptor: The open file.
        chunk: Which part of it.
        target: C-contiguous, of the stored type, with exactly as many elements as the chunk has values.

    Returns:
        Whether it was possible; if not, ``target`` holds nothing of use and Arrow has to read the chunk.
    """
    if chunk.compression != "UNCOMPRESSED" or chunk.has_dictionary_page or not _PLAIN_CHUNK.issuperset(chunk.encodings):
        return False
    if chunk.num_values != target.size or _PHYSICAL.get(chunk.physical_type) != target.dtype:
        return False
    try:
        _copy_pages(descriptor, chunk, target.reshape(-1).view(np.uint8).data, target.dtype.itemsize)
    except _UnexpectedError:
        return False
    return True


def _copy_pages(descriptor: int, chunk: pq.ColumnChunkMetaData, target: memoryview, width: int) -> None:
    offset: int = chunk.data_page_offset
    end = offset + chunk.total_compressed_size
    done = 0
    while offset < end:
        header, length = _struct(os.pread(descriptor, _HEADER_BYTES, offset), 0)
        size, page = header.get(3), header.get(5)
        if (
            header.get(1) != _DATA_PAGE
            or not isinstance(size, int)
            or not isinstance(page, dict)
            or header.get(2) != size
        ):
            raise _UnexpectedError
        count = page.get(1)
        if page.get(2) != _PLAIN or not isinstance(count, int):
            raise _UnexpectedError
        offset += length + size
        taken = count * width
        if not 0 < taken <= min(size, len(target) - done):
            raise _UnexpectedError
        if os.preadv(descriptor, [target[done : done + taken]], offset - taken) != taken:
            raise _UnexpectedError
        done += taken
    if offset != end or done != len(target):
        raise _UnexpectedError


def _struct(data: bytes, position: int) -> tuple[dict[int, object], int]:
    """Fields of a Thrift struct by number, and where it ends; of the types that page headers have."""
    fields: dict[int, object] = {}
    number = 0
    try:
        while byte := data[position]:
            position += 1
            if byte >> 4:
                number += byte >> 4
            else:
                number, position = _integer(data, position)
            kind = byte & 15
            if kind in (_TRUE, _FALSE):
                fields[number] = kind == _TRUE
            elif kind in _INTEGERS:
                fields[number], position = _integer(data, position)
            elif kind == _STRUCT:
                fields[number], position = _struct(data, position)
            else:
                raise _UnexpectedError
    except IndexError:
        raise _UnexpectedError from None
    return fields, position + 1


def _integer(data: bytes, position: int) -> tuple[int, int]:
    """A zigzag variable-length integer and where it ends."""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return (value >> 1) ^ -(value & 1), position
