"""Prepare a dataset: acquire → parse → filter → number → media → split → write.

The result depends on the content of the raw files and the configuration alone, not on the order of their rows, with
one intended exception: a dataset prepared again with the same configuration keeps the numbers of its users and items
(:mod:`datasets_spec.idmap`).
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from datasets_spec import content, idmap, registry, split, stats
from datasets_spec.dataset import PreparedDataset, read_manifest, write, writer_lock
from datasets_spec.errors import DamagedFileError, EmptyResultError
from datasets_spec.filtering import Filtered, has_modality, keep_rows
from datasets_spec.idmap import IdMap
from datasets_spec.partfile import sha256_of
from datasets_spec.raw import raw_file
from datasets_spec.registry import Source
from datasets_spec.schema import BadRow, RawTables, bad_rows_frame
from datasets_spec.spec import DatasetSpec, Modality, PrepareConfig, Progress

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
        root: Raw files go to ``raw/<name>``, the result to ``prepared/<name>``.
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
    """
    member, spec = registry.load(name)
    chosen = config or spec.config
    chosen = chosen.model_copy(update={"media": spec.media_for(chosen)})
    raw_dir = root.absolute() / "raw" / name
    path = root.absolute() / "prepared" / name
    with writer_lock(path):
        member.acquire(spec, chosen, raw_dir, source=source, progress=progress)
        _tell(progress, "parse", 0)
        tables = member.parse(spec, chosen, raw_dir)
        _tell(progress, "parse", 1)
        for note in tables.notes:
            _log.warning("%s: %s", name, note)
        kept = keep_rows(tables, chosen, name=name)
        _tell(progress, "filter", 1)
        previous = _previous(path, chosen)
        users = idmap.number(kept.interactions["user_id"], _ids(previous, "user_id"))
        items = idmap.number(kept.interactions["item_id"], _ids(previous, "item_id"))
        catalogue, bad_media = _media(member, spec, chosen, raw_dir, _catalogue(items, tables), source, progress)
        built = _tables(kept, users, items, catalogue, chosen)
        built["quarantine"] = pl.concat(
            [bad_rows_frame(tables.bad_rows, stage="parse"), bad_rows_frame(bad_media, stage="media")]
        )
        manifest = _manifest(spec, chosen, tables, kept, built, raw_dir)
        manifest["id_map"] = {side: _map_report(made) for side, made in (("users", users), ("items", items))}
        if previous is not None and _same(previous.manifest, manifest):
            _log.info("%s: nothing changed; version %s stays", name, previous.version[:12])
            return previous
        prepared = write(path, built, manifest)
        _tell(progress, "write", 1)
    _log.info("%s: %s", prepared, manifest["split"]["line"])
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
    return {key: value for key, value in config.items() if key not in _NOT_RECIPE}


def _ids(previous: PreparedDataset | None, column: str) -> list[str]:
    if previous is None:
        return []
    return (previous.users if column == "user_id" else previous.items)[column].to_list()


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


def _tables(
    kept: Filtered, users: IdMap, items: IdMap, catalogue: pl.DataFrame, config: PrepareConfig
) -> dict[str, pl.DataFrame]:
    rows = (
        kept.interactions.join(users.frame("user", "user_id"), on="user_id", maintain_order="left")
        .join(items.frame("item", "item_id"), on="item_id", maintain_order="left")
        .sort("user", maintain_order=True)
        .with_columns(position=pl.int_range(pl.len(), dtype=pl.Int32).over("user"))
    )
    rows = rows.with_columns(split.label(rows, how=config.split, seed=config.seed))
    if not (rows["split"] == "train").any():
        raise EmptyResultError(f"split={config.split} leaves no training row of {rows.height}; choose another split")
    interactions = rows.select("user", "item", "user_id", "item_id", "timestamp", "position", "split")
    counts = interactions.group_by("user").agg(
        pl.len().cast(pl.Int32).alias("interactions"),
        *((pl.col("split") == part).sum().cast(pl.Int32).alias(part) for part in split.NAMES),
    )
    per_user = users.frame("user", "user_id").join(counts, on="user", maintain_order="left")
    return {
        "interactions": interactions,
        "items": catalogue,
        "users": per_user.select("user", "user_id", "interactions"),
        "splits": per_user.select("user", *split.NAMES),
    }


def _manifest(
    spec: DatasetSpec,
    config: PrepareConfig,
    tables: RawTables,
    kept: Filtered,
    built: dict[str, pl.DataFrame],
    raw_dir: Path,
) -> dict[str, Any]:
    """All that is worth knowing about the result, without ``id_map`` and ``files``."""
    items = built["items"]
    # Where media files lie is not content, whether an item has one is.
    places = [column for column in ("video", "image") if column in items.columns]
    content_items = items.with_columns(pl.col(column).is_not_null() for column in places)
    digests = {table: content.digest(built[table]) for table in ("interactions", "users", "splits")}
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
        "steps": [step.as_dict() for step in kept.steps],
        "kcore": asdict(kept.kcore),
        "split": split.report(built["interactions"], how=config.split).as_dict(),
        "stats": stats.describe(built["interactions"]).as_dict(),
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


def _map_report(made: IdMap) -> dict[str, Any]:
    return {"kept": made.kept, "new": len(made) - made.kept, "renumbered": made.renumbered}


def _same(old: dict[str, Any], new: dict[str, Any]) -> bool:
    return all(old.get(key) == new.get(key) for key in {*old, *new} - set(_VOLATILE))
