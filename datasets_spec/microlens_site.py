"""Download from a site in the layout of MicroLens: tables with checksums, and one video and cover per item.

With the official addresses the pins of the layout are checked. With ``source=`` the user names another copy: its own
``SHA256SUMS`` is checked, where it has one, and the pins are not.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import polars as pl

from datasets_spec.download import sha256_of
from datasets_spec.errors import ChecksumError
from datasets_spec.media_files import SUMS, MediaPlace, add_media, read_sums, refresh_sums, source_url
from datasets_spec.raw import acquire_files, raw_root
from datasets_spec.schema import BadRow
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
    bases = spec.bases(config)
    refresh_sums(url or (bases[0] if own_sums and bases and source is None else None), raw_dir)
    sums = read_sums(raw_dir)
    if url is not None or sums:
        files = tuple(replace(file, sha256=sums.get(file.path), bytes=None) for file in spec.files)
        acquire_files(replace(spec, files=files), config, raw_dir, source=source, progress=progress)
        return
    acquire_files(spec, config, raw_dir, source=source, progress=progress)
    folder = raw_root(raw_dir)
    if folder != raw_dir:
        _check_folder(spec, folder)


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
    wanted = {kind: patterns[kind] for kind in spec.media}
    kinds = tuple(kind for kind in spec.media_for(config) if kind in spec.media)
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


def _check_folder(spec: DatasetSpec, folder: Path) -> None:
    """Compare the tables of a local folder with its own checksum list."""
    sums = read_sums(folder)
    for file in spec.files:
        path = folder / file.path
        if file.path in sums and path.is_file() and (digest := sha256_of(path)) != sums[file.path]:
            raise ChecksumError(
                f"{path}: expected SHA-256 {sums[file.path]} ({SUMS} beside it), got {digest}; place the right file "
                f"there or take {SUMS} away"
            )
