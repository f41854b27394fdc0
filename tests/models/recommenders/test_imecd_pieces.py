"""What IMECD makes in pieces to save memory gives the gradients that it gives in one."""

import pytest
import torch
from imecd_cases import loss, model

from models.modules import losses, moe, sequence_denoiser


def gradients(**changes):
    """Of every parameter, with two blocks per denoiser and dropout, whose masks have to come back as they were."""
    imecd = model(layers_id=2, dropout=0.2, **changes).train()
    with torch.random.fork_rng():
        torch.manual_seed(7)
        loss(imecd).total.backward()
    return {name: parameter.grad for name, parameter in imecd.named_parameters()}


@pytest.mark.parametrize("ce", ["per_modality", "joint"])
@pytest.mark.parametrize("rows", [1, 5])
def test_gradients_do_not_depend_on_the_pieces(ce, rows, monkeypatch):
    """Thirteen rows of the catalogue, five histories; the last piece is shorter than the others."""
    whole = gradients(ce=ce)
    made = []
    monkeypatch.setattr(moe, "BLOCK_ROWS", rows)
    monkeypatch.setattr(losses, "CPU_CHUNK", 2)
    monkeypatch.setattr(sequence_denoiser, "KEPT_ELEMENTS", 0)
    mix = moe.MixtureOfExperts.mix
    monkeypatch.setattr(moe.MixtureOfExperts, "mix", lambda self, x, g: made.append(len(x)) or mix(self, x, g))
    pieces = gradients(ce=ce)
    assert max(made) == rows
    assert sum(made) == 2 * 2 * 13  # two modalities, and once more for the gradient
    for name, gradient in whole.items():
        if gradient is None:
            assert pieces[name] is None
        else:
            torch.testing.assert_close(pieces[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
