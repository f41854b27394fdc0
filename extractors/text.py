"""Texts in, vectors out: normalisation, batches under a token budget, and the encoder that BERT and RoBERTa share.

Padding costs as much as reading, so texts are sorted by their number of tokens and cut into batches whose padded
size stays under a budget; the results go back into the order of the input.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from extractors import pooling
from extractors.batching import is_out_of_memory
from extractors.checkpoint import Checkpoint, config_value, resolve
from extractors.spec import (
    EncodedBatch,
    EncoderSpec,
    Precision,
    RowFault,
    StoredType,
    StrictModel,
    require_rows,
)
from extractors.transformer import inference, load_model, to_device, without_progress_bars

logger = logging.getLogger(__name__)

EMPTY_TEXT = RowFault("empty_text", "the text holds nothing but blanks and control characters")
_TEXTS_AT_ONCE = 4096

_PADDING = {"cpu": 64, "gpu": 4096}
"""Padding tokens that cost about as much as one more batch: reading the weights, or starting the kernels."""


class TransformerTextConfig(StrictModel):
    """Settings of a text encoder built on a transformer.

    Attributes:
        checkpoint: Hub id, local folder, or ``tiny`` for seeded random weights.
        revision: Commit of the hub repository.
        pooling: ``mean`` of the real tokens of the last hidden state, or its first token (``cls``).
        max_tokens: Longer texts are cut; the model's own limit holds as well.
        token_budget: Padded tokens in one forward pass; halved while memory does not suffice.
        precision: Arithmetic of the forward pass.
        compile: Whether ``torch.compile`` rewrites the model; worth it for large catalogues on a GPU.
        dtype: Type of the stored numbers.
        shard_size: Texts in one shard of the store.
    """

    checkpoint: str
    revision: str | None = None
    pooling: Literal["mean", "cls"] = "mean"
    max_tokens: int = Field(default=512, ge=3)
    token_budget: int = Field(default=8192, ge=1)
    precision: Precision = "fp32"
    compile: bool = False
    dtype: StoredType = "float32"
    shard_size: int = Field(default=8192, ge=1)


def normalise(text: str) -> str:
    """One spelling for texts that look alike.

    Unicode form C; control characters and every run of blanks become one blank; no blank at either end.
    """
    composed = unicodedata.normalize("NFC", text)
    return " ".join("".join(" " if unicodedata.category(sign) in {"Cc", "Cs"} else sign for sign in composed).split())


def token_batches(lengths: Sequence[int], budget: int, padding: int | None = None) -> list[list[int]]:
    """Cut rows into batches by length, so that rows times the longest length stays within a budget.

    Args:
        lengths: Tokens of each row.
        budget: Padded tokens in a batch; a row that exceeds it alone has a batch of its own.
        padding: Tokens of a batch that may be padding: as many as one more batch costs by itself. None for any.

    Returns:
        Row indices; every row is in exactly one batch, shortest rows first, equal lengths in input order.
    """
    batches: list[list[int]] = []
    current: list[int] = []
    read = 0
    for row in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        padded = lengths[row] * (len(current) + 1)
        if current and (padded > budget or (padding is not None and padded - read - lengths[row] > padding)):
            batches.append(current)
            current, read = [], 0
        current.append(row)
        read += lengths[row]
    return [*batches, current] if current else batches


class TransformerTextEncoder:
    """A tokenizer and a transformer, with one vector per text.

    Attributes:
        spec: Identity of the feature.
        batch_size: Texts that are sorted together; memory is bounded by the token budget.
    """

    def __init__(
        self, spec: EncoderSpec, config: TransformerTextConfig, *, model: Any, tokenizer: Any, device: str
    ) -> None:
        self.spec = spec
        self.batch_size = _TEXTS_AT_ONCE
        self._config = config
        self._model = model
        self._tokenizer = tokenizer
        self._device = device
        self._budget = config.token_budget
        self._padding = _PADDING["cpu" if torch.device(device).type == "cpu" else "gpu"]
        self._limit = int(spec.preprocessing["max_tokens"])

    def announce(self, texts: Sequence[str], /) -> None:
        """Told of all texts to come; a tokenizer needs no preparation."""

    def encode(self, batch: Sequence[str], /) -> EncodedBatch:
        """Encode texts.

        Args:
            batch: At least one text.

        Returns:
            ``embedding`` float32 ``[b, d]``; a text without a visible character is a fault. ``counts`` holds
            ``tokens`` and ``truncated`` (texts that were cut).
        """
        require_rows(batch, encoder=self.spec.name)
        texts = [normalise(text) for text in batch]
        rows = [row for row, text in enumerate(texts) if text]
        embedding = np.full((len(texts), self.spec.dim), np.nan, dtype=np.float32)
        faults = {row: EMPTY_TEXT for row, text in enumerate(texts) if not text}
        if not rows:
            return EncodedBatch(embedding, faults=faults)
        tokens: list[list[int]] = self._tokenizer([texts[row] for row in rows], verbose=False)["input_ids"]
        truncated = sum(len(ids) > self._limit for ids in tokens)
        if truncated:
            tokens = self._tokenizer([texts[row] for row in rows], truncation=True, max_length=self._limit)["input_ids"]
        waiting = token_batches([len(ids) for ids in tokens], self._budget, self._padding)[::-1]
        while waiting:
            group = waiting.pop()
            padded = [tokens[index] for index in group]
            try:
                embedding[[rows[index] for index in group]] = self._forward(padded)
            except Exception as error:
                if len(group) == 1 or not is_out_of_memory(error):
                    raise
                self._shrink(len(group) * len(padded[-1]))
                waiting += [group[len(group) // 2 :], group[: len(group) // 2]]
        counts = {"tokens": sum(len(ids) for ids in tokens), "truncated": truncated}
        return EncodedBatch(embedding, faults=faults, counts=counts)

    def _shrink(self, padded: int) -> None:
        """Memory does not suffice for so many padded tokens: try half of them, and remember it."""
        self._budget = max(1, padded // 2)
        logger.warning("%s: out of memory with %d tokens; trying %d", self.spec.name, padded, self._budget)
        if torch.device(self._device).type == "cuda":
            torch.cuda.empty_cache()

    def _forward(self, tokens: list[list[int]]) -> np.ndarray:
        longest = max(len(ids) for ids in tokens)
        ids = np.full((len(tokens), longest), self._tokenizer.pad_token_id)  # [b, l]
        for row, values in enumerate(tokens):
            ids[row, : len(values)] = values
        lengths = np.array([len(values) for values in tokens])
        mask = to_device((np.arange(longest) < lengths[:, None]).astype(np.int64), self._device)  # [b, l]
        with inference(self._device, self._config.precision):
            hidden = self._model(input_ids=to_device(ids, self._device), attention_mask=mask).last_hidden_state
        pooled = pooling.cls(hidden) if self._config.pooling == "cls" else pooling.masked_mean(hidden, mask)
        return pooled.cpu().numpy()


def describe_text(
    name: str, config: TransformerTextConfig, *, toy_root: Path, licence: str, reserved_positions: int
) -> tuple[EncoderSpec, Checkpoint]:
    """Identity of a text feature, without loading a model.

    Args:
        name: Encoder.
        config: Settings.
        toy_root: Folder of toy checkpoints.
        licence: Licence of the encoder's standard weights.
        reserved_positions: Rows of the position table that no token uses.
    """
    checkpoint = resolve(
        name, config.checkpoint, revision=config.revision, toy_root=toy_root, licence=licence, tokenizer=True
    )
    positions = config_value(checkpoint, "max_position_embeddings") - reserved_positions
    dim = config_value(checkpoint, "hidden_size")
    spec = EncoderSpec(
        name=name,
        modality="text",
        checkpoint=checkpoint.spec(),
        sampling={},
        preprocessing={"normalisation": "nfc-blanks", "max_tokens": min(config.max_tokens, positions)},
        pooling=f"{config.pooling} of last_hidden_state",
        precision=config.precision,
        dtype=config.dtype,
        dim=dim,
        columns={"embedding": (dim,)},
    )
    return spec, checkpoint


def build_text(
    spec: EncoderSpec,
    config: TransformerTextConfig,
    *,
    loader: Callable[..., Any],
    folder: Path,
    device: str,
) -> TransformerTextEncoder:
    """Load tokenizer and model.

    Args:
        spec: Identity, from :func:`describe_text`.
        config: Settings.
        loader: ``from_pretrained`` of the model class.
        folder: Checkpoint folder.
        device: Where to run.
    """
    from transformers import AutoTokenizer

    with without_progress_bars():
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, use_fast=True)
    model = load_model(loader, folder, name=spec.name, device=device, compiled=config.compile, add_pooling_layer=False)
    return TransformerTextEncoder(spec, config, model=model, tokenizer=tokenizer, device=device)
