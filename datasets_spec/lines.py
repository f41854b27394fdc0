"""Read text files line by line, compressed or not, and say exactly what is wrong with them."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from datasets_spec.errors import DamagedFileError
from datasets_spec.schema import BadRow

_GZIP = b"\x1f\x8b"


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Number (from 1) and bytes of each physical line; gzip is recognised by content.

    Raises:
        DamagedFileError: The file is empty, or its gzip stream ends early or is corrupt.
    """
    with path.open("rb") as stream:
        head = stream.peek(2)[:2]
        if not head:
            raise DamagedFileError(f"{path}: the file is empty. {_remedy(path)}")
        if head != _GZIP:
            yield from enumerate(stream, start=1)
            return
        number, read = 0, 0
        try:
            for number, line in enumerate(gzip.GzipFile(fileobj=stream), start=1):
                read += len(line)
                yield number, line
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DamagedFileError(
                f"{path}: the gzip stream is truncated or corrupt ({error}) after {stream.tell()} of "
                f"{path.stat().st_size} bytes, {number} lines, {read} bytes unpacked. {_remedy(path)}"
            ) from error


def read_json_lines(path: Path, bad_rows: list[BadRow]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of each line that holds a JSON object; blank lines are passed over.

    Args:
        path: The file.
        bad_rows: Lines that hold something else are appended here, and reading goes on.

    Yields:
        Line number from 1, and the object.

    Raises:
        DamagedFileError: See :func:`read_lines`.
    """
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            shown = line[:120].decode("utf-8", "replace").strip()
            bad_rows.append(BadRow(path.name, number, None, "malformed_json", f"{error}: {shown}"))
            continue
        if isinstance(value, dict):
            yield number, cast("dict[str, Any]", value)
        else:
            detail = f"expected an object, got {type(value).__name__}"
            bad_rows.append(BadRow(path.name, number, None, "malformed_json", detail))


def _remedy(path: Path) -> str:
    return f"Remove {path} and prepare again to fetch it anew, or replace it if it was placed by hand."
