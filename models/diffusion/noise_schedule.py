"""One immutable table of everything that the diffusion functions read.

Shape legend: T steps.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.diffusion.schedules import ScheduleName, make_betas


class NoiseSchedule(nn.Module):
    """Tables derived from the variances in float64 and kept as non-persistent buffers.

    Deriving in float32 costs up to 1.5e-3 relative error in the posterior coefficients (cosine, T = 2000). The
    buffers follow the model to its device and are not part of its state dict.

    Index ``t`` of every table is step ``t + 1`` of the papers: index 0 has the least noise.

    Attributes:
        betas: ``[T]`` beta_t.
        alpha_bar: ``[T]`` product of (1 - beta_s) for s <= t.
        signal: ``[T]`` sqrt(alpha_bar_t), the factor of x0 in x_t.
        noise: ``[T]`` sqrt(1 - alpha_bar_t), the standard deviation of the noise in x_t.
        posterior_x0: ``[T]`` factor of x0 in the posterior mean (DDPM eq. 7); 1 at index 0.
        posterior_xt: ``[T]`` factor of x_t in the posterior mean; 0 at index 0.
        posterior_variance: ``[T]`` beta-tilde_t; 0 at index 0.
    """

    betas: Tensor
    alpha_bar: Tensor
    signal: Tensor
    noise: Tensor
    posterior_x0: Tensor
    posterior_xt: Tensor
    posterior_variance: Tensor

    def __init__(self, betas: Tensor, *, dtype: torch.dtype = torch.float32) -> None:
        """Derive the tables.

        Args:
            betas: float64 ``[T]``, each in (0, 1).
            dtype: Type of the buffers.

        Raises:
            ValueError: When ``betas`` is not float64, not one-dimensional, or leaves (0, 1).
        """
        super().__init__()
        if betas.dtype != torch.float64 or betas.ndim != 1 or betas.numel() == 0:
            raise ValueError(f"betas: expected float64 [T], got {betas.dtype} {list(betas.shape)}")
        if not bool(((betas > 0) & (betas < 1)).all()):
            raise ValueError(f"betas: expected values in (0, 1), got {float(betas.min())} .. {float(betas.max())}")
        alpha_bar = torch.cumprod(1.0 - betas, dim=0)
        previous = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
        left = 1.0 - alpha_bar
        tables = {
            "betas": betas,
            "alpha_bar": alpha_bar,
            "signal": alpha_bar.sqrt(),
            "noise": left.sqrt(),
            "posterior_x0": previous.sqrt() * betas / left,
            "posterior_xt": (1.0 - betas).sqrt() * (1.0 - previous) / left,
            "posterior_variance": (1.0 - previous) / left * betas,
        }
        # Step 1 is exact by definition (alpha_bar_0 = 1); rounding must not leave a trace of x_t in x0.
        tables["posterior_x0"][0], tables["posterior_xt"][0], tables["posterior_variance"][0] = 1.0, 0.0, 0.0
        for name, table in tables.items():
            self.register_buffer(name, table.to(dtype), persistent=False)
        self.steps = int(betas.numel())
        #: sqrt(alpha_bar_T): the share of the signal that survives in the noisiest state. Worth logging in every run.
        self.terminal_signal = float(alpha_bar[-1].sqrt())

    @classmethod
    def named(cls, name: ScheduleName, steps: int) -> NoiseSchedule:
        """The schedule called ``name`` with ``steps`` steps, see :mod:`models.diffusion.schedules`."""
        return cls(make_betas(name, steps))

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"steps={self.steps}, terminal_signal={self.terminal_signal:.4g}"

    def random_steps(self, rows: int, *, generator: torch.Generator, stride: int = 1) -> Tensor:
        """int64 ``[rows]`` drawn uniformly from the indices of steps ``stride, 2 * stride, .. T`` of the papers."""
        draws = torch.randint(self.steps // stride, (rows,), generator=generator, device=generator.device)
        return (draws * stride + stride - 1).to(self.betas.device)
