"""Tables that a publisher ships inside a zip or 7z archive: fetch the archive, take out the wanted files, safely.

An archive is a stranger's file. Nothing is ever written under a path that it names: a wanted member is found by its
file name and goes to a folder of ours, through a part file that is renamed when size and checksum are right. Paths that
lead elsewhere, links and members larger than any table of these datasets are refused.
"""

from __future__ import annotations

import errno
import lzma
import os
import re
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, BinaryIO, Protocol

from datasets_spec.errors import DamagedFileError, DownloadError, MissingSourceError
from datasets_spec.partfile import sha256_of, sync_folder
from datasets_spec.raw import acquire_files, raw_root
from datasets_spec.spec import DatasetSpec, PrepareConfig, Progress

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # the second: an archive without members
_SEVEN_ZIP = b"7z\xbc\xaf\x27\x1c"
_CHUNK = 1 << 20
#: Unpacked size above which a member is refused; the largest table, the clicks of YooChoose, takes 1.5 GB.
MAX_BYTES = 8 << 30


class UnreadableError(Exception):
    """An archive, or a member of it, that cannot be read."""


#: What the readers raise for archives that are cut short, overwritten or encrypted.
_BROKEN = (
    *(UnreadableError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, RuntimeError),
    *(ValueError, LookupError, TypeError, AttributeError, AssertionError, OverflowError),
)


@dataclass(frozen=True)
class PackedTables:
    """The tables of a dataset, and where they may lie.

    Attributes:
        wanted: File names that are needed.
        optional: File names that are read where they exist.
        folders: Folders below the raw folder in which unpacked tables may lie, ``""`` for the raw folder itself.
    """

    wanted: tuple[str, ...]
    optional: tuple[str, ...] = ()
    folders: tuple[str, ...] = ("",)

    def lying(self, root: Path) -> dict[str, Path]:
        """The tables that lie unpacked below ``root``, by name."""
        places = [(name, root / folder / name) for name in (*self.wanted, *self.optional) for folder in self.folders]
        return {name: path for name, path in reversed(places) if path.is_file()}  # the first folder wins

    def complete(self, root: Path) -> bool:
        """Whether all that is needed lies unpacked below ``root``."""
        return set(self.wanted) <= set(self.lying(root))


@dataclass(frozen=True)
class Member:
    """A member of an archive.

    Attributes:
        name: Its path, as the archive spells it.
        bytes: Its size when unpacked, as the archive states it.
        folder: It is a folder.
        regular: It is a plain file: no link, no device.
    """

    name: str
    bytes: int
    folder: bool
    regular: bool

    @property
    def file_name(self) -> str:
        """The last part of the path."""
        return _parts(self.name)[-1]


def acquire_archive(
    spec: DatasetSpec,
    tables: PackedTables,
    config: PrepareConfig,
    raw_dir: Path,
    *,
    source: str | None,
    progress: Progress | None,
) -> list[str]:
    """Make the archive ``spec.files[0]`` available, unless its tables lie there unpacked.

    Args:
        spec: The dataset; further files are fetched as they are.
        tables: What is needed of the archive.
        config: Base addresses.
        raw_dir: ``raw/<dataset>``.
        source: See :func:`datasets_spec.raw.acquire_files`.
        progress: See :func:`datasets_spec.raw.acquire_files`.

    Returns:
        For each file that does not exist at the source, a line about it.

    Raises:
        MissingSourceError: A local folder holds neither the archive nor the unpacked tables.
        DownloadError: The archive could not be fetched.
    """
    if source is None and tables.complete(raw_root(raw_dir)):
        return []
    archive, *others = spec.files
    lenient = replace(spec, files=(replace(archive, required=False), *others))
    failures = acquire_files(lenient, config, raw_dir, source=source, progress=progress)
    lines = [f"{failure.file.path}: {failure.detail}" for failure in failures]
    root = raw_root(raw_dir)
    if all(failure.file.path != archive.path for failure in failures) or tables.complete(root):
        return lines
    message = (
        f"{spec.name}: expected {archive.path}, or unpacked {', '.join(tables.wanted)}, in {root}. {spec.access}\n"
        + "\n".join(lines)
    )
    raise MissingSourceError(message) if root != raw_dir else DownloadError(message)


def find_tables(spec: DatasetSpec, tables: PackedTables, raw_dir: Path) -> tuple[dict[str, Path], tuple[Path, ...]]:
    """Where the tables are: as they lie below the raw folder, else unpacked from the archive.

    What is unpacked goes to ``<raw_dir>/unpacked/<SHA-256 of the archive>/``, also when the archive itself is read in
    place from a folder of the user, and is found again there.

    Args:
        spec: The dataset, whose first file is the archive.
        tables: What to look for.
        raw_dir: ``raw/<dataset>``.

    Returns:
        Path by file name, of all that is needed and of the optional tables that exist; and the raw files used.

    Raises:
        DamagedFileError: See :func:`unpack`.
    """
    root = raw_root(raw_dir)
    found = tables.lying(root)
    used = tuple(found[name] for name in (*tables.wanted, *tables.optional) if name in found)
    archive = root / spec.files[0].path
    absent = [name for name in (*tables.wanted, *tables.optional) if name not in found]
    if not absent or (tables.complete(root) and not archive.is_file()):
        return found, used
    folder = raw_dir / "unpacked" / sha256_of(archive)[:16]
    optional = [name for name in absent if name in tables.optional]
    unpacked = unpack(archive, absent, folder, optional=optional)
    return found | unpacked, (archive, *used)


