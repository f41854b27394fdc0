"""Disposable copies: memory maps of whole columns under ``cache/``, and local copies of remote shards.

The name of a map is a fingerprint of the rows it was made from, so a cache can be out of date only by not being
asked for any more. ``np.load`` checks the header; values are not hashed again. A copy of a shard is hashed when it is
downloaded, and has its name from then on; later its size alone is compared.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feature_store.errors import DamagedStoreError, StoreError
from feature_store.files import TEMPORARY, Files, LocalFiles
from feature_store.key import canonical_json
from feature_store.manifest import Manifest, shard_path

CACHE = "cache"


def fingerprint(manifest: Manifest, column: str) -> str:
    """Hash of a column's name and of the rows that a snapshot holds, in their order."""
    rows = [[shard.sha256, shard.dead_rows] for shard in manifest.shards]
    return hashlib.sha256(canonical_json([column, rows]).encode()).hexdigest()[:32]


def memory_map(
    files: Files,
    manifest: Manifest,
    *,
    column: str,
    shape: tuple[int, ...],
    blocks: Callable[[], Iterable[NDArray[np.generic]]],
) -> NDArray[np.generic]:
    """Open the memory map of a column, building it first where it is missing or has another shape.

    Args:
        files: The store; it must be on this disk.
        manifest: The snapshot.
        column: Name of the column.
        shape: ``[r, *shape]`` of the whole column.
        blocks: Gives the rows in order, in pieces.

    Raises:
        StoreError: When the store is not on this disk.
    """
    if files.folder is None:
        raise StoreError(
            f"{files.location} is not on this disk, so there is nothing to map; use .matrix(ids), or .cached(FOLDER) "
            "first"
        )
    path = files.folder / CACHE / f"{fingerprint(manifest, column)}.npy"
    dtype = np.dtype(manifest.columns[column].dtype)
    mapped = _open(path, shape, dtype)
    if mapped is None:
        _build(path, shape, dtype, blocks())
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped


class LocalCopies(LocalFiles):
    """Shards of a snapshot in a folder on this disk, each downloaded when it is first needed."""

    def __init__(self, origin: Files, folder: Path, manifest: Manifest) -> None:
        super().__init__(folder)
        self._origin = origin
        self._sizes = {shard_path(shard.sha256): shard.bytes for shard in manifest.shards}
        self._sha256 = {shard_path(shard.sha256): shard.sha256 for shard in manifest.shards}

    @property
    def location(self) -> str:
        """Where the store is, and where its copies are."""
        return f"{self._origin.location} (copied to {super().location})"

    def source(self, path: str) -> str:
        """The local copy of a shard, downloaded where it is absent or has another size.

        Raises:
            DamagedStoreError: When the bytes that came do not hash to the shard's name.
            FileNotFoundError: When the store does not have it.
        """
        local = super().source(path)
        try:
            there = Path(local).stat().st_size == self._sizes[path]
        except FileNotFoundError:
            there = False
        if not there:
            data = self._origin.read(path)
            found = hashlib.sha256(data).hexdigest()
            if found != self._sha256[path]:
                raise DamagedStoreError(
                    f"{self._origin.location}/{path}: the {len(data)} bytes that came hash to {found[:12]}…, not to "
                    "its name; try again, or run `reelstore store verify`"
                )
            self.put(path, data)
        return local


def _open(path: Path, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> NDArray[np.generic] | None:
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):  # absent, or torn by somebody else's hand
        return None
    return mapped if mapped.shape == shape and mapped.dtype == dtype else None


def _build(
    path: Path, shape: tuple[int, ...], dtype: np.dtype[np.generic], blocks: Iterable[NDArray[np.generic]]
) -> None:
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY}")
    target = np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=shape)
    start = 0
    for block in blocks:
        target[start : start + len(block)] = block
        start += len(block)
    target.flush()
    temporary.replace(path)
