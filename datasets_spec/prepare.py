"""Prepare a dataset: acquire → parse → filter → number → media → split → write.

The result depends on the content of the raw files and the configuration alone, not on the order of their rows, with
one intended exception: a dataset prepared again with the same configuration keeps the numbers of its users and items
(:mod:`datasets_spec.idmap`).
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from datasets_spec import content, idmap, registry, split, stats
from datasets_spec.dataset import PreparedDataset, read_manifest, write, writer_lock
from datasets_spec.errors import DamagedFileError, EmptyResultError
from datasets_spec.filtering import Coded, Filtered, code_rows, has_modality, keep_rows
from datasets_spec.idmap import IdMap
from datasets_spec.kcore import group_rows
from datasets_spec.partfile import sha256_of
from datasets_spec.raw import raw_file
from datasets_spec.registry import Source
from datasets_spec.schema import PARTS, BadRow, CodedInteractions, RawTables, bad_rows_frame, starts_of
from datasets_spec.spec import DatasetSpec, Modality, PrepareConfig, Progress, PublishedCounts
from datasets_spec.storage import full_disk_told

__all__ = ["PreparedDataset", "prepare"]

_log = logging.getLogger(__name__)

#: These say how a folder came to be, not what is in it: a difference in them alone rewrites nothing.
_VOLATILE = ("created_at", "id_map", "files")
#: These settings say where bytes come from, not what is done with them.
_NOT_RECIPE = ("base_url", "mirrors", "media")


def prepare(
    name: str,
    *,
    root: Path,
    config: PrepareConfig | None = None,
    source: str | None = None,
    progress: Progress | None = None,
) -> PreparedDataset:
    """Prepare a dataset below ``root``.

    Args:
        name: The dataset.
        root: Raw files go to ``raw/<spec.raw or name>``, the result to ``prepared/<name>``.
        config: What to do; None = the dataset's defaults.
        source: A local folder (read in place) or an address to take the raw files from; None = where they came from
            last time, or the dataset's own addresses.
        progress: Called as ``progress(stage, done, total)``.

    Returns:
        The prepared dataset. When nothing changed, the one that was there, untouched.

    Raises:
        UnknownDatasetError: For an unknown name.
        MissingSourceError: ``source`` or a required file in it is absent.
        DownloadError: A required file could not be fetched.
        DamagedFileError: A raw file is truncated.
        ConfigConflictError: A setting that the dataset cannot honour.
        EmptyResultError: Nothing is left after filtering.
        DiskFullError: There is no room for a download or the result.
    """
    with full_disk_told(root.absolute()):
        return _prepare(name, root=root, config=config, source=source, progress=progress)


def _prepare(
    name: str, *, root: Path, config: PrepareConfig | None, source: str | None, progress: Progress | None
) -> PreparedDataset:
    member, spec = registry.load(name)
    chosen = config or spec.config
    chosen = chosen.model_copy(update={"media": spec.media_for(chosen)})
    raw_dir = root.absolute() / "raw" / (spec.raw or name)
    path = root.absolute() / "prepared" / name
    with writer_lock(raw_dir), writer_lock(path):  # recipes may share a raw folder
        member.acquire(spec, chosen, raw_dir, source=source, progress=progress)
        _tell(progress, "parse", 0)
        tables = member.parse(spec, chosen, raw_dir)
        _tell(progress, "parse", 1)
        for note in tables.notes:
            _log.warning("%s: %s", name, note)
        coded = code_rows(tables)
        tables = replace(tables, interactions=tables.interactions.clear())  # their memory is needed from here on
        kept = keep_rows(tables, chosen, name=name, coded=coded)
        _tell(progress, "filter", 1)
        previous = _previous(path, chosen)
        users, items = _numbers(kept.coded, previous)
        catalogue, bad_media = _media(member, spec, chosen, raw_dir, _catalogue(items, tables), source, progress)
        interactions = _interactions(kept.coded, users, items, chosen)
        built = {"items": catalogue, **_per_user(interactions)}
        built["quarantine"] = pl.concat(
            [bad_rows_frame(tables.bad_rows, stage="parse"), bad_rows_frame(bad_media, stage="media")]
        )
        manifest = _manifest(spec, chosen, tables, kept, interactions, built, raw_dir)
        manifest["id_map"] = {side: _map_report(made) for side, made in (("users", users), ("items", items))}
        if previous is not None and _same(previous.manifest, manifest):
            _log.info("%s: nothing changed; version %s stays", name, previous.version[:12])
            return previous
        prepared = write(path, interactions, built, manifest)
        _tell(progress, "write", 1)
    _log.info("%s: %s", prepared, manifest["split"]["line"])
    for entry in spec.published:
        _log.info("%s: %s", name, _beside(entry, manifest["stats"]))
    return prepared


def _tell(progress: Progress | None, stage: str, done: int) -> None:
    if progress is not None:
        progress(stage, done, 1)


def _previous(path: Path, config: PrepareConfig) -> PreparedDataset | None:
    """What is there from an earlier call with the same recipe; a damaged one counts as none."""
    try:
        manifest = read_manifest(path)
        if manifest is None or _recipe(manifest["config"]) != _recipe(config.model_dump(mode="json")):
            return None
        return PreparedDataset.open(path)
    except (DamagedFileError, KeyError) as error:
        _log.warning("%s is damaged and is prepared anew: %s", path, error)
        return None


def _recipe(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that were made; one that did not exist yet counts as not made."""
    return {key: value for key, value in config.items() if key not in _NOT_RECIPE and value is not None}


