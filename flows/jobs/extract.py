"""Bring the feature stores of a dataset up to date: choose encoders and items, plan, encode in tasks, commit.

The command line runs the tasks one after the other; the flows wrap each in a Prefect task. What is done is read from
the stores, so a rerun encodes only what changed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from extractors import registry
from extractors.extract import (
    Contents,
    ExtractReport,
    Feature,
    Tally,
    announce,
    chunks,
    commit_feature,
    hash_media,
    hash_texts,
    open_feature,
    run_text,
    run_visual,
)
from extractors.pool import DecodePool
from extractors.run import media_of
from feature_store import FeatureStore
from flows.config import merge, read_toml
from flows.errors import CallError
from flows.jobs.prepare import ProgressCallback, open_prepared
from flows.settings import Settings, resolve_device
from models.config import StrictModel, parse_strict, suggest

Kind = Literal["video", "image", "text"]

#: Text that an item is known by, as far as its dataset has the columns: IMECD names these three.
TEXT_FIELDS = ("title", "brand", "category")


class ExtractConfig(StrictModel):
    """Settings of an extraction that are not those of one encoder.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        workers: Decoding processes; None for the machine's setting.
        deadline_seconds: Longest time for one file; a file that takes longer goes to quarantine.
        memory_limit_mb: How much a decoding process may grow for one file.
        text: Item columns that make up an item's text; None for title, brand and category where there are any.
        task_size: Items in one task of a flow.
    """

    device: str = "auto"
    workers: int | None = None
    deadline_seconds: float = 60.0
    memory_limit_mb: int = 2048
    text: tuple[str, ...] | None = None
    task_size: int = 1024


@dataclass
class Group:
    """Features that read the same media, what they read, and what became of it so far."""

    kind: Kind
    features: list[Feature]
    contents: Contents
    files: dict[str, Path] = field(default_factory=dict[str, Path])
    texts: dict[str, str] = field(default_factory=dict[str, str])
    tallies: dict[str, Tally] = field(default_factory=dict[str, Tally])

    @property
    def label(self) -> str:
        """Names of the features."""
        return "+".join(feature.name for feature in self.features)

    def tasks(self, size: int) -> list[list[str]]:
        """Item ids still to do, in pieces; empty when everything is there."""
        return chunks(self.features, list(self.files or self.texts), size)


class Extraction:
    """One extraction of one dataset; a context manager that owns the decoding processes.

    Attributes:
        dataset: Name of the dataset.
        config: Settings.
        groups: The work, by media.
    """

    def __init__(
        self,
        settings: Settings,
        dataset: str,
        *,
        features: Sequence[str] | None = None,
        overrides: Mapping[str, Any] | None = None,
        progress: ProgressCallback | None = None,
    ) -> None:
        """Hash the items and plan; no model is loaded.

        Args:
            settings: Places.
            dataset: A prepared dataset.
            features: Encoders; None for all that the dataset has media for.
            overrides: ``key=value`` of :class:`ExtractConfig` or of the encoders; ``<encoder>.<key>`` for one of them.
            progress: Called as ``progress(stage, done, total)``.

        Raises:
            UnknownEncoderError: With the near name.
            CallError: For a key that neither the extraction nor any of the encoders has.
            NotPreparedError: When the dataset has not been prepared.
        """
        for name in features or ():
            registry.load(name)
        self._settings = settings
        self._prepared = open_prepared(settings, dataset)
        self._progress = progress
        self.dataset = dataset
        chosen = tuple(features) if features else self._applicable()
        own, per_encoder = split_overrides(chosen, overrides or {})
        self.config = parse_strict(ExtractConfig, own, where="extract")
        self._device = resolve_device(self.config.device if "device" in own else settings.device)
        self._pool: DecodePool | None = None
        self._announced: set[str] = set()
        self._stack = contextlib.ExitStack()
        self._known: dict[str, tuple[Contents, dict[str, Any]]] = {}
        self.groups = self._grouped([self._open(name, per_encoder.get(name, {})) for name in chosen])

    def __enter__(self) -> Extraction:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def run(self, group: Group, item_ids: Sequence[str]) -> dict[str, Tally]:
        """Encode some items of a group with all its features and write their shards.

        Returns:
            What became of them, by feature; also added to the group's tallies.
        """
        if group.kind == "text":
            self._announce(group)
            texts = {item_id: group.texts[item_id] for item_id in item_ids}
            done = {feature.name: run_text(texts, feature, progress=self._progress) for feature in group.features}
        else:
            files = {item_id: group.files[item_id] for item_id in item_ids}
            done = run_visual(files, group.features, pool=self._decode_pool(), progress=self._progress)
        for name, tally in done.items():
            group.tallies.setdefault(name, Tally()).add(tally)
        return done

    def commit(self, group: Group) -> list[ExtractReport]:
        """Publish a group's features; nothing changed means no new version."""
        return [
            commit_feature(
                feature,
                group.tallies.get(feature.name, Tally()),
                unreadable=len(group.contents.unreadable),
                catalogue_size=self._prepared.n_items,
                progress=self._progress,
            )
            for feature in group.features
        ]

    def _announce(self, group: Group) -> None:
        """Tell text encoders once of all texts to come, so that a table of word vectors is read in one pass."""
        if group.label not in self._announced:
            self._announced.add(group.label)
            for feature in group.features:
                announce(group.texts, feature)

    def _applicable(self) -> tuple[str, ...]:
        """Encoders whose media the dataset has, by their default settings."""
        there: dict[str, bool] = {kind: bool(self._prepared.media(kind)) for kind in ("video", "image")}
        there["text"] = bool(self._texts(None))
        kinds = {name: registry.reads(name) for name in registry.names()}
        names = tuple(name for name, kind in kinds.items() if there[kind])
        if not names:
            raise CallError(f"{self.dataset}: its items have neither videos, images nor texts; nothing can be encoded")
        return names

    def _open(self, name: str, overrides: Mapping[str, Any]) -> tuple[Kind, Feature]:
        values = feature_config(self._settings, name, overrides)
        kind = registry.reads(name, values)
        contents, _ = self._items(kind)
        if not contents.hashes and not contents.unreadable:
            raise CallError(f"{self.dataset}: no item has a {kind}, which {name} reads; prepare it with media={kind}")
        feature = open_feature(
            name,
            values,
            contents=contents,
            store=FeatureStore.open(self._settings.store(self.dataset, name), create=True),
            toy_root=self._settings.checkpoints,
            device=self._device,
            recorded={"dataset": self.dataset, "dataset_version": self._prepared.version},
        )
        return kind, feature

    def _grouped(self, opened: Sequence[tuple[Kind, Feature]]) -> list[Group]:
        groups: dict[tuple[str, str], Group] = {}
        for kind, feature in opened:
            contents, items = self._items(kind)
            readable = {item_id: item for item_id, item in items.items() if item_id in contents.hashes}
            key = media_of(feature.spec)
            if key not in groups:
                place = {"texts": readable} if kind == "text" else {"files": readable}
                groups[key] = Group(kind=kind, features=[], contents=contents, **place)
            groups[key].features.append(feature)
        return list(groups.values())

    def _items(self, kind: Kind) -> tuple[Contents, dict[str, Any]]:
        """Content hashes and the items themselves, read once per kind."""
        if kind not in self._known:
            if kind == "text":
                texts = dict(self._texts(self.config.text))
                self._known[kind] = hash_texts(texts), dict(texts)
            else:
                files = dict(self._prepared.media(kind))
                cache = self._settings.stores / self.dataset / f".hashes-{kind}.json"
                self._known[kind] = hash_media(files, cache=cache, progress=self._progress), dict(files)
        return self._known[kind]

    def _texts(self, fields: tuple[str, ...] | None) -> list[tuple[str, str]]:
        columns = self._prepared.items.columns
        return self._prepared.texts(fields or tuple(name for name in TEXT_FIELDS if name in columns))

    def _decode_pool(self) -> DecodePool:
        if self._pool is None:
            self._pool = self._stack.enter_context(
                DecodePool(
                    self.config.workers or self._settings.workers,
                    deadline_seconds=self.config.deadline_seconds,
                    memory_limit_bytes=self.config.memory_limit_mb << 20,
                )
            )
        return self._pool


