"""PDQ: the bits that the package ``pdqhash`` 0.2.8 gives, whose hashes of these pictures were recorded."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageEnhance

from taskgalaxy_ops.sources.pdq import BITS, Pdq, pdq, unpacked

RECORDED = {
    (64, 64): ("8543eabd5543aabd5543aabd5543aabd5543aabd5543aaad554a5556aaa25016", 100),
    (120, 90): ("d543eaad5543aaad5543aabd5543aabd5543aaad5543aaad554af556a2a21416", 100),
    (37, 300): ("7543aabd5543aabd5543aabd5543aabd5543aabd5543aabd154a55562aa25016", 100),
    (512, 384): ("f543eaadd543eaad5543aaad5543aaad5543aaad5543aaad554affd400a25016", 100),
    (5, 5): ("3b4ec260d4b56a5be1f8cb7261d8348d9e2795a52b4ac270d4b56a5b61d8cb72", 50),
}


def pixels(width: int, height: int, phase: float = 0) -> NDArray[np.uint8]:
    """Waves, others in each channel: no symmetry, and the same pixels on every machine."""
    y, x = np.mgrid[0:height, 0:width]
    y, x = y / height, x / width + phase
    waves = [np.sin(9 * x + 4 * y * y + c) + np.cos(13 * y * x + 5 * x + 2 * c) + np.sin(31 * y + c) for c in range(3)]
    return np.stack([(wave + 3) * 42 for wave in waves], axis=2).astype(np.uint8)


def noise(seed: int) -> Pillow.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    return Pillow.fromarray(coarse).resize((640, 480), Pillow.Resampling.BICUBIC)


def distance(one: Pdq, other: Pdq) -> int:
    return int(np.bitwise_count(np.bitwise_xor(*unpacked([one.bits, other.bits]))).sum())


@pytest.mark.parametrize("size", RECORDED)
def test_the_bits_are_those_of_the_reference(size: tuple[int, int]) -> None:
    recorded = Pdq(*RECORDED[size])
    found = pdq(Pillow.fromarray(pixels(*size)))
    # Two bits: a sine may round to another byte on another processor.
    assert distance(found, recorded) <= 2
    assert abs(found.quality - recorded.quality) <= 1


def test_the_installed_reference_gives_the_same_bits() -> None:
    reference = pytest.importorskip("pdqhash")
    for phase in (0.0, 0.3, 0.7):
        picture = pixels(200, 130, phase)
        bits, quality = reference.compute(picture)
        found = pdq(Pillow.fromarray(picture))
        assert distance(found, Pdq(np.packbits(bits).tobytes().hex(), quality)) <= 2
        assert found.quality == quality


def test_near_duplicates_are_near_and_other_pictures_are_not() -> None:
    picture = noise(1)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=50)
    changed = {
        "encoded": Pillow.open(out),
        "smaller": picture.resize((200, 150)),
        "brighter": ImageEnhance.Brightness(picture).enhance(1.15),
        "grey": picture.convert("L"),
    }
    of = pdq(picture)
    assert {name: distance(of, pdq(each)) <= 31 for name, each in changed.items()} == dict.fromkeys(changed, True)
    assert all(distance(of, pdq(noise(seed))) > 80 for seed in range(2, 9))


def test_a_picture_without_edges_has_a_hash_that_says_so() -> None:
    # Its coefficients are rounding errors, which must not become bits that differ from one machine to the next.
    assert pdq(Pillow.new("RGB", (300, 200), (12, 99, 201))) == Pdq("0" * (BITS // 4), 0)
    assert pdq(Pillow.fromarray(pixels(4, 100))) == Pdq("0" * (BITS // 4), 0)
