"""MealRec on SASRec, CL4SRec and TedRec: what each adds, and that nothing else changes."""

import pytest
import torch
from mealrec_cases import (
    HISTORIES,
    N_ITEMS,
    SMALL,
    batch,
    every_backbone,
    features,
    gradient,
    loss,
    loud,
    model,
    scores,
    seeded,
)

from models.registry import build

VARIANTS = [(True, True), (False, True), (True, False), (False, False)]


def plain(name, **changes):
    """The recommender of that name, from the seed that :func:`model` has."""
    sizes = {key: value for key, value in SMALL.items() if key != "unet_channels"}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build(name, sizes | changes, n_items=N_ITEMS, features={"bert": features()["bert"]})


def training_loss(recommender):
    """With dropout, from one state of both generators."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return recommender.train().training_loss(batch(), generator=seeded(3)).total


@every_backbone
def test_without_both_processes_it_starts_as_its_backbone(backbone):
    """Bit for bit: the same scores, and with dropout and noise the same loss."""
    reduced = model(backbone=backbone, use_tcd=False, use_npd=False, lambda_t=0.0, lambda_n=0.0, dropout=0.5)
    alone = plain(backbone, dropout=0.5)
    assert torch.equal(training_loss(reduced), training_loss(alone))
    with torch.no_grad():
        expected = alone.eval().score(batch(), generator=seeded())[:, 1:]
    assert torch.equal(scores(reduced.eval()), expected)


@every_backbone
def test_without_both_processes_and_with_the_mlp_at_zero_it_is_its_backbone(backbone):
    """The same for weights far from their start; only the MLP's are set to zero."""
    reduced, alone = loud(backbone=backbone, use_tcd=False, use_npd=False), plain(backbone)
    with torch.no_grad():
        for parameter in reduced.fusion.parameters():
            parameter.zero_()
    (alone.backbone if backbone == "tedrec" else alone).load_state_dict(reduced.backbone.state_dict())
    assert torch.equal(training_loss(reduced), training_loss(alone))
    with torch.no_grad():
        expected = alone.eval().score(batch(), generator=seeded())[:, 1:]
    assert torch.equal(scores(reduced.eval()), expected)


@every_backbone
@pytest.mark.parametrize(("use_tcd", "use_npd"), VARIANTS)
def test_every_ablation_trains_every_backbone(backbone, use_tcd, use_npd):
    switches = {"backbone": backbone, "use_tcd": use_tcd, "use_npd": use_npd}
    mealrec = loud(**switches).train()
    expected = {"ranking"} | ({"content"} if use_tcd else set()) | ({"preference"} if use_npd else set())
    expected |= {"views"} if backbone == "cl4srec" else set()
    assert set(loss(mealrec).parts) == expected
    grads = gradient(mealrec)
    untouched = {name for name, _ in mealrec.backbone.named_parameters(prefix="backbone")} - set(grads)
    assert not untouched
    found = scores(mealrec.eval())
    assert found.isfinite().all()
    assert torch.equal(found, scores(mealrec))
    if use_tcd or use_npd:
        assert not torch.equal(found, scores(mealrec, seed=1))


@every_backbone
def test_a_row_does_not_depend_on_its_batch(backbone):
    mealrec = loud(backbone=backbone)
    together = scores(mealrec)
    for row, history in enumerate(HISTORIES):
        torch.testing.assert_close(scores(mealrec, [history])[0], together[row], rtol=1e-4, atol=1e-4)


@every_backbone
def test_padding_changes_no_score(backbone):
    mealrec = loud(backbone=backbone)
    wider = [[*history, 0, 0] for history in HISTORIES]
    torch.testing.assert_close(scores(mealrec, wider), scores(mealrec), rtol=1e-4, atol=1e-4)


def test_the_loss_of_the_views_joins_the_total():
    """Eq. 16 and CL4SRec's own term, which carries its weight."""
    light, heavy = (loss(model(backbone="cl4srec", views={"weight": weight})) for weight in (0.1, 0.4))
    assert heavy.parts["views"].item() == pytest.approx(4 * light.parts["views"].item(), rel=1e-5)
    parts = {name: value.item() for name, value in heavy.parts.items()}
    expected = parts["ranking"] + 0.1 * parts["content"] + 0.1 * parts["preference"] + parts["views"]
    assert heavy.total.item() == pytest.approx(expected, rel=1e-6)


def test_without_weight_the_views_are_not_made():
    silent, sasrec = model(backbone="cl4srec", views={"weight": 0.0}), model()
    sasrec.load_state_dict({key: value for key, value in silent.state_dict().items() if "views" not in key})
    assert set(loss(silent).parts) == {"ranking", "content", "preference"}
    assert torch.equal(loss(silent).total, loss(sasrec).total)


def test_texts_of_the_whole_history_reach_the_preference_on_tedrec_alone():
    """Item 3 stands first in the first history only."""
    for backbone, changed in (("sasrec", []), ("tedrec", [0])):
        mealrec = loud(backbone=backbone)
        before = scores(mealrec)
        other = loud(backbone=backbone)  # nothing kept from the first texts
        other.tables["text"].values[3] *= -1.0
        difference = (scores(other) - before).abs().amax(dim=1)
        assert (difference > 1e-4).nonzero().flatten().tolist() == changed


def test_tedrec_draws_the_noise_of_its_gates_from_the_generator():
    mealrec = loud(backbone="tedrec", use_tcd=False, use_npd=False).train()
    first, same, other = (training_loss_of(mealrec, seed) for seed in (1, 1, 2))
    assert first == same
    assert abs(first - other) > 1e-6


def training_loss_of(mealrec, seed):
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return loss(mealrec, seed=seed).total.item()


@pytest.mark.parametrize(("backbone", "score"), [("sasrec", "dot"), ("cl4srec", "dot"), ("tedrec", "cos_tau")])
def test_the_score_is_that_of_the_backbone_unless_it_is_given(backbone, score):
    assert model(backbone=backbone).config.score == score
    assert model(backbone=backbone, score="dot").config.score == "dot"
    assert model(backbone=backbone, score="cos_tau").config.score == "cos_tau"


@every_backbone
def test_it_is_trained_on_prefixes(backbone):
    assert model(backbone=backbone).causal is False


def test_settings_of_a_backbone_change_its_size():
    """An expert more is one matrix, one shift per position and two gate columns more, by hand."""
    sizes = [
        sum(parameter.numel() for parameter in model(backbone="tedrec", text_fusion={"experts": n}).parameters())
        for n in (2, 3)
    ]
    width, d, longest = 6, 8, 6
    assert sizes[1] - sizes[0] == width * d + longest * width + 2 * width
