"""What trained item vectors know of their items: linear probing (DimeRec, WSDM 2025, Table 2 and Fig. 3).

The vectors stay as they are; a linear layer learns to tell an item's category from its vector.

Shape legend: n items, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

#: Steps of the solver; vectors of width 64 to 768 need some hundreds.
MAX_ITERATIONS = 2000


@dataclass(frozen=True)
class LinearProbe:
    """How well a linear layer tells the categories.

    Attributes:
        accuracy: Share of the items whose category is found; each item is asked of the one layer that did not learn
            from it.
        low: Lower end of Wilson's interval of that share.
        high: Upper end.
        majority: Accuracy of always answering with the most frequent category: what the probe has to beat.
        folds: Accuracy of each fold.
        n_items: Items that were asked.
        n_categories: Different categories among them.
        left_out: Items that were not: without a category, or in one of fewer items than there are folds.
    """

    accuracy: float
    low: float
    high: float
    majority: float
    folds: tuple[float, ...]
    n_items: int
    n_categories: int
    left_out: int


def linear_probe(
    vectors: ArrayLike,
    categories: ArrayLike,
    *,
    folds: int = 5,
    penalty: float = 1.0,
    confidence: float = 0.95,
    seed: int = 0,
) -> LinearProbe:
    """Multinomial logistic regression from frozen item vectors to categories, cross-validated.

    Every fold has the same shares of the categories. Columns are standardised with the figures of the items that the
    fold learns from, so that the penalty treats vectors of any scale alike. The paper names neither the share of items
    that it trains on nor a penalty.

    Args:
        vectors: float ``[n + 1, d]``; row 0, padding, is not read. For a model of this repository:
            ``item_vectors().detach().cpu()``.
        categories: int ``[n + 1]``, from 1; 0 where an item has none, such as :func:`category_numbers` gives.
        folds: Parts of the cross-validation.
        penalty: Weight of half the squared length of the layer's weights, beside the summed cross-entropies.
        confidence: Of the interval.
        seed: Of the draw of the folds.

    Raises:
        ValueError: For tables of different lengths, vectors that are not finite, fewer than two folds, or fewer than
            two categories that have as many items as there are folds.
    """
    if folds < 2:
        raise ValueError(f"folds: expected 2 or more, got {folds}")
    x, y = np.asarray(vectors, dtype=np.float64), np.asarray(categories)
    if x.ndim != 2 or y.shape != (len(x),):
        raise ValueError(
            f"expected vectors [items + 1, width] and one category per row, got {list(x.shape)} and {list(y.shape)}"
        )
    x, y = x[1:], y[1:]
    n_items = len(y)
    asked = (y > 0) & (np.bincount(y)[y] >= folds)
    x, y = x[asked], y[asked]
    sizes = np.unique(y, return_counts=True)[1]
    if len(sizes) < 2:
        raise ValueError(
            f"categories: expected two or more with at least {folds} items each (one per fold), got {len(sizes)}; "
            f"set fewer folds or join small categories"
        )
    if not np.isfinite(x).all():
        raise ValueError("vectors: expected finite numbers, got NaN or infinity")
    right, shares = np.zeros(len(y), dtype=bool), list[float]()
    for learn, ask in StratifiedKFold(folds, shuffle=True, random_state=seed % 2**32).split(x, y):
        layer = make_pipeline(StandardScaler(), LogisticRegression(C=1.0 / penalty, max_iter=MAX_ITERATIONS))
        right[ask] = layer.fit(x[learn], y[learn]).predict(x[ask]) == y[ask]
        shares.append(float(right[ask].mean()))
    interval = stats.binomtest(int(right.sum()), len(y)).proportion_ci(confidence, method="wilson")
    return LinearProbe(
        accuracy=float(right.mean()),
        low=float(interval.low),
        high=float(interval.high),
        majority=float(sizes.max() / len(y)),
        folds=tuple(shares),
        n_items=len(y),
        n_categories=len(sizes),
        left_out=n_items - len(y),
    )


def category_numbers(names: Sequence[str | None], *, separator: str | None = None) -> NDArray[np.int64]:
    """The categories of a dataset as numbers.

    Example: ``["Drama", None, "Drama, War"]`` gives 0, 1, 0, 2, and with the separator ``", "`` 0, 1, 0, 1.

    Args:
        names: One per item, in the order of the items; None where an item has none.
        separator: Items with several categories count under the first: what stands before it, such as ``", "`` for
            MovieLens or ``" > "`` for the top of Amazon's paths. None: names are taken whole.

    Returns:
        int64 ``[n + 1]``: a number from 1 for every name in alphabetical order, 0 for padding and for no category.
    """
    first = [name if name is None or separator is None else name.split(separator, 1)[0] for name in names]
    number = {name: place for place, name in enumerate(sorted({name for name in first if name}), start=1)}
    return np.array([0, *(number.get(name, 0) if name else 0 for name in first)], dtype=np.int64)
