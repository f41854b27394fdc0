"""A codebook of whole sequences (IMECD's modality-specific vector quantisation, eq. 7-10).

Shape legend: b batch, l sequence length, d width, z codes.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.distributed import ALONE, Workers, workers

#: ``ema`` and ``batch_mean`` keep the codes in a buffer that only training changes; ``legacy_batch`` re-estimates
#: them from every batch, at test time too, as DiQDiff's code does: predictions then depend on the other rows of the
#: batch (of this process's share of it) and the selector gets no gradient.
CodebookMode = Literal["ema", "batch_mean", "legacy_batch"]


class SequenceCodebook(nn.Module):
    """Chooses a code for every sequence, and moves the codes to the means of the sequences that chose them.

    Attributes:
        codes: float ``[z, l, d]``, a saved buffer; zero until the first training batch seeds it with its own rows.
        filled: bool ``[z, l]``, where a code has seen a real item; the first mean there is taken whole.
        idle: int64 ``[z]``, training batches since each code was last chosen.
    """

    codes: Tensor
    filled: Tensor
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
        self.register_buffer("filled", torch.zeros(codes, length, dtype=torch.bool))
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
            codes, _ = self._random_rows(sequence, mask, generator)
            means, found = code_means(sequence, mask, chosen, len(codes))
            return torch.where(found.unsqueeze(-1), means, codes)[chosen] * mask.unsqueeze(-1)
        if self.training and not bool(self.started):
            self._restart(sequence, mask, torch.ones_like(self.idle, dtype=torch.bool), generator)
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
        """Eq. 10: move every chosen code to (``ema``: towards) the mean of its sequences; revive idle codes.

        Processes that share a batch count all of its sequences, and have the same codes afterwards.
        """
        means, found = code_means(sequence, mask, chosen, len(self.codes), group=workers())
        kept = torch.where(self.filled, self.decay, 0.0).unsqueeze(-1)  # [z, l, 1]
        moved = kept * self.codes + (1.0 - kept) * means
        self.codes.copy_(torch.where(found.unsqueeze(-1), moved, self.codes))
        self.filled.logical_or_(found)
        self.idle.copy_(torch.where(found.any(dim=1), 0, self.idle + 1))
        dead = self.idle >= self.patience
        if bool(dead.any()):
            self._restart(sequence, mask, dead, generator)
            self.idle.masked_fill_(dead, 0)

    @torch.no_grad()
    def _restart(self, sequence: Tensor, mask: Tensor, which: Tensor, generator: torch.Generator) -> None:
        """Put random sequences of the batch (of the first process's share of it) in place of the codes ``[z]``."""
        codes, filled = self._random_rows(sequence * mask.unsqueeze(-1), mask, generator)
        workers().same([codes, filled])
        self.codes.copy_(torch.where(which[:, None, None], codes, self.codes))
        self.filled.copy_(torch.where(which[:, None], filled, self.filled))

    def _random_rows(self, sequence: Tensor, mask: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Float ``[z, l, d]`` and its mask ``[z, l]``."""
        drawn = torch.randint(len(sequence), (len(self.codes),), generator=generator, device=generator.device)
        rows = drawn.to(sequence.device)
        return sequence.detach()[rows].float(), mask[rows]

    def _perturbed(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        uniform = torch.rand(logits.shape, generator=generator, device=generator.device).to(logits.device)
        return logits - torch.log(-torch.log(uniform.clamp(min=1e-20)) + 1e-20)  # + Gumbel noise


@torch.no_grad()
def code_means(
    sequence: Tensor, mask: Tensor, chosen: Tensor, codes: int, *, group: Workers = ALONE
) -> tuple[Tensor, Tensor]:
    """Mean, position by position and over real items only, of the sequences that chose each code (eq. 10).

    Args:
        sequence: float ``[b, l, d]``.
        mask: bool ``[b, l]``.
        chosen: int64 ``[b]``, 0 to ``codes - 1``.
        codes: z.
        group: Processes whose sequences are counted together.

    Returns:
        float32 ``[z, l, d]``, and bool ``[z, l]``, True where there was an item to count; the mean is 0 elsewhere.
    """
    choice = F.one_hot(chosen, codes).float()  # [b, z]
    with torch.autocast(sequence.device.type, enabled=False):  # bfloat16 cannot count beyond 256
        counts = group.total(torch.einsum("bz,bl->zl", choice, mask.float()))
        sums = group.total(torch.einsum("bz,bld->zld", choice, (sequence * mask.unsqueeze(-1)).float()))
    return sums / counts.clamp(min=1).unsqueeze(-1), counts > 0
