"""An encoder that runs any CLIP model that open_clip can load. The paper uses ViT-L/14.

A model is named in one of three ways: by open_clip's name and pretrained tag (``ViT-L-14``, ``openai``), by name and
checkpoint file (``ViT-L-14``, ``/models/clip.pt``), or by hub (``hf-hub:org/model``) or folder (``local-dir:path``)
alone. The hash of the loaded state dict identifies the weights, whatever they were named by.
"""

from __future__ import annotations

import hashlib
import itertools
import pickle
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taskgalaxy_ops.errors import EncoderError
from taskgalaxy_ops.models.encoders import runtimes
from taskgalaxy_ops.models.encoders.base import EncoderOptions, Recipe, Vectors, normalise
from taskgalaxy_ops.models.encoders.pictures import picture

_SELF_CONTAINED = ("hf-hub:", "local-dir:")  # a model of such a name has its own weights


class OpenClipEncoder:
    """The encoder ``open_clip``; see the module. float32 without TF32, but for images where the recipe says bf16."""

    def __init__(self, options: EncoderOptions) -> None:
        """options.device: ``cpu``, ``cuda``, ``cuda:1``, …; None: a GPU if there is one.

        Raises EncoderError if the packages are missing, a name is unknown, the weights cannot be loaded, or the recipe
        cannot be followed here.
        """
        open_clip, torch = _packages()
        model, recipe = _checked(options), options.recipe
        self._torch, self._recipe = torch, recipe
        self._device = options.device or ("cuda" if torch.cuda.is_available() and not _on_cpu(recipe) else "cpu")
        self.batch = options.batch
        try:
            self.network, _, self.preprocess = open_clip.create_model_and_transforms(
                model,
                pretrained=options.pretrained,
                precision="fp32",
                device=self._device,
                image_resize_mode="longest" if recipe.fit == "pad" else None,
            )
            self._tokenizer = open_clip.get_tokenizer(model)
        except (RuntimeError, OSError, ValueError, KeyError, ImportError, pickle.UnpicklingError) as error:
            raise EncoderError(
                f"encoder 'open_clip': model '{model}', pretrained '{options.pretrained}' cannot be loaded: {error}\n"
                "  open_clip.list_pretrained() lists models and tags; a file must hold weights of this model."
            ) from error
        network = self.network.eval()
        self._passes = 0
        self._count = threading.Lock()
        self._texts = runtimes.by_torch(network.encode_text, None)
        shape = list(self.preprocess(Image.new("RGB", (8, 8))).shape)
        self._side = max(shape[1:])
        self.dim: int = int(self._text_features([""]).shape[1])
        self.identity: dict[str, Any] = {
            "name": "open_clip",
            "model": model,
            "weights": state_dict_sha256(network.state_dict()),
            "backend": "open_clip",
            "backend_version": f"{open_clip.__version__}, torch {torch.__version__.split('+')[0]}",
            "dtype": "float32",
            "batch_shape": {"images": [self.batch, *shape], "texts": [self.batch, self._tokens]},
            "dim": self.dim,
            **recipe.fields(),
        }
        self._images = runtimes.forward(network.visual, recipe, torch.zeros(self.batch, *shape))

    @property
    def passes(self) -> int:
        """Images and texts encoded so far."""
        return self._passes

    def prepare(self, raw: bytes) -> NDArray[np.float32]:
        """(3, side, side) float32: the model's own preprocessing. Raises as ``rendering.upright``."""
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
        batches = [np.stack(filled[at : at + self.batch]) for at in range(0, whole, self.batch)]
        return runtimes.calibrated(self.network.visual, [self._torch.from_numpy(batch) for batch in batches])

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

    def _pixels(self, image: Image.Image) -> NDArray[np.float32]:
        pixels: NDArray[np.float32] = self.preprocess(image.convert("RGB")).numpy()
        return pixels

    def _image_features(self, images: Sequence[NDArray[np.float32]]) -> Vectors:
        return self._images(self._torch.from_numpy(np.stack(images)).to(self._device))

    def _text_features(self, texts: Sequence[str]) -> Vectors:
        tokens = self._tokenizer(list(texts))
        self._tokens = int(tokens.shape[1])
        return self._texts(tokens.to(self._device))


def _on_cpu(recipe: Recipe) -> bool:
    return recipe.runtime == "openvino"


def _checked(options: EncoderOptions) -> str:
    """The model's name. Raises EncoderError where the options do not fit."""
    model = options.model
    if not model:
        raise EncoderError("encoder 'open_clip' needs a model.\n  Set 'model', for instance to ViT-L-14.")
    if not options.pretrained and not model.startswith(_SELF_CONTAINED):
        raise EncoderError(
            f"encoder 'open_clip': model '{model}' has no weights without 'pretrained'.\n"
            "  Set 'pretrained' to a tag (such as openai) or to a checkpoint file."
        )
    if options.batch < 1:
        raise EncoderError(f"encoder 'open_clip': 'batch' is {options.batch}.\n  Set it to 1 or more.")
    return model


def opened(options: EncoderOptions) -> OpenClipEncoder:
    """The encoder for the registry."""
    return OpenClipEncoder(options)


def state_dict_sha256(state: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a torch state dict: each tensor's name, type, shape and bytes, ordered by name."""
    import torch

    whole = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        whole.update(f"{name}\x1f{tensor.dtype}\x1f{tuple(tensor.shape)}\x1e".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        whole.update(flat.view(torch.uint8).numpy().data)
    return whole.hexdigest()


def _packages() -> tuple[Any, Any]:
    try:
        import open_clip
        import torch
    except ImportError as error:
        raise EncoderError(
            f"encoder 'open_clip' needs {error.name}, which is not installed.\n"
            "  pip install 'taskgalaxy-ops[encoders]' brings it."
        ) from error
    return open_clip, torch
