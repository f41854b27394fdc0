import math

import pytest
import torch

from models.modules.temporal_attention import TemporalAttentionEncoder, recency_weights


def mask(*lengths, width):
    return torch.arange(width) < torch.tensor(lengths).unsqueeze(1)


def encoder(frames=5, d=8):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TemporalAttentionEncoder(frames, d).eval()


def frames(rows=3, count=5, d=8, seed=1):
    return torch.randn(rows, count, d, generator=torch.Generator().manual_seed(seed))


def test_the_weights_of_the_last_five_of_ten():
    weights = recency_weights(mask(10, width=10), gamma=0.9)[0]
    assert weights[-5:].tolist() == pytest.approx([0.0162, 0.0399, 0.0981, 0.2413, 0.5935], abs=5e-5)


def test_the_weights_are_a_geometric_series():
    """The ratio of neighbours is e^gamma, and the last weight is (1 - r) / (1 - r^n) with r = e^-gamma."""
    r = math.exp(-0.5)
    weights = recency_weights(mask(4, width=4), gamma=0.5)[0].tolist()
    last = (1 - r) / (1 - r**4)
    assert weights == pytest.approx([last * r**3, last * r**2, last * r, last], rel=1e-6)


@pytest.mark.parametrize("gamma", [0.1, 0.9, 3.0])
def test_they_sum_to_one_over_the_real_positions(gamma):
    real = mask(1, 3, 6, width=6)
    weights = recency_weights(real, gamma=gamma)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3))
    assert (weights[~real] == 0).all()
    assert (weights[real] > 0).all()


def test_they_do_not_depend_on_the_amount_of_padding():
    lengths = (1, 2, 5)
    narrow, wide = (recency_weights(mask(*lengths, width=width), gamma=0.9) for width in (5, 12))
    assert torch.equal(wide[:, :5], narrow)
    assert (wide[:, 5:] == 0).all()


def test_a_large_rate_looks_at_the_last_item_only():
    weights = recency_weights(mask(1, 3, 5, width=5), gamma=200.0)
    assert torch.equal(weights, torch.eye(5)[[0, 2, 4]])


def test_rate_zero_is_the_plain_mean():
    assert recency_weights(mask(4, width=6), gamma=0.0)[0].tolist() == [0.25] * 4 + [0.0] * 2


def test_an_empty_history_has_no_weight():
    assert (recency_weights(mask(0, width=4), gamma=0.9) == 0).all()


@pytest.mark.parametrize("count", range(1, 9))
def test_the_shape_stays(count):
    assert encoder(count)(frames(count=count)).shape == (3, count, 8)


def test_the_output_is_normalised():
    """The diffusion over it adds noise of variance 1."""
    encoded = encoder()(100.0 * frames() + 7.0)
    torch.testing.assert_close(encoded.mean(dim=-1), torch.zeros(3, 5), atol=1e-5, rtol=0.0)
    torch.testing.assert_close(encoded.var(dim=-1, unbiased=False), torch.ones(3, 5), atol=1e-3, rtol=0.0)


def test_only_the_positions_know_the_order():
    model, order = encoder(), torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        model.positions.weight.normal_(generator=torch.Generator().manual_seed(2))
        moved = (model(frames()[:, order]) - model(frames())[:, order]).abs().max()
        model.positions.weight.zero_()
        torch.testing.assert_close(model(frames()[:, order]), model(frames())[:, order], rtol=1e-4, atol=1e-5)
    assert moved > 0.1


def test_every_frame_sees_every_other():
    model, changed = encoder(), frames()
    changed[:, 4] += 1.0 + torch.arange(8)
    difference = (model(changed) - model(frames())).abs().amax(dim=-1)
    assert (difference > 1e-4).all()
