"""Download from a site in the layout of MicroLens: tables with checksums, and one video and cover per item.

With the official addresses the pins of the layout are checked. With ``source=`` the user names another copy: its own
``SHA256SUMS`` is checked, where it has one, and the pins are not.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import polars as pl

from datasets_spec.errors import ChecksumError
from datasets_spec.media_files import SUMS, MediaPlace, add_media, read_sums, refresh_sums, source_url
from datasets_spec.microlens_format import MicroLensLayout, parse_microlens
from datasets_spec.partfile import sha256_of
from datasets_spec.raw import acquire_files, raw_root
from datasets_spec.schema import BadRow, RawTables
from datasets_spec.spec import DatasetSpec, MediaKind, PrepareConfig, Progress


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
    if url is None and raw_root(raw_dir) == raw_dir and own_sums:
        url = next(iter(spec.bases(config)), None)
    refresh_sums(url, raw_dir)
    sums = read_sums(raw_dir)
    for path in _differing(spec, raw_dir, sums):
        path.unlink()  # the site has another version now
    acquire_files(spec, config, raw_dir, source=source, progress=progress)
    folder = raw_root(raw_dir)
    sums = read_sums(folder)
    for path in _differing(spec, folder, sums):
        raise ChecksumError(
            f"{path}: its SHA-256 is {sha256_of(path)}, but {SUMS} of the source says {sums[path.name]}; place the "
            f"right file there, or take {SUMS} away from the source"
        )


def parse_site(spec: DatasetSpec, layout: MicroLensLayout, raw_dir: Path) -> RawTables:
    """Read the tables, and mark in ``video_url`` and ``image_url`` which items should have a video and a cover.

    That is: those whose file lies in the local folder, or stands in the checksum list of the site; where neither
    tells, all.
    """
    folder = raw_root(raw_dir)
    tables = parse_microlens(layout, folder)
    sums = None if folder != raw_dir else read_sums(raw_dir)

    def path_of(kind: MediaKind, item_id: str) -> str | None:
        path = layout.media[kind].format(id=item_id)
        known = (folder / path).is_file() if sums is None else path in sums or not sums
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
    source: str | None,
    progress: Progress | None,
) -> tuple[pl.DataFrame, list[BadRow]]:
    """Make the media of these items available; see :func:`datasets_spec.media_files.add_media`."""
    wanted: dict[MediaKind, str] = {kind: patterns[kind] for kind in spec.media}
    kinds: tuple[MediaKind, ...] = tuple(kind for kind in spec.media_for(config) if kind in spec.media)
    items = items.drop([f"{kind}_url" for kind in wanted], strict=False)
    folder = raw_root(raw_dir)
    if folder != raw_dir:
        return add_media(items, MediaPlace(wanted, kinds, folder), progress=progress)
    sums = read_sums(raw_dir)
    url = source_url(raw_dir, source)
    if url is not None and not sums:
        # Nothing could tell its files from those of another source: they get a folder of their own.
        folder = raw_dir / f"from-{hashlib.sha256(url.encode()).hexdigest()[:8]}"
    bases = spec.bases(config) if url is None else (url,)
    return add_media(items, MediaPlace(wanted, kinds, folder, bases, sums), progress=progress)


def _differing(spec: DatasetSpec, folder: Path, sums: Mapping[str, str]) -> list[Path]:
    """Tables in a folder that are not those of a checksum list."""
    paths = [(folder / file.path, sums.get(file.path)) for file in spec.files]
    return [path for path, digest in paths if digest is not None and path.is_file() and sha256_of(path) != digest]
