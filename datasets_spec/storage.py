"""A disk that fills up is said in one way, whichever library met it first."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from polars.exceptions import PolarsError

from datasets_spec.errors import DiskFullError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_OS_ERROR = re.compile(r"\(os error (\d+)\)")  # polars wraps the system's number into its text


def is_full(error: BaseException) -> bool:
    """Whether an error says that a disk, a quota or a limit on file sizes is exhausted."""
    if isinstance(error, OSError):
        return error.errno in _FULL
    found = _OS_ERROR.search(str(error)) if isinstance(error, PolarsError) else None
    return found is not None and int(found[1]) in _FULL


@contextmanager
def full_disk_told(folder: Path) -> Generator[None]:
    """Turn such errors of the block into one that says where, how much is free, and what becomes of what is there.

    Args:
        folder: What is written lies below it.

    Raises:
        DiskFullError: In place of the library's error.
    """
    try:
        yield
    except (OSError, PolarsError) as error:
        if not is_full(error) or isinstance(error, DiskFullError):
            raise
        there = next(place for place in (folder, *folder.parents) if place.exists())
        free = shutil.disk_usage(there).free
        raise DiskFullError(
            f"no room to write below {folder}: {free / 2**20:.0f} MiB are free ({error}). Nothing half-written is in "
            "use and finished downloads stay: make room, or choose another place with --root, and run the same command "
            "again"
        ) from error
