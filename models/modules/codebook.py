"""A codebook of whole sequences (IMECD's modality-specific vector quantisation, eq. 7-10).

Shape legend: b batch, l sequence length, d width, z codes.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: ``ema`` and ``batch_mean`` keep the codes in a buffer that only training changes; ``legacy_batch`` re-estimates
#: them from every batch, at test time too, as DiQDiff's code does: predictions then depend on the other rows of the
#: batch and the selector gets no gradient.
CodebookMode = Literal["ema", "batch_mean", "legacy_batch"]


class SequenceCodebook(nn.Module):
    """Chooses a code for every sequence, and moves the codes to the means of the sequences that chose them.

    Attributes:
        codes: float ``[z, l, d]``, a saved buffer; zero until the first training batch seeds it with its own rows.
        idle: int64 ``[z]``, training batches since each code was last chosen.
    """

    codes: Tensor
    idle: Tensor
    started: Tensor

    def __init__(
        self,
        length: int,
        d: int,
        codes: int,
        *,
        mode: CodebookMode = "ema",
        temperature: float = 0.1,
        decay: float = 0.99,
        patience: int = 100,
    ) -> None:
        """Build the selector and the empty codes.

        Args:
            length: l.
            d: Width.
            codes: z.
            mode: See :data:`CodebookMode`.
            temperature: tau of eq. 8.
            decay: Share of the old code that an update of ``ema`` keeps.
            patience: A code that no sequence chose in so many batches starts again from a random sequence.
        """
        super().__init__()
        self.mode = mode
        self.temperature = temperature
        self.decay = decay if mode == "ema" else 0.0
        self.patience = patience
        self.selector = nn.Linear(length * d, codes)
        self.register_buffer("codes", torch.zeros(codes, length, d))
        self.register_buffer("idle", torch.zeros(codes, dtype=torch.int64))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))

    def logits(self, sequence: Tensor, mask: Tensor) -> Tensor:
        """Scores of the codes, float ``[b, z]`` (o of eq. 7); padding counts as zeros."""
        return self.selector((sequence * mask.unsqueeze(-1)).flatten(1))

    def forward(self, sequence: Tensor, mask: Tensor, *, generator: torch.Generator) -> Tensor:
        """The chosen code of every sequence (eq. 8-9); in training the codes move afterwards (eq. 10).

        Args:
            sequence: float ``[b, l, d]``.
            mask: bool ``[b, l]``, True on real items.
            generator: Source of the Gumbel noise (training, and always in ``legacy_batch``) and of new codes.

        Returns:
            float ``[b, l, d]``, zero on padding.
        """
        logits = self.logits(sequence, mask)
        if self.mode == "legacy_batch":
            chosen = self._perturbed(logits, generator).argmax(dim=1)
            codes = code_means(_random_rows(sequence, self.codes.shape[0], generator), sequence, mask, chosen)
            return codes.detach()[chosen] * mask.unsqueeze(-1)
        if self.training and not bool(self.started):
            self.codes.copy_(_random_rows(sequence * mask.unsqueeze(-1), self.codes.shape[0], generator))
            self.started.fill_(value=True)
        if not self.training:
            return self.codes[logits.argmax(dim=1)] * mask.unsqueeze(-1)
        soft = torch.softmax(self._perturbed(logits, generator) / self.temperature, dim=1)  # eq. 8
        chosen = soft.argmax(dim=1)
        hard = F.one_hot(chosen, soft.shape[1]).to(soft.dtype)
        choice = hard + soft - soft.detach()  # straight through: the value is hard, the gradient soft's
        code = torch.einsum("bz,zld->bld", choice, self.codes.clone()) * mask.unsqueeze(-1)
        self.update(sequence, mask, chosen, generator=generator)
        return code

    @torch.no_grad()
    def update(self, sequence: Tensor, mask: Tensor, chosen: Tensor, *, generator: torch.Generator) -> None:
        """Eq. 10: move every chosen code to (``ema``: towards) the mean of its sequences; revive idle codes."""
        means = code_means(self.codes, sequence, mask, chosen)
        self.codes.copy_(self.decay * self.codes + (1.0 - self.decay) * means)
        used = torch.zeros_like(self.idle, dtype=torch.bool).index_fill_(0, chosen, value=True)
        self.idle.copy_(torch.where(used, 0, self.idle + 1))
        dead = self.idle >= self.patience
        if bool(dead.any()):
            fresh = _random_rows(sequence * mask.unsqueeze(-1), self.codes.shape[0], generator)
            self.codes.copy_(torch.where(dead[:, None, None], fresh, self.codes))
            self.idle.masked_fill_(dead, 0)

    def _perturbed(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        uniform = torch.rand(logits.shape, generator=generator, device=generator.device).to(logits.device)
        return logits - torch.log(-torch.log(uniform.clamp(min=1e-20)) + 1e-20)  # + Gumbel noise


@torch.no_grad()
def code_means(codes: Tensor, sequence: Tensor, mask: Tensor, chosen: Tensor) -> Tensor:
    """Mean, position by position and over real items only, of the sequences that chose each code (eq. 10).

    Args:
        codes: float ``[z, l, d]``, kept where a code was not chosen, or only by sequences without that position.
        sequence: float ``[b, l, d]``.
        mask: bool ``[b, l]``.
        chosen: int64 ``[b]``.

    Returns:
        float ``[z, l, d]``.
    """
    choice = F.one_hot(chosen, codes.shape[0]).to(codes.dtype)  # [b, z]
    counts = torch.einsum("bz,bl->zl", choice, mask.to(codes.dtype)).unsqueeze(-1)
    sums = torch.einsum("bz,bld->zld", choice, (sequence * mask.unsqueeze(-1)).to(codes.dtype))
    return torch.where(counts > 0, sums / counts.clamp(min=1), codes)


def _random_rows(sequence: Tensor, count: int, generator: torch.Generator) -> Tensor:
    rows = torch.randint(sequence.shape[0], (count,), generator=generator, device=generator.device)
    return sequence.detach()[rows.to(sequence.device)].float()
