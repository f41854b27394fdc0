"""Bring the feature stores of a dataset or a folder up to date: choose encoders and items, plan, encode, commit.

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
from extractors.audit import Comparison, audit, choose
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
    keep_frames,
    open_feature,
    run_text,
    run_visual,
)
from extractors.kept import NAME as FRAMES
from extractors.kept import KeptFrames
from extractors.pool import DecodePool
from extractors.run import media_of
from feature_store import FeatureStore, Gates, QualityGateError
from flows.errors import CallError
from flows.jobs.choices import GATES, AuditConfig, ExtractConfig, feature_config, parse_gates, split_overrides
from flows.jobs.folder import MediaFolder, open_source
from flows.jobs.outcomes import ItemOutcome, of_all, quarantined
from flows.jobs.prepare import ProgressCallback
from flows.settings import Settings, resolve_device
from models.config import parse_strict

Kind = Literal["video", "image", "text"]

#: Text that an item is known by, as far as its dataset has the columns: IMECD names these three.
TEXT_FIELDS = ("title", "brand", "category")


@dataclass
class Extracted:
    """What an extraction did.

    Attributes:
        dataset: Name of the dataset or the folder.
        reports: One per feature.
        items: What became of each item of a folder, and of the quarantined items of a dataset, feature by feature.
        ignored: What in a folder is no item of these features, with the reason.
        audit: The videos that were decoded again; None where none were to be.
    """

    dataset: str
    reports: list[ExtractReport] = field(default_factory=list[ExtractReport])
    items: list[ItemOutcome] = field(default_factory=list[ItemOutcome])
    ignored: dict[str, str] = field(default_factory=dict[str, str])
    audit: list[Comparison] | None = None


@dataclass
class Group:
    """Features that read the same media, what they read, and what became of it so far."""

    kind: Kind
    features: list[Feature]
    contents: Contents
    files: dict[str, Path] = field(default_factory=dict[str, Path])
    texts: dict[str, str] = field(default_factory=dict[str, str])
    frames: KeptFrames | None = None
    tallies: dict[str, Tally] = field(default_factory=dict[str, Tally])

    @property
    def label(self) -> str:
        """Names of the features."""
        return "+".join(feature.name for feature in self.features)

    def tasks(self, size: int) -> list[list[str]]:
        """Item ids still to do, in pieces; empty when everything is there."""
        return chunks(self.features, list(self.files or self.texts), size)


class Extraction:
    """One extraction of one dataset or folder; a context manager that owns the decoding processes.

    Attributes:
        dataset: Name of the dataset or the folder.
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
            dataset: A prepared dataset, or the path of a folder of videos or pictures.
            features: Encoders; None for all that the dataset has media for.
            overrides: ``key=value`` of :class:`ExtractConfig` or of the encoders; ``<encoder>.<key>`` for one of them.
            progress: Called as ``progress(stage, done, total)``.

        Raises:
            UnknownEncoderError: With the near name.
            CallError: For a key that neither the extraction nor any of the encoders has, and a folder without media.
            NotPreparedError: When the dataset has not been prepared.
        """
        for name in features or ():
            registry.load(name)
        self._settings = settings
        self._source = open_source(settings, dataset)
        self._progress = progress
        self.dataset = self._source.name
        chosen = tuple(features) if features else self._applicable()
        own, per_encoder = split_overrides(chosen, overrides or {})
        self.config = parse_strict(ExtractConfig, own, where="extract")
        self._device = resolve_device(self.config.device if "device" in own else settings.device)
        self._pool: DecodePool | None = None
        self._gates: dict[str, Gates] = {}
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
            pool = self._decode_pool()
            done = run_visual(files, group.features, pool=pool, frames=group.frames, progress=self._progress)
        for name, tally in done.items():
            group.tallies.setdefault(name, Tally()).add(tally)
        return done

    def commit(self, group: Group) -> list[ExtractReport]:
        """Publish a group's features; nothing changed means no new version.

        Raises:
            QualityGateError: For all features whose figures do not keep their limits; the others are published.
        """
        reports: list[ExtractReport] = []
        blocked: list[QualityGateError] = []
        for feature in group.features:
            try:
                report = commit_feature(
                    feature,
                    group.tallies.get(feature.name, Tally()),
                    unreadable=len(group.contents.unreadable),
                    catalogue_size=self._catalogue_size(group),
                    progress=self._progress,
                    gates=self._gates[feature.name],
                )
            except QualityGateError as error:
                blocked.append(error)
            else:
                reports.append(report)
        _raise_together(blocked)
        return reports

    def audit(self, group: Group, share: float) -> list[Comparison]:
        """Decode a share of a group's videos again, in full; see :mod:`extractors.audit`."""
        chosen = choose(group.contents.hashes, share)
        n, fps, decoder = (group.features[0].spec.sampling[key] for key in ("frames", "fps", "decoder"))
        items = [(item_id, group.files[item_id]) for item_id in chosen]
        comparisons: list[Comparison] = []
        for comparison in audit(items, n=n, fps=fps, decoder=decoder, pool=self._decode_pool()):
            comparisons.append(comparison)
            if self._progress is not None:
                self._progress("verify", len(comparisons), len(chosen))
        return comparisons

    def outcomes(self, group: Group) -> list[ItemOutcome]:
        """What became of each item of a folder, and of the quarantined items of a dataset; after :meth:`commit`."""
        tell = of_all if isinstance(self._source, MediaFolder) else quarantined
        _, items = self._items(group.kind)
        files = {item_id: item.name if isinstance(item, Path) else "" for item_id, item in items.items()}
        return [outcome for feature in group.features for outcome in tell(feature.name, feature.store, files)]

    def ignored(self) -> dict[str, str]:
        """What in a folder is no item of these features, with the reason."""
        if not isinstance(self._source, MediaFolder):
            return {}
        used = {group.kind for group in self.groups}
        unread = {path.name: "read by none of the features" for kind in ("video", "image") if kind not in used
                  for _, path in self._source.media(kind)}  # fmt: skip
        return dict(sorted((self._source.ignored | unread).items()))

    def _catalogue_size(self, group: Group) -> int:
        if isinstance(self._source, MediaFolder):
            return len(self._source.media(group.kind))
        return self._source.n_items

    def _announce(self, group: Group) -> None:
        """Tell text encoders once of all texts to come, so that a table of word vectors is read in one pass."""
        if group.label not in self._announced:
            self._announced.add(group.label)
            for feature in group.features:
                announce(group.texts, feature)

    def _applicable(self) -> tuple[str, ...]:
        """Encoders whose media the dataset has, by their default settings."""
        there: dict[str, bool] = {kind: bool(self._source.media(kind)) for kind in ("video", "image")}
        there["text"] = bool(self._texts(None))
        kinds = {name: registry.reads(name) for name in registry.names()}
        names = tuple(name for name, kind in kinds.items() if there[kind])
        if not names:
            raise CallError(f"{self.dataset}: its items have neither videos, images nor texts; nothing can be encoded")
        return names

    def _open(self, name: str, overrides: Mapping[str, Any]) -> tuple[Kind, Feature]:
        values = feature_config(self._settings, name, overrides)
        self._gates[name] = parse_gates(values.pop(GATES, {}), name)
        kind = registry.reads(name, values)
        contents, _ = self._items(kind)
        if not contents.hashes and not contents.unreadable:
            raise CallError(self._without(name, kind))
        store, recorded = self._store(name)
        feature = open_feature(
            name,
            values,
            contents=contents,
            store=store,
            toy_root=self._settings.checkpoints,
            device=self._device,
            recorded=recorded,
        )
        return kind, feature

    def _store(self, name: str) -> tuple[FeatureStore, dict[str, Any]]:
        """The store of a feature, and what is recorded about its items."""
        store = FeatureStore.open(self._settings.store(self.dataset, name), create=True)
        if isinstance(self._source, MediaFolder):
            self._source.require_own(store)
            return store, self._source.recorded
        return store, {"dataset": self.dataset, "dataset_version": self._source.version}

    def _find_frames(self, group: Group) -> None:
        """Look for frames that were kept; keep those of this run where that is asked for, of the first sampling."""
        if not self.config.keep_frames and not self._settings.store(self.dataset, FRAMES).exists():
            return
        store, recorded = self._store(FRAMES)
        group.frames = KeptFrames.find(store)
        if self.config.keep_frames and FRAMES not in self._gates:
            self._gates[FRAMES] = Gates()
            sampling, modes = group.features[0].spec.sampling, self.config.keep_frames
            group.features.append(keep_frames(modes, sampling, contents=group.contents, store=store, recorded=recorded))

    def _without(self, name: str, kind: Kind) -> str:
        what = f"{self.dataset}: no item has a {kind}, which {name} reads"
        if isinstance(self._source, MediaFolder):
            other = "; vit reads videos with vit.input=video" if name == "vit" else ""
            return f"{what}; no file of the folder has the suffix of one{other}"
        return f"{what}; prepare it with media={kind}"

    def _grouped(self, opened: Sequence[tuple[Kind, Feature]]) -> list[Group]:
        groups: dict[tuple[str, str], Group] = {}
        for kind, feature in opened:
            contents, items = self._items(kind)
            readable = {item_id: item for item_id, item in items.items() if item_id in contents.hashes}
            key = media_of(feature.spec)
            if key not in groups:
                texts, files = (readable, {}) if kind == "text" else ({}, readable)
                groups[key] = Group(kind, [], contents, files=files, texts=texts)
            groups[key].features.append(feature)
        for group in groups.values():
            if group.kind == "video":
                self._find_frames(group)
        return list(groups.values())

    def _items(self, kind: Kind) -> tuple[Contents, dict[str, Any]]:
        """Content hashes and the items themselves, read once per kind."""
        if kind not in self._known:
            if kind == "text":
                texts = dict(self._texts(self.config.text))
                self._known[kind] = hash_texts(texts), dict(texts)
            else:
                files = dict(self._source.media(kind))
                cache = self._settings.stores / self.dataset / f".hashes-{kind}.json"
                self._known[kind] = hash_media(files, cache=cache, progress=self._progress), dict(files)
        return self._known[kind]

    def _texts(self, fields: tuple[str, ...] | None) -> list[tuple[str, str]]:
        if isinstance(self._source, MediaFolder):
            return []
        columns = self._source.items.columns
        return self._source.texts(fields or tuple(name for name in TEXT_FIELDS if name in columns))

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
) -> Extracted:
    """Do all of it in this process; arguments and errors as for :class:`Extraction`.

    ``verify=0.01`` among the overrides decodes that part of the videos again, see :class:`AuditConfig`.
    """
    values = dict(overrides)
    asked = {key: values.pop(key) for key in AuditConfig.model_fields if key in values}
    share = parse_strict(AuditConfig, asked, where="extract").verify
    blocked: list[QualityGateError] = []
    with Extraction(settings, dataset, features=features, overrides=values, progress=progress) as extraction:
        videos = [group for group in extraction.groups if group.kind == "video"]
        if share and not videos:
            raise CallError(f"verify: decodes videos again, and none of the features of {extraction.dataset} reads any")
        done = Extracted(extraction.dataset, ignored=extraction.ignored(), audit=[] if share else None)
        for group in extraction.groups:
            for item_ids in group.tasks(extraction.config.task_size):
                extraction.run(group, item_ids)
            try:
                done.reports += extraction.commit(group)
            except QualityGateError as error:
                blocked.append(error)
            else:
                done.items += extraction.outcomes(group)
        if done.audit is not None:
            for group in videos:
                done.audit += extraction.audit(group, share)
    _raise_together(blocked)
    return done


def _raise_together(blocked: Sequence[QualityGateError]) -> None:
    if blocked:
        raise QualityGateError("\n".join(map(str, blocked)))
