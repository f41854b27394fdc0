"""Samplers: functions over a denoiser ``(x_t, t) -> estimate of x0``.

Conditions are captured by the denoiser's closure; a blind denoiser ignores ``t``. Whatever is random comes from an
explicit generator. Start states ``x_T`` are ``[b, ...]``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from models.diffusion.gaussian import gather, noise_from_x0, q_posterior, randn_like
from models.diffusion.noise_schedule import NoiseSchedule

#: ``(x_t [b, ...], t int64 [b]) -> x0 estimate [b, ...]``.
Denoise = Callable[[Tensor, Tensor], Tensor]

#: Deviation of the noise of a reverse step: ``fixedsmall`` sqrt(beta-tilde_t), ``fixedlarge`` sqrt(beta_t),
#: ``variance`` beta-tilde_t itself (what DimeRec's Algorithm 2 prints), ``none``. The last step never adds noise.
ReverseNoise = Literal["none", "fixedsmall", "fixedlarge", "variance"]


def ancestral(
    denoise: Denoise,
    schedule: NoiseSchedule,
    start: Tensor,
    *,
    generator: torch.Generator,
    noise: ReverseNoise = "fixedsmall",
    project: Callable[[Tensor], Tensor] | None = None,
    shared: bool = False,
) -> Tensor:
    """The final state of :func:`ancestral_states`."""
    states = ancestral_states(
        denoise, schedule, start, generator=generator, noise=noise, project=project, shared=shared
    )
    return deque(states, maxlen=1).pop()


def ancestral_states(
    denoise: Denoise,
    schedule: NoiseSchedule,
    start: Tensor,
    *,
    generator: torch.Generator,
    noise: ReverseNoise = "fixedsmall",
    project: Callable[[Tensor], Tensor] | None = None,
    shared: bool = False,
) -> Iterator[Tensor]:
    """Yield x_{T-1}, .., x_0: the posterior mean of each step plus noise (DDPM Algorithm 2).

    Args:
        denoise: Estimate of x0.
        schedule: The table of T steps.
        start: x_T.
        generator: Source of the reverse noise; unused with ``noise="none"``.
        noise: Deviation of the reverse noise.
        project: Applied to every new state, such as the projection to the unit sphere.
        shared: One draw of the reverse noise serves every row of the batch.

    Yields:
        T states of the shape of ``start``; the last is the sample.
    """
    x = start
    for step in reversed(range(schedule.steps)):
        t = torch.full((x.shape[0],), step, dtype=torch.int64, device=x.device)
        x, _ = q_posterior(schedule, denoise(x, t), x, t)
        if step > 0 and noise != "none":
            x = x + _deviation(schedule, step, noise) * randn_like(x, generator=generator, shared=shared)
        if project is not None:
            x = project(x)
        yield x


def ddim(
    denoise: Denoise,
    schedule: NoiseSchedule,
    start: Tensor,
    *,
    generator: torch.Generator,
    timesteps: Sequence[int] | None = None,
    eta: float = 0.0,
    shared: bool = False,
) -> Tensor:
    """DDIM (Song et al. 2021, eq. 12 and 16) over a subset of the steps.

    Args:
        denoise: Estimate of x0.
        schedule: The table of T steps.
        start: State at the largest of ``timesteps``.
        generator: Source of the noise; unused with ``eta`` 0.
        timesteps: Increasing indices to visit; default all.
        eta: 0 is deterministic, 1 has the variance of the ancestral sampler.
        shared: One draw of the noise serves every row of the batch.

    Returns:
        Tensor of the shape of ``start``.

    Raises:
        ValueError: When ``timesteps`` is empty, not increasing, or leaves the schedule.
    """
    visited = list(range(schedule.steps)) if timesteps is None else list(timesteps)
    if not visited or visited != sorted(set(visited)) or visited[0] < 0 or visited[-1] >= schedule.steps:
        raise ValueError(f"timesteps: expected increasing indices in 0..{schedule.steps - 1}, got {visited}")
    x = start
    for position in reversed(range(len(visited))):
        t = torch.full((x.shape[0],), visited[position], dtype=torch.int64, device=x.device)
        x0 = denoise(x, t)
        if position == 0:
            return x0
        direction = noise_from_x0(schedule, x, t, x0)
        now = gather(schedule.alpha_bar, t, x)
        before = gather(schedule.alpha_bar, torch.full_like(t, visited[position - 1]), x)
        variance = eta**2 * (1.0 - before) / (1.0 - now) * (1.0 - now / before)
        x = before.sqrt() * x0 + (1.0 - before - variance).clamp(min=0.0).sqrt() * direction
        if eta > 0.0:
            x = x + variance.sqrt() * randn_like(x, generator=generator, shared=shared)
    return x


def guided(denoise: Denoise, unguided: Denoise, *, strength: float) -> Denoise:
    """Classifier-free guidance (Ho & Salimans 2022, eq. 6): ``(1 + w) f(x_t, t, c) - w f(x_t, t, nothing)``.

    Args:
        denoise: The estimate with its condition.
        unguided: The estimate of the same network without one.
        strength: w; 0 is ``denoise`` itself.
    """
    return lambda x_t, t: (1.0 + strength) * denoise(x_t, t) - strength * unguided(x_t, t)


def one_step(denoise: Denoise, schedule: NoiseSchedule, start: Tensor) -> Tensor:
    """A single estimate from the noisiest state: ``denoise(x_T, T)``."""
    return denoise(start, torch.full((start.shape[0],), schedule.steps - 1, dtype=torch.int64, device=start.device))


def _deviation(schedule: NoiseSchedule, step: int, noise: ReverseNoise) -> Tensor:
    variance = schedule.posterior_variance[step]
    if noise == "variance":
        return variance
    if noise == "fixedlarge":
        return schedule.betas[step].sqrt()
    return variance.sqrt()
