"""The guidance extractors: where attention goes, and what padding may not do."""

import pytest
import torch

from models.modules.multi_interest import (
    DynamicRouting,
    MlpInterests,
    RecentItems,
    SelfAttentiveInterests,
    masked_softmax,
    nearest_interest,
    squash,
)

WIDTH, INTERESTS, LONGEST = 4, 3, 8


def make(kind):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return {
            "sa": lambda: SelfAttentiveInterests(WIDTH, INTERESTS, max_length=LONGEST),
            "dr": lambda: DynamicRouting(WIDTH, INTERESTS, max_length=LONGEST),
            "mlp": lambda: MlpInterests(WIDTH, INTERESTS),
            "rule": lambda: RecentItems(INTERESTS),
        }[kind]()


def items(lengths=(5, 2, 1, 4), length=5):
    mask = torch.arange(length) < torch.tensor(lengths).unsqueeze(1)
    drawn = torch.randn(len(lengths), length, WIDTH, generator=torch.Generator().manual_seed(3))
    return drawn * mask.unsqueeze(-1), mask


def strong_positions(extractor):
    table = next(value for value in extractor.parameters() if value.shape == (LONGEST, WIDTH))
    torch.nn.init.normal_(table, std=3.0, generator=torch.Generator().manual_seed(1))


every_kind = pytest.mark.parametrize("kind", ["sa", "dr", "mlp", "rule"])


@every_kind
def test_what_stands_on_padding_and_how_much_of_it_does_not_matter(kind):
    extractor, (x, mask) = make(kind), items()
    found = extractor(x, mask)
    assert found.shape == (4, INTERESTS, WIDTH)
    torch.testing.assert_close(extractor(x + 7.0 * ~mask.unsqueeze(-1), mask), found)
    wider = torch.nn.functional.pad(x, (0, 0, 0, 3))
    torch.testing.assert_close(extractor(wider, torch.nn.functional.pad(mask, (0, 3))), found)


@every_kind
def test_an_empty_history_is_finite(kind):
    assert make(kind)(*items((0, 3))).isfinite().all()


def test_attention_is_a_distribution_over_the_real_positions_for_every_interest():
    x, mask = items()
    weights = make("sa").weights(x, mask)
    assert weights.shape == (4, 5, INTERESTS)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(4, INTERESTS))
    assert (weights[~mask] == 0.0).all()
    assert (weights[mask] > 0.0).all()


def test_attention_is_equation_16():
    """softmax over the sequence of W2 tanh(W1 (h + p)), place by place; p counts from the newest item back."""
    extractor = make("sa")
    strong_positions(extractor)
    x, mask = items()
    for row, length in enumerate((5, 2, 1, 4)):
        logits = []
        for place in range(length):
            position = extractor.age.weight[length - 1 - place]
            hidden = torch.tanh(extractor.hidden.weight @ (x[row, place] + position) + extractor.hidden.bias)
            logits.append(extractor.out.weight @ hidden)
        shares = torch.stack(logits).exp()
        shares = shares / shares.sum(dim=0)
        torch.testing.assert_close(extractor.weights(x, mask)[row, :length], shares)
        torch.testing.assert_close(extractor(x, mask)[row], shares.T @ x[row, :length])


def test_one_item_is_every_interest():
    x, mask = items((1,))
    torch.testing.assert_close(make("sa")(x, mask), x[:, :1].expand(-1, INTERESTS, -1))


def test_values_carry_no_positions():
    """Equal items mix to the same item whatever the attention."""
    same = torch.ones(1, 5, WIDTH)
    extractor = make("sa")
    strong_positions(extractor)
    found = extractor(same, torch.ones(1, 5, dtype=torch.bool))
    torch.testing.assert_close(found, torch.ones(1, INTERESTS, WIDTH))


def test_positions_steer_the_attention():
    extractor = make("sa")
    strong_positions(extractor)
    x, mask = items((5,))
    assert (extractor(x, mask) - extractor(x.flip(1), mask)).abs().max() > 1e-2


def test_positions_count_from_the_newest_item():
    """How two newest items share the attention does not depend on what came before them."""
    extractor = make("sa")
    strong_positions(extractor)
    x, mask = items((5,))
    long, short = extractor.weights(x, mask)[0, 3:], extractor.weights(x[:, 3:], mask[:, 3:])[0]
    torch.testing.assert_close(long[1] / long[0], short[1] / short[0], rtol=1e-3, atol=0.0)


