"""The Gaussian process against ``diffusers``: same betas, same states (tolerance: float32 rounding)."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from models.diffusion.gaussian import q_posterior, q_sample
from models.diffusion.noise_schedule import NoiseSchedule
from models.diffusion.samplers import ancestral_states, ddim
from models.diffusion.schedules import make_betas

CASES = [
    ("linear", 25),
    ("linear", 1000),
    ("trunc_lin", 20),
    ("trunc_lin", 32),
    ("cosine", 200),
    ("exp", 200),
    ("sqrt", 100),
]

#: Schedules that both sides make by themselves: our name, the steps, their arguments.
SHARED = [
    ("linear", 20, {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}),
    ("linear", 1000, {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}),
    ("cosine", 200, {"beta_schedule": "squaredcos_cap_v2"}),
    ("cosine", 32, {"beta_schedule": "squaredcos_cap_v2"}),
]


def ddpm(betas, variance="fixed_small"):
    return DDPMScheduler(
        num_train_timesteps=len(betas),
        trained_betas=betas.numpy(),
        prediction_type="sample",
        clip_sample=False,
        variance_type=variance,
    )


@pytest.mark.parametrize(("name", "steps", "options"), SHARED)
def test_both_sides_make_the_same_schedule(name, steps, options):
    """The last cosine variance apart: it would be 1, they cut at 0.999 and DreamRec, whom we follow, at 0.9999.

    DreamRec also cuts at 1e-4 from below, which the first variance of 500 steps and more falls under.
    """
    theirs, betas = DDPMScheduler(num_train_timesteps=steps, **options), make_betas(name, steps)
    schedule = NoiseSchedule(betas, dtype=torch.float64)
    same = slice(None, -1) if name == "cosine" else slice(None)
    torch.testing.assert_close(betas[same], theirs.betas.double()[same], rtol=2e-6, atol=1e-9)
    torch.testing.assert_close(schedule.alpha_bar[same], theirs.alphas_cumprod.double()[same], rtol=2e-4, atol=0.0)
    if name == "cosine":
        assert (float(betas[-1]), float(theirs.betas[-1])) == pytest.approx((0.9999, 0.999))


@pytest.mark.parametrize(("name", "steps"), CASES)
def test_given_variances_leave_the_same_signal(name, steps):
    betas = make_betas(name, steps)
    theirs = ddpm(betas).alphas_cumprod.double()
    torch.testing.assert_close(NoiseSchedule(betas).alpha_bar.double(), theirs, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(("name", "steps"), CASES)
def test_posterior_variance_of_every_step(name, steps):
    """At the first step ours is 0, theirs a floor that keeps its logarithm finite; no noise is added there."""
    betas = make_betas(name, steps)
    schedule, theirs = NoiseSchedule(betas), ddpm(betas)
    found = torch.stack([theirs._get_variance(step) for step in range(steps)])
    torch.testing.assert_close(schedule.posterior_variance[1:], found[1:].float(), rtol=2e-3, atol=1e-7)
    assert (float(schedule.posterior_variance[0]), float(found[0])) == (0.0, pytest.approx(1e-20))


@pytest.mark.parametrize(("name", "steps"), CASES)
def test_forward_process(name, steps):
    betas = make_betas(name, steps)
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(16, 5, 8, generator=generator), torch.randn(16, 5, 8, generator=generator)
    t = torch.randint(steps, (16,), generator=generator)
    ours = q_sample(NoiseSchedule(betas), x0, t, noise)
    torch.testing.assert_close(ours, ddpm(betas).add_noise(x0, noise, t), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "steps"), CASES)
def test_posterior_mean_and_variance(name, steps):
    betas = make_betas(name, steps)
    schedule, theirs = NoiseSchedule(betas), ddpm(betas)
    x0, x_t = torch.randn(4, 8, generator=torch.Generator().manual_seed(1)), torch.ones(4, 8)
    for step in (1, steps // 2, steps - 1):
        mean, variance = q_posterior(schedule, x0, x_t, torch.full((4,), step))
        generator = torch.Generator().manual_seed(2)
        sample = theirs.step(x0, step, x_t, generator=generator).prev_sample
        noise = torch.randn(4, 8, generator=torch.Generator().manual_seed(2))
        torch.testing.assert_close(mean + variance.sqrt() * noise, sample, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_whole_ancestral_chain(variance):
    betas = make_betas("trunc_lin", 32)
    theirs = ddpm(betas, variance)

    def denoise(x, t):
        return torch.tanh(x)

    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(4)
    states = ancestral_states(
        denoise,
        NoiseSchedule(betas),
        x,
        generator=torch.Generator().manual_seed(4),
        noise="fixedsmall" if variance == "fixed_small" else "fixedlarge",
    )
    for step, ours in zip(reversed(range(32)), states, strict=True):
        x = theirs.step(denoise(x, step), step, x, generator=generator).prev_sample
        torch.testing.assert_close(ours, x, rtol=1e-3, atol=1e-4)


def test_ddim_over_a_stride_of_five():
    betas = make_betas("linear", 25)
    theirs = DDIMScheduler(
        num_train_timesteps=25,
        trained_betas=betas.numpy(),
        prediction_type="sample",
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )
    theirs.set_timesteps(5)
    assert theirs.timesteps.tolist() == [24, 19, 14, 9, 4]
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(5))
    ours = ddim(
        lambda state, t: torch.tanh(state),
        NoiseSchedule(betas),
        x,
        generator=torch.Generator(),
        timesteps=[4, 9, 14, 19, 24],
    )
    for step in theirs.timesteps:
        x = theirs.step(torch.tanh(x), int(step), x, eta=0.0).prev_sample
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-5)
