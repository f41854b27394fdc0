import pytest
import torch
from histories import loss_of, with_targets

from models.interface import CountsFitted
from models.registry import build

SMALL = {"d": 8, "layers": 2, "inner": 16, "dropout": 0.0, "max_length": 6}


def model(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build("sasrec", SMALL, n_items=12)


def test_all_positions_are_the_mean_over_all_prefixes():
    """The reason why a causal model may train on whole sequences: each prefix gives the same loss by itself."""
    sasrec = model()
    whole = loss_of(sasrec, [[3, 1, 4, 0], [5, 9, 0, 0]], [[1, 4, 2, 0], [9, 6, 0, 0]])
    prefixes = [([3], [1]), ([3, 1], [1, 4]), ([3, 1, 4], [1, 4, 2]), ([5], [9]), ([5, 9], [9, 6])]
    single = [loss_of(sasrec, [ids], [targets], last_only=True) for ids, targets in prefixes]
    assert whole == pytest.approx(sum(single) / 5, rel=1e-5)


def test_the_score_is_the_softmax_of_the_loss():
    sasrec = model().eval()
    one = with_targets([[3, 1, 4]], [[1, 4, 2]])
    scores = sasrec.score(one, generator=torch.Generator())
    expected = -torch.log_softmax(scores[0], dim=0)[2].item()
    assert loss_of(sasrec, [[3, 1, 4]], [[1, 4, 2]], last_only=True) == pytest.approx(expected, rel=1e-5)


def test_the_order_of_the_history_matters():
    sasrec = model().eval()
    with torch.no_grad():
        for parameter in sasrec.parameters():  # N(0, 0.02) before training: attention is next to uniform
            parameter.normal_(std=0.5, generator=torch.Generator().manual_seed(parameter.numel()))
    first, second = (
        sasrec.score(with_targets([ids], [[1, 1, 1]]), generator=torch.Generator()) for ids in ([3, 1, 4], [1, 3, 4])
    )
    assert (first - second)[:, 1:].abs().max() > 1e-3  # rounding of scores of this size is about 1e-7


def test_padding_is_never_trained():
    sasrec = model()
    before = sasrec.encoder.items.table.detach().clone()
    optimiser = torch.optim.Adam(sasrec.parameters(), lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        sasrec.training_loss(with_targets([[3, 1, 0, 0]], [[1, 4, 0, 0]]), generator=torch.Generator()).total.backward()
        optimiser.step()
    assert sasrec.encoder.items.table[0].tolist() == [0.0] * 8
    assert (sasrec.encoder.items.table - before).abs().max(dim=1).values[1:].min() > 0.05


def test_histories_beyond_the_model_s_reach_are_refused():
    with pytest.raises(ValueError, match="at most 6 items, got 7"):
        model().score(with_targets([[1] * 7], [[2] * 7]), generator=torch.Generator())


def test_the_size_is_that_of_the_paper_s_network():
    """n·d + positions + norm + per block: 4 d² - d of attention, 2 d·inner and biases, two norms; counted by hand."""
    d, inner, attention = 8, 16, 4 * 8 * 8 + 3 * 8
    block = attention + (2 * d * inner + inner + d) + 4 * d
    expected = 13 * d + 6 * d + 2 * d + 2 * block
    assert sum(parameter.numel() for parameter in model().parameters()) == expected


@pytest.mark.parametrize("choice", [{"loss": "sampled", "negatives": 30}, {"loss": "gbce", "negatives": 4}])
def test_sampled_losses_learn_what_follows_what(choice):
    """Four pairs; every loss must rank the second of a pair first after its first."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sasrec = build("sasrec", SMALL | choice, n_items=12)
    pairs = with_targets([[1], [3], [5], [7]], [[2], [4], [6], [8]])
    optimiser = torch.optim.Adam(sasrec.parameters(), lr=0.02)
    for step in range(150):
        optimiser.zero_grad()
        sasrec.training_loss(pairs, generator=torch.Generator().manual_seed(step)).total.backward()
        optimiser.step()
    scores = sasrec.eval().score(pairs, generator=torch.Generator())
    assert scores.argmax(dim=1).tolist() == [2, 4, 6, 8]


def test_only_draws_by_popularity_are_fitted_to_counts():
    counted = build("sasrec", SMALL | {"loss": "sampled", "negative_draw": "popularity"}, n_items=12)
    assert isinstance(counted, CountsFitted)
    assert not isinstance(model(), CountsFitted)
    counted.fit_counts(torch.arange(13))
    assert counted.head.log_q.exp()[1:].tolist() == pytest.approx([(item + 1) / 90 for item in range(1, 13)])