def unpack(
    archive: Path, wanted: Sequence[str], folder: Path, *, optional: Sequence[str] = (), max_bytes: int = MAX_BYTES
) -> dict[str, Path]:
    """Take single files out of a zip or 7z archive; those that are in ``folder`` already are not unpacked again.

    Args:
        archive: The archive; its kind is told by its content.
        wanted: File names, without folders.
        folder: Where they go, flat; made when absent. It has to be one that belongs to this very archive.
        optional: Those of ``wanted`` that the archive need not have.
        max_bytes: A larger member is refused.

    Returns:
        Path by file name.

    Raises:
        DamagedFileError: The archive is no archive, truncated, corrupt or encrypted; it lacks a file that is not
            optional, or has it twice; a member's path leads out of the archive; a wanted member is a link or too large.
    """
    found = {name: folder / name for name in wanted if (folder / name).is_file()}
    rest = [name for name in wanted if name not in found]
    if not rest:
        return found
    with archive.open("rb") as stream:
        with _reading(archive):
            reader = _reader(archive, stream)
            members = reader.members()
        for name in rest:
            member = _select(archive, members, name, max_bytes, optional=name in optional)
            if member is not None:
                found[name] = _unpack_member(archive, reader, member, folder)
    return found


class Reader(Protocol):
    """What the two kinds of archives have in common."""

    def members(self) -> list[Member]:
        """All members."""
        ...

    def copy(self, member: Member, sink: Sink) -> None:
        """Unpack one of them."""
        ...


class Sink:
    """Takes the bytes of a member, and stops when more come than the archive states.

    Args:
        stream: Where they go.
        member: The member.

    Attributes:
        bytes: How many came.
    """

    def __init__(self, stream: IO[bytes], member: Member) -> None:
        self._stream = stream
        self._member = member
        self.bytes = 0

    def write(self, data: bytes | bytearray) -> int:
        """Append; the number of bytes."""
        self.bytes += len(data)
        if self.bytes > self._member.bytes:
            raise UnreadableError(f"{self._member.name} unpacks to more than the {self._member.bytes} bytes stated")
        return self._stream.write(data)


def _reader(archive: Path, stream: BinaryIO) -> Reader:
    head = stream.read(6)
    stream.seek(0)
    if head[:4] in _ZIP:
        return _Zip(stream)
    if head == _SEVEN_ZIP:
        from datasets_spec.seven_zip import SevenZip  # its library loads six codecs, which no other dataset needs

        return SevenZip(stream)
    shown = "an empty file" if not head else f"the first bytes {head!r}"
    raise DamagedFileError(f"{archive}: expected a zip or 7z archive, found {shown}. {_remedy(archive)}")


class _Zip:
    def __init__(self, stream: BinaryIO) -> None:
        self._archive = zipfile.ZipFile(stream)

    def members(self) -> list[Member]:
        return [
            # The upper half of the attributes is the mode of Unix, whose kind of file is 0 where none was stored.
            Member(
                info.filename, info.file_size, info.is_dir(), stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
            )
            for info in self._archive.infolist()
        ]

    def copy(self, member: Member, sink: Sink) -> None:
        with self._archive.open(member.name) as packed:
            while chunk := packed.read(_CHUNK):
                sink.write(chunk)


def _select(archive: Path, members: Sequence[Member], name: str, max_bytes: int, *, optional: bool) -> Member | None:
    """The one plain file called ``name``; None when there is none and it is optional."""
    for member in members:
        if _leads_out(member.name):
            raise DamagedFileError(
                f"{archive}: refused, since the path of its member {member.name!r} leads out of the archive. "
                f"{_remedy(archive)}"
            )
    found = [member for member in members if member.file_name == name and not member.folder]
    if not found and optional:
        return None
    if len(found) != 1:
        shown = ", ".join(member.name for member in (found or members)[:10]) or "nothing"
        raise DamagedFileError(
            f"{archive}: expected one member called {name}, found {len(found)}; it holds {shown}. {_remedy(archive)}"
        )
    member = found[0]
    if not member.regular:
        raise DamagedFileError(f"{archive}: refused {member.name}: expected a plain file, found a link or device")
    if member.bytes > max_bytes:
        raise DamagedFileError(
            f"{archive}: refused {member.name}: it unpacks to {member.bytes} bytes, expected at most {max_bytes}. "
            f"Unpack it by hand beside the archive if that is right, else {_remedy(archive)}"
        )
    return member


def _unpack_member(archive: Path, reader: Reader, member: Member, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, part = tempfile.mkstemp(prefix=f"{member.file_name}.", suffix=".part", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            sink = Sink(stream, member)
            with _reading(archive):
                reader.copy(member, sink)
                if sink.bytes < member.bytes:
                    raise EOFError(f"{member.name} ends after {sink.bytes} of {member.bytes} bytes")
            stream.flush()
            os.fsync(stream.fileno())
        dest = folder / member.file_name
        Path(part).replace(dest)
    finally:
        Path(part).unlink(missing_ok=True)
    sync_folder(folder)
    return dest


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"[/\\]", name) if part] or [""]


def _leads_out(name: str) -> bool:
    return name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name) is not None or ".." in _parts(name)


@contextmanager
def _reading(archive: Path) -> Generator[None]:
    """Say in one way what is wrong with an archive."""
    try:
        yield
    except (*_BROKEN, OSError) as error:
        # A wrong offset in it may lead to a place before its beginning; a full disk is no defect of the archive.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise DamagedFileError(
            f"{archive}: the archive of {archive.stat().st_size} bytes is truncated, corrupt or encrypted "
            f"({type(error).__name__}: {error}). {_remedy(archive)}"
        ) from error


def _remedy(archive: Path) -> str:
    return f"Remove {archive} and prepare again to fetch it anew, or replace it if it was placed by hand."
