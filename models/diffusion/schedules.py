"""Noise schedules: the variances ``beta_1 .. beta_T``, always in float64.

Every function returns a float64 tensor ``[T]`` whose index 0 is the first (least noisy) step.

Sources: ``linear`` as in DDPM (Ho et al. 2020), NOT rescaled by T, the form that DreamRec and PreferDiff run;
``trunc_lin`` as in DiffuRec (WHUIR/DiffuRec at f6f70c9) and DiQDiff, the "truncated linear" schedule of IMECD;
``cosine`` after Nichol & Dhariwal 2021; ``exponential`` and ``sqrt`` as in DreamRec (YangZhengyi98/DreamRec at
454133c).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

ScheduleName = Literal["linear", "trunc_lin", "cosine", "exp", "sqrt"]


def linear(steps: int, *, beta_start: float = 1e-4, beta_end: float = 0.02) -> Tensor:
    """Evenly spaced variances; with few steps most of the signal survives (alpha_bar_T = 0.776 at T = 25)."""
    _check_steps(steps)
    return torch.linspace(beta_start, beta_end, steps, dtype=torch.float64)


def trunc_lin(steps: int) -> Tensor:
    """Linear variances scaled by 1000/T and shifted by 0.01; the end is replaced where it would exceed 1.

    The replacement makes the schedule discontinuous in T: for T <= 20 the end is ``0.001 * 1000/T + 0.01`` and the
    last state still carries about half of the signal (alpha_bar_20 = 0.465, alpha_bar_25 = 1.4e-7).

    Raises:
        ValueError: When the replaced range still leaves (0, 1), as it does for a single step.
    """
    _check_steps(steps)
    scale = 1000.0 / steps
    start = 1e-4 * scale + 0.01
    end = 0.02 * scale + 0.01
    if end > 1.0:
        end = 0.001 * scale + 0.01
    if end > 1.0:
        raise ValueError(f"schedule trunc_lin: needs at least 2 steps, got {steps} (its last variance would be {end})")
    return torch.linspace(start, end, steps, dtype=torch.float64)


def cosine(steps: int, *, offset: float = 0.008) -> Tensor:
    """``alpha_bar(u) = cos^2((u + s) / (1 + s) * pi / 2)``, variances clipped to [1e-4, 0.9999]."""
    _check_steps(steps)

    def alpha_bar(u: float) -> float:
        return math.cos((u + offset) / (1.0 + offset) * math.pi / 2.0) ** 2

    return _from_alpha_bar(steps, alpha_bar).clamp(min=1e-4, max=0.9999)


def exponential(steps: int, *, beta_min: float = 0.1, beta_max: float = 10.0) -> Tensor:
    """Discretised variance-preserving SDE; its last signal does not depend on T (alpha_bar about 0.006)."""
    _check_steps(steps)
    ramp = torch.linspace(1.0, 2.0 * steps + 1.0, steps, dtype=torch.float64)
    return 1.0 - torch.exp(-beta_min / steps - ramp * 0.5 * (beta_max - beta_min) / steps**2)


def sqrt(steps: int) -> Tensor:
    """Square-root decay of the signal: ``alpha_bar(u) = 1 - (u + 1e-4) ** 0.5``, variances at most 0.999."""
    _check_steps(steps)
    return _from_alpha_bar(steps, lambda u: 1.0 - math.sqrt(u + 1e-4)).clamp(max=0.999)


SCHEDULES: dict[str, Callable[[int], Tensor]] = {
    "linear": linear,
    "trunc_lin": trunc_lin,
    "cosine": cosine,
    "exp": exponential,
    "sqrt": sqrt,
}


def make_betas(name: ScheduleName, steps: int) -> Tensor:
    """float64 ``[steps]``: the variances of the schedule called ``name``."""
    return SCHEDULES[name](steps)


def _from_alpha_bar(steps: int, alpha_bar: Callable[[float], float]) -> Tensor:
    values = [1.0 - alpha_bar((i + 1) / steps) / alpha_bar(i / steps) for i in range(steps)]
    return torch.tensor(values, dtype=torch.float64)


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"noise schedule: expected at least 1 step, got {steps}")
