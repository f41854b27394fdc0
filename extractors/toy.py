"""Toy checkpoints: the true architectures at toy size, with seeded random weights.

They let everything run without a download: the real tokenizers, image settings and model classes load them as they
load any checkpoint. They know nothing of the world, but their features tell inputs apart: the weights are drawn so
wide (standard deviation 1/sqrt(fan-in) instead of the usual 0.02) that a linear probe on the features recovers
colour and place of what is seen and the words of a text.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import string
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from extractors.errors import ExtractionError
from extractors.toy_words import TOY_WORDS
from extractors.transformer import without_progress_bars

TOY_MARKER = "TOY.json"
TOY_GLOVE_FILE = "glove.toy.64d.txt"
RECIPE = 1
"""Raised when a change of this file changes the weights."""

_WIDTH = 64
_BODY: dict[str, Any] = {
    "hidden_size": _WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
}
_IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
_HALF = ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])


class UnknownToyError(ExtractionError, ValueError):
    """There is no toy of that name."""

    usage: ClassVar[bool] = True


def toy_checkpoint(name: str, folder: Path, seed: int = 0) -> Path:
    """Build a toy checkpoint, unless it is there.

    Args:
        name: An encoder: ``videomae``, ``vit``, ``bert``, ``roberta`` or ``glove``.
        folder: Folder for toy checkpoints; the checkpoint gets its own folder inside.
        seed: Seed of the weights; the same seed gives the same bytes.

    Returns:
        The checkpoint's folder: weights, settings, and ``TOY.json``, which marks it for everyone.

    Raises:
        UnknownToyError: For an unknown name.
    """
    if name not in _BUILDERS:
        raise UnknownToyError(f"no toy checkpoint named {name!r}; there are: {', '.join(sorted(_BUILDERS))}")
    target = folder / f"{name}-tiny-seed{seed}-recipe{RECIPE}"
    if (target / TOY_MARKER).is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=f".{name}-"))
    try:
        _BUILDERS[name](temporary, seed)
        marker = {"toy": True, "encoder": name, "seed": seed, "recipe": RECIPE, "note": "random weights, no knowledge"}
        _write_json(temporary / TOY_MARKER, marker)
        try:
            temporary.rename(target)
        except OSError:
            if not (target / TOY_MARKER).is_file():  # another process was faster, or it is a real failure
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _videomae(folder: Path, seed: int) -> None:
    from transformers import VideoMAEConfig, VideoMAEModel

    config = VideoMAEConfig(image_size=224, patch_size=16, num_frames=16, use_mean_pooling=False, **_BODY)
    _save(lambda: VideoMAEModel(config), folder, seed)
    mean, std = _IMAGENET
    settings = {
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": 224},
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
    }
    _write_image_settings(folder, settings, mean=mean, std=std)


def _vit(folder: Path, seed: int) -> None:
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(image_size=224, patch_size=16, **_BODY)
    _save(lambda: ViTModel(config, add_pooling_layer=False), folder, seed)
    mean, std = _HALF
    settings = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": 224, "width": 224},
    }
    _write_image_settings(folder, settings, mean=mean, std=std)


def _bert(folder: Path, seed: int) -> None:
    from transformers import BertConfig, BertModel, BertTokenizer

    signs = string.ascii_lowercase + string.digits
    pieces = [f"##{sign}" for sign in signs]
    vocabulary = dict.fromkeys(
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.punctuation, *signs, *pieces, *TOY_WORDS]
    )
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    tokenizer = BertTokenizer(str(folder / "vocab.txt"), do_lower_case=True, model_max_length=512)
    tokenizer.save_pretrained(folder)
    config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=512, **_BODY)
    _save(lambda: BertModel(config, add_pooling_layer=False), folder, seed)


def _roberta(folder: Path, seed: int) -> None:
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import RobertaConfig, RobertaModel, RobertaTokenizer

    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    merges: dict[tuple[str, str], None] = {}
    pieces: dict[str, None] = dict.fromkeys([*specials, *sorted(ByteLevel.alphabet())])
    for word in TOY_WORDS:  # a chain of merges per word: any other word falls apart into a known prefix and bytes
        grown = "Ġ"
        for sign in word:
            merges[(grown, sign)] = None
            grown += sign
            pieces[grown] = None
    vocabulary = {piece: index for index, piece in enumerate([*pieces, "<mask>"])}
    _write_json(folder / "vocab.json", vocabulary)
    lines = ["#version: 0.2", *(f"{first} {second}" for first, second in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tokenizer = RobertaTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=512)
    tokenizer.save_pretrained(folder)
    config = RobertaConfig(
        vocab_size=len(vocabulary), max_position_embeddings=514, type_vocab_size=1, pad_token_id=1, **_BODY
    )
    _save(lambda: RobertaModel(config, add_pooling_layer=False), folder, seed)


def _glove(folder: Path, seed: int) -> None:
    write_toy_glove(folder / TOY_GLOVE_FILE, TOY_WORDS, seed=seed)


def write_toy_glove(path: Path, vocabulary: Iterable[str], *, seed: int = 0, dim: int = _WIDTH) -> None:
    """Write word vectors in GloVe's text format.

    Args:
        path: File to write.
        vocabulary: Words; a word's vector depends on the word and the seed alone.
        seed: Seed.
        dim: Width of the vectors.
    """
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for word in dict.fromkeys(vocabulary):
            state = hashlib.sha256(f"{seed}:{word}".encode()).digest()
            vector = np.random.default_rng(list(state)).standard_normal(dim)
            stream.write(f"{word} {' '.join(f'{value:.5f}' for value in vector)}\n")


def _save(build: Callable[[], Any], folder: Path, seed: int) -> None:
    """Build a model, draw its weights from a generator of its own, write safetensors and ``config.json``."""
    with torch.random.fork_rng(devices=[]):  # the constructors draw from the global generator
        torch.manual_seed(seed)
        model = build()
    draw_weights(model, torch.Generator().manual_seed(seed))
    with without_progress_bars():
        model.save_pretrained(folder)


@torch.no_grad()
def draw_weights(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Draw all weights so that what is seen stays visible in the output.

    Matrices get a standard deviation of 1/sqrt(fan-in); the patch projection half of that, positions 0.7 and the
    feed-forward layers twice of it, which ties what is seen to where it is seen; word embeddings 1. Found by ridge
    probes for colour and direction of motion; see the tests of this file.
    """
    for name, weight in sorted(model.named_parameters()):
        weight.copy_(_drawn(name.lower(), weight, generator))


