import pytest
import torch

from models.config import parse_strict
from models.errors import ConfigError
from models.modules.losses import full_softmax_loss, gbce_loss, sampled_softmax_loss
from models.modules.softmax_head import SoftmaxHead, SoftmaxHeadConfig


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def inputs(m=6, n=20, d=4):
    return (
        torch.randn(m, d, generator=seeded(1)),
        torch.randn(n + 1, d, generator=seeded(2)),
        torch.randint(1, n + 1, (m,), generator=seeded(3)),
    )


def test_the_default_is_the_full_softmax_and_draws_nothing():
    generator = seeded()
    loss = SoftmaxHead(SoftmaxHeadConfig(), 20)(*inputs(), generator=generator)
    assert loss == full_softmax_loss(*inputs())
    assert torch.equal(generator.get_state(), seeded().get_state())


def test_sampled_shares_its_negatives_and_gbce_does_not():
    sampled = SoftmaxHead(SoftmaxHeadConfig(loss="sampled", negatives=5), 20)(*inputs(), generator=seeded())
    shared = torch.randint(1, 21, (5,), generator=seeded())
    assert sampled == sampled_softmax_loss(*inputs(), shared)
    gbce = SoftmaxHead(SoftmaxHeadConfig(loss="gbce", negatives=5), 20)(*inputs(), generator=seeded())
    own = torch.randint(1, 21, (6, 5), generator=seeded())
    assert gbce == gbce_loss(*inputs(), own, n_items=20, calibration=0.75)


def by_popularity(counts, negatives=1):
    head = SoftmaxHead(SoftmaxHeadConfig(loss="sampled", negatives=negatives, negative_draw="popularity"), 4)
    head.fit_counts(torch.tensor(counts))
    return head


def test_draws_by_popularity_follow_the_counts_plus_one():
    """Counts 0, 1, 3, 4 and one more each: shares 1/12, 2/12, 4/12, 5/12; padding never."""
    head = by_popularity([99, 0, 1, 3, 4])
    assert head.log_q.exp().tolist() == pytest.approx([0, 1 / 12, 2 / 12, 4 / 12, 5 / 12])
    drawn = torch.bincount(head._draw(seeded(), 120_000), minlength=5)
    # Four standard deviations of a count of 50,000 are below 700.
    assert drawn.tolist() == pytest.approx([0, 10_000, 20_000, 40_000, 50_000], abs=700)


def test_the_correction_makes_the_sampled_gradient_that_of_the_softmax():
    """With many draws by popularity the gradient comes near the full one; without the correction it stays away."""
    h, table, target = inputs(m=3, n=4)
    head = by_popularity([0, 0, 1, 3, 40], negatives=200_000)

    def gradient(loss):
        return torch.autograd.grad(loss(h.requires_grad_()), h)[0]

    exact = gradient(lambda h: full_softmax_loss(h, table, target))
    # The target's own share of the softmax is one candidate among 200,000 here, so leave it out on both sides.
    logits = h.detach() @ table[1:].T
    others = logits.scatter(1, target[:, None] - 1, float("-inf")).softmax(dim=1) @ table[1:]
    found = gradient(lambda h: head(h, table, target, generator=seeded()))
    plain = gradient(lambda h: sampled_softmax_loss(h, table, target, head._draw(seeded(), 200_000)))
    wanted = (others - table[target]) / 3
    assert exact.shape == wanted.shape
    assert (found - wanted).abs().max() < 0.02
    assert (plain - wanted).abs().max() > 0.1


def test_what_draws_depend_on_is_saved_and_nothing_else():
    assert SoftmaxHead(SoftmaxHeadConfig(loss="gbce"), 4).state_dict() == {}
    head = by_popularity([0, 5, 1, 3, 4])
    restored = SoftmaxHead(head.config, 4)
    restored.load_state_dict(head.state_dict())
    assert torch.equal(restored._draw(seeded(), 50), head._draw(seeded(), 50))
    with pytest.raises(ValueError, match="no use for counts"):
        SoftmaxHead(SoftmaxHeadConfig(), 4).fit_counts(torch.ones(5))


@pytest.mark.parametrize("values", [{"loss": "bpr"}, {"negatives": 0}, {"calibration": 1.5}, {"negative_draw": "x"}])
def test_impossible_settings_are_refused(values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        parse_strict(SoftmaxHeadConfig, values, where="x.toml")
