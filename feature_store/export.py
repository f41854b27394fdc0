"""Exports of a snapshot for programs that do not read the store: arrays, Parquet, Lance, Hugging Face data sets.

Rows come in the order of ``item_id``. An export is made in a folder beside the target and gets its name when it is
complete. ``manifest.json`` in it says what it was made from.
"""

from __future__ import annotations

import importlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa

from feature_store import manifest as manifests
from feature_store.commit import Progress
from feature_store.compaction import TARGET_BYTES, chunks
from feature_store.errors import ExportError
from feature_store.files import TEMPORARY, make_folder
from feature_store.shard import FeatureShard
from feature_store.snapshot import Snapshot
from feature_store.writer import Compression, encode_shard, shard_table

#: What an export can be.
Form = Literal["npy", "parquet", "lance", "hf"]

#: Bytes of vectors that are read at a time where nothing else decides it.
_BLOCK_BYTES = 32_000_000


@dataclass(frozen=True)
class Exported:
    """An export that was made.

    Attributes:
        form: ``npy``, ``parquet``, ``lance`` or ``hf``.
        folder: Where it is.
        version: The snapshot.
        rows: Its items.
        bytes: Size of all files.
    """

    form: Form
    folder: str
    version: int
    rows: int
    bytes: int


def export_snapshot(
    snapshot: Snapshot,
    folder: str | Path,
    form: Form,
    *,
    compression: Compression = "none",
    progress: Progress | None = None,
) -> Exported:
    """Write a snapshot for another program.

    * ``npy``: ``<column>.npy`` ``[r, *shape]`` of the stored type, and ``ids.json``, the item ids of the rows.
    * ``parquet``: ``part-00000.parquet`` … with the columns of a shard.
    * ``lance``: ``data.lance``, a Lance data set (needs ``pylance``).
    * ``hf``: what ``datasets.load_from_disk`` opens (needs ``datasets``).

    Args:
        snapshot: The version.
        folder: Where to; made where it is absent, refused where something lies in it.
        form: One of the above.
        compression: For ``parquet``: ``none``, or ``zstd`` for copies far away.
        progress: Called as ``progress("export", rows done, rows)``.

    Raises:
        ExportError: When the folder is not empty, the form is unknown or its library not installed.
        DamagedStoreError: When a shard is missing or damaged.
    """
    target = Path(folder)
    if form not in get_args(Form):
        raise ExportError(f"expected one of {', '.join(get_args(Form))}, got {form!r}")
    if compression != "none" and form != "parquet":
        raise ExportError(f"compression={compression!r}: only an export to parquet is compressed, not one to {form}")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ExportError(f"{target} is not an empty folder; an export needs its own")
    library = _library(form)
    make_folder(target.absolute().parent)
    temporary = target.absolute().with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY}")
    temporary.mkdir()
    try:
        writers: dict[Form, Callable[[], None]] = {
            "npy": lambda: _npy(snapshot, temporary, progress),
            "parquet": lambda: _parquet(snapshot, temporary, compression, progress),
            "lance": lambda: _lance(library, snapshot, temporary, progress),
            "hf": lambda: _hf(library, snapshot, temporary, progress),
        }
        writers[form]()
        (temporary / "manifest.json").write_bytes(manifests.render(snapshot.manifest))
        size = sum(path.stat().st_size for path in temporary.rglob("*") if path.is_file())
        temporary.replace(target)  # onto an empty folder or nothing
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Exported(form, str(target), snapshot.version, snapshot.rows, size)


def _library(form: Form) -> Any:
    needed = {"lance": ("lance", "pylance"), "hf": ("datasets", "datasets")}.get(form)
    if needed is None:
        return None
    module, package = needed
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ExportError(f"an export to {form} needs the package {package!r} ({error}); install it") from None


def _blocks(snapshot: Snapshot, size: int, progress: Progress | None) -> Iterator[tuple[int, FeatureShard]]:
    """First row and rows of each piece."""
    for chunk in chunks(snapshot, size):
        yield chunk.start, chunk.read()
        if progress:
            progress("export", chunk.start + len(chunk.rows), snapshot.rows)


def _npy(snapshot: Snapshot, folder: Path, progress: Progress | None) -> None:
    arrays = {
        name: np.lib.format.open_memmap(
            folder / f"{name}.npy", mode="w+", dtype=np.dtype(info.dtype), shape=(snapshot.rows, *info.shape)
        )
        for name, info in snapshot.manifest.columns.items()
    }
    ids: list[str] = []
    for start, block in _blocks(snapshot, _BLOCK_BYTES, progress):
        ids += block.item_ids
        for name, array in arrays.items():
            array[start : start + len(block)] = getattr(block, name)
    for array in arrays.values():
        array.flush()
    (folder / "ids.json").write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")


def _parquet(snapshot: Snapshot, folder: Path, compression: Compression, progress: Progress | None) -> None:
    for number, (_, block) in enumerate(_blocks(snapshot, TARGET_BYTES, progress)):
        data = encode_shard(block, snapshot.spec_hash, compression=compression)
        (folder / f"part-{number:05d}.parquet").write_bytes(data)


def _lance(lance: Any, snapshot: Snapshot, folder: Path, progress: Progress | None) -> None:
    tables = (shard_table(block, snapshot.spec_hash) for _, block in _blocks(snapshot, _BLOCK_BYTES, progress))
    first = next(tables)

    def batches() -> Iterator[pa.RecordBatch]:
        yield from first.to_batches()
        for table in tables:
            yield from table.to_batches()

    lance.write_dataset(batches(), str(folder / "data.lance"), schema=first.schema)


def _hf(datasets: Any, snapshot: Snapshot, folder: Path, progress: Progress | None) -> None:
    parts = folder / "parts"
    parts.mkdir()
    _parquet(snapshot, parts, "none", progress)
    paths = [str(path) for path in sorted(parts.iterdir())]
    hidden = datasets.utils.are_progress_bars_disabled()
    datasets.utils.disable_progress_bars()
    try:
        made = datasets.Dataset.from_parquet(paths, cache_dir=str(parts / "cache"))
        made.save_to_disk(str(folder))
    finally:
        if not hidden:
            datasets.utils.enable_progress_bars()
    shutil.rmtree(parts)
