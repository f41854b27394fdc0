"""One feature of one run, and the way of its rows into shards.

Every item ends as a row of a shard or as a row of the quarantine, with a reason. Equal content under several ids is
encoded once.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from extractors.batching import EncodedRow, encode_rows
from extractors.spec import Encoder, EncoderSpec, RowFault
from feature_store.plan import Plan
from feature_store.quarantine import QuarantineRow
from feature_store.shard import FeatureShard
from feature_store.store import FeatureStore


class Feature:
    """One feature of one run: what it is, where it goes, what is still to do, and its encoder once it is needed.

    Attributes:
        name: Encoder.
        spec: Identity.
        store: Where the rows go.
        plan: What is to do.
        shard_size: Items in one shard.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        *,
        store: FeatureStore,
        plan: Plan,
        shard_size: int,
        factory: Callable[[], Encoder],
    ) -> None:
        self.name = spec.name
        self.spec = spec
        self.store = store
        self.plan = plan
        self.shard_size = shard_size
        self._todo = frozenset(plan.todo)
        self._factory = factory
        self._encoder: Encoder | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Feature({self.name}, {self.plan!r})"

    @property
    def encoder(self) -> Encoder:
        """The encoder, loaded when it is first asked for: a run without work loads no model."""
        with self._lock:
            if self._encoder is None:
                self._encoder = self._factory()
            return self._encoder

    def groups(self, item_ids: Sequence[str]) -> dict[bytes, list[str]]:
        """Those of the ids that are to do, by content, in order."""
        groups: dict[bytes, list[str]] = {}
        for item_id in item_ids:
            if item_id in self._todo:
                groups.setdefault(self.plan.items[item_id], []).append(item_id)
        return groups


ValueT = TypeVar("ValueT")


@dataclass
class Tally:
    """What became of some items of one feature.

    Attributes:
        encoded: Rows written.
        failed: Items put in quarantine.
        seconds: Time by stage: ``load`` (the model), ``read`` (files, waited for), ``encode``, ``write``.
        counts: Figures of the encoder, such as ``tokens``.
    """

    encoded: int = 0
    failed: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict[str, float](float))
    counts: Counter[str] = field(default_factory=Counter[str])

    @contextmanager
    def timed(self, stage: str) -> Generator[None]:
        """Add the time of a block to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started

    def waited(self, stage: str, values: Iterable[ValueT]) -> Iterator[ValueT]:
        """Add the time that each next value takes to a stage."""
        started = time.perf_counter()
        for value in values:
            self.seconds[stage] += time.perf_counter() - started
            yield value
            started = time.perf_counter()

    def add(self, other: Tally) -> None:
        """Add up, for work that was split into several tasks."""
        self.encoded += other.encoded
        self.failed += other.failed
        self.counts.update(other.counts)
        for stage, seconds in other.seconds.items():
            self.seconds[stage] += seconds


@dataclass
class _Part:
    """The contents of one shard, which is written when none of them is open any more."""

    groups: dict[bytes, list[str]]
    open: int
    rows: dict[bytes, tuple[EncodedRow, int]] = field(default_factory=dict[bytes, tuple[EncodedRow, int]])
    faults: list[QuarantineRow] = field(default_factory=list[QuarantineRow])


class Lane:
    """The rows of one feature on their way into shards.

    Shards are cut in the order of the items, whatever order the rows arrive in: the same work gives the same bytes.

    Attributes:
        feature: Whose rows.
        tally: What became of them so far.
    """

    def __init__(self, feature: Feature, item_ids: Sequence[str]) -> None:
        self.feature = feature
        self.tally = Tally()
        self._part_of: dict[bytes, _Part] = {}
        for part in _cut(feature.groups(item_ids), feature.shard_size):
            self._part_of.update(dict.fromkeys(part.groups, part))
        self._pending: list[tuple[bytes, Any, int]] = []
        self._batch_size = 0

    @property
    def contents(self) -> Sequence[bytes]:
        """What has to be read, in order."""
        return list(self._part_of)

    @property
    def pending(self) -> int:
        """Rows that were read and wait for their batch to be full."""
        return len(self._pending)

    def representative(self, content: bytes) -> str:
        """The first id that has this content."""
        return self._part_of[content].groups[content][0]

    def load(self) -> Any:
        """Load the encoder; of a visual one ``transform`` says what it wants to see, a text one has ``announce``."""
        with self.tally.timed("load"):
            encoder = self.feature.encoder
        self._batch_size = encoder.batch_size
        return encoder

    def add(self, content: bytes, row: Any, n_distinct: int = 0) -> None:
        """Queue one row that was read; a full batch is encoded."""
        self._pending.append((content, row, n_distinct))
        if len(self._pending) >= self._batch_size:
            self.flush()

    def fail(self, content: bytes, *, stage: str, fault: RowFault) -> None:
        """Note that there will be no row for a content."""
        part = self._part_of[content]
        first, *others = part.groups[content]
        part.faults.append(QuarantineRow(first, stage, fault.reason, fault.detail, content))
        for item_id in others:
            detail = f"equal to item {first}: {fault.detail}"
            part.faults.append(QuarantineRow(item_id, stage, fault.reason, detail, content))
        self._close(part)

    def flush(self) -> None:
        """Encode what is queued."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        with self.tally.timed("encode"):
            rows = [row for _, row, _ in pending]
            encoded = encode_rows(self.feature.encoder, rows, batch_size=self._batch_size)
        self._batch_size = encoded.batch_size
        self.tally.counts.update(encoded.counts)
        for (content, _, n_distinct), outcome in zip(pending, encoded.outcomes, strict=True):
            if isinstance(outcome, RowFault):
                self.fail(content, stage="encode", fault=outcome)
            else:
                self._part_of[content].rows[content] = (outcome, n_distinct)
                self._close(self._part_of[content])

    def _close(self, part: _Part) -> None:
        part.open -= 1
        if part.open:
            return
        with self.tally.timed("write"):
            shard = _shard(part)
            if shard is not None:
                self.feature.store.write_shard(shard, self.feature.plan)
                self.tally.encoded += len(shard)
            self.feature.store.quarantine(part.faults, self.feature.plan)
        self.tally.failed += len(part.faults)
        part.rows.clear()


def _cut(groups: dict[bytes, list[str]], shard_size: int) -> list[_Part]:
    """Cut contents into shards; the ids of one content stay together."""
    parts: list[_Part] = []
    rows = shard_size
    for content, ids in groups.items():
        if rows >= shard_size:
            parts.append(_Part({}, 0))
            rows = 0
        parts[-1].groups[content] = ids
        parts[-1].open += 1
        rows += len(ids)
    return parts


def _shard(part: _Part) -> FeatureShard | None:
    """The finished rows in the order of the items; None where every item failed."""
    rows = [(item_id, content) for content, ids in part.groups.items() if content in part.rows for item_id in ids]
    if not rows:
        return None
    encoded = [part.rows[content] for _, content in rows]
    frames = [row.frames for row, _ in encoded if row.frames is not None]
    pixels = [row.pixels for row, _ in encoded if row.pixels is not None]
    return FeatureShard(
        item_ids=[item_id for item_id, _ in rows],
        content_sha256=[content for _, content in rows],
        embedding=np.stack([row.embedding for row, _ in encoded]),
        frames=np.stack(frames) if frames else None,
        n_distinct=np.array([distinct for _, distinct in encoded], dtype=np.uint8) if frames else None,
        pixels=np.stack(pixels) if pixels else None,
    )
