"""RoBERTa: masked mean of the last hidden state of a text, or its ``<s>`` token.

Liu et al., "RoBERTa: A Robustly Optimized BERT Pretraining Approach", 2019 (arXiv 1907.11692). Positions start after
the padding id (1), so two rows of the position table are never used.
"""

from __future__ import annotations

from pathlib import Path

from extractors.spec import EncoderSpec, Modality
from extractors.text import TransformerTextConfig, TransformerTextEncoder, build_text, describe_text

NAME = "roberta"
LICENCE = "MIT"
ON_DEVICE = True
_RESERVED = 2


class Config(TransformerTextConfig):
    """Settings; see :class:`extractors.text.TransformerTextConfig`."""

    checkpoint: str = "FacebookAI/roberta-base"
    revision: str | None = "e2da8e2f811d1448a5b465c236feacd80ffbac7b"


def reads(config: Config) -> Modality:  # noqa: ARG001 - every encoder has the same signature
    """Texts, under all settings."""
    return "text"


def describe(config: Config, *, toy_root: Path) -> EncoderSpec:
    """Identity of the feature; resolves the checkpoint and loads no model."""
    return describe_text(NAME, config, toy_root=toy_root, licence=LICENCE, reserved_positions=_RESERVED)[0]


def build(config: Config, *, device: str, toy_root: Path) -> TransformerTextEncoder:
    """Load the encoder."""
    from transformers import RobertaModel

    spec, checkpoint = describe_text(NAME, config, toy_root=toy_root, licence=LICENCE, reserved_positions=_RESERVED)
    return build_text(spec, config, loader=RobertaModel.from_pretrained, folder=checkpoint.path, device=device)
