import inspect
import math

import pytest
import torch
import torch.nn.functional as F
from mealrec_cases import (
    HISTORIES,
    WIDTH,
    Replaced,
    batch,
    every_backbone,
    gradient,
    loss,
    loud,
    model,
    scores,
    seeded,
    steps_seen,
)

from models.modules.blind_denoiser import BlindDenoiser
from models.modules.feature_table import FeatureTable

# --- the denoiser of the preference -----------------------------------------------------------------------------


def test_the_denoiser_takes_no_step():
    assert list(inspect.signature(BlindDenoiser.forward).parameters) == ["self", "x_t", "frames", "text"]


def test_for_a_fixed_state_the_step_changes_nothing_but_what_the_frames_become(monkeypatch):
    """The noising is replaced by the identity: what is left of the step is what the networks are told of it."""
    monkeypatch.setattr("models.recommenders.mealrec.q_sample", lambda schedule, x0, t, noise: x0)
    for use_tcd in (False, True):
        mealrec, found = loud(use_tcd=use_tcd), []
        for steps in (torch.tensor([0, 2, 4]), torch.tensor([4, 0, 2])):
            monkeypatch.setattr(mealrec, "_random_steps", lambda schedule, rows, generator, steps=steps: steps)
            found.append(loss(mealrec).total)
        assert torch.equal(*found) is not use_tcd


@pytest.mark.parametrize("switches", [{}, {"use_tcd": False}, {"use_npd": False}])
def test_an_unrolled_training_ranks_what_serving_ranks(monkeypatch, switches):
    """Without the noise of the start both walk the same states, and the gradient goes through all of them."""
    monkeypatch.setattr("models.recommenders.mealrec.q_sample", lambda schedule, x0, t, noise: x0)
    mealrec = loud(train_unroll=True, **switches)
    terms = loss(mealrec)
    expected = F.cross_entropy(scores(mealrec), torch.full((3,), 5))  # item 6 is column 5 without padding
    torch.testing.assert_close(terms.parts["ranking"], expected)
    gradients = {}
    for weight in (True, False):
        again = loud(train_unroll=weight, lambda_t=0.0, lambda_n=0.0, **switches)
        loss(again).total.backward()
        gradients[weight] = again.backbone.items.weight.grad
        assert gradients[weight].isfinite().all()
    assert (gradients[True] - gradients[False]).abs().max() > 1e-4


def test_the_mean_frame_is_a_single_token():
    frames, text = torch.randn(3, 5, WIDTH, generator=seeded()), torch.randn(3, 6, generator=seeded(1))
    x_0 = torch.randn(3, 8, generator=seeded(2))
    mealrec = loud(use_tcd=False, frame_tokens="mean")
    expected = mealrec.denoiser(x_0, frames.mean(dim=1, keepdim=True), text)
    torch.testing.assert_close(mealrec.denoiser(x_0, mealrec._tokens(frames), text), expected)
    assert loud(use_tcd=False)._tokens(frames) is frames


def test_each_process_has_its_own_number_of_steps():
    """Linear variances from 1e-4 to 0.02: alpha_bar is .951 after 5 of 5 steps and .776 after 25 of 25."""
    found = model(steps=5, steps_preference=25).describe(batch(), generator=seeded())
    assert found == {
        "alpha_bar_last_frames": pytest.approx(0.951, abs=1e-3),
        "alpha_bar_last_preference": pytest.approx(0.7765, abs=1e-4),
    }
    assert model(use_npd=False).describe(batch(), generator=seeded()).keys() == {"alpha_bar_last_frames"}


def test_the_denoiser_reads_the_state_every_frame_and_the_text():
    denoiser = loud().denoiser
    state, frames, text = torch.randn(2, 8), torch.randn(2, 5, WIDTH), torch.randn(2, 6)
    for tensor in (state, frames, text):
        tensor.requires_grad_()
    denoiser(state, frames, text)[:, 0].sum().backward()
    for tensor in (state, frames, text):
        assert (tensor.grad.abs().amax(dim=-1) > 1e-6).all()


# --- the two processes ------------------------------------------------------------------------------------------


def test_the_closed_form_of_25_linear_steps():
    """linspace(1e-4, 0.02, 25): at the first step the posterior mean is x_0, at the last these two factors."""
    schedule = model(steps=25).schedule
    assert (float(schedule.posterior_x0[0]), float(schedule.posterior_xt[0])) == (1.0, 0.0)
    assert float(schedule.posterior_x0[24]) == pytest.approx(0.07965, abs=5e-6)
    assert float(schedule.posterior_xt[24]) == pytest.approx(0.91976, abs=5e-6)
    assert float(schedule.alpha_bar[24]) == pytest.approx(0.77649, abs=5e-6)


