"""The mixture of experts by hand, with and without its noise, and what is kept between calls."""

import math

import pytest
import torch

from models.modules.feature_table import FeatureTable
from models.modules.text_adaptor import TextAdaptor

N_ITEMS, WIDTH, D, EXPERTS, LONGEST = 6, 5, 3, 4, 4
IDS = torch.tensor([[2, 5, 2, 0], [3, 0, 0, 0]])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def adaptor(*, dropout=0.0, trained=True):
    table = torch.randn(N_ITEMS + 1, WIDTH, generator=seeded(1))
    table[0] = 0.0
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = TextAdaptor(FeatureTable(table), D, experts=EXPERTS, dropout=dropout, max_length=LONGEST)
    if trained:
        with torch.no_grad():
            for number, parameter in enumerate(made.parameters()):
                parameter.normal_(generator=seeded(10 + number))
    return made


def run(made, seed=0, ids=IDS):
    return made(ids, ids > 0, generator=seeded(seed))


def by_hand(made, item, position, z):
    """The class's formula for one item, expert by expert; ``z`` is the noise of its gates, None for none."""
    x = made.features.table[item]
    logits = x @ made.gate
    if z is not None:
        logits = logits + z * (torch.log1p(torch.exp(x @ made.noise)) + 0.01)
    gates = torch.exp(logits) / torch.exp(logits).sum()
    return sum(gates[e] * ((x - made.shift[e, position]) @ made.weight[e]) for e in range(EXPERTS))


def test_without_noise_it_is_the_mixture_of_the_shifted_text():
    made = adaptor().eval()
    found = run(made)
    for row, position in IDS.nonzero().tolist():
        torch.testing.assert_close(found[row, position], by_hand(made, IDS[row, position], position, None))
    assert found[IDS == 0].abs().max() == 0.0


def test_in_training_every_occurrence_has_a_draw_of_its_own():
    made = adaptor().train()
    found, z = run(made, seed=7), torch.randn(4, EXPERTS, generator=seeded(7))
    for number, (row, position) in enumerate(IDS.nonzero().tolist()):
        torch.testing.assert_close(found[row, position], by_hand(made, IDS[row, position], position, z[number]))
    assert found[IDS == 0].abs().max() == 0.0
    with torch.no_grad():
        made.shift.zero_()
    assert (run(made)[0, 0] - run(made)[0, 2]).abs().max() > 1e-3  # both are item 2
    made.eval()
    torch.testing.assert_close(run(made)[0, 0], run(made)[0, 2])


def test_it_starts_with_equal_gates_no_shift_and_noise_of_log_two():
    made = adaptor(trained=False)
    with torch.no_grad():
        _, gates = made.catalogue()
        assert gates.tolist() == [[1 / EXPERTS] * EXPERTS] * (N_ITEMS + 1)
        assert made.shift.abs().max() == 0.0
        z = torch.randn(4, EXPERTS, generator=seeded(3))
        x = made.features.table[2]
        share = torch.softmax(z[0] * (math.log(2.0) + 0.01), dim=0)
        torch.testing.assert_close(run(made.train(), seed=3)[0, 0], (share @ torch.stack([x @ w for w in made.weight])))


def test_dropout_acts_in_training_only():
    made = adaptor(dropout=0.5)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = run(made.train())
        assert (run(made) - first).abs().max() > 1e-3
    torch.testing.assert_close(run(made.eval()), run(adaptor().eval()))


def test_both_ways_train_every_weight():
    for mode in (True, False):
        made = adaptor().train(mode)
        run(made).square().sum().backward()
        reached = {name for name, value in made.named_parameters() if value.grad is not None and value.grad.any()}
        assert reached == {"weight", "shift", "gate"} | ({"noise"} if mode else set())


def test_the_catalogue_is_made_once_per_version_of_the_weights():
    made = adaptor().eval()
    with torch.no_grad():
        first = made.catalogue()
        assert made.catalogue() is first
        before = run(made)
        made.gate.add_(torch.randn(made.gate.shape, generator=seeded(4)))
        assert made.catalogue() is not first
        assert (run(made) - before).abs().max() > 1e-3
    assert made.catalogue()[0].requires_grad  # with gradients nothing is kept


def test_the_catalogue_holds_the_texts_through_their_experts():
    made = adaptor()
    mixed, gates = made.catalogue()
    torch.testing.assert_close(gates.sum(dim=1), torch.ones(N_ITEMS + 1))
    each = torch.einsum("nv,evd->ned", made.features.table, made.weight)
    torch.testing.assert_close(mixed, (gates.unsqueeze(-1) * each).sum(dim=1))


def test_histories_beyond_its_reach_are_refused():
    with pytest.raises(ValueError, match="at most 4 items, got 5"):
        run(adaptor(), ids=torch.ones(1, 5, dtype=torch.int64))
