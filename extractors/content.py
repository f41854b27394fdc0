"""Content hashes: the name, path and age of a file say nothing about what is in it."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TypeVar

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int | None], None]

_SETTLED_NS = 2_000_000_000
"""A file that was written less than this before it was hashed is hashed again next time: a change within the
clock's step would not show in its times."""

_PIECE_BYTES = 1 << 18
_STEP_SECONDS = 0.2

ValueT = TypeVar("ValueT")


class _StoppedError(Exception):
    """Nobody waits for the hash any more."""


def file_sha256(path: Path, *, stop: threading.Event | None = None) -> bytes:
    """SHA-256 of a regular file's bytes, 32 bytes.

    Pipes and devices may never end, or never begin, so they are not read; nor is a file to its end that gets longer
    all the time.

    Args:
        path: The file.
        stop: Ends the reading when it is set.

    Raises:
        OSError: When the file cannot be read, is no regular file, or changes its length while it is read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # opening a pipe waits for its writer
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        digest, piece, done = hashlib.sha256(), memoryview(bytearray(_PIECE_BYTES)), 0
        while done <= state.st_size and (count := os.readv(descriptor, [piece])):
            if stop is not None and stop.is_set():
                raise _StoppedError
            digest.update(piece[:count])
            done += count
    finally:
        os.close(descriptor)
    if done != state.st_size:
        raise OSError(errno.EBUSY, "its length changes while it is read", str(path))
    return digest.digest()


def text_sha256(text: str) -> bytes:
    """SHA-256 of a text's UTF-8 bytes, 32 bytes; a lone surrogate is kept apart from every valid text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


class HashCache:
    """Remembers the hash of a file for as long as its size and its times stay the same.

    One small JSON file. It is disposable: without it, every file is read again.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, list[int | str]] = _read(path) if path else {}
        self._changed = False

    def digest(self, path: Path, *, stop: threading.Event | None = None) -> bytes:
        """SHA-256 of the file, read only when it is not known.

        Args:
            path: The file.
            stop: Ends the reading when it is set.

        Raises:
            OSError: When the file cannot be read.
        """
        state = path.stat()
        key = str(path.absolute())
        stamp: list[int | str] = [state.st_size, state.st_mtime_ns, state.st_ctime_ns]
        known = self._known.get(key)
        if known is not None and known[:3] == stamp:
            return bytes.fromhex(str(known[3]))
        started = time.time_ns()
        digest = file_sha256(path, stop=stop)
        if started - max(state.st_mtime_ns, state.st_ctime_ns) > _SETTLED_NS:
            self._known[key] = [*stamp, digest.hex()]
            self._changed = True
        return digest

    def save(self) -> None:
        """Write what is known, in one atomic step; a failure to write costs time later and nothing else."""
        if self._path is None or not self._changed:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=self._path.parent, suffix=".tmp")
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                json.dump(self._known, stream)
            Path(temporary).replace(self._path)
        except OSError as error:
            logger.warning("the hash cache %s could not be written: %s", self._path, error)


def _read(path: Path) -> dict[str, list[int | str]]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(values, dict):
        return {}
    return {str(key): row for key, row in values.items() if _is_row(row)}


def _is_row(row: object) -> bool:
    """Size, two times in nanoseconds, 64 hexadecimal digits."""
    if not isinstance(row, list) or [type(value) for value in row] != [int, int, int, str]:
        return False
    return re.fullmatch("[0-9a-f]{64}", str(row[3])) is not None


def hash_files(
    files: Iterable[tuple[str, Path]],
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, bytes], dict[str, OSError]]:
    """Hash many files, several at a time.

    Args:
        files: Item id and path.
        cache: Where to remember hashes between runs.
        progress: Called with ``("hash", done, total)``.

    Returns:
        Hash by item id in the given order, and the error of each file that could not be read.
    """
    todo = list(files)
    store = HashCache(cache)
    hashes: dict[str, bytes] = {}
    errors: dict[str, OSError] = {}
    stop = threading.Event()

    def one(entry: tuple[str, Path]) -> bytes | OSError:
        try:
            return store.digest(entry[1], stop=stop)
        except OSError as error:
            return error

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        try:
            futures = [pool.submit(one, entry) for entry in todo]
            for done, ((item_id, _), future) in enumerate(zip(todo, futures, strict=True), start=1):
                outcome = _result(future)
                if isinstance(outcome, bytes):
                    hashes[item_id] = outcome
                else:
                    errors[item_id] = outcome
                if progress is not None:
                    progress("hash", done, len(todo))
        finally:
            stop.set()  # after Ctrl-C, leaving the pool would wait for whole files
            pool.shutdown(wait=False, cancel_futures=True)
    store.save()
    return hashes, errors


def _result(future: Future[ValueT]) -> ValueT:
    """The result, waited for in short steps: polars' handler of SIGINT lets no single wait be interrupted."""
    while not future.done():
        wait([future], timeout=_STEP_SECONDS)
    return future.result()
