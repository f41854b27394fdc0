"""The whole contract of a recommender on one screen.

A recommender file has five parts in this order: docstring (paper, equations, deviations) · ``Config`` · network ·
``training_loss`` / ``score`` · ``build(config, *, n_items, features)``. It also exports
``required_features(config) -> tuple[str, ...]``, the names of the tables that ``build`` will ask for, and, only where
one test of the contract cannot hold, ``CONTRACT_EXCEPTIONS: dict[str, str]`` with the reason: the key is
``"overfits"``, ``"gradient:<parameter name>"`` for a trainable parameter that never receives a gradient, or
``"saved:<buffer name>"`` for a saved table with a row per item that no gradient trains.

Feature tables are registered as non-persistent buffers: they belong to a store, not to a checkpoint.

Shape legend: b batch, l sequence length, n items, k list length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from models.sequences.batch import SequenceBatch

#: Feature tables by name: ``"<feature>"`` is the ``embedding`` column, ``"<feature>.<column>"`` any other, such as
#: ``"videomae.frames"``. Each is float ``[n_items + 1, *shape]``; row 0 (padding) and rows of items without the
#: feature are zero.
FeatureTables = Mapping[str, Tensor]

#: How long functions report: ``progress(stage, done, total)``.
ProgressCallback = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class LossTerms:
    """What ``training_loss`` returns.

    Attributes:
        total: Scalar with a gradient.
        parts: The named terms that the total is made of, detached scalars, for the log.
    """

    total: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])

    def __post_init__(self) -> None:
        """Refuse anything but a scalar."""
        if self.total.ndim != 0:
            raise ValueError(f"total: expected a scalar, got shape {list(self.total.shape)}")


@dataclass(frozen=True)
class TopK:
    """Recommended items, best first.

    Attributes:
        items: int64 ``[b, k]``, never 0 and never an excluded item.
        scores: float32 ``[b, k]``.
    """

    items: Tensor
    scores: Tensor


@runtime_checkable
class Recommender(Protocol):
    """A ``torch.nn.Module`` that ranks all items after a history.

    Attributes:
        n_items: Number of items; ids run from 1 to ``n_items``.
        causal: Position i of the encoder sees positions <= i only, so that training on all positions is allowed.
    """

    n_items: int
    causal: bool

    def training_loss(self, batch: SequenceBatch, *, generator: torch.Generator) -> LossTerms:
        """Loss of one batch.

        Every draw comes from ``generator``, which lives on the model's device, except dropout's: that is torch's own
        and uses the default generator, which the training loop seeds anew for every step.
        """
        ...

    def score(self, batch: SequenceBatch, *, generator: torch.Generator) -> Tensor:
        """float32 ``[b, n_items + 1]``: higher is better; column 0 (padding) is ``-inf``."""
        ...

    def recommend(self, batch: SequenceBatch, *, k: int, exclude: Tensor | None, generator: torch.Generator) -> TopK:
        """The ``k`` best items; ``exclude`` is int64 ``[b, e]`` of ids never to return, 0 where unused."""
        ...


@runtime_checkable
class CountsFitted(Protocol):
    """A recommender with a part that follows in closed form from how often each item occurs."""

    def fit_counts(self, counts: Tensor) -> None:
        """Set that part from int64 ``[n_items + 1]``, occurrences in the training rows; called before training."""
        ...


@runtime_checkable
class HistoriesFitted(Protocol):
    """A recommender with a part that follows in closed form from the training sequences."""

    def fit_histories(self, items: Tensor, offsets: Tensor) -> None:
        """Set that part; called before training.

        Args:
            items: int64 ``[r]`` on the CPU, the training items of all users, each user's oldest first.
            offsets: int64 ``[u + 1]`` on the CPU: user number i owns ``items[offsets[i] : offsets[i + 1]]``.
        """
        ...


@runtime_checkable
class Described(Protocol):
    """A recommender of which a run records more than its settings, such as how noisy its noisiest step is."""

    def describe(self, batch: SequenceBatch, *, generator: torch.Generator) -> Mapping[str, float | list[float]]:
        """What the settings and the trained weights come to, by name; ``batch`` holds histories to try them on."""
        ...