def _numbers(coded: Coded, previous: PreparedDataset | None) -> tuple[IdMap, IdMap]:
    """Number the users and items that have rows."""
    users, items = coded.users.filter(coded.present("user")), coded.items.filter(coded.present("item"))
    if previous is None:
        return idmap.number(users), idmap.number(items)
    return idmap.number(users, previous.users["user_id"]), idmap.number(items, previous.items["item_id"])


def _catalogue(items: IdMap, tables: RawTables) -> pl.DataFrame:
    """Item columns of the surviving items, in the order of their numbers."""
    numbered = items.frame("item", "item_id").join(tables.items, on="item_id", how="left", maintain_order="left")
    first = ["item", "item_id", "title"]
    return numbered.select(*first, pl.exclude(first))


def _media(
    member: Source,
    spec: DatasetSpec,
    config: PrepareConfig,
    raw_dir: Path,
    catalogue: pl.DataFrame,
    source: str | None,
    progress: Progress | None,
) -> tuple[pl.DataFrame, list[BadRow]]:
    if not config.media:
        return catalogue, []
    filled, bad = member.acquire_media(spec, config, raw_dir, catalogue, source=source, progress=progress)
    return filled.sort("item"), bad


def _interactions(coded: Coded, users: IdMap, items: IdMap, config: PrepareConfig) -> CodedInteractions:
    """The rows with numbers in place of codes, sorted by (user, position) and labelled; ``coded`` is used up."""
    user = _renumber(coded, "user", users)
    rows = pl.DataFrame({"user": user, "item": _renumber(coded, "item", items), "timestamp": coded.rows["timestamp"]})
    coded.rows = coded.rows.clear()
    if (np.diff(user) < 0).any():  # users with numbers from before: not in the order of the ids
        rows = rows[group_rows(user, len(users) + 1)[1]]
    user = rows["user"].to_numpy()
    starts = starts_of(user)
    position = np.arange(len(user), dtype=np.int32) - np.repeat(starts[:-1].astype(np.int32), np.diff(starts))
    labels = split.label(rows, users.ids, how=config.split, seed=config.seed)
    if not (labels == PARTS.index("train")).any():
        raise EmptyResultError(f"split={config.split} leaves no training row of {rows.height}; choose another split")
    rows = rows.with_columns(position=pl.Series(position), split=pl.Series(labels))
    return CodedInteractions(rows, users.ids, items.ids)


