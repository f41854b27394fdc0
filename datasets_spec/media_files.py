"""Media files that lie one per item under a name made of the item id, and checksum lists next to them.

Where a place has an archive of them instead, the members that are wanted are taken out of it one by one
(:mod:`datasets_spec.archive_media`).
"""

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import polars as pl

from datasets_spec.archive_media import Archive, open_local, take, take_remote
from datasets_spec.download import DownloadFailure, Transfer, fetch_many
from datasets_spec.errors import DownloadError
from datasets_spec.remote_ranges import Windows
from datasets_spec.schema import BadRow
from datasets_spec.spec import DatasetSpec, MediaKind, PrepareConfig, Progress, RemoteFile

_log = logging.getLogger(__name__)

SUMS = "SHA256SUMS"
_SUM_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")


@dataclass(frozen=True)
class MediaPlace:
    """Where the media files of a dataset lie, and how they are fetched.

    Attributes:
        patterns: For each kind of media the path of an item's file, with ``{id}`` for the item id.
        kinds: The kinds that are wanted now; columns of the others are null.
        folder: Local folder above the paths: where the files are, or where they are fetched to.
        bases: Base addresses to fetch from; none = what is not in the folder is missing.
        digests: Known SHA-256 by path.
        client: Carries authentication; None = a plain client.
        transfer: Concurrency and retries.
        archives: Name of the zip archive (the last volume of a split one) that may hold the files of a kind instead.
        unpacked: Local folder above the files that are taken out of an archive in ``folder``; None = ``folder``.
    """

    patterns: Mapping[MediaKind, str]
    kinds: tuple[MediaKind, ...]
    folder: Path
    bases: tuple[str, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict[str, str])
    client: httpx.Client | None = None
    transfer: Transfer = field(default_factory=Transfer)
    archives: Mapping[MediaKind, str] = field(default_factory=dict[MediaKind, str])
    unpacked: Path | None = None

    def path(self, kind: MediaKind, item_id: str) -> str:
        """Path of an item's file below the folder."""
        return self.patterns[kind].format(id=item_id)

    def file(self, path: str) -> Path:
        """Where a file lies, or would lie."""
        own = self.folder / path
        return own if self.unpacked is None or own.is_file() else self.unpacked / path


def nothing_to_fetch(
    spec: DatasetSpec,
    config: PrepareConfig,
    raw_dir: Path,
    items: pl.DataFrame,
    *,
    source: str | None,
    progress: Progress | None,
) -> tuple[pl.DataFrame, list[BadRow]]:
    """The ``acquire_media`` of sources that fetch no media: the items as they are."""
    del spec, config, raw_dir, source, progress
    return items, []


def source_url(raw_dir: Path, source: str | None) -> str | None:
    """The address that overrides the official one: ``source`` of this call, else the remembered one, if it is one."""
    if source is None:
        try:
            return json.loads((raw_dir / "source.json").read_text(encoding="utf-8")).get("url")
        except FileNotFoundError:
            return None
    return source if urlsplit(source).scheme in ("http", "https") else None


def refresh_sums(url: str | None, raw_dir: Path, *, client: httpx.Client | None = None) -> None:
    """Take the checksum list of the address anew; none is left where the address has none (or is None)."""
    (raw_dir / SUMS).unlink(missing_ok=True)
    if url is not None:
        fetch_many([RemoteFile(SUMS, SUMS, required=False)], raw_dir, bases=(url,), client=client)


def read_sums(folder: Path) -> dict[str, str]:
    """SHA-256 by path from ``SHA256SUMS`` in a folder; empty when there is none."""
    path = folder / SUMS
    if not path.is_file():
        return {}
    sums: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        match = _SUM_LINE.fullmatch(line.strip())
        if match is not None:
            sums[match[2].removeprefix("./")] = match[1].lower()
        elif line.strip():
            _log.warning("%s: not a line of a checksum list: %r", path, line[:100])
    return sums


