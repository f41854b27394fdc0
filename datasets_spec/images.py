"""Item images: fetched by address, decoded once to be sure, failures are rows."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import polars as pl
from PIL import Image

from datasets_spec.download import Transfer, fetch_many
from datasets_spec.raw import raw_root
from datasets_spec.schema import BadRow
from datasets_spec.spec import Progress, RemoteFile

_FOLDER = "images"
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".webp"})
_SAFE_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
_TRANSFER = Transfer(max_connections=8, per_host=4)


def fetch_images(
    items: pl.DataFrame, raw_dir: Path, *, transfer: Transfer | None = None, progress: Progress | None = None
) -> tuple[pl.DataFrame, list[BadRow]]:
    """Fill the column ``image``.

    An image that lies in ``images/<item id>.<suffix>`` below the raw folder, or below the local source, is taken as
    it is; the others are fetched into the raw folder.

    Args:
        items: Columns ``item_id`` and ``image_url`` (null = the item has none).
        raw_dir: ``raw/<dataset>``.
        transfer: Concurrency and retries; None = 8 at once, 4 from one host.
        progress: See :func:`datasets_spec.download.fetch_many`.

    Returns:
        ``items`` with absolute paths in ``image``, null where there is none, and what could not be fetched.
    """
    found = _on_disk(raw_root(raw_dir) / _FOLDER) | _on_disk(raw_dir / _FOLDER)
    bad_rows: list[BadRow] = []
    wanted: dict[str, RemoteFile] = {}
    for item_id, url in items.select("item_id", "image_url").iter_rows():
        if url is None or item_id in found:
            continue
        if _SAFE_NAME.fullmatch(item_id):
            wanted[item_id] = RemoteFile(f"{_FOLDER}/{item_id}{_suffix(url)}", url, required=False)
        else:
            bad_rows.append(BadRow(url, None, item_id, "unsafe_name", "the item id cannot be a file name"))
    failures = fetch_many(
        list(wanted.values()), raw_dir, transfer=transfer or _TRANSFER, check=image_fault, progress=progress
    )
    failed = {failure.file.path: failure for failure in failures}
    for item_id, file in wanted.items():
        failure = failed.get(file.path)
        if failure is None:
            found[item_id] = raw_dir / file.path
        else:
            bad_rows.append(BadRow(file.url, None, item_id, failure.reason, failure.detail))
    paths = [str(found[item_id]) if item_id in found else None for item_id in items["item_id"]]
    return items.with_columns(pl.Series("image", paths, dtype=pl.String)), bad_rows


def image_fault(path: Path) -> str | None:
    """Why a file is no usable image; None when it is one. A picture of one pixel stands for a missing one."""
    try:
        with Image.open(path) as image:
            image.load()
            width, height = image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f"not an image: {error}"
    return f"a placeholder of {width}x{height} pixels" if min(width, height) < 2 else None


def _on_disk(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in _SUFFIXES}


def _suffix(url: str) -> str:
    suffix = PurePosixPath(urlsplit(url).path).suffix.lower()
    return suffix if suffix in _SUFFIXES else ".jpg"
