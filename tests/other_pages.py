"""Imported by a decoding process, draws pages as another version of pdfium might: not quite the same."""

from __future__ import annotations

from typing import Any

from taskgalaxy_ops.sources import pages


class Other(pages._Pdf):
    def picture(self, number: int, pixels: int) -> Any:
        drawn = super().picture(number, pixels)
        drawn.putpixel((0, 0), (9, 9, 9))
        return drawn


pages._Pdf = Other  # type: ignore[misc]
