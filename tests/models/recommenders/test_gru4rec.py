import pytest
import torch
from histories import loss_of, with_targets

from models.registry import build

SMALL = {"d": 6, "hidden": 5, "dropout": 0.0}


def model(seed=0, **config):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build("gru4rec", SMALL | config, n_items=12)


def test_the_state_follows_the_equations_of_the_unit():
    """Reset and update gate and candidate, written out (Cho et al. 2014, in the form of cuDNN)."""
    gru = model().eval()
    reset_x, update_x, new_x = gru.gru.weight_ih_l0.detach().chunk(3)
    reset_h, update_h, new_h = gru.gru.weight_hh_l0.detach().chunk(3)
    state = torch.zeros(5)
    for item in (3, 1, 4):
        x = gru.items.table[item].detach()
        reset = torch.sigmoid(reset_x @ x + reset_h @ state)
        update = torch.sigmoid(update_x @ x + update_h @ state)
        new = torch.tanh(new_x @ x + reset * (new_h @ state))
        state = (1 - update) * new + update * state
    expected = gru.items.table.detach() @ (gru.out.weight.detach() @ state + gru.out.bias.detach())
    found = gru.score(with_targets([[3, 1, 4, 0]], [[1, 4, 2, 0]]), generator=torch.Generator()).detach()[0]
    torch.testing.assert_close(found[1:], expected[1:])


def test_all_positions_are_the_mean_over_all_prefixes():
    gru = model()
    whole = loss_of(gru, [[3, 1, 4, 0], [5, 9, 0, 0]], [[1, 4, 2, 0], [9, 6, 0, 0]])
    prefixes = [([3], [1]), ([3, 1], [1, 4]), ([3, 1, 4], [1, 4, 2]), ([5], [9]), ([5, 9], [9, 6])]
    single = [loss_of(gru, [ids], [targets], last_only=True) for ids, targets in prefixes]
    assert whole == pytest.approx(sum(single) / 5, rel=1e-5)


def test_the_score_is_the_softmax_of_the_loss():
    gru = model().eval()
    scores = gru.score(with_targets([[3, 1, 4]], [[1, 4, 2]]), generator=torch.Generator())
    expected = -torch.log_softmax(scores[0], dim=0)[2].item()
    assert loss_of(gru, [[3, 1, 4]], [[1, 4, 2]], last_only=True) == pytest.approx(expected, rel=1e-5)


def test_the_order_of_the_history_matters():
    gru = model().eval()
    first, second = (
        gru.score(with_targets([ids], [[1, 1, 1]]), generator=torch.Generator()) for ids in ([3, 1, 4], [1, 3, 4])
    )
    assert (first - second)[:, 1:].abs().max() > 1e-4


@pytest.mark.parametrize("layers", [1, 2])
def test_the_size_is_counted_by_hand(layers):
    """Items, three gates from input and state without biases, and the linear layer."""
    d, hidden = 6, 5
    expected = 13 * d + 3 * hidden * (d + hidden) + (layers - 1) * 3 * hidden * 2 * hidden + hidden * d + d
    assert sum(parameter.numel() for parameter in model(layers=layers).parameters()) == expected
