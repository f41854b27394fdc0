"""The batch that every recommender reads.

Shape legend: b batch, l sequence length.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SequenceBatch:
    """Histories padded on the right with item 0, and what comes after them.

    Attributes:
        item_ids: int64 ``[b, l]``; 1..n are items, 0 is padding and stands only after the last real item.
        mask: bool ``[b, l]``; True where ``item_ids`` holds a real item.
        target: int64 ``[b]``; the item after the last real position; 0 where it is unknown (serving).
        targets: int64 ``[b, l]`` or None; the item after every position, 0 on padding. Present only when a causal
            model trains on all positions.
        user: int64 ``[b]``; the internal user index.
    """

    item_ids: Tensor
    mask: Tensor
    target: Tensor
    user: Tensor
    targets: Tensor | None = None

    def __post_init__(self) -> None:
        """Refuse shapes that do not belong together."""
        if self.item_ids.ndim != 2:
            raise ValueError(f"item_ids: expected shape [b, l], got {tuple(self.item_ids.shape)}")
        rows = self.item_ids.shape[0]
        for name, tensor, expected in (
            ("mask", self.mask, tuple(self.item_ids.shape)),
            ("target", self.target, (rows,)),
            ("user", self.user, (rows,)),
            ("targets", self.targets, tuple(self.item_ids.shape)),
        ):
            if tensor is not None and tuple(tensor.shape) != expected:
                raise ValueError(f"{name}: expected shape {list(expected)}, got {list(tensor.shape)}")

    def __len__(self) -> int:
        """Number of histories."""
        return self.item_ids.shape[0]

    def __repr__(self) -> str:
        """Shapes, not values."""
        kind = "all positions" if self.targets is not None else "last position"
        return f"SequenceBatch(item_ids={list(self.item_ids.shape)}, {kind}, device={self.item_ids.device})"

    @property
    def lengths(self) -> Tensor:
        """int64 ``[b]``: number of real items of each history."""
        return self.mask.sum(dim=1)

    @property
    def last_position(self) -> Tensor:
        """int64 ``[b]``: index of the last real item (0 for an empty history)."""
        return (self.lengths - 1).clamp(min=0)

    @property
    def last_item(self) -> Tensor:
        """int64 ``[b]``: the last real item (0 for an empty history)."""
        return self.item_ids.gather(1, self.last_position.unsqueeze(1)).squeeze(1)

    def to(self, device: torch.device | str) -> SequenceBatch:
        """The same batch on ``device``."""
        return SequenceBatch(
            item_ids=self.item_ids.to(device),
            mask=self.mask.to(device),
            target=self.target.to(device),
            user=self.user.to(device),
            targets=None if self.targets is None else self.targets.to(device),
        )

    def left_padded(self) -> tuple[Tensor, Tensor]:
        """``(item_ids, mask)`` with the padding moved to the front, for models whose papers pad on the left."""
        length = self.item_ids.shape[1]
        shift = (length - self.lengths).unsqueeze(1)  # [b, 1]
        source = torch.arange(length, device=self.item_ids.device).unsqueeze(0) - shift  # [b, l]
        real = source >= 0
        ids = self.item_ids.gather(1, source.clamp(min=0))
        return torch.where(real, ids, torch.zeros_like(ids)), real