@pytest.mark.parametrize("start", ["encoded", "pure_noise"])
@pytest.mark.parametrize("noise", ["none", "fixedsmall"])
@pytest.mark.parametrize("steps", [5, 25])
def test_a_denoiser_that_knows_the_answer_returns_it(start, noise, steps):
    mealrec = loud(start=start, reverse_noise=noise, steps=steps)
    clean = mealrec.backbone.query(batch(), generator=seeded())
    mealrec.denoiser = Replaced(clean)
    assert torch.equal(mealrec.denoised_preference(batch(), generator=seeded()), clean)
    assert len(mealrec.denoiser.states) == steps


def test_where_the_reverse_process_starts():
    """One draw of noise serves all: encoded states differ by sqrt(alpha_bar_5) = sqrt(.95063) of what x_0 does."""
    for start, share in (("encoded", math.sqrt(0.95063)), ("pure_noise", 0.0)):
        mealrec = loud(start=start)
        clean = mealrec.backbone.query(batch(), generator=seeded())
        mealrec.denoiser = Replaced()
        scores(mealrec)
        first = mealrec.denoiser.states[0]
        torch.testing.assert_close(first[0] - first[1], share * (clean[0] - clean[1]), rtol=1e-4, atol=1e-5)


def test_each_reverse_process_walks_its_own_steps(monkeypatch):
    mealrec = loud(steps=5, steps_preference=9)
    seen = steps_seen(mealrec, monkeypatch)
    mealrec.denoiser = Replaced()
    scores(mealrec)
    assert seen == {0, 1, 2, 3, 4}
    states = mealrec.denoiser.states
    assert len(states) == 9
    clean = mealrec.backbone.query(batch(), generator=seeded())
    draws = seeded()  # of the frames' start, then of the preference's
    torch.randn(1, 5, WIDTH, generator=draws)
    signal = math.prod(1 - (1e-4 + (0.02 - 1e-4) * step / 8) for step in range(9))
    expected = signal**0.5 * clean + (1 - signal) ** 0.5 * torch.randn(1, 8, generator=draws)
    torch.testing.assert_close(states[0], expected, rtol=1e-4, atol=1e-5)


def test_training_noise_is_drawn_for_every_row():
    mealrec = loud(use_tcd=False)
    mealrec.denoiser = Replaced()
    mealrec.training_loss(batch([HISTORIES[0]] * 3), generator=seeded())
    (x_t,) = mealrec.denoiser.states
    assert len({tuple(row) for row in x_t.tolist()}) == 3


def test_from_pure_noise_the_history_is_lost():
    """The proof that eq. 13 cannot be meant literally: g sees noise and the last video, so it cannot tell users apart.

    With the frame diffusion on, c_v (eq. 7) is all that is left of the history.
    """
    for use_tcd, start, told_apart in (
        (False, "pure_noise", False),
        (False, "encoded", True),
        (True, "pure_noise", True),
        (True, "encoded", True),
    ):
        first, second = scores(loud(use_tcd=use_tcd, start=start), HISTORIES[:2])
        difference = (first - second).abs().max()
        assert bool(difference > 1e-4) is told_apart
        assert bool(difference < 1e-5) is not told_apart  # products of matrices round by the place of a row


def test_literal_stride_trains_and_samples_the_same_steps(monkeypatch):
    mealrec = loud(train_t="stride5", sampler="ddim", sampler_stride=5, steps=10)
    seen = steps_seen(mealrec, monkeypatch)
    for seed in range(8):
        loss(mealrec, seed=seed)
    assert seen == {4, 9}
    seen.clear()
    scores(mealrec)
    assert seen == {4, 9}


def test_uniform_training_visits_every_step(monkeypatch):
    mealrec = model()
    seen = steps_seen(mealrec, monkeypatch)
    for seed in range(12):
        loss(mealrec, seed=seed)
    assert seen == {0, 1, 2, 3, 4}


# --- losses and gradients ---------------------------------------------------------------------------------------


def test_the_total_is_the_weighted_sum_of_its_parts():
    terms = loss(model(lambda_t=0.3, lambda_n=0.7))
    parts = {name: value.item() for name, value in terms.parts.items()}
    expected = parts["ranking"] + 0.3 * parts["content"] + 0.7 * parts["preference"]
    assert terms.total.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("use_tcd", "use_npd", "parts"),
    [
        (True, True, {"ranking", "content", "preference"}),
        (False, True, {"ranking", "preference"}),
        (True, False, {"ranking", "content"}),
        (False, False, {"ranking"}),
    ],
)
def test_each_ablation_drops_its_loss(use_tcd, use_npd, parts):
    assert set(loss(model(use_tcd=use_tcd, use_npd=use_npd)).parts) == parts


def test_without_both_processes_nothing_is_random():
    mealrec = loud(use_tcd=False, use_npd=False)
    assert torch.equal(scores(mealrec, seed=1), scores(mealrec, seed=2))
    assert torch.equal(loss(mealrec, seed=1).total, loss(mealrec, seed=2).total)


