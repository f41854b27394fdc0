"""Pooling against sums that a person can check."""

import pytest
import torch

from extractors import pooling

TOKENS = torch.arange(24, dtype=torch.float32).reshape(2, 4, 3)


def test_cls_is_the_first_token():
    assert pooling.cls(TOKENS).tolist() == [[0, 1, 2], [12, 13, 14]]


def test_masked_mean_leaves_padding_out_even_where_it_is_not_a_number():
    tokens = TOKENS.clone()
    tokens[0, 2:] = float("nan")
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    assert pooling.masked_mean(tokens, mask).tolist() == [[1.5, 2.5, 3.5], [16.5, 17.5, 18.5]]


def test_masked_mean_of_nothing_is_refused():
    with pytest.raises(ValueError, match="row 1 has no unmasked token"):
        pooling.masked_mean(TOKENS, torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0]]))


def test_tubelet_means():
    assert pooling.tubelet_means(TOKENS, 2)[0].tolist() == [[1.5, 2.5, 3.5], [7.5, 8.5, 9.5]]
    with pytest.raises(ValueError, match="4 tokens do not divide into 3 tubelets"):
        pooling.tubelet_means(TOKENS, 3)


@pytest.mark.parametrize("pool", [pooling.cls, lambda tokens: pooling.tubelet_means(tokens, 2)])
def test_half_precision_is_pooled_in_float32(pool):
    assert pool(TOKENS.to(torch.bfloat16)).dtype == torch.float32
