"""Metrics of a single target per user, all from its 0-based rank r.

    HR@k = mean [r < k]      NDCG@k = mean [r < k] / log2(r + 2)      MRR@k = mean [r < k] / (r + 1)

With one relevant item the ideal DCG is 1 and averages are over users. Recall is then the hit rate; ``recall@k`` is
understood as a name and is not printed a second time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.errors import ConfigError

_NAME = re.compile(r"(hr|recall|ndcg|mrr)@([1-9]\d*)")


def metrics_from_ranks(ranks: ArrayLike, ks: Sequence[int] = (5, 10, 20)) -> dict[str, float]:
    """Mean metrics over users.

    Example: ranks 0, 2 and 30 give ``hr@10`` = 2/3, ``ndcg@10`` = (1 + 1/log2(4)) / 3 = 0.5 and
    ``mrr@10`` = (1 + 1/3) / 3.

    Args:
        ranks: Integers ``[u]`` >= 0, one per user; 0 is the best.
        ks: Cut-offs >= 1.

    Returns:
        ``"hr@k"``, ``"ndcg@k"`` and ``"mrr@k"`` for every k, in the order of ``ks``.

    Raises:
        ValueError: For no ranks, negative or fractional ranks, or cut-offs below 1.
    """
    checked = _checked(ranks)
    return {f"{kind}@{k}": float(per_user(checked, f"{kind}@{k}").mean()) for k in ks for kind in ("hr", "ndcg", "mrr")}


def per_user(ranks: ArrayLike, name: str) -> NDArray[np.float64]:
    """One metric, such as ``"ndcg@10"``, of every user: float64 ``[u]``.

    Raises:
        ConfigError: For a name that is no metric.
        ValueError: For ranks that are none.
    """
    kind, k = parse_metric(name)
    checked = _checked(ranks)
    gains = {"ndcg": 1.0 / np.log2(checked + 2.0), "mrr": 1.0 / (checked + 1.0)}
    return np.where(checked < k, gains.get(kind, 1.0), 0.0)


def parse_metric(name: str) -> tuple[str, int]:
    """``"ndcg@10"`` -> ``("ndcg", 10)``.

    Raises:
        ConfigError: For anything else than hr, recall, ndcg or mrr at a positive cut-off.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ConfigError(f"metric: expected hr@K, recall@K, ndcg@K or mrr@K such as 'ndcg@10', got {name!r}")
    return match[1], int(match[2])


def impossible_values(metrics: Mapping[str, float], *, tolerance: float = 1e-9) -> list[str]:
    """What in a table of hit rates and NDCGs cannot be true of one target per user.

    A hit between the cut-offs j < k adds between 1/log2(k + 1) and 1/log2(j + 2) to the NDCG, so

        (HR@k - HR@j) / log2(k + 1) <= NDCG@k - NDCG@j <= (HR@k - HR@j) / log2(j + 2),

    and with j = 0 (both metrics 0): HR@k / log2(k + 1) <= NDCG@k <= HR@k. Names that are no metric are ignored.

    Args:
        metrics: Values by name, ``"hr@10"`` and so on.
        tolerance: Allowed excess; half a unit of the last printed digit, times three, for a rounded table.

    Returns:
        One sentence per violated bound; empty when the table is consistent.
    """
    cutoffs = sorted(k for kind, k in (parse_metric(name) for name in metrics if _NAME.fullmatch(name)) if kind == "hr")
    cutoffs = [k for k in cutoffs if f"ndcg@{k}" in metrics]
    faults: list[str] = []
    for j, k in pairwise([0, *cutoffs]):
        hits = metrics[f"hr@{k}"] - (metrics[f"hr@{j}"] if j else 0.0)
        gain = metrics[f"ndcg@{k}"] - (metrics[f"ndcg@{j}"] if j else 0.0)
        low, high = hits / np.log2(k + 1), hits / np.log2(j + 2)
        if not low - tolerance <= gain <= high + tolerance:
            faults.append(f"ndcg from {j} to {k} grows by {gain:.6f}, expected {low:.6f} to {high:.6f}")
    return faults


def _checked(ranks: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(ranks)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"ranks: expected at least one rank in one dimension, got shape {array.shape}")
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"ranks: expected whole numbers, got dtype {array.dtype}")
    if array.min() < 0:
        raise ValueError(f"ranks: expected 0 or more (0 is the best), got {array.min()}")
    return array.astype(np.int64)