def add_media(
    items: pl.DataFrame, place: MediaPlace, *, progress: Progress | None = None
) -> tuple[pl.DataFrame, list[BadRow]]:
    """Make the media files of the items available and write where they are.

    Args:
        items: Has ``item_id``, text.
        place: Where the files lie.
        progress: See :func:`datasets_spec.download.fetch_many`.

    Returns:
        The items with a text column per kind of ``place.patterns``, absolute path or null; and a row for each wanted
        file that could not be had, reason ``missing`` where the file does not exist.

    Raises:
        DownloadError: Nothing at all could be fetched, and the addresses did not simply say that there is no file.
    """
    ids = items["item_id"].to_list()
    wanted = {place.path(kind, item_id): item_id for kind in place.kinds for item_id in ids}
    failures: list[DownloadFailure] = []
    bad_rows: list[BadRow] = []
    for kind in place.kinds:
        failed, refused = _provide(kind, [place.path(kind, item_id) for item_id in ids], place, progress)
        failures += failed
        bad_rows += refused
    lost = {failure.file.path for failure in failures}
    if failures and len(lost) == len(wanted):
        _nothing_came(failures, place)
    columns = [
        pl.Series(kind, [_location(place, kind, item_id, lost) for item_id in ids], dtype=pl.String)
        for kind in place.patterns
    ]
    bad_rows += [
        BadRow(
            file=failure.file.path,
            line=None,
            item_id=wanted[failure.file.path],
            reason="missing" if failure.reason == "not_found" else failure.reason,
            detail=failure.detail,
        )
        for failure in failures
    ]
    return items.with_columns(columns), bad_rows


Provided = tuple[list[DownloadFailure], list[BadRow]]


def _provide(kind: MediaKind, paths: list[str], place: MediaPlace, progress: Progress | None) -> Provided:
    """Make the files of one kind available: one by one where they lie so, else out of the archive, if there is one."""
    missing = [path for path in paths if not place.file(path).is_file()]
    archive = place.archives.get(kind)
    if missing and archive is not None:
        local = open_local(place.folder, archive)
        if local is not None:
            return _take_local(local, missing, place, progress)
        if place.bases and not _lie_one_by_one(missing[0], place):
            windows = Windows(place.client, place.transfer)
            try:
                taken = take_remote(
                    *(archive, missing, place.folder, place.bases),
                    transfer=place.transfer,
                    windows=windows,
                    progress=progress,
                )
            finally:
                windows.close()
            if taken is not None:
                return taken
    if place.bases:
        return _fetch(paths, place, progress), []
    return [
        DownloadFailure(RemoteFile(path, path, required=False), "not_found", f"not in {place.folder}")
        for path in missing
    ], []


def _take_local(archive: Archive, missing: list[str], place: MediaPlace, progress: Progress | None) -> Provided:
    _log.info("%d files are read one by one out of %s in %s", len(missing), archive.directory.archive, place.folder)
    return take(archive, missing, place.unpacked or place.folder, progress=progress), archive.refused()


def _lie_one_by_one(path: str, place: MediaPlace) -> bool:
    """Whether a site gives single files: it is asked for one that is wanted anyway."""
    failures = _fetch([path], place, None)
    if not failures:
        _log.info("%s is there: the files are fetched one by one", path)
    return all(failure.reason not in ("not_found", "http") for failure in failures)


def _fetch(paths: list[str], place: MediaPlace, progress: Progress | None) -> list[DownloadFailure]:
    files = [RemoteFile(path, path, sha256=place.digests.get(path), required=False) for path in paths]
    return fetch_many(
        files, place.folder, bases=place.bases, client=place.client, transfer=place.transfer, progress=progress
    )


def _nothing_came(failures: list[DownloadFailure], place: MediaPlace) -> None:
    """A site without media is possible and said; a site that cannot be reached is an error."""
    first = failures[0]
    if all(failure.reason == "not_found" for failure in failures):
        _log.warning("none of %d media files exists; first: %s (%s)", len(failures), first.file.path, first.detail)
        return
    archives = [place.archives[kind] for kind in place.kinds if kind in place.archives]
    whole = f" or all volumes of {' and '.join(archives)}" if archives else ""
    raise DownloadError(
        f"none of {len(failures)} media files could be fetched; first: {first.file.path}: {first.detail}. Place the "
        f"files{whole} below {place.folder} by hand (this one at {place.folder / first.file.path}), pass "
        "source=FOLDER_OR_URL, or go on without media by media=''"
    )


def _location(place: MediaPlace, kind: MediaKind, item_id: str, lost: set[str]) -> str | None:
    path = place.path(kind, item_id)
    if kind not in place.kinds or path in lost:
        return None
    return str(place.file(path).resolve())
