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
from PIL import Image

from taskgalaxy_ops.errors import EncoderError
from taskgalaxy_ops.models.encoders.base import EncoderOptions, Vectors, normalise

_SELF_CONTAINED = ("hf-hub:", "local-dir:")  # a model of such a name has its own weights


class OpenClipEncoder:
    """The encoder ``open_clip``; see the module. float32 throughout, also on a GPU (no TF32)."""

    def __init__(
        self, model: str | None, pretrained: str | None, *, device: str | None = None, batch: int = 32
    ) -> None:
        """device: ``cpu``, ``cuda``, ``cuda:1``, …; None: a GPU if there is one. batch: items a pass.

        Raises EncoderError if the packages are missing, a name is unknown, or the weights cannot be loaded.
        """
        open_clip, torch = _packages()
        if not model:
            raise EncoderError("encoder 'open_clip' needs a model.\n  Set 'model', for instance to ViT-L-14.")
        if not pretrained and not model.startswith(_SELF_CONTAINED):
            raise EncoderError(
                f"encoder 'open_clip': model '{model}' has no weights without 'pretrained'.\n"
                "  Set 'pretrained' to a tag (such as openai) or to a checkpoint file."
            )
        if batch < 1:
            raise EncoderError(f"encoder 'open_clip': 'batch' is {batch}.\n  Set it to 1 or more.")
        self._torch = torch
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._batch = batch
        try:
            network, _, self._preprocess = open_clip.create_model_and_transforms(
                model, pretrained=pretrained, precision="fp32", device=self._device
            )
            self._tokenizer = open_clip.get_tokenizer(model)
        except (RuntimeError, OSError, ValueError, KeyError, ImportError, pickle.UnpicklingError) as error:
            raise EncoderError(
                f"encoder 'open_clip': model '{model}', pretrained '{pretrained}' cannot be loaded: {error}\n"
                "  open_clip.list_pretrained() lists models and tags; a file must hold weights of this model."
            ) from error
        self._network = network.eval()
        self._passes = 0
        self._count = threading.Lock()
        self.dim: int = int(self._text_features([""]).shape[1])
        self.identity: dict[str, Any] = {
            "name": "open_clip",
            "model": model,
            "weights": state_dict_sha256(network.state_dict()),
            "backend": "open_clip",
            "backend_version": f"{open_clip.__version__}, torch {torch.__version__.split('+')[0]}",
            "dtype": "float32",
            "batch_shape": {"images": [batch, *self._image_shape()], "texts": [batch, self._tokens]},
            "dim": self.dim,
        }

    @property
    def passes(self) -> int:
        """Images and texts encoded so far."""
        return self._passes

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        """(n, dim) float32, L2-normalised; the model's own preprocessing, as RGB."""
        return self._in_batches(images, self._image_features)

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """(m, dim) float32, L2-normalised; a text longer than the model's context is cut off."""
        return self._in_batches(texts, self._text_features)

    def _in_batches(self, items: Sequence[Any], features: Callable[[Sequence[Any]], Vectors]) -> Vectors:
        parts = [np.zeros((0, self.dim), np.float32)]
        for start in range(0, len(items), self._batch):
            part = list(itertools.islice(items, start, start + self._batch))
            # The last, short batch is filled up: another shape may use another kernel, which rounds differently.
            filled = part + [part[-1]] * (self._batch - len(part))
            parts.append(normalise(features(filled)[: len(part)]))
            with self._count:
                self._passes += len(part)
        return np.concatenate(parts)

    def _image_features(self, images: Sequence[Image.Image]) -> Vectors:
        pixels = self._torch.stack([self._preprocess(image.convert("RGB")) for image in images])
        return self._forward(self._network.encode_image, pixels)

    def _text_features(self, texts: Sequence[str]) -> Vectors:
        tokens = self._tokenizer(list(texts))
        self._tokens = int(tokens.shape[1])
        return self._forward(self._network.encode_text, tokens)

    def _image_shape(self) -> list[int]:
        return list(self._preprocess(Image.new("RGB", (8, 8))).shape)

    def _forward(self, network: Callable[[Any], Any], batch: Any) -> Vectors:
        exact = self._torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        with self._torch.inference_mode(), exact:
            result: Vectors = network(batch.to(self._device)).float().cpu().numpy()
        return result


def opened(options: EncoderOptions) -> OpenClipEncoder:
    """The encoder for the registry."""
    return OpenClipEncoder(options.model, options.pretrained, device=options.device, batch=options.batch)


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
