"""The denoiser of a vector: one reverse process shares what its steps have in common."""

import pytest
import torch

from models.modules.mlp_denoiser import MlpDenoiser


def made(hidden):
    torch.manual_seed(0)
    return MlpDenoiser(4, condition=6, hidden=hidden, steps=3)


def inputs():
    draws = torch.Generator().manual_seed(1)
    return torch.randn(5, 4, generator=draws), torch.tensor([0, 2, 1, 1, 0]), torch.randn(5, 6, generator=draws)


@pytest.mark.parametrize("hidden", [None, 7])
def test_given_its_condition_it_estimates_and_learns_the_same(hidden):
    denoiser, (x_t, t, condition) = made(hidden), inputs()
    gradients = []
    for estimate in (lambda: denoiser(x_t, t, condition), lambda: denoiser.given(condition)(x_t, t)):
        denoiser.zero_grad()
        found = estimate()
        found.square().sum().backward()
        gradients.append([found.detach(), *(parameter.grad.clone() for parameter in denoiser.parameters())])
    for direct, given in zip(*gradients, strict=True):
        torch.testing.assert_close(given, direct)


def test_the_layers_by_hand():
    """W2 gelu(W1 [x_t ; step ; condition] + b1) + b2."""
    denoiser, (x_t, t, condition) = made(7).eval(), inputs()
    first, _, _, last = denoiser.layers
    read = torch.cat((x_t[1], denoiser.step(t[1:2])[0], condition[1]))
    inner = first.weight @ read + first.bias
    gelu = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
    torch.testing.assert_close(denoiser(x_t, t, condition)[1], last.weight @ gelu + last.bias)