def extract_features(
    settings: Settings,
    dataset: str,
    *,
    features: Sequence[str] | None,
    overrides: Mapping[str, Any],
    progress: ProgressCallback | None = None,
) -> list[ExtractReport]:
    """Do all of it in this process; arguments and errors as for :class:`Extraction`."""
    reports: list[ExtractReport] = []
    with Extraction(settings, dataset, features=features, overrides=overrides, progress=progress) as extraction:
        for group in extraction.groups:
            for item_ids in group.tasks(extraction.config.task_size):
                extraction.run(group, item_ids)
            reports += extraction.commit(group)
    return reports


def feature_config(settings: Settings, name: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The encoder's file in ``configs/features`` with overrides applied.

    Another checkpoint does not inherit the pinned revision of the configured one.
    """
    path = settings.configs / "features" / f"{name}.toml"
    base = read_toml(path, what="feature configuration") if path.is_file() else {}
    if "checkpoint" in overrides:
        base.pop("revision", None)
        overrides = {"revision": None, **overrides}
    return merge(base, overrides)


def split_overrides(
    names: Sequence[str], overrides: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Settings of the extraction, and settings by encoder.

    ``<encoder>.<key>`` goes to that encoder; a bare key to the extraction if it has it, else to all encoders that do.

    Raises:
        CallError: For a key that nobody has, with the near name.
    """
    own: dict[str, Any] = {}
    per_encoder: dict[str, dict[str, Any]] = {name: {} for name in names}
    known = {name: set(registry.load(name).Config.model_fields) for name in names}
    for key, value in overrides.items():
        encoder, dot, inner = key.partition(".")
        readers = [encoder] if dot and encoder in known else [name for name in names if key in known[name]]
        if key in ExtractConfig.model_fields:
            listed = key == "text" and isinstance(value, str)
            own[key] = tuple(part.strip() for part in value.split(",")) if listed else value
        elif not readers:
            everything = sorted({*ExtractConfig.model_fields, *set[str]().union(*known.values())})
            raise CallError(f"{key}: neither the extraction nor {', '.join(names)} has it; {suggest(key, everything)}")
        for name in readers:
            per_encoder[name][inner if dot else key] = value
    return own, per_encoder
