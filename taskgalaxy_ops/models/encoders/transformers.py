"""An encoder that runs the CLIP and SigLIP families of transformers, from the hub or from a folder.

``model`` is a repository of the hub, or a folder that ``save_pretrained`` made, with its processor; ``pretrained`` is
the hub's revision. The hash of the loaded state dict identifies the weights.
"""

from __future__ import annotations

from typing import Any

from PIL import Image

from taskgalaxy_ops.errors import EncoderError
from taskgalaxy_ops.models.encoders.base import EncoderOptions
from taskgalaxy_ops.models.encoders.two_towers import Towers, TwoTowersEncoder, place

_MOST_TOKENS = 512  # of a tokenizer that names no length


def opened(options: EncoderOptions) -> TwoTowersEncoder:
    """The encoder for the registry.

    Raises EncoderError if the packages are missing, the model cannot be loaded or has no two sides, or the recipe
    cannot be followed here.
    """
    torch, transformers = _packages()
    if not options.model:
        raise EncoderError(
            "encoder 'transformers' needs a model.\n  Set 'model', for instance to openai/clip-vit-large-patch14."
        )
    if options.recipe.fit:
        raise EncoderError("encoder 'transformers' has no fit: its processor decides.\n  Leave encoder.fit unset.")
    named = {"revision": options.pretrained} if options.pretrained else {}
    device = place(options)
    try:
        network = transformers.AutoModel.from_pretrained(options.model, dtype=torch.float32, **named)
        tokenizer = transformers.AutoTokenizer.from_pretrained(options.model, **named)
        processor = transformers.AutoImageProcessor.from_pretrained(options.model, **named)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise EncoderError(
            f"encoder 'transformers': model '{options.model}' cannot be loaded: {error}\n"
            "  Name a repository of the hub, or a folder with a model, its tokenizer and its image processor."
        ) from error
    if not hasattr(network, "get_image_features") or not hasattr(network, "get_text_features"):
        raise EncoderError(
            f"encoder 'transformers': model '{options.model}' ({type(network).__name__}) has no side for images and "
            "one for texts.\n  Name a model of the CLIP or SigLIP family."
        )
    network = network.to(device).eval()
    length = min(tokenizer.model_max_length, network.config.text_config.max_position_embeddings, _MOST_TOKENS)

    class Images(torch.nn.Module):  # type: ignore[misc, name-defined]
        """The network's image side as a module of its own, which runtimes convert."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, pixels: Any) -> Any:
            return _features(self.network.get_image_features(pixel_values=pixels))

    def tokens(texts: list[str]) -> Any:
        # Padded to one length, as SigLIP was trained; CLIP reads nothing behind a text's end.
        return tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt").input_ids

    def preprocess(image: Image.Image) -> Any:
        return processor(images=image, return_tensors="pt").pixel_values[0]

    towers = Towers(
        name="transformers",
        model=options.model,
        backend_version=f"{transformers.__version__}, torch {torch.__version__.split('+')[0]}",
        whole=network,
        images=Images().eval(),
        texts=lambda ids: _features(network.get_text_features(input_ids=ids)),
        tokens=tokens,
        preprocess=preprocess,
    )
    return TwoTowersEncoder(towers, options, device)


def _features(output: Any) -> Any:
    """The vectors (n, dim) of what a side gives."""
    return getattr(output, "pooler_output", output)


def _packages() -> tuple[Any, Any]:
    try:
        import torch
        import transformers
    except ImportError as error:
        raise EncoderError(
            f"encoder 'transformers' needs {error.name}, which is not installed.\n"
            "  pip install 'taskgalaxy-ops[encoders,train]' brings it."
        ) from error
    return torch, transformers
