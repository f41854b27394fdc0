"""DimeRec: the losses by hand, the sphere, and where gradients go."""

import math

import pytest
import torch
from denoisers import Conditioned
from dimerec_cases import N_ITEMS, Spy, gradient_size, loss, model, score, vectors
from histories import batch, seeded
from torch import nn

from models.modules.losses import sampled_softmax_loss
from models.modules.negatives import unseen_negatives
from models.recommenders.dimerec import UNIT_TEMPERATURE


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


def test_the_network_is_told_the_step_of_the_walk(monkeypatch):
    told = []

    def walk(schedule, x_0, t, *, mode, generator):
        told.append(t)
        return x_0

    monkeypatch.setattr("models.recommenders.dimerec.random_walk", walk)
    dimerec = model()
    dimerec.denoiser = Spy(torch.zeros(5, 8))
    loss(dimerec)
    assert torch.equal(dimerec.denoiser.seen[0][1], told[0])


def test_the_walk_carries_the_gradient_to_the_target(monkeypatch):
    """With no walk and f(x) = A x, eq. 21 is |u - A u|^2 of the unit target u, and its gradient goes through both."""
    monkeypatch.setattr("models.recommenders.dimerec.random_walk", lambda schedule, x_0, t, mode, generator: x_0)
    dimerec = model(use_gem_loss=False, use_ssm=False, lambda_recon=1.0)
    matrix = torch.randn(8, 8, generator=seeded(1))

    class Linear(nn.Module):
        def forward(self, x_t, t, interests):
            return x_t @ matrix

    dimerec.denoiser = Linear()
    loss(dimerec, batch([3, 1, 4], target=[7])).total.backward()
    target = dimerec.items.weight.detach()[7].requires_grad_()
    unit = target / target.norm()
    (expected,) = torch.autograd.grad((unit - unit @ matrix).square().sum(), target)
    torch.testing.assert_close(dimerec.items.weight.grad[7], expected)


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


def test_a_trained_model_is_read_after_fewer_steps_with_another_configuration():
    """All steps are walked from one draw, so the state after two of them is the second one."""
    dimerec = model()
    seen = dimerec.denoiser = Spy(torch.randn(5, 8, generator=seeded(1)))
    vectors(dimerec)
    dimerec.config = dimerec.config.model_copy(update={"infer_steps": 2})
    torch.testing.assert_close(vectors(dimerec), seen.seen[2][0])


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


def test_the_denoiser_s_dropout_leaves_half_of_the_hidden_layer_doubled():
    """Of an output layer of ones, hidden values h: sum of 2h over the units that stay, and of all h in evaluation."""
    denoiser = model(hidden=64, denoiser_dropout=0.5).denoiser
    first, _, _, last = denoiser.layers
    with torch.no_grad():
        first.weight.zero_()
        first.bias.fill_(100.0)  # GELU of it is itself
        last.weight.fill_(1.0)
        last.bias.zero_()
        given = torch.zeros(500, 8), torch.zeros(500, dtype=torch.int64), torch.zeros(500, 32)
        torch.manual_seed(0)
        sums = denoiser(*given)[:, 0] / 200.0  # units that stay: binomial, mean 32, deviation 4
        assert sums.mean() == pytest.approx(32.0, abs=5 * 4 / 500**0.5)
        assert sums.std() == pytest.approx(4.0, rel=0.2)
        assert (denoiser.eval()(*given) == 6400.0).all()


def test_permuting_the_interests_changes_no_guidance_loss():
    dimerec = model()
    before, order = loss(dimerec).parts["guidance"], torch.tensor([3, 1, 0, 2])
    interests = dimerec.interests(batch())
    with torch.no_grad():
        dimerec.guidance.out.weight.copy_(dimerec.guidance.out.weight[order].clone())
    torch.testing.assert_close(dimerec.interests(batch()), interests[:, order])
    torch.testing.assert_close(loss(dimerec).parts["guidance"], before)


def test_an_unrolled_training_ranks_what_serving_generates():
    """For one row and the same draws: eq. 22 of the vector whose direction serving ends with."""
    dimerec, one = model(train_unroll=True, use_gem_loss=False, use_recon=False), batch([3, 1, 4], target=[5])
    states = []

    class Last(Conditioned):
        def __init__(self, denoiser):
            super().__init__()
            self.inner = denoiser

        def forward(self, x_t, t, guidance):
            states.append(self.inner(x_t, t, guidance))
            return states[-1]

    dimerec.denoiser = Last(dimerec.denoiser)
    total = loss(dimerec, one).total
    assert len(states) == 1 + 5  # eq. 20 once, Algorithm 2 in five steps
    ranked = states[-1].detach()
    exclude = torch.tensor([[3, 1, 4, 5]])
    negatives = unseen_negatives(exclude, 10, n_items=N_ITEMS, generator=seeded())
    expected = sampled_softmax_loss(ranked, dimerec.items.table.detach(), one.target, negatives)
    torch.testing.assert_close(total.detach(), expected)
    draws = seeded()  # those of the loss up to Algorithm 2
    unseen_negatives(exclude, 10, n_items=N_ITEMS, generator=draws)
    dimerec._noised(dimerec.items(one.target), draws)
    with torch.no_grad():
        served = dimerec.user_vectors(one, generator=draws)
    torch.testing.assert_close(served, ranked / ranked.norm())
    total.backward()
    assert gradient_size(dimerec.denoiser) > 0.0
    assert gradient_size(dimerec.guidance) > 0.0


def test_an_unrolled_training_draws_a_start_for_every_row():
    dimerec = model(train_unroll=True)
    dimerec.denoiser = Spy(torch.zeros(3, 8))
    loss(dimerec, batch(*[[3, 1, 4]] * 3, target=[5, 5, 5]))
    start = dimerec.denoiser.seen[1][0]
    assert len({tuple(row) for row in start.tolist()}) == 3
    torch.testing.assert_close(start.norm(dim=1), torch.ones(3))


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


def test_served_interests_are_compared_as_they_were_trained():
    """With unit vectors the nearest interest is that of the largest cosine, not of the largest product."""
    dimerec = model(score_norm=True, serve="interests", use_recon=False, use_ssm=False)
    table = dimerec.items.table.detach()[1:]
    interests = dimerec.interests(batch()).detach()
    cosines = torch.nn.functional.cosine_similarity(interests[:, :, None], table[None, None], dim=-1)  # [5, 4, 12]
    torch.testing.assert_close(score(dimerec)[:, 1:], cosines.amax(dim=1))
    best = cosines.gather(2, (batch().target - 1)[:, None, None].expand(-1, 4, 1)).squeeze(2).argmax(dim=1)
    chosen = interests[torch.arange(5), best]
    chosen = chosen / chosen.norm(dim=1, keepdim=True)
    exclude = torch.cat((batch().item_ids, batch().target[:, None]), dim=1)
    negatives = unseen_negatives(exclude, 10, n_items=N_ITEMS, generator=seeded())
    unit = torch.cat((torch.zeros(1, 8), table / table.norm(dim=1, keepdim=True)))
    expected = sampled_softmax_loss(chosen / UNIT_TEMPERATURE, unit, batch().target, negatives)
    torch.testing.assert_close(loss(dimerec).total, expected)


def test_unit_scores_are_cosines():
    dimerec = model(score_norm=True)
    assert score(dimerec)[:, 1:].abs().max() <= 1.0 + 1e-6
    table = dimerec.items.table.detach()[1:]
    expected = vectors(dimerec) @ (table / table.norm(dim=1, keepdim=True)).T
    torch.testing.assert_close(score(dimerec)[:, 1:], expected)
