"""DimeRec: the losses by hand, the sphere, where gradients go, and every switch."""

import math

import pytest
import torch
from histories import batch, seeded
from torch import nn

from models.errors import ConfigError
from models.evaluation.mode import eval_mode
from models.recommenders.dimerec import Config, required_features
from models.registry import build

N_ITEMS = 12
SMALL = {"d": 8, "hidden": 16, "steps": 5, "dropout": 0.0, "max_length": 6, "inner": 16, "embedding_std": 0.5}


def model(n_items=N_ITEMS, **changes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build("dimerec", SMALL | changes, n_items=n_items)


def score(dimerec, one=None, seed=0):
    with eval_mode(dimerec):
        return dimerec.score(one or batch(), generator=seeded(seed))


def vectors(dimerec, seed=0):
    with eval_mode(dimerec):
        return dimerec.user_vectors(batch(), generator=seeded(seed))


def loss(dimerec, one=None, seed=0):
    return dimerec.training_loss(one or batch(), generator=seeded(seed))


class Spy(nn.Module):
    """A denoiser with a fixed answer that remembers what it was shown."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer
        self.seen = []

    def forward(self, x_t, t, interests):
        self.seen.append((x_t, t))
        return self.answer


def gradient_size(module):
    gradients = [value.grad for value in module.parameters() if value.grad is not None]
    return max((float(gradient.abs().max()) for gradient in gradients), default=0.0)


def test_the_three_losses_by_hand():
    """Eq. 18-19 and 21-23. Only item 6 is neither in the history nor the target: it is all ten negatives."""
    dimerec = model(n_items=6, lambda_recon=0.1, mu_ssm=3.0)
    one = batch([3, 1, 4, 2], target=[5])
    answer = torch.randn(1, 8, generator=seeded(1))
    dimerec.denoiser = Spy(answer)
    table = dimerec.items.table.detach()
    positive, negative = table[5], table[6]

    def ranking(h):
        up, down = math.exp(h @ positive), math.exp(h @ negative)
        return -math.log(up / (up + 10 * down))

    interests = dimerec.interests(one)[0].detach()
    nearest = max(interests, key=lambda g: float(g @ positive))
    parts = loss(dimerec, one).parts
    assert parts["guidance"].item() == pytest.approx(ranking(nearest), rel=1e-4)
    unit = positive / positive.norm()
    assert parts["reconstruction"].item() == pytest.approx(0.1 * float(((unit - answer) ** 2).sum()), rel=1e-4)
    assert parts["ranking"].item() == pytest.approx(3.0 * ranking(answer[0]), rel=1e-4)
    assert loss(dimerec, one).total.item() == pytest.approx(sum(part.item() for part in parts.values()), rel=1e-5)


def test_the_network_is_trained_on_unit_vectors_at_every_step():
    dimerec, steps = model(), set()
    for seed in range(20):
        dimerec.denoiser = Spy(torch.zeros(5, 8))
        loss(dimerec, seed=seed)
        ((x_t, t),) = dimerec.denoiser.seen
        torch.testing.assert_close(x_t.norm(dim=1), torch.ones(5))
        steps |= set(t.tolist())
    assert steps == set(range(5))


def test_an_oracle_is_reproduced_as_a_direction_and_scored_by_inner_product():
    dimerec = model()
    answer = 3.0 * torch.randn(5, 8, generator=seeded(1))
    dimerec.denoiser = Spy(answer)
    expected = answer / answer.norm(dim=1, keepdim=True)
    torch.testing.assert_close(vectors(dimerec), expected)  # beta-tilde is 0 at the last step
    torch.testing.assert_close(score(dimerec)[:, 1:], (expected @ dimerec.items.table.T)[:, 1:])


def test_every_reverse_state_is_on_the_sphere():
    dimerec = model()
    dimerec.denoiser = Spy(torch.randn(5, 8, generator=seeded(1)))
    vectors(dimerec)
    assert [t.tolist() for _, t in dimerec.denoiser.seen] == [[step] * 5 for step in (4, 3, 2, 1, 0)]
    for state, _ in dimerec.denoiser.seen:
        torch.testing.assert_close(state.norm(dim=1), torch.ones(5))


@pytest.mark.parametrize("options", [{"normalise_start": False}, {"grw": "euclidean"}], ids=str)
def test_the_start_is_gaussian_where_asked(options):
    dimerec = model(**options)
    dimerec.denoiser = Spy(torch.zeros(5, 8))
    vectors(dimerec)
    start = dimerec.denoiser.seen[0][0]
    assert (start.norm(dim=1) - 1).abs().min() > 0.1
    assert torch.equal(start, start[:1].expand(5, -1))  # one draw for all users


def test_intermediate_states_can_be_served():
    """Fig. 5: after all steps it is the usual vector, before that another one of length 1."""
    usual = vectors(model())
    for steps in range(1, 6):
        found = vectors(model(infer_steps=steps))
        torch.testing.assert_close(found.norm(dim=1), torch.ones(5))
        assert torch.allclose(found, usual) == (steps == 5)


def test_without_diffusion_it_is_comirec():
    """Serving with the interests: max over k of (A^T H)_k . e, written out again from the weights."""
    dimerec = model(encoder="items", serve="interests", use_recon=False, use_ssm=False)
    assert list(loss(dimerec).parts) == ["guidance"]
    table, guidance = dimerec.items.table.detach(), dimerec.guidance
    for history in ([3, 1, 4], [2]):
        h = table[history]
        with torch.no_grad():
            weights = guidance.weights(h.unsqueeze(0), torch.ones(1, len(history), dtype=torch.bool))[0]  # [l, k]
        expected = torch.stack([(weights[:, k] @ h) @ table.T for k in range(4)]).amax(dim=0)
        torch.testing.assert_close(score(dimerec, batch(history))[0, 1:], expected[1:])


def test_permuting_the_interests_changes_no_guidance_loss():
    dimerec = model()
    before, order = loss(dimerec).parts["guidance"], torch.tensor([3, 1, 0, 2])
    interests = dimerec.interests(batch())
    with torch.no_grad():
        dimerec.guidance.out.weight.copy_(dimerec.guidance.out.weight[order].clone())
    torch.testing.assert_close(dimerec.interests(batch()), interests[:, order])
    torch.testing.assert_close(loss(dimerec).parts["guidance"], before)


def test_the_guidance_loss_leaves_the_denoiser_alone():
    dimerec = model(use_recon=False, use_ssm=False)
    loss(dimerec).total.backward()
    assert gradient_size(dimerec.denoiser) == 0.0
    assert gradient_size(dimerec.guidance) > 0.0


@pytest.mark.parametrize("kept", ["use_recon", "use_ssm"])
@pytest.mark.parametrize("detach", [False, True])
def test_the_diffusion_losses_reach_the_guidance_unless_detached(kept, detach):
    off = {"use_recon": False, "use_ssm": False, "use_gem_loss": False} | {kept: True}
    dimerec = model(**off, detach_guidance=detach)
    loss(dimerec).total.backward()
    assert gradient_size(dimerec.denoiser) > 0.0
    assert (gradient_size(dimerec.guidance) > 0.0) == (not detach)


@pytest.mark.parametrize("detach", [False, True])
def test_the_reconstruction_moves_the_target_unless_detached(detach):
    dimerec = model(use_ssm=False, use_gem_loss=False, detach_target=detach)
    loss(dimerec, batch([3, 1, 4], target=[7])).total.backward()
    assert bool(dimerec.items.weight.grad[7].abs().max() > 0) == (not detach)


def test_unit_scores_are_cosines():
    dimerec = model(score_norm=True)
    assert score(dimerec)[:, 1:].abs().max() <= 1.0 + 1e-6
    table = dimerec.items.table.detach()[1:]
    expected = vectors(dimerec) @ (table / table.norm(dim=1, keepdim=True)).T
    torch.testing.assert_close(score(dimerec)[:, 1:], expected)


@pytest.mark.parametrize(("gem", "interests"), [("sa", 4), ("dr", 4), ("mlp", 4), ("rule", 4), ("sasrec", 1)])
def test_every_guidance_trains_and_scores(gem, interests):
    dimerec = model(gem=gem)
    assert dimerec.interests(batch()).shape == (5, interests, 8)
    terms = loss(dimerec)
    terms.total.backward()
    assert terms.total.isfinite()
    assert gradient_size(dimerec.encoder) > 0.0
    assert score(dimerec)[:, 1:].isfinite().all()


def test_sasrec_s_guidance_is_the_encoder_at_the_last_item():
    dimerec, one = model(gem="sasrec").eval(), batch([3, 1, 4], [5, 9])
    hidden = dimerec.encoder(one.item_ids, one.mask)
    torch.testing.assert_close(dimerec.interests(one)[:, 0], torch.stack((hidden[0, 2], hidden[1, 1])))


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"interests": 5}, 8 * 16 + 4 * 8),  # one more input block of the MLP, one more row of W2
        ({"hidden": 17}, 6 * 8 + 1 + 8),
        ({"gem": "rule"}, -(6 * 8 + (8 * 32 + 32) + 32 * 4)),  # positions, W1 with bias, W2 without
    ],
    ids=str,
)
def test_switches_change_the_size(changes, difference):
    sizes = [sum(value.numel() for value in dimerec.parameters()) for dimerec in (model(**changes), model())]
    assert sizes[0] - sizes[1] == difference


@pytest.mark.parametrize(
    ("switch", "value"),
    [
        ("use_gem_loss", False),
        ("use_recon", False),
        ("use_ssm", False),
        ("lambda_recon", 0.5),
        ("mu_ssm", 10.0),
        ("grw", "scaled"),
        ("grw", "multistep"),
        ("grw", "euclidean"),
        ("score_norm", True),
        ("negatives", 5),
        ("schedule", "cosine"),
        ("steps", 9),
        ("encoder", "items"),
        ("gem", "dr"),
        ("gem", "rule"),
        ("gem", "mlp"),
    ],
    ids=str,
)
def test_switches_change_the_loss(switch, value):
    other, usual = loss(model(**{switch: value})), loss(model())
    assert abs(other.total.item() - usual.total.item()) > 1e-5


@pytest.mark.parametrize(
    ("switch", "value"),
    [("rev_noise", "fixedsmall"), ("rev_noise", "none"), ("normalise_start", False), ("serve", "interests")],
    ids=str,
)
def test_switches_change_the_scores_and_not_the_weights(switch, value):
    other, usual = model(**{switch: value}), model()
    assert all(torch.equal(value, usual.state_dict()[key]) for key, value in other.state_dict().items())
    assert (score(other) - score(usual))[:, 1:].abs().max() > 1e-6


def test_it_needs_no_feature_table():
    assert required_features(Config()) == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_gem_loss": False, "use_recon": False, "use_ssm": False}, "all three losses are off"),
        ({"gem": "sasrec", "encoder": "items"}, "set encoder='transformer'"),
        ({"infer_steps": 6}, "expected at most steps=5"),
    ],
    ids=["no loss", "sasrec without transformer", "too many steps"],
)
def test_impossible_configurations_say_what_to_do(changes, message):
    with pytest.raises(ConfigError, match=message):
        model(**changes)
