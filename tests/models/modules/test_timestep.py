"""Step embeddings against the printed sines and cosines."""

import math

import pytest
import torch

from models.modules.timestep import TimestepEmbedding, timestep_embedding


def test_cosines_come_first_and_frequencies_fall_to_one_over_the_period():
    code = timestep_embedding(torch.tensor([0, 3]), 4)
    assert code[0].tolist() == [1, 1, 0, 0]
    assert code[1].tolist() == pytest.approx([math.cos(3), math.cos(0.03), math.sin(3), math.sin(0.03)], rel=1e-5)


def test_an_odd_width_ends_with_zero():
    code = timestep_embedding(torch.tensor([2, 9]), 5)
    assert code.shape == (2, 5)
    assert not code[:, 4].any()


def test_steps_are_rescaled_to_a_thousand():
    torch.manual_seed(0)
    embedding = TimestepEmbedding(8, steps=20)
    torch.testing.assert_close(
        embedding(torch.tensor([3])), embedding.layers(timestep_embedding(torch.tensor([150.0]), 8))
    )


def test_many_rows_read_their_vectors_from_a_table():
    torch.manual_seed(0)
    embedding, t = TimestepEmbedding(8, steps=3), torch.tensor([2, 0, 1, 1, 2])
    torch.testing.assert_close(embedding(t), torch.cat([embedding(one) for one in t.split(1)]))
    assert embedding.table().shape == (3, 8)


def test_every_step_of_a_schedule_has_its_own_vector():
    torch.manual_seed(0)
    vectors = TimestepEmbedding(16, steps=32)(torch.arange(32)).detach()
    assert float((torch.cdist(vectors, vectors) + torch.eye(32)).min()) > 1e-3
