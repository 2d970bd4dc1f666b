"""Images as models are sent them: what is already as it should be goes as it is, and nothing but the picture goes."""

import base64
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps
from zoo import encoded, zoo

from taskgalaxy_ops.models.rendering import Shown, altered, render, rendered_for, scaled, shown
from taskgalaxy_ops.models.request import rendering
from taskgalaxy_ops.settings import Model

PICTURE = Image.effect_noise((300, 200), 40).convert("RGB")


def jpeg(image=PICTURE, **options):
    out = io.BytesIO()
    image.save(out, "JPEG", **{"quality": 70} | options)
    return out.getvalue()


def sent(raw, side=1024):
    head, data = render(raw, side, 90).split(",")
    assert head == "data:image/jpeg;base64"
    return base64.b64decode(data)


def pixels(raw):
    return np.asarray(Image.open(io.BytesIO(raw)))


def exif(**tags):
    found = Image.Exif()
    for name, value in {"ImageDescription": "SECRET PLACE", "GPSInfo": {1: "N"}, **tags}.items():
        found[ExifTags.Base[name]] = value
    return found


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"optimize": True}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_that_fits_goes_as_it_is_without_what_it_tells_besides(mode, options):
    raw = jpeg(PICTURE.convert(mode), exif=exif(), comment=b"SECRET WORD", icc_profile=b"SECRET" * 20, **options)
    got = sent(raw)
    assert b"SECRET" in raw and b"SECRET" not in got
    assert (pixels(got) == pixels(raw)).all()
    assert not Image.open(io.BytesIO(got)).getexif()


OTHERS = {
    "turned": jpeg(exif=exif(Orientation=6)),
    "too long": jpeg(PICTURE.resize((1200, 800))),
    "too many bytes": jpeg(quality=100, subsampling=0),
    "four inks": jpeg(PICTURE.convert("CMYK")),
    "stored as RGB": jpeg(keep_rgb=True),
    "another picture behind it": jpeg() + jpeg(exif=exif()),
    "a text behind it": jpeg() + b"SECRET",
}


@pytest.mark.parametrize("kind", OTHERS)
def test_any_other_is_rendered(kind):
    got = sent(OTHERS[kind])
    assert b"SECRET" not in got
    opened = Image.open(io.BytesIO(got))
    assert opened.mode == "RGB" and max(opened.size) <= 1024
    assert got == sent(OTHERS[kind]) != OTHERS[kind]


def test_one_that_is_turned_is_sent_upright():
    assert Image.open(io.BytesIO(sent(OTHERS["turned"]))).size == (200, 300)


def test_one_that_is_cut_off_is_rendered_or_refused_as_before():
    with pytest.raises(OSError):
        render(jpeg()[:-500], 1024, 90)


# What came later changes the key of a unit if and only if it changes the picture


def model(**more):
    return Model(name="t", base_url="http://127.0.0.1:1/v1", model="t", **more)


def rendered_by_version_1(raw, side, quality):
    """The rendering as it was when keys had no parameters of single images: what those stand for that were paid for."""
    with Image.open(io.BytesIO(raw)) as opened:
        image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I;16") or image.mode in {"I", "F"}:
        deep = image.convert("F")
        scales = (65535,) if image.mode.startswith("I;16") else (1, 255, 65535)
        full = next((scale for scale in scales if scale >= deep.getextrema()[1]), deep.getextrema()[1])
        image = deep.point(lambda value: value * (255 / full)).convert("L")
        image.info.pop("transparency", None)
    if image.mode in {"RGBA", "RGBa", "LA", "La", "PA"} or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    image.info.clear()
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, subsampling=0)
    return out.getvalue()


@pytest.mark.parametrize("side", [64, 300, 1024])
@pytest.mark.parametrize("kind", zoo())
def test_a_key_changes_if_and_only_if_the_picture_does(kind, side):
    raw, asked = zoo()[kind], model(image_side=side)
    apart = shown(raw).apart(asked)
    try:
        before = rendered_by_version_1(raw, side, 90)
    except Exception:  # noqa: BLE001 - it was a reject then, so that nothing was asked about it
        assert "make" in kind or "unit" in kind
        return
    now = rendered_for(raw, asked)
    if now.startswith(b"\xff\xd8") and not apart and raw.startswith(b"\xff\xd8"):
        one, other = (np.asarray(Image.open(io.BytesIO(each)).convert("RGB"), int) for each in (now, before))
        assert np.abs(one - other).mean() < 8  # maybe it goes as it is
    else:
        assert (now == before) == (not apart), apart
    assert rendering(asked) == {"v": 1, "side": side, "quality": 90}


