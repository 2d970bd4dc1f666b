"""The canary: a request in the form of a run's about a plain picture. It tells our mistake from an item's fault."""

from __future__ import annotations

import io
from functools import cache

from PIL import Image, ImageDraw

from taskgalaxy_ops.models.request import RequestItem, RequestTemplate

CANARY_IMAGE = "canary"  # in place of an image's id
_SIDE = 224  # pixels, a size that every vision model takes


@cache
def canary_picture() -> bytes:
    """The picture, a JPEG: a red disc and a blue square on white."""
    image = Image.new("RGB", (_SIDE, _SIDE), "white")
    draw = ImageDraw.Draw(image)
    draw.ellipse((24, 72, 104, 152), fill="red")
    draw.rectangle((128, 72, 200, 152), fill="blue")
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90, subsampling=0)
    return out.getvalue()


def canary_unit(template: RequestTemplate) -> RequestItem | None:
    """The request item that asks about the plain picture; None if the template has none."""
    if template.canary is None:
        return None
    image, follow_up = CANARY_IMAGE if template.about_images else None, "follow-up" if template.follow_up else ""
    further = () if template.groups is None else (CANARY_IMAGE,)  # a model may take one image alone
    return RequestItem(CANARY_IMAGE, image, template.canary, follow_up, further)
