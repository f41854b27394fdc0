"""The U-Net over frames (MealRec's f_theta, eq. 8), computed with the frames in front and content read once.

``modules.unet1d`` defines the network: its parameters, its start and what it computes. Here the same numbers are
reached at a fraction of the cost for the few frames that a video has, where a library's convolutions are slow:

- Tensors are ``[f, b, c]``: the neighbours of a frame are whole blocks, so a convolution is a few products of matrices
  that add up in place.
- The step enters as a row of a table with one row per step of the schedule, not as a vector per history.
- With the single token c_v the softmax of the cross-attention runs over one key and is 1: each frame receives
  ``W_O W_V c_v``, which is computed once for all frames and for all steps of a reverse process. Queries, keys and the
  norm before them meet no frame and get no gradient.
- On the way up frames are repeated and stand beside a skip. No group of the norm holds channels of both, so each part
  is normalised by itself, and a repeated frame is normalised, activated and multiplied once.

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
            The estimate of z_0 as a function of z_t and t. It copies nothing to reorder z_t when the frames of that
            lie in front in memory, and its result lies as z_t does.
        """
        tokens = self.context(context)  # [b, s, c]
        attend = None if context_mask is None else context_mask[:, None, None, :]
        steps = F.silu(self.step(torch.arange(self.steps, device=context.device)))  # [T, c]
        read = [_reader(attention, tokens, attend) for attention in self.attend.children()]
        down = [_block(block, steps) for block in self.down.children()]
        shrink = [convolution(layer) for layer in self.shrink.children()]
        up = [_up_block(block, steps) for block in self.up.children()]
        enter, middle = convolution(self.enter), _block(self.middle, steps)
        norm, _, last = self.leave
        activate, leave = activation(norm), convolution(last)

        def denoise(frames: Tensor, t: Tensor) -> Tensor:
            x = enter(frames.transpose(0, 1).contiguous())  # [f, b, c]
            skips: list[Tensor] = []
            for level in range(len(down)):
                x = read[level](down[level](x, t))
                skips.append(x)
                x = shrink[level](x)  # [ceil(f / 2), b, c]
            x = read[-1](middle(x, t))
            for block in up:
                x = block(x, skips.pop(), t)
            return frames + leave(activate(x)).transpose(0, 1)

        return denoise


