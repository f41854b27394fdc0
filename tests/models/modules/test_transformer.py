import pytest
import torch
from torch import nn

from models.modules.attention import MultiHeadAttention, attention_mask
from models.modules.item_embedding import ItemEmbedding
from models.modules.position import LearnedPositions
from models.modules.sequence_encoder import SequenceEncoder, last_state
from models.modules.transformer import TransformerEncoder


def seeded(module, std=0.5):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(std * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def random(*shape, seed=2):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def torch_attention(ours, d, heads):
    """torch's own layer with the same weights."""
    theirs = nn.MultiheadAttention(d, heads, batch_first=True).eval()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, torch.zeros(d), ours.value.bias]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    return theirs


def test_attention_equals_torch():
    ours = seeded(MultiHeadAttention(12, heads=3))
    x, context = random(2, 4, 12), random(2, 7, 12, seed=3)
    hidden = torch.rand(2, 7, generator=torch.Generator().manual_seed(4)) < 0.4
    hidden[:, 0] = False
    theirs, _ = torch_attention(ours, 12, 3)(x, context, context, key_padding_mask=hidden)
    found = ours(x, context=context, attend=~hidden[:, None, None, :])
    torch.testing.assert_close(found, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_encoder_equals_torch(norm_first, activation):
    ours = seeded(TransformerEncoder(12, 2, heads=3, inner=20, activation=activation, norm_first=norm_first))
    layer = nn.TransformerEncoderLayer(
        12, 3, 20, 0.0, activation, layer_norm_eps=1e-12, batch_first=True, norm_first=norm_first
    )
    norm = nn.LayerNorm(12, eps=1e-12) if norm_first else None
    theirs = nn.TransformerEncoder(layer, 2, norm=norm, enable_nested_tensor=False).eval()
    with torch.no_grad():
        for block, reference in zip(ours.blocks, theirs.layers, strict=True):
            reference.self_attn.load_state_dict(torch_attention(block.attention, 12, 3).state_dict())
            reference.linear1.load_state_dict(block.feed_forward[0].state_dict())
            reference.linear2.load_state_dict(block.feed_forward[2].state_dict())
            reference.norm1.load_state_dict(block.attention_norm.state_dict())
            reference.norm2.load_state_dict(block.feed_forward_norm.state_dict())
        if norm is not None:
            norm.load_state_dict(ours.last_norm.state_dict())
    x = random(2, 5, 12)
    causal = torch.ones(5, 5, dtype=torch.bool).tril()
    torch.testing.assert_close(ours(x, attend=causal), theirs(x, mask=~causal), rtol=1e-4, atol=1e-5)


def test_a_bias_of_the_keys_would_change_nothing():
    """Why there is none: torch's layer gives the same with any bias of the keys."""
    ours = seeded(MultiHeadAttention(12, heads=3))
    theirs, x = torch_attention(ours, 12, 3), random(2, 4, 12)
    with torch.no_grad():
        theirs.in_proj_bias[12:24] = random(12, seed=5)
    torch.testing.assert_close(ours(x), theirs(x, x, x)[0], rtol=1e-5, atol=1e-6)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="5 does not divide the width 12"):
        MultiHeadAttention(12, heads=5)


def test_masks_by_hand():
    mask = torch.tensor([[True, True, False]])
    assert attention_mask(mask, causal=True)[0, 0].tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert attention_mask(mask, causal=False)[0, 0].tolist() == [[1, 1, 0], [1, 1, 0], [1, 1, 1]]
    assert attention_mask(torch.zeros(1, 2, dtype=torch.bool), causal=False)[0, 0].tolist() == [[1, 0], [0, 1]]


def test_positions_are_added_and_bounded():
    positions = LearnedPositions(3, 2)
    assert torch.equal(positions(torch.zeros(1, 2, 2))[0], positions.weight[:2])
    with pytest.raises(ValueError, match="at most 3 items, got 4"):
        positions(torch.zeros(1, 4, 2))


def test_padding_has_a_zero_vector_that_is_never_trained():
    items = ItemEmbedding(5, 3)
    assert items.table.shape == (6, 3)
    assert items(torch.tensor([[0]])).tolist() == [[[0.0, 0.0, 0.0]]]
    items(torch.tensor([[0, 2, 0]])).sum().backward()
    assert items.weight.grad.abs().sum(dim=1).tolist() == [0.0, 0.0, 3.0, 0.0, 0.0, 0.0]


def encoder(causal, max_length=6):
    return seeded(SequenceEncoder(ItemEmbedding(9, 8), max_length, heads=2, inner=16, causal=causal), std=0.3)


@pytest.mark.parametrize("causal", [True, False])
def test_padding_changes_no_real_state(causal):
    model = encoder(causal)
    ids = torch.tensor([[3, 1, 4]])
    padded = torch.tensor([[3, 1, 4, 0, 0, 0]])
    torch.testing.assert_close(model(padded, padded > 0)[:, :3], model(ids, ids > 0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_causal_states_do_not_see_the_future(causal):
    model = encoder(causal)
    ids = torch.tensor([[3, 1, 4, 1, 5], [3, 1, 4, 2, 8]])
    first, second = model(ids, ids > 0)[:, :3]
    assert torch.equal(first, second) == causal


def test_an_empty_history_is_finite():
    ids = torch.zeros(1, 4, dtype=torch.int64)
    assert encoder(causal=False)(ids, ids > 0).isfinite().all()


def test_last_state_by_hand():
    hidden = torch.arange(12.0).view(2, 3, 2)
    assert last_state(hidden, torch.tensor([0, 2])).tolist() == [[0.0, 1.0], [10.0, 11.0]]


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
def test_one_wanted_position_is_that_row_of_the_whole(norm_first, layers):
    encoder = seeded(TransformerEncoder(8, layers, heads=2, inner=16, norm_first=norm_first)).double()
    x = random(4, 6, 8).double()
    mask = torch.arange(6) < torch.tensor([[6], [3], [1], [0]])
    attend = attention_mask(mask, causal=True)
    at = (mask.sum(dim=1) - 1).clamp(min=0)
    whole = encoder(x, attend=attend)
    found = encoder(x, attend=attend, at=at)
    assert found.shape == (4, 1, 8)
    torch.testing.assert_close(found.squeeze(1), whole[torch.arange(4), at], rtol=0, atol=1e-12)
    torch.testing.assert_close(encoder(x, at=at).squeeze(1), encoder(x)[torch.arange(4), at], rtol=0, atol=1e-12)
