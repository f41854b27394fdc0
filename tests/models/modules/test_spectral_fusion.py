"""Products of spectra against convolutions written out as sums."""

import math

import numpy as np
import pytest
import torch

from models.modules.spectral_fusion import SpectralFusion

LENGTHS = pytest.mark.parametrize("max_length", [7, 8])


def fusion(max_length, d=3):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SpectralFusion(d, max_length)


def sequence(length, d=3, seed=0):
    return torch.randn(2, length, d, generator=torch.Generator().manual_seed(seed))


def circular(first, second):
    """sum over j of first[j] second[p - j], positions modulo their number; both ``[b, p, d]``."""
    length = first.shape[1]
    rows = [sum(first[:, j] * second[:, (position - j) % length] for j in range(length)) for position in range(length)]
    return torch.stack(rows, dim=1)


@LENGTHS
def test_the_fused_sequence_is_a_circular_convolution(max_length):
    ids, text = sequence(max_length), sequence(max_length, seed=1)
    _, fused = fusion(max_length).convolutions(ids, text)
    torch.testing.assert_close(fused, circular(ids, text) / math.sqrt(max_length))


@LENGTHS
def test_the_filter_is_a_kernel_over_all_positions(max_length):
    layer, ids, kernel = fusion(max_length), sequence(max_length), sequence(max_length, seed=2)[:1]
    with torch.no_grad():
        layer.filter.copy_(torch.view_as_real(torch.fft.rfft(kernel, dim=1))[0])
    filtered, _ = layer.convolutions(ids, ids)
    torch.testing.assert_close(filtered, circular(ids, kernel.expand_as(ids)))


def test_short_histories_do_not_wrap_around():
    """Up to half of the length it is the ordinary convolution of the two histories."""
    ids, text = sequence(4, d=1), sequence(4, d=1, seed=1)
    _, fused = fusion(8, d=1).convolutions(ids, text)
    expected = np.convolve(ids[0, :, 0].numpy(), text[0, :, 0].numpy())[:4] / math.sqrt(8)
    np.testing.assert_allclose(fused[0, :, 0].detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_how_far_a_batch_is_padded_changes_nothing():
    layer, ids, text = fusion(8), sequence(5), sequence(5, seed=1)
    wide = layer(*(torch.nn.functional.pad(x, (0, 0, 0, 3)) for x in (ids, text)))
    torch.testing.assert_close(wide[:, :5], layer(ids, text))


def test_the_gates_by_hand():
    layer, ids, text = fusion(8), sequence(8), sequence(8, seed=1)
    filtered, fused = layer.convolutions(ids, text)
    with torch.no_grad():
        for gate, bias in ((layer.filtered_gate, math.log(3.0)), (layer.fused_gate, 0.0)):
            gate.weight.zero_()
            gate.bias.fill_(bias)  # sigmoid(log 3) = 3/4
    torch.testing.assert_close(layer(ids, text), 1.5 * filtered + fused)
    with torch.no_grad():
        layer.fused_gate.weight.fill_(1.0)
    expected = 1.5 * filtered + 2.0 * fused / (1.0 + torch.exp(-fused.sum(dim=-1, keepdim=True)))
    torch.testing.assert_close(layer(ids, text), expected)


def test_half_precision_inputs_are_transformed_in_float32():
    layer, ids, text = fusion(7), sequence(7), sequence(7, seed=1)
    half, whole = layer.convolutions(ids.bfloat16(), text.bfloat16()), layer.convolutions(ids, text)
    for found, expected in zip(half, whole, strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0.0, atol=0.05)


def test_histories_beyond_its_reach_are_refused():
    with pytest.raises(ValueError, match="at most 7 items, got 8"):
        fusion(7)(sequence(8), sequence(8))
