"""Item images: fetched by address, decoded once to be sure, failures are rows.

An item whose image cannot be fetched stays in the dataset, with null in ``image`` and a row in the quarantine.
``require=image`` counts the items that have an address, before anything is fetched: which items, users and rows a
dataset has follows from its raw files alone, and is the same on the day on which a host is down. Only images of items
that are left after the k-core are fetched.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import httpx
import polars as pl
from PIL import Image

from datasets_spec.download import DownloadFailure, Retry, Transfer, default_client, fetch_many
from datasets_spec.raw import raw_root
from datasets_spec.schema import BadRow
from datasets_spec.spec import DatasetSpec, PrepareConfig, Progress, RemoteFile

_FOLDER = "images"
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".webp"})
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP")
_SAFE_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
_TRANSFER = Transfer(max_connections=8, per_host=4, retry=Retry(attempts=3))
#: Seconds without a byte after which an attempt has failed: an image is small, and there are many.
_TIMEOUT = 10.0
#: Images fetched together: few at first, twice as many each time.
_FIRST_BATCH, _LAST_BATCH = 16, 256
#: Requests that a host must have left unanswered before it is taken to be down.
_SEVERAL = 8


def fetch_item_images(
    spec: DatasetSpec,
    config: PrepareConfig,
    raw_dir: Path,
    items: pl.DataFrame,
    *,
    source: str | None,
    progress: Progress | None,
) -> tuple[pl.DataFrame, list[BadRow]]:
    """The ``acquire_media`` of sources whose items have one image address each: fetched when ``media`` asks for it."""
    del source  # remembered in the raw folder
    if "image" not in spec.media_for(config):
        return items, []
    return fetch_images(items, raw_dir, progress=progress)


def fetch_images(
    items: pl.DataFrame, raw_dir: Path, *, transfer: Transfer | None = None, progress: Progress | None = None
) -> tuple[pl.DataFrame, list[BadRow]]:
    """Fill the column ``image``.

    An image that lies in ``images/<item id>.<suffix>`` below the raw folder, or below the local source, is taken as
    it is; the others are fetched into the raw folder. A host that gave no image of a whole batch, and never answered
    that there is none, is asked for no more.

    Args:
        items: Columns ``item_id`` and ``image_url`` (null = the item has none).
        raw_dir: ``raw/<dataset>``.
        transfer: Concurrency and retries; None = 8 at once, 4 from one host, 3 attempts.
        progress: Called as ``progress("download", images done, images)``.

    Returns:
        ``items`` with absolute paths in ``image``, null where there is none, and what could not be fetched.
    """
    found = _on_disk(raw_root(raw_dir) / _FOLDER) | _on_disk(raw_dir / _FOLDER)
    bad_rows: list[BadRow] = []
    wanted: dict[str, RemoteFile] = {}
    for item_id, url in items.select("item_id", "image_url").iter_rows():
        if url is None or item_id in found:
            continue
        fault = _fault(item_id, url)
        if fault is None:
            wanted[item_id] = RemoteFile(f"{_FOLDER}/{item_id}{_suffix(url)}", url, required=False)
        else:
            bad_rows.append(BadRow(url, None, item_id, *fault))
    failed = {
        failure.file.path: failure
        for failure in _fetch(list(wanted.values()), raw_dir, transfer or _TRANSFER, progress)
    }
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
        with Image.open(path, formats=_FORMATS) as image:
            image.load()
            width, height = image.size
    except Exception as error:  # broken bytes make decoders raise nearly anything
        return f"not an image: {type(error).__name__}: {error}"
    return f"a placeholder of {width}x{height} pixels" if min(width, height) < 2 else None


def _fault(item_id: str, url: str) -> tuple[str, str] | None:
    """Reason and detail why an image is not even asked for."""
    if _SAFE_NAME.fullmatch(item_id) is None:
        return "unsafe_name", "the item id cannot be a file name"
    try:
        urlsplit(url)
        parts = httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as error:
        return "bad_url", f"{type(error).__name__}: {error}"
    if parts.scheme not in {"http", "https"} or not parts.host:
        return "bad_url", "expected an address that begins with http:// or https:// and a host"
    return None


def _fetch(
    files: list[RemoteFile], raw_dir: Path, transfer: Transfer, progress: Progress | None
) -> Iterator[DownloadFailure]:
    """Fetch in growing batches, so that a host that is down is found out early and costs its timeouts once."""
    down: dict[str, int] = {}
    done, size = 0, _FIRST_BATCH

    def tell(stage: str, fetched: int, _: int | None) -> None:
        if progress is not None and stage == "download":
            progress(stage, done + fetched, len(files))

    with default_client() as client:
        client.timeout = httpx.Timeout(_TIMEOUT)
        while done < len(files):
            batch = files[done : done + size]
            asked = [file for file in batch if _host(file) not in down]
            failures = fetch_many(asked, raw_dir, client=client, transfer=transfer, check=image_fault, progress=tell)
            yield from failures
            yield from (_not_asked(file, down[_host(file)]) for file in batch if _host(file) in down)
            down |= _silent(asked, failures)
            done, size = done + len(batch), min(2 * size, _LAST_BATCH)


def _silent(asked: list[RemoteFile], failures: list[DownloadFailure]) -> dict[str, int]:
    """Hosts that failed to answer every one of several requests, and how many those were."""
    requests = Counter(_host(file) for file in asked)
    unanswered = Counter(_host(failure.file) for failure in failures if failure.reason == "network")
    return {host: count for host, count in unanswered.items() if count == requests[host] and count >= _SEVERAL}


def _not_asked(file: RemoteFile, count: int) -> DownloadFailure:
    detail = f"not asked: {_host(file)} answered none of {count} requests before; prepare again when it does"
    return DownloadFailure(file, "network", detail)


def _host(file: RemoteFile) -> str:
    return urlsplit(file.url).netloc


def _on_disk(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in _SUFFIXES}


def _suffix(url: str) -> str:
    suffix = PurePosixPath(urlsplit(url).path).suffix.lower()
    return suffix if suffix in _SUFFIXES else ".jpg"
