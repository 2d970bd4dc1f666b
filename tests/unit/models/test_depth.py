"""Deep grey is shown by what the file says, else by its own range; never nearly black, whatever its container holds."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from zoo import deep_png, encoded, ramp

from taskgalaxy_ops.models.depth import changed_levels, levels
from taskgalaxy_ops.models.rendering import upright


def tiff(values: np.ndarray[Any, Any], **tags: int) -> bytes:
    info = ImageFileDirectory_v2()
    for name, value in tags.items():
        tag = {"smallest": 280, "largest": 281}[name]
        info.tagtype[tag] = 3
        info[tag] = value
    return encoded(Image.fromarray(values), "TIFF", tiffinfo=info)


def extremes(raw: bytes) -> tuple[int, int]:
    low, high = upright(raw).convert("L").getextrema()
    return int(low), int(high)


@pytest.mark.parametrize("top", [1, 3, 200, 255, 300, 1023, 3000, 4095, 10_000, 16383, 40_000, 65535])
def test_a_ramp_reaches_white_whatever_part_of_its_container_it_fills(top: int) -> None:
    for raw in (
        deep_png(ramp(top)),
        tiff(ramp(top).astype(np.uint16)),
        tiff(ramp(top).astype(np.int32)),
        tiff(ramp(top).astype(np.float32)),
    ):
        low, high = extremes(raw)
        assert low == 0 and high >= 200, (top, high)


@pytest.mark.parametrize(
    ("raw", "black", "white"),
    [
        (deep_png(ramp(2000), 12), 0, 4095),
        (deep_png(ramp(65535), 12), 0, 65535),  # as the specification wants it: scaled up to all 16 bits
        (deep_png(ramp(300), 12), 0, 300),  # what it says would leave it nearly black
        (deep_png(ramp(2000), 16), 0, 2047),
        (tiff(ramp(2000).astype(np.uint16), largest=4095), 0, 4095),
        (tiff(ramp(3000, 1000).astype(np.uint16), smallest=1000, largest=3200), 1000, 3200),
        (tiff(ramp(4000).astype(np.uint16), largest=0), 0, 4095),
        (
            tiff(ramp(31_000, 29_000).astype(np.uint16)),
            29_000,
            31_000,
        ),  # warmth: next to no contrast on the whole scale
        (tiff(ramp(3000, -1000).astype(np.int32)), -1000, 3000),
        (tiff(np.full((40, 40), np.nan, np.float32)), 0, 1),
        (tiff(np.zeros((40, 40), np.uint16)), 0, 65535),
    ],
)
def test_white_and_black_are_what_the_file_says_or_its_own(raw: bytes, black: float, white: float) -> None:
    with Image.open(io.BytesIO(raw)) as image:
        image.load()
        assert tuple(levels(image, raw)) == (black, white)


def test_only_what_is_shown_otherwise_than_before_has_levels_of_its_own() -> None:
    def told(raw: bytes) -> str | None:
        with Image.open(io.BytesIO(raw)) as image:
            image.load()
            return changed_levels(image, raw)

    assert (
        told(deep_png(ramp(65535)))
        is told(deep_png(ramp(60_000)))
        is told(encoded(Image.new("L", (9, 9)), "PNG"))
        is None
    )
    assert told(tiff(ramp(255).astype(np.float32))) is None and told(tiff((ramp(100) / 100).astype(np.float32))) is None
    assert told(deep_png(ramp(4095))) == "0:4095"
    assert told(deep_png(ramp(3000), 12)) == "0:4095"
    assert told(tiff(ramp(3000, -1000).astype(np.int32))) == "-1000:3000"


@given(st.integers(-(2**31), 2**31 - 1), st.integers(0, 2**31), st.sampled_from([np.int32, np.float32, np.uint16]))
def test_any_range_is_shown_with_contrast(bottom: int, spread: int, kind: Any) -> None:
    limits = (0, 65535) if kind is np.uint16 else (-(2**31), 2**31 - 1)
    values = np.clip(ramp(bottom + spread, bottom), *limits).astype(kind)
    low, high = extremes(tiff(values))
    apart = float(values.max()) - float(values.min())
    if apart > 2e-6 * max(abs(float(values.max())), abs(float(values.min()))):  # what a float of 32 bits tells apart
        assert high - low >= 50 and high >= 200
