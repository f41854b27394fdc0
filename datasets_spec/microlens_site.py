"""Download from a site in the layout of MicroLens: tables with checksums, and one video and cover per item.

With the official addresses the pins of the layout are checked. With ``source=`` the user names another copy: its own
``SHA256SUMS`` is checked, where it has one, and the pins are not.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import polars as pl

from datasets_spec.archive_media import open_local
from datasets_spec.errors import ChecksumError
from datasets_spec.media_files import SUMS, MediaPlace, add_media, read_sums, refresh_sums, source_url
from datasets_spec.microlens_format import MicroLensLayout, parse_microlens
from datasets_spec.partfile import sha256_of
from datasets_spec.raw import acquire_files, raw_root
from datasets_spec.schema import BadRow, RawTables
from datasets_spec.spec import DatasetSpec, MediaKind, PrepareConfig, Progress, RemoteFile


def acquire_site(
    spec: DatasetSpec,
    config: PrepareConfig,
    raw_dir: Path,
    *,
    source: str | None,
    own_sums: bool = False,
    progress: Progress | None = None,
) -> None:
    """Make the tables available.

    Args:
        spec: The dataset.
        config: Its base addresses.
        raw_dir: Raw folder.
        source: See :func:`datasets_spec.raw.acquire_files`.
        own_sums: The dataset's own address, too, has a ``SHA256SUMS``.
        progress: See :func:`datasets_spec.raw.acquire_files`.

    Raises:
        MissingSourceError: A local source lacks a required file.
        DownloadError: A required file could not be fetched, or (ChecksumError) is not the one expected.
    """
    raw_dir.mkdir(parents=True, exist_ok=True)
    url = source_url(raw_dir, source)
    if url != source_url(raw_dir, None):
        (raw_dir / _sequences(spec).path).unlink(missing_ok=True)  # of another source
    if url is None and raw_root(raw_dir) == raw_dir and own_sums:
        url = next(iter(spec.bases(config)), None)
    refresh_sums(url, raw_dir)
    sums = read_sums(raw_dir)
    for path in _differing(spec, raw_dir, sums):
        path.unlink()  # the site has another version now
    _acquire_tables(spec, config, raw_dir, source=source, progress=progress)
    folder = raw_root(raw_dir)
    sums = read_sums(folder)
    for path in _differing(spec, folder, sums):
        raise ChecksumError(
            f"{path}: its SHA-256 is {sha256_of(path)}, but {SUMS} of the source says {sums[path.name]}; place the "
            f"right file there, or take {SUMS} away from the source"
        )


def _acquire_tables(
    spec: DatasetSpec, config: PrepareConfig, raw_dir: Path, *, source: str | None, progress: Progress | None
) -> None:
    """Acquire all tables; where there are no pairs with times, those without."""

    def absent(files: tuple[RemoteFile, ...]) -> set[str]:
        asked = replace(spec, files=tuple(replace(file, required=False) for file in files))
        failures = acquire_files(asked, config, raw_dir, source=source, progress=progress)
        return {failure.file.path for failure in failures}

    missing = absent(spec.files)
    required = {file.path for file in spec.files if file.required}
    pairs = spec.files[0].path
    if pairs in missing and not absent((_sequences(spec),)):
        required.remove(pairs)
    if required & missing:
        acquire_files(spec, config, raw_dir, source=source, progress=progress)  # raises, and names all that are missing


def _sequences(spec: DatasetSpec) -> RemoteFile:
    """The file that stands in for the pairs, the first file of the dataset; it has no times."""
    name = str(Path(spec.files[0].path).with_suffix(".tsv"))
    return RemoteFile(name, name, required=False)


def parse_site(spec: DatasetSpec, layout: MicroLensLayout, raw_dir: Path) -> RawTables:
    """Read the tables, and mark in ``video_url`` and ``image_url`` which items should have a video and a cover.

    That is: those whose file lies in the local folder, or in an archive there, or stands in the checksum list of the
    site; where none of these tells (as where the list names an archive), all.
    """
    folder = raw_root(raw_dir)
    tables = parse_microlens(layout, folder)
    sums = None if folder != raw_dir else read_sums(raw_dir)
    archives = {kind: open_local(folder, layout.archives[kind]) for kind in spec.media} if sums is None else {}

    def path_of(kind: MediaKind, item_id: str) -> str | None:
        path = layout.media[kind].format(id=item_id)
        if sums is None:
            archive = archives[kind]
            known = (folder / path).is_file() or (archive is not None and archive.holds(path))
        else:
            known = not sums or path in sums or layout.archives[kind] in sums
        return path if known else None

    ids = tables.items["item_id"].to_list()
    columns = [
        pl.Series(f"{kind}_url", [path_of(kind, item_id) for item_id in ids], dtype=pl.String) for kind in spec.media
    ]
    return replace(tables, items=tables.items.with_columns(columns))


def acquire_site_media(
    spec: DatasetSpec,
    config: PrepareConfig,
    raw_dir: Path,
    items: pl.DataFrame,
    *,
    patterns: Mapping[MediaKind, str],
    archives: Mapping[MediaKind, str] | None = None,
    source: str | None,
    progress: Progress | None,
) -> tuple[pl.DataFrame, list[BadRow]]:
    """Make the media of these items available; see :func:`datasets_spec.media_files.add_media`."""
    zips = archives or {}
    wanted: dict[MediaKind, str] = {kind: patterns[kind] for kind in spec.media}
    kinds: tuple[MediaKind, ...] = tuple(kind for kind in spec.media_for(config) if kind in spec.media)
    items = items.drop([f"{kind}_url" for kind in wanted], strict=False)
    folder = raw_root(raw_dir)
    if folder != raw_dir:
        place = MediaPlace(wanted, kinds, folder, archives=zips, unpacked=_folder_of(str(folder), raw_dir))
        return add_media(items, place, progress=progress)
    sums = read_sums(raw_dir)
    url = source_url(raw_dir, source)
    if url is not None and not sums:
        # Nothing could tell its files from those of another source: they get a folder of their own.
        folder = _folder_of(url, raw_dir)
    bases = spec.bases(config) if url is None else (url,)
    return add_media(items, MediaPlace(wanted, kinds, folder, bases, sums, archives=zips), progress=progress)


def _folder_of(source: str, raw_dir: Path) -> Path:
    """The folder for the media of one source."""
    return raw_dir / f"from-{hashlib.sha256(source.encode()).hexdigest()[:8]}"


def _differing(spec: DatasetSpec, folder: Path, sums: Mapping[str, str]) -> list[Path]:
    """Tables in a folder that are not those of a checksum list."""
    paths = [(folder / file.path, sums.get(file.path)) for file in (*spec.files, _sequences(spec))]
    return [path for path, digest in paths if digest is not None and path.is_file() and sha256_of(path) != digest]
