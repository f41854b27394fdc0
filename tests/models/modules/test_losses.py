import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.modules import losses
from models.modules.losses import full_softmax_loss, gbce_loss, sampled_softmax_loss


def states(m, n, d=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(m, d, generator=generator, requires_grad=True)
    table = torch.randn(n + 1, d, generator=generator, requires_grad=True)
    return h, table, torch.randint(1, n + 1, (m,), generator=generator)


def gradients(loss, *tensors):
    return torch.autograd.grad(loss, tensors)


@pytest.mark.parametrize("m", [1, 5, losses.CPU_CHUNK, 2 * losses.CPU_CHUNK + 3])
def test_full_softmax_equals_the_plain_formula_in_float64(m):
    h, table, target = states(m, 40)
    h64, table64 = h.detach().double().requires_grad_(), table.detach().double().requires_grad_()
    logits = h64 @ table64[1:].T / 0.5
    plain = (torch.logsumexp(logits, dim=1) - logits.gather(1, target[:, None] - 1).squeeze(1)).mean()
    loss = full_softmax_loss(h, table, target, temperature=0.5)
    assert loss.item() == pytest.approx(plain.item(), rel=1e-6)
    for found, expected in zip(gradients(loss, h, table), gradients(plain, h64, table64), strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-7)


def test_padding_is_no_class():
    h, table, target = states(7, 10)
    with torch.no_grad():
        table[0] = 50.0 * h[0]
    loss = full_softmax_loss(h, table, target)
    assert loss.item() == pytest.approx(F.cross_entropy(h @ table[1:].T, target - 1).item(), rel=1e-6)
    assert gradients(loss, table)[0][0].tolist() == [0.0] * 6


def test_large_catalogues_work_in_pieces_on_an_accelerator():
    h = torch.empty(4096, 2, device="meta")
    assert losses._chunk(h, n_items=1000) == 4096
    assert losses._chunk(h, n_items=1_000_000) == losses.DEVICE_CHUNK


def test_a_cpu_holds_forty_mebibytes_of_logits_at_most():
    h = torch.empty(4096, 2)
    assert losses._chunk(h, n_items=12_101) == losses.CPU_CHUNK
    assert losses._chunk(h, n_items=2**20) == 10  # 40 MiB / (2^20 items · 4 bytes)
    assert losses._chunk(h, n_items=2**30) == 1


def test_sampled_softmax_over_all_other_items_is_the_full_softmax():
    h, table, target = states(5, 8)
    others = torch.tensor([[item for item in range(1, 9) if item != wanted] for wanted in target.tolist()])
    expected = full_softmax_loss(h, table, target).item()
    assert sampled_softmax_loss(h, table, target, others).item() == pytest.approx(expected, rel=1e-6)


def test_a_negative_that_is_the_target_is_left_out():
    h, table, target = states(3, 8)
    negatives = torch.tensor([1, 2, 3])
    with_target = torch.cat([negatives.expand(3, 3), target[:, None]], dim=1)
    kept = [[item for item in (1, 2, 3) if item != wanted] for wanted in target.tolist()]
    rows = [
        F.cross_entropy(
            (h[row] @ table[torch.tensor([int(target[row]), *kept[row]])].T)[None], torch.tensor([0])
        ).item()
        for row in range(3)
    ]
    assert sampled_softmax_loss(h, table, target, negatives).item() == pytest.approx(np.mean(rows), rel=1e-6)
    assert sampled_softmax_loss(h, table, target, with_target).item() == pytest.approx(np.mean(rows), rel=1e-6)


def test_log_q_undoes_the_draw():
    """Negatives drawn with q and corrected by log q estimate the same softmax: one exact case with two items."""
    h, table, target = torch.ones(1, 1), torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([1])
    log_q = torch.log(torch.tensor([1.0, 0.25, 0.75]))
    loss = sampled_softmax_loss(h, table, target, torch.tensor([2]), log_q=log_q)
    corrected = np.array([1 - np.log(0.25), 2 - np.log(0.75)])
    assert loss.item() == pytest.approx(np.log(np.exp(corrected).sum()) - corrected[0], rel=1e-6)


def test_shared_negatives_are_the_same_negatives_in_every_row():
    h, table, target = states(4, 9)
    negatives, log_q = torch.tensor([3, 1, 3, 8]), -torch.arange(10.0)
    shared = sampled_softmax_loss(h, table, target, negatives, log_q=log_q)
    per_row = sampled_softmax_loss(h, table, target, negatives.repeat(4, 1), log_q=log_q)
    assert shared.item() == pytest.approx(per_row.item(), rel=1e-6)
    for found, expected in zip(gradients(shared, h, table), gradients(per_row, h, table), strict=True):
        torch.testing.assert_close(found, expected)


def published_gbce(positive, negative, *, alpha, t):
    """The published way: the target's logit is transformed in float64, then binary cross-entropy as usual."""
    beta = alpha * ((1 - 1 / alpha) * t + 1 / alpha)
    adjusted = torch.sigmoid(positive.double()).pow(-beta)
    logits = torch.cat([(1 / (adjusted - 1)).log(), negative.double()], dim=1)
    truth = torch.zeros_like(logits)
    truth[:, 0] = 1.0
    return F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(dim=1).mean()


@pytest.mark.parametrize("calibration", [0.0, 0.75, 1.0])
@pytest.mark.parametrize("shared", [False, True])
def test_gbce_equals_the_published_transformation(calibration, shared):
    h, table, target = states(7, 50)
    target = target.clamp(max=40)  # no negative below equals a target
    generator = torch.Generator().manual_seed(4)
    negatives = torch.randint(41, 51, (9,) if shared else (7, 9), generator=generator)
    positive = (h * table[target]).sum(dim=1, keepdim=True)
    others = (h.unsqueeze(1) * table[negatives.expand(7, 9)]).sum(dim=2)
    expected = published_gbce(positive, others, alpha=9 / 49, t=calibration)
    loss = gbce_loss(h, table, target, negatives, n_items=50, calibration=calibration)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for found, wanted in zip(gradients(loss, h, table), gradients(expected, h, table), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_gbce_without_calibration_is_binary_cross_entropy_by_hand():
    """Logits 1 and 2: -(log sigmoid(1) + log(1 - sigmoid(2))) / 2 = (0.313262 + 2.126928) / 2."""
    table = torch.tensor([[0.0], [1.0], [2.0], [0.0]])
    loss = gbce_loss(torch.ones(1, 1), table, torch.tensor([1]), torch.tensor([[2]]), n_items=3, calibration=0.0)
    assert loss.item() == pytest.approx((0.313262 + 2.126928) / 2, rel=1e-5)


def test_gbce_leaves_out_a_negative_that_is_the_target():
    table = torch.tensor([[0.0], [1.0], [2.0], [0.0]], requires_grad=True)
    h = torch.ones(1, 1)
    loss = gbce_loss(h, table, torch.tensor([1]), torch.tensor([[1, 2]]), n_items=3, calibration=0.0)
    assert loss.item() == pytest.approx((0.313262 + 2.126928) / 3, rel=1e-5)
    assert gradients(loss, table)[0].isfinite().all()


def test_gbce_stays_finite_where_probabilities_round_to_zero_and_one():
    table = torch.tensor([[0.0], [-200.0], [200.0]], requires_grad=True)
    for target in (1, 2):
        wanted, other = torch.tensor([target]), torch.tensor([[3 - target]])
        loss = gbce_loss(torch.ones(1, 1), table, wanted, other, n_items=3)
        assert loss.isfinite()
        assert gradients(loss, table)[0].isfinite().all()
