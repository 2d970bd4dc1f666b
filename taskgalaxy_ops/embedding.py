"""Embed: one unit vector for each image and each task type. Pure; the encoder is an argument.

Items are taken in batches, so that a stream of decoded images never lies in memory as a whole, and come out
in the order in which they went in.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from PIL import Image

from taskgalaxy_ops.models.encoders import Encoder, Vectors
from taskgalaxy_ops.records import Embedding, ImageId, TaskTypePath

BATCH = 64  # decoded images in memory at a time

_Item = TypeVar("_Item")


def embed_images(
    encoder: Encoder, images: Iterable[tuple[ImageId, Image.Image]], *, batch: int = BATCH
) -> Iterator[Embedding]:
    """One embedding for each (id, decoded image), in the order given. Raises the encoder's EncoderError."""
    return _embed(encoder.encode_images, images, batch)


def embed_texts(
    encoder: Encoder, texts: Iterable[tuple[TaskTypePath, str]], *, batch: int = BATCH
) -> Iterator[Embedding]:
    """One embedding for each (id, text), in the order given. Raises the encoder's EncoderError."""
    return _embed(encoder.encode_texts, texts, batch)


def _embed(
    encode: Callable[[Sequence[_Item]], Vectors], items: Iterable[tuple[str, _Item]], batch: int
) -> Iterator[Embedding]:
    rest = iter(items)
    while part := list(itertools.islice(rest, batch)):
        for (name, _), vector in zip(part, encode([item for _, item in part]), strict=True):
            yield Embedding(name, tuple(vector.tolist()))
