"""The networks of the diffusion over the last video's frames (MealRec, eq. 6-8).

Shape legend: b batch, l sequence length, f frames, n items, w raw width of content vectors, v width of the diffusion,
s conditioning tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.modules.feature_table import FeatureTable
from models.modules.frame_unet import FrameUNet
from models.modules.temporal_attention import TemporalAttentionEncoder, recency_weights


class ContentDiffusion(nn.Module):
    """Temporal encoder (eq. 6), recency context (eq. 7), U-Net (eq. 8)."""

    def __init__(
        self,
        width: int,
        *,
        frames: int,
        heads: int,
        dropout: float,
        gamma: float,
        cv_tokens: bool,
        channels: int,
        steps: int,
    ) -> None:
        """Build them.

        Args:
            width: v.
            frames: f.
            heads: Attention heads of the encoder and of the U-Net.
            dropout: Of the encoder.
            gamma: Rate of decay of eq. 7.
            cv_tokens: Condition on the weighted vectors themselves, not on their sum c_v.
            channels: Of the U-Net.
            steps: Steps of the noise schedule.
        """
        super().__init__()
        self.gamma = gamma
        self.cv_tokens = cv_tokens
        self.encoder = TemporalAttentionEncoder(frames, width, heads=heads, dropout=dropout)
        self.unet = FrameUNet(width, context_width=width, channels=channels, heads=heads, steps=steps)

    def context(
        self, videos: FeatureTable, reduce: nn.Module, item_ids: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """c_v of eq. 7 as tokens.

        Args:
            videos: float ``[n + 1, w]``, global vectors.
            reduce: An affine map w -> v. The weights of eq. 7 sum to 1, so it commutes with the sum.
            item_ids: int64 ``[b, l]``.
            mask: bool ``[b, l]``.

        Returns:
            float ``[b, s, v]``, zero for an empty history, and bool ``[b, s]``, True on real tokens (None: all are).
        """
        weights = recency_weights(mask, gamma=self.gamma)  # [b, l]
        if not self.cv_tokens:
            pooled = F.embedding_bag(item_ids, videos.values, per_sample_weights=weights, mode="sum")  # [b, w]
            return (reduce(pooled) * mask.any(dim=1, keepdim=True)).unsqueeze(1), None
        first = torch.zeros_like(mask)
        first[:, 0] = True  # an empty history keeps one (zero) token to look at
        return weights.unsqueeze(-1) * reduce(videos(item_ids)), mask | first
