"""Bounds and corners of IMECD's eq. 15, and of the agreement of two views."""

import math

import pytest
import torch

from models.modules.contrastive import nt_xent_loss, repulsion_loss


def vectors(rows=6, width=4):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(0))


def test_it_is_the_written_double_sum():
    x = vectors()
    expected = 0.0
    for a in x:
        expected += math.log(sum(math.exp(float(a @ b / a.norm() / b.norm()) / 0.5) for b in x)) / len(x)
    assert repulsion_loss(x, temperature=0.5).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.07])
def test_equal_rows_give_the_upper_bound(temperature):
    same = torch.ones(16, 4)
    assert repulsion_loss(same, temperature=temperature).item() == pytest.approx(math.log(16) + 1 / temperature)


@pytest.mark.parametrize("rows", [2, 4, 16])
def test_a_regular_simplex_gives_the_lower_bound(rows):
    """Unit vectors cannot be further apart than cosine -1/(b - 1) on average."""
    simplex = torch.eye(rows) - 1 / rows
    lowest = math.log(math.e + (rows - 1) * math.exp(-1 / (rows - 1)))
    assert repulsion_loss(simplex).item() == pytest.approx(lowest, rel=1e-5)
    random = repulsion_loss(vectors(rows, 3)).item()
    assert lowest - 1e-6 <= random <= math.log(rows) + 1 + 1e-6


def test_the_paper_s_batch_leaves_one_nat_of_range():
    """The bounds at batch 1280 and temperature 1: 7.155 and 8.155."""
    simplex = torch.eye(1280) - 1 / 1280
    assert repulsion_loss(simplex).item() == pytest.approx(7.155, abs=1e-3)
    assert repulsion_loss(torch.ones(1280, 2)).item() == pytest.approx(8.155, abs=1e-3)


def test_without_itself_two_opposite_rows_feel_only_each_other():
    opposite = torch.tensor([[1.0, 0.0], [-2.0, 0.0]])
    assert repulsion_loss(opposite, exclude_self=True).item() == pytest.approx(-1.0)
    assert repulsion_loss(opposite).item() == pytest.approx(math.log(math.e + 1 / math.e))


def test_rows_of_the_same_label_do_not_repel():
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    labels = torch.tensor([7, 7, 8])
    per_row = [math.log(math.e + 1), math.log(math.e + 1), math.log(math.e + 2)]
    assert repulsion_loss(x, same=labels).item() == pytest.approx(sum(per_row) / 3)


def test_nothing_to_be_pushed_from_is_zero_with_a_gradient():
    x = vectors(3).requires_grad_()
    loss = repulsion_loss(x, exclude_self=True, same=torch.ones(3, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0.0
    assert x.grad is not None
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_descending_it_spreads_the_rows():
    x = (torch.ones(5, 3) + 0.1 * vectors(5, 3)).requires_grad_()
    before = repulsion_loss(x)
    before.backward()
    assert repulsion_loss(x.detach() - 0.1 * x.grad) < before


@pytest.mark.parametrize("cosine", [False, True])
def test_agreement_is_the_written_sum(cosine):
    first, second = vectors(3), vectors(7)[4:]
    views = [row / row.norm() if cosine else row for row in torch.cat((first, second))]
    expected = 0.0
    for place, view in enumerate(views):
        others = [math.exp(float(view @ other) / 0.5) for number, other in enumerate(views) if number != place]
        partner = math.exp(float(view @ views[(place + 3) % 6]) / 0.5)
        expected -= math.log(partner / sum(others)) / 6
    found = nt_xent_loss(first, second, temperature=0.5, cosine=cosine)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_rows_are_compared_in_float32_under_autocast():
    x = vectors()
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            losses = repulsion_loss(x, temperature=0.07), nt_xent_loss(x, x.flip(1), temperature=0.07)
        found.append([loss.item() for loss in losses])
    assert found[1] == pytest.approx(found[0], rel=1e-6)


def test_equal_views_agree_with_all_others_alike():
    assert nt_xent_loss(torch.ones(8, 4), torch.ones(8, 4)).item() == pytest.approx(math.log(15))


def test_views_of_the_same_label_are_no_negatives():
    """Rows 0 and 1 share a label: their views see their partner and the two views of row 2, which sees five."""
    ones = torch.ones(3, 2)
    found = nt_xent_loss(ones, ones, same=torch.tensor([4, 4, 9])).item()
    assert found == pytest.approx((2 * math.log(3) + math.log(5)) / 3)


def test_a_row_without_negatives_costs_nothing_and_has_a_gradient():
    x = vectors(2).requires_grad_()
    loss = nt_xent_loss(x, 2 * x, same=torch.tensor([1, 1]))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_descending_it_brings_partners_together():
    first, second = vectors(5).requires_grad_(), vectors(12)[7:]
    before = nt_xent_loss(first, second)
    before.backward()
    closer = first.detach() - 0.1 * first.grad
    assert nt_xent_loss(closer, second) < before
    assert (closer * second).sum() > (first * second).sum()
