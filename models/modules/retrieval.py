"""Scores of all items, and the best of them.

Shape legend: b batch, n items, d width, k list length, e excluded ids.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.errors import RecommendationError
from models.interface import TopK


def score_all(h: Tensor, table: Tensor) -> Tensor:
    """Inner products with every item.

    Args:
        h: float ``[b, d]``.
        table: float ``[n + 1, d]``.

    Returns:
        float32 ``[b, n + 1]``; column 0, padding, is ``-inf``.
    """
    scores = (h @ table.T).float()
    scores[:, 0] = float("-inf")
    return scores


def top_k(scores: Tensor, k: int, exclude: Tensor | None = None) -> TopK:
    """The ``k`` best items of every row; of equal scores the smaller id comes first.

    Args:
        scores: float ``[b, n + 1]``; an item with the score ``-inf`` is no candidate.
        k: List length, at least 1.
        exclude: int64 ``[b, e]``, ids never to return, 0 where unused; None: nothing.

    Returns:
        Items and scores ``[b, k]``, best first.

    Raises:
        RecommendationError: When a score is NaN, or a row has fewer than ``k`` candidates.
    """
    if bool(scores.isnan().any()):
        raise RecommendationError("the model gave NaN scores; its weights are unusable: train it again")
    never = torch.zeros_like(scores[:, :1], dtype=torch.int64)  # [b, 1], padding
    never = never if exclude is None else torch.cat((never, exclude), dim=1)
    scores = scores.float().scatter(1, never, float("-inf"))
    candidates = int((scores > float("-inf")).sum(dim=1).min()) if len(scores) else k
    if not 1 <= k <= candidates:
        raise RecommendationError(f"k: expected 1 to {candidates} (candidates left after exclusion), got {k}")
    worst = scores.topk(k, dim=1).values[:, -1:]  # [b, 1], the k-th best score
    better, equal = scores > worst, scores == worst
    wanted = k - better.sum(dim=1, keepdim=True)
    chosen = better | (equal & (equal.cumsum(dim=1) <= wanted))  # exactly k per row, the smallest ids among equals
    items = chosen.nonzero()[:, 1].view(len(scores), k)  # ascending ids
    order = scores.gather(1, items).argsort(dim=1, descending=True, stable=True)
    items = items.gather(1, order)
    return TopK(items=items, scores=scores.gather(1, items))
