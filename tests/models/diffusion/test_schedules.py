"""Figures that follow from the published definitions, worked out by hand."""

import math

import pytest
import torch

from models.diffusion.noise_schedule import NoiseSchedule
from models.diffusion.schedules import SCHEDULES, make_betas, trunc_lin


@pytest.mark.parametrize(
    ("steps", "alpha_bar"),
    [(5, 0.95063), (10, 0.90374), (20, 0.81678), (25, 0.77649), (32, 0.723395), (500, 0.006353), (1000, 4.0e-5)],
)
def test_unscaled_linear_leaves_most_of_the_signal(steps, alpha_bar):
    assert float(NoiseSchedule.named("linear", steps).alpha_bar[-1]) == pytest.approx(alpha_bar, rel=1e-2, abs=5e-6)
    if steps <= 32:
        assert float(NoiseSchedule.named("linear", steps).alpha_bar[-1]) == pytest.approx(alpha_bar, abs=5e-6)


def test_truncated_linear_of_32_steps():
    betas = trunc_lin(32)
    assert float(betas[0]) == pytest.approx(0.013125, abs=1e-12)
    assert float(betas[-1]) == pytest.approx(0.635, abs=1e-12)
    alpha_bar = NoiseSchedule(betas).alpha_bar
    assert float(alpha_bar[0]) == pytest.approx(0.98687, abs=1e-5)
    assert float(alpha_bar[15]) == pytest.approx(0.05198, abs=1e-5)
    assert float(alpha_bar[31]) == pytest.approx(9.9e-7, rel=1e-2)


@pytest.mark.parametrize(("steps", "alpha_bar"), [(25, 1.44e-7), (20, 0.4647), (10, 0.5082), (5, 0.5208)])
def test_truncated_linear_jumps_between_20_and_25_steps(steps, alpha_bar):
    assert float(NoiseSchedule.named("trunc_lin", steps).alpha_bar[-1]) == pytest.approx(alpha_bar, rel=5e-3)


def test_truncated_linear_endpoints_of_20_and_25_steps():
    assert trunc_lin(25)[[0, -1]].tolist() == pytest.approx([0.014, 0.810])
    assert trunc_lin(20)[[0, -1]].tolist() == pytest.approx([0.015, 0.060])


def test_exponential_ends_at_the_same_signal_for_every_length():
    """Sum of the exponents: beta_min + (1 + 1/T) (beta_max - beta_min) / 2, so sqrt(alpha_bar) -> exp(-5.05/2)."""
    for steps in (200, 500, 2000):
        expected = math.exp(-(0.1 + (1 + 1 / steps) * 4.95) / 2)
        assert NoiseSchedule.named("exp", steps).terminal_signal == pytest.approx(expected, rel=1e-9)


def test_terminal_signal_of_200_linear_steps():
    assert NoiseSchedule.named("linear", 200).terminal_signal == pytest.approx(0.364, abs=5e-4)


def test_cosine_follows_its_definition_where_nothing_is_clipped():
    alpha_bar = NoiseSchedule.named("cosine", 500).alpha_bar
    start = math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    for step in (250, 400):
        expected = math.cos((step / 500 + 0.008) / 1.008 * math.pi / 2) ** 2 / start
        assert float(alpha_bar[step - 1]) == pytest.approx(expected, rel=2e-3)


def test_sqrt_follows_its_definition():
    alpha_bar = NoiseSchedule.named("sqrt", 100).alpha_bar
    expected = (1 - math.sqrt(0.5 + 1e-4)) / (1 - math.sqrt(1e-4))
    assert float(alpha_bar[49]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@pytest.mark.parametrize("steps", [2, 5, 25, 200])
def test_every_schedule_is_float64_and_loses_signal_at_every_step(name, steps):
    betas = make_betas(name, steps)
    assert betas.dtype == torch.float64
    schedule = NoiseSchedule(betas)
    assert bool((schedule.alpha_bar.diff() < 0).all())
    assert schedule.posterior_x0[0] == 1
    assert schedule.posterior_xt[0] == 0
    assert schedule.posterior_variance[0] == 0


@pytest.mark.parametrize(
    ("name", "steps", "step", "expected"),
    [
        ("linear", 25, 25, (0.07965, 0.91976, 0.018582)),
        ("trunc_lin", 32, 32, (0.001046, 0.604151, 0.634999)),
        ("trunc_lin", 32, 2, (0.718628, 0.281317, 0.0094945)),
    ],
)
def test_posterior_coefficients(name, steps, step, expected):
    schedule = NoiseSchedule.named(name, steps)
    found = [float(t[step - 1]) for t in (schedule.posterior_x0, schedule.posterior_xt, schedule.posterior_variance)]
    assert found == pytest.approx(expected, rel=1e-4, abs=5e-6)


def test_tables_are_buffers_that_are_not_saved():
    schedule = NoiseSchedule.named("linear", 5)
    assert schedule.state_dict() == {}
    assert schedule.alpha_bar.dtype == torch.float32
    assert schedule.to(torch.float64).alpha_bar.dtype == torch.float64
    assert "terminal_signal=0.975" in repr(schedule)


def test_float64_derivation_beats_float32():
    """Deriving the cosine tables of 2000 steps in float32 costs more than 1e-4 in the posterior."""
    betas = make_betas("cosine", 2000)
    exact = NoiseSchedule(betas, dtype=torch.float64).posterior_x0
    ours = NoiseSchedule(betas).posterior_x0.double()
    naive_bar = torch.cumprod(1 - betas.float(), 0)
    naive = torch.cat([torch.ones(1), naive_bar[:-1]]).sqrt() * betas.float() / (1 - naive_bar)
    assert float(((ours - exact) / exact).abs().max()) < 1e-6
    assert float(((naive.double() - exact) / exact).abs().max()) > 1e-4


def test_random_steps_cover_the_grid():
    schedule = NoiseSchedule.named("linear", 25)
    generator = torch.Generator().manual_seed(0)
    assert set(schedule.random_steps(2000, generator=generator).tolist()) == set(range(25))
    strided = schedule.random_steps(500, generator=generator, stride=5)
    assert set((strided + 1).tolist()) == {5, 10, 15, 20, 25}


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_no_steps_are_refused(name):
    with pytest.raises(ValueError, match="expected at least 1 step, got 0"):
        make_betas(name, 0)


def test_truncated_linear_of_one_step_is_refused():
    with pytest.raises(ValueError, match="needs at least 2 steps, got 1"):
        trunc_lin(1)


@pytest.mark.parametrize(
    ("betas", "message"),
    [
        (torch.tensor([0.1, 0.2]), r"expected float64 \[T\], got torch.float32"),
        (torch.tensor([0.1, 1.0], dtype=torch.float64), r"expected values in \(0, 1\), got 0.1 .. 1.0"),
        (torch.zeros(0, dtype=torch.float64), r"expected float64 \[T\], got torch.float64 \[0\]"),
    ],
)
def test_impossible_variances_are_refused(betas, message):
    with pytest.raises(ValueError, match=message):
        NoiseSchedule(betas)
