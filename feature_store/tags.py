"""Tags: names for versions that garbage collection never removes.

``tags/<name>.json`` is created by put-if-absent: a name says one thing until somebody moves it explicitly. It records
the SHA-256 of the manifest, so that a version that was replaced under the same number is noticed.

A tag and a garbage collection that meet cannot miss each other: ``gc`` writes which versions it is about to remove
before it reads the tags; a tag is written before that list is read, and withdrawn where its version is on it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from feature_store import faults, horizon
from feature_store import manifest as manifests
from feature_store.errors import DamagedStoreError, TagError
from feature_store.files import AlreadyThereError, Files
from feature_store.manifest import manifest_path

TAGS = "tags"

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
_SUFFIX = ".json"


class Tag(BaseModel):
    """A name for a version.

    Attributes:
        version: The version.
        manifest_sha256: Hash of its manifest.
        created_at: UTC, when the tag was made or moved.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int
    manifest_sha256: str
    created_at: datetime


@dataclass(frozen=True)
class Tags:
    """The tags of a store.

    Attributes:
        good: Name to tag.
        damaged: Path to what is wrong with it.
    """

    good: dict[str, Tag]
    damaged: dict[str, str]


def survey(files: Files) -> Tags:
    """Read every tag."""
    good: dict[str, Tag] = {}
    damaged: dict[str, str] = {}
    for entry in files.entries(TAGS):
        name = entry.name.removesuffix(_SUFFIX)
        if entry.name.endswith(_SUFFIX) and _NAME.fullmatch(name):
            try:
                tag = _read(files, name)
            except DamagedStoreError as error:
                damaged[entry.path] = str(error)
            else:
                good |= {name: tag} if tag else {}
    return Tags(good, damaged)


def read_all(files: Files) -> dict[str, Tag]:
    """Name to tag, by name.

    Raises:
        DamagedStoreError: When one cannot be read: which version it keeps is not known.
    """
    tags = survey(files)
    for path, problem in tags.damaged.items():
        raise DamagedStoreError(f"{files.location}/{path}: {problem}")
    return tags.good


def find(files: Files, name: str) -> Tag:
    """The tag of that name.

    Raises:
        TagError: Naming the tags there are.
        DamagedStoreError: When it cannot be read.
    """
    _check_name(name)
    tag = _read(files, name)
    if tag is None:
        raise TagError(f"{files.location} has no tag {name!r}; tags there are: {', '.join(read_all(files)) or 'none'}")
    return tag


def add(files: Files, name: str, version: int | None, *, move: bool = False) -> Tag:
    """Name a version.

    Args:
        files: The store.
        name: A letter, then letters, digits, ``.``, ``_`` or ``-``, at most 64.
        version: None for the latest.
        move: Whether a tag that is there may be moved.

    Raises:
        TagError: When the name is malformed, names another version already, or names one that ``gc`` is removing.
        UnknownVersionError: Naming the versions there are.
        NoSnapshotError: When nothing was committed yet.
        DamagedStoreError: When the manifest is damaged.
    """
    _check_name(name)
    horizon.read(files)  # unreadable, it must not be found out after the tag was written
    manifest = manifests.load_latest(files) if version is None else manifests.load(files, version)
    data = files.read(manifest_path(manifest.version))
    tag = Tag(version=manifest.version, manifest_sha256=hashlib.sha256(data).hexdigest(), created_at=datetime.now(UTC))
    before = _read(files, name)
    if before and before.version == tag.version:
        return before
    _write(files, name, tag, before=before, move=move)
    removing = horizon.read(files).removing
    if tag.version in removing or tag.version not in manifests.versions(files):
        if before:
            files.put(_path(name), _render(before))
        else:
            files.delete(_path(name))
        raise TagError(
            f"{files.location}: version {tag.version} is being removed by `gc`; let it finish (run it again if it "
            "was interrupted), then tag another version"
        )
    return tag


def remove(files: Files, name: str) -> Tag:
    """Remove a tag; its version is then subject to ``gc`` again.

    Raises:
        TagError: Naming the tags there are.
    """
    tag = find(files, name)
    faults.reached("tag.remove")
    files.delete(_path(name))
    return tag


def _write(files: Files, name: str, tag: Tag, *, before: Tag | None, move: bool) -> None:
    if before and move:
        faults.reached("tag.move")
        files.put(_path(name), _render(tag))
        return
    faults.reached("tag.create")
    try:
        files.create(_path(name), _render(tag))
    except AlreadyThereError:
        there = find(files, name)
        if there.version == tag.version:
            return
        raise TagError(
            f"{files.location}: the tag {name!r} is version {there.version}, not {tag.version}; move it explicitly "
            "(--move) or take another name"
        ) from None
    faults.reached("tag.created")


def _read(files: Files, name: str) -> Tag | None:
    try:
        return Tag.model_validate_json(files.read(_path(name)))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        reason = str(error.errors()[0]["msg"])
        raise DamagedStoreError(f"not a tag ({reason}); restore it, or remove it and tag its version again") from None


def _render(tag: Tag) -> bytes:
    return (tag.model_dump_json(indent=2) + "\n").encode()


def _path(name: str) -> str:
    return f"{TAGS}/{name}{_SUFFIX}"


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise TagError(f"expected a tag to be a letter and then letters, digits, '.', '_' or '-', got {name!r}")
