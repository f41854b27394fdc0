"""Zip archives split into volumes, read member by member: only the directory and the members asked for are touched.

The volumes of ``a.zip`` are ``a.z01``, ``a.z02`` … and last ``a.zip`` itself, which ends with the directory; an
archive in one piece is the case of a single volume. Places are a number of a volume and an offset in it, and a member
may run over the end of its volume (PKWARE APPNOTE 6.3.10, sections 4.4 and 8). ``zipfile`` refuses such archives, but
reads the entries of the directory and unpacks the bytes here.
"""

from __future__ import annotations

import io
import logging
import os
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, cast

from datasets_spec.errors import DamagedFileError
from datasets_spec.partfile import sync_folder
from datasets_spec.zip_volumes import ByteReader, Volumes

_log = logging.getLogger(__name__)

_END, _END64, _LOCATOR64, _LOCAL = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"PK\x03\x04"
_END_FIELDS = struct.Struct("<4s4H2LH")  # this volume, that of the directory, entries here, entries, size, offset, …
_END64_FIELDS = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64_FIELDS = struct.Struct("<4sLQL")
_LOCAL_FIELDS = struct.Struct("<4s5H3L2H")
_LONGEST_END = _LOCATOR64_FIELDS.size + _END_FIELDS.size + 0xFFFF
_NO_VOLUME = 0xFFFF  # an entry has 16 bits for the number of its volume, of which this one means "see Zip64"
_LARGEST_DIRECTORY = 1 << 30
_SLACK = 1024  # a local header may have more extra fields than the directory: so many bytes are read in advance
_CHUNK = 1 << 20
_UTF8_NAME, _ENCRYPTED = 0x800, 0x1


@dataclass(frozen=True)
class Member:
    """A file in the archive.

    Attributes:
        name: As the directory has it.
        volume: Number of the volume that its local header begins in, from 0.
        offset: Where in that volume, in bytes.
        packed: Compressed bytes.
        size: Bytes after unpacking.
        crc: CRC-32 of the unpacked bytes.
        method: How it is compressed: 0 = stored, 8 = deflate.
        flags: General purpose flags.
        refused: Why it must not be unpacked; None = it may.
    """

    name: str
    volume: int
    offset: int
    packed: int
    size: int
    crc: int
    method: int
    flags: int
    refused: str | None = None


@dataclass(frozen=True)
class Directory:
    """What is in an archive.

    Attributes:
        archive: Name of the last volume, such as ``a.zip``.
        volumes: Number of volumes.
        members: All files, without folders.
    """

    archive: str
    volumes: int
    members: tuple[Member, ...]

    def member(self, path: str) -> Member | None:
        """The member of that name, else the first that may be unpacked and whose name has the same last part."""
        return self._by_name.get(path) or self._by_last_part.get(PurePosixPath(path).name)

    @cached_property
    def _by_name(self) -> dict[str, Member]:
        return {member.name: member for member in self.members}

    @cached_property
    def _by_last_part(self) -> dict[str, Member]:
        allowed = [member for member in self.members if member.refused is None]
        return {PurePosixPath(member.name).name: member for member in reversed(allowed)}


def volume_names(archive: str, count: int) -> list[str]:
    """Names of the volumes in order: ``a.z01``, ``a.z02`` …, ``a.zip``."""
    return [f"{archive.removesuffix('.zip')}.z{number:02d}" for number in range(1, count)] + [archive]


