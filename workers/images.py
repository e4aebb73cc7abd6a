"""Images as arrays: opened, made RGB and resized once by the checkpoint's own processor, normalised batch by batch.

Kept as bytes between batches (150 kB for 224 × 224), a quarter of what floats would take. No augmentation.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from autopeft.adapters.replay import ENTERING
from autopeft.errors import TaskError
from autopeft.tasks import Split
from workers.batches import Rows
from workers.states import KeptStates


@dataclass(frozen=True, slots=True)
class ImageRows:
    """A split of images.

    Attributes:
        pixels: Shape [rows, 3, height, width], uint8.
        labels: Shape [rows], class indices.
        scale: What a pixel is multiplied by.
        mean: Of each channel, after scaling, shape [3, 1, 1].
        spread: Standard deviation of each channel, likewise.
        entering: Hidden states that enter a layer, which a batch then carries.
    """

    pixels: Tensor
    labels: Tensor
    scale: float
    mean: Tensor
    spread: Tensor
    entering: KeptStates | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The same for every row: images are of one size."""
        return np.ones(len(self), dtype=np.int64)

    def batch(self, rows: Rows, device: torch.device) -> tuple[dict[str, Tensor], Tensor]:
        """Inputs and labels of some rows."""
        chosen = torch.from_numpy(rows)
        pixels = self.pixels[chosen].to(device).float() * self.scale
        normal = (pixels - self.mean.to(device)) / self.spread.to(device)
        inputs = {"pixel_values": normal}
        if self.entering is not None:
            inputs[ENTERING] = self.entering.batch(rows).to(device)
        return inputs, self.labels[chosen].to(device)

    def take(self, rows: Rows) -> ImageRows:
        """Some rows as a split of their own."""
        chosen = torch.from_numpy(rows)
        entering = self.entering and self.entering.take(rows)
        return ImageRows(self.pixels[chosen], self.labels[chosen], self.scale, self.mean, self.spread, entering)


def encode_images(processor: Any, split: Split) -> ImageRows:
    """The images of ``split`` as the checkpoint's processor resizes and normalises them.

    Raises:
        TaskError: If an image cannot be read.
    """
    pixels = [_resized(processor, image, name) for image, name in zip(split.images or (), split.texts, strict=True)]
    normalises = bool(processor.do_normalize)
    return ImageRows(
        pixels=torch.from_numpy(np.stack(pixels)),
        labels=torch.tensor(split.labels, dtype=torch.int64),
        scale=float(processor.rescale_factor) if processor.do_rescale else 1.0,
        mean=_channels(processor.image_mean if normalises else (0.0, 0.0, 0.0)),
        spread=_channels(processor.image_std if normalises else (1.0, 1.0, 1.0)),
    )


def _resized(processor: Any, image: str | bytes, name: str) -> NDArray[np.uint8]:
    try:
        with Image.open(Path(image) if isinstance(image, str) else io.BytesIO(image)) as opened:
            picture = opened.convert("RGB")
    except (OSError, UnidentifiedImageError, ValueError) as error:
        raise TaskError(f"image {name} cannot be read: {error}; expected a PNG, JPEG or the like") from error
    found = processor(picture, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
    return np.asarray(found).round().clip(0, 255).astype(np.uint8)


def _channels(values: Sequence[float]) -> Tensor:
    return torch.tensor([float(value) for value in values]).reshape(3, 1, 1)
