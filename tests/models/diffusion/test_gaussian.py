"""The Gaussian process against independent arithmetic."""

import numpy as np
import pytest
import torch

from models.diffusion.gaussian import noise_from_x0, q_posterior, q_sample, x0_from_noise
from models.diffusion.noise_schedule import NoiseSchedule
from models.diffusion.schedules import make_betas

CASES = [(name, steps) for name in ("linear", "cosine", "trunc_lin") for steps in (25, 200, 500)]


def exact(name, steps):
    return NoiseSchedule(make_betas(name, steps), dtype=torch.float64)


@pytest.mark.parametrize(("name", "steps"), CASES)
def test_one_step_transitions_compose_to_the_closed_form(name, steps):
    """Mean factor and variance of T chained transitions x -> sqrt(1 - beta) x + sqrt(beta) eps."""
    schedule = exact(name, steps)
    factor, variance = 1.0, 0.0
    for beta in make_betas(name, steps).numpy():
        factor *= np.sqrt(1 - beta)
        variance = (1 - beta) * variance + beta
    t = torch.tensor([steps - 1])
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    assert float(q_sample(schedule, one, t, zero)) == pytest.approx(factor, rel=1e-9)
    assert float(q_sample(schedule, zero, t, one)) ** 2 == pytest.approx(variance, rel=1e-9)


@pytest.mark.parametrize(("name", "steps"), CASES)
def test_posterior_is_bayes_rule_on_scalars(name, steps):
    """Product of the two Gaussians q(x_t | x_{t-1}) and q(x_{t-1} | x_0) in x_{t-1}."""
    schedule, betas = exact(name, steps), make_betas(name, steps).numpy()
    bars = np.cumprod(1 - betas)
    x0, x_t = 0.7, -1.3
    for step in (1, steps // 2, steps - 1):
        beta, bar = betas[step], bars[step - 1]
        precision = (1 - beta) / beta + 1 / (1 - bar)
        mean = (np.sqrt(1 - beta) / beta * x_t + np.sqrt(bar) / (1 - bar) * x0) / precision
        got_mean, got_variance = q_posterior(
            schedule,
            torch.tensor([[x0]], dtype=torch.float64),
            torch.tensor([[x_t]], dtype=torch.float64),
            torch.tensor([step]),
        )
        assert float(got_mean) == pytest.approx(mean, rel=1e-9)
        assert float(got_variance) == pytest.approx(1 / precision, rel=1e-9)


def test_posterior_of_the_first_step_is_x0():
    schedule = NoiseSchedule.named("linear", 25)
    x0, x_t = torch.randn(4, 3), torch.randn(4, 3) * 100
    mean, variance = q_posterior(schedule, x0, x_t, torch.zeros(4, dtype=torch.int64))
    assert torch.equal(mean, x0)
    assert torch.equal(variance, torch.zeros(4, 1))


@pytest.mark.parametrize("shape", [(6, 4), (6, 5, 4)])
def test_noise_and_x0_round_trip(shape):
    schedule = exact("linear", 25)
    generator = torch.Generator().manual_seed(1)
    x0, noise = (torch.randn(shape, dtype=torch.float64, generator=generator) for _ in range(2))
    t = torch.tensor([0, 1, 5, 10, 20, 24])
    x_t = q_sample(schedule, x0, t, noise)
    torch.testing.assert_close(noise_from_x0(schedule, x_t, t, x0), noise)
    torch.testing.assert_close(x0_from_noise(schedule, x_t, t, noise), x0)


def test_every_row_uses_its_own_step():
    schedule = NoiseSchedule.named("trunc_lin", 32)
    x0, noise = torch.ones(2, 3), torch.zeros(2, 3)
    x_t = q_sample(schedule, x0, torch.tensor([0, 31]), noise)
    assert x_t[0].tolist() == pytest.approx([0.98687**0.5] * 3, abs=1e-5)
    assert float(x_t[1].max()) < 2e-3
