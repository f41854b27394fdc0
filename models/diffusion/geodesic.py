"""The random walk on the unit sphere (DimeRec, WSDM 2025, Algorithm 1).

Shape legend: b batch, d width, T steps.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from models.diffusion.gaussian import gather, randn_like
from models.diffusion.noise_schedule import NoiseSchedule

#: How far and in how many pieces the walk goes; see :func:`random_walk`.
WalkMode = Literal["literal_projected", "scaled", "multistep"]


def normalise(x: Tensor) -> Tensor:
    """``x`` on the unit sphere, along the last dimension."""
    return functional.normalize(x, dim=-1)


def project_to_tangent(x: Tensor, v: Tensor) -> Tensor:
    """The part of ``v`` that is orthogonal to the unit vectors ``x``; both ``[..., d]``."""
    return v - (v * x).sum(dim=-1, keepdim=True) * x


def exp_map(x: Tensor, v: Tensor) -> Tensor:
    """Walk from the unit vectors ``x`` along the tangent vectors ``v``: ``cos|v| x + sin|v| v/|v|``.

    The quotient is written with sinc, so that ``v = 0`` gives ``x`` and a finite gradient.
    """
    length = torch.linalg.vector_norm(v, dim=-1, keepdim=True)
    return torch.cos(length) * x + torch.sinc(length / math.pi) * v


def angle(x: Tensor, y: Tensor) -> Tensor:
    """Angle in radians, in [0, pi], between unit vectors ``[..., d]``; exact for tiny angles too."""
    chord = torch.linalg.vector_norm(x - y, dim=-1)
    return 2.0 * torch.asin((chord / 2.0).clamp(max=1.0))


def random_walk(
    schedule: NoiseSchedule, x0: Tensor, t: Tensor, *, mode: WalkMode, generator: torch.Generator
) -> Tensor:
    """Noise unit vectors along geodesics; the result has unit norm.

    Args:
        schedule: Its ``noise`` table, sqrt(1 - alpha_bar_t), gives the length of the walk.
        x0: float ``[b, d]``, unit norm.
        t: int64 ``[b]``, index of the schedule.
        mode: ``literal_projected`` takes the step of Algorithm 1 with its Gaussian projected to the tangent space;
            its length is about sqrt((d - 1)(1 - alpha_bar_t)) and passes pi for strong noise. ``scaled`` divides
            by sqrt(d - 1), so that the angle is about sqrt(1 - alpha_bar_t). ``multistep`` makes t + 1 small steps
            of length about sqrt(beta_s), the walk that the name of the method promises.
        generator: Source of the noise.

    Returns:
        float ``[b, d]``.
    """
    if mode == "multistep":
        return _walk_in_steps(schedule, x0, t, generator=generator)
    tangent = project_to_tangent(x0, randn_like(x0, generator=generator))
    if mode == "scaled":
        tangent = tangent / math.sqrt(x0.shape[-1] - 1)
    return exp_map(x0, gather(schedule.noise, t, x0) * tangent)


def _walk_in_steps(schedule: NoiseSchedule, x0: Tensor, t: Tensor, *, generator: torch.Generator) -> Tensor:
    x = x0
    for step in range(int(t.max()) + 1):
        noise = randn_like(x, generator=generator) / math.sqrt(x.shape[-1])
        moved = exp_map(x, schedule.betas[step].sqrt() * project_to_tangent(x, noise))
        x = torch.where((t >= step).unsqueeze(-1), normalise(moved), x)
    return x