def read_directory(volumes: Volumes, archive: str, size: int, scratch: Path) -> Directory:
    """Read what is in an archive.

    Args:
        volumes: Where the volumes lie.
        archive: Name of the last volume.
        size: Its size in bytes.
        scratch: A folder for what has to be fetched; it stays.

    Raises:
        DamagedFileError: This is no zip archive, or its directory is incomplete.
    """
    start = max(0, size - _LONGEST_END)
    tail = b"".join(volumes.stream([archive], start, size - start, scratch / "end"))
    count, first, entries, length, offset = _end(volumes, archive, tail, scratch)
    if not (first < count < _NO_VOLUME and length <= _LARGEST_DIRECTORY):
        raise DamagedFileError(
            f"{archive}: its end names volume {first} of {count} and a directory of {length} bytes, which cannot be"
        )
    names = volume_names(archive, count)
    data = b"".join(volumes.stream(names[first:], offset, length, scratch / "directory"))
    members = _members(archive, data)
    if len(data) != length or len(members) != entries:
        raise DamagedFileError(
            f"{archive}: expected {entries} entries in {length} bytes of directory, got {len(members)} in {len(data)}"
        )
    if any(member.volume >= count for member in members):
        raise DamagedFileError(f"{archive}: an entry lies in a volume after the last, number {count - 1}")
    files = tuple(member for member in members if not member.name.endswith("/"))
    return Directory(archive, count, files)


def _end(volumes: Volumes, archive: str, tail: bytes, scratch: Path) -> tuple[int, int, int, int, int]:
    """Number of volumes; and volume, entries, bytes and offset of the directory."""
    at = _find_end(tail)
    if at < 0:
        raise DamagedFileError(
            f"{archive}: expected a zip archive, found no end of a directory in its last bytes; fetch it again "
            "or take it away"
        )
    _, last, first, _, entries, length, offset, _ = _END_FIELDS.unpack_from(tail, at)
    locator = at - _LOCATOR64_FIELDS.size
    if locator < 0 or not tail.startswith(_LOCATOR64, locator):
        return last + 1, first, entries, length, offset
    _, volume, offset, count = _LOCATOR64_FIELDS.unpack_from(tail, locator)
    if not volume < count < _NO_VOLUME:
        raise DamagedFileError(f"{archive}: its end names volume {volume} of {count}, which cannot be")
    names = volume_names(archive, count)
    record = b"".join(volumes.stream(names[volume:], offset, _END64_FIELDS.size, scratch / "end64"))
    if len(record) < _END64_FIELDS.size or not record.startswith(_END64):
        raise DamagedFileError(f"{archive}: expected its Zip64 end in volume {names[volume]} at {offset}, not found")
    _, _, _, _, last, first, _, entries, length, offset = _END64_FIELDS.unpack(record)
    return last + 1, first, entries, length, offset


def _find_end(tail: bytes) -> int:
    """Where the end record begins whose comment reaches exactly to the end of the archive; -1 = nowhere."""
    at = tail.rfind(_END)
    while at >= 0:
        behind = len(tail) - at - _END_FIELDS.size
        if behind >= 0 and _END_FIELDS.unpack_from(tail, at)[-1] == behind:
            return at
        at = tail.rfind(_END, 0, at)
    return -1


def _members(archive: str, data: bytes) -> list[Member]:
    """Entries of a directory; ``zipfile`` reads them as an archive that consists of nothing else."""
    end = _END_FIELDS.pack(_END, 0, 0, 0, 0, len(data), 0, 0)
    try:
        with zipfile.ZipFile(io.BytesIO(data + end)) as parsed:
            return [_member(info) for info in parsed.infolist()]
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, ValueError) as error:
        raise DamagedFileError(f"{archive}: its directory cannot be read: {error}") from error


def _member(info: zipfile.ZipInfo) -> Member:
    return Member(
        name=info.orig_filename,
        volume=info.volume,
        offset=info.header_offset,
        packed=info.compress_size,
        size=info.file_size,
        crc=info.CRC,
        method=info.compress_type,
        flags=info.flag_bits,
        refused=_why_refused(info),
    )


def _why_refused(info: zipfile.ZipInfo) -> str | None:
    """Why a member must not be unpacked: its name leads elsewhere, it is no plain file, or it is encrypted."""
    name = info.orig_filename
    if not name or re.search(r"[\x00-\x1f\\]", name):
        return "its name is empty or has control characters or backslashes"
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "its name is an absolute path"
    if ".." in name.split("/"):
        return "its name leads out of the folder"
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind and not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        return "it is a link or a device"
    return "it is encrypted" if info.flag_bits & _ENCRYPTED else None


