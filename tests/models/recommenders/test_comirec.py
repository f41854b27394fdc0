"""ComiRec: the corrected softmax by hand, the hard choice of an interest, the merger of the lists."""

import math

import pytest
import torch
from histories import batch, seeded
from torch import nn

from models.errors import ConfigError
from models.evaluation.mode import eval_mode
from models.interface import CountsFitted
from models.modules.log_uniform import log_uniform_negatives
from models.registry import build

N_ITEMS = 12
SMALL = {"d": 8, "interests": 3, "max_length": 6, "embedding_std": 0.5}


def model(**changes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build("comirec", SMALL | changes, n_items=N_ITEMS)


def loss(comirec, one=None, seed=0):
    return comirec.training_loss(one or batch(), generator=seeded(seed)).total


class Fixed(nn.Module):
    """Interests that are parameters, the same for every history."""

    def __init__(self, interests):
        super().__init__()
        self.interests = nn.Parameter(interests)

    def forward(self, items, mask):
        return self.interests.expand(len(items), -1, -1)


def nearest(comirec, one):
    """The interest of every row with the largest inner product with the target, one row at a time."""
    table = comirec.items.table.detach()
    rows = zip(comirec.interests(one).detach(), one.target.tolist(), strict=True)
    return [max(interests, key=lambda v, e=table[target]: float(v @ e)) for interests, target in rows]


def test_the_sampled_loss_by_hand():
    """-log softmax(v . e - log q) of the target among itself and 10 negatives per row; q of rank r is log-uniform."""
    comirec, one = model(), batch()
    comirec.fit_counts(torch.tensor([0, 1, 9, 3, 9, 2, 7, 4, 0, 0, 5, 1, 8]))
    order = [2, 4, 12, 6, 10, 7, 3, 5, 1, 11, 8, 9]
    assert comirec.by_frequency.tolist() == order
    log_q = {item: math.log(math.log((r + 2) / (r + 1)) / math.log(13)) for r, item in enumerate(order)}
    negatives = log_uniform_negatives(torch.tensor(order), 50, generator=seeded(4)).tolist()
    table, expected = comirec.items.table.detach(), 0.0
    for v, target in zip(nearest(comirec, one), one.target.tolist(), strict=True):
        kept = [target, *(item for item in negatives if item != target)]
        logits = [float(v @ table[item]) - log_q[item] for item in kept]
        expected += math.log(sum(math.exp(logit) for logit in logits)) - logits[0]
    assert loss(comirec, one, seed=4).item() == pytest.approx(expected / 5, rel=1e-5)


def test_the_full_loss_by_hand():
    comirec, one = model(loss="full"), batch()
    table, expected = comirec.items.table.detach()[1:], 0.0
    for v, target in zip(nearest(comirec, one), one.target.tolist(), strict=True):
        expected -= float(torch.log_softmax(table @ v, dim=0)[target - 1])
    assert loss(comirec, one).item() == pytest.approx(expected / 5, rel=1e-5)


def test_only_the_chosen_interest_is_trained():
    comirec = model()
    comirec.guidance = Fixed(torch.eye(8)[:3])
    with torch.no_grad():
        comirec.items.weight[7] = torch.tensor([0.1, 0.3, 0.2, 0, 0, 0, 0, 0])
    loss(comirec, batch([3, 1], target=[7])).backward()
    assert comirec.guidance.interests.grad.abs().amax(dim=1).gt(0).tolist() == [False, True, False]


@pytest.mark.parametrize("guidance", ["sa", "dr"])
def test_the_list_is_the_merger_of_the_lists_of_all_interests(guidance):
    """The 4 best of each interest in one pot, best first, each item once."""
    comirec, one = model(guidance=guidance), batch()
    with eval_mode(comirec):
        interests, table = comirec.interests(one), comirec.items.table.detach()
        top = comirec.recommend(one, k=4, exclude=None, generator=seeded())
    for row in range(len(one)):
        pot = []
        for interest in interests[row]:
            scores = {item: float(table[item] @ interest) for item in range(1, N_ITEMS + 1)}
            pot += [(scores[item], item) for item in sorted(scores, key=scores.get, reverse=True)[:4]]
        merged = list(dict.fromkeys(item for _, item in sorted(pot, reverse=True)))
        assert top.items[row].tolist() == merged[:4]


def test_the_order_of_the_items_is_saved():
    """It is fitted before training only; a resumed training reads it from the file."""
    comirec = model()
    assert isinstance(comirec, CountsFitted)
    assert comirec.by_frequency.tolist() == list(range(1, 13))
    comirec.fit_counts(torch.arange(13))
    other = model()
    other.load_state_dict(comirec.state_dict())
    assert other.by_frequency.tolist() == list(range(12, 0, -1))


@pytest.mark.parametrize("guidance", ["sa", "dr"])
def test_it_learns_one_batch_by_heart(guidance):
    """With one interest: of several, those that no target trains rank all the same."""
    comirec, one = model(guidance=guidance, interests=1), batch()
    optimiser = torch.optim.Adam(comirec.parameters(), lr=0.02)
    for step in range(100):
        optimiser.zero_grad()
        loss(comirec, one, seed=step).backward()
        optimiser.step()
    with eval_mode(comirec):
        assert comirec.score(one, generator=seeded()).argmax(dim=1).tolist() == one.target.tolist()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 13 * 8 + 6 * 8 + (8 * 32 + 32) + 32 * 3),  # table, positions, W1 with bias, W2 without
        ({"guidance": "dr"}, 13 * 8 + 6 * 3 * 8 * 8),  # table, a map for each position and interest
    ],
    ids=["sa", "dr"],
)
def test_the_size_counted_by_hand(changes, expected):
    assert sum(parameter.numel() for parameter in model(**changes).parameters()) == expected


@pytest.mark.parametrize("guidance", ["sa", "dr"])
def test_histories_beyond_the_model_s_reach_are_refused(guidance):
    with pytest.raises(ValueError, match="at most 6 items, got 7"):
        model(guidance=guidance).score(batch([1] * 7), generator=seeded())


def test_unknown_guidance_is_refused():
    with pytest.raises(ConfigError, match="guidance"):
        model(guidance="mlp")
