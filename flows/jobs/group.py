"""Features that read the same media: what they read, in which shards, and what is done of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from extractors.extract import Contents, Feature, Tally
from extractors.kept import KeptFrames
from extractors.spec import Encoder
from feature_store.plan import Plan
from flows.jobs.selection import Selection
from flows.jobs.shards import Shard, states

Kind = Literal["video", "image", "text"]

#: Folders of a store whose files say what is done.
_TELLING = ("shards", "quarantine", "manifests")


class Loaded:
    """An encoder that is loaded when it is first asked for, outlives new plans, and can be let go of."""

    def __init__(self, build: Callable[[], Encoder]) -> None:
        self._build = build
        self._encoder: Encoder | None = None

    def __call__(self) -> Encoder:
        """The encoder."""
        if self._encoder is None:
            self._encoder = self._build()
        return self._encoder

    def release(self) -> None:
        """Let go of the encoder; asking again loads it anew."""
        self._encoder = None


@dataclass
class Member:
    """One feature of a group.

    Attributes:
        feature: With the plan that is being worked on: what is selected of what the store lacks.
        found: All that the store lacked when it was asked last.
        before: The selected work when the extraction was opened.
        encoder: Its encoder.
        state: Names of the store's files when it was asked last.
    """

    feature: Feature
    found: Plan
    before: Plan
    encoder: Loaded
    state: frozenset[str] = frozenset()

    @classmethod
    def of(cls, feature: Feature, encoder: Loaded) -> Member:
        """A feature as it was opened."""
        member = cls(feature, feature.plan, feature.plan, encoder)
        member.replan(feature.plan)
        return member

    def replan(self, plan: Plan) -> None:
        """Work on another plan from here on; the encoder stays."""
        old = self.feature
        self.feature = Feature(
            old.spec, store=old.store, plan=plan, shard_size=old.shard_size, factory=lambda: self.encoder()
        )

    @property
    def planned(self) -> Feature:
        """The feature with the plan that the extraction was opened with, which is what a commit answers for."""
        now = self.feature
        return Feature(
            now.spec, store=now.store, plan=self.before, shard_size=now.shard_size, factory=lambda: self.encoder()
        )

    def done(self) -> tuple[int, int]:
        """Of the selected work, how many items have rows by now, and how many went to quarantine."""
        lacking, bad = set(self.found.todo), set(self.found.known_bad)
        failed = sum(item_id in bad for item_id in self.before.todo)
        left = sum(item_id in lacking for item_id in self.before.todo)
        return len(self.before.todo) - failed - left, failed


@dataclass
class Group:
    """Features that read the same media, what they read, and what became of it so far.

    Attributes:
        kind: What they read.
        members: The features.
        contents: Hashes of all items, and those that cannot be read.
        shards: Item ids by shard number.
        files: Item id and file, of videos and pictures that can be read.
        texts: Item id and text.
        frames: Frames that an earlier run kept.
        tallies: Figures of what this process did, by feature.
    """

    kind: Kind
    members: list[Member]
    contents: Contents
    shards: list[list[str]]
    files: dict[str, Path] = field(default_factory=dict[str, Path])
    texts: dict[str, str] = field(default_factory=dict[str, str])
    frames: KeptFrames | None = None
    tallies: dict[str, Tally] = field(default_factory=dict[str, Tally])

    @property
    def label(self) -> str:
        """Names of the features."""
        return "+".join(member.feature.name for member in self.members)

    @property
    def features(self) -> list[Feature]:
        """The features, each with what it still has to do."""
        return [member.feature for member in self.members]

    def narrow(self, selection: Selection) -> None:
        """Take from what each store lacks the part that is selected."""
        for member in self.members:
            store = member.feature.store
            member.replan(selection.narrow(member.found, store, shards=self.shards, files=self.files))

    def let_go(self) -> None:
        """Let go of the models."""
        for member in self.members:
            member.encoder.release()
            member.replan(member.feature.plan)

    def work(self, number: int) -> list[str]:
        """Items of a shard that this run still has to encode with any of the features."""
        item_ids = self.shards[number]
        todo = self._todo(item_ids)
        return [item_id for item_id in item_ids if item_id in todo]

    def open_shards(self) -> list[int]:
        """Numbers of the shards that this run still has work in."""
        todo: set[str] = set().union(*(member.feature.plan.todo for member in self.members))
        return [number for number, item_ids in enumerate(self.shards) if not todo.isdisjoint(item_ids)]

    def states(self) -> list[Shard]:
        """What the stores said of each shard when they were asked last."""
        missing: set[str] = set().union(*(member.found.todo for member in self.members))
        unreadable = {row.item_id for row in self.contents.unreadable}
        bad: set[str] = set().union(
            *(member.found.known_bad for member in self.members),
            *(unreadable.difference(member.found.source_gone) for member in self.members),
        )
        return list(states(self.label, self.shards, missing=missing, quarantined=bad))

    def _todo(self, item_ids: Sequence[str]) -> set[str]:
        groups = (member.feature.groups(item_ids) for member in self.members)
        return {item_id for found in groups for ids in found.values() for item_id in ids}


def store_state(store: Path) -> frozenset[str]:
    """Names of the files that say what is done; another set means that the store has to be asked again."""
    names: set[str] = set()
    for folder in _TELLING:
        with contextlib.suppress(FileNotFoundError):
            names.update(entry.name for entry in (store / folder).iterdir())
    return frozenset(names)
