"""Thumbnails: what is compared of them hangs on neither brightness nor contrast, and says nothing of a blank sheet."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from taskgalaxy_ops.sources.thumbnail import LENGTH, shapes_of, thumbnail


def flag(size: tuple[int, int] = (100, 80), bars: str = "red", ground: str = "navy") -> Image.Image:
    """A symmetric figure, half of whose PDQ is noise."""
    image = Image.new("RGB", size, ground)
    draw = ImageDraw.Draw(image)
    draw.line((0, 0, *size), bars, size[0] // 8)
    draw.line((0, size[1], size[0], 0), bars, size[0] // 8)
    return image


def correlation(one: Image.Image, other: Image.Image) -> float:
    a, b = shapes_of([thumbnail(one), thumbnail(other)]).astype(np.float64)
    return float(a @ b / max(1.0, np.linalg.norm(a) * np.linalg.norm(b)))


@pytest.mark.parametrize(
    "changed",
    [
        ImageEnhance.Brightness(flag()).enhance(0.6),
        ImageEnhance.Contrast(flag()).enhance(0.5),
        flag().resize((50, 40)),
        flag((1500, 1200)),
    ],
    ids=["darker", "paler", "smaller", "larger"],
)
def test_a_picture_and_its_copy_correlate(changed: Image.Image) -> None:
    assert correlation(flag(), changed) > 0.97


def test_other_pictures_do_not() -> None:
    other = Image.new("RGB", (100, 80), "navy")
    ImageDraw.Draw(other).rectangle((0, 30, 100, 50), "red")
    assert abs(correlation(flag(), other)) < 0.6
    assert correlation(flag(), flag(bars="navy", ground="red")) < -0.9  # colours the other way round


def test_of_a_sheet_of_one_colour_there_is_nothing_to_compare() -> None:
    sheet = Image.new("RGB", (60, 60), (240, 240, 240))
    sheet.putpixel((30, 30), (236, 240, 240))
    [shape] = shapes_of([thumbnail(sheet)])
    assert shape.shape == (LENGTH,) and not shape.any()


def test_grey_pictures_and_others_are_brought_to_rgb() -> None:
    assert correlation(flag().convert("L"), flag().convert("L").convert("RGB")) == pytest.approx(1)
    assert shapes_of([]).shape == (0, LENGTH)
