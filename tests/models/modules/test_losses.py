import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.modules import losses
from models.modules.losses import full_softmax_loss, sampled_softmax_loss


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
