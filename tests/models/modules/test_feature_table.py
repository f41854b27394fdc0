"""Standardised content tables against numpy's mean and deviation."""

import numpy as np
import pytest
import torch

from models.modules.feature_table import FeatureTable


def raw(*shape, seed=0, scale=50.0):
    table = scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) + 7.0
    table[0] = 0.0
    return table


def test_columns_have_mean_zero_and_variance_one_over_present_items():
    table = raw(9, 4)
    table[5] = 0.0  # an item without the feature
    values = FeatureTable(table)(torch.tensor([1, 2, 3, 4, 6, 7, 8])).numpy()
    rows = np.delete(table.numpy(), [0, 5], axis=0)
    np.testing.assert_allclose(values, (rows - rows.mean(0)) / rows.std(0), rtol=1e-4, atol=1e-5)


def test_padding_and_missing_items_are_zero():
    table = raw(9, 4)
    table[5] = 0.0
    assert not FeatureTable(table)(torch.tensor([0, 5])).any()


def test_frames_share_the_statistics_of_their_column():
    table = raw(6, 5, 3)
    values = FeatureTable(table).table[1:]
    columns = table[1:].reshape(-1, 3).numpy()
    expected = (table[1:].numpy() - columns.mean(0)) / columns.std(0)
    np.testing.assert_allclose(values.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_scale_and_shift_of_the_encoder_do_not_matter():
    table = raw(9, 4)
    other = table.clone()
    other[1:] = 1e-3 * table[1:] - 4.0
    torch.testing.assert_close(FeatureTable(other).table, FeatureTable(table).table, rtol=1e-3, atol=1e-3)


def test_a_constant_column_becomes_zero():
    table = raw(9, 4)
    table[1:, 2] = 3.3
    values = FeatureTable(table).table
    assert not values[:, 2].any()
    assert values[1:, 0].any()


def test_a_table_without_any_feature_is_zero():
    assert not FeatureTable(torch.zeros(4, 3)).table.any()


def test_half_precision_storage_returns_float32():
    table = FeatureTable(raw(9, 4), dtype=torch.float16)
    assert table.values.dtype == torch.float16
    assert table(torch.tensor([[1, 2]])).dtype == torch.float32
    torch.testing.assert_close(table.table, FeatureTable(raw(9, 4)).table, rtol=1e-3, atol=1e-3)


def test_it_moves_with_the_model_but_is_not_saved():
    table = FeatureTable(raw(9, 4))
    assert table.state_dict() == {}
    assert [name for name, _ in table.named_buffers()] == ["values"]
    assert table.shape == (4,)


def test_noise_has_its_deviation_and_spares_missing_items():
    table = raw(4001, 8)
    table[7] = 0.0
    torch.manual_seed(1)
    noise = FeatureTable(table, noise_std=0.3).table - FeatureTable(table).table
    assert float(noise[1:].std()) == pytest.approx(0.3, rel=0.02)
    assert not noise[[0, 7]].any()