@given(st.integers(1, 9000), st.integers(1, 9000), st.integers(64, 2048))
def test_the_size_after_scaling_is_pillows(width, height, side):
    image = Image.new("1", (width, height))
    image.thumbnail((side, side), Image.Resampling.NEAREST)
    assert scaled(width, height, side) == image.size


@pytest.mark.parametrize(
    ("size", "sent_size"),
    [
        ((4000, 100), (1024, 28)),
        ((100, 4000), (28, 1024)),
        ((2000, 27), (1024, 28)),
        ((20, 24), (28, 34)),
        ((1, 1), (28, 28)),
        ((10, 1000), (28, 1024)),
        ((28, 28), (28, 28)),
        ((1024, 28), (1024, 28)),
    ],
)
def test_no_side_is_shorter_than_what_image_processors_take(size, sent_size):
    for kind in ("PNG", "JPEG"):
        raw = encoded(Image.new("RGB", size, "red"), kind)
        got = Image.open(io.BytesIO(rendered_for(raw, model())))
        assert got.size == sent_size
        red, green, _ = got.getpixel((sent_size[0] // 2, sent_size[1] // 2))
        assert red > 200 and green < 60, "the picture is in the middle, whatever was added"
    assert Image.open(io.BytesIO(rendered_for(raw, model(image_min_side=1)))).size == scaled(*size, 1024)


def test_what_a_thin_picture_lacks_is_white_and_nothing_of_it_is_cut_off():
    strip = Image.new("RGB", (4000, 100), "red")
    strip.paste("blue", (3960, 0, 4000, 100))
    got = Image.open(io.BytesIO(rendered_for(encoded(strip, "PNG"), model())))
    assert min(got.getpixel((500, 0))) > 200 and got.getpixel((500, 14))[0] > 200
    assert got.getpixel((1020, 14))[2] > 200


def test_a_min_side_counts_for_thin_images_alone():
    thin, wide = Shown(4000, 100), Shown(4000, 3000)
    assert thin.apart(model()) == {"min_side": 28} and wide.apart(model()) == {}
    assert thin.apart(model(image_min_side=1)) == {} and thin.apart(model(image_side=2048)) == {}
    assert wide.apart(model(image_side=64, image_min_side=56)) == {"min_side": 56}
    assert (
        "image_min_side" not in model().model_dump() and model(image_min_side=32).model_dump()["image_min_side"] == 32
    )


def test_what_a_file_looks_like_beside_what_is_sent_is_told():
    files = zoo()
    assert altered(files["JPEG"], model()) == []
    assert altered(files["PNG"], model()) == ["the same size and colours, encoded as JPEG"]
    assert altered(files["JPEG, turned 6"], model()) == ["turned upright, as EXIF says"]
    assert altered(files["png, rgba"], model()) == ["set on white where they are transparent"]
    assert altered(files["png, 16 bits"], model()) == ["deep grey, as 8 bits"]
    assert altered(files["jpeg, cmyk"], model()) == ["other colours (palette, CMYK …), as RGB"]
    assert altered(files["tiff, two pages"], model()) == ["the first of several pages or frames"]
    assert altered(files["large"], model(image_side=512)) == ["scaled down"]
    assert altered(files["tiny"], model()) == ["scaled up, or with white margins, because they are thin or tiny"]


def test_nothing_of_what_a_file_says_besides_is_sent():
    for kind, raw in zoo().items():
        sent_bytes = rendered_for(raw, model())
        assert b"SECRET" not in sent_bytes and b"at home" not in sent_bytes, kind
        with Image.open(io.BytesIO(sent_bytes)) as image:
            assert image.format == "JPEG" and not image.getexif(), kind
