"""What a release is compared with: the benchmarks' fingerprints, and how its own are come by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from taskgalaxy_ops.records import ImageId
from taskgalaxy_ops.release.decontaminate.questions import BenchmarkQuestion, Encode


@dataclass(frozen=True, slots=True)
class BenchmarkPicture:
    """A picture of a benchmark's item, as the store keeps it."""

    item: str  # its id within the benchmark
    picture: str  # hash of its file's SHA-256 (``picture_hash``)
    quality: int  # of its PDQ, 0..100
    prints: tuple[str, ...]  # PDQ in hex: of the whole, its mirror image, and its crops
    brightness: str = ""  # thumbnail of 64 by 64 pixels of grey, row by row, in base64; came later
    colours: str = ""  # thumbnail of 32 by 32 pixels of RGB, in the same way; came later


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """One benchmark."""

    name: str
    items: int
    questions: Sequence[BenchmarkQuestion]
    question_vectors: Mapping[int, NDArray[np.float32]]  # by ``ordered``; {}: of another encoder than the store's
    pictures: Sequence[BenchmarkPicture]
    picture_vectors: Mapping[str, NDArray[np.float32]]  # by ``picture``; {}: of another encoder than the store's
    unread: Mapping[str, int] = field(default_factory=dict)  # what was not taken of it, by why
    embedded: bool = True  # by the store's encoder
    copy_vectors: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)  # SSCD's, by ``picture``
    described: bool = True  # by the SSCD that the settings name, if they name one


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePrints:
    """What some images are compared by, in one order."""

    images: Sequence[ImageId]
    pictures: Sequence[str]  # as BenchmarkPicture.picture
    pdq: NDArray[np.uint8]  # (n, 32)
    quality: NDArray[np.int64]  # (n,), 0..100
    brightness: NDArray[np.uint8]  # (n, 32, 32), thumbnails in grey
    colours: NDArray[np.uint8]  # (n, 16, 16, 3), thumbnails in RGB
    vectors: NDArray[np.float32] | None  # (n, d), of length 1
    copies: NDArray[np.float32] | None = None  # (n, d), SSCD's descriptors; None: the settings name no SSCD


@dataclass(frozen=True, kw_only=True)
class BenchmarkInputs:
    """The benchmarks, and how the release's own images and questions are come by."""

    benchmarks: Sequence[Benchmark]  # in order of name
    encode: Encode | None  # of questions; None: no encoder is there
    prints: Callable[[Sequence[ImageId]], Iterable[ImagePrints]]  # of images, which it divides as it likes
