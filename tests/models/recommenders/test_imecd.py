"""IMECD: the equations against arithmetic, the two protocol traps of its ancestors, and every switch."""

import math

import pytest
import torch
from histories import batch, seeded
from torch import nn

from models.errors import ConfigError, MissingFeatureError
from models.evaluation.mode import eval_mode
from models.recommenders.imecd import Config, required_features
from models.registry import build, parse_config

N_ITEMS = 12
SMALL = {
    "d": 8,
    "layers_id": 1,
    "heads": 2,
    "experts": 3,
    "codes": 3,
    "steps": 4,
    "dropout": 0.0,
    "max_length": 6,
    "inject": "add",
}


def tables():
    roberta = torch.randn(N_ITEMS + 1, 5, generator=seeded(1))
    vit = torch.randn(N_ITEMS + 1, 7, generator=seeded(2))
    roberta[0] = vit[0] = 0.0
    return {"roberta": roberta, "vit": vit}


def model(**changes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build("imecd", SMALL | changes, n_items=N_ITEMS, features=tables())


def score(imecd, one=None, seed=0):
    with eval_mode(imecd):
        return imecd.score(one or batch(), generator=seeded(seed))


def loss(imecd, one=None, seed=0):
    return imecd.training_loss(one or batch(), generator=seeded(seed))


def trained(**changes):
    imecd = model(**changes).train()
    optimiser = torch.optim.Adam(imecd.parameters(), lr=0.01)
    for step in range(4):
        optimiser.zero_grad()
        loss(imecd, seed=step).total.backward()
        optimiser.step()
    return imecd


class Constant(nn.Module):
    """A denoiser that knows the answer."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x_t, t, sequence, mask, *, generator):
        return self.answer.expand(x_t.shape[0], -1)


def with_oracles(**changes):
    imecd = model(**changes)
    for number, name in enumerate(imecd.config.modalities):
        imecd.denoisers[name] = Constant(torch.randn(8, generator=seeded(10 + number)))
    return imecd


def test_the_catalogue_is_equations_1_to_6():
    imecd = model()
    found, id_vectors = imecd.catalogue(), imecd.items.table
    assert list(found) == ["id", "txt", "img"]
    for name in ("txt", "img"):
        part = imecd.content[name]
        for item in (1, 7):
            e = part.project(part.features.table[item])
            g = torch.softmax(part.experts.gate(id_vectors[item]), dim=0)
            expected = sum(g[n] * (part.experts.weight[n] @ e + part.experts.bias[n]) for n in range(3))
            torch.testing.assert_close(found[name][item], expected)


def test_padding_is_zero_in_every_table_and_no_candidate():
    imecd = trained()
    for table in imecd.catalogue().values():
        assert table.shape == (N_ITEMS + 1, 8)
        assert not table[0].any()
        assert table[1:].any(dim=1).all()
    assert (score(imecd)[:, 0] == -torch.inf).all()


def test_the_gate_reads_the_id_vector_unless_told_otherwise():
    for source, expected in (("id", True), ("modality", False)):
        imecd = model(gate_from=source)
        before = imecd.catalogue()["txt"][3].detach()
        with torch.no_grad():
            imecd.items.weight[3] += 5.0
        assert bool((imecd.catalogue()["txt"][3] - before).abs().max() > 1e-4) == expected


def test_the_paper_s_noise_schedule_is_the_default():
    config = Config()
    imecd = model(schedule=config.schedule, steps=config.steps)
    assert [float(imecd.schedule.betas[i]) for i in (0, -1)] == pytest.approx([0.013125, 0.635])


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "one_step"])
def test_an_oracle_is_reproduced_and_scores_are_the_sum_over_the_modalities(sampler):
    """Eq. 19 with three known user vectors."""
    imecd = with_oracles(sampler=sampler).eval()
    found, table = imecd.preferences(batch(), generator=seeded()), imecd.catalogue()
    expected = torch.zeros(5, N_ITEMS + 1)
    for name, vector in found.items():
        torch.testing.assert_close(vector, imecd.denoisers[name].answer.expand(5, -1))
        expected += vector @ table[name].T
    torch.testing.assert_close(score(imecd)[:, 1:], expected[:, 1:])


@pytest.mark.parametrize("kept", [("id", "txt"), ("id",), ("txt",), ("id", "img")])
def test_dropping_a_modality_drops_exactly_its_term(kept):
    whole, part = with_oracles(), with_oracles(modalities=kept)
    state = {key: value for key, value in whole.state_dict().items() if key in part.state_dict()}
    part.load_state_dict(state)
    for name in kept:
        part.denoisers[name] = whole.denoisers[name]
    table = whole.catalogue()
    dropped = sum(table[name] @ whole.denoisers[name].answer for name in table if name not in kept)
    torch.testing.assert_close(score(whole)[:, 1:] - score(part)[:, 1:], dropped[1:].expand(5, -1))


def test_the_loss_of_known_estimates_by_arithmetic():
    """Eq. 14, 15 and 20-22 when every user gets the same estimate c."""
    imecd = with_oracles(tau_c=0.5, lambda_c=0.3)
    found, total = loss(imecd).parts, 0.0
    for name, table in imecd.catalogue().items():
        c, x_0 = imecd.denoisers[name].answer, table[batch().target]
        reconstruction = ((x_0 - c) ** 2).mean().item()
        ranking = -torch.log_softmax(table[1:] @ c, dim=0)[batch().target - 1].mean().item()
        repulsion = 0.3 * (math.log(5) + 1 / 0.5)
        assert found[f"reconstruction_{name}"].item() == pytest.approx(reconstruction, rel=1e-4)
        assert found[f"ranking_{name}"].item() == pytest.approx(ranking, rel=1e-4)
        assert found[f"repulsion_{name}"].item() == pytest.approx(repulsion, rel=1e-4)
        total += reconstruction + ranking + repulsion
    assert loss(imecd).total.item() == pytest.approx(total, rel=1e-4)


def test_the_joint_cross_entropy_is_that_of_the_summed_scores():
    imecd = with_oracles(ce="joint")
    scores = sum(table[1:] @ imecd.denoisers[name].answer for name, table in imecd.catalogue().items())
    expected = -torch.log_softmax(scores, dim=0)[batch().target - 1].mean().item()
    assert loss(imecd).parts["ranking"].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("codebook", "independent"), [("ema", True), ("batch_mean", True), ("legacy_batch", False)])
def test_scores_depend_on_the_other_users_only_in_the_ancestor_s_mode(codebook, independent):
    imecd = trained(codebook=codebook)
    alone, together = score(imecd, batch([3, 1, 4])), score(imecd)
    assert torch.allclose(alone[0, 1:], together[0, 1:], rtol=1e-4, atol=1e-5) == independent


@pytest.mark.parametrize(("codebook", "learns"), [("ema", True), ("batch_mean", True), ("legacy_batch", False)])
def test_the_selector_learns_except_in_the_ancestor_s_mode(codebook, learns):
    imecd = model(codebook=codebook).train()
    for step in range(3):
        loss(imecd, seed=step).total.backward()
    for part in imecd.codebooks.values():
        gradient = part.selector.weight.grad
        assert (gradient is not None and bool(gradient.abs().max() > 0)) == learns


def test_scoring_moves_no_code():
    imecd = trained()
    before = {key: value.clone() for key, value in imecd.state_dict().items()}
    score(imecd)
    assert all(torch.equal(value, before[key]) for key, value in imecd.state_dict().items())


def test_codes_are_added_with_their_weight_to_real_positions():
    """Eq. 9 seen by the denoiser: real positions move by lambda_q * 1, padding stays zero."""
    seen = []

    class Spy(Constant):
        def forward(self, x_t, t, sequence, mask, *, generator):
            seen.append((sequence, mask))
            return super().forward(x_t, t, sequence, mask, generator=generator)

    imecd = model(modalities=("id",), lambda_q=0.3, sampler="one_step")
    imecd.denoisers["id"] = Spy(torch.zeros(8))
    imecd.codebooks["id"].codes.fill_(1.0)
    score(imecd, batch([3, 1, 4], [2, 7, 1, 8, 2]))
    sequence, mask = seen[0]
    assert mask[0].tolist() == [False] * 2 + [True] * 3  # padded on the left to the longest history, 5
    torch.testing.assert_close(sequence[0, 2:], imecd.items.table[[3, 1, 4]].detach() + 0.3)
    assert not sequence[0, :2].any()


@pytest.mark.parametrize("pos_emb", [False, True])
def test_a_longer_neighbour_changes_no_score(pos_emb):
    imecd = trained(pos_emb=pos_emb)
    alone, beside = score(imecd, batch([3, 1])), score(imecd, batch([3, 1], [9, 8, 4, 1, 5, 2]))
    torch.testing.assert_close(beside[0], alone[0], rtol=1e-4, atol=1e-5)


def test_ddim_visits_every_stride_th_step():
    imecd = model(modalities=("id",), use_vq=False, sampler="ddim", sampler_stride=8, steps=32)
    seen = []

    class Spy(Constant):
        def forward(self, x_t, t, sequence, mask, *, generator):
            seen.append(int(t[0]) + 1)
            return super().forward(x_t, t, sequence, mask, generator=generator)

    imecd.denoisers["id"] = Spy(torch.zeros(8))
    score(imecd, batch([3, 1, 4]))
    assert seen == [32, 24, 16, 8]


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"sampler_stride": 8}, "only sampler='ddim' can skip steps"),
        ({"sampler": "ddim", "sampler_stride": 5}, "must divide steps=32"),
    ],
)
def test_a_stride_that_does_not_fit_is_refused(switches, message):
    with pytest.raises(ConfigError, match=message):
        parse_config("imecd", switches)


def test_only_the_newest_items_are_read():
    imecd = trained()
    long = batch([9, 8, 3, 1, 4, 1, 5, 9])
    assert torch.equal(score(imecd, long), score(imecd, batch([3, 1, 4, 1, 5, 9])))


@pytest.mark.parametrize("pos_emb", [False, True])
def test_without_positions_only_the_last_item_and_the_set_before_it_count(pos_emb):
    imecd = trained(use_vq=False, pos_emb=pos_emb)
    if pos_emb:
        for denoiser in imecd.denoisers.values():
            nn.init.normal_(denoiser.positions.weight, generator=seeded(4))
    first, shuffled, other_last = (score(imecd, batch(ids))[:, 1:] for ids in ([3, 1, 4], [1, 3, 4], [4, 1, 3]))
    assert torch.allclose(first, shuffled, rtol=1e-4, atol=1e-5) == (not pos_emb)
    assert (first - other_last).abs().max() > 1e-3


def test_the_published_injection_hardly_listens_to_the_noisy_vector():
    found = {}
    for inject in ("delta", "add"):
        imecd = model(inject=inject)
        with eval_mode(imecd):
            found[inject] = imecd.sensitivity(batch(), generator=seeded())
    for name in ("id", "txt", "img"):
        assert 0.0 < found["delta"][name] < 0.1 * found["add"][name]


def test_the_content_target_of_the_reconstruction_is_fixed_unless_told_otherwise():
    """Known estimates, so that the projection is reached through x_0 alone; the ranking loss is taken off."""
    for detach, reached in ((True, False), (False, True)):
        imecd = with_oracles(detach_x0=detach, use_contrastive=False)
        imecd._ranking_losses = lambda estimates, tables, target: {}
        terms = loss(imecd)
        assert terms.total.requires_grad == reached
        if reached:
            terms.total.backward()
            assert imecd.content["txt"].project.weight.grad.abs().max() > 0


PARAMETERS = [
    ("use_idmoe", False, -2 * (3 * (8 + 1) + 3 * (64 + 8))),  # gates 8 -> 3 and 3 experts 8 -> 8, twice
    ("use_vq", False, -3 * (6 * 8 * 3 + 3)),  # selectors 48 -> 3
    ("modalities", ("id", "txt"), None),
    ("pos_emb", True, 3 * 6 * 8),
    ("experts", 4, 2 * (9 + 72)),
    ("codes", 4, 3 * 49),
]


@pytest.mark.parametrize(("switch", "value", "difference"), PARAMETERS, ids=lambda value: str(value))
def test_switches_change_the_size(switch, value, difference):
    sizes = [sum(p.numel() for p in imecd.parameters()) for imecd in (model(**{switch: value}), model())]
    if difference is None:
        assert sizes[0] < sizes[1]
    else:
        assert sizes[0] - sizes[1] == difference


LOSSES = [
    ("use_contrastive", False),
    ("lambda_c", 0.5),
    ("tau_c", 0.07),
    ("exclude_self", True),
    ("mask_same_target", True),
    ("lambda_q", 0.1),
    ("codebook", "batch_mean"),
    ("codebook", "legacy_batch"),
    ("inject", "delta"),
    ("inject", "prepend_token"),
    ("ce", "joint"),
    ("gate_from", "modality"),
    ("schedule", "linear"),
    ("use_vq", False),
    ("use_idmoe", False),
]


@pytest.mark.parametrize(("switch", "value"), LOSSES, ids=str)
def test_switches_change_the_loss(switch, value):
    losses = []
    for imecd in (model(**{switch: value}).train(), model().train()):
        with torch.no_grad():
            for step in range(3):  # the codes of the first batch do not yet know their mode
                terms = loss(imecd, seed=step)
        losses.append(terms.total.item())
    assert abs(losses[0] - losses[1]) > 1e-5


def test_without_the_contrastive_loss_only_its_parts_are_gone():
    whole, without = loss(model()).parts, loss(model(use_contrastive=False)).parts
    assert set(whole) - set(without) == {"repulsion_id", "repulsion_txt", "repulsion_img"}
    assert all(torch.equal(without[name], whole[name]) for name in without)


@pytest.mark.parametrize(
    ("switch", "value"),
    [("variance", "fixedlarge"), ("variance", "none"), ("sampler", "ddim"), ("sampler", "one_step")],
    ids=str,
)
def test_switches_change_the_scores_and_not_the_weights(switch, value):
    other, usual = model(**{switch: value}), model()
    other.load_state_dict(usual.state_dict())
    assert (score(other) - score(usual))[:, 1:].abs().max() > 1e-5


def test_tables_follow_the_modalities():
    assert required_features(Config()) == ("roberta", "vit")
    assert required_features(Config(modalities=("img", "id"), image_table="videomae")) == ("videomae",)
    assert required_features(Config(modalities=("id",))) == ()


def test_a_missing_table_is_named():
    with pytest.raises(MissingFeatureError, match="model imecd needs the feature table 'vit'; given: roberta"):
        build("imecd", SMALL, n_items=N_ITEMS, features={"roberta": tables()["roberta"]})


@pytest.mark.parametrize("modalities", [(), ("id", "id")])
def test_modalities_are_one_to_three_different_ones(modalities):
    with pytest.raises(ConfigError, match="one to three different ones of id, txt, img"):
        model(modalities=modalities)
