"""DimeRec: every switch, its guidances, negatives, and the index that it serves from."""

import math

import pytest
import torch
import torch.nn.functional as F
from dimerec_cases import N_ITEMS, Spy, gradient_size, loss, model, score
from histories import batch, seeded

from models.diffusion.geodesic import angle
from models.errors import ConfigError
from models.evaluation.index import ItemIndex
from models.evaluation.mode import eval_mode
from models.modules.losses import sampled_softmax_loss
from models.modules.negatives import unseen_negatives
from models.recommenders.dimerec import UNIT_TEMPERATURE, Config, required_features
from models.sequences.batch import SequenceBatch


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
        ("negatives", "all"),
        ("schedule", "cosine"),
        ("steps", 9),
        ("encoder", "transformer"),
        ("train_unroll", True),
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


def test_negatives_are_ten_per_row_and_never_in_the_history_or_the_target(monkeypatch):
    drawn = []

    def spy(*arguments, **options):
        drawn.append(unseen_negatives(*arguments, **options))
        return drawn[-1]

    monkeypatch.setattr("models.recommenders.dimerec.unseen_negatives", spy)
    dimerec, one = model(), batch()
    for seed in range(30):
        loss(dimerec, one, seed=seed)
    for negatives in drawn:
        assert negatives.shape == (5, 10)
    drawn = torch.cat(drawn, dim=1)
    for row in range(5):
        forbidden = {0, *one.item_ids[row].tolist(), int(one.target[row])}
        assert set(drawn[row].tolist()) == set(range(N_ITEMS + 1)) - forbidden


@pytest.mark.parametrize("score_norm", [False, True])
def test_the_whole_catalogue_can_be_the_negatives(score_norm):
    """Eq. 19 and 22 over items 1 to 12, history included, padding not."""
    dimerec, one = model(negatives="all", score_norm=score_norm, gem="sasrec", mu_ssm=3.0), batch()
    dimerec.denoiser = Spy(torch.randn(5, 8, generator=seeded(1)))
    parts = loss(dimerec, one).parts
    items = dimerec.items.table.detach()[1:]
    for name, weight, vectors in (
        ("guidance", 1.0, dimerec.interests(one)[:, 0].detach()),
        ("ranking", 3.0, dimerec.denoiser.answer),
    ):
        if score_norm:
            logits = F.normalize(vectors, dim=1) @ F.normalize(items, dim=1).T / UNIT_TEMPERATURE
        else:
            logits = vectors @ items.T
        expected = -logits.log_softmax(dim=1).gather(1, one.target.unsqueeze(1) - 1).mean()
        assert parts[name].item() == pytest.approx(weight * expected.item(), rel=1e-5)


def test_without_a_temperature_unit_vectors_cannot_learn():
    """Best case, all negatives opposite: log(1 + 10 e^-2) = .856; at 0.07 it is 10 e^(-2 / 0.07)."""
    table = torch.zeros(12, 2)
    table[1], table[2:] = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 0.0])
    target, negatives = torch.tensor([1]), torch.arange(2, 12).unsqueeze(0)
    found = [
        sampled_softmax_loss(scale * table[1:2], table, target, negatives) for scale in (1.0, 1 / UNIT_TEMPERATURE)
    ]
    assert found[0].item() == pytest.approx(0.856, abs=5e-4)
    assert found[1].item() == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("score_norm", [False, True])
def test_an_index_of_the_item_vectors_answers_as_the_model_does(score_norm):
    dimerec = model(score_norm=score_norm)
    with eval_mode(dimerec):
        found = ItemIndex.of_model(dimerec).recommend(dimerec.query(batch(), generator=seeded()), k=5)
        expected = dimerec.recommend(batch(), k=5, exclude=None, generator=seeded())
    assert torch.equal(found.items, expected.items)
    torch.testing.assert_close(found.scores, expected.scores)


def test_interests_are_no_single_query():
    with pytest.raises(ConfigError, match="serve='interests' scores by the nearest of several interests"):
        model(serve="interests").query(batch(), generator=seeded())


