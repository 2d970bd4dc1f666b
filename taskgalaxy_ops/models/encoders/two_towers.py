"""Two towers: an encoder whose network has a side for images and a side for texts, run by torch or by another runtime.

``open_clip`` and ``transformers`` load such networks; all that follows the loading is here.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taskgalaxy_ops.errors import EncoderError
from taskgalaxy_ops.models.encoders import runtimes
from taskgalaxy_ops.models.encoders.base import EncoderOptions, Recipe, Vectors, normalise
from taskgalaxy_ops.models.encoders.on_device import Scaling, decoded, middle, network_input, resized
from taskgalaxy_ops.models.encoders.pictures import picture

_GPU_BATCH = 256  # images at a time that keep a GPU busy
_LANES_A_GPU = 2  # batches: one computes while the next one travels


@dataclass(frozen=True, slots=True, kw_only=True)
class Towers:
    """A loaded network.

    whole: the torch module, whose weights are the identity's. images: the module of its image side, from pixels
    (n, 3, side, side) to features (n, dim). texts: from tokens, as ``tokens`` gives them, to features. preprocess: an
    RGB image as a torch tensor (3, side, side). scaling: the same for ``decode: device``; None: not known.
    """

    name: str  # of the encoder
    model: str
    backend_version: str
    whole: Any
    images: Any
    texts: Callable[[Any], Any]
    tokens: Callable[[list[str]], Any]
    preprocess: Callable[[Image.Image], Any]
    scaling: Scaling | None = None


class TwoTowersEncoder:
    """An encoder of two towers. float32 without TF32, but for images where the recipe says otherwise."""

    def __init__(self, towers: Towers, options: EncoderOptions, device: str) -> None:
        """device: where the network is.

        Raises EncoderError if the recipe cannot be followed here.
        """
        import torch

        self._torch, self._recipe, self._device = torch, options.recipe, device
        self._scaling = _scaling(towers, options.recipe)
        on_gpu = self._scaling is not None and device != "cpu"
        self.towers, self.batch = towers, max(options.batch, _GPU_BATCH) if on_gpu else options.batch
        self._passes = 0
        self._count = threading.Lock()
        self._texts = runtimes.by_torch(towers.texts, None)
        shape = list(towers.preprocess(Image.new("RGB", (8, 8))).shape)
        self._side = max(shape[1:])
        self.dim: int = int(self._text_features([""]).shape[1])
        self.identity: dict[str, Any] = {
            "name": towers.name,
            "model": towers.model,
            "weights": state_dict_sha256(towers.whole.state_dict()),
            "backend": towers.name,
            "backend_version": towers.backend_version,
            "dtype": "float32",
            "batch_shape": {"images": [self.batch, *shape], "texts": [self.batch, self._tokens]},
            "dim": self.dim,
            **self._recipe.fields(),
        }
        self.places = _places(device, options) if on_gpu else [device]
        self._lanes: queue.SimpleQueue[tuple[str, runtimes.Forward]] = queue.SimpleQueue()
        for each in self.places:
            run = self._network_at(each, shape, options, on_gpu)
            for _ in range(_LANES_A_GPU if on_gpu else 1):
                self._lanes.put((each, run))
        if on_gpu:
            # For the whole process, since threads that set and restore it (``by_torch``) would do so for each other.
            torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = False, True
            self.preparer = partial(decoded, recipe=self._recipe, side=self._side)
            self.lanes = len(self.places) * _LANES_A_GPU

    def _network_at(self, place: str, shape: Sequence[int], options: EncoderOptions, on_gpu: bool) -> runtimes.Forward:
        images = self.towers.images
        if place not in {self._device, f"{self._device}:0"}:
            images = copy.deepcopy(images).to(place)
        if on_gpu:
            images = images.to(memory_format=self._torch.channels_last)
        by_torch = self._recipe.runtime in {None, "torch"}
        if options.compiled and by_torch:
            images = self._torch.compile(images)
        example = self._torch.zeros(self.batch, *shape, device=place if by_torch else "cpu")
        return runtimes.forward(images, self._recipe, example)

    @property
    def passes(self) -> int:
        """Images and texts encoded so far."""
        return self._passes

    def prepare(self, raw: bytes) -> NDArray[Any]:
        """(3, side, side) float32: the model's own preprocessing. Raises as ``rendering.upright``.

        With ``decode: device``, (3, n, n) uint8: resized already where the network is on the processor.
        """
        return self._pixels(picture(raw, self._recipe, self._side))

    def encode_prepared(self, images: Sequence[NDArray[Any]]) -> Vectors:
        """(n, dim) float32, L2-normalised, of what ``prepare`` gave."""
        return self._in_batches(images, self._image_features)

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        """(n, dim) float32, L2-normalised; the model's own preprocessing, as RGB."""
        return self._in_batches(images, lambda part: self._image_features([self._pixels(each) for each in part]))

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """(m, dim) float32, L2-normalised; a text longer than the model's context is cut off."""
        return self._in_batches(texts, self._text_features)

    def calibrated(self, images: Sequence[NDArray[Any]]) -> bytes:
        """The image side in int8, as ``Recipe.network`` holds it, calibrated on what ``prepare`` gave.

        images: one or more. Raises EncoderError where packages are missing.
        """
        whole = -(-len(images) // self.batch) * self.batch
        filled = list(itertools.islice(itertools.cycle(images), whole))
        batches = [filled[at : at + self.batch] for at in range(0, whole, self.batch)]
        if self._scaling is not None:
            inputs = [network_input(batch, self._scaling, "cpu") for batch in batches]
        else:
            inputs = [self._torch.from_numpy(np.stack(batch)) for batch in batches]
        return runtimes.calibrated(self.towers.images, inputs)

    def _in_batches(self, items: Sequence[Any], features: Callable[[Sequence[Any]], Vectors]) -> Vectors:
        parts = [np.zeros((0, self.dim), np.float32)]
        for start in range(0, len(items), self.batch):
            part = list(itertools.islice(items, start, start + self.batch))
            # The last, short batch is filled up: another shape may use another kernel, which rounds differently.
            filled = part + [part[-1]] * (self.batch - len(part))
            parts.append(normalise(features(filled)[: len(part)]))
            with self._count:
                self._passes += len(part)
        return np.concatenate(parts)

    def _pixels(self, image: Image.Image) -> NDArray[Any]:
        if self._scaling is None:
            prepared: NDArray[Any] = self.towers.preprocess(image.convert("RGB")).numpy()
            return prepared
        square = middle(image.convert("RGB"), self._side)
        if self._device == "cpu":
            square = resized(self._torch.from_numpy(square), self._side).numpy()
        return square

    def _image_features(self, images: Sequence[NDArray[Any]]) -> Vectors:
        device, run = self._lanes.get()
        try:
            if self._scaling is not None:
                return run(network_input(images, self._scaling, device))
            return run(self._torch.from_numpy(np.stack(images)).to(device))
        finally:
            self._lanes.put((device, run))

    def _text_features(self, texts: Sequence[str]) -> Vectors:
        tokens = self.towers.tokens(list(texts))
        self._tokens = int(tokens.shape[1])
        return self._texts(tokens.to(self._device))


def _scaling(towers: Towers, recipe: Recipe) -> Scaling | None:
    """How images become the network's input, with ``decode: device``. Raises EncoderError where that is not known."""
    if recipe.decode != "device":
        return None
    if towers.scaling is None or recipe.fit is not None:
        raise EncoderError(
            f"encoder {towers.name!r}: decode 'device' takes the middle square of open_clip's models, bicubic; model "
            f"{towers.model!r} with fit {recipe.fit!r} wants another.\n  Set encoder.decode to quick, or unset it."
        )
    return towers.scaling


def _places(device: str, options: EncoderOptions) -> list[str]:
    """The GPUs to use: the one that is asked for, else all that are visible."""
    import torch

    count = torch.cuda.device_count() if device == "cuda" and options.device is None else 1
    return [device] if count == 1 else [f"cuda:{number}" for number in range(count)]


def place(options: EncoderOptions) -> str:
    """The device that is asked for; else a GPU if there is one, unless the recipe's runtime needs the processor."""
    import torch

    on_cpu = options.recipe.runtime in {"openvino", "onnxruntime"} or not torch.cuda.is_available()
    return options.device or ("cpu" if on_cpu else "cuda")


def state_dict_sha256(state: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a torch state dict: each tensor's name, type, shape and bytes, ordered by name."""
    import torch

    whole = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        whole.update(f"{name}\x1f{tensor.dtype}\x1f{tuple(tensor.shape)}\x1e".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        whole.update(flat.view(torch.uint8).numpy().data)
    return whole.hexdigest()
