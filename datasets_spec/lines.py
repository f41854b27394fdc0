"""Read text files by whole lines, compressed or not, and say exactly what is wrong with them.

Files of one JSON object a line are read at two speeds. A run of lines that is provably well formed is read as columns
by :mod:`pyarrow.json`; every other run is read line by line, so that each bad line is named by its number. Both ways
give the same values: what the fast one does not accept as it stands is left to the slow one.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import polars as pl
import pyarrow as pa
import pyarrow.json

from datasets_spec.errors import DamagedFileError
from datasets_spec.schema import BadRow

_GZIP = b"\x1f\x8b"
#: Bytes read at once: some five thousand reviews, so that one bad line slows little down and memory stays small.
_CHUNK = 4 << 20
#: Bytes of a chunk that one thread parses.
_BLOCK = 1 << 20
_ARROW: dict[pl.DataType, pa.DataType] = {pl.String(): pa.string(), pl.Int64(): pa.int64()}


def read_chunks(path: Path, *, size: int = _CHUNK) -> Iterator[tuple[int, bytes]]:
    """The file in runs of whole lines; gzip is recognised by content.

    Args:
        path: The file.
        size: About how many (unpacked) bytes a run has; more where a line is longer.

    Yields:
        Number (from 1) of the first line of the run, and its bytes. Every run but the last ends with a line feed.

    Raises:
        DamagedFileError: The file is empty, or its gzip stream ends early or is corrupt.
    """
    with path.open("rb") as stream:
        head = stream.peek(2)[:2]
        if not head:
            raise DamagedFileError(f"{path}: the file is empty. {_remedy(path)}")
        unpacked: io.BufferedIOBase = gzip.GzipFile(fileobj=stream) if head == _GZIP else stream
        number, read, begun = 1, 0, list[bytes]()
        try:
            while block := unpacked.read(size):
                read += len(block)
                end = block.rfind(b"\n") + 1
                if end == 0:
                    begun.append(block)
                    continue
                chunk = b"".join([*begun, block[:end]])
                yield number, chunk
                number += chunk.count(b"\n")
                begun = [block[end:]]
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DamagedFileError(
                f"{path}: the gzip stream is truncated or corrupt ({error}) after {stream.tell()} of "
                f"{path.stat().st_size} bytes, {number - 1} lines, {read} bytes unpacked. {_remedy(path)}"
            ) from error
        if rest := b"".join(begun):
            yield number, rest


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Number (from 1) and bytes of each physical line.

    Raises:
        DamagedFileError: See :func:`read_chunks`.
    """
    for number, chunk in read_chunks(path):
        yield from enumerate(io.BytesIO(chunk), start=number)


def read_json_lines(
    path: Path, bad_rows: list[BadRow], *, where: tuple[str, Collection[str]] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of each line that holds a JSON object; blank lines are passed over.

    Args:
        path: The file.
        bad_rows: Lines that hold something else are appended here, and reading goes on.
        where: A key and the texts that are wanted under it: a well-formed line with another text may be left out,
            which saves most of the time where few are wanted. None = all lines.

    Yields:
        Line number from 1, and the object.

    Raises:
        DamagedFileError: See :func:`read_chunks`.
    """
    for number, chunk in read_chunks(path):
        lines: Iterable[tuple[int, bytes]] = enumerate(io.BytesIO(chunk), start=number)
        column = None if where is None else json_columns(chunk, {where[0]: pl.String()})
        if where is not None and column is not None:
            lines = [line for line, text in zip(lines, column[where[0]].to_list(), strict=True) if text in where[1]]
        yield from json_objects(path.name, lines, bad_rows)


def json_objects(
    name: str, lines: Iterable[tuple[int, bytes]], bad_rows: list[BadRow]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The same for lines that are at hand.

    Args:
        name: Name of the file, for bad rows.
        lines: Line numbers and lines.
        bad_rows: Lines that hold something else than an object are appended here.

    Yields:
        Line number, and the object.
    """
    for number, line in lines:
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            shown = line[:120].decode("utf-8", "replace").strip()
            bad_rows.append(BadRow(name, number, None, "malformed_json", f"{error}: {shown}"))
            continue
        if isinstance(value, dict):
            yield number, cast("dict[str, Any]", value)
        else:
            detail = f"expected an object, got {type(value).__name__}"
            bad_rows.append(BadRow(name, number, None, "malformed_json", detail))


def json_columns(chunk: bytes, columns: Mapping[str, pl.DataType]) -> pl.DataFrame | None:
    """Some members of the objects in a run of lines, as columns.

    Args:
        chunk: Whole lines.
        columns: Keys and types: ``String`` or ``Int64``.

    Returns:
        One row a line, without nulls; None when a line is anything else than one JSON object that has every key with
        a value of that type.
    """
    body = chunk.removesuffix(b"\n")
    n_lines = body.count(b"\n") + 1
    # The parser looks at objects, not at lines: no object may go over the end of a line, and none may share one.
    if not (body.startswith(b"{") and body.endswith(b"}") and body.count(b"}\n{") == n_lines - 1):
        return None
    fields = [pa.field(name, _ARROW[dtype], nullable=True) for name, dtype in columns.items()]
    try:
        body.decode()
        table = pyarrow.json.read_json(
            pa.BufferReader(body),
            read_options=pyarrow.json.ReadOptions(block_size=_BLOCK),
            parse_options=pyarrow.json.ParseOptions(
                explicit_schema=pa.schema(fields), unexpected_field_behavior="ignore"
            ),
        )
    except (UnicodeDecodeError, pa.ArrowInvalid):
        return None
    if table.num_rows != n_lines or any(column.null_count for column in table.columns):
        return None
    return cast("pl.DataFrame", pl.from_arrow(table))


def _remedy(path: Path) -> str:
    return f"Remove {path} and prepare again to fetch it anew, or replace it if it was placed by hand."