@every_backbone
def test_the_ranking_loss_trains_the_encoder(backbone):
    """The target is cut from the graph, the noised preference is not."""
    grads = gradient(model(backbone=backbone, lambda_t=0.0, lambda_n=0.0))
    assert grads["backbone.encoder.positions.weight"].abs().max() > 1e-6
    assert grads["backbone.encoder.transformer.blocks.0.attention.value.weight"].abs().max() > 1e-6


@pytest.mark.parametrize("detach", [True, False])
def test_the_preference_target_pulls_the_encoder_only_when_attached(detach):
    """With a constant estimate, x_0 meets the loss as the target of eq. 14 alone."""
    mealrec = loud(detach_targets=detach, lambda_n=1.0)
    mealrec.denoiser = Replaced()
    grads = [value for name, value in gradient(mealrec).items() if name.startswith("backbone.encoder.positions")]
    assert any(bool((value != 0).any()) for value in grads) is not detach


@pytest.mark.parametrize("detach", [True, False])
def test_the_frame_target_pulls_its_encoder_only_when_attached(detach, monkeypatch):
    """With a constant estimate, z_0 meets the loss as the target of eq. 11 alone."""
    mealrec = loud(detach_targets=detach, lambda_t=1.0)
    monkeypatch.setattr(mealrec.content.unet, "forward", lambda z, t, c, context_mask: torch.full_like(z, 0.1))
    grads = [value for name, value in gradient(mealrec).items() if name.startswith("content.encoder")]
    assert any(bool((value != 0).any()) for value in grads) is not detach


def test_one_context_vector_leaves_queries_and_keys_untrained():
    """Softmax over the single key c_v is 1, so they are not even computed; with one key per video it is not."""
    names = [f"content.unet.attend.{i}.attention.{part}.weight" for i in range(3) for part in ("query", "key")]
    values = [f"content.unet.attend.{i}.attention.value.weight" for i in range(3)]
    literal, tokens = gradient(loud()), gradient(loud(cv_tokens=True))
    assert not set(names) & set(literal)
    assert all(literal[name].abs().max() > 1e-6 for name in values)
    assert all(tokens[name].abs().max() > 1e-7 for name in names)


# --- what a score may depend on ---------------------------------------------------------------------------------


@every_backbone
def test_the_next_item_is_not_leaked(backbone):
    """Its content changes no score, its vector only its own column."""
    mealrec, other, upcoming = loud(backbone=backbone), loud(backbone=backbone), 6
    before = scores(mealrec)
    tables = [module for module in other.modules() if isinstance(module, FeatureTable)]
    assert len(tables) == 3  # TedRec fuses the text that g reads, too
    for table in tables:
        table.values[upcoming] *= -1.0
    assert torch.equal(scores(other), before)
    with torch.no_grad():
        mealrec.backbone.items.weight[upcoming] += 1.0
    changed = (scores(mealrec) != before).any(dim=0).nonzero().flatten() + 1
    assert changed.tolist() == [upcoming]


@pytest.mark.parametrize(("table", "item", "rows"), [("frames", 8, [2]), ("text", 8, [2]), ("video", 1, [0])])
def test_content_of_the_history_is_read(table, item, rows):
    """Frames and text of the last video, the global vector of every video."""
    mealrec = loud()
    before = scores(mealrec)
    mealrec.tables[table].values[item] *= -1.0
    difference = (scores(mealrec) - before).abs().amax(dim=1)
    assert (difference > 1e-4).nonzero().flatten().tolist() == rows


def test_frames_and_text_of_earlier_videos_are_not_read():
    mealrec = loud()
    before = scores(mealrec)
    for name in ("frames", "text"):
        mealrec.tables[name].values[[1, 2, 3, 5, 7, 9]] *= -1.0
    assert torch.equal(scores(mealrec), before)


@pytest.mark.parametrize("cv_tokens", [False, True])
def test_padding_changes_no_score(cv_tokens):
    mealrec = loud(cv_tokens=cv_tokens)
    wider = [[*history, 0, 0] for history in HISTORIES]
    torch.testing.assert_close(scores(mealrec, wider), scores(mealrec), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("score", ["dot", "cos_tau"])
def test_the_loss_ranks_as_the_score_does(score):
    """Without anything random, eq. 15 is the softmax of the scores."""
    mealrec = loud(score=score, use_tcd=False, use_npd=False)
    expected = F.cross_entropy(scores(mealrec), torch.full((3,), 5))  # item 6 is column 5 without padding
    assert loss(mealrec).parts["ranking"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_cosine_scores():
    mealrec = loud(score="cos_tau")
    preference = mealrec.denoised_preference(batch(), generator=seeded())
    expected = F.cosine_similarity(preference[:, None], mealrec.backbone.items.table[None, 1:], dim=-1) / 0.07
    torch.testing.assert_close(scores(mealrec), expected.detach(), rtol=1e-4, atol=1e-4)
