"""English texts of the ShortVideo dataset: one small file per video, with its translated title or transcript."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from datasets_spec.download import DownloadFailure, fetch_many
from datasets_spec.media_files import MediaPlace
from datasets_spec.schema import BadRow
from datasets_spec.spec import Progress, RemoteFile

_log = logging.getLogger(__name__)

#: Folders of the dataset, and columns of the items.
TEXTS = ("title_en", "asr_en")
#: A folder of which none of so many files exists is taken to be absent.
PROBED = 20
_LONGEST = 20_000  # bytes; transcripts have hundreds


def add_texts(items: pl.DataFrame, folder: Path) -> pl.DataFrame:
    """Read what lies in a folder.

    Args:
        items: Has ``item_id``.
        folder: Above the folders of :data:`TEXTS`.

    Returns:
        The items with a text column for each of :data:`TEXTS`; null where there is no file, or a blank one.
    """
    ids = items["item_id"].to_list()
    columns = [pl.Series(kind, _read(folder / kind, ids), dtype=pl.String) for kind in TEXTS]
    return items.with_columns(columns)


def fetch_texts(ids: Sequence[str], place: MediaPlace, *, progress: Progress | None = None) -> list[BadRow]:
    """Download the files of some items, unless they are there.

    Args:
        ids: Item ids.
        place: Where they lie; without addresses nothing is fetched.
        progress: See :func:`datasets_spec.download.fetch_many`.

    Returns:
        A row for each file that exists and could not be had. That an item has no file is logged as a number: a video
        in which nobody speaks has no transcript.
    """
    bad_rows: list[BadRow] = []
    for kind in TEXTS if place.bases else ():
        there = {path.name for path in (place.folder / kind).glob("*.txt")}
        wanted = [(item_id, f"{kind}/{item_id}.txt") for item_id in ids if f"{item_id}.txt" not in there]
        failures = _fetch(wanted[:PROBED], place, progress)
        if failures and len(failures) == len(wanted[:PROBED]) and all(_is_absent(failure) for failure in failures):
            _log.warning(
                "%s: none of %d files exists (%s); taken to be absent", kind, len(failures), failures[0].detail
            )
            continue
        failures += _fetch(wanted[PROBED:], place, progress)
        absent = sum(_is_absent(failure) for failure in failures)
        if absent:
            _log.info("%s: %d of %d items have no file", kind, absent, len(ids))
        item_of = {path: item_id for item_id, path in wanted}
        bad_rows += [
            BadRow(failure.file.path, None, item_of[failure.file.path], failure.reason, failure.detail)
            for failure in failures
            if not _is_absent(failure)
        ]
    return bad_rows


def _fetch(wanted: Sequence[tuple[str, str]], place: MediaPlace, progress: Progress | None) -> list[DownloadFailure]:
    if not wanted:
        return []
    files = [RemoteFile(path, path, required=False) for _, path in wanted]
    return fetch_many(
        files, place.folder, bases=place.bases, client=place.client, transfer=place.transfer, progress=progress
    )


def _is_absent(failure: DownloadFailure) -> bool:
    return failure.reason == "not_found"


def _read(folder: Path, ids: Sequence[str]) -> list[str | None]:
    there = {path.name for path in folder.glob("*.txt")}  # one listing instead of a look-up for every item
    return [_text(folder / f"{item_id}.txt") if f"{item_id}.txt" in there else None for item_id in ids]


def _text(path: Path) -> str | None:
    with path.open("rb") as stream:
        raw = stream.read(_LONGEST)
    return " ".join(raw.decode("utf-8-sig", "replace").split()) or None
