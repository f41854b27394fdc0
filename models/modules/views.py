"""Two views of every history that should agree (CL4SRec, Xie et al., ICDE 2022, section 3).

Two different operators of crop, mask and reorder (``modules.augmentation``) are drawn for every history; the encoder's
last states of the two results attract each other and repel those of other users (``modules.contrastive``).

Shape legend: b batch, l sequence length, d width.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from models.config import StrictModel
from models.modules.augmentation import crop, random_positions, reorder, share_of
from models.modules.contrastive import nt_xent_loss
from models.modules.sequence_encoder import SequenceEncoder, last_state
from models.sequences.batch import SequenceBatch

#: Operators in the order of their numbers.
CROP, MASK, REORDER = range(3)


class ViewConfig(StrictModel):
    """How views are made and how much they weigh; the defaults are those that work after CL4SRec reports with.

    Attributes:
        crop: eta, share of a history that cropping keeps.
        mask: gamma, share of the items that masking hides.
        reorder: beta, share of a history that is shuffled.
        weight: lambda, of the loss of the views; 0 leaves them out.
        temperature: Divides the similarity of views.
        similarity: ``dot`` (the paper) or ``cosine``.
    """

    crop: float = Field(default=0.6, ge=0, le=1)
    mask: float = Field(default=0.3, ge=0, le=1)
    reorder: float = Field(default=0.6, ge=0, le=1)
    weight: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    similarity: Literal["dot", "cosine"] = "dot"


class TwoViews(nn.Module):
    """The loss of the views; ``mask_vector`` stands for hidden items and is never recommended."""

    def __init__(self, config: ViewConfig, d: int) -> None:
        """Build for item vectors of width ``d``."""
        super().__init__()
        self.config = config
        self.mask_vector = nn.Parameter(torch.empty(d).normal_(std=0.02))

    def forward(self, encoder: SequenceEncoder, batch: SequenceBatch, *, generator: torch.Generator) -> Tensor | None:
        """Agreement of two views of every history, encoded as one batch, times its weight.

        Args:
            encoder: Reads the views.
            batch: The histories; other rows of the same user are never negatives.
            generator: Source of the views.

        Returns:
            Scalar; None, and nothing is drawn, when the weight is 0.
        """
        if self.config.weight == 0:
            return None
        noise = torch.rand(len(batch), 3, generator=generator, device=generator.device)
        operators = noise.argsort(dim=1)[:, :2].to(batch.item_ids.device)  # [b, 2], different ones
        views = [augment(batch, operator, self.config, generator=generator) for operator in operators.unbind(1)]
        ids, mask, hidden = (torch.cat(parts) for parts in zip(*views, strict=True))  # [2 b, l]
        x = torch.where(hidden.unsqueeze(-1), self.mask_vector, encoder.items(ids))
        last = (mask.sum(dim=1) - 1).clamp(min=0)
        first, second = last_state(encoder.encode(x, mask), last).chunk(2)
        cosine = self.config.similarity == "cosine"
        loss = nt_xent_loss(first, second, temperature=self.config.temperature, cosine=cosine, same=batch.user)
        return self.config.weight * loss


def augment(
    batch: SequenceBatch, operator: Tensor, config: ViewConfig, *, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """One view of every history.

    Args:
        batch: The histories.
        operator: int64 ``[b]``, :data:`CROP`, :data:`MASK` or :data:`REORDER` of each.
        config: Their shares.
        generator: Source of the draws.

    Returns:
        Item ids int64 ``[b, l]``, padded on the right; bool ``[b, l]``, True on real items; bool ``[b, l]``, True on
        items that are hidden.
    """
    ids, mask, chosen = batch.item_ids, batch.mask, operator.unsqueeze(1)
    cropped, kept = crop(ids, mask, config.crop, generator=generator)
    hidden = random_positions(mask, share_of(batch.lengths, config.mask), generator=generator)
    shuffled = reorder(ids, mask, config.reorder, generator=generator)
    view = torch.where(chosen == CROP, cropped, torch.where(chosen == REORDER, shuffled, ids))
    return view, torch.where(chosen == CROP, kept, mask), hidden & (chosen == MASK)