def unpack(volumes: Volumes, directory: Directory, member: Member, dest: Path) -> None:
    """Unpack one member; it appears under its name only when size and CRC-32 are right.

    Args:
        volumes: Where the volumes lie. Packed bytes that are fetched are kept in the folder ``<dest>.pieces`` until
            the member is there, so that the next call goes on with them.
        directory: Of the archive.
        member: Which one.
        dest: Where it goes; parent folders are made.

    Raises:
        DamagedFileError: The member is refused, or is not what the directory says (fetched twice, if it is fetched).
    """
    if member.refused is not None:
        raise DamagedFileError(f"{directory.archive}: {member.name!r} is refused: {member.refused}")
    dest.parent.mkdir(parents=True, exist_ok=True)
    pieces = dest.with_name(f"{dest.name}.pieces")
    try:
        _unpack(volumes, directory, member, dest, pieces)
    except DamagedFileError as error:
        if not pieces.exists():
            raise
        _log.warning("%s; fetching it again from the start", error)
        shutil.rmtree(pieces)
        try:
            _unpack(volumes, directory, member, dest, pieces)
        except DamagedFileError:
            shutil.rmtree(pieces, ignore_errors=True)
            raise
    shutil.rmtree(pieces, ignore_errors=True)


def _unpack(volumes: Volumes, directory: Directory, member: Member, dest: Path, pieces: Path) -> None:
    growing = dest.with_name(f"{dest.name}.unpacking")
    try:
        with growing.open("wb") as output:
            _copy(_packed(volumes, directory, member, pieces), member, output)
            output.flush()
            os.fsync(output.fileno())
        growing.replace(dest)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, _DamagedMemberError) as error:
        what = str(error) or "its packed bytes end early"
        raise DamagedFileError(f"{directory.archive}: {member.name!r}: {what}") from error
    finally:
        growing.unlink(missing_ok=True)
    sync_folder(dest.parent)


class _DamagedMemberError(Exception):
    """What is wrong with a member, without the names."""


def _packed(volumes: Volumes, directory: Directory, member: Member, pieces: Path) -> ByteReader:
    """The packed bytes of a member, from their first."""
    names = volume_names(directory.archive, directory.volumes)[member.volume :]
    raw_name = member.name.encode("utf-8" if member.flags & _UTF8_NAME else "cp437")
    length = _LOCAL_FIELDS.size + len(raw_name) + _SLACK + member.packed
    reader, header = _behind_header(volumes.stream(names, member.offset, length, pieces), raw_name)
    if header + member.packed <= length:
        return reader
    shutil.rmtree(pieces, ignore_errors=True)
    return _behind_header(volumes.stream(names, member.offset, header + member.packed, pieces), raw_name)[0]


def _behind_header(chunks: Iterator[bytes], raw_name: bytes) -> tuple[ByteReader, int]:
    """A reader that stands behind the local header, and the length of that header."""
    reader = ByteReader(chunks)
    fixed = reader.read(_LOCAL_FIELDS.size)
    if len(fixed) < _LOCAL_FIELDS.size or not fixed.startswith(_LOCAL):
        raise _DamagedMemberError("no member begins where the directory says")
    *_, name_length, extra_length = _LOCAL_FIELDS.unpack(fixed)
    if reader.read(name_length) != raw_name:
        raise _DamagedMemberError("another member begins where the directory says")
    reader.read(extra_length)
    return reader, _LOCAL_FIELDS.size + name_length + extra_length


def _copy(packed: ByteReader, member: Member, output: IO[bytes]) -> None:
    """Unpack into a file; ``zipfile`` compares the CRC-32."""
    info = zipfile.ZipInfo(member.name)
    info.compress_type, info.compress_size = member.method, member.packed
    info.file_size, info.CRC = member.size, member.crc
    written = 0
    with zipfile.ZipExtFile(cast("IO[bytes]", packed), "r", info) as unpacked:
        while chunk := unpacked.read(_CHUNK):
            written += output.write(chunk)
    if written != member.size:
        raise _DamagedMemberError(f"expected {member.size} bytes, got {written}")
