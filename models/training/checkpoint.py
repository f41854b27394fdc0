"""Checkpoints that a crash cannot spoil and that run no code when they are read.

``checkpoints/best/weights.safetensors`` holds the weights of the selected epoch; ``checkpoints/last`` holds the newest
weights and ``state.pt`` (optimiser, counters, log), which ``torch.load`` reads with ``weights_only=True``. Weights and
state belong together, so the whole folder is replaced: the new one is complete on disk before the old one gives way.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from models.errors import ResumeError
from models.files import flush

WEIGHTS = "weights.safetensors"
STATE = "state.pt"


def save_checkpoint(folder: Path, model: nn.Module, state: dict[str, Any]) -> None:
    """Replace ``folder`` by the model's weights and ``state`` (tensors, numbers, text, lists and dicts of them)."""
    new, old = _sibling(folder, "new"), _sibling(folder, "old")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    save_model(model, str(new / WEIGHTS))
    torch.save(state, new / STATE)
    for path in (new / WEIGHTS, new / STATE, new):
        flush(path)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    new.rename(folder)
    flush(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def find_checkpoint(folder: Path) -> Path | None:
    """The folder itself, the one that it was about to replace when the program was killed, or None."""
    return next((path for path in (folder, _sibling(folder, "old")) if (path / STATE).is_file()), None)


def load_state(folder: Path) -> dict[str, Any]:
    """The state of a checkpoint.

    Raises:
        ResumeError: When the file cannot be read.
    """
    try:
        return torch.load(folder / STATE, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file, and its text advises to load it unsafely
        message = f"{folder / STATE}: unreadable ({type(error).__name__}); delete the run's checkpoints to start over"
        raise ResumeError(message) from error


def load_weights(folder: Path, model: nn.Module) -> None:
    """Fill the model from the weights of a checkpoint; every name and shape must match.

    Raises:
        ResumeError: When the file is damaged or belongs to another model.
    """
    path = folder / WEIGHTS
    try:
        load_model(model, str(path), strict=True)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ResumeError(f"{path}: these weights do not fit the model: {error}") from error


def _sibling(folder: Path, suffix: str) -> Path:
    return folder.with_name(f"{folder.name}.{suffix}")
