"""Encoding titles: CPU time of our batches, of batches in order of arrival, and of the library's own pipeline.

The checkpoint has BERT base's width and random weights; the titles are those of Amazon's Gift Cards where their
metadata file is given, else generated ones. All three do the same work with the same weights in float32 on one thread:
tokenise, run the model, take the mean over the real tokens. They take turns within each round; figures are medians of
the process's CPU time, loading left out. The pipeline runs at its best batch size, found in a trial before.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._checkpoints import bert
from extractors import registry
from extractors.text import TransformerTextEncoder
from extractors.transformer import without_progress_bars

ARRIVAL_BATCHES, PIPELINE_BATCHES = (8, 32), (1, 4, 16)
Method = Callable[[Sequence[str]], np.ndarray]


def ours(folder: Path, budget: int) -> Method:
    """Sorted by length, in batches under a token budget."""
    settings = {"checkpoint": str(folder), "token_budget": budget}
    encoder = registry.build("bert", settings, toy_root=folder)
    return lambda texts: encoder.encode(texts).embedding


def in_order_of_arrival(encoder: TransformerTextEncoder, size: int) -> Method:
    """Batches as the titles come, each padded to its longest."""

    def encode(texts: Sequence[str]) -> np.ndarray:
        vectors: list[np.ndarray] = []
        for start in range(0, len(texts), size):
            batch = encoder._tokenizer(list(texts[start : start + size]), padding=True, return_tensors="pt")
            with torch.inference_mode():
                hidden = encoder._model(**batch).last_hidden_state
                mask = batch["attention_mask"].unsqueeze(-1)
                vectors.append(((hidden * mask).sum(1) / mask.sum(1)).numpy())
        return np.concatenate(vectors)

    return encode


def by_pipeline(encoder: TransformerTextEncoder, size: int) -> Method:
    """The library's ``feature-extraction`` pipeline, and the mean of what it returns."""
    from transformers import pipeline

    run: Any = pipeline("feature-extraction", model=encoder._model, tokenizer=encoder._tokenizer, device="cpu")

    def encode(texts: Sequence[str]) -> np.ndarray:
        lengths = [len(ids) for ids in encoder._tokenizer(list(texts))["input_ids"]]
        found = run(list(texts), batch_size=size)
        pairs = zip(found, lengths, strict=True)
        return np.stack([np.asarray(tokens[0][:length], np.float32).mean(axis=0) for tokens, length in pairs])

    return encode


def cpu_seconds(method: Method, texts: Sequence[str]) -> float:
    """CPU time of one pass."""
    begin = time.process_time()
    method(texts)
    return time.process_time() - begin


def titles(path: Path | None, count: int) -> list[str]:
    """Titles in the order of the file; generated ones without a file."""
    if path is None:
        rng = np.random.default_rng(0)
        words = ["".join(rng.choice(list("aeioulnrst"), rng.integers(2, 9))) for _ in range(800)]
        lengths = np.exp(rng.normal(2.5, 0.6, count)).astype(int) + 2  # about 15 words, with a long tail
        return [" ".join(rng.choice(words, length)) for length in lengths]
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        found = [str(json.loads(line).get("title") or "") for line in stream]
    return [title for title in found if title.strip()][:count]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--titles", type=Path, help="meta_Gift_Cards.json.gz of Amazon Reviews 2018; else generated")
    parser.add_argument("--count", type=int, default=384)
    parser.add_argument("--layers", type=int, default=3, help="BERT base has 12; costs of all methods grow alike")
    parser.add_argument("--budget", type=int, nargs="+", default=[8192], help="padded tokens in a batch")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    texts = titles(options.titles, options.count)
    with tempfile.TemporaryDirectory() as folder, without_progress_bars():
        checkpoint = bert(texts, Path(folder), layers=options.layers)
        encoder = registry.build("bert", {"checkpoint": str(checkpoint)}, toy_root=checkpoint)
        lengths = np.array([len(ids) for ids in encoder._tokenizer(texts)["input_ids"]])
        trial = {size: cpu_seconds(by_pipeline(encoder, size), texts[: len(texts) // 3]) for size in PIPELINE_BATCHES}
        best = min(trial, key=lambda size: trial[size])
        methods = {f"ours, {budget} tokens": ours(checkpoint, budget) for budget in options.budget}
        methods |= {f"order of arrival, {size} titles": in_order_of_arrival(encoder, size) for size in ARRIVAL_BATCHES}
        methods[f"pipeline, {best} titles (its best)"] = by_pipeline(encoder, best)
        expected = next(iter(methods.values()))(texts)
        apart = {name: float(np.abs(method(texts) - expected).max()) for name, method in methods.items()}
        seconds: dict[str, list[float]] = {name: [] for name in methods}
        for _ in range(options.rounds):
            for name, method in methods.items():
                seconds[name].append(cpu_seconds(method, texts))
    print(
        f"{len(texts)} titles, tokens: mean {lengths.mean():.1f}, median {np.median(lengths):.0f}, "
        f"largest {lengths.max()}; {options.layers} layers of 768, float32, one thread, {options.rounds} rounds"
    )
    first = statistics.median(seconds[next(iter(methods))])
    print(f"{'method':34} {'CPU s':>8} {'titles/s':>9} {'ratio':>6} {'largest difference':>19}")
    for name, taken in seconds.items():
        median = statistics.median(taken)
        print(f"{name:34} {median:8.2f} {len(texts) / median:9.1f} {median / first:6.2f} {apart[name]:19.1e}")


if __name__ == "__main__":
    main()
