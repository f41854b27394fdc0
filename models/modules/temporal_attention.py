"""Order inside a video, and recency inside a history (MealRec, eq. 6-7).

Shape legend: b batch, l sequence length, f frames, d width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.modules.initialise import fan_in_linear
from models.modules.position import LearnedPositions
from models.modules.transformer import TransformerEncoder


class TemporalAttentionEncoder(nn.Module):
    """Frames + learned positions -> transformer (MealRec eq. 6).

    Pre-normalised, so that the output is normalised: the diffusion over it assumes variance near 1.
    """

    def __init__(self, frames: int, d: int, *, layers: int = 1, heads: int = 2, dropout: float = 0.0) -> None:
        """Build the encoder of ``frames`` vectors of width ``d``; the feed-forward layer is 2 d wide."""
        super().__init__()
        self.positions = LearnedPositions(frames, d)
        self.transformer = TransformerEncoder(d, layers, heads=heads, inner=2 * d, dropout=dropout, norm_first=True)
        fan_in_linear(self.transformer)

    def forward(self, frames: Tensor) -> Tensor:
        """Contextualise float ``[b, f, d]``; same shape."""
        return self.transformer(self.positions(frames))


def recency_weights(mask: Tensor, *, gamma: float) -> Tensor:
    """Softmax of ``-gamma (len - k)`` over the real positions k = 1..len (MealRec eq. 7).

    Args:
        mask: bool ``[b, l]``, True on real items, padded on the right.
        gamma: Rate of decay.

    Returns:
        float32 ``[b, l]``: sums to 1 over the real positions, 0 on padding and for an empty history.
    """
    position = torch.arange(mask.shape[1], device=mask.device)
    age = mask.sum(dim=1, keepdim=True) - 1 - position  # [b, l], 0 at the last real item
    weights = torch.exp(-gamma * age.clamp(min=0).float()) * mask
    return weights / weights.sum(dim=1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
