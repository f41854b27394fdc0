"""Interaction histories as one flat array, and the training and evaluation examples that point into it.

No prefix is ever stored: an example is a pair of row numbers, and a batch is one gather on the device.

Shape legend: b batch, l sequence length, m examples, r rows (interactions), n items.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from models.errors import SequenceDataError
from models.sequences.batch import SequenceBatch
from models.sequences.seeding import Stream, stream_generator

if TYPE_CHECKING:
    from datasets_spec.prepare import PreparedDataset

#: Split labels; a row stores the index.
SPLITS = ("train", "valid", "test")

Positions = Literal["all", "last"]

#: Batches among which histories are sorted by length, where they are; enough for batches of one length, few enough
#: for an order that stays random.
_POOL = 50


@dataclass(frozen=True)
class Examples:
    """Histories ``items[start:end]`` with the target ``items[end]``.

    Attributes:
        items: int64 ``[r]``, the flat array that the row numbers point into.
        user: int64 ``[m]``.
        start: int64 ``[m]``, first row of the history.
        end: int64 ``[m]``, row of the target.
        positions: ``"all"``: each position of the history predicts the next one; ``"last"``: only the last does.
    """

    items: Tensor
    user: Tensor
    start: Tensor
    end: Tensor
    positions: Positions = "last"

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.user)

    def __repr__(self) -> str:
        """Sizes, not values."""
        return f"Examples({len(self)} examples over {len(self.items)} rows, positions={self.positions!r})"

    @property
    def n_predictions(self) -> int:
        """Number of targets over all examples."""
        return int((self.end - self.start).sum()) if self.positions == "all" else len(self)

    def to(self, device: torch.device | str) -> Examples:
        """The same examples on ``device``."""
        tensors = (tensor.to(device) for tensor in (self.items, self.user, self.start, self.end))
        return Examples(*tensors, positions=self.positions)

    def batch(self, index: Tensor, *, max_length: int) -> SequenceBatch:
        """The examples ``index`` (int64 ``[b]``) as a batch of width ``max_length``; the newest items are kept."""
        end = self.end[index]
        start = torch.maximum(self.start[index], end - max_length)
        rows = start.unsqueeze(1) + torch.arange(max_length, device=end.device)  # [b, l]
        mask = rows < end.unsqueeze(1)
        rows = rows.clamp(max=len(self.items) - 2)
        targets = self.items[rows + 1] * mask if self.positions == "all" else None
        return SequenceBatch(
            item_ids=self.items[rows] * mask,
            mask=mask,
            target=self.items[end],
            user=self.user[index],
            targets=targets,
        )

    def shortest_first(self, batch_size: int) -> tuple[Tensor, ...]:
        """All examples by length of their history, int64 indices in batches; nothing is dropped."""
        return (self.end - self.start).argsort(stable=True).split(batch_size)

    def read(self, index: Tensor, *, max_length: int) -> tuple[SequenceBatch, Tensor]:
        """The examples ``index`` as a batch that is no wider than they need, and their whole histories.

        Returns:
            The batch, of width ``max_length`` or less, and int64 ``[b, e]``, padded with 0.
        """
        longest = self.width(index)
        whole = self.batch(index, max_length=longest)
        return (whole if longest <= max_length else self.batch(index, max_length=max_length)), whole.item_ids

    def width(self, index: Tensor) -> int:
        """Length of the longest history among the examples ``index``."""
        return int((self.end[index] - self.start[index]).max())

    def shuffled(
        self, batch_size: int, *, max_length: int, seed: int, epoch: int, first: int = 0, by_length: bool = False
    ) -> Iterator[SequenceBatch]:
        """All examples in the order of (seed, epoch), from batch ``first`` on; nothing is dropped.

        Args:
            batch_size: Examples per batch.
            max_length: Newest items of a history that are kept.
            seed: Of the run.
            epoch: From 1.
            first: Batches to leave out at the beginning.
            by_length: Put histories of about the same length together and make each batch as wide as its longest one.
                Within every ``50 * batch_size`` examples of the shuffled order the longest come first; then the
                batches are shuffled.
        """
        generator = stream_generator(seed, Stream.ORDER, epoch)
        order = torch.randperm(len(self), generator=generator)
        batches = list(order.split(batch_size))
        if by_length:
            pools = (self._longest_first(pool) for pool in order.split(_POOL * batch_size))
            batches = [batch for pool in pools for batch in pool.split(batch_size)]
            batches = [batches[place] for place in torch.randperm(len(batches), generator=generator)]
        for index in batches[first:]:
            index = index.to(self.user.device)
            yield self.batch(index, max_length=min(max_length, self.width(index)) if by_length else max_length)

    def _longest_first(self, index: Tensor) -> Tensor:
        lengths = (self.end - self.start).cpu()[index]
        return index[lengths.argsort(descending=True, stable=True)]


@dataclass(frozen=True)
class SequenceData:
    """The interactions of all users, sorted by user and position.

    A split is read the same way whatever made it: training sequences are a user's rows labelled ``train``; a user is
    evaluated on a split when rows carry its label, with the last such row as the target and all earlier rows, whatever
    their label, as the history. That is leave-one-out, and equally whole users held out.

    Attributes:
        items: int64 ``[r]``, 1..n.
        labels: uint8 ``[r]``, index into :data:`SPLITS`.
        offsets: int64 ``[u + 1]``: user number i owns rows ``offsets[i]`` up to ``offsets[i + 1]``.
        users: int64 ``[u]``, the internal user index of each, ascending.
        n_items: Number of items; ids run from 1 to ``n_items``.
    """

    items: NDArray[np.int64]
    labels: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    users: NDArray[np.int64]
    n_items: int

    @classmethod
    def from_prepared(cls, prepared: PreparedDataset) -> SequenceData:
        """Read a prepared dataset."""
        return cls.from_frame(prepared.interactions, n_items=prepared.n_items)

    @classmethod
    def from_frame(cls, interactions: pl.DataFrame, *, n_items: int | None = None) -> SequenceData:
        """Read the columns ``user``, ``item``, ``position`` and ``split`` of an interactions table."""
        missing = [name for name in ("user", "item", "position", "split") if name not in interactions.columns]
        if missing:
            raise SequenceDataError(f"interactions: missing columns {missing}; found {interactions.columns}")
        user, item, position, split = (interactions[name] for name in ("user", "item", "position", "split"))
        return cls.from_arrays(user.to_numpy(), item.to_numpy(), position.to_numpy(), split.to_list(), n_items=n_items)

    @classmethod
    def from_arrays(
        cls, user: ArrayLike, item: ArrayLike, position: ArrayLike, split: ArrayLike, *, n_items: int | None = None
    ) -> SequenceData:
        """Sort and check plain columns of equal length, in any row order.

        Args:
            user: Integers.
            item: Integers from 1.
            position: Integers, the order within a user.
            split: ``"train"``, ``"valid"`` or ``"test"``.
            n_items: Number of items; None: the largest id.

        Raises:
            SequenceDataError: For no rows, columns of different lengths, unknown labels, item ids outside
                1..n_items, or two rows of one user at the same position.
        """
        users, items, positions = (np.asarray(column, dtype=np.int64) for column in (user, item, position))
        labels = _labels(split)
        lengths = {len(users), len(items), len(positions), len(labels)}
        if lengths == {0} or len(lengths) != 1:
            raise SequenceDataError(f"interactions: expected columns of one length >= 1, got lengths {sorted(lengths)}")
        n_items = int(items.max()) if n_items is None else n_items
        if items.min() < 1 or items.max() > n_items:
            raise SequenceDataError(f"item: expected ids 1 to {n_items}, got {items.min()} to {items.max()}")
        order = np.lexsort((positions, users))
        users, items, positions, labels = users[order], items[order], positions[order], labels[order]
        repeated = (users[1:] == users[:-1]) & (positions[1:] == positions[:-1])
        if repeated.any():
            row = int(repeated.argmax())
            raise SequenceDataError(f"position: user {users[row]} has two rows at position {positions[row]}")
        unique, first = np.unique(users, return_index=True)
        offsets = np.append(first, len(users)).astype(np.int64)
        return cls(items=items, labels=labels, offsets=offsets, users=unique, n_items=n_items)

    def __repr__(self) -> str:
        """Sizes, not values."""
        return f"SequenceData({self.n_users} users, {self.n_items} items, {len(self.items)} interactions)"

    @property
    def n_users(self) -> int:
        """Number of users."""
        return len(self.users)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over everything that training and evaluation read."""
        digest = hashlib.sha256(str(self.n_items).encode())
        for array in (self.items, self.labels, self.offsets, self.users):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def item_counts(self) -> Tensor:
        """int64 ``[n + 1]``: how often each item occurs in the training rows; 0 for padding."""
        return torch.from_numpy(np.bincount(self.items[self.labels == 0], minlength=self.n_items + 1))

    def training_histories(self) -> tuple[Tensor, Tensor]:
        """The training rows of all users, oldest first, and where each user's begin.

        Returns:
            int64 ``[r]``, and int64 ``[u + 1]`` offsets: user number i owns ``items[offsets[i] : offsets[i + 1]]``.
        """
        kept = self.labels == 0
        offsets = np.append(0, np.cumsum(kept))[self.offsets]
        return torch.from_numpy(self.items[kept]), torch.from_numpy(offsets)

    def training_examples(self, positions: Positions, *, max_length: int) -> Examples:
        """What the model learns from: every item of a training sequence but its first is a target once per epoch.

        Args:
            positions: ``"last"``: one example per target, its history is all that precedes it. ``"all"``: one example
                per sequence; sequences with more than ``max_length`` targets are cut from the end into windows, and
                an item sees only what precedes it in its window.
            max_length: Longest history.

        Raises:
            SequenceDataError: When no user has two training rows.
        """
        kept = self.labels == 0
        ends = np.append(0, np.cumsum(kept))[self.offsets]  # offsets into the kept rows
        first, last = ends[:-1], ends[1:] - 1
        inputs = np.maximum(last - first, 0)  # targets of each user
        per_user = inputs if positions == "last" else -(-inputs // max_length)
        owner = np.repeat(np.arange(self.n_users), per_user)
        if not len(owner):
            raise SequenceDataError("no user has two rows labelled 'train': there is nothing to learn from")
        nth = np.arange(len(owner)) - np.repeat(np.cumsum(per_user) - per_user, per_user)  # 0, 1, … within a user
        step = 1 if positions == "last" else max_length
        end = last[owner] - nth * step
        start = first[owner] if positions == "last" else np.maximum(first[owner], end - max_length)
        return _examples(self.items[kept], self.users[owner], start, end, positions)

    def evaluation_examples(self, split: str, *, every_position: bool = False) -> Examples:
        """One example per user of ``"valid"`` or ``"test"`` that has a history; see :meth:`without_history`.

        Args:
            split: The split.
            every_position: One example for each row of the split that has an earlier one, not only for the last.

        Raises:
            SequenceDataError: For another split, or when no user can be evaluated.
        """
        owner, start, end = self._targets(split, every_position=every_position)
        usable = end > start
        if not usable.any():
            raise SequenceDataError(f"no user has a row labelled {split!r} with an earlier row as its history")
        owner, start, end = owner[usable], start[usable], end[usable]
        return _examples(self.items, self.users[owner], start, end, "last")

    def has_split(self, split: str) -> bool:
        """Whether any user can be evaluated on the split."""
        _, start, end = self._targets(split)
        return bool((end > start).any())

    def without_history(self, split: str) -> int:
        """Number of users whose target on the split is their very first row: they cannot be evaluated."""
        _, start, end = self._targets(split)
        return int((end == start).sum())

    def serving_batch(self, users: ArrayLike, *, max_length: int) -> tuple[SequenceBatch, Tensor]:
        """Whole histories, to recommend what comes next.

        Args:
            users: Internal user indices ``[b]``.
            max_length: Longest history that the model reads.

        Returns:
            A batch with unknown targets (0), and int64 ``[b, e]``, everything each user has seen, padded with 0.

        Raises:
            SequenceDataError: For a user without interactions.
        """
        wanted = np.atleast_1d(np.asarray(users, dtype=np.int64))
        owner = np.searchsorted(self.users, wanted).clip(max=self.n_users - 1)
        unknown = wanted[self.users[owner] != wanted]
        if len(unknown):
            raise SequenceDataError(f"no interactions of user {unknown[0]}; users run from 0 to {self.users[-1]}")
        items = np.append(self.items, [0, 0])  # the row after the last one: an unknown target
        examples = _examples(items, wanted, self.offsets[owner], self.offsets[owner + 1], "last")
        index = torch.arange(len(wanted))
        longest = int((examples.end - examples.start).max())
        batch = examples.batch(index, max_length=max_length)
        batch = SequenceBatch(batch.item_ids, batch.mask, torch.zeros_like(batch.target), batch.user)
        return batch, examples.batch(index, max_length=longest).item_ids

    def _targets(
        self, split: str, *, every_position: bool = False
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """(number of the user, its first row, row of its target) for each user with rows labelled ``split``."""
        if split not in SPLITS[1:]:
            raise SequenceDataError(f"split: expected 'valid' or 'test', got {split!r}")
        rows = np.flatnonzero(self.labels == SPLITS.index(split))
        owner = np.searchsorted(self.offsets, rows, side="right") - 1
        is_last = np.append(owner[1:] != owner[:-1], True)[: len(owner)] | every_position
        owner, rows = owner[is_last], rows[is_last]
        return owner, self.offsets[owner], rows


def _labels(split: ArrayLike) -> NDArray[np.uint8]:
    names = np.asarray(split, dtype=np.str_)
    labels = np.full(len(names), len(SPLITS), dtype=np.uint8)
    for number, name in enumerate(SPLITS):
        labels[names == name] = number
    unknown = labels == len(SPLITS)
    if unknown.any():
        raise SequenceDataError(f"split: expected one of {', '.join(SPLITS)}, got {str(names[unknown.argmax()])!r}")
    return labels


def _examples(
    items: NDArray[np.int64],
    user: NDArray[np.int64],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    positions: Positions,
) -> Examples:
    return Examples(*(torch.from_numpy(array.copy()) for array in (items, user, start, end)), positions=positions)
