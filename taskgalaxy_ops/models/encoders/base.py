"""Encoders place images and texts in one vector space. ``open_encoder`` opens one by name.

Three ship. ``conse`` (weights from packages, ONNX Runtime, no torch) is the default and works out of the box;
``open_clip`` loads any CLIP model by name and pretrained tag, checkpoint file or hub; ``transformers`` loads those of
its CLIP and SigLIP families. Installed packages bring others.
Stages know only the protocol ``Encoder``.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taskgalaxy_ops.errors import EncoderError
from taskgalaxy_ops.extensions import ENCODERS

Vectors = NDArray[np.float32]


class Encoder(Protocol):
    """Turns images and texts into unit vectors of one space, so that a dot product is a cosine."""

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the vectors, JSON-like: ``name``, ``weights`` (SHA-256), ``backend``, ``backend_version``,
        ``dtype``, ``batch_shape``, ``dim`` and other options of the encoder. Encoders of equal identity share stored
        embeddings.
        """
        ...

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    @property
    def passes(self) -> int:
        """How many images and texts were encoded so far. It does not change if a run encodes nothing."""
        ...

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        """(n, dim) float32, L2-normalised, in the order given; (0, dim) for none."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """(m, dim) float32, L2-normalised, in the order given; (0, dim) for none."""
        ...


@runtime_checkable
class PreparingEncoder(Encoder, Protocol):
    """An encoder whose work on an image is in two parts, so that images are prepared while others are encoded.

    ``encode_images`` gives what both parts give.
    """

    @property
    def batch(self) -> int:
        """How many images are best encoded at a time."""
        ...

    def prepare(self, raw: bytes) -> NDArray[Any]:
        """An image's file as the network's input, one shape for all. Safe to call from several threads at once.

        Raises whatever a decoder raises for the file.
        """
        ...

    def encode_prepared(self, images: Sequence[NDArray[Any]]) -> Vectors:
        """(n, dim) float32, L2-normalised: of what ``prepare`` gave, in the order given; (0, dim) for none."""
        ...


@runtime_checkable
class DeviceEncoder(PreparingEncoder, Protocol):
    """An encoder whose network is on GPUs, which is quicker than one process decodes."""

    @property
    def preparer(self) -> Callable[[bytes], NDArray[Any]]:
        """What ``prepare`` does, for processes: it can be sent to them."""
        ...

    @property
    def lanes(self) -> int:
        """How many batches it takes at a time, each in a thread of its own: two a GPU, of which one travels."""
        ...


@runtime_checkable
class CalibratingEncoder(PreparingEncoder, Protocol):
    """An encoder that also computes in int8."""

    def calibrated(self, images: Sequence[NDArray[Any]]) -> bytes:
        """The network in int8, as ``Recipe.network`` holds it, its ranges taken from one or more prepared images.

        Raises EncoderError where packages are missing.
        """
        ...


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an encoder computes, of what can be chosen. It changes the vectors, so it is a part of the identity.

    None is what the encoder did before there was a choice; its identity does not name it.
    """

    runtime: str | None = None  # torch, onnxruntime, openvino
    precision: str | None = None  # bf16, fp16, int8; None: float32
    # quick: a JPEG at the smallest scale that the network's input needs; device: so, and resized where the network is
    decode: str | None = None
    fit: str | None = None  # pad: the whole image, on a square; None: the middle square
    network: bytes | None = field(default=None, repr=False)  # int8: the calibrated one, which a store keeps

    @classmethod
    def of(cls, identity: Mapping[str, Any]) -> Recipe:
        """The recipe that a recorded identity names, without the network."""
        return cls(*(identity.get(name) for name in CHOICES))

    def fields(self) -> dict[str, str]:
        """What was chosen, by name, as it stands in an identity: of a network, its SHA-256."""
        chosen = {name: getattr(self, name) for name in CHOICES}
        if self.network is not None:
            chosen["network"] = hashlib.sha256(self.network).hexdigest()
        return {name: value for name, value in chosen.items() if value is not None}


CHOICES = ("runtime", "precision", "decode", "fit")


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderOptions:
    """What an encoder is told as it is opened.

    model, pretrained: which weights, as the settings name them. recipe: how it computes. device, batch (images or texts
    at a time) and threads (None: one a core) do not change what it is.
    """

    model: str | None = None
    pretrained: str | None = None
    recipe: Recipe = Recipe()
    device: str | None = None
    batch: int = 32
    threads: int | None = None
    compiled: bool = False


class EncoderOpener(Protocol):
    """What the registry of encoders holds under a name."""

    def __call__(self, options: EncoderOptions) -> Encoder:
        """The encoder with its weights loaded. Raises EncoderError."""


def open_encoder(
    name: str,
    model: str | None = None,
    pretrained: str | None = None,
    recipe: Recipe | None = None,
    **machine: Any,
) -> Encoder:
    """The encoder of this name, with its weights loaded.

    name: ``conse``, ``open_clip``, ``transformers``, or one that an installed package brings; the rest is as in
    EncoderOptions. machine: its device, batch, threads, compiled.

    Raises EncoderError for an unknown name, a package or weights that are missing, options that do not fit, or a recipe
    that the encoder does not follow.
    """
    opener: EncoderOpener = ENCODERS.get(name)
    recipe = recipe or Recipe()
    encoder = opener(EncoderOptions(model=model, pretrained=pretrained, recipe=recipe, **machine))
    for choice, value in recipe.fields().items():
        if encoder.identity.get(choice) != value:
            raise EncoderError(
                f"encoder {name!r} has no {choice} {value!r}.\n  Leave encoder.{choice} unset, or use another encoder."
            )
    return encoder


def normalise(rows: NDArray[Any]) -> Vectors:
    """The rows (n, d) scaled to length 1, as float32. Computed in float64, so that each value is rounded only once.

    Raises EncoderError, which names the row, for a row without a direction (zero, NaN or infinite).
    """
    exact = np.asarray(rows, np.float64)
    lengths = np.sqrt((exact * exact).sum(axis=1, keepdims=True))
    if (bad := np.flatnonzero(~(np.isfinite(lengths[:, 0]) & (lengths[:, 0] > 0)))).size:
        raise EncoderError(
            f"the encoder gave no embedding for item {bad[0]} of {len(exact)}: "
            "its vector is zero or not finite.\n"
            "  Check the encoder's weights; a checkpoint of another model gives such numbers."
        )
    unit: Vectors = (exact / lengths).astype(np.float32)
    return unit


def cores() -> int:
    """The number of cores that this process may use; in a container fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


LENGTH_TOLERANCE = 1e-3  # by which a row's length may differ from 1


@dataclass(frozen=True, slots=True)
class EmbeddingMatrix:
    """Embeddings with their ids. Raises EncoderError if the shapes do not fit or an id occurs twice."""

    ids: tuple[str, ...]  # image ids or task-type paths, each once, in any order
    vectors: NDArray[np.float32]  # (n, d), each row of length 1

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or self.vectors.dtype != np.float32:
            raise EncoderError(
                f"embeddings are {self.vectors.dtype} of shape {self.vectors.shape}.\n"
                "  They must be float32 of shape (n, d)."
            )
        if len(self.ids) != len(self.vectors):
            raise EncoderError(
                f"{len(self.ids)} ids for {len(self.vectors)} embeddings.\n  Each embedding needs one id."
            )
        if len(set(self.ids)) != len(self.ids):
            twice = Counter(self.ids).most_common(1)[0][0]
            raise EncoderError(f"embedding '{twice}' occurs twice.\n  Drop one of its rows.")
