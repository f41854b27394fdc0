"""The manifest: one JSON file per version that says which rows make up a snapshot.

``manifests/00000001.json``, ``00000002.json`` … are created by put-if-absent and never changed; the highest is the
truth. Each names the SHA-256 of its parent and carries a digest of itself, so that a changed byte in any of them is
noticed whenever it is read.

Rows of a listed shard are live unless ``dead_rows`` names them: an item that was encoded again lives in a newer
shard, and its old row stays behind in an immutable file.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from feature_store.errors import DamagedStoreError, NoSnapshotError, UnknownVersionError
from feature_store.files import Entry, Files
from feature_store.key import canonical_json
from feature_store.quality import Quality
from feature_store.schema import N_DISTINCT, PIXELS, Layout

FORMAT = 1
MANIFESTS = "manifests"
SHARDS = "shards"

_NAME = re.compile(r"(\d{8})\.json")


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ShardInfo(_Frozen):
    """A shard file.

    Attributes:
        sha256: Of the bytes, also the file's name.
        bytes: Size of the file.
        rows: Rows in the file, dead ones included.
        id_min: Smallest item id.
        id_max: Largest item id.
    """

    sha256: str
    bytes: int
    rows: int
    id_min: str
    id_max: str


class ShardRecord(ShardInfo):
    """A shard as part of a snapshot.

    Attributes:
        dead_rows: Rows that a newer row or a changed catalogue supersedes, as ranges such as ``0-3,17``.
    """

    dead_rows: str = ""

    def dead(self) -> list[int]:
        """The superseded rows, ascending."""
        return expand_ranges(self.dead_rows)


class Parent(_Frozen):
    """The version before this one and the SHA-256 of its file."""

    version: int
    sha256: str


class ColumnInfo(_Frozen):
    """Type and row shape of one numeric column."""

    dtype: str
    shape: tuple[int, ...]


class Counts(_Frozen):
    """How much a snapshot holds.

    Attributes:
        rows: Live rows, one per item.
        dead_rows: Superseded rows in the listed shards.
        shards: Files.
        bytes: Their size.
        gone: Live rows of items that the catalogue did not name.
        quarantined: Items of the catalogue that were in quarantine at the time.
    """

    rows: int
    dead_rows: int
    shards: int
    bytes: int
    gone: int
    quarantined: int


class Manifest(_Frozen):
    """What one version of a store consists of.

    Attributes:
        format: Version of this file format.
        version: Number of the snapshot, from 1.
        name: ``<dataset>/<feature>``.
        parent: The version before, None for the first.
        created_at: UTC.
        spec: Everything that determines the numbers; what stands under ``recorded`` does not.
        spec_hash: Hash of the spec without ``recorded``.
        recorded: Facts about the run that made the commit, such as library versions.
        columns: Type and shape of each numeric column.
        shards: The files, by smallest id.
        counts: How much they hold.
        quality: Figures about the vectors.
    """

    format: Literal[1]
    version: int
    name: str
    parent: Parent | None
    created_at: datetime
    spec: dict[str, Any]
    spec_hash: str
    recorded: dict[str, Any]
    columns: dict[str, ColumnInfo]
    shards: tuple[ShardRecord, ...]
    counts: Counts
    quality: Quality

    def resolution(self) -> dict[str, str]:
        """Shard name to its dead rows: two manifests with equal specs and resolutions hold the same rows."""
        return {shard.sha256: shard.dead_rows for shard in self.shards}


def columns_of(layout: Layout) -> dict[str, ColumnInfo]:
    """The ``columns`` entry of a manifest."""
    dtypes: dict[str, str] = dict.fromkeys(layout.columns, layout.dtype)
    dtypes |= {name: "uint8" for name in (N_DISTINCT, PIXELS) if name in dtypes}
    return {name: ColumnInfo(dtype=dtypes[name], shape=shape) for name, shape in layout.columns.items()}


def manifest_path(version: int) -> str:
    """``manifests/00000001.json`` for 1."""
    return f"{MANIFESTS}/{version:08d}.json"


def shard_path(sha256: str) -> str:
    """``shards/<sha256>.parquet``."""
    return f"{SHARDS}/{sha256}.parquet"


def render(manifest: Manifest) -> bytes:
    """The bytes of the manifest's file: readable JSON with a digest of the rest under ``sha256``."""
    body = manifest.model_dump(mode="json")
    digest = hashlib.sha256(canonical_json(body).encode()).hexdigest()
    return (json.dumps({**body, "sha256": digest}, indent=2, ensure_ascii=False) + "\n").encode()


