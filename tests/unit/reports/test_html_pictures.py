"""The contact sheet's pictures: the funnel and the treemap as they are drawn, and thumbnails."""

import html
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from taskgalaxy_ops.drawing.funnel import funnel_svg
from taskgalaxy_ops.drawing.treemap import Box, squarify, treemap_svg
from taskgalaxy_ops.funnel import StageCounts
from taskgalaxy_ops.reports.html import thumbnail

STAGES = [
    StageCounts("ingest", 12, 10, {"truncated": 2}),
    StageCounts("filter", 100, 60, {"not fitting": 38, "refused": 2}),
    StageCounts("write", 120, 110, {"declined": 7}, pending=3),
    StageCounts("vote", 110, 80, {"below quorum": 30}),
]


def picture(size: tuple[int, int] = (640, 320), colour: str = "red", **save: object) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, **{"format": "JPEG", **save})
    return out.getvalue()


def drawn_numbers(svg: str, name: str) -> list[int]:
    found = re.findall(rf'class="{name}"[^>]*>(?:→ )?([\d,]+)', svg)
    return [int(number.replace(",", "")) for number in found]


def test_the_drawn_funnel_adds_up() -> None:
    svg = funnel_svg(STAGES)
    came, left, gone = (drawn_numbers(svg, name) for name in ("count", "count out", "branch-count"))
    assert came == [12, 100, 120, 110]
    assert left == [10, 60, 110, 80]
    assert sum(came) == sum(left) + sum(gone)
    assert drawn_numbers(svg, "result") == [80]
    assert "pending" in svg
    assert "× 10<" in svg  # ten matches an image
    assert "× 2<" in svg  # two variants a match
    heights = [float(h) for h in re.findall(r'class="river"[^>]* height="([\d.]+)"', svg)]
    assert heights == sorted(heights, reverse=True)
    assert heights[-1] / 190 == pytest.approx(10 / 12 * 60 / 100 * 110 / 120 * 80 / 110, abs=0.01)


def test_only_reasons_that_the_gallery_holds_are_links() -> None:
    svg = funnel_svg(STAGES, {("filter", "not fitting")})
    assert re.findall(r'<a class="branch reject" href="([^"]*)"', svg) == [
        "#outcome=reject&amp;stage=filter&amp;reason=not+fitting"
    ]


def test_a_stage_without_units_is_drawn() -> None:
    assert drawn_numbers(funnel_svg([StageCounts("vote", 0, 0)]), "result") == [0]


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=60))
def test_squares_tile_the_box_in_proportion(sizes: list[int]) -> None:
    sizes.sort(reverse=True)
    boxes = squarify(sizes, Box(3, 4, 900, 500))
    assert len(boxes) == len(sizes)
    for size, box in zip(sizes, boxes, strict=True):
        assert box.width * box.height == pytest.approx(900 * 500 * size / sum(sizes), rel=1e-6)
        assert box.x >= 3 - 1e-6
        assert box.y >= 4 - 1e-6
        assert box.x + box.width <= 903 + 1e-6
        assert box.y + box.height <= 504 + 1e-6


def test_the_treemap_names_every_task_type_once() -> None:
    counts = {f"root {n % 4}~middle~leaf {n}": n + 1 for n in range(40)}
    links = re.findall(r'<a href="#[^"]*" aria-label="([^"]*)"', treemap_svg(counts, "samples"))
    labels = [html.unescape(label) for label in links]
    assert "root 3 › middle › leaf 39: 40 samples" in labels
    assert len(labels) == 40 + 4
    assert treemap_svg({}, "samples") == ""


def test_of_very_many_task_types_the_smallest_share_a_tile() -> None:
    svg = treemap_svg({f"ocr~leaf {n:05d}": 2 if n < 1200 else 1 for n in range(19_227)}, "samples")
    assert svg.count('class="tile"') == 1201
    assert "its smaller task types together: 18,027 samples" in svg


# Thumbnails


def test_a_thumbnail_is_small_upright_and_without_metadata() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    exif[0x010E] = "taken at home"
    made = thumbnail(picture((640, 320), exif=exif, comment=b"secret"), side=100)
    assert b"secret" not in made
    assert b"taken at home" not in made
    with Image.open(io.BytesIO(made)) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (50, 100))


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "I;16", "F"])
def test_every_kind_of_pixel_has_a_thumbnail(mode: str) -> None:
    out = io.BytesIO()
    Image.new(mode, (30, 20)).save(out, "TIFF")
    with Image.open(io.BytesIO(thumbnail(out.getvalue()))) as image:
        assert image.size == (30, 20)  # never scaled up


@pytest.mark.parametrize("raw", [b"", b"not an image", picture()[:400], b"\x89PNG\r\n\x1a\n" + b"\xff" * 60])
def test_a_bad_image_has_a_placeholder(raw: bytes) -> None:
    with Image.open(io.BytesIO(thumbnail(raw))) as image:
        image.load()
        assert image.format == "JPEG"
