"""Imported by a decoding process, lets documents do what none should: a page's, and an opening's, by its size."""

from __future__ import annotations

import ctypes
import time
from typing import Any

from taskgalaxy_ops.sources import pages

CRASHES, HANGS, BALLOONS = 101, 102, 103  # points of a page's width
OPENING = 104  # the document crashes as it is opened


def _balloon() -> None:
    grown = []
    while True:
        grown.append(bytearray(10_000_000))


_DOES = {CRASHES: lambda: ctypes.string_at(8), HANGS: lambda: time.sleep(3600), BALLOONS: _balloon}


class Bad(pages._Pdf):
    def __init__(self, raw: bytes, bounds: Any) -> None:
        super().__init__(raw, bounds)
        if self._document[0].get_width() == OPENING:
            ctypes.string_at(8)

    def picture(self, number: int, pixels: int) -> Any:
        _DOES.get(int(self._document[number - 1].get_width()), lambda: None)()
        return super().picture(number, pixels)


pages._Pdf = Bad  # type: ignore[misc]
