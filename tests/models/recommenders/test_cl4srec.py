import math

import pytest
import torch

from models.modules.contrastive import nt_xent_loss
from models.modules.views import CROP, MASK, REORDER, augment
from models.registry import build, parse_config
from models.sequences.batch import SequenceBatch

SMALL = {"d": 8, "layers": 2, "inner": 16, "dropout": 0.0, "max_length": 10}
IDS = (torch.arange(1, 11) + 20 * torch.arange(4).unsqueeze(1)) * (
    torch.arange(10) < torch.tensor([[10], [5], [1], [0]])
)


def model(name="cl4srec", seed=0, **config):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build(name, SMALL | config, n_items=80)


def batch(ids=IDS, user=None, targets=None):
    rows = len(ids)
    user = torch.arange(rows) if user is None else torch.tensor(user)
    return SequenceBatch(ids, ids > 0, torch.arange(1, rows + 1), user, targets)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def view(operator, seed=0, **config):
    parsed = parse_config("cl4srec", SMALL | config)
    return augment(batch(), torch.full((len(IDS),), operator), parsed, generator=seeded(seed))


def test_a_cropped_view_is_shorter_and_starts_anew():
    ids, mask, hidden = view(CROP, crop=0.6)
    assert mask.sum(dim=1).tolist() == [6, 3, 1, 0]
    assert torch.equal(mask, ids > 0)
    assert ids[0, 1:6].sub(ids[0, :5]).tolist() == [1] * 5
    assert not hidden.any()


def test_a_masked_view_hides_some_items_and_moves_none():
    ids, mask, hidden = view(MASK, mask=0.3)
    assert torch.equal(ids, IDS)
    assert torch.equal(mask, IDS > 0)
    assert hidden.sum(dim=1).tolist() == [3, 1, 0, 0]


def test_a_reordered_view_has_the_same_items():
    ids, mask, hidden = view(REORDER, reorder=0.6)
    assert torch.equal(ids.sort(dim=1).values, IDS.sort(dim=1).values)
    assert not torch.equal(ids, IDS)
    assert torch.equal(mask, IDS > 0)
    assert not hidden.any()


def test_every_row_has_its_own_operator():
    ids, mask, hidden = augment(
        batch(IDS[:1].repeat(3, 1)),
        torch.tensor([REORDER, MASK, CROP]),
        parse_config("cl4srec", SMALL),
        generator=seeded(),
    )
    assert mask.sum(dim=1).tolist() == [10, 10, 6]
    assert hidden.sum(dim=1).tolist() == [0, 3, 0]
    assert torch.equal(ids[1], IDS[0])
    assert not torch.equal(ids[0], IDS[0])


def test_without_weight_it_is_sasrec():
    plain, sasrec = model(weight=0.0), model("sasrec")
    sasrec.encoder.load_state_dict(plain.encoder.state_dict())
    one = batch(IDS[:3])
    assert torch.equal(plain.score(one, generator=seeded()), sasrec.score(one, generator=seeded()))
    found, expected = (each.training_loss(one, generator=seeded()) for each in (plain, sasrec))
    assert torch.equal(found.total, expected.total)


@pytest.mark.parametrize("targets", [None, IDS[:3]])
def test_the_total_is_the_weighted_sum(targets):
    one = batch(IDS[:3], targets=targets)
    light, heavy = (model(weight=weight).training_loss(one, generator=seeded(1)) for weight in (0.1, 0.4))
    torch.testing.assert_close(heavy.parts["views"], 4 * light.parts["views"])
    torch.testing.assert_close(heavy.parts["next"], light.parts["next"])
    torch.testing.assert_close(heavy.total.detach(), heavy.parts["next"] + heavy.parts["views"])


def test_views_that_cannot_differ_agree_as_far_as_the_states_allow():
    """Histories of one item, which no operator changes (a third of one item is none): both views are the history."""
    cl4srec = model(weight=1.0)
    one = batch(torch.tensor([[3, 0], [7, 0], [9, 0]]))
    state = cl4srec.encoder(one.item_ids, one.mask)[:, 0]
    terms = cl4srec.training_loss(one, generator=seeded())
    torch.testing.assert_close(terms.parts["views"], nt_xent_loss(state, state).detach())


def test_views_of_one_user_do_not_repel_each_other():
    one = batch(torch.tensor([[3, 0], [7, 0], [9, 0]]), user=[5, 5, 5])
    assert model(weight=1.0).training_loss(one, generator=seeded()).parts["views"].item() == 0.0


def test_cosines_are_bounded_by_the_temperature():
    """Similarities within 1/t of zero: the loss is within 2/t of that of equal ones, log(2 b - 1)."""
    terms = model(weight=1.0, similarity="cosine", temperature=4.0).training_loss(batch(IDS[:3]), generator=seeded())
    assert abs(terms.parts["views"].item() - math.log(5)) <= 2 / 4


def test_the_hidden_items_vector_learns_from_views_alone():
    cl4srec = model(mask=1.0)
    cl4srec.training_loss(batch(IDS[:3]), generator=seeded()).total.backward()
    assert cl4srec.views.mask_vector.grad.abs().max() > 0
    assert "mask_vector" not in {name for name, _ in cl4srec.encoder.named_parameters()}


def test_the_generator_alone_decides_the_views():
    one = batch(IDS[:3])
    first = model().training_loss(one, generator=seeded(1)).total
    torch.manual_seed(9)
    assert torch.equal(model().training_loss(one, generator=seeded(1)).total, first)
    assert not torch.equal(model().training_loss(one, generator=seeded(2)).total, first)
