"""How linear layers start."""

from __future__ import annotations

from torch import nn


def fan_in_linear(module: nn.Module) -> None:
    """Draw every linear layer inside ``module`` uniformly from +-1/sqrt(fan in), PyTorch's own default.

    The transformer of this package starts from N(0, 0.02), which is right for BERT's width. Where a layer has to
    carry content of width 64 into a residual stream that is already full, that start is six times too small: content
    is found late, and after the item vectors have overfitted.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            part.reset_parameters()
