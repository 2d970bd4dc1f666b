"""An encoder that runs any CLIP model that open_clip can load. The paper uses ViT-L/14.

A model is named in one of three ways: by open_clip's name and pretrained tag (``ViT-L-14``, ``openai``), by name and
checkpoint file (``ViT-L-14``, ``/models/clip.pt``), or by hub (``hf-hub:org/model``) or folder (``local-dir:path``)
alone. The hash of the loaded state dict identifies the weights, whatever they were named by.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from taskgalaxy_ops.errors import EncoderError
from taskgalaxy_ops.models.encoders.base import EncoderOptions
from taskgalaxy_ops.models.encoders.on_device import Scaling
from taskgalaxy_ops.models.encoders.two_towers import Towers, TwoTowersEncoder, place

_SELF_CONTAINED = ("hf-hub:", "local-dir:")  # a model of such a name has its own weights


class OpenClipEncoder(TwoTowersEncoder):
    """The encoder ``open_clip``; see the module."""

    def __init__(self, options: EncoderOptions) -> None:
        """options.device: ``cpu``, ``cuda``, ``cuda:1``, …; None: a GPU if there is one.

        Raises EncoderError if the packages are missing, a name is unknown, the weights cannot be loaded, or the recipe
        cannot be followed here.
        """
        open_clip, torch = _packages()
        model, device = _checked(options), place(options)
        try:
            network, _, preprocess = open_clip.create_model_and_transforms(
                model,
                pretrained=options.pretrained,
                precision="fp32",
                device=device,
                image_resize_mode="longest" if options.recipe.fit == "pad" else None,
            )
            tokenizer = open_clip.get_tokenizer(model)
        except (RuntimeError, OSError, ValueError, KeyError, ImportError, pickle.UnpicklingError) as error:
            raise EncoderError(
                f"encoder 'open_clip': model '{model}', pretrained '{options.pretrained}' cannot be loaded: {error}\n"
                "  open_clip.list_pretrained() lists models and tags; a file must hold weights of this model."
            ) from error
        network = network.eval()
        towers = Towers(
            name="open_clip",
            model=model,
            backend_version=f"{open_clip.__version__}, torch {torch.__version__.split('+')[0]}",
            whole=network,
            images=network.visual,
            texts=network.encode_text,
            tokens=tokenizer,
            preprocess=_in_one_thread(preprocess),
            scaling=_scaling(network),
        )
        super().__init__(towers, options, device)


def _in_one_thread(preprocess: Any) -> Callable[[Image.Image], Any]:
    """The same to the last bit, with NumPy in place of torch for its last two steps, scaling and normalising.

    torch would have several threads compute each of the many images that are prepared at the same time.
    """
    import torch
    from torchvision.transforms import Normalize, ToTensor

    *first, scale, normalise = preprocess.transforms
    if not isinstance(scale, ToTensor) or not isinstance(normalise, Normalize):
        given: Callable[[Image.Image], Any] = preprocess
        return given
    mean, deviation = (np.asarray(each, np.float32).reshape(3, 1, 1) for each in (normalise.mean, normalise.std))

    def prepared(image: Image.Image) -> Any:
        for step in first:
            image = step(image)
        pixels = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1), np.float32)
        pixels /= np.float32(255)
        pixels -= mean
        pixels /= deviation
        return torch.from_numpy(pixels)

    return prepared


def _scaling(network: Any) -> Scaling | None:
    """What the network's own preprocessing does, if it is the middle square, bicubic."""
    chosen = network.visual.preprocess_cfg
    height, width = chosen["size"] if isinstance(chosen["size"], tuple | list) else (chosen["size"],) * 2
    if height != width or (chosen["interpolation"], chosen["resize_mode"]) != ("bicubic", "shortest"):
        return None
    return Scaling(height, tuple(chosen["mean"]), tuple(chosen["std"]))


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
