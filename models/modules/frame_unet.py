"""The U-Net over frames (MealRec's f_theta, eq. 8), computed with the frames in front and content read once.

``modules.unet1d`` defines the network: its parameters, its start and what it computes. Here the same numbers are
reached at a fraction of the cost for the few frames that a video has, where a library's convolutions are slow:

- Tensors are ``[f, b, c]``: the neighbours of a frame are whole blocks, so a convolution is one product of matrices.
- The step enters as a row of a table with one row per step of the schedule, not as a vector per history.
- With the single token c_v the softmax of the cross-attention runs over one key and is 1: each frame receives
  ``W_O W_V c_v``, which is computed once for all frames and for all steps of a reverse process. Queries, keys and the
  norm before them meet no frame and get no gradient.

Shape legend: b batch, f frames, w width of a frame vector, c channels, s conditioning tokens, T steps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.modules.unet1d import ConvBlock, CrossAttention, UNet1d

#: ``(z_t [b, f, w], t int64 [b]) -> estimate of z_0 [b, f, w]``.
Denoise = Callable[[Tensor, Tensor], Tensor]

#: Adds to ``[f, b, c]`` what its frames read from the conditioning tokens.
Reader = Callable[[Tensor], Tensor]


class FrameUNet(UNet1d):
    """:class:`UNet1d`, cheaper."""

    def __init__(self, width: int, *, context_width: int, channels: int, heads: int, steps: int) -> None:
        """Build the network; arguments as for :class:`UNet1d`."""
        super().__init__(width, context_width=context_width, channels=channels, heads=heads, steps=steps)
        self.steps = steps

    def forward(self, frames: Tensor, t: Tensor, context: Tensor, *, context_mask: Tensor | None = None) -> Tensor:
        """Arguments and result as for :meth:`UNet1d.forward`."""
        return self.given(context, context_mask=context_mask)(frames, t)

    def given(self, context: Tensor, *, context_mask: Tensor | None = None) -> Denoise:
        """The network for fixed conditioning tokens: what depends on them alone is computed once.

        Args:
            context: float ``[b, s, context_width]``.
            context_mask: bool ``[b, s]``, True on real tokens, at least one per row; None: all are.

        Returns:
            The estimate of z_0 as a function of z_t and t.
        """
        tokens = self.context(context)  # [b, s, c]
        attend = None if context_mask is None else context_mask[:, None, None, :]
        steps = F.silu(self.step(torch.arange(self.steps, device=context.device)))  # [T, c]
        read = [_reader(attention, tokens, attend) for attention in self.attend.children()]
        down = [_block(block, steps) for block in self.down.children()]
        shrink = [convolution(layer) for layer in self.shrink.children()]
        up = [_block(block, steps) for block in self.up.children()]
        enter, middle = convolution(self.enter), _block(self.middle, steps)
        norm, _, last = self.leave
        leave = convolution(last)

        def denoise(frames: Tensor, t: Tensor) -> Tensor:
            x = enter(frames.transpose(0, 1).contiguous())  # [f, b, c]
            skips: list[Tensor] = []
            for level in range(len(down)):
                x = read[level](down[level](x, t))
                skips.append(x)
                x = shrink[level](x)  # [ceil(f / 2), b, c]
            x = read[-1](middle(x, t))
            for block in up:
                skip = skips.pop()
                x = block(torch.cat((_resize(x, len(skip)), skip), dim=2), t)
            return frames + leave(F.silu(normalise(x, norm))).transpose(0, 1)

        return denoise


def convolution(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    """``layer``, a ``Conv1d`` of size 3 (padding 1, any stride) or 1, over the first axis.

    Returns:
        Of float ``[f, b, i]`` makes ``[ceil(f / stride), b, o]``.
    """
    assert isinstance(layer, nn.Conv1d)
    bias, stride = layer.bias, layer.stride[0]
    taps = layer.weight.permute(2, 0, 1).contiguous()  # [size, o, i]
    if len(taps) == 1:
        return lambda x: F.linear(x, taps[0], bias)

    def convolve(x: Tensor) -> Tensor:
        out = F.linear(x[::stride], taps[1], bias)
        if len(out) > 1:
            out[1:] += F.linear(x[stride - 1 :: stride][: len(out) - 1], taps[0])
        if len(x) > 1:
            following = F.linear(x[1::stride], taps[2])
            out[: len(following)] += following
        return out

    return convolve


def normalise(x: Tensor, norm: nn.Module) -> Tensor:
    """``norm``, a ``GroupNorm``, of float ``[f, b, c]``: over the frames and the channels of a group."""
    assert isinstance(norm, nn.GroupNorm)
    centred = x - _group_means(x, norm.num_groups)
    variance = _group_means(centred * centred, norm.num_groups)
    return torch.addcmul(norm.bias, centred, (variance + norm.eps).rsqrt() * norm.weight)


def _group_means(x: Tensor, groups: int) -> Tensor:
    """Mean of float ``[f, b, c]`` over the frames and the channels of a group, repeated to ``[b, c]``."""
    size = x.shape[2] // groups
    means = x.mean(dim=0).unflatten(1, (groups, size)).mean(dim=2)  # [b, g]
    return means.repeat_interleave(size, dim=1)


def _block(block: nn.Module, steps: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """A :class:`ConvBlock` of ``[f, b, i]`` and t ``[b]``, for the steps ``[T, c]`` of the schedule."""
    assert isinstance(block, ConvBlock)
    (first_norm, _, first), (second_norm, _, second) = block.first, block.second
    enter, leave = convolution(first), convolution(second)
    residual = convolution(block.residual) if isinstance(block.residual, nn.Conv1d) else block.residual
    shifts = block.step(steps)  # [T, c]

    def run(x: Tensor, t: Tensor) -> Tensor:
        hidden = enter(F.silu(normalise(x, first_norm))) + F.embedding(t, shifts)
        return residual(x) + leave(F.silu(normalise(hidden, second_norm)))

    return run


def _reader(attention: nn.Module, tokens: Tensor, attend: Tensor | None) -> Reader:
    """What frames read from the tokens ``[b, s, c]`` by a :class:`CrossAttention`."""
    assert isinstance(attention, CrossAttention)
    if tokens.shape[1] == 1:
        inner = attention.attention
        read = inner.out(inner.value(tokens[:, 0]))  # [b, c]
        return lambda x: x + read
    return lambda x: attention(x.permute(1, 2, 0), tokens, attend).permute(2, 0, 1)


def _resize(x: Tensor, length: int) -> Tensor:
    """The nearest of the frames of ``[f, b, c]`` for each of ``length``."""
    return x[torch.arange(length, device=x.device) * len(x) // length]
