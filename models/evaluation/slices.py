"""Metrics of parts of the users, from saved ranks and the dataset; no model is needed.

Shape legend: u users.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.errors import SequenceDataError
from models.evaluation.metrics import metrics_from_ranks
from models.evaluation.ranking import RankTable
from models.sequences.dataset import SequenceData


@dataclass(frozen=True)
class Slice:
    """The users whose value lies in ``low <= value < high``.

    Attributes:
        low: First value of the slice.
        high: First value above it; None: no end.
        n_users: Their number.
        unmasked: Metrics with the history among the candidates; empty for no users.
        masked: Metrics without it.
    """

    low: int
    high: int | None
    n_users: int
    unmasked: dict[str, float]
    masked: dict[str, float]

    @property
    def label(self) -> str:
        """``0``, ``1-4`` or ``20+``."""
        if self.high is None:
            return f"{self.low}+"
        return str(self.low) if self.high == self.low + 1 else f"{self.low}-{self.high - 1}"


def by_target_count(
    ranks: RankTable, data: SequenceData, *, edges: Sequence[int] = (0, 1, 5, 20), ks: Sequence[int] = (5, 10, 20)
) -> list[Slice]:
    """Users by how often their target occurs in the training rows; the first slice by default: never (cold items).

    Args:
        ranks: Ranks of a split, such as one of ``ranks.parquet``.
        data: The interactions that they come from.
        edges: Rising lower ends of the slices; values below the first one are in no slice.
        ks: Cut-offs.

    Raises:
        SequenceDataError: When the ranks belong to other data.
    """
    _check(ranks, data)
    return _slices(ranks, data.item_counts().numpy()[ranks.target], edges, ks)


def by_history_length(
    ranks: RankTable, data: SequenceData, *, edges: Sequence[int] = (1, 5, 10, 20, 50), ks: Sequence[int] = (5, 10, 20)
) -> list[Slice]:
    """Users by the number of interactions before their target; arguments and errors as :func:`by_target_count`."""
    _check(ranks, data)
    examples = data.evaluation_examples(ranks.split)
    return _slices(ranks, (examples.end - examples.start).numpy(), edges, ks)


def _check(ranks: RankTable, data: SequenceData) -> None:
    examples = data.evaluation_examples(ranks.split)
    target = examples.items[examples.end].numpy()
    if not (np.array_equal(ranks.user, examples.user.numpy()) and np.array_equal(ranks.target, target)):
        raise SequenceDataError(
            f"the {len(ranks)} ranks of split {ranks.split!r} are not of this data, which has {len(examples)} users on "
            f"it; open the version of the dataset that the run's record names"
        )


def _slices(ranks: RankTable, values: NDArray[np.int64], edges: Sequence[int], ks: Sequence[int]) -> list[Slice]:
    slices: list[Slice] = []
    for low, high in zip(edges, [*edges[1:], None], strict=True):
        chosen = (values >= low) & (values < (np.inf if high is None else high))
        figures = [
            metrics_from_ranks(column[chosen], ks) if chosen.any() else {} for column in (ranks.rank, ranks.rank_masked)
        ]
        slices.append(Slice(low, high, int(chosen.sum()), *figures))
    return slices
