"""``decode: device``: an image goes to the network's device as it is decoded, and is resized and normalised there.

On a GPU, processes decode (``decoded``), 8-bit pixels travel, and the device does the rest, so that the processors need
not keep up with the network in float32. On a processor the same is done by threads, with torch's 8-bit resizing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taskgalaxy_ops.models.encoders.base import Recipe
from taskgalaxy_ops.models.encoders.pictures import picture

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Scaling:
    """What a network takes: RGB squares, whose channels have this mean and deviation (of values 0..1) taken out."""

    side: int  # pixels
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


def decoded(raw: bytes, recipe: Recipe, side: int) -> Pixels:
    """An image file's middle square, (3, n, n) uint8, ``n`` at least ``side`` where the image is as large.

    Raises as ``rendering.upright``. It can be sent to another process.
    """
    return middle(picture(raw, recipe, side), side)


def middle(image: Image.Image, side: int) -> Pixels:
    """An RGB image's middle square, (3, n, n) uint8; of large ones, blocks of pixels are averaged first."""
    n = min(image.size)
    left, top = (image.width - n) // 2, (image.height - n) // 2
    square = image.crop((left, top, left + n, top + n))
    if (blocks := n // (2 * side)) > 1:
        square = square.reduce(blocks)
    return np.array(np.asarray(square).transpose(2, 0, 1), order="C")


def resized(pixels: Any, side: int) -> Any:
    """A torch tensor (3, n, n) uint8 as (3, side, side): bicubic with antialiasing, in 8 bits, on its device."""
    import torch

    if pixels.shape[-1] == side:
        return pixels
    how: dict[str, Any] = {"size": (side, side), "mode": "bicubic", "antialias": True}
    if pixels.device.type == "cpu":
        return torch.nn.functional.interpolate(pixels[None], **how)[0]
    scaled = torch.nn.functional.interpolate(pixels[None].float(), **how)
    return scaled.round().clamp(0, 255).to(torch.uint8)[0]


def network_input(images: Sequence[Pixels], scaling: Scaling, device: str) -> Any:
    """What ``decoded`` gave, as the network's input (n, 3, side, side) float32 on its device."""
    import torch

    tensors = [torch.from_numpy(each) for each in images]
    if on_gpu := device.startswith("cuda"):  # from pinned memory, so that the copies run beside the computing
        tensors = [each.pin_memory().to(device, non_blocking=True) for each in tensors]
    pixels = torch.stack([resized(each, scaling.side) for each in tensors]).float()
    mean, deviation = (
        torch.tensor(values, device=device).mul(255).view(1, 3, 1, 1) for values in (scaling.mean, scaling.deviation)
    )
    pixels = (pixels - mean) / deviation
    return pixels.contiguous(memory_format=torch.channels_last) if on_gpu else pixels
