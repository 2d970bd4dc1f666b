"""SSCD, a network that was trained to tell copies of pictures from pictures that are merely alike.

Pizzi et al., "A Self-Supervised Descriptor for Image Copy Detection", CVPR 2022. Its weights are Meta's and ship with
no package: whoever has them names the file in TorchScript (``sscd_disc_mixup.torchscript.pt``). Pictures are prepared
as its authors do it where they are compared in batches: scaled to 320 by 320 pixels whatever their shape.
"""

from __future__ import annotations

import hashlib
import warnings
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from taskgalaxy_ops.errors import EncoderError

_SIDE = 320  # pixels
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


class CopyDetector:
    """The network of one file, which is loaded when the first picture comes."""

    def __init__(self, file: str) -> None:
        """Raises EncoderError where there is no such file."""
        self._file = Path(file)
        try:
            with self._file.open("rb") as opened:
                self.weights = hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError as error:
            raise EncoderError(
                f"release.decontaminate.sscd: {file}: {error.strerror}.\n"
                "  Name a file of SSCD's weights in TorchScript."
            ) from error
        self._loading = Lock()

    def vector(self, picture: Pillow.Image) -> NDArray[np.float32]:
        """The descriptor of a picture in RGB, upright, ``(d,)`` of length 1: that of a copy has a cosine near 1.

        Several threads may call it at once. Raises EncoderError where the file is no such network.
        """
        with self._loading:
            torch, network, device = self._network
        scaled = picture.convert("RGB").resize((_SIDE, _SIDE), Pillow.Resampling.BILINEAR)
        pixels = (np.asarray(scaled, np.float32) / 255 - _MEAN) / _DEVIATION
        batch = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])).to(device)
        try:
            with torch.inference_mode():
                found = network(batch)
        except RuntimeError as error:  # no room on the GPU, or another network
            raise EncoderError(f"release.decontaminate.sscd: {self._file} failed: {error}") from error
        vector = np.asarray(found.float().cpu(), np.float32) if torch.is_tensor(found) else np.empty(0, np.float32)
        size = float(np.linalg.norm(vector))
        if vector.ndim != 2 or len(vector) != 1 or not np.isfinite(size) or size == 0:
            raise EncoderError(
                f"release.decontaminate.sscd: {self._file} gave no vector for a picture, but {vector.shape}.\n"
                "  Name a file of SSCD's in TorchScript, such as sscd_disc_mixup.torchscript.pt."
            )
        unit: NDArray[np.float32] = vector[0] / np.float32(size)
        return unit

    @cached_property
    def _network(self) -> tuple[Any, Any, str]:
        """torch, the network, and where it is: on a GPU where there is one."""
        try:
            import torch
        except ImportError as error:
            raise EncoderError(
                "release.decontaminate.sscd needs torch, which is not installed.\n"
                "  pip install 'taskgalaxy-ops[encoders]' brings it."
            ) from error
        device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # TorchScript is what these weights are published in
                return torch, torch.jit.load(self._file, map_location=device).eval(), device  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError, OSError) as error:
            raise EncoderError(
                f"release.decontaminate.sscd: {self._file} is no network in TorchScript: {str(error).splitlines()[0]}\n"
                "  Name a file such as sscd_disc_mixup.torchscript.pt."
            ) from error
