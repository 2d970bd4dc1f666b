"""What a judge sees of an image: computed when a check first needs it, kept for the checks that follow."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taskgalaxy_ops.simulator.judges import palettes, readers
from taskgalaxy_ops.simulator.judges.readers import Piece
from taskgalaxy_ops.simulator.memory import Memory, kept

JUDGES = ("a", "b", "c")
_KEPT = 64  # views that are remembered, those of all judges together; about 5 MB each
_KEPT_READINGS = 8192  # what each judge read of an image, a few KB each

_SMALL = 256  # pixels: larger copies are made anew each time, for they would fill the memory

_T = TypeVar("_T")


class View:
    """One judge's view of one image. Safe to use from several threads at once."""

    def __init__(self, judge: str, image: Image.Image, key: str = "") -> None:
        self.judge = judge
        self._key = key
        self.image = image if image.mode == "RGB" else image.convert("RGB")
        self.width, self.height = self.image.size
        self._lock = threading.RLock()
        self._parts: dict[str, Any] = {}

    def part(self, name: str, make: Callable[[], _T]) -> _T:
        """What is kept under a name, made at the first call."""
        with self._lock:
            if name not in self._parts:
                self._parts[name] = make()
            found: _T = self._parts[name]
            return found

    @property
    def pieces(self) -> list[Piece]:
        """All pieces of text, from the top."""
        return self.part("pieces", self._read)

    def _read(self) -> list[Piece]:
        if not self._key:
            return readers.read(self.judge, self.image)
        return _readings.get((self.judge, self._key), self._read_once)

    def _read_once(self) -> list[Piece]:
        def read() -> list[dict[str, Any]]:
            return [asdict(piece) for piece in readers.read(self.judge, self.image)]

        return [Piece(**each) for each in kept(f"judge {self.judge}", readers.__file__, self._key, read)]

    @property
    def rows(self) -> list[list[Piece]]:
        """Pieces side by side, row by row from the top."""
        return self.part("rows", lambda: readers.rows(self.judge, self.pieces))

    @property
    def lines(self) -> list[Piece]:
        """The rows, each as one piece."""
        return self.part("lines", lambda: [readers.join(row) for row in self.rows])

    @property
    def shares(self) -> dict[str, float]:
        """Share of the image that each colour covers, greatest first."""
        return self.part("shares", lambda: palettes.shares(self.judge, self.image))

    def pixels(self, side: int = 256) -> NDArray[np.uint8]:
        """(h, w, 3) uint8: the image, at most ``side`` pixels long (never scaled up)."""

        def make() -> NDArray[np.uint8]:
            small = self.image.copy()
            small.thumbnail((side, side), Image.Resampling.BOX)
            return np.asarray(small)

        return self.part(f"pixels {side}", make) if side <= _SMALL else make()


_views: Memory[tuple[str, str], View] = Memory(_KEPT)
_readings: Memory[tuple[str, str], list[Piece]] = Memory(_KEPT_READINGS)  # each judge's own


def view(judge: str, image: Image.Image, key: str = "") -> View:
    """A judge's view of an image, the same one for the same image while it is remembered.

    key: what names the image where that is known, such as its file's hash; else its pixels are hashed.
    """
    if judge not in JUDGES:
        raise ValueError(f"judge {judge!r} is none of {', '.join(JUDGES)}")
    if not key:
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        key = hashlib.sha256(repr(rgb.size).encode() + rgb.tobytes()).hexdigest()
    return _views.get((judge, key), lambda: View(judge, image, key))
