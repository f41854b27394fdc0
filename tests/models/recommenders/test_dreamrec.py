"""DreamRec: the error by hand, the guidance formula, hidden histories, and what holds item vectors apart."""

import pytest
import torch
from denoisers import Conditioned
from histories import batch, seeded

from models.errors import ConfigError
from models.evaluation.mode import eval_mode
from models.registry import build

N_ITEMS, D = 12, 8
SMALL = {"d": D, "steps": 6, "dropout": 0.0, "max_length": 6}


def model(**changes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build("dreamrec", SMALL | changes, n_items=N_ITEMS)


class Spy(Conditioned):
    """A denoiser that answers with a function of the guidance and remembers what it was shown."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer
        self.seen = []

    def forward(self, x_t, t, guidance):
        self.seen.append((x_t, t, guidance))
        return self.answer(guidance)


def generated(dreamrec, one=None, seed=0):
    with eval_mode(dreamrec):
        return dreamrec.generate(one or batch(), generator=seeded(seed))


def test_the_error_by_hand():
    """Mean over batch and width of (x_0 - f)^2; f sees q(x_t | x_0)."""
    dreamrec, one = model(), batch()
    answer = torch.randn(5, D, generator=seeded(1))
    dreamrec.mlp = spy = Spy(lambda _: answer)
    total = dreamrec.training_loss(one, generator=seeded(2)).total
    x_0 = dreamrec.encoder.items.table.detach()[one.target]
    assert total.item() == pytest.approx(float(((x_0 - answer) ** 2).sum() / (5 * D)), rel=1e-5)
    ((x_t, t, _),) = spy.seen
    generator = seeded(2)
    torch.rand(5, 1, generator=generator)
    torch.randint(6, (5,), generator=generator)
    alpha_bar = dreamrec.schedule.alpha_bar[t].unsqueeze(1)
    expected = alpha_bar.sqrt() * x_0 + (1.0 - alpha_bar).sqrt() * torch.randn(5, D, generator=generator)
    torch.testing.assert_close(x_t, expected)


@pytest.mark.parametrize("w", [0.0, 2.0, 4.0])
def test_the_guidance_formula(w):
    """(1 + w) f(c) - w f(none); the last step returns the estimate itself."""
    dreamrec, one = model(w=w), batch()
    dreamrec.mlp = spy = Spy(lambda guidance: 3.0 * guidance)
    with torch.no_grad():
        guidance, none = dreamrec.guidance(one), dreamrec.none
        expected = (1.0 + w) * 3.0 * guidance - w * 3.0 * none
    torch.testing.assert_close(generated(dreamrec, one), expected)
    assert [int(t[0]) for _, t, _ in spy.seen] == [5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0]


def test_the_share_p_of_the_histories_is_hidden_in_training_and_none_in_serving():
    dreamrec, hidden, rows = model(p=0.25), 0, 0
    for seed in range(200):
        dreamrec.mlp = spy = Spy(lambda guidance: guidance)
        dreamrec.training_loss(batch(), generator=seeded(seed))
        hidden += int((spy.seen[0][2] == dreamrec.none).all(dim=1).sum())
        rows += 5
    assert abs(hidden - 0.25 * rows) < 4 * (rows * 0.25 * 0.75) ** 0.5
    dreamrec.mlp = spy = Spy(lambda guidance: guidance)
    generated(dreamrec)
    for _, _, guidance in spy.seen[::2]:
        torch.testing.assert_close(guidance, dreamrec.guidance(batch()))


@pytest.mark.parametrize(
    ("schedule", "steps", "last"),
    [("linear", 500, 0.006353), ("linear", 1000, 4.04e-5), ("linear", 20, 0.81678), ("exp", 500, 0.0064)],
)
def test_schedules_in_numbers(schedule, steps, last):
    assert float(model(schedule=schedule, steps=steps).schedule.alpha_bar[-1]) == pytest.approx(last, rel=0.01)


@pytest.mark.parametrize(
    ("denoiser", "size"), [("mlp1", 3 * D * D + D), ("mlp2", (6 * D * D + 2 * D) + (2 * D * D + D))]
)
def test_the_denoiser_is_one_linear_map_or_two(denoiser, size):
    network = model(denoiser=denoiser).mlp
    assert sum(value.numel() for value in network.layers.parameters()) == size
    x, c, t = (torch.randn(2, D, generator=seeded(seed)) for seed in range(3)), None, torch.tensor([0, 5])
    first, second, c = x
    left, right, middle = (network(one, t, c) for one in (first, second, (first + second) / 2))
    linear = bool(((left + right) / 2 - middle).abs().max() < 1e-6)
    assert linear == (denoiser == "mlp1")


def test_the_guidance_is_a_causal_transformer_of_one_block_and_one_head():
    dreamrec = model().eval()
    assert len(dreamrec.encoder.transformer.blocks) == 1
    assert dreamrec.encoder.transformer.blocks[0].attention.heads == 1
    longer, shorter = (dreamrec.encoder(one.item_ids, one.mask) for one in (batch([3, 1, 4]), batch([3, 1])))
    torch.testing.assert_close(longer[:, :2], shorter)
    torch.testing.assert_close(dreamrec.guidance(batch([3, 1, 4], [5, 9]))[1:], dreamrec.guidance(batch([5, 9])))


def test_dropout_is_off_in_evaluation():
    dreamrec = model(dropout=0.5)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = generated(dreamrec)
        assert torch.equal(generated(dreamrec), first)
        losses = {dreamrec.train().training_loss(batch(), generator=seeded()).total.item() for _ in range(3)}
    assert len(losses) == 3


def test_a_score_is_the_inner_product_with_what_was_generated():
    dreamrec = model()
    with eval_mode(dreamrec):
        scores = dreamrec.score(batch(), generator=seeded())
    table = dreamrec.encoder.items.table.detach()
    torch.testing.assert_close(scores[:, 1:], generated(dreamrec) @ table[1:].T)
    assert (scores[:, 0] == -torch.inf).all()


@pytest.mark.parametrize("detach", [False, True])
def test_the_error_moves_the_target_unless_detached(detach):
    dreamrec = model(detach_target=detach)
    dreamrec.training_loss(batch([3, 1, 4], target=[7]), generator=seeded()).total.backward()
    assert bool(dreamrec.encoder.items.weight.grad[7].abs().max() > 0) == (not detach)


def test_attached_targets_drift_together():
    """Equal vectors have no error: the spread of the targets falls when the error may move them."""
    spread = {}
    for detach in (False, True):
        dreamrec = model(detach_target=detach)
        optimiser = torch.optim.Adam(dreamrec.parameters(), lr=0.02)
        for step in range(100):
            optimiser.zero_grad()
            dreamrec.training_loss(batch(), generator=seeded(step)).total.backward()
            optimiser.step()
        targets = dreamrec.encoder.items.table[batch().target.unique()].detach()
        spread[detach] = float(targets.std(dim=0).mean())
    assert spread[False] < 0.7 * spread[True]


def test_impossible_shares_are_refused():
    with pytest.raises(ConfigError, match="p: "):
        model(p=1.0)
