"""Checkpoints of true shapes with random weights: what a benchmark of speed needs, without a download."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch


def visual(name: str, folder: Path, **shape: Any) -> Path:
    """A VideoMAE or ViT checkpoint; without a shape, that of the base model.

    Args:
        name: ``videomae`` or ``vit``.
        folder: Where to write it.
        shape: Values of the model's configuration, such as ``num_hidden_layers``.
    """
    from transformers import VideoMAEConfig, VideoMAEModel, ViTConfig, ViTModel

    torch.manual_seed(0)
    if name == "videomae":
        model: Any = VideoMAEModel(VideoMAEConfig(use_mean_pooling=False, **shape))
    else:
        model = ViTModel(ViTConfig(**shape), add_pooling_layer=False)
    model.save_pretrained(folder)
    settings = {"size": 224, "resample": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def bert(texts: Sequence[str], folder: Path, *, layers: int = 12) -> Path:
    """A BERT checkpoint of the base model's width, with a vocabulary of word pieces learnt from some texts.

    Args:
        texts: What the vocabulary is learnt from.
        folder: Where to write it.
        layers: The base model has 12.
    """
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertModel, BertTokenizer

    pieces = BertWordPieceTokenizer(lowercase=True)
    pieces.train_from_iterator(texts, vocab_size=2000, show_progress=False)
    pieces.save_model(str(folder))
    BertTokenizer(str(folder / "vocab.txt"), do_lower_case=True, model_max_length=512).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(vocab_size=pieces.get_vocab_size(), num_hidden_layers=layers)
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder
