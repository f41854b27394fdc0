"""Full ranking: one pass over a split gives every user's rank, and all metrics follow from the ranks.

Every item is a candidate, padding is none. Ties count against the model: the rank is the number of items that score
higher plus the number of others that score the same, so a model that gives everything the same score hits nothing.
Two ranks are counted in the same pass: among all items, and among the items outside the user's whole history (a
target that occurs in its own history stays a candidate).

Shape legend: b batch, n items, e history length, u users.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.distributed import ALONE, Workers
from models.errors import RecordError, SequenceDataError
from models.evaluation.metrics import metrics_from_ranks
from models.evaluation.mode import eval_mode, model_device
from models.files import write_atomically
from models.interface import ProgressCallback, Recommender
from models.sequences.dataset import SPLITS, Examples, SequenceData
from models.sequences.seeding import Stream, stream_generator

log = logging.getLogger(__name__)

_COLUMNS = {"user": pl.Int32, "target": pl.Int32, "rank": pl.Int32, "rank_masked": pl.Int32, "tie_count": pl.Int32}


@dataclass(frozen=True)
class RankTable:
    """Ranks of one split.

    Attributes:
        split: ``"valid"`` or ``"test"``.
        user: int32 ``[u]``, internal user index.
        target: int32 ``[u]``.
        rank: int32 ``[u]``, 0-based, among all items.
        rank_masked: int32 ``[u]``, 0-based, among the items outside the history.
        tie_count: int32 ``[u]``, other items with the target's score; -1 where that score was NaN (the rank is then
            the worst possible one).
    """

    split: str
    user: NDArray[np.int32]
    target: NDArray[np.int32]
    rank: NDArray[np.int32]
    rank_masked: NDArray[np.int32]
    tie_count: NDArray[np.int32]

    def __len__(self) -> int:
        """Number of users."""
        return len(self.user)

    def __repr__(self) -> str:
        """Sizes, not values."""
        return f"RankTable({self.split}, {len(self)} users, {self.n_tied} with ties, {self.n_errors} NaN)"

    @property
    def n_tied(self) -> int:
        """Users whose target shares its score with another item."""
        return int((self.tie_count > 0).sum())

    @property
    def n_errors(self) -> int:
        """Users whose target's score was NaN."""
        return int((self.tie_count < 0).sum())

    def metrics(self, ks: Sequence[int] = (5, 10, 20), *, masked: bool = False) -> dict[str, float]:
        """Mean metrics; ``masked``: with the history taken out of the candidates."""
        return metrics_from_ranks(self.rank_masked if masked else self.rank, ks)

    def frame(self) -> pl.DataFrame:
        """Columns ``user, target, rank, rank_masked, tie_count`` (int32) and ``split``."""
        columns = {name: getattr(self, name) for name in _COLUMNS}
        return pl.DataFrame(columns, schema=_COLUMNS).with_columns(split=pl.lit(self.split))


def evaluate(
    model: Recommender,
    data: SequenceData,
    split: str,
    *,
    max_length: int,
    batch_size: int = 256,
    seed: int = 0,
    progress: ProgressCallback | None = None,
    workers: Workers = ALONE,
) -> RankTable:
    """Rank the target of every user of a split; the model comes back in the mode that it was in.

    Args:
        model: A recommender that is a ``torch.nn.Module``; it is used on the device that it is on.
        data: Interactions.
        split: ``"valid"`` or ``"test"``.
        max_length: Newest items of the history that the model reads.
        batch_size: Users scored at once; small batches stay in a CPU's cache.
        seed: Of the draws of models that sample. Every batch gets the same ones, so that with models that share a draw
            among the users of a call, ranks do not depend on ``batch_size``.
        progress: Called as ``progress("evaluate <split>", users done, users)``.
        workers: Processes that share the batches; each gets the whole table. All of them must call.

    Raises:
        SequenceDataError: When no user can be evaluated, or the model knows fewer items than the data.
    """
    check_catalogue(model, data)
    examples = data.evaluation_examples(split)
    return rank_examples(
        model,
        examples,
        split,
        max_length=max_length,
        batch_size=batch_size,
        seed=seed,
        progress=progress,
        workers=workers,
    )


def check_catalogue(model: Recommender, data: SequenceData) -> None:
    """Raise a :class:`SequenceDataError` when the model does not rank the items of the data."""
    if model.n_items != data.n_items:
        raise SequenceDataError(f"the model ranks {model.n_items} items, the data has {data.n_items}")