def test_a_history_shorter_than_the_rule_s_interests_is_trained_and_ranked_by_its_items():
    """One item, four interests: eq. 18 and the largest score of an interest know that item alone, zeros nowhere."""
    dimerec = model(gem="rule", serve="interests")
    one = batch([3], [5], [6], [8], target=[7, 2, 9, 12])
    table = dimerec.items.table.detach()
    scores = score(dimerec, one)[:, 1:]
    torch.testing.assert_close(scores, table[one.item_ids[:, 0]] @ table[1:].T)
    assert (scores < 0).any(dim=1).all()
    loss(dimerec, one).total.backward()
    assert dimerec.items.table.grad[one.item_ids[:, 0]].abs().amax(dim=1).min() > 0


def test_the_rule_reads_the_latest_items_themselves_only_without_the_transformer():
    """Eq. 15 with K = 2: of [3, 1, 4] the vectors of 1 and 4, and of [2] its own twice."""
    one, rule = batch([3, 1, 4], [2]), {"gem": "rule", "interests": 2}
    table = (dimerec := model(**rule, encoder="items").eval()).items.table
    expected = torch.stack((table[[1, 4]], table[[2, 2]]))
    torch.testing.assert_close(dimerec.interests(one), expected)
    transformer = model(**rule, encoder="transformer").eval()
    before = transformer.interests(one)[0].detach()
    other_first = transformer.interests(batch([9, 1, 4], [2]))[0].detach()
    assert (before - other_first).abs().max() > 1e-4


@pytest.mark.parametrize(("grw", "folded"), [("literal_projected", 2 * math.pi - 3.40), ("scaled", 0.428)])
def test_how_far_the_last_step_turns_the_target(grw, folded, monkeypatch):
    """20 linear steps leave alpha_bar 0.81678: sqrt(63 * .18322) = 3.40 rad, past pi, or sqrt(.18322) = .428."""
    dimerec = model(n_items=200, d=64, steps=20, grw=grw)
    monkeypatch.setattr(dimerec.schedule, "random_steps", lambda rows, generator: torch.full((rows,), 19))
    x_0, x_t, _ = dimerec._noised(dimerec.items.table[1:].detach(), seeded())
    reached = angle(x_0, x_t).mean()
    assert float(reached) == pytest.approx(folded, abs=0.1 * folded)


@pytest.mark.parametrize(
    ("grw", "expected"),
    [("literal_projected", [0.08, 0.83, 1.72, 2.58, 2 * math.pi - 3.40]), ("scaled", [0.01, 0.105, 0.22, 0.32, 0.428])],
)
def test_a_run_records_the_angle_of_every_step(grw, expected):
    """sqrt(63 (1 - alpha_bar)) or, scaled, sqrt(1 - alpha_bar), of linear steps 1, 5, 10, 15 and 20."""
    histories = torch.arange(1, 201).unsqueeze(1)
    one = SequenceBatch(histories, histories > 0, torch.zeros(200, dtype=torch.int64), torch.arange(200))
    found = model(n_items=200, d=64, steps=20, grw=grw).describe(one, generator=seeded())
    assert [found["angle"][step - 1] for step in (1, 5, 10, 15, 20)] == pytest.approx(expected, rel=0.1)
    assert found["alpha_bar_last"] == pytest.approx(0.81678, abs=1e-5)
    assert "angle" not in model(grw="euclidean").describe(batch(), generator=seeded())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_gem_loss": False, "use_recon": False, "use_ssm": False}, "all three losses are off"),
        ({"gem": "sasrec", "encoder": "items"}, "set encoder='transformer'"),
        ({"infer_steps": 6}, "expected at most steps=5"),
        ({"negatives": 0}, "negatives.*greater than 0"),
        ({"negatives": "some"}, "negatives.*'all'"),
    ],
    ids=["no loss", "sasrec without transformer", "too many steps", "no negatives", "no number"],
)
def test_impossible_configurations_say_what_to_do(changes, message):
    with pytest.raises(ConfigError, match=message):
        model(**changes)
