"""A one-dimensional U-Net over the frames of a video (MealRec's f_theta, eq. 8).

The paper gives no sizes. Two strided levels fit five frames (5 -> 3 -> 2); a skip is met again by resizing to its
length, so that any number of frames from 1 up works.

Shape legend: b batch, f frames, w width of a frame vector, c channels, s conditioning tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.modules.attention import MultiHeadAttention
from models.modules.timestep import TimestepEmbedding


def group_norm(channels: int) -> nn.GroupNorm:
    """At most 8 groups of at least 4 channels: a group of one would take the step, added per channel, away again."""
    return nn.GroupNorm(min(8, channels // 4), channels)


class ConvBlock(nn.Module):
    """Two convolutions of size 3 around the step embedding, with a residual connection."""

    def __init__(self, inputs: int, outputs: int, *, step: int) -> None:
        super().__init__()
        self.first = nn.Sequential(group_norm(inputs), nn.SiLU(), nn.Conv1d(inputs, outputs, 3, padding=1))
        self.second = nn.Sequential(group_norm(outputs), nn.SiLU(), nn.Conv1d(outputs, outputs, 3, padding=1))
        self.step = nn.Linear(step, outputs)
        self.residual = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        """Of ``[b, inputs, f]`` and the step's ``[b, step]`` make ``[b, outputs, f]``."""
        hidden = self.first(x) + self.step(step).unsqueeze(-1)  # [b, c, f]
        return self.residual(x) + self.second(hidden)


class CrossAttention(nn.Module):
    """Frames look at the conditioning tokens.

    With a single token the softmax runs over one key: every frame receives the same vector, and the query and key
    projections have zero gradient.
    """

    def __init__(self, channels: int, *, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.attention = MultiHeadAttention(channels, heads=heads)

    def forward(self, x: Tensor, context: Tensor, attend: Tensor | None) -> Tensor:
        """Add to ``[b, c, f]`` what it reads from the tokens ``[b, s, c]``."""
        frames = self.norm(x.transpose(1, 2))  # [b, f, c]
        return x + self.attention(frames, context=context, attend=attend).transpose(1, 2)


class UNet1d(nn.Module):
    """Estimate of the clean frames from noisy frames, the step and the conditioning tokens.

    The network predicts a correction of its input, which is small at the start.
    """

    def __init__(self, width: int, *, context_width: int, channels: int, heads: int, steps: int) -> None:
        """Build the network.

        Args:
            width: w, of a frame vector.
            context_width: Width of a conditioning token.
            channels: c; a multiple of 8 and of ``heads``.
            heads: Attention heads of the cross-attention.
            steps: Steps of the noise schedule.
        """
        super().__init__()
        self.step = TimestepEmbedding(channels, steps=steps)
        self.context = nn.Linear(context_width, channels)
        self.enter = nn.Conv1d(width, channels, 3, padding=1)
        self.down = nn.ModuleList(ConvBlock(channels, channels, step=channels) for _ in range(2))
        self.shrink = nn.ModuleList(nn.Conv1d(channels, channels, 3, stride=2, padding=1) for _ in range(2))
        self.middle = ConvBlock(channels, channels, step=channels)
        self.attend = nn.ModuleList(CrossAttention(channels, heads=heads) for _ in range(3))
        self.up = nn.ModuleList(ConvBlock(2 * channels, channels, step=channels) for _ in range(2))
        last = nn.Conv1d(channels, width, 3, padding=1)
        nn.init.normal_(last.weight, std=0.02)
        self.leave = nn.Sequential(group_norm(channels), nn.SiLU(), last)

    def forward(self, frames: Tensor, t: Tensor, context: Tensor, *, context_mask: Tensor | None = None) -> Tensor:
        """Denoise.

        Args:
            frames: float ``[b, f, w]``, z_t.
            t: int64 ``[b]``, 0 = least noise.
            context: float ``[b, s, context_width]``.
            context_mask: bool ``[b, s]``, True on real tokens, at least one per row; None: all are.

        Returns:
            float ``[b, f, w]``, the estimate of z_0.
        """
        step = F.silu(self.step(t))  # [b, c]
        tokens = self.context(context)  # [b, s, c]
        attend = None if context_mask is None else context_mask[:, None, None, :]
        x = self.enter(frames.transpose(1, 2))  # [b, c, f]
        skips: list[Tensor] = []
        for block, attention, shrink in zip(self.down, self.attend, self.shrink, strict=False):
            x = attention(block(x, step), tokens, attend)
            skips.append(x)
            x = shrink(x)  # [b, c, ceil(f / 2)]
        x = self.attend[2](self.middle(x, step), tokens, attend)
        for block in self.up:
            skip = skips.pop()
            x = F.interpolate(x, size=skip.shape[-1], mode="nearest")
            x = block(torch.cat((x, skip), dim=1), step)
        return frames + self.leave(x).transpose(1, 2)