def rank_examples(
    model: Recommender,
    examples: Examples,
    split: str,
    *,
    max_length: int,
    batch_size: int,
    seed: int,
    progress: ProgressCallback | None = None,
    workers: Workers = ALONE,
) -> RankTable:
    """Rank the target of every example; arguments as for :func:`evaluate`."""
    module = as_module(model)
    device = model_device(module)
    examples, parts = examples.to(device), list[Tensor]()
    with eval_mode(module):
        indices = examples.shortest_first(batch_size)
        for number, index in list(enumerate(indices))[workers.rank :: workers.world]:
            batch, seen = examples.read(index, max_length=max_length)
            generator = stream_generator(seed, Stream.EVALUATION, SPLITS.index(split), device=device)  # one for all
            scores = model.score(batch, generator=generator)
            counts = count_ranks(scores, batch.target, seen)
            parts.append(torch.stack((index, batch.user, batch.target, *counts), dim=1))
            if progress is not None:
                progress(f"evaluate {split}", min((number + 1) * batch_size, len(examples)), len(examples))
    rows = workers.gather(torch.cat(parts) if parts else torch.zeros(0, 6, dtype=torch.int64, device=device))
    columns = rows[rows[:, 0].argsort()].T[1:].contiguous().cpu().numpy().astype(np.int32)  # in the order of the users
    table = RankTable(split, *columns)
    if table.n_errors:
        log.error("%s: the target's score was NaN for %d of %d users", split, table.n_errors, len(table))
    return table


def count_ranks(scores: Tensor, target: Tensor, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pessimistic ranks by counting; nothing is sorted.

    An item counts against the target unless its score is lower, so ties do, and so do scores that are NaN.

    Args:
        scores: float ``[b, n + 1]``; column 0 is ignored.
        target: int64 ``[b]``, 1..n.
        seen: int64 ``[b, e]``, the user's whole history, padded with 0.

    Returns:
        ``(rank, rank_masked, tie_count)``, each int64 ``[b]``, as in :class:`RankTable`.
    """
    target = target.unsqueeze(1)
    wanted = scores.gather(1, target)  # [b, 1]
    n_items = scores.shape[1] - 1
    padding = scores[:, :1]
    flags = torch.empty(scores.shape, device=scores.device)  # used twice: fresh memory costs more than the counting
    lower = _count(torch.lt(scores, wanted, out=flags)) - _count(padding < wanted)
    ties = _count(torch.eq(scores, wanted, out=flags)) - _count(padding == wanted) - 1
    rank = n_items - 1 - lower
    failed = wanted.squeeze(1).isnan()
    distinct = seen.sort(dim=1).values  # [b, e]
    repeated = torch.zeros_like(distinct, dtype=torch.bool)
    repeated[:, 1:] = distinct[:, 1:] == distinct[:, :-1]
    against = ~(scores.gather(1, distinct) < wanted) & ~repeated & (distinct != 0) & (distinct != target)
    return rank, rank - _count(against), ties.masked_fill(failed, -1)


def _count(flags: Tensor) -> Tensor:
    """int64 ``[b]``: True values per row.

    Ones are added in float32, which is the fastest and exact up to 2**24 of them; longer rows are added in blocks.
    """
    blocks = [block.sum(dim=1, dtype=torch.float32).long() for block in flags.split(2**24, dim=1)]
    return torch.stack(blocks).sum(dim=0)


def as_module(model: Recommender) -> nn.Module:
    """The recommender as a ``torch.nn.Module``.

    Raises:
        TypeError: When it is none.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a recommender that is a torch.nn.Module, got {type(model).__name__}")
    return model


def write_ranks(path: Path, tables: Sequence[RankTable]) -> None:
    """Write the ranks of one or more splits to one Parquet file, atomically."""
    frame = pl.concat([table.frame() for table in tables])
    write_atomically(path, frame.write_parquet)


def read_ranks(path: Path) -> dict[str, RankTable]:
    """The tables of a file by split.

    Raises:
        RecordError: When the file is absent or has other columns.
    """
    if not path.is_file():
        raise RecordError(f"{path}: no ranks here; they are written when a run is evaluated")
    frame = pl.read_parquet(path)
    missing = [name for name in (*_COLUMNS, "split") if name not in frame.columns]
    if missing:
        raise RecordError(f"{path}: expected the columns {', '.join(_COLUMNS)} and split; missing {missing}")
    return {
        str(key[0]): RankTable(str(key[0]), *(part[name].to_numpy() for name in _COLUMNS))
        for key, part in frame.partition_by("split", as_dict=True, maintain_order=True).items()
    }
