"""IMECD: the equations against arithmetic, and the two protocol traps of its ancestors."""

import math

import pytest
import torch
from histories import batch, seeded
from imecd_cases import N_ITEMS, Constant, loss, model, score, trained, with_oracles
from torch import nn

from models.diffusion.gaussian import q_posterior
from models.evaluation.mode import eval_mode
from models.recommenders.imecd import Config


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
    """Batches of one size, so that the start of the reverse process is the same draw in all modes."""
    imecd = trained(codebook=codebook)
    some = [5, 9, 2], [8, 11, 10], [6, 5, 3], [2, 4, 1]
    others = [7, 8, 6], [1, 12, 4], [9, 9, 11], [10, 2, 7]
    first, second = (score(imecd, batch([3, 1, 4], *neighbours)) for neighbours in (some, others))
    assert torch.allclose(first[0, 1:], second[0, 1:], rtol=1e-4, atol=1e-5) == independent
    if independent:
        torch.testing.assert_close(score(imecd, batch([3, 1, 4]))[0, 1:], first[0, 1:], rtol=1e-4, atol=1e-5)


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
    for name in ("id", "txt", "img"):  # the transformer's own gain is near 1, delta is .001
        assert 0.0 < found["delta"][name] < 0.01
        assert found["add"][name] > 0.1


def test_a_run_records_how_much_the_denoisers_listen():
    imecd = model(steps=32, modalities=["id", "img"]).eval()
    found = imecd.describe(batch(), generator=seeded())
    assert found.keys() == {"alpha_bar_last", "sensitivity_id", "sensitivity_img"}
    assert found["sensitivity_id"] == imecd.sensitivity(batch(), generator=seeded())["id"]
    signal = math.prod(1 - (0.013125 + (0.635 - 0.013125) * step / 31) for step in range(32))  # of the truncated line
    assert found["alpha_bar_last"] == pytest.approx(signal, rel=1e-4)


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


class Recorder(nn.Module):
    """Answers with what it is given, and remembers it."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x_t, t, sequence, mask, *, generator):
        self.seen.append((x_t, t))
        return x_t


def test_every_row_is_noised_by_itself_at_a_step_of_its_own():
    """All rows have one target, so that the share of noise in x_t tells the rows apart."""
    imecd, rows = model(modalities=("id",), use_vq=False), 400
    imecd.denoisers["id"] = recorder = Recorder()
    one = batch(*[[3, 1, 4]] * rows, target=[5] * rows)
    loss(imecd, one)
    x_t, t = recorder.seen[0]
    assert set(t.tolist()) == {0, 1, 2, 3}
    assert torch.bincount(t).float().tolist() == pytest.approx([rows / 4] * 4, abs=5 * (rows * 3 / 16) ** 0.5)
    assert len({tuple(row) for row in x_t.tolist()}) == rows
    for step in range(4):  # eq. 12: the variance around the target is 1 - alpha_bar_t
        signal = float(imecd.schedule.alpha_bar[step])
        rest = (x_t[t == step] - signal**0.5 * imecd.items.table[5]).detach()
        assert float(rest.square().mean()) == pytest.approx(1 - signal, rel=0.2)


def test_the_noisy_vector_stays_attached_to_the_target():
    """With an estimate of x_t and a target that is cut off, eq. 14 reaches the projection through x_t alone."""
    imecd = model(modalities=("txt",), use_vq=False, use_contrastive=False)
    imecd.denoisers["txt"] = Recorder()
    imecd._ranking_losses = lambda estimates, tables, target: {}
    loss(imecd).total.backward()
    assert imecd.content["txt"].project.weight.grad.abs().max() > 1e-6


def test_each_modality_has_its_own_number_of_blocks():
    imecd = model(layers_id=3, layers_content=2)
    sizes = {name: len(denoiser.transformer.blocks) for name, denoiser in imecd.denoisers.items()}
    assert sizes == {"id": 3, "txt": 2, "img": 2}


def test_reverse_noise_is_that_of_equation_18_and_none_at_the_last_step():
    """With an estimate of 0 the first reverse state is posterior_xt x_T + deviation * noise, of known draws."""
    for variance, deviation in (("fixedsmall", 0.634999**0.5), ("fixedlarge", 0.635**0.5), ("none", 0.0)):
        imecd = model(modalities=("id",), use_vq=False, steps=32, variance=variance)
        seen = []

        class Spy(Constant):
            def forward(self, x_t, t, sequence, mask, *, generator, seen=seen):
                seen.append(x_t)
                return super().forward(x_t, t, sequence, mask, generator=generator)

        imecd.denoisers["id"] = Spy(torch.zeros(8))
        score(imecd, batch([3, 1, 4]))
        draws = seeded()
        start, noise = torch.randn(1, 8, generator=draws), torch.randn(1, 8, generator=draws)
        torch.testing.assert_close(seen[0], start)
        torch.testing.assert_close(seen[1], 0.604151 * start + deviation * noise, rtol=1e-4, atol=1e-5)


def test_one_walk_generates_all_users_and_modalities(monkeypatch):
    """Ten reverse steps of one state; each denoiser is shown its own share, under its own draw."""
    walks, shown = [], {"id": [], "txt": [], "img": []}

    def spy(schedule, x_0, x_t, t):
        walks.append(x_t)
        return q_posterior(schedule, x_0, x_t, t)

    def listen(name):
        def hook(module, arguments):
            shown[name].append(arguments[0])

        return hook

    imecd = model(steps=10)
    for name, denoiser in imecd.denoisers.items():
        denoiser.register_forward_pre_hook(listen(name))
    monkeypatch.setattr("models.diffusion.samplers.q_posterior", spy)
    score(imecd)
    assert [state.shape for state in walks] == [(5, 3, 8)] * 10
    for name, states in shown.items():
        expected = [state[:, list(shown).index(name)] for state in walks]
        torch.testing.assert_close(torch.stack(states), torch.stack(expected), rtol=0, atol=0)
    assert len(walks[0][0].unique()) == 24


def test_the_gates_of_a_catalogue_sum_to_one():
    imecd = trained()
    for name in ("txt", "img"):
        gates = imecd.content[name].experts.gates(imecd.items.table)
        assert gates.shape == (N_ITEMS + 1, 3)
        torch.testing.assert_close(gates.sum(dim=1), torch.ones(N_ITEMS + 1))
        assert (gates > 0).all()
