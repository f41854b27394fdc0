"""DiffuRec: its schedule in numbers, the reverse process step by step, blindness to order."""

import pytest
import torch
from histories import batch, seeded
from torch import nn

from models.evaluation.mode import eval_mode
from models.registry import build

N_ITEMS, D = 12, 8
SMALL = {"d": D, "layers": 2, "heads": 2, "dropout": 0.0, "embedding_dropout": 0.0, "max_length": 6}


def model(**changes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build("diffurec", SMALL | changes, n_items=N_ITEMS)


def score(diffurec, one=None, seed=0):
    with eval_mode(diffurec):
        return diffurec.score(one or batch(), generator=seeded(seed))


class Spy(nn.Module):
    """An approximator with a fixed answer that remembers what it was shown."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer
        self.seen = []

    def encode(self, sequence):
        return sequence

    def forward(self, x_t, t, encoded, mask, *, generator):
        self.seen.append((x_t, t))
        return self.answer.expand_as(x_t)


def restored(diffurec, one):
    with eval_mode(diffurec):
        return diffurec.restore(one, generator=seeded(5))


def test_the_schedule_in_numbers():
    """Truncated linear, 32 steps: beta from 0.013125 to 0.635, and what is left of the signal."""
    schedule = model().schedule
    assert schedule.steps == 32
    assert [float(schedule.betas[i]) for i in (0, 31)] == pytest.approx([0.013125, 0.635], rel=1e-5)
    assert [float(schedule.alpha_bar[i]) for i in (0, 15, 31)] == pytest.approx([0.98687, 0.05198, 9.9e-7], rel=5e-3)
    last = [float(table[31]) for table in (schedule.posterior_x0, schedule.posterior_xt, schedule.posterior_variance)]
    assert last == pytest.approx([0.001046, 0.604151, 0.634999], rel=1e-3)


@pytest.mark.parametrize(("noise", "second"), [("fixedsmall", 0.0094945), ("fixedlarge", 0.033184)])
def test_the_reverse_process_step_by_step(noise, second):
    """With the answer 0 a step is the posterior's factor times the state, plus noise of the given variance."""
    diffurec, one = model(reverse_noise=noise), batch([3, 1, 4])
    diffurec.approximator = spy = Spy(torch.zeros(1, D))
    final = restored(diffurec, one)
    assert [int(t) for _, t in spy.seen] == list(range(31, -1, -1))
    generator = seeded(5)
    draws = [torch.randn(1, D, generator=generator) for _ in range(32)]  # the start, and one for each step but the last
    states = [x for x, _ in spy.seen]
    torch.testing.assert_close(states[0], draws[0])
    torch.testing.assert_close(states[1], 0.604151 * states[0] + 0.635**0.5 * draws[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(states[31], 0.281317 * states[30] + second**0.5 * draws[31], rtol=1e-3, atol=1e-4)
    assert final.abs().max() == 0.0


def test_a_perfect_approximator_is_believed():
    diffurec, one = model(), batch()
    diffurec.approximator = Spy(torch.linspace(-1.0, 1.0, D).unsqueeze(0))
    torch.testing.assert_close(restored(diffurec, one), torch.linspace(-1.0, 1.0, D).expand(5, -1))


def test_the_loss_by_hand():
    """Cross-entropy of the estimate among real items, and nothing else; the network sees q(x_t | x_0)."""
    diffurec, one = model(), batch()
    answer = torch.randn(1, D, generator=seeded(1))
    diffurec.approximator = spy = Spy(answer)
    with torch.no_grad():
        diffurec.items.weight[0] = 100.0 * answer[0]  # were padding a class, it would win
    terms = diffurec.training_loss(one, generator=seeded(2))
    logits = diffurec.items.table.detach()[1:] @ answer[0]
    expected = (torch.logsumexp(logits, dim=0) - logits[one.target - 1]).mean()
    assert terms.total.item() == pytest.approx(expected.item(), rel=1e-5)
    ((x_t, t),) = spy.seen
    alpha_bar = diffurec.schedule.alpha_bar[t].unsqueeze(1)
    generator = seeded(2)
    torch.randint(32, (5,), generator=generator)
    noise = torch.randn(5, D, generator=generator)
    expected = alpha_bar.sqrt() * diffurec.items(one.target) + (1.0 - alpha_bar).sqrt() * noise
    torch.testing.assert_close(x_t, expected)


def test_every_step_is_trained():
    diffurec, steps = model(steps=4), set()
    for seed in range(20):
        diffurec.approximator = spy = Spy(torch.zeros(1, D))
        diffurec.training_loss(batch(), generator=seeded(seed))
        steps |= set(spy.seen[0][1].tolist())
    assert steps == {0, 1, 2, 3}


@pytest.mark.parametrize("pos_emb", [False, True])
def test_without_positions_only_the_last_item_has_a_place(pos_emb):
    diffurec = model(pos_emb=pos_emb)
    if pos_emb:
        nn.init.normal_(diffurec.approximator.positions.weight, generator=seeded(3))
    usual, shuffled, other = (score(diffurec, batch(ids))[:, 1:] for ids in ([3, 1, 4, 9], [4, 3, 1, 9], [3, 1, 9, 4]))
    assert bool((shuffled - usual).abs().max() > 1e-3) == pos_emb
    assert (other - usual).abs().max() > 1e-3


def test_the_noisy_vector_has_the_weight_delta():
    """lambda = delta (1 + z) in training, delta in evaluation: seen in how far the output moves with x_t."""
    one, x_t = batch([3, 1, 4]), torch.randn(1, D, generator=seeded(4))
    moves = {}
    for delta in (0.001, 0.1):
        network = model(delta=delta).approximator.eval()
        encoded, t = torch.randn(1, 3, D, generator=seeded(6)), torch.tensor([5])
        first, second = (network(x, t, encoded, one.mask, generator=seeded()) for x in (x_t, -x_t))
        moves[delta] = float((first - second).norm().detach())
    assert 20.0 < moves[0.1] / moves[0.001] < 500.0  # 100 were the network linear
    network.train()
    assert not torch.equal(*(network(x_t, t, encoded, one.mask, generator=seeded(seed)) for seed in (1, 2)))


def test_padding_is_not_attended_to():
    diffurec, one = model(), batch([3, 1, 4], [5, 9])
    before = score(diffurec, one)
    with torch.no_grad():
        diffurec.items.weight[0] = 10.0
    torch.testing.assert_close(score(diffurec, one)[1], before[1])


def test_dropout_of_item_vectors_acts_in_training_only():
    diffurec, sequence = model(embedding_dropout=0.5), torch.ones(1, 3, D)
    usual = model().approximator.encode(sequence)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert not torch.equal(diffurec.approximator.train().encode(sequence), usual)
    assert torch.equal(diffurec.approximator.eval().encode(sequence), usual)


def test_the_size_counted_by_hand():
    block = (4 * D * D + 3 * D) + (8 * D * D + 5 * D) + 4 * D  # attention, feed-forward 4 d, two norms
    expected = 13 * D + (8 * D * D + 5 * D) + 2 * D + 2 * block + 2 * D  # table, step embedding, norms
    sizes = [sum(value.numel() for value in model(pos_emb=on).parameters()) for on in (False, True)]
    assert sizes == [expected, expected + 6 * D]