def _renumber(coded: Coded, side: str, made: IdMap) -> npt.NDArray[np.int32]:
    there = coded.present(side)
    number = np.zeros(len(there), dtype=np.int32)
    number[there] = made.numbers((coded.users if side == "user" else coded.items).filter(there))
    return number[coded.rows[side].to_numpy()]


def _per_user(interactions: CodedInteractions) -> dict[str, pl.DataFrame]:
    """The tables ``users`` and ``splits``."""
    user, labels = (interactions.rows[column].to_numpy() for column in ("user", "split"))
    numbers = pl.int_range(1, len(interactions.users) + 1, dtype=pl.Int32, eager=True)
    counts = {part: np.bincount(user[labels == place], minlength=len(numbers) + 1) for place, part in enumerate(PARTS)}
    splits = {part: pl.Series(count[1:], dtype=pl.Int32) for part, count in counts.items()}
    total = splits["train"] + splits["valid"] + splits["test"]
    return {
        "users": pl.DataFrame({"user": numbers, "user_id": interactions.users, "interactions": total}),
        "splits": pl.DataFrame({"user": numbers, **splits}),
    }


def _manifest(
    spec: DatasetSpec,
    config: PrepareConfig,
    tables: RawTables,
    kept: Filtered,
    interactions: CodedInteractions,
    built: dict[str, pl.DataFrame],
    raw_dir: Path,
) -> dict[str, Any]:
    """All that is worth knowing about the result, without ``id_map`` and ``files``."""
    items, rows = built["items"], interactions.rows
    # Where media files lie is not content, whether an item has one is.
    places = [column for column in ("video", "image") if column in items.columns]
    content_items = items.with_columns(pl.col(column).is_not_null() for column in places)
    digests = {table: content.digest(built[table]) for table in ("users", "splits")}
    digests["interactions"] = content.digest(interactions)
    digests["items"] = content.digest(content_items)
    return {
        "name": spec.name,
        "title": spec.title,
        "version": content.version(digests),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "licence": asdict(spec.licence),
        "config": config.model_dump(mode="json"),
        "raw": _raw_files(spec, tables, raw_dir),
        "notes": list(tables.notes),
        "steps": [step.as_dict() for step in kept.coded.steps],
        "kcore": asdict(kept.kcore),
        "split": split.report(rows, rows["split"].to_numpy(), how=config.split).as_dict(),
        "stats": stats.describe(rows).as_dict(),
        "published": [asdict(entry) for entry in spec.published],
        "items_with": _coverage(items),
        "bad_rows": dict(sorted(Counter(built["quarantine"]["reason"].to_list()).items())),
        "digests": {
            **digests,
            "media_paths": content.digest(items.select(places)),
            "quarantine": content.digest(built["quarantine"]),
        },
    }


def _raw_files(spec: DatasetSpec, tables: RawTables, raw_dir: Path) -> list[dict[str, Any]]:
    paths = tables.files or tuple(raw_file(raw_dir, file.path) for file in spec.files)
    return [
        {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in paths if path.is_file()
    ]


def _coverage(items: pl.DataFrame) -> dict[str, int]:
    """How many items have each modality that the dataset knows."""
    kinds: tuple[Modality, ...] = ("text", "image", "video")
    found = {kind: has for kind in kinds if (has := has_modality(items, kind)) is not None}
    return {kind: items.filter(has).height for kind, has in found.items()}


def _beside(entry: PublishedCounts, ours: dict[str, Any]) -> str:
    """What a paper prints, and ours beside it."""
    theirs = {"users": entry.users, "items": entry.items, "interactions": entry.interactions}
    pairs = (f"{count} {what}, ours {ours[what]} ({ours[what] / count - 1:+.1%})" for what, count in theirs.items())
    return f"{entry.source} prints {'; '.join(pairs)}"


def _map_report(made: IdMap) -> dict[str, Any]:
    return {"kept": made.kept, "new": len(made) - made.kept, "renumbered": made.renumbered}


def _same(old: dict[str, Any], new: dict[str, Any]) -> bool:
    return all(old.get(key) == new.get(key) for key in {*old, *new} - set(_VOLATILE))
