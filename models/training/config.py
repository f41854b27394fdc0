"""The ``[training]`` table of an experiment."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from models.config import StrictModel
from models.evaluation.metrics import parse_metric


class TrainingConfig(StrictModel):
    """How a model is trained; nothing here changes what the model is.

    Attributes:
        epochs: At most so many passes over the training examples; 0 only evaluates the model as it was built (or
            fitted in closed form).
        batch_size: Predictions per step. With all positions trained, a step takes as many sequences as hold about
            this number of targets, so that a learning rate means the same in both modes.
        optimiser: ``adam``, or ``adamw``, which takes the weight decay out of the adaptive step.
        learning_rate: The optimiser's, where the schedule starts after the warm-up.
        weight_decay: With ``adam`` an L2 penalty, added to the gradient; with ``adamw`` the share of a weight, times
            the learning rate, that a step takes away.
        schedule: ``constant``; ``cosine`` falls to 0 over ``schedule_steps``; ``step`` multiplies the rate by
            ``decay`` every ``schedule_steps``.
        warmup_steps: Steps over which the rate first rises in a straight line.
        schedule_steps: See ``schedule``; 0 lets the cosine end with the last epoch.
        decay: See ``schedule``.
        max_length: Newest items of a history that the model reads.
        positions: ``all`` trains every position of a sequence and is refused for models that are not causal, ``last``
            trains one prefix per target, ``auto`` takes ``all`` where it is allowed.
        group_by_length: Train on batches of histories of about the same length, each only as wide as its longest. Where
            most histories are far shorter than ``max_length`` an epoch costs a fraction; the order is less random.
        eval_every: Epochs between validations; the last epoch is always validated.
        eval_batch_size: Users scored at once; small batches stay in a CPU's cache, an accelerator likes large ones.
        patience: Stop after so many validations without a new best; 0 never stops early.
        select: Validation metric (history unmasked) that chooses the epoch.
        cutoffs: The k of all reported metrics.
        grad_clip: Largest norm of the whole gradient; 0 does not clip.
        precision: ``tf32`` and ``bfloat16`` (autocast of the loss; weights stay float32) trade digits for speed on an
            accelerator. Evaluation is always float32.
        compile: Put the loss through ``torch.compile``: minutes before the first step, faster steps after it. Sums may
            be taken in another order, so weights differ in their last digits from those of an uncompiled run.
        device: ``auto`` takes an accelerator when there is one.
        threads: CPU threads; 0 leaves torch's choice. Sums depend on it: runs are bit-equal for the same number.
        checkpoint_steps: Save the state every so many steps within an epoch, besides at its end; 0 only at its end.
    """

    epochs: int = Field(default=100, ge=0)
    batch_size: int = Field(default=2048, ge=1)
    optimiser: Literal["adam", "adamw"] = "adam"
    learning_rate: float = Field(default=1e-3, gt=0, le=1e37, allow_inf_nan=False)  # as float32
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    schedule: Literal["constant", "cosine", "step"] = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    schedule_steps: int = Field(default=0, ge=0)
    decay: float = Field(default=0.1, gt=0, le=1)
    max_length: int = Field(default=10, ge=1)
    positions: Literal["auto", "all", "last"] = "auto"
    group_by_length: bool = False
    eval_every: int = Field(default=1, ge=1)
    eval_batch_size: int = Field(default=256, ge=1)
    patience: int = Field(default=10, ge=0)
    select: str = "ndcg@10"
    cutoffs: tuple[int, ...] = (5, 10, 20)
    grad_clip: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    compile: bool = False
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    threads: int = Field(default=0, ge=0)
    checkpoint_steps: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _selectable(self) -> TrainingConfig:
        _, k = parse_metric(self.select)
        if k not in self.cutoffs:
            raise ValueError(f"select: {self.select!r} needs {k} among the cutoffs {list(self.cutoffs)}")
        if min(self.cutoffs) < 1:
            raise ValueError(f"cutoffs: expected 1 or more, got {min(self.cutoffs)}")
        if self.schedule == "step" and not self.schedule_steps:
            raise ValueError("schedule_steps: the schedule 'step' needs the number of steps after which it decays")
        return self
