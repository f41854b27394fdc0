"""What the recommended lists of all users look like: how much of the catalogue, how popular, how varied.

These figures need the lists themselves; ranks of the targets do not hold them.

Shape legend: u users, k list length, n items.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from models.evaluation.mode import eval_mode, model_device
from models.evaluation.ranking import as_module
from models.interface import Recommender, TopK
from models.sequences.batch import SequenceBatch
from models.sequences.dataset import SPLITS, SequenceData
from models.sequences.seeding import Stream, stream_generator

#: The stream of draws of the lists of what comes next; those of the splits come before it.
_NEXT = len(SPLITS)


@dataclass(frozen=True)
class ListTable:
    """The recommended items of many users.

    Attributes:
        split: ``"valid"`` or ``"test"``: what each user had before the split's target is the history; ``"next"``: all
            that is known of a user is.
        user: int32 ``[u]``, internal user index.
        items: int32 ``[u, k]``, best first.
        n_items: Size of the catalogue.
    """

    split: str
    user: NDArray[np.int32]
    items: NDArray[np.int32]
    n_items: int

    def __repr__(self) -> str:
        """Sizes, not values."""
        return f"ListTable({self.split}, {len(self.user)} users, {self.items.shape[1]} of {self.n_items} items)"

    def frame(self) -> pl.DataFrame:
        """Columns ``user`` int32, ``items`` fixed list of int32, ``split``."""
        return pl.DataFrame({"user": self.user, "items": self.items}).with_columns(split=pl.lit(self.split))


def recommended_lists(
    model: Recommender,
    data: SequenceData,
    split: str,
    *,
    k: int,
    max_length: int,
    masked: bool = True,
    batch_size: int = 256,
    seed: int = 0,
) -> ListTable:
    """The ``k`` best items of every user that :func:`models.evaluation.ranking.evaluate` ranks, from the same draws.

    Args:
        model: A recommender that is a ``torch.nn.Module``; it is used on the device that it is on.
        data: Interactions.
        split: ``"valid"`` or ``"test"``.
        k: List length.
        max_length: Newest items of the history that the model reads.
        masked: Leave the user's whole history out of the list.
        batch_size: Users at once.
        seed: Of the draws of models that sample.

    Raises:
        SequenceDataError: When no user can be evaluated.
        RecommendationError: When a user has fewer than ``k`` candidates, or the scores are NaN.
    """
    device = model_device(as_module(model))
    examples = data.evaluation_examples(split).to(device)
    indices = examples.shortest_first(batch_size)
    batches = (examples.read(index, max_length=max_length) for index in indices)
    found = _best(model, batches, k=k, masked=masked, seed=seed, stream=SPLITS.index(split))
    items = _items(found)[torch.cat(indices).argsort().cpu().numpy()]  # in the order of the users
    return ListTable(split, examples.user.cpu().numpy().astype(np.int32), items, data.n_items)


def next_lists(
    model: Recommender, data: SequenceData, *, k: int, max_length: int, batch_size: int = 256, seed: int = 0
) -> ListTable:
    """The ``k`` best items for every user after all that is known of them, which is left out of the list.

    Arguments and errors as for :func:`recommended_lists`.
    """
    starts = range(0, data.n_users, batch_size)
    batches = (_after_all(model, data, data.users[start : start + batch_size], max_length) for start in starts)
    items = _items(_best(model, batches, k=k, masked=True, seed=seed, stream=_NEXT))
    return ListTable("next", data.users.astype(np.int32), items, data.n_items)


def next_best(
    model: Recommender, data: SequenceData, users: ArrayLike, *, k: int, max_length: int, seed: int = 0
) -> TopK:
    """The lists that :func:`next_lists` has for these users, with their scores.

    Raises:
        RecommendationError: When a user has fewer than ``k`` candidates, or the scores are NaN.
    """
    batch = _after_all(model, data, users, max_length)
    return _best(model, [batch], k=k, masked=True, seed=seed, stream=_NEXT)[0]


def _after_all(
    model: Recommender, data: SequenceData, users: ArrayLike, max_length: int
) -> tuple[SequenceBatch, Tensor]:
    """Whole histories of users, and what they have seen, on the model's device."""
    device = model_device(as_module(model))
    batch, seen = data.serving_batch(users, max_length=max_length)
    return batch.to(device), seen.to(device)


def _best(
    model: Recommender, batches: Iterable[tuple[SequenceBatch, Tensor]], *, k: int, masked: bool, seed: int, stream: int
) -> list[TopK]:
    """The lists for batches of histories, each with what its users have seen; one draw serves all batches."""
    module = as_module(model)
    device = model_device(module)
    with eval_mode(module):
        return [
            model.recommend(
                batch,
                k=k,
                exclude=seen if masked else None,
                generator=stream_generator(seed, Stream.EVALUATION, stream, device=device),
            )
            for batch, seen in batches
        ]


def _items(found: Iterable[TopK]) -> NDArray[np.int32]:
    """int32 ``[u, k]``."""
    return np.concatenate([best.items.cpu().numpy().astype(np.int32) for best in found])


def list_metrics(
    lists: ListTable, counts: NDArray[np.int64], *, categories: NDArray[np.int64] | None = None
) -> dict[str, float]:
    """Figures of the lists, all at their length k.

    ``coverage``: share of the catalogue that is in any list. ``popularity``: mean number of training interactions of
    the recommended items, the average recommendation popularity (ARP) of Yin et al., VLDB 2012. ``log_popularity``:
    mean of log(1 + that number). ``popularity_rank``: mean place of the recommended items in the order of popularity,
    from 0 for the most popular to 1 for the least; equally popular items share the mean of their places.
    ``categories``: mean number of different categories in a list; items without one count for nothing.

    Example: the one list (2, 3) of 4 items with counts 5, 3, 1, 0 covers 2/4 and has popularity (3 + 1) / 2 = 2 and
    popularity rank (1/3 + 2/3) / 2 = 0.5.

    Args:
        lists: The lists.
        counts: int64 ``[n + 1]``, occurrences of each item in training (``SequenceData.item_counts``).
        categories: int64 ``[n + 1]``, category of each item from 1, 0 where it has none; None leaves the figure out.

    Returns:
        ``"coverage@k"``, ``"popularity@k"``, ``"log_popularity@k"``, ``"popularity_rank@k"`` and ``"categories@k"``.

    Raises:
        ValueError: When a table has not one row per item.
    """
    for name, table in (("counts", counts), ("categories", categories)):
        if table is not None and len(table) != lists.n_items + 1:
            raise ValueError(f"{name}: expected {lists.n_items + 1} rows (padding and items), got {len(table)}")
    k = lists.items.shape[1]
    popular = counts[lists.items]
    figures = {
        "coverage": len(np.unique(lists.items)) / lists.n_items,
        "popularity": float(popular.mean()),
        "log_popularity": float(np.log1p(popular).mean()),
        "popularity_rank": float(_places(counts[1:])[lists.items - 1].mean()),
    }
    if categories is not None:
        figures["categories"] = float(_distinct(categories[lists.items]).mean())
    return {f"{name}@{k}": value for name, value in figures.items()}


def _places(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Place of each item in the order of falling counts, as a share of the last place; ties share their mean."""
    _, group, size = np.unique(-counts, return_inverse=True, return_counts=True)
    mean_place = np.cumsum(size) - (size + 1) / 2
    return mean_place[group] / max(1, len(counts) - 1)


def _distinct(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of different values above 0 in each row."""
    ordered = np.sort(rows, axis=1)
    first = np.ones_like(ordered, dtype=bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return (first & (ordered > 0)).sum(axis=1)
