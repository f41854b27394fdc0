"""The Gaussian process against ``diffusers``: same betas, same states (tolerance: float32 rounding)."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from models.diffusion.gaussian import q_posterior, q_sample
from models.diffusion.noise_schedule import NoiseSchedule
from models.diffusion.samplers import ancestral_states, ddim
from models.diffusion.schedules import make_betas

CASES = [("linear", 25), ("linear", 1000), ("trunc_lin", 32), ("sqrt", 100)]


def ddpm(betas, variance="fixed_small"):
    return DDPMScheduler(
        num_train_timesteps=len(betas),
        trained_betas=betas.numpy(),
        prediction_type="sample",
        clip_sample=False,
        variance_type=variance,
    )


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
