"""The denoiser of a next-item vector: masks, injections, positions."""

import pytest
import torch
from torch import nn

from models.modules.initialise import fan_in_linear
from models.modules.sequence_denoiser import SequenceDenoiser

INJECTIONS = ["delta", "add", "prepend_token"]
MASK = torch.tensor([[False, False, True, True], [True, True, True, True]])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def denoiser(**options):
    torch.manual_seed(0)
    model = SequenceDenoiser(8, layers=2, heads=2, steps=4, dropout=0.0, **options)
    fan_in_linear(model)  # far enough from zero that every path shows
    return model


def inputs():
    sequence = torch.randn(2, 4, 8, generator=seeded(1)) * MASK.unsqueeze(-1)
    return torch.randn(2, 8, generator=seeded(2)), torch.tensor([0, 3]), sequence


def run(model, x_t, t, sequence, mask=MASK, seed=0):
    with torch.no_grad():
        return model(x_t, t, sequence, mask, generator=seeded(seed))


@pytest.mark.parametrize("inject", INJECTIONS)
def test_padded_keys_are_never_looked_at(inject):
    model, (x_t, t, sequence) = denoiser(inject=inject).eval(), inputs()
    other = sequence.clone()
    other[0, :2] = 100.0
    torch.testing.assert_close(run(model, x_t, t, other), run(model, x_t, t, sequence))


@pytest.mark.parametrize("inject", INJECTIONS)
def test_columns_of_padding_change_nothing(inject):
    model, (x_t, t, sequence) = denoiser(inject=inject, max_length=4).eval(), inputs()
    wide = run(model, x_t[:1], t[:1], sequence[:1], MASK[:1])
    torch.testing.assert_close(run(model, x_t[:1], t[:1], sequence[:1, 2:], MASK[:1, 2:]), wide)


@pytest.mark.parametrize("inject", ["add", "prepend_token"])
def test_the_noisy_vector_and_the_step_are_heard(inject):
    model, (x_t, t, sequence) = denoiser(inject=inject).eval(), inputs()
    first = run(model, x_t, t, sequence)
    assert float((run(model, -x_t, t, sequence) - first).abs().max()) > 1e-3
    assert float((run(model, x_t, t.flip(0), sequence) - first).abs().max()) > 1e-3


@pytest.mark.parametrize("inject", INJECTIONS)
def test_the_scale_of_the_history_does_not_change_how_much_the_noisy_vector_weighs(inject):
    """Normalised before the injection, a history a hundred times as long is the same history."""
    model, (x_t, t, sequence) = denoiser(inject=inject).eval(), inputs()
    torch.testing.assert_close(run(model, x_t, t, 100 * sequence), run(model, x_t, t, sequence), rtol=1e-3, atol=1e-4)


def test_delta_is_random_in_training_and_its_mean_in_evaluation():
    model, (x_t, t, sequence) = denoiser(delta=0.5), inputs()
    assert not torch.equal(run(model, x_t, t, sequence, seed=1), run(model, x_t, t, sequence, seed=2))
    model.eval()
    first = run(model, x_t, t, sequence, seed=1)
    assert torch.equal(first, run(model, x_t, t, sequence, seed=2))
    whole = denoiser(inject="add").eval()
    half = run(whole, 0.5 * (x_t + model.step(t)).detach() - whole.step(t).detach(), t, sequence)
    torch.testing.assert_close(first, half)


def test_positions_are_heard_and_counted_from_the_newest_item():
    model, (x_t, t, sequence) = denoiser(inject="add", max_length=4).eval(), inputs()
    nn.init.normal_(model.positions.weight, generator=seeded(3))
    swapped = sequence[:, [1, 0, 2, 3]]
    first, second = (run(model, x_t, t, one)[1] for one in (sequence, swapped))
    assert float((first - second).abs().max()) > 1e-3
    blind = denoiser(inject="add").eval()
    torch.testing.assert_close(run(blind, x_t, t, swapped)[1], run(blind, x_t, t, sequence)[1])


def test_fan_in_start_fills_the_interval_of_one_over_the_root_of_the_width():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(64, 400), nn.LayerNorm(400))
    nn.init.zeros_(layers[0].weight)
    fan_in_linear(layers)
    weight = layers[0].weight.detach()
    assert float(weight.abs().max()) <= 1 / 8
    assert float(weight.std()) == pytest.approx(1 / 8 / 3**0.5, rel=0.02)  # of a uniform distribution