def test_permuting_the_heads_permutes_the_interests():
    extractor, (x, mask) = make("sa"), items()
    found, order = extractor(x, mask), torch.tensor([2, 0, 1])
    with torch.no_grad():
        extractor.out.weight.copy_(extractor.out.weight[order].clone())
    torch.testing.assert_close(extractor(x, mask), found[:, order])


def test_routing_is_that_of_comirec_item_by_item():
    """b_jl = 0; thrice: w_l = softmax_j(b_jl), z_j = sum_l w_jl e_jl, v_j = squash(z_j), b_jl += v_j . e_jl."""
    routing, (x, mask) = make("dr"), items()
    maps = routing.maps.detach().reshape(LONGEST, WIDTH, INTERESTS, WIDTH)
    for row, length in enumerate((5, 2, 1, 4)):
        votes = torch.stack(  # e_jl, with a map for each pair of position, from the newest item back, and interest
            [torch.einsum("d,djo->jo", x[row, place], maps[length - 1 - place]) for place in range(length)], dim=1
        )
        agreement = torch.zeros(INTERESTS, length)
        for _ in range(3):
            shares = agreement.exp() / agreement.exp().sum(dim=0)
            capsules = squash((shares.unsqueeze(2) * votes).sum(dim=1))
            agreement = agreement + (capsules.unsqueeze(1) * votes).sum(dim=2)
        torch.testing.assert_close(routing(x, mask)[row].detach(), capsules)


def test_the_gradient_of_routing_goes_through_its_last_round_only():
    """The shares of the last round are constants: z_j is linear in the maps, whatever led to the shares."""
    routing, (x, mask) = make("dr"), items((3,), length=3)
    weights = torch.randn(1, INTERESTS, WIDTH, generator=torch.Generator().manual_seed(5))
    (routing(x, mask) * weights).sum().backward()
    found, shares = routing.maps.grad.clone(), []
    softmax = torch.softmax
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "softmax", lambda *given, **named: shares.append(softmax(*given, **named)) or shares[-1])
        routing(x, mask)
    votes = routing._votes(x, mask)
    capsules = squash(torch.einsum("blk,blkd->bkd", shares[-1].detach(), votes))
    routing.maps.grad = None
    (capsules * weights).sum().backward()
    torch.testing.assert_close(found, routing.maps.grad)


def test_capsules_are_shorter_than_one_and_differ():
    x, mask = items()
    capsules = make("dr")(10 * x, mask)
    assert (capsules.norm(dim=-1) < 1.0).all()
    assert (capsules[:, 0] - capsules[:, 1]).abs().max() > 1e-3


def test_recent_items_are_the_last_ones_oldest_first():
    """Of two items the older one is two interests of three: none is a vector of zeros."""
    x, mask = items((5, 2, 0))
    found = make("rule")(x + 1.0, mask)
    torch.testing.assert_close(found[0], x[0, 2:5] + 1.0)
    torch.testing.assert_close(found[1], x[1, [0, 0, 1]] + 1.0)
    torch.testing.assert_close(found[2], torch.zeros(3, WIDTH))  # an empty history has no item


def test_the_mlp_reads_the_mean_of_the_real_items():
    mlp, (x, mask) = make("mlp"), items((2,))
    expected = mlp.layers(x[0, :2].mean(dim=0)).reshape(INTERESTS, WIDTH)
    torch.testing.assert_close(mlp(x, mask)[0], expected)


def test_the_nearest_interest_has_the_largest_inner_product():
    interests = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[3.0, 0.0], [0.0, -1.0]]])
    target = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    assert nearest_interest(interests, target).tolist() == [[0.0, 2.0], [3.0, 0.0]]


def test_squash_by_arithmetic():
    """|(3, 4)| = 5 becomes 25/26."""
    torch.testing.assert_close(squash(torch.tensor([3.0, 4.0])), torch.tensor([0.6, 0.8]) * 25 / 26)
    assert squash(torch.zeros(2)).tolist() == [0.0, 0.0]


def test_masked_softmax_of_nothing_is_zero():
    logits = torch.tensor([[0.0, 1.0], [5.0, 5.0]])
    mask = torch.tensor([[True, False], [False, False]])
    assert masked_softmax(logits, mask, dim=1).tolist() == [[1.0, 0.0], [0.0, 0.0]]
