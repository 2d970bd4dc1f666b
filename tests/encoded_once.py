"""Lets the encoder's networks compute each text and each image once in a process of tests.

The encoder promises that what it gives for an item depends on nothing but this item, and its own tests hold that
(tests/unit/models/test_encoders.py). Tests of runs open many empty stores, each of which would have the same few
hundred task types encoded again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from taskgalaxy_ops.models.encoders.conse import ImageClassifier, SentenceEncoder

_texts: dict[str, np.ndarray[Any, Any]] = {}
_images: dict[tuple[str, str], np.ndarray[Any, Any]] = {}
_encode, _run = SentenceEncoder.encode, ImageClassifier._run


def _encode_once(self: SentenceEncoder, text: str) -> np.ndarray[Any, Any]:
    if text not in _texts:
        _texts[text] = _encode(self, text)
    return _texts[text].copy()


def _run_once(self: ImageClassifier, pixels: np.ndarray[Any, Any], output: str) -> np.ndarray[Any, Any]:
    key = (output, hashlib.sha256(pixels.tobytes()).hexdigest())
    if key not in _images:
        _images[key] = _run(self, pixels, output)
    return _images[key].copy()


@contextmanager
def encoded_once() -> Iterator[None]:
    """What the networks gave stays for the next time; without this, they compute as ever."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SentenceEncoder, "encode", _encode_once)
        patch.setattr(ImageClassifier, "_run", _run_once)
        yield