def parse(data: bytes, path: str) -> Manifest:
    """Read a manifest and check it against its own digest.

    Raises:
        DamagedStoreError: When the bytes are not what :func:`render` wrote.
    """
    try:
        body = json.loads(data)
        if isinstance(body, dict) and body.get("format", FORMAT) != FORMAT:
            raise DamagedStoreError(
                f"{path}: format {body['format']!r}, this program reads format {FORMAT}; use a newer reelstore"
            )
        manifest = Manifest.model_validate({key: value for key, value in body.items() if key != "sha256"})
    except (ValueError, AttributeError, ValidationError) as error:
        reason = str(error).partition("\n")[0]
        raise DamagedStoreError(f"{path}: not a manifest ({reason})") from None
    if render(manifest) != data:
        raise DamagedStoreError(f"{path}: its bytes do not match the digest it carries")
    return manifest


def numbered(files: Files) -> dict[int, Entry]:
    """The file of every committed version, ascending."""
    matches = ((_NAME.fullmatch(entry.name), entry) for entry in files.entries(MANIFESTS))
    return {int(match.group(1)): entry for match, entry in matches if match}


def versions(files: Files) -> list[int]:
    """Numbers of all committed versions, ascending."""
    return list(numbered(files))


def load(files: Files, version: int) -> Manifest:
    """Read one version.

    Raises:
        UnknownVersionError: When there is no such version, naming those there are.
        DamagedStoreError: When the file is damaged, saying what can still be read.
    """
    path = manifest_path(version)
    known = versions(files)
    try:
        manifest = parse(files.read(path), path)
    except FileNotFoundError:
        there = ", ".join(map(str, known)) or "none"
        raise UnknownVersionError(f"{files.location} has no version {version}; versions there are: {there}") from None
    except DamagedStoreError as error:
        older = [number for number in known if number < version]
        advice = f"; version {older[-1]} can be read with .at({older[-1]})" if older else ""
        raise DamagedStoreError(f"{files.location}: {error}. Restore the file or remove it{advice}") from None
    if manifest.version != version:
        raise DamagedStoreError(f"{files.location}: {path} says that it is version {manifest.version}")
    return manifest


def load_latest(files: Files) -> Manifest:
    """Read the highest version.

    Raises:
        NoSnapshotError: When nothing was committed yet.
        DamagedStoreError: When its file is damaged.
    """
    known = versions(files)
    if not known:
        raise NoSnapshotError(
            f"{files.location} holds no committed snapshot yet; `reelstore extract` builds one (an interrupted run "
            "is continued by running it again)"
        )
    return load(files, known[-1])


def head(files: Files) -> Manifest | None:
    """The highest version, None where nothing was committed."""
    return load_latest(files) if versions(files) else None


def compress_ranges(rows: list[int]) -> str:
    """Ascending row numbers as text: ``[0, 1, 2, 17]`` gives ``0-2,17``."""
    parts: list[list[int]] = []
    for row in rows:
        if parts and row == parts[-1][1] + 1:
            parts[-1][1] = row
        else:
            parts.append([row, row])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def expand_ranges(text: str) -> list[int]:
    """The inverse of :func:`compress_ranges`."""
    rows: list[int] = []
    for part in text.split(",") if text else []:
        first, _, last = part.partition("-")
        rows.extend(range(int(first), int(last or first) + 1))
    return rows
