"""Images as models are sent them: what is already as it should be goes as it is, and nothing but the picture goes."""

import base64
import io

import numpy as np
import pytest
from PIL import ExifTags, Image

from taskgalaxy_ops.models.rendering import render

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
