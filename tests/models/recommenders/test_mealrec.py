import inspect
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from models.errors import ConfigError, MissingFeatureError
from models.recommenders.mealrec import BlindDenoiser, Config, required_features
from models.registry import build, parse_config
from models.sequences.batch import SequenceBatch

N_ITEMS, WIDTH = 12, 8
SMALL = {"d": 8, "layers": 1, "inner": 16, "dropout": 0.0, "unet_channels": 16, "max_length": 6}

#: Two users whose last item is the same, and a third.
HISTORIES = [[3, 1, 4, 0], [5, 9, 2, 4], [7, 4, 8, 0]]


def features(*, frames=5):
    def table(*shape, seed):
        values = torch.randn(N_ITEMS + 1, *shape, generator=torch.Generator().manual_seed(seed))
        values[[0, N_ITEMS]] = 0.0  # padding, and an item without content
        return values

    return {
        "videomae.frames": table(frames, WIDTH, seed=1),
        "videomae": table(WIDTH, seed=2),
        "bert": table(6, seed=3),
    }


def model(*, tables=None, **switches):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build("mealrec", {**SMALL, **switches}, n_items=N_ITEMS, features=tables or features())


def loud(**switches):
    """Weights that are far from their small start, so that no path is hidden by it."""
    made = model(**switches).eval()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.4, generator=generator)
        made.backbone.items.weight[0] = 0.0
    return made


def batch(histories=HISTORIES, *, target=6):
    item_ids = torch.tensor(histories)
    rows = len(histories)
    return SequenceBatch(item_ids, item_ids > 0, torch.full((rows,), target), torch.arange(rows))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def scores(mealrec, histories=HISTORIES, *, seed=0):
    with torch.no_grad():
        return mealrec.score(batch(histories), generator=seeded(seed))[:, 1:]


def loss(mealrec, *, seed=0):
    return mealrec.training_loss(batch(), generator=seeded(seed))


def gradient(mealrec, *, seed=0):
    mealrec.zero_grad()
    loss(mealrec, seed=seed).total.backward()
    return {name: value.grad for name, value in mealrec.named_parameters() if value.grad is not None}


class Replaced(nn.Module):
    """A denoiser that returns what it was given at construction and remembers the states that it saw."""

    def __init__(self, answer=None):
        super().__init__()
        self.answer = answer
        self.states = []

    def forward(self, x_t, frames, text):
        self.states.append(x_t)
        return torch.full_like(x_t, 0.1) if self.answer is None else self.answer


# --- the denoiser of the preference -----------------------------------------------------------------------------


def test_the_denoiser_takes_no_step():
    assert list(inspect.signature(BlindDenoiser.forward).parameters) == ["self", "x_t", "frames", "text"]


def test_for_a_fixed_state_the_step_changes_nothing_but_what_the_frames_become(monkeypatch):
    """The noising is replaced by the identity: what is left of the step is what the networks are told of it."""
    monkeypatch.setattr("models.recommenders.mealrec.q_sample", lambda schedule, x0, t, noise: x0)
    for use_tcd in (False, True):
        mealrec, found = loud(use_tcd=use_tcd), []
        for steps in (torch.tensor([0, 2, 4]), torch.tensor([4, 0, 2])):
            monkeypatch.setattr(mealrec, "_random_steps", lambda rows, generator, steps=steps: steps)
            found.append(loss(mealrec).total)
        assert torch.equal(*found) is not use_tcd


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
    clean = mealrec.preference(batch())
    mealrec.denoiser = Replaced(clean)
    assert torch.equal(mealrec.denoised_preference(batch(), generator=seeded()), clean)
    assert len(mealrec.denoiser.states) == steps


def test_where_the_reverse_process_starts():
    """One draw of noise serves all: encoded states differ by sqrt(alpha_bar_5) = sqrt(.95063) of what x_0 does."""
    for start, share in (("encoded", math.sqrt(0.95063)), ("pure_noise", 0.0)):
        mealrec = loud(start=start)
        clean = mealrec.preference(batch())
        mealrec.denoiser = Replaced()
        scores(mealrec)
        first = mealrec.denoiser.states[0]
        torch.testing.assert_close(first[0] - first[1], share * (clean[0] - clean[1]), rtol=1e-4, atol=1e-5)


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
        assert bool((first - second).abs().max() > 1e-4) is told_apart
        assert torch.equal(first, second) is not told_apart


def test_literal_stride_trains_and_samples_the_same_steps():
    mealrec, seen = loud(train_t="stride5", sampler="ddim", sampler_stride=5, steps=10), set()
    mealrec.content.unet.register_forward_pre_hook(lambda _, args: seen.update(args[1].tolist()))
    for seed in range(8):
        loss(mealrec, seed=seed)
    assert seen == {4, 9}
    seen.clear()
    scores(mealrec)
    assert seen == {4, 9}


