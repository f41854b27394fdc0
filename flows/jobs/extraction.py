"""One extraction: choose encoders and items, ask the stores what is to do, encode shard by shard, commit.

The command line does the shards one after the other; the flows wrap each in a Prefect task, in one process or in
several. What is done is read from the stores, so a rerun encodes only what changed, and any process may do any shard.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time
from pathlib import Path
from types import TracebackType
from typing import Any

from datasets_spec.prepare import PreparedDataset
from extractors import registry
from extractors.audit import Comparison, audit, choose
from extractors.extract import (
    Contents,
    ExtractReport,
    Tally,
    announce,
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
from feature_store import FeatureStore, Gates
from flows.errors import CallError
from flows.jobs.choices import GATES, ExtractConfig, feature_config, parse_gates, split_overrides
from flows.jobs.claims import Claims
from flows.jobs.device_lock import DeviceLock
from flows.jobs.folder import MediaFolder, open_source
from flows.jobs.group import Group, Kind, Loaded, Member, store_state
from flows.jobs.outcomes import ItemOutcome, of_all, quarantined
from flows.jobs.prepare import ProgressCallback
from flows.jobs.selection import Selection
from flows.jobs.shards import cut, parse_shards
from flows.settings import Settings, resolve_device
from models.config import parse_strict

#: Text that an item is known by, as far as its dataset has the columns: IMECD names these three.
TEXT_FIELDS = ("title", "brand", "category")


class Extraction:
    """One extraction of one dataset or folder; a context manager that owns decoding processes, models and device.

    Attributes:
        dataset: Name of the dataset or the folder.
        config: Settings.
        device: Where to encode.
        selection: Which part of the work this run does.
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
        started: datetime | None = None,
    ) -> None:
        """Hash the items and plan; no model is loaded.

        Args:
            settings: Places.
            dataset: A prepared dataset, or the path of a folder of videos or pictures.
            features: Encoders; None for all that the dataset has media for.
            overrides: ``key=value`` of :class:`ExtractConfig` or of the encoders; ``<encoder>.<key>`` for one of them.
            progress: Called as ``progress(stage, done, total)``.
            started: When the job started that this is a part of; None for now.

        Raises:
            UnknownEncoderError: With the near name.
            CallError: For a key that neither the extraction nor any of the encoders has, a folder without media, and a
                selection that selects nothing there is.
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
        self.device = resolve_device(self.config.device if "device" in own else settings.device)
        self._pool: DecodePool | None = None
        self._gates: dict[str, Gates] = {}
        self._announced: set[str] = set()
        self._stack = contextlib.ExitStack()
        self._known: dict[str, tuple[Contents, dict[str, Any]]] = {}
        self._lock = DeviceLock(self.device, purpose=self.dataset, folder=self.config.lock_folder)
        since = self.config.since and datetime.combine(self.config.since, time(), UTC)
        shards = None if self.config.shards is None else parse_shards(self.config.shards)
        self.selection = Selection(started or datetime.now(UTC), self.config.only, shards, since)
        self.groups = self._grouped([self._open(name, per_encoder.get(name, {})) for name in chosen])
        self._check_selection()
        for group in self.groups:
            group.narrow(self.selection)
            for member in group.members:
                member.before = member.feature.plan

    def __enter__(self) -> Extraction:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def reset(self) -> None:
        """End the decoding processes and let go of the models; what is asked for afterwards starts anew."""
        self._pool = None
        try:
            self._stack.close()
        finally:
            for group in self.groups:
                group.let_go()

    def close(self) -> None:
        """End the decoding processes, and let go of models and device."""
        try:
            self.reset()
        finally:
            self._lock.release()

    @property
    def prepared(self) -> PreparedDataset | None:
        """The dataset; None for a folder."""
        return None if isinstance(self._source, MediaFolder) else self._source

    def group(self, label: str) -> Group:
        """The group of that label.

        Raises:
            CallError: When there is none.
        """
        for group in self.groups:
            if group.label == label:
                return group
        labels = ", ".join(group.label for group in self.groups)
        raise CallError(f"{self.dataset}: expected one of the groups {labels}, got {label!r}")

    def run(self, group: Group, item_ids: Sequence[str]) -> dict[str, Tally]:
        """Encode some items of a group with all its features and write them, while the device is locked.

        Returns:
            What became of them, by feature; also added to the group's tallies.
        """
        self.hold_device(group)
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

    def claims(self, group: Group) -> Claims:
        """Which process does which shard of a group."""
        return Claims(self._settings.stores / self.dataset, group.label)

    def hold_device(self, group: Group) -> None:
        """Lock the device until the group is released, waiting for whoever encodes on it."""
        uses = any(feature.name != FRAMES and registry.load(feature.name).ON_DEVICE for feature in group.features)
        wanted = self.config.device_lock
        if uses and (self.device.startswith("cuda") if wanted is None else wanted):
            self._lock.acquire()

    def release(self, group: Group) -> None:
        """Let go of a group's models and of the device, once the group is encoded."""
        group.let_go()
        self._lock.release()

    def refresh(self, group: Group) -> None:
        """Ask the stores again what is to do: other processes may have done some of it."""
        for member in group.members:
            feature = member.feature
            state = store_state(self._settings.store(self.dataset, feature.name))
            if state != member.state:
                unreadable = [row.item_id for row in group.contents.unreadable]
                member.found = feature.store.plan(feature.plan.spec, group.contents.hashes, unreadable)
                member.state = state
        group.narrow(self.selection)

    def commit(self, group: Group, name: str, tally: Tally | None = None) -> ExtractReport:
        """Publish a feature of a group; nothing changed means no new version.

        Args:
            group: The group.
            name: The feature.
            tally: Times and figures of the work, wherever it was done; None for what this process did. What was encoded
                and what failed is counted from the store.

        Raises:
            QualityGateError: When the figures do not keep their limits.
        """
        self.refresh(group)
        (member,) = (member for member in group.members if member.feature.name == name)
        total = Tally()
        total.add(tally or group.tallies.get(name, Tally()))
        total.encoded, total.failed = member.done()
        return commit_feature(
            member.planned,
            total,
            unreadable=len(group.contents.unreadable),
            catalogue_size=self._catalogue_size(group),
            progress=self._progress,
            gates=self._gates[name],
        )

    def gates(self, name: str) -> Gates:
        """Limits that a feature's figures must keep."""
        return self._gates[name]

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

    def videos(self, share: float) -> list[Group]:
        """The groups that an audit of a share of the videos reads; none for a share of 0.

        Raises:
            CallError: When there are no videos to audit.
        """
        videos = [group for group in self.groups if group.kind == "video"]
        if share and not videos:
            raise CallError(f"verify: decodes videos again, and none of the features of {self.dataset} reads any")
        return videos if share else []

    def outcomes(self, group: Group) -> list[ItemOutcome]:
        """What became of each item of a folder, and of the quarantined items of a dataset; after :meth:`commit`."""
        _, items = self._items(group.kind)
        files = {item_id: item.name if isinstance(item, Path) else "" for item_id, item in items.items()}
        found: list[ItemOutcome] = []
        for member in group.members:
            name, store = member.feature.name, member.feature.store
            if isinstance(self._source, MediaFolder):
                found += of_all(name, store, files, unselected=set(member.found.todo) - set(member.before.todo))
            else:
                found += quarantined(name, store, files)
        return found

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

    def _check_selection(self) -> None:
        texts = [group.label for group in self.groups if group.kind == "text"]
        if self.selection.since is not None and texts:
            raise CallError(f"since: texts have no time, and {', '.join(texts)} reads texts; name others in --features")
        most = max(len(group.shards) for group in self.groups)
        beyond = sorted(number for number in self.selection.shards or () if number >= most)
        if beyond:
            raise CallError(
                f"shards: there is no shard {beyond[0]}; {self.dataset} has {most} of up to {self.config.task_size} "
                f"items, numbered from 0 to {most - 1}"
            )

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

    def _open(self, name: str, overrides: Mapping[str, Any]) -> tuple[Kind, Member]:
        values = feature_config(self._settings, name, overrides)
        self._gates[name] = parse_gates(values.pop(GATES, {}), name)
        config = registry.parse_config(name, values)
        kind = registry.reads(name, config)
        contents, _ = self._items(kind)
        if not contents.hashes and not contents.unreadable:
            raise CallError(self._without(name, kind))
        store, recorded = self._store(name)
        where: dict[str, Any] = {"device": self.device, "toy_root": self._settings.checkpoints}
        feature = open_feature(name, config, contents=contents, store=store, recorded=recorded, **where)
        build = functools.partial(registry.build, name, config, **where)
        return kind, Member.of(feature, Loaded(build))

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
            keeper = keep_frames(modes, sampling, contents=group.contents, store=store, recorded=recorded)
            group.members.append(Member.of(keeper, Loaded(lambda: keeper.encoder)))

    def _without(self, name: str, kind: Kind) -> str:
        what = f"{self.dataset}: no item has a {kind}, which {name} reads"
        if isinstance(self._source, MediaFolder):
            other = "; vit reads videos with vit.input=video" if name == "vit" else ""
            return f"{what}; no file of the folder has the suffix of one{other}"
        return f"{what}; prepare it with media={kind}"

    def _grouped(self, opened: Sequence[tuple[Kind, Member]]) -> list[Group]:
        groups: dict[tuple[str, str], Group] = {}
        for kind, member in opened:
            contents, items = self._items(kind)
            readable = {item_id: item for item_id, item in items.items() if item_id in contents.hashes}
            key = media_of(member.feature.spec)
            if key not in groups:
                texts, files = (readable, {}) if kind == "text" else ({}, readable)
                shards = cut(items, contents.hashes, self.config.task_size)
                groups[key] = Group(kind, [], contents, shards, files=files, texts=texts)
            groups[key].members.append(member)
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
