"""An encoder that takes no time: points on a circle, few enough that similarities tie."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from taskgalaxy_ops.models.encoders.base import Vectors

from .models import drawn

_PLACES = 12


def angle(what: bytes | str) -> int:
    """Where an image (its file) or a task type (its path) lies: hours of a clock."""
    if isinstance(what, str):
        return drawn(", ".join(reversed(what.split("~")))) % _PLACES
    with Image.open(io.BytesIO(what)) as opened:
        return _angle(opened.convert("RGB"))


def _angle(image: Image.Image) -> int:
    return drawn(image.tobytes()) % _PLACES


def point(hours: int) -> Vectors:
    """That place on the unit circle, (2,)."""
    turn = 2 * math.pi * hours / _PLACES
    return np.array([math.cos(turn), math.sin(turn)], np.float32)


class CircleEncoder:
    """Places images and texts on a circle, by hash."""

    identity: dict[str, Any] = {"name": "circle", "weights": "none", "dtype": "float32", "dim": 2}  # noqa: RUF012
    dim = 2

    def __init__(self) -> None:
        self.passes = 0

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        """Unit vectors (n, 2)."""
        self.passes += len(images)
        return np.array([point(_angle(image)) for image in images], np.float32).reshape(-1, 2)

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors (n, 2)."""
        self.passes += len(texts)
        return np.array([point(drawn(text) % _PLACES) for text in texts], np.float32).reshape(-1, 2)