def test_uniform_training_visits_every_step():
    mealrec, seen = model(), set()
    mealrec.content.unet.register_forward_pre_hook(lambda _, args: seen.update(args[1].tolist()))
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


def test_the_ranking_loss_trains_the_encoder():
    """The target is cut from the graph, the noised preference is not."""
    grads = gradient(model(lambda_t=0.0, lambda_n=0.0))
    assert grads["backbone.positions.weight"].abs().max() > 1e-6
    assert grads["backbone.transformer.blocks.0.attention.value.weight"].abs().max() > 1e-6


@pytest.mark.parametrize("detach", [True, False])
def test_the_preference_target_pulls_the_encoder_only_when_attached(detach):
    """With a constant estimate, x_0 meets the loss as the target of eq. 14 alone."""
    mealrec = loud(detach_targets=detach, lambda_n=1.0)
    mealrec.denoiser = Replaced()
    grads = [value for name, value in gradient(mealrec).items() if name.startswith("backbone.positions")]
    assert any(bool((value != 0).any()) for value in grads) is not detach


@pytest.mark.parametrize("detach", [True, False])
def test_the_frame_target_pulls_its_encoder_only_when_attached(detach, monkeypatch):
    """With a constant estimate, z_0 meets the loss as the target of eq. 11 alone."""
    mealrec = loud(detach_targets=detach, lambda_t=1.0)
    monkeypatch.setattr(mealrec.content.unet, "forward", lambda z, t, c, context_mask: torch.full_like(z, 0.1))
    grads = [value for name, value in gradient(mealrec).items() if name.startswith("content.encoder")]
    assert any(bool((value != 0).any()) for value in grads) is not detach


def test_one_context_vector_leaves_queries_and_keys_untrained():
    """Softmax over the single key c_v is 1; with one key per video it is not."""
    names = [f"content.unet.attend.{i}.attention.{part}.weight" for i in range(3) for part in ("query", "key")]
    values = [f"content.unet.attend.{i}.attention.value.weight" for i in range(3)]
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels leave rounding of the size 1e-9
        literal, tokens = gradient(loud()), gradient(loud(cv_tokens=True))
    assert all(bool((literal[name] == 0).all()) for name in names)
    assert all(literal[name].abs().max() > 1e-6 for name in values)
    assert all(tokens[name].abs().max() > 1e-7 for name in names)


# --- what a score may depend on ---------------------------------------------------------------------------------


def test_the_next_item_is_not_leaked():
    """Its content changes no score, its vector only its own column."""
    mealrec, upcoming = loud(), 6
    before = scores(mealrec)
    for table in mealrec.tables.values():
        table.values[upcoming] *= -1.0
    assert torch.equal(scores(mealrec), before)
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


# --- switches ---------------------------------------------------------------------------------------------------

#: Switch -> (its value, what must be set beside it).
CHANGES_PARAMETERS = {
    "frames": (4, {}),
    "content_width": (4, {}),
    "max_length": (7, {}),
    "d": (12, {}),
    "layers": (2, {}),
    "inner": (24, {}),
    "unet_channels": (24, {}),
    "use_tcd": (False, {}),
    "use_npd": (False, {}),
}
CHANGES_THE_LOSS = {
    "heads": (4, {}),
    "dropout": (0.5, {}),
    "gamma": (0.1, {}),
    "steps": (9, {}),
    "schedule": ("trunc_lin", {}),
    "lambda_t": (0.9, {}),
    "lambda_n": (0.9, {}),
    "cv_tokens": (True, {}),
    "train_t": ("stride5", {"sampler": "ddim", "sampler_stride": 5, "steps": 10}),
    "score": ("cos_tau", {}),
    "visual_noise_std": (0.5, {}),
}
CHANGES_THE_SCORES = {
    "start": ("pure_noise", {}),
    "sampler": ("one_step", {}),
    "sampler_stride": (5, {"sampler": "ddim", "steps": 10}),
    "reverse_noise": ("fixedsmall", {}),
}
#: The tables have tests of their own, ``detach_targets`` acts on gradients, ``backbone`` has one value.
TESTED_ELSEWHERE = {"frames_table", "video_table", "text_table", "detach_targets", "backbone"}


def test_every_switch_is_tested():
    assert {*CHANGES_PARAMETERS, *CHANGES_THE_LOSS, *CHANGES_THE_SCORES} == {*Config.model_fields} - TESTED_ELSEWHERE


