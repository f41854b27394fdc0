"""A prepared dataset on disk: verified tables and a manifest in one folder that appears atomically."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from datasets_spec.errors import ConfigConflictError, DamagedFileError, NotPreparedError
from datasets_spec.partfile import sha256_of, sync_folder
from datasets_spec.schema import INTERACTIONS, ITEMS, QUARANTINE, SPLITS, USERS, CodedInteractions, check_columns
from datasets_spec.spec import MediaKind

MANIFEST = "manifest.json"
#: Rows that are written together.
_ROW_GROUP = 1 << 20
#: Table name = file name; the first four are the dataset, the last says what could not be used.
TABLES: dict[str, dict[str, pl.DataType]] = {
    "interactions": INTERACTIONS,
    "items": ITEMS,
    "users": USERS,
    "splits": SPLITS,
    "quarantine": QUARANTINE,
}


class PreparedDataset:
    """Read access to ``prepared/<dataset>/``; tables are read when they are first asked for.

    Attributes:
        path: The folder.
        manifest: ``name``, ``title``, ``version``, ``created_at``, ``licence``, ``config``, ``raw`` (size and SHA-256
            of each raw file), ``notes``, ``steps`` (what was left after each), ``kcore`` (pass by pass), ``split``
            (sizes and leakage ``line``), ``stats``, ``published`` (sizes that papers print), ``items_with`` (items by
            modality), ``bad_rows`` (count by reason), ``digests``, ``id_map`` and ``files``.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: Path | str) -> PreparedDataset:
        """Open a folder that :func:`datasets_spec.prepare.prepare` wrote.

        Args:
            path: ``<root>/prepared/<dataset>``.

        Returns:
            The dataset.

        Raises:
            NotPreparedError: There is none.
            DamagedFileError: A file is absent, or has another size than the manifest says.
        """
        path = Path(path)
        manifest = read_manifest(path)
        if manifest is None:
            raise NotPreparedError(f"no prepared dataset at {path}; run: reelstore prepare {path.name}")
        for name, entry in manifest["files"].items():
            file = path / name
            size = file.stat().st_size if file.is_file() else None
            if size != entry["bytes"]:
                found = "it is not there" if size is None else f"got {size}"
                raise DamagedFileError(
                    f"{file}: expected {entry['bytes']} bytes, {found}; remove {path} and run: "
                    f"reelstore prepare {path.name}"
                )
        return cls(path, manifest)

    @property
    def name(self) -> str:
        """The dataset's name."""
        return self.manifest["name"]

    @property
    def version(self) -> str:
        """SHA-256 over the content of interactions, items, users and splits."""
        return self.manifest["version"]

    @property
    def n_users(self) -> int:
        """Number of users; they are numbered 1..n_users."""
        return self.manifest["stats"]["users"]

    @property
    def n_items(self) -> int:
        """Number of items; they are numbered 1..n_items."""
        return self.manifest["stats"]["items"]

    @cached_property
    def interactions(self) -> pl.DataFrame:
        """One row per interaction, sorted by (user, position)."""
        return self._read("interactions")

    @cached_property
    def items(self) -> pl.DataFrame:
        """One row per item, sorted by item."""
        return self._read("items")

    @cached_property
    def users(self) -> pl.DataFrame:
        """One row per user, sorted by user."""
        return self._read("users")

    @cached_property
    def splits(self) -> pl.DataFrame:
        """Rows of each user in training, validation and test, sorted by user."""
        return self._read("splits")

    @cached_property
    def quarantine(self) -> pl.DataFrame:
        """Raw rows, items and media files that could not be used, with the reason."""
        return self._read("quarantine")

    def media(self, kind: MediaKind) -> list[tuple[str, Path]]:
        """Item id and file of the items that have media of a kind, in item order."""
        if kind not in self.items.columns:
            return []
        present = self.items.filter(pl.col(kind).is_not_null()).select("item_id", kind)
        return [(item_id, Path(path)) for item_id, path in present.iter_rows()]

    def texts(self, fields: tuple[str, ...] = ("title",)) -> list[tuple[str, str]]:
        """Item id and text of the items that have any, in item order.

        Args:
            fields: Item columns; those that an item has are joined by ``". "``.

        Returns:
            Pairs of item id and text.

        Raises:
            ConfigConflictError: The items have no such column.
        """
        absent = [field for field in fields if field not in self.items.columns]
        if absent:
            raise ConfigConflictError(
                f"{self.name}: items have no column {', '.join(absent)}; they have {', '.join(self.items.columns)}"
            )
        parts = [pl.col(field).cast(pl.String).str.strip_chars().replace("", None) for field in fields]
        joined = self.items.select("item_id", text=pl.concat_str(parts, separator=". ", ignore_nulls=True))
        return [(item_id, text) for item_id, text in joined.iter_rows() if text]

    def _read(self, table: str) -> pl.DataFrame:
        path = self.path / f"{table}.parquet"
        try:
            frame = pl.read_parquet(path)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise DamagedFileError(
                f"{path}: cannot be read ({error}); remove {self.path} and run: reelstore prepare {self.name}"
            ) from error
        check_columns(frame, TABLES[table], table=str(path), exact=table != "items")
        return frame

    def __repr__(self) -> str:
        return (
            f"PreparedDataset({self.name!r}, version={self.version[:12]}, users={self.n_users}, items={self.n_items}, "
            f"interactions={self.manifest['stats']['interactions']})"
        )


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest of a prepared folder; None when there is none.

    Raises:
        DamagedFileError: It is there and cannot be read.
    """
    file = path / MANIFEST
    try:
        return json.loads(file.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise DamagedFileError(
            f"{file}: expected JSON ({error}); remove {path} and run: reelstore prepare {path.name}"
        ) from error


def write(
    path: Path, interactions: CodedInteractions, tables: dict[str, pl.DataFrame], manifest: dict[str, Any]
) -> PreparedDataset:
    """Write a prepared folder: into a sibling first, made durable, then renamed into place.

    Args:
        path: ``<root>/prepared/<dataset>``; an older one is replaced as a whole.
        interactions: The interactions.
        tables: All other tables of :data:`TABLES`.
        manifest: Without ``files``, which is added here.

    Returns:
        The dataset.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.tmp-", dir=path.parent))
    folder.chmod(0o755)
    try:
        files: dict[str, dict[str, Any]] = {}
        for table in TABLES:
            file = folder / f"{table}.parquet"
            rows = _write_rows(file, interactions) if table == "interactions" else _write_table(file, tables[table])
            files[file.name] = {"rows": rows, "bytes": file.stat().st_size, "sha256": sha256_of(file)}
        complete = {**manifest, "files": files}
        (folder / MANIFEST).write_text(json.dumps(complete, indent=2, ensure_ascii=False) + "\n")
        for file in folder.iterdir():
            _sync_file(file)
        sync_folder(folder)
        _put_in_place(folder, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return PreparedDataset.open(path)


def _write_table(file: Path, frame: pl.DataFrame) -> int:
    check_columns(frame, TABLES[file.stem], table=file.stem, exact=file.stem != "items")
    frame.write_parquet(file)
    return frame.height


def _write_rows(file: Path, interactions: CodedInteractions) -> int:
    """Row group by row group: the texts of all rows together would take several times the memory of the numbers."""
    schema = _arrow(interactions, 0, 0).schema
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for start in range(0, interactions.height, _ROW_GROUP):
            writer.write_table(_arrow(interactions, start, _ROW_GROUP))
    return interactions.height


def _arrow(interactions: CodedInteractions, start: int, length: int) -> pa.Table:
    frame = interactions.frame(start, length)
    check_columns(frame, INTERACTIONS, table="interactions")
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def _sync_file(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _put_in_place(folder: Path, path: Path) -> None:
    old = path.with_name(f".{path.name}.old")
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
    folder.rename(path)
    sync_folder(path.parent)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def writer_lock(path: Path) -> Generator[None]:
    """Let one process at a time write the folder ``path``; first undo what a crash left half done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        old = path.with_name(f".{path.name}.old")
        if old.exists() and not path.exists():
            old.rename(path)
        for left in path.parent.glob(f".{path.name}.tmp-*"):
            shutil.rmtree(left, ignore_errors=True)
        yield
