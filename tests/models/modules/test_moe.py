import pytest
import torch

from models.modules.moe import MixtureOfExperts


def mixture(d=3, experts=4, gate_width=2):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        moe = MixtureOfExperts(d, experts, gate_width=gate_width)
    torch.nn.init.normal_(moe.bias, generator=torch.Generator().manual_seed(1))
    return moe


def rows(width, seed, count=5):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def test_gates_are_a_distribution_over_the_experts():
    gates = mixture().gates(rows(2, 2) * 3)
    assert gates.shape == (5, 4)
    assert (gates > 0).all()
    torch.testing.assert_close(gates.sum(dim=1), torch.ones(5))


@pytest.mark.parametrize("expert", range(4))
def test_a_one_hot_gate_is_that_expert(expert):
    moe, x = mixture(), rows(3, 3)
    gates = torch.zeros(5, 4)
    gates[:, expert] = 1.0
    expected = torch.nn.functional.linear(x, moe.weight[expert], moe.bias[expert])
    torch.testing.assert_close(moe.mix(x, gates), expected)


def test_the_mixture_is_the_written_sum_with_the_gate_on_the_guide():
    moe, x, guide = mixture(), rows(3, 3), rows(2, 4)
    gate = torch.softmax(guide @ moe.gate.weight.T + moe.gate.bias, dim=1)
    expected = torch.einsum("mn,noi,mi->mo", gate, moe.weight, x) + torch.einsum("mn,no->mo", gate, moe.bias)
    torch.testing.assert_close(moe(x, guide), expected)
