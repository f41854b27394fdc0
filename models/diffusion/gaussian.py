"""The Gaussian process in closed form (Ho et al. 2020, DDPM, eq. 4, 6 and 7).

Every function takes ``t``: int64 ``[b]``, an index of the schedule (0 = least noise), and tensors ``[b, ...]``.

Shape legend: b batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.diffusion.noise_schedule import NoiseSchedule


def gather(table: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """``table[t]`` reshaped to ``[b, 1, ...]`` so that it broadcasts over ``like``."""
    return table[t].reshape(-1, *([1] * (like.ndim - 1)))


def randn_like(x: Tensor, *, generator: torch.Generator, shared: bool = False) -> Tensor:
    """Standard normal noise of the shape, type and device of ``x``, drawn from ``generator``.

    With ``shared`` one draw serves every row, so that what happens to a row does not depend on its neighbours.
    """
    shape = (1, *x.shape[1:]) if shared else x.shape
    noise = torch.randn(shape, generator=generator, device=generator.device, dtype=x.dtype)
    return noise.to(x.device).expand_as(x)


def q_sample(schedule: NoiseSchedule, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """``x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) noise`` (DDPM eq. 4); shape of ``x0``."""
    return gather(schedule.signal, t, x0) * x0 + gather(schedule.noise, t, x0) * noise


def q_posterior(schedule: NoiseSchedule, x0: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (shape of ``x0``) and variance ``[b, 1, ...]`` of q(x_{t-1} | x_t, x0) (DDPM eq. 6-7).

    At index 0 the mean is ``x0`` and the variance is 0.
    """
    mean = torch.addcmul(gather(schedule.posterior_x0, t, x0) * x0, gather(schedule.posterior_xt, t, x0), x_t)
    return mean, gather(schedule.posterior_variance, t, x0)


def x0_from_noise(schedule: NoiseSchedule, x_t: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """The x0 for which ``q_sample`` with ``noise`` gives ``x_t``."""
    return (x_t - gather(schedule.noise, t, x_t) * noise) / gather(schedule.signal, t, x_t)


def noise_from_x0(schedule: NoiseSchedule, x_t: Tensor, t: Tensor, x0: Tensor) -> Tensor:
    """The noise with which ``q_sample`` takes ``x0`` to ``x_t``."""
    return (x_t - gather(schedule.signal, t, x_t) * x0) / gather(schedule.noise, t, x_t)
