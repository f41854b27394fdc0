"""What the visual encoders share: settings, the geometry of a frame, and pixel values.

Size, crop, mean and standard deviation come from the checkpoint's ``preprocessor_config.json``. Frames stay uint8 until
they are on the device; they are resized with antialiasing, within one grey level of PIL.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from extractors.checkpoint import CheckpointError, read_json
from extractors.resize import FrameTransform
from extractors.spec import Precision, StoredType, StrictModel
from extractors.transformer import to_device

ResizeMode = Literal["checkpoint", "centre_crop", "squash"]
Decoder = Literal["planned", "sequential", "decord", "torchcodec"]
_FILTERS = {2: "bilinear"}


class VisualConfig(StrictModel):
    """Settings of a visual encoder.

    Attributes:
        checkpoint: Hub id, local folder, or ``tiny`` for seeded random weights.
        revision: Commit of the hub repository.
        frames: Frames of a video, ``f``.
        fps: Frames per second around the centre of a video.
        decoder: How frames are read; ``planned`` and ``sequential`` give the same ones.
        resize: ``checkpoint`` does what the weights were trained with; ``centre_crop`` keeps the proportions and cuts
            the longer side; ``squash`` keeps the whole picture and changes its proportions.
        batch_size: Rows in one forward pass; halved while memory does not suffice.
        precision: Arithmetic of the forward pass.
        compile: Whether ``torch.compile`` rewrites the model; worth it for large catalogues on a GPU.
        dtype: Type of the stored numbers.
        shard_size: Items in one shard of the store.
    """

    checkpoint: str
    revision: str | None = None
    frames: int = Field(default=5, ge=1, le=64)
    fps: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    decoder: Decoder = "planned"
    resize: ResizeMode = "checkpoint"
    batch_size: int = Field(default=16, ge=1)
    precision: Precision = "fp32"
    compile: bool = False
    dtype: StoredType = "float32"
    shard_size: int = Field(default=1024, ge=1)

    def sampling(self) -> dict[str, Any]:
        """Identity of the sampled frames."""
        return {"frames": self.frames, "fps": self.fps, "decoder": self.decoder}


@dataclass(frozen=True)
class ImageSettings:
    """How a checkpoint wants its pictures.

    Attributes:
        transform: Resize and crop.
        mean: Per channel, after scaling.
        std: Per channel, after scaling.
        scale: Factor from grey levels to the numbers that mean and std refer to.
    """

    transform: FrameTransform
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    scale: float

    def identity(self) -> dict[str, Any]:
        """Plain values for the spec of a feature."""
        return asdict(self)

    def pixel_values(self, frames: np.ndarray, device: str) -> Tensor:
        """Normalise on the device.

        Args:
            frames: uint8 ``[..., h, w, 3]``.
            device: Where the model runs.

        Returns:
            float32 ``[..., 3, h, w]``: ``(grey * scale - mean) / std``, computed as
            ``(grey - mean / scale) / (std / scale)``.
        """
        pixels = to_device(frames, device)
        mean = torch.tensor(self.mean, device=device) * (1.0 / self.scale)
        std = torch.tensor(self.std, device=device) * (1.0 / self.scale)
        return ((pixels.to(torch.float32) - mean) / std).movedim(-1, -3)

    def fit(self, frames: np.ndarray) -> np.ndarray:
        """Bring frames to the model's size; frames that have it stay as they are.

        Args:
            frames: uint8 ``[n, h, w, 3]``.
        """
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
            raise ValueError(f"frames: expected uint8 [n, h, w, 3], got {frames.dtype} {list(frames.shape)}")
        writeable = frames if frames.flags.writeable else frames.copy()  # torch warns about read-only memory
        return writeable if frames.shape[1:3] == self.transform.crop else self.transform(writeable)


def image_settings(name: str, folder: Path, *, resize: ResizeMode, square: bool, side: int) -> ImageSettings:
    """Read a checkpoint's ``preprocessor_config.json``.

    Args:
        name: Encoder, for messages.
        folder: Checkpoint folder.
        resize: Mode from the encoder's settings.
        square: What a size given as one number means: both sides (ViT), or the shorter one (VideoMAE).
        side: Height and width that the model expects.

    Raises:
        CheckpointError: When something is missing, or contradicts the model.
    """
    path = folder / "preprocessor_config.json"
    values = read_json(path)
    mean, std = _channels(path, values, "image_mean"), _channels(path, values, "image_std")
    resample = values.get("resample", 2)
    if resample not in _FILTERS or not values.get("do_resize", True) or not values.get("do_normalize", True):
        raise CheckpointError(
            f"encoder {name}: {path} asks for resample={resample!r}, do_resize={values.get('do_resize')!r}, "
            f"do_normalize={values.get('do_normalize')!r}; supported are bilinear resizing (2) and normalisation"
        )
    scale = float(values.get("rescale_factor", 1 / 255)) if values.get("do_rescale", True) else 1.0
    transform = _transform(path, values, resize=resize, square=square)
    if transform.crop != (side, side):
        raise CheckpointError(f"encoder {name}: {path} gives pictures of {transform.crop}, but the model takes {side}")
    return ImageSettings(transform, mean, std, scale)


def _transform(path: Path, values: dict[str, Any], *, resize: ResizeMode, square: bool) -> FrameTransform:
    size = _size(path, values.get("size"), square=square)
    cropped = values.get("do_center_crop", not square)
    crop = _pair(path, values.get("crop_size", size.get("shortest_edge")), "crop_size") if cropped else None
    if crop is None:
        crop = _pair(path, size, "size")
    if resize == "squash":
        return FrameTransform(size=crop, crop=crop)
    if resize == "centre_crop":
        return FrameTransform(size=size.get("shortest_edge", min(crop)), crop=crop)
    if "shortest_edge" in size:
        return FrameTransform(size=size["shortest_edge"], crop=crop)
    return FrameTransform(size=_pair(path, size, "size"), crop=crop)


def _size(path: Path, size: Any, *, square: bool) -> dict[str, int]:
    if isinstance(size, int):
        return {"height": size, "width": size} if square else {"shortest_edge": size}
    known = ({"height", "width"}, {"shortest_edge"})
    if not isinstance(size, dict) or set(size) not in known or not all(type(side) is int for side in size.values()):
        raise CheckpointError(f"{path}: size: expected a number, height and width, or shortest_edge, got {size!r}")
    return size


def _pair(path: Path, value: Any, key: str) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    if not isinstance(value, dict) or set(value) != {"height", "width"}:
        raise CheckpointError(f"{path}: {key}: expected a number, or height and width, got {value!r}")
    return int(value["height"]), int(value["width"])


def _channels(path: Path, values: dict[str, Any], key: str) -> tuple[float, float, float]:
    value = values.get(key)
    if not isinstance(value, list) or len(value) != 3:
        raise CheckpointError(f"{path}: {key}: expected three numbers, got {value!r}")
    red, green, blue = (float(channel) for channel in value)
    return red, green, blue
