"""The walk on the sphere: tangents, arcs, and the published step length."""

import math

import pytest
import torch

from models.diffusion.geodesic import angle, exp_map, normalise, project_to_tangent, random_walk
from models.diffusion.noise_schedule import NoiseSchedule
from models.diffusion.schedules import make_betas

MODES = ["literal_projected", "scaled", "multistep"]


def unit(rows=64, width=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return normalise(torch.randn(rows, width, dtype=torch.float64, generator=generator))


def gaussian(rows=64, width=64, seed=1):
    return torch.randn(rows, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_projection_is_orthogonal():
    x = unit()
    assert float((project_to_tangent(x, gaussian()) * x).sum(-1).abs().max()) < 1e-12


def test_exp_map_stays_on_the_sphere_only_for_tangent_vectors():
    x, v = unit(), gaussian() * 0.1
    assert float((exp_map(x, project_to_tangent(x, v)).norm(dim=-1) - 1).abs().max()) < 1e-6
    assert float((exp_map(x, v).norm(dim=-1) - 1).abs().max()) > 1e-3  # negative control: not tangent


@pytest.mark.parametrize("length", [1e-6, 0.5, 3.0, 3.4, 5.8])
def test_arc_length_is_the_length_of_the_tangent_folded_into_half_a_circle(length):
    x = unit()
    v = normalise(project_to_tangent(x, gaussian())) * length
    folded = length if length <= math.pi else 2 * math.pi - length
    found = angle(x, exp_map(x, v))
    torch.testing.assert_close(found, torch.full_like(found, folded), rtol=1e-6, atol=1e-9)


def test_no_step_returns_the_point_with_a_finite_gradient():
    x = unit(3, 8)
    v = torch.zeros(3, 8, dtype=torch.float64, requires_grad=True)
    moved = exp_map(x, v)
    assert torch.equal(moved, x)
    (gradient,) = torch.autograd.grad(moved.sum(), v)
    assert torch.equal(gradient, torch.ones_like(gradient))  # d exp_x(v) / dv at 0 is the identity


def test_gradient_of_exp_map_matches_finite_differences():
    x = unit(2, 5)
    v = project_to_tangent(x, gaussian(2, 5)).requires_grad_()
    assert torch.autograd.gradcheck(exp_map, (x, v))


@pytest.mark.parametrize("mode", MODES)
def test_walks_end_on_the_sphere(mode):
    schedule = NoiseSchedule(make_betas("linear", 20), dtype=torch.float64)
    t = torch.arange(64) % 20
    walked = random_walk(schedule, unit(), t, mode=mode, generator=torch.Generator().manual_seed(3))
    assert float((walked.norm(dim=-1) - 1).abs().max()) < 1e-9


@pytest.mark.parametrize(("step", "expected"), [(1, 0.08), (5, 0.83), (10, 1.72), (15, 2.58)])
def test_literal_step_has_the_published_angles(step, expected):
    """sqrt(63 (1 - alpha_bar_t)) for width 64 and 20 linear steps, before it passes pi."""
    found = mean_angle("literal_projected", "linear", step)
    assert found == pytest.approx(expected, abs=0.05)


def test_literal_step_of_the_last_step_passes_the_antipode():
    schedule = NoiseSchedule.named("linear", 20)
    assert math.sqrt(63) * float(schedule.noise[19]) == pytest.approx(3.40, abs=0.01)
    assert float(schedule.noise[19]) > 0.396


@pytest.mark.parametrize("step", [1, 10, 20])
def test_scaled_step_turns_by_the_noise_level(step):
    expected = float(NoiseSchedule.named("linear", 20).noise[step - 1])
    assert mean_angle("scaled", "linear", step) == pytest.approx(expected, rel=0.03)


def test_small_steps_lose_the_direction_like_brownian_motion_on_the_sphere():
    """Each step keeps cos(step length) of the direction on average: E[x . x_t] = prod E[cos |v_s|]."""
    schedule = NoiseSchedule(make_betas("linear", 20), dtype=torch.float64)
    x = unit(4000, 64)
    t = torch.full((4000,), 19)
    walked = random_walk(schedule, x, t, mode="multistep", generator=torch.Generator().manual_seed(5))
    expected = torch.cos((schedule.betas * 63 / 64).sqrt()).prod()
    assert float((walked * x).sum(-1).mean()) == pytest.approx(float(expected), abs=0.01)


@pytest.mark.parametrize("mode", MODES)
def test_same_generator_same_walk(mode):
    schedule = NoiseSchedule(make_betas("linear", 20), dtype=torch.float64)
    t = torch.full((64,), 7)
    first, second, other = (
        random_walk(schedule, unit(), t, mode=mode, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def mean_angle(mode, name, step):
    schedule = NoiseSchedule(make_betas(name, 20), dtype=torch.float64)
    x = unit(2000, 64)
    t = torch.full((2000,), step - 1)
    walked = random_walk(schedule, x, t, mode=mode, generator=torch.Generator().manual_seed(4))
    return float(angle(x, walked).mean())
