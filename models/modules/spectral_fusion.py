"""Two sequences mixed as a product of their spectra (TedRec): a circular convolution over the positions.

Shape legend: b batch, l sequence length, d width, p positions of the transform.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.modules.length import check_length
from models.modules.transformer import init_linear


class SpectralFusion(nn.Module):
    """``2 (sigmoid(a . u) u + sigmoid(b . v) v)`` of a filtered sequence ``u`` and a fused sequence ``v``.

    With the orthonormal transform F over p positions, per column: ``u = F^-1(F(ids) W)`` for a trained complex filter
    W, and ``v = F^-1(F(ids) F(text))``, which is the circular convolution of the two sequences divided by sqrt(p).

    The transform always runs over ``max_length`` positions, zeros after the last item: the sum of a history does not
    depend on how far its batch was padded. Histories of at most half that length do not wrap around.
    """

    def __init__(self, d: int, max_length: int) -> None:
        """Build the filter, drawn from N(0, 0.02), and the two gates d -> 1."""
        super().__init__()
        self.max_length = max_length
        self.filter = nn.Parameter(torch.empty(max_length // 2 + 1, d, 2).normal_(std=0.02))  # real, imaginary
        self.filtered_gate = nn.Linear(d, 1)
        self.fused_gate = nn.Linear(d, 1)
        self.apply(init_linear)

    def forward(self, ids: Tensor, text: Tensor) -> Tensor:
        """Mix two sequences.

        Args:
            ids: float ``[b, l, d]``, zero on padding.
            text: float ``[b, l, d]``, zero on padding.

        Returns:
            float ``[b, l, d]``; every position holds a mixture of all of them, padding included.

        Raises:
            ValueError: When the sequences are longer than ``max_length``.
        """
        filtered, fused = self.convolutions(ids, text)
        share, other = torch.sigmoid(self.filtered_gate(filtered)), torch.sigmoid(self.fused_gate(fused))
        return 2.0 * (share * filtered + other * fused)

    def convolutions(self, ids: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """``u`` and ``v``, each float32 ``[b, l, d]``; arguments and faults as in :meth:`forward`."""
        length = ids.shape[1]
        check_length(length, self.max_length)
        spectrum, other = (torch.fft.rfft(x.float(), n=self.max_length, dim=1, norm="ortho") for x in (ids, text))
        products = torch.stack((spectrum * torch.view_as_complex(self.filter), spectrum * other))  # [2, b, p/2 + 1, d]
        filtered, fused = torch.fft.irfft(products, n=self.max_length, dim=2, norm="ortho")[:, :, :length]
        return filtered, fused
