"""How much of the device the visual encoders use: model FLOP utilisation of VideoMAE base and ViT-B/16 in bf16.

Random weights of the true size, so nothing is downloaded; the encoders run as in an extraction, from uint8 frames in
host memory to vectors in host memory. FLOPs are counted from the shapes: two per multiplication of the projections, the
feed-forward layers, the attention products and the patch embedding; norms, softmax and activations count nothing. They
are set against the device's published dense bf16 rate where it is known, and against what a large matrix product
reaches on it.

On a machine without a GPU the tiny size shows that the script works; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._checkpoints import visual
from extractors import registry
from extractors.spec import Encoder
from extractors.transformer import without_progress_bars

PUBLISHED_TFLOPS = {"H100": 989.0, "H200": 989.0, "A100": 312.0, "L40S": 362.0, "L4": 121.0}
"""Dense bf16 rates of the data sheets (SXM for H100 and H200)."""

TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256}
FRAMES = 5


@dataclass(frozen=True)
class Shape:
    """What the FLOPs of a transformer follow from: ``n`` tokens, width ``d``, feed-forward width ``w``, its layers."""

    tokens: int
    width: int
    inner: int
    layers: int
    patch: int

    def flops(self) -> float:
        """Of one forward pass of one sequence; ``patch`` numbers are projected for each token."""
        projections = 4 * self.width**2 + 2 * self.width * self.inner  # q, k, v, output; feed-forward
        attention = 2 * self.tokens * self.width  # q k^T and its product with v
        return 2.0 * self.tokens * (self.layers * (projections + attention) + self.patch * self.width)


def shape_of(name: str, config: Any) -> Shape:
    """Tokens and widths of a video (VideoMAE: a tubelet per frame) or of a picture (ViT)."""
    patches = (config.image_size // config.patch_size) ** 2
    tubelet = getattr(config, "tubelet_size", 1)
    tokens = FRAMES * patches if name == "videomae" else patches + 1
    patch = 3 * tubelet * config.patch_size**2
    return Shape(tokens, config.hidden_size, config.intermediate_size, config.num_hidden_layers, patch)


def seconds(run: Callable[[], object], device: str, repeats: int) -> float:
    """Median time of one call, after two calls that are not counted."""
    taken: list[float] = []
    for _ in range(repeats + 2):
        begin = time.perf_counter()
        run()
        if device != "cpu":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken[2:])


def product_tflops(device: str, side: int) -> float:
    """What a square bf16 matrix product reaches."""
    left = torch.ones(side, side, dtype=torch.bfloat16, device=device)
    return 2 * side**3 / seconds(lambda: left @ left, device, 5) / 1e12


def published(device: str) -> float | None:
    """The data sheet's rate, None for a device that is not listed."""
    name = "" if device == "cpu" else torch.cuda.get_device_name(device)
    return next((rate for key, rate in PUBLISHED_TFLOPS.items() if key in name.replace("-", " ").split()), None)


def line(name: str, encoder: Encoder, rows: int, *, device: str, repeats: int, rates: list[float]) -> str:
    """One row of the table."""
    frames = (FRAMES,) if name == "videomae" else ()
    batch = np.random.default_rng(0).integers(0, 256, (rows, *frames, 224, 224, 3), dtype=np.uint8)
    model: Any = encoder
    flops = shape_of(name, model._model.config).flops()
    taken = seconds(lambda: encoder.encode(batch), device, repeats)
    reached = rows * flops / taken / 1e12
    shares = "".join(f"{reached / rate:12.1%}" for rate in rates)
    return f"{name:10} {rows:5} {flops / 1e9:9.1f} {rows / taken:10.1f} {reached:9.3g}{shares}"


def main() -> None:
    """Measure and print a table."""
    there = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if there else "cpu")
    parser.add_argument("--size", choices=["base", "tiny"], default="base" if there else "tiny")
    parser.add_argument("--rows", type=int, nargs="+", default=[8, 32, 128] if there else [2])
    parser.add_argument("--repeats", type=int, default=10 if there else 2)
    parser.add_argument("--compile", action="store_true", help="rewrite the models with torch.compile")
    options = parser.parse_args()
    side = 8192 if options.device != "cpu" else 512
    product, sheet = product_tflops(options.device, side), published(options.device)
    name = "cpu" if options.device == "cpu" else torch.cuda.get_device_name(options.device)
    print(f"{name}, torch {torch.__version__}, {options.size} size, bf16, compile={options.compile}")
    print(f"bf16 product of {side} x {side}: {product:.3g} TFLOP/s; data sheet: {sheet or 'not listed'}")
    rates = [product] if sheet is None else [product, sheet]
    print(f"{'encoder':10} {'rows':>5} {'GFLOP/row':>9} {'rows/s':>10} {'TFLOP/s':>9}{'of product':>12}", end="")
    print(f"{'MFU':>12}" if sheet else "")
    for encoder_name in ("videomae", "vit"):
        with tempfile.TemporaryDirectory() as folder, without_progress_bars():
            visual(encoder_name, Path(folder), **(TINY if options.size == "tiny" else {}))
            settings = {"checkpoint": folder, "precision": "bf16", "compile": options.compile}
            encoder = registry.build(encoder_name, settings, device=options.device, toy_root=Path(folder))
        for rows in options.rows:
            print(line(encoder_name, encoder, rows, device=options.device, repeats=options.repeats, rates=rates))


if __name__ == "__main__":
    main()
