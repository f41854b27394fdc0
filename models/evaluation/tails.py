"""Users with several targets: the first 80 % of a held-out user's rows are the history, the rest is to be found.

Or every row is, one after the other (:func:`rank_every_position`).

ComiRec's protocol (THUDM/ComiRec at a576eed), on which DimeRec builds: users 8:1:1, and of a test user the first 80 %
against the rest. DimeRec's own figures obey the bounds of a single target (``models.evaluation.ranking``), so this is
the other reading, and the one under which ComiRec's published figures can be met.

Shape legend: b batch, u users, t targets, k list length.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.errors import SequenceDataError
from models.evaluation.mode import eval_mode, model_device
from models.evaluation.ranking import RankTable, as_module, check_catalogue, rank_examples
from models.interface import Recommender
from models.sequences.dataset import SPLITS, Examples, SequenceData
from models.sequences.seeding import Stream, stream_generator

#: Part of a user's rows that is the history.
SHARE = 0.8


def tail_metrics(
    model: Recommender,
    data: SequenceData,
    split: str,
    *,
    max_length: int,
    ks: Sequence[int] = (20, 50),
    masked: bool = False,
    batch_size: int = 256,
    seed: int = 0,
) -> dict[str, float]:
    """Mean recall, hit rate and NDCG of the held-out users of a split.

    Of a user with n rows the first ``int(0.8 n)`` are the history, the items of the others the targets. With t
    different targets, of which h stand among the first k, recall is h / t, the hit rate 1 where h > 0, and NDCG the sum
    of 1 / log2(place + 1) over the hits divided by the same sum over the first min(k, t) places. ComiRec's code divides
    by that over the first h places instead; its authors advise to read its recall and hit rate only.

    Args:
        model: A recommender that is a ``torch.nn.Module``; it is used on the device that it is on.
        data: Interactions whose split holds whole users out, such as ``split = "user_811"``.
        split: ``"valid"`` or ``"test"``.
        max_length: Newest items of the history that the model reads.
        ks: Cut-offs.
        masked: Leave the history out of the lists. ComiRec's code does not.
        batch_size: Users at once.
        seed: Of the draws of models that sample.

    Returns:
        ``"recall@k"``, ``"hr@k"`` and ``"ndcg@k"`` for every k.

    Raises:
        SequenceDataError: When a cut-off is below 1, users of the split have rows in another one, or no user has a
            history and a target.
        RecommendationError: When a user has fewer candidates than the largest k.
    """
    if min(ks) < 1:
        raise SequenceDataError(f"ks: expected cut-offs of at least 1, got {sorted(ks)}")
    module = as_module(model)
    device = model_device(module)
    cut, last = _cut(data, split)
    examples, hits, targets = cut.to(device), list[Tensor](), list[Tensor]()
    with eval_mode(module):
        for index in torch.arange(len(examples)).split(batch_size):
            batch, seen = examples.read(index.to(device), max_length=max_length)
            generator = stream_generator(seed, Stream.EVALUATION, SPLITS.index(split), device=device)  # one for all
            exclude = seen if masked else None
            lists = model.recommend(batch, k=max(ks), exclude=exclude, generator=generator).items.cpu()
            wanted = _tails(data.items, cut.end[index].numpy(), last[index.numpy()])
            hits.append((lists.unsqueeze(2) == wanted.unsqueeze(1)).any(dim=2))  # [b, k, t] -> [b, k]
            targets.append((wanted > 0).sum(dim=1))
    return _metrics(torch.cat(hits).double().numpy(), torch.cat(targets).numpy(), ks)


def rank_every_position(
    model: Recommender, data: SequenceData, split: str, *, max_length: int, batch_size: int = 256, seed: int = 0
) -> RankTable:
    """Rank every row of the held-out users of a split that has an earlier one, each after all that precede it.

    A user has several rows in the table. Arguments as for :func:`tail_metrics`.

    Raises:
        SequenceDataError: When users of the split have rows in another one, no user has two rows, or the model knows
            fewer items than the data.
    """
    check_catalogue(model, data)
    _held_out(data, split)
    examples = data.evaluation_examples(split, every_position=True)
    return rank_examples(model, examples, split, max_length=max_length, batch_size=batch_size, seed=seed)


def _cut(data: SequenceData, split: str) -> tuple[Examples, NDArray[np.int64]]:
    """The histories of the users of a split, and int64 ``[u]``, the row after each one's last target."""
    held_out = _held_out(data, split)
    first, after = data.offsets[:-1], data.offsets[1:]
    end = first + (SHARE * (after - first)).astype(np.int64)
    usable = held_out & (end > first) & (end < after)
    if not usable.any():
        raise SequenceDataError(f"no user of split {split!r} has a history and a target")
    user, first, end = (torch.from_numpy(column[usable]) for column in (data.users, first, end))
    return Examples(torch.from_numpy(data.items), user, first, end), after[usable]


def _held_out(data: SequenceData, split: str) -> NDArray[np.bool_]:
    """Whether each user belongs to the split; all their rows must.

    Raises:
        SequenceDataError: When users have rows in the split and in another one.
    """
    if split not in SPLITS[1:]:
        raise SequenceDataError(f"split: expected 'valid' or 'test', got {split!r}")
    first, after = data.offsets[:-1], data.offsets[1:]
    rows = np.append(0, np.cumsum(data.labels == SPLITS.index(split)))[data.offsets]
    held_out = np.diff(rows)
    mixed = int(((held_out > 0) & (held_out < after - first)).sum())
    if mixed:
        raise SequenceDataError(
            f"{mixed} users have rows in split {split!r} and rows in another, so that targets would be rows of the "
            f"training; prepare the dataset with split=user_811, which holds whole users out"
        )
    return held_out > 0


def _tails(items: NDArray[np.int64], start: NDArray[np.int64], stop: NDArray[np.int64]) -> Tensor:
    """The different items of ``items[start:stop]``: int64 ``[b, t]``, 0 where unused."""
    rows = start[:, None] + np.arange(int((stop - start).max()))
    wanted = np.where(rows < stop[:, None], items[rows.clip(max=len(items) - 1)], 0)
    wanted.sort(axis=1)
    wanted[:, 1:][wanted[:, 1:] == wanted[:, :-1]] = 0
    return torch.from_numpy(wanted)


def _metrics(hits: NDArray[np.float64], targets: NDArray[np.int64], ks: Sequence[int]) -> dict[str, float]:
    gains = 1.0 / np.log2(np.arange(hits.shape[1]) + 2.0)
    ideal = np.cumsum(gains)
    figures: dict[str, float] = {}
    for k in ks:
        found = hits[:, :k]
        best = ideal[np.minimum(k, targets) - 1]
        figures[f"recall@{k}"] = float((found.sum(axis=1) / targets).mean())
        figures[f"hr@{k}"] = float(found.any(axis=1).mean())
        figures[f"ndcg@{k}"] = float(((found * gains[:k]).sum(axis=1) / best).mean())
    return figures
