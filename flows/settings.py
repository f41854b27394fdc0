"""The only reader of the environment: where things lie and which device to use."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Settings:
    """Places and machine choices of one invocation.

    Attributes:
        root: Holds ``raw/``, ``prepared/``, ``stores/``, ``runs/`` and ``checkpoints/``.
        configs: The folder with ``datasets/``, ``features/`` and ``experiments/``.
        device: ``cpu``, ``cuda``, ``cuda:1`` … or ``auto``.
        workers: Number of decoding processes.
    """

    root: Path
    configs: Path = REPOSITORY / "configs"
    device: str = "auto"
    workers: int = 2

    def raw(self, dataset: str) -> Path:
        """Where the downloaded files of a dataset lie."""
        return self.root / "raw" / dataset

    def prepared(self, dataset: str) -> Path:
        """Where the prepared tables of a dataset lie."""
        return self.root / "prepared" / dataset

    def store(self, dataset: str, feature: str) -> Path:
        """Where the feature store of a dataset and an encoder lies."""
        return self.root / "stores" / dataset / feature

    @property
    def stores(self) -> Path:
        """The folder of all stores."""
        return self.root / "stores"

    @property
    def runs(self) -> Path:
        """The folder of all training runs."""
        return self.root / "runs"

    @property
    def checkpoints(self) -> Path:
        """Where seeded toy checkpoints are built."""
        return self.root / "checkpoints"


def load(root: str | os.PathLike[str] | None = None) -> Settings:
    """Settings from the environment; ``root`` (the ``--root`` option) wins over ``REELSTORE_ROOT``."""
    chosen = root if root is not None else os.environ.get("REELSTORE_ROOT", "data")
    return Settings(
        root=Path(chosen).expanduser().resolve(),
        configs=Path(os.environ.get("REELSTORE_CONFIGS", REPOSITORY / "configs")).resolve(),
        device=os.environ.get("REELSTORE_DEVICE", "auto"),
        workers=int(os.environ.get("REELSTORE_WORKERS", str(max(1, min(8, os.cpu_count() or 1))))),
    )


def resolve_device(device: str) -> str:
    """``auto`` becomes ``cuda`` where there is a usable device, else ``cpu``."""
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
