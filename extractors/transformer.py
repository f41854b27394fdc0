"""What every encoder built on ``transformers`` shares: loading, device, precision."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from extractors.errors import ExtractionError
from extractors.spec import Precision

_AUTOCAST: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


class ModelLoadError(ExtractionError):
    """Weights that do not fit the model they are loaded into."""


def load_model(
    loader: Callable[..., Any], folder: Path, *, name: str, device: str, compiled: bool = False, **arguments: Any
) -> Any:
    """Load a model and prove that every one of its weights came from the checkpoint.

    Args:
        loader: ``from_pretrained`` of a model class.
        folder: Checkpoint folder with safetensors.
        name: Encoder, for messages.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        compiled: Whether ``torch.compile`` rewrites the model when it first runs; it needs a C++ compiler.
        arguments: More arguments of the loader, such as a changed ``config``.

    Returns:
        The model in float32, in evaluation mode, without gradients, with scaled-dot-product attention.

    Raises:
        ModelLoadError: When a weight is missing or has another shape: it would be random without a word.
    """
    with without_progress_bars():
        model, report = loader(
            folder,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            dtype=torch.float32,
            attn_implementation="sdpa",
            **arguments,
        )
    for fault in ("missing_keys", "mismatched_keys"):
        if report[fault]:
            keys = sorted(str(key) for key in report[fault])
            more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
            raise ModelLoadError(
                f"encoder {name}: the weights in {folder} do not fit {type(model).__name__}: "
                f"{fault.replace('_', ' ')} {', '.join(keys[:5])}{more}. These weights would be random"
            )
    model = model.eval().requires_grad_(requires_grad=False).to(device)
    return torch.compile(model) if compiled else model


def to_device(values: np.ndarray, device: str) -> torch.Tensor:
    """Copy an array to where the model runs; to a GPU through page-locked memory, without waiting for the copy."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if torch.device(device).type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


@contextlib.contextmanager
def inference(device: str, precision: Precision) -> Generator[None]:
    """No gradients, and the arithmetic of the forward pass.

    The weights stay in float32. With ``bf16`` and ``fp16`` matrix products run in that type, while norms, softmax
    and pooling keep float32. With ``fp32``, products on a GPU run in full float32, not TF32.
    """
    kind = torch.device(device).type
    with torch.inference_mode():
        if precision == "fp32":
            with torch.autocast(kind, enabled=False), _full_float32(kind):
                yield
        else:
            with torch.autocast(kind, dtype=_AUTOCAST[precision]):
                yield


@contextlib.contextmanager
def _full_float32(kind: str) -> Generator[None]:
    if kind != "cuda":
        yield
        return
    with _full.lock:  # the settings are the process's, and several devices may be at work
        if not _full.users:
            _full.before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
            torch.set_float32_matmul_precision("highest")
            torch.backends.cudnn.allow_tf32 = False
        _full.users += 1
    try:
        yield
    finally:
        with _full.lock:
            _full.users -= 1
            if not _full.users:
                torch.set_float32_matmul_precision(_full.before[0])
                torch.backends.cudnn.allow_tf32 = _full.before[1]


class _FullFloat32:
    """How many forward passes need full float32 at the moment, and the settings before the first of them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.before: tuple[str, bool] = ("highest", False)


_full = _FullFloat32()


@contextlib.contextmanager
def without_progress_bars() -> Generator[None]:
    """Keep the library's own progress bars off the terminal."""
    from transformers.utils import logging as library

    enabled = library.is_progress_bar_enabled()
    library.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            library.enable_progress_bar()


def weight_names(files: Sequence[Path]) -> set[str]:
    """Names of all tensors in safetensors files; no tensor is read."""
    names: set[str] = set()
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            names.update(tensors.keys())
    return names


def read_weights(files: Sequence[Path], prefix: str) -> dict[str, torch.Tensor]:
    """Tensors whose names begin with a prefix, as float32, under the rest of their names."""
    found: dict[str, torch.Tensor] = {}
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  not a dict
                if name.startswith(prefix):
                    found[name.removeprefix(prefix)] = tensors.get_tensor(name).float()
    return found