def _drawn(name: str, weight: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    if "layernorm" in name or "layer_norm" in name:
        return torch.full_like(weight, 1.0 if name.endswith("weight") else 0.0)
    noise = torch.randn(weight.shape, generator=generator)
    if weight.ndim == 1:
        return noise * 0.1
    if "word_embeddings" in name:
        return noise
    if "token_type" in name:
        return noise * 0.2
    if "position_embeddings" in name or "cls_token" in name:
        return noise * (0.7 if weight.ndim == 3 else 0.2)  # pictures [1, l, d]; text [l, d]: words matter more
    fan_in = math.prod(weight.shape[1:])
    gain = 0.5 if "patch_embeddings" in name else 2.0 if _feed_forward(name) else 1.0
    return noise * (gain / math.sqrt(fan_in))


def _feed_forward(name: str) -> bool:
    return any(part in name for part in ("intermediate", "mlp", "fc1", "fc2")) or (
        "output.dense" in name and "attention" not in name
    )


def _write_image_settings(folder: Path, settings: dict[str, Any], *, mean: list[float], std: list[float]) -> None:
    shared = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "resample": 2}
    _write_json(folder / "preprocessor_config.json", {**settings, **shared, "image_mean": mean, "image_std": std})


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


_BUILDERS: dict[str, Callable[[Path, int], None]] = {
    "videomae": _videomae,
    "vit": _vit,
    "bert": _bert,
    "roberta": _roberta,
    "glove": _glove,
}
