"""What stands in for an MlpDenoiser in tests."""

from torch import nn


class Conditioned(nn.Module):
    """Has :meth:`given` from ``forward(x_t, t, condition)``."""

    def given(self, condition):
        return lambda x_t, t: self(x_t, t, condition)
