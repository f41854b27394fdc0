"""Media files taken one by one out of a zip archive, in one piece or split into volumes, on this machine or remote."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datasets_spec.download import DownloadFailure, Transfer
from datasets_spec.errors import DamagedFileError, DatasetsError, DownloadError, MissingSourceError
from datasets_spec.partfile import Origin
from datasets_spec.remote_ranges import WindowError, Windows
from datasets_spec.schema import BadRow
from datasets_spec.spec import Progress, RemoteFile
from datasets_spec.split_zip import Directory, Member, read_directory, unpack
from datasets_spec.zip_volumes import LocalVolumes, RemoteVolumes, Volumes

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Archive:
    """An archive that can be read.

    Attributes:
        where: Its folder or base address, for messages.
        volumes: Its bytes.
        directory: What is in it.
    """

    where: str
    volumes: Volumes
    directory: Directory

    def holds(self, path: str) -> bool:
        """Whether a member for this path is there and may be unpacked."""
        member = self.directory.member(path)
        return member is not None and member.refused is None

    def refused(self) -> list[BadRow]:
        """A row for each member that must not be unpacked."""
        return [
            BadRow(self.directory.archive, None, None, "unsafe_member", f"{member.name!r}: {member.refused}")
            for member in self.directory.members
            if member.refused is not None
        ]


def open_local(folder: Path, archive: str) -> Archive | None:
    """Read the directory of an archive in a folder; None when it is not there.

    Raises:
        DamagedFileError: It is no zip archive.
        MissingSourceError: A volume of its directory is absent.
    """
    path = folder / archive
    if not path.is_file():
        return None
    volumes = LocalVolumes(folder)
    directory = read_directory(volumes, archive, path.stat().st_size, folder)
    return Archive(str(folder), volumes, directory)


def open_remote(base: str, archive: str, cache: Path, windows: Windows) -> Archive | None:
    """Read the directory of an archive below an address; None when it is not there.

    What was read is kept in ``<archive>.json``, and read from there as long as size and validators of the last volume
    stay the same.

    Args:
        base: The address above the volumes.
        archive: Name of the last volume.
        cache: The folder for ``<archive>.json``.
        windows: Fetches bytes.

    Raises:
        DownloadError: The archive is there and cannot be read.
        DamagedFileError: It is no zip archive.
    """
    cache.mkdir(parents=True, exist_ok=True)
    url = f"{base.rstrip('/')}/{archive}"
    try:
        origin = windows.origin(url, cache / f"{archive}.first")
    except WindowError as error:
        if error.reason == "not_found":
            return None
        raise
    volumes = RemoteVolumes(base, windows)
    kept = cache / f"{archive}.json"
    directory = _read_kept(kept, origin)
    if directory is None:
        scratch = cache / f"{archive}.directory"
        shutil.rmtree(scratch, ignore_errors=True)
        directory = read_directory(volumes, archive, origin.total or 0, scratch)
        shutil.rmtree(scratch)
        _keep(kept, origin, directory)
    return Archive(base, volumes, directory)


def _read_kept(path: Path, origin: Origin) -> Directory | None:
    """The kept directory, if it is of exactly this version of the archive."""
    try:
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not Origin(**kept["origin"]).same_file(origin):
            return None
        members = tuple(Member(*fields) for fields in kept["members"])
        return Directory(kept["archive"], kept["volumes"], members)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _keep(path: Path, origin: Origin, directory: Directory) -> None:
    members = [list(asdict(member).values()) for member in directory.members]
    kept = {
        "origin": asdict(origin),
        "archive": directory.archive,
        "volumes": directory.volumes,
        "members": members,
    }
    growing = path.with_name(f"{path.name}.tmp")
    growing.write_text(json.dumps(kept), encoding="utf-8")
    growing.replace(path)


def take(
    archive: Archive, paths: Sequence[str], folder: Path, *, workers: int = 4, progress: Progress | None = None
) -> list[DownloadFailure]:
    """Unpack the members for some paths.

    Args:
        archive: Where from.
        paths: The member of that name is taken, else the first whose name has the same last part.
        folder: Each path lies below it.
        workers: How many at once.
        progress: Called as ``progress("unpack", files done, files)``.

    Returns:
        The paths that could not be had, in their order; the reason is ``not_found``, ``damaged`` or as in
        :class:`datasets_spec.download.DownloadFailure`.
    """
    members = {path: member for path in paths if (member := archive.directory.member(path)) is not None}
    absent = f"not in {archive.directory.archive} at {archive.where}"
    failed = {path: ("not_found", absent) for path in paths if path not in members}
    pool = ThreadPoolExecutor(workers, thread_name_prefix="unpack")
    try:
        pending = {
            pool.submit(unpack, archive.volumes, archive.directory, member, folder / path): path
            for path, member in members.items()
        }
        for done, future in enumerate(as_completed(pending), start=1):
            try:
                future.result()
            except (DatasetsError, OSError) as error:
                failed[pending[future]] = (_reason(error), str(error))
            if progress is not None:
                progress("unpack", done, len(pending))
    except BaseException:
        if isinstance(archive.volumes, RemoteVolumes):
            archive.volumes.windows.stop.set()  # on Ctrl-C: what is in flight ends soon and stays resumable
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return [DownloadFailure(RemoteFile(path, path, required=False), *failed[path]) for path in paths if path in failed]


def take_remote(
    archive: str,
    paths: Sequence[str],
    folder: Path,
    bases: Sequence[str],
    *,
    transfer: Transfer,
    windows: Windows,
    progress: Progress | None = None,
) -> tuple[list[DownloadFailure], list[BadRow]] | None:
    """Unpack members of a remote archive; what one base address cannot give is tried at the next.

    Args:
        archive: Name of the last volume.
        paths: See :func:`take`.
        folder: See :func:`take`; the directory of the archive is kept there, too.
        bases: Base addresses.
        transfer: Concurrency; what one host allows is the bound.
        windows: Fetches bytes.
        progress: See :func:`take`.

    Returns:
        What could not be had, and a row for each member that is refused; None when no address has the archive.
    """
    left = list(paths)
    failures: dict[str, DownloadFailure] = {}
    refused: list[BadRow] = []
    workers = min(transfer.max_connections, transfer.per_host)
    for base in bases:
        try:
            opened = open_remote(base, archive, folder, windows)
        except (DownloadError, DamagedFileError) as error:
            failed = [
                DownloadFailure(RemoteFile(path, path, required=False), _reason(error), str(error)) for path in left
            ]
        else:
            if opened is None:
                continue
            _log.info(
                "%s: %d files are read one by one out of its %d members in %d volumes at %s",
                *(archive, len(left), len(opened.directory.members), opened.directory.volumes, base),
            )
            refused += opened.refused()
            failed = take(opened, left, folder, workers=workers, progress=progress)
        failures = {failure.file.path: failure for failure in failed}
        left = [path for path in left if path in failures]
        if not left:
            break
    else:
        if not failures:
            return None
    return [failures[path] for path in left], refused


def _reason(error: BaseException) -> str:
    if isinstance(error, WindowError):
        return error.reason
    if isinstance(error, MissingSourceError):
        return "not_found"
    return "damaged" if isinstance(error, DamagedFileError) else "network"