def convolution(layer: nn.Module, first: int = 0) -> Callable[[Tensor], Tensor]:
    """``layer``, a ``Conv1d`` of size 3 (padding 1, any stride) or 1, over the first axis.

    Args:
        layer: The layer.
        first: Its input channels before this one are taken to be zero, and are not given.

    Returns:
        Of float ``[f, b, i]`` makes ``[ceil(f / stride), b, o]``.
    """
    assert isinstance(layer, nn.Conv1d)
    bias, stride, taps = layer.bias, layer.stride[0], _taps(layer, first)
    assert bias is not None

    def convolve(x: Tensor) -> Tensor:
        centres = x[::stride]
        out = torch.addmm(bias, centres.flatten(0, 1), taps[len(taps) // 2]).unflatten(0, centres.shape[:2])
        if len(taps) > 1 and len(out) > 1:
            _add_product(out[1:], x[stride - 1 :: stride][: len(out) - 1], taps[0])
        if len(taps) > 1 and len(x) > 1:
            following = x[1::stride]
            _add_product(out[: len(following)], following, taps[2])
        return out

    return convolve


def _taps(layer: nn.Conv1d, first: int = 0, end: int | None = None) -> Tensor:
    """The weights of some of its input channels by place, ``[size, i, o]``."""
    return layer.weight[:, first:end].permute(2, 0, 1).contiguous().mT


def _add_product(out: Tensor, x: Tensor, weight: Tensor) -> None:
    """``out += x @ weight``, float ``[f, b, o]``, ``[f, b, i]`` and ``[i, o]``, in the type of ``out`` (autocast)."""
    out.flatten(0, 1).addmm_(x.flatten(0, 1).to(out.dtype), weight.to(out.dtype))


def activation(norm: nn.Module, first: int = 0, count: int | None = None) -> Callable[..., Tensor]:
    """SiLU of ``norm``, a ``GroupNorm``, over the frames and the channels of a group.

    Args:
        norm: The norm.
        first: The first channel of ``x``; a group starts there.
        count: Channels of ``x``; None: all that follow.

    Returns:
        Of float ``[f, b, c]``, and how often each frame counts (float ``[f, 1, 1]``, default once), makes the same
        shape.
    """
    assert isinstance(norm, nn.GroupNorm)
    end = norm.num_channels if count is None else first + count
    size = norm.num_channels // norm.num_groups
    weight, bias, eps = norm.weight[first:end], norm.bias[first:end], norm.eps
    group = torch.arange(end - first, device=weight.device) // size
    share = (group == group.unsqueeze(1)).to(weight.dtype) / size  # [c, c]: of channels makes the means of their groups

    def activate(x: Tensor, repeats: Tensor | None = None) -> Tensor:
        def means(values: Tensor) -> Tensor:  # [b, c]
            if repeats is None:
                return values.sum(dim=0) @ (share / len(values))
            return (values * repeats).sum(dim=0) @ (share / repeats.sum())

        centred = x - means(x)
        scale = (means(centred * centred) + eps).rsqrt() * weight
        return F.silu(torch.addcmul(bias, centred, scale))

    return activate


def _block(block: nn.Module, steps: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """A :class:`ConvBlock` of ``[f, b, c]`` and t ``[b]``, for the steps ``[T, c]`` of the schedule."""
    assert isinstance(block, ConvBlock)
    activate, enter = activation(block.first[0]), convolution(block.first[2])
    leave = _second_half(block, steps)
    return lambda x, t: leave(enter(activate(x)), t).add_(x)


def _up_block(block: nn.Module, steps: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The same for ``[g, b, c]``, repeated to the length of a skip ``[f, b, c]`` and put before its channels."""
    assert isinstance(block, ConvBlock)
    assert isinstance(block.residual, nn.Conv1d)
    norm, _, first = block.first
    assert isinstance(first, nn.Conv1d)
    channels = first.out_channels
    activate, activate_skip = activation(norm, 0, channels), activation(norm, channels)
    taps, enter_skip = _taps(first, 0, channels), convolution(first, channels)
    before, here, after = taps.unbind()
    sums: dict[tuple[int, ...], Tensor] = {(0,): before, (1,): here, (2,): after}
    sums |= {(0, 1): before + here, (1, 2): here + after, (0, 1, 2): before + here + after}
    residual, residual_skip = _taps(block.residual, 0, channels)[0], convolution(block.residual, channels)
    leave = _second_half(block, steps)

    def run(x: Tensor, skip: Tensor, t: Tensor) -> Tensor:
        source = [place * len(x) // len(skip) for place in range(len(skip))]  # the nearest frame of each place
        repeats = torch.tensor([float(source.count(frame)) for frame in range(len(x))], device=x.device)
        hidden, active = enter_skip(activate_skip(skip)), activate(x, repeats[:, None, None])
        for (place, frame), used in _taps_by_frame(source).items():
            _add_product(hidden[place : place + 1], active[frame : frame + 1], sums[used])
        out, short = leave(hidden, t).add_(residual_skip(skip)), x @ residual
        for place, frame in enumerate(source):
            out[place] += short[frame]
        return out

    return run


def _second_half(block: ConvBlock, steps: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """What comes after a block's first convolution, without its residual connection."""
    activate, leave = activation(block.second[0]), convolution(block.second[2])
    shifts = block.step(steps)  # [T, c]
    return lambda hidden, t: leave(activate(hidden.add_(F.embedding(t, shifts))))


def _taps_by_frame(source: list[int]) -> dict[tuple[int, int], tuple[int, ...]]:
    """Which taps of a convolution of size 3 meet frame ``f`` around place ``p``, by ``(p, f)``."""
    met: dict[tuple[int, int], tuple[int, ...]] = {}
    for place in range(len(source)):
        for tap in range(3):
            neighbour = place + tap - 1
            if 0 <= neighbour < len(source):
                key = (place, source[neighbour])
                met[key] = (*met.get(key, ()), tap)
    return met


def _reader(attention: nn.Module, tokens: Tensor, attend: Tensor | None) -> Reader:
    """What frames read from the tokens ``[b, s, c]`` by a :class:`CrossAttention`."""
    assert isinstance(attention, CrossAttention)
    if tokens.shape[1] == 1:
        inner = attention.attention
        read = inner.out(inner.value(tokens[:, 0]))  # [b, c]
        return lambda x: x.add_(read)
    return lambda x: attention(x.permute(1, 2, 0), tokens, attend).permute(2, 0, 1)
