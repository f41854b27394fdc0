"""The vectors of the words that occur, kept between runs as a file that is mapped into memory.

A table of word vectors is gigabytes of text, of which a dataset needs a few thousand lines. One pass writes these into
``<table>-<digest>.npy``, float32 ``[words, d]``, which is opened with ``mmap_mode="r"``: pages come in as they are used
and are shared by all processes. Beside it, ``<table>.json`` says which word each row is of, and which words were looked
for and are not in the table. ``<table>`` stands for the bytes of the table, so that another table is another cache.

The cache is disposable. Its digest covers vectors and words: whatever does not agree with it is written anew. Processes
take turns, so that those that want the same words read the text once. Where nothing can be written, the vectors are
held in memory.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from extractors.content import file_sha256

logger = logging.getLogger(__name__)

Read = Callable[[AbstractSet[str]], Iterable[tuple[str, np.ndarray]]]
"""One pass over the table: each wanted word that is in it, once, with its vector float32 ``[d]``."""


class WordVectors(Mapping[str, "np.ndarray | None"]):
    """Vectors float32 ``[d]`` by word; None for words that were looked for and have none.

    Args:
        rows: float32 ``[n, d]``.
        places: Row of each word, None where it has none.
    """

    def __init__(self, rows: np.ndarray, places: Mapping[str, int | None]) -> None:
        self._rows = rows
        self._places = places

    def __getitem__(self, word: str) -> np.ndarray | None:
        place = self._places[word]
        return None if place is None else self._rows[place]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def known(self) -> Iterator[tuple[str, np.ndarray]]:
        """The words that have a vector."""
        return ((word, self._rows[place]) for word, place in self._places.items() if place is not None)

    def only(self, words: AbstractSet[str]) -> WordVectors:
        """The same for a part of the words."""
        return WordVectors(self._rows, {word: self._places[word] for word in words})


class WordCache:
    """The cache of one table.

    Args:
        folder: Where caches lie; made when something is written.
        table: Name of the table's content, such as its SHA-256.
        dim: Width of the vectors.
    """

    def __init__(self, folder: Path, table: str, dim: int) -> None:
        self._folder = folder
        self._name = hashlib.sha256(table.encode()).hexdigest()[:24]
        self._dim = dim

    def cover(self, wanted: AbstractSet[str], read: Read) -> WordVectors:
        """Vectors of the wanted words; the table is read for those that are not in the cache, if there are any.

        Args:
            wanted: Words.
            read: Reads the table.
        """
        try:
            with self._turn():
                held = self._load()
                missing = wanted - held.keys()
                if missing:
                    self._write(held, missing, read)
                    held = self._load()
            return held.only(wanted)
        except (OSError, KeyError) as error:  # KeyError: what was just written reads back as damaged
            logger.warning("the word vectors cannot be kept in %s and are held in memory: %s", self._folder, error)
            found = dict(read(wanted))
            places = dict.fromkeys(wanted) | {word: place for place, word in enumerate(found)}
            return WordVectors(np.array(list(found.values()), dtype=np.float32), places)

    @property
    def _index(self) -> Path:
        return self._folder / f"{self._name}.json"

    @contextmanager
    def _turn(self) -> Generator[None]:
        """Wait until no other process is at this cache; the system ends the turn of one that dies."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / f"{self._name}.lock").open("ab") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def _load(self) -> WordVectors:
        """What is in the cache; nothing when it is absent or damaged."""
        try:
            return self._mapped(json.loads(self._index.read_bytes()))
        except FileNotFoundError:
            return _NOTHING
        except (OSError, ValueError, TypeError, KeyError) as error:
            logger.warning("the word vectors in %s are damaged and are written anew: %s", self._index, error)
            return _NOTHING

    def _mapped(self, index: Any) -> WordVectors:
        """The vectors and words that an index names."""
        known, unknown, path = index["known"], index["unknown"], self._folder / Path(index["file"]).name
        if index["sha256"] != _digest(path, known, unknown):
            raise ValueError("they do not agree with their digest")
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
        if rows.dtype != np.float32 or rows.shape != (len(known), self._dim):
            raise ValueError(f"{rows.dtype} {rows.shape} for {len(known)} words")
        places = dict.fromkeys(unknown) | {word: place for place, word in enumerate(known)}
        return WordVectors(np.asarray(rows), places)

    def _write(self, held: WordVectors, missing: AbstractSet[str], read: Read) -> None:
        """Write what is held and what is missing; the new index makes it known in one step."""
        known: list[str] = []

        def vectors() -> Iterator[np.ndarray]:
            for part in (held.known(), read(missing)):
                for word, vector in part:
                    known.append(word)
                    yield vector

        with self._fresh() as (stream, rows):
            _write_rows(stream, vectors(), self._dim)
        unknown = sorted((held.keys() | missing) - set(known))
        digest = _digest(rows, known, unknown)
        target = rows.replace(self._folder / f"{self._name}-{digest[:16]}.npy")
        with self._fresh() as (stream, index):
            content = {"file": target.name, "sha256": digest, "known": known, "unknown": unknown}
            stream.write(json.dumps(content, ensure_ascii=False).encode())
        index.replace(self._index)
        for path in self._folder.glob(f"{self._name}*"):  # of earlier contents, and of processes that were killed
            if path.suffix in (".npy", ".tmp") and path != target:
                path.unlink()

    @contextmanager
    def _fresh(self) -> Generator[tuple[BinaryIO, Path]]:
        """A new file under a temporary name, on the disk when it is left."""
        path = self._folder / f"{self._name}.{os.getpid()}.tmp"
        with path.open("wb") as stream:
            yield stream, path
            stream.flush()
            os.fsync(stream.fileno())


_NOTHING = WordVectors(np.empty((0, 0), dtype=np.float32), {})


def _write_rows(stream: BinaryIO, vectors: Iterable[np.ndarray], dim: int) -> None:
    """Write an array row by row; NumPy leaves room in the header for the number of rows, which is known at the end."""
    count = 0
    _write_header(stream, count, dim)
    for vector in vectors:
        stream.write(vector.astype("<f4", copy=False).tobytes())
        count += 1
    stream.seek(0)
    _write_header(stream, count, dim)


def _write_header(stream: BinaryIO, count: int, dim: int) -> None:
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (count, dim)})


def _digest(rows: Path, known: Sequence[str], unknown: Sequence[str]) -> str:
    """SHA-256 of the vectors' file and the words."""
    words = json.dumps([known, unknown]).encode()
    return hashlib.sha256(file_sha256(rows) + words).hexdigest()
