"""TedRec: cosines, what reaches the score, and that nothing of it is causal."""

import pytest
import torch
from histories import batch, seeded

from models.errors import MissingFeatureError
from models.evaluation.mode import eval_mode
from models.registry import build, load, parse_config

N_ITEMS, WIDTH = 12, 5
SMALL = {"d": 8, "inner": 16, "dropout": 0.0, "experts": 3, "adaptor_dropout": 0.0, "max_length": 6}


def texts():
    table = torch.randn(N_ITEMS + 1, WIDTH, generator=seeded(1))
    table[0] = 0.0
    return table


def model(*, spread=False, **changes):
    """A TedRec; ``spread`` draws its weights far enough from zero that every path shows."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tedrec = build("tedrec", SMALL | changes, n_items=N_ITEMS, features={"bert": texts()})
    if spread:
        with torch.no_grad():
            for number, parameter in enumerate(tedrec.parameters()):
                parameter.normal_(std=0.5, generator=seeded(10 + number))
            tedrec.backbone.encoder.items.weight[0] = 0.0
    return tedrec


def score(tedrec, one=None):
    with eval_mode(tedrec):
        return tedrec.score(one or batch(), generator=seeded())


def test_scores_are_cosines_over_the_temperature():
    tedrec = model(spread=True)
    scores = score(tedrec)[:, 1:]
    assert scores.abs().max() <= (1.0 + 1e-6) / 0.07
    with torch.no_grad():
        tedrec.backbone.encoder.items.weight.mul_(torch.linspace(0.5, 2.0, N_ITEMS + 1).unsqueeze(1))
    other = score(tedrec, batch([2], target=[7]))  # item 2 is longer now: the state moves, lengths of candidates do not
    table = tedrec.backbone.encoder.items.table.detach()[1:]
    unit = table / table.norm(dim=1, keepdim=True)
    state = torch.linalg.lstsq(unit, 0.07 * other[0, 1:].unsqueeze(1)).solution
    assert float(state.norm()) == pytest.approx(1.0, rel=1e-3)
    torch.testing.assert_close((unit @ state).squeeze(1) / 0.07, other[0, 1:], rtol=1e-3, atol=1e-3)


def test_the_loss_is_the_softmax_of_the_scores():
    """Without the adaptor's noise, that is in evaluation mode."""
    tedrec, one = model(spread=True).eval(), batch()
    expected = -torch.log_softmax(score(tedrec)[:, 1:], dim=1).gather(1, one.target.unsqueeze(1) - 1).mean()
    assert tedrec.training_loss(one, generator=seeded()).total.item() == pytest.approx(expected.item(), rel=1e-5)


def test_training_draws_the_gates_noise_from_the_generator():
    tedrec, one = model(spread=True).train(), batch()
    first, same, other = (tedrec.training_loss(one, generator=seeded(seed)).total.item() for seed in (1, 1, 2))
    assert first == same
    assert abs(first - other) > 1e-6


def test_texts_of_the_history_count_and_texts_of_the_candidates_do_not():
    tedrec = model(spread=True)
    one = batch([3, 1, 4], target=[7])
    before = score(tedrec, one)
    with torch.no_grad():
        tedrec.backbone.adaptor.features.values[7] += 1.0
        torch.testing.assert_close(score(model_with(tedrec), one), before)
        tedrec.backbone.adaptor.features.values[1] += 1.0
    assert (score(model_with(tedrec), one) - before)[:, 1:].abs().max() > 1e-3


def model_with(tedrec):
    """A fresh model with the weights and the texts of another: nothing kept from earlier calls."""
    fresh = model()
    fresh.load_state_dict(tedrec.state_dict())
    fresh.backbone.adaptor.features.values.copy_(tedrec.backbone.adaptor.features.values)
    return fresh


def test_it_is_not_causal():
    """The first position of the fused history changes with the last item: only prefixes may be trained."""
    tedrec = model(spread=True).eval()
    assert tedrec.causal is False
    first, second = (
        tedrec.backbone.fusion(
            tedrec.backbone.encoder.items(one.item_ids),
            tedrec.backbone.adaptor(one.item_ids, one.mask, generator=seeded()),
        )
        for one in (batch([3, 1, 4]), batch([3, 1, 8]))
    )
    assert (first - second)[0, 0].abs().max() > 1e-3


def test_the_order_of_the_history_matters():
    tedrec = model(spread=True)
    first, second = (score(tedrec, batch(history)) for history in ([3, 1, 4], [1, 3, 4]))
    assert (first - second)[:, 1:].abs().max() > 1e-3


def test_the_size_counted_by_hand():
    """SASRec's (its own test counts that) and the adaptor's, the filter's and the gates' share."""
    d, experts, longest = 8, 3, 6
    block = (4 * d * d + 3 * d) + (2 * d * 16 + 16 + d) + 4 * d
    sasrec = 13 * d + longest * d + 2 * d + 2 * block
    adaptor = experts * WIDTH * d + experts * longest * WIDTH + 2 * WIDTH * experts
    fusion = 4 * d * 2 + 2 * (d + 1)  # 6 positions have 4 frequencies, each a complex number per column
    assert sum(parameter.numel() for parameter in model().parameters()) == sasrec + adaptor + fusion


def test_the_text_table_is_named_in_the_configuration():
    module = load("tedrec")
    assert module.required_features(parse_config("tedrec", {})) == ("bert",)
    assert module.required_features(parse_config("tedrec", {"text_table": "roberta"})) == ("roberta",)
    with pytest.raises(MissingFeatureError, match="'roberta'; given: bert"):
        model(text_table="roberta")


def test_without_texts_the_filter_of_the_ids_is_left():
    """A filter of ones over 6 positions, an open gate: twice the item vectors go into the transformer."""
    config = SMALL | {"use_text": False}
    assert load("tedrec").required_features(parse_config("tedrec", config)) == ()
    tedrec = build("tedrec", config, n_items=N_ITEMS, features={}).eval()
    assert tedrec.backbone.adaptor is None
    one, backbone = batch([3, 1, 4]), tedrec.backbone
    with torch.no_grad():
        backbone.fusion.filter.copy_(torch.tensor([1.0, 0.0]))
        backbone.fusion.filtered_gate.bias.fill_(100.0)
        items = backbone.encoder.items(one.item_ids)
        states = backbone.encoder.encode(2.0 * items, one.mask)[0, one.last_position[0]]
        torch.testing.assert_close(backbone(one, generator=seeded())[0], states)


def test_histories_beyond_the_model_s_reach_are_refused():
    with pytest.raises(ValueError, match="at most 6 items, got 7"):
        score(model(), batch([1] * 7))


def test_a_text_table_with_frames_is_refused():
    tables = {"bert": texts().unsqueeze(1)}
    with pytest.raises(
        MissingFeatureError, match=r"'bert': expected \[items, width\], got \[13, 1, 5\]; name a feature"
    ):
        build("tedrec", SMALL, n_items=N_ITEMS, features=tables)
