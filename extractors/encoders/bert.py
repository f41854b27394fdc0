"""BERT: masked mean of the last hidden state of a text, or its ``[CLS]`` token.

Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", NAACL 2019
(arXiv 1810.04805). ``[CLS]`` carries a sentence only after fine-tuning, hence the mean as the default; it includes
``[CLS]`` and ``[SEP]`` and leaves out padding.
"""

from __future__ import annotations

from pathlib import Path

from extractors.spec import EncoderSpec, Modality
from extractors.text import TransformerTextConfig, TransformerTextEncoder, build_text, describe_text

NAME = "bert"
LICENCE = "Apache-2.0"
ON_DEVICE = True


class Config(TransformerTextConfig):
    """Settings; see :class:`extractors.text.TransformerTextConfig`."""

    checkpoint: str = "google-bert/bert-base-uncased"
    revision: str | None = "86b5e0934494bd15c9632b12f734a8a67f723594"


def reads(config: Config) -> Modality:  # noqa: ARG001 - every encoder has the same signature
    """Texts, under all settings."""
    return "text"


def describe(config: Config, *, toy_root: Path) -> EncoderSpec:
    """Identity of the feature; resolves the checkpoint and loads no model."""
    return describe_text(NAME, config, toy_root=toy_root, licence=LICENCE, reserved_positions=0)[0]


def build(config: Config, *, device: str, toy_root: Path) -> TransformerTextEncoder:
    """Load the encoder."""
    from transformers import BertModel

    spec, checkpoint = describe_text(NAME, config, toy_root=toy_root, licence=LICENCE, reserved_positions=0)
    return build_text(spec, config, loader=BertModel.from_pretrained, folder=checkpoint.path, device=device)