@pytest.mark.parametrize("switch", CHANGES_PARAMETERS)
def test_switches_that_change_the_network(switch):
    def sizes(**switches):
        return {name: tuple(value.shape) for name, value in model(**switches).named_parameters()}

    value, beside = CHANGES_PARAMETERS[switch]
    assert sizes(**beside, **{switch: value}) != sizes(**beside)


@pytest.mark.parametrize("switch", CHANGES_THE_LOSS)
def test_switches_that_change_the_loss(switch):
    def total(**switches):
        mealrec = loud(**switches).train()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return loss(mealrec).total.item()

    value, beside = CHANGES_THE_LOSS[switch]
    without = total(**beside)
    assert total(**beside) == without
    assert total(**{**beside, switch: value}) != pytest.approx(without, rel=1e-5)


@pytest.mark.parametrize("switch", CHANGES_THE_SCORES)
def test_switches_that_change_the_scores(switch):
    value, beside = CHANGES_THE_SCORES[switch]
    with_it, without = loud(**{**beside, switch: value}), loud(**beside)
    assert loss(with_it).total.item() == loss(without).total.item()  # of sampling only
    assert (scores(with_it) - scores(without)).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"train_t": "stride5", "steps": 10}, "set sampler='ddim' and sampler_stride=5"),
        ({"sampler_stride": 5, "steps": 10}, "only sampler='ddim' can skip steps"),
        ({"sampler": "ddim", "sampler_stride": 3, "steps": 10}, "must divide steps=10"),
        ({"unet_channels": 12}, "unet_channels: Input should be a multiple of 8"),
    ],
)
def test_switches_that_do_not_fit_are_refused(switches, message):
    with pytest.raises(ConfigError, match=message):
        parse_config("mealrec", switches)


# --- features ---------------------------------------------------------------------------------------------------


def test_required_features():
    names = {"frames_table": "vit.frames", "video_table": "vit", "text_table": "glove"}
    assert set(required_features(Config())) == {"videomae.frames", "videomae", "bert"}
    assert set(required_features(Config(**names))) == {"vit.frames", "vit", "glove"}
    assert set(required_features(Config(**names, use_tcd=False))) == {"vit.frames", "glove"}


@pytest.mark.parametrize("absent", ["videomae.frames", "videomae", "bert"])
def test_a_missing_table_is_named(absent):
    tables = features()
    del tables[absent]
    with pytest.raises(MissingFeatureError, match=f"needs the feature table '{absent}'"):
        model(tables=tables)


def test_without_the_frame_diffusion_no_global_vectors_are_needed():
    tables = features()
    del tables["videomae"]
    assert scores(model(tables=tables, use_tcd=False)).isfinite().all()


def test_too_few_frames_are_refused():
    with pytest.raises(MissingFeatureError, match=r"\[items, frames >= 5, width\], got \[13, 3, 8\]; .* set frames=3"):
        model(tables=features(frames=3))


def test_a_table_without_frames_is_refused():
    tables = features()
    with pytest.raises(MissingFeatureError, match=r"\[items, frames >= 5, width\], got \[13, 8\]"):
        model(tables={**tables, "videomae.frames": tables["videomae"]})


def test_global_vectors_of_another_width_are_refused():
    tables = features()
    with pytest.raises(MissingFeatureError, match=r"'videomae': expected \[items, 8\].*got \[13, 6\]"):
        model(tables={**tables, "videomae": tables["bert"]})


@pytest.mark.parametrize("frames", [1, 2, 4, 5, 8])
def test_any_number_of_frames(frames):
    mealrec = model(tables=features(frames=frames), frames=frames)
    assert loss(mealrec).total.isfinite()
    assert scores(mealrec).isfinite().all()


def test_the_frames_around_the_centre_are_taken():
    """Of seven frames, 3 are numbers 2 to 4."""
    tables = features(frames=7)
    middle = {**tables, "videomae.frames": tables["videomae.frames"][:, 2:5]}
    expected, found = model(tables=middle, frames=3), model(tables=tables, frames=3)
    assert torch.equal(found.tables["frames"].values, expected.tables["frames"].values)


def test_visual_noise_reaches_the_visual_tables_only():
    """Deviation .5 on columns of deviation 1; rows without content stay empty."""
    clean, noisy = model(), model(visual_noise_std=0.5)
    assert torch.equal(noisy.tables["text"].values, clean.tables["text"].values)
    for name in ("frames", "video"):
        added = noisy.tables[name].table - clean.tables[name].table
        assert (added[[0, N_ITEMS]] == 0).all()
        assert float(added[1:N_ITEMS].std()) == pytest.approx(0.5, rel=0.2)
        assert float(clean.tables[name].table[1:N_ITEMS].std()) == pytest.approx(1.0, abs=0.02)
