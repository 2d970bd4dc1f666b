"""What the simulated teacher sees: one Scene an image, each thing computed once, when a question first needs it.

Scenes of the last images are kept, by the hash of the file or its pixels, so that many task types can be asked of one
image at the cost of one reading. What was read is kept for longer: it is small, and costs the most.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taskgalaxy_ops.simulator import reading
from taskgalaxy_ops.simulator.memory import Memory, kept
from taskgalaxy_ops.simulator.reading import Segment

SURE = 0.66  # of Segment.sure: what is read less surely is not asked about
COLOURS = ("black", "white", "grey", "red", "orange", "yellow", "green", "teal", "blue", "purple", "pink", "brown")
UNCLEAR = -1  # in maps of colours: between two names

_KEPT = 48  # scenes
_KEPT_READINGS = 2048  # a few KB each
_SMALL = 256  # pixels: longer side of the copy that colours and brightness are measured on
_LEAST_READ = 100  # pixels: a smaller image is not read

_T = TypeVar("_T")


class lazy(Generic[_T]):
    """A property computed once for each object, under the object's own lock (``cached_property`` shares one)."""

    def __init__(self, compute: Callable[[Any], _T]) -> None:
        self._compute, self.__doc__ = compute, compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, scene: Any, owner: type | None = None) -> _T:
        with scene.lock:
            if self._name not in scene.__dict__:
                scene.__dict__[self._name] = self._compute(scene)
            value: _T = scene.__dict__[self._name]
            return value

    def __set__(self, scene: Any, value: _T) -> None:  # a data descriptor: reads always pass the lock
        raise AttributeError(self._name)


class Row:
    """Segments side by side at one height, from left to right."""

    def __init__(self, segments: list[Segment]) -> None:
        self.segments = sorted(segments, key=lambda s: s.left)
        self.text = " ".join(s.text for s in self.segments)
        self.sure = min(s.sure for s in segments)
        self.left, self.right = min(s.left for s in segments), max(s.right for s in segments)
        self.top, self.bottom = min(s.top for s in segments), max(s.bottom for s in segments)
        self.size = max(s.size for s in segments)  # of capitals, in pixels


class Scene:
    """An image and what has been found in it."""

    def __init__(self, image: Image.Image, key: str = "") -> None:
        self.lock = threading.RLock()
        self.key = key
        self.image = image if image.mode == "RGB" else image.convert("RGB")
        self.width, self.height = image.size

    @lazy
    def rgb(self) -> NDArray[np.uint8]:
        """(height, width, 3)."""
        return np.asarray(self.image)

    @lazy
    def small(self) -> NDArray[np.uint8]:
        """(h, w, 3), at most 256 pixels long; a smaller image as it is. Each pixel is one of the image's, unmixed."""
        copy = self.image.copy()
        copy.thumbnail((_SMALL, _SMALL), Image.Resampling.NEAREST, reducing_gap=None)
        return np.asarray(copy)

    @lazy
    def light(self) -> NDArray[np.float32]:
        """(height, width) luminance, 0 to 255 (ITU-R BT.601)."""
        return np.asarray(self.image.convert("L"), np.float32)

    @lazy
    def hsv(self) -> NDArray[np.float32]:
        """(h, w, 3) of ``small``: hue in degrees, saturation and value 0 to 1."""
        return hsv(self.small)

    @lazy
    def names(self) -> NDArray[np.int8]:
        """(h, w) of ``small``: index in COLOURS, or UNCLEAR."""
        return name_colours(self.hsv)

    @lazy
    def shares(self) -> dict[str, float]:
        """What share of the image each colour covers, largest first; the rest is of no clear colour."""
        counts = np.bincount(self.names[self.names >= 0].ravel(), minlength=len(COLOURS)) / self.names.size
        return {COLOURS[i]: float(counts[i]) for i in np.argsort(-counts, kind="stable") if counts[i]}

    @lazy
    def _read(self) -> tuple[list[Segment], int]:
        if min(self.image.size) < _LEAST_READ:
            return [], 0
        if not self.key:
            return reading.read(self.rgb)
        return _readings.get(self.key, self._read_once)

    def _read_once(self) -> tuple[list[Segment], int]:
        def read() -> dict[str, Any]:
            segments, left_out = reading.read(self.rgb)
            return {"segments": [asdict(each) for each in segments], "left_out": left_out}

        found = kept("teacher", reading.__file__, self.key, read)
        return [Segment(**{**each, "colour": tuple(each["colour"])}) for each in found["segments"]], found["left_out"]

    @property
    def segments(self) -> list[Segment]:
        """All level text that was found, sure or not."""
        return self._read[0]

    @lazy
    def unread(self) -> int:
        """How many texts may be there that were not read: upright ones, and marks of a letter's size on their own."""
        from scipy import ndimage

        if not self.segments:
            return self._read[1]
        light = self.light
        labels, _ = ndimage.label(np.abs(light - ndimage.uniform_filter(light, 31)) > 45)
        sizes = [s.size for s in self.segments]
        count = self._read[1]
        for rows, columns in ndimage.find_objects(labels):
            height, width = rows.stop - rows.start, columns.stop - columns.start
            x, y = (columns.start + columns.stop) / 2, (rows.start + rows.stop) / 2
            if not 0.7 * min(sizes) < height < 1.3 * max(sizes) or not 0.08 * height < width < 1.2 * height:
                continue
            inside = (s.left - 3 <= x <= s.right + 3 and s.top - 4 <= y <= s.bottom + 4 for s in self.segments)
            count += not any(inside)
        return count

    @lazy
    def rows(self) -> list[Row]:
        """The text as lines, from top to bottom."""
        rows: list[list[Segment]] = []
        for segment in self.segments:
            for row in reversed(rows[-4:]):
                other = row[-1]
                overlap = min(segment.bottom, other.bottom) - max(segment.top, other.top)
                if overlap > 0.55 * min(segment.bottom - segment.top, other.bottom - other.top):
                    row.append(segment)
                    break
            else:
                rows.append([segment])
        return sorted((Row(row) for row in rows), key=lambda row: (row.top + row.bottom) / 2)

    @lazy
    def text(self) -> str:
        """All rows, a line each."""
        return "\n".join(row.text for row in self.rows)

    @lazy
    def edges(self) -> NDArray[np.float32]:
        """(h, w) of the small grey copy (smoothed by shrinking): length of the luminance's gradient."""
        copy = self.image.convert("L")
        copy.thumbnail((_SMALL, _SMALL), Image.Resampling.BOX)
        down, right = np.gradient(np.asarray(copy, np.float32))
        length: NDArray[np.float32] = np.hypot(down, right)
        return length

    @lazy
    def flat(self) -> float:
        """Share of pixels that are as light as their right-hand and lower neighbour: high in graphics."""
        light = self.light
        across, down = np.abs(np.diff(light, axis=1))[:-1], np.abs(np.diff(light, axis=0))[:, :-1]
        return float((np.maximum(across, down) == 0).mean())

    @lazy
    def top_colours(self) -> float:
        """Share of pixels within the five most common of 4,096 colours: high in graphics, low in photographs."""
        codes = self.small.astype(np.int32) + 8 >> 4
        keys = (codes[..., 0] * 17 + codes[..., 1]) * 17 + codes[..., 2]
        counts = np.sort(np.unique(keys, return_counts=True)[1])[::-1]
        return float(counts[:5].sum() / counts.sum())

    @lazy
    def graphic(self) -> bool:
        """Whether it was clearly drawn by a computer: flat areas of few colours."""
        return self.flat > 0.5 and self.top_colours > 0.6

    @lazy
    def photo(self) -> bool:
        """Whether it is clearly a photograph; many images are neither clearly one nor the other."""
        if self.flat > 0.3 or len(self.segments) > 7:
            return False
        return self.top_colours < 0.5 or (self.grey and self.top_colours < 0.95 and len(np.unique(self.light)) > 150)

    @lazy
    def grey(self) -> bool:
        """Whether there are only shades of grey."""
        pixels = self.small.astype(np.int16)
        return float(np.percentile(pixels.max(axis=2) - pixels.min(axis=2), 99.5)) <= 6

    @lazy
    def classes(self) -> list[tuple[int, float]]:
        """The ten likeliest ImageNet classes (index, probability), likeliest first."""
        from taskgalaxy_ops.models.encoders import conse

        likely, shares = conse.likeliest(conse.classifier().probabilities(self.image))
        return [(int(c), float(p)) for c, p in zip(likely, shares, strict=True)]


def hsv(rgb: NDArray[Any]) -> NDArray[np.float32]:
    """(…, 3) of 0 to 255 as hue in degrees, saturation and value 0 to 1."""
    scaled = rgb.astype(np.float32) / 255
    high, low = scaled.max(axis=-1), scaled.min(axis=-1)
    span = np.where(high > low, high - low, 1)
    red, green, blue = scaled[..., 0], scaled[..., 1], scaled[..., 2]
    hue = np.select(
        [high == low, high == red, high == green],
        [np.zeros_like(high), (green - blue) / span % 6, (blue - red) / span + 2],
        (red - green) / span + 4,
    )
    saturation = (high - low) / np.where(high > 0, high, 1)
    return np.stack([hue * 60, saturation, high], axis=-1).astype(np.float32)


def name_colours(of: NDArray[np.float32]) -> NDArray[np.int8]:
    """The colour's index in COLOURS for (…, 3) of ``hsv``; UNCLEAR where two people might name it differently."""
    hue, saturation, value = of[..., 0], of[..., 1], of[..., 2]
    vivid = (saturation > 0.3) & (value > 0.28)
    rules = {
        "black": value < 0.16,
        "white": (saturation < 0.035) & (value > 0.95),
        "grey": (saturation < 0.09) & (value > 0.25) & (value < 0.82),
        "red": vivid & ((hue < 11) | (hue > 349)) & (saturation > 0.62) & (value > 0.68),
        "orange": vivid & (hue > 19) & (hue < 38) & (saturation > 0.65) & (value > 0.82),
        "brown": (hue > 6) & (hue < 38) & (saturation > 0.35) & (saturation < 0.8) & (value > 0.2) & (value < 0.62),
        "yellow": vivid & (hue > 47) & (hue < 64) & (saturation > 0.45) & (value > 0.82),
        "green": vivid & (hue > 82) & (hue < 156),
        "teal": vivid & (hue > 170) & (hue < 189) & (saturation > 0.5) & (value < 0.7),
        "blue": vivid & (hue > 202) & (hue < 248) & (saturation > 0.4) & (value > 0.35),
        "purple": vivid & (hue > 262) & (hue < 298) & (value < 0.86),
        "pink": vivid & (hue > 312) & (hue < 344) & (value > 0.75),
    }
    names = np.full(hue.shape, UNCLEAR, np.int8)
    for colour, rule in rules.items():
        names[rule] = COLOURS.index(colour)
    return names


def colour_name(rgb: tuple[int, int, int] | NDArray[Any]) -> str | None:
    """The name of one colour (0 to 255 each), None if it has no clear one."""
    index = int(name_colours(hsv(np.asarray(rgb)[None]))[0])
    return COLOURS[index] if index != UNCLEAR else None


_scenes: Memory[str, Scene] = Memory(_KEPT)
_readings: Memory[str, tuple[list[Segment], int]] = Memory(_KEPT_READINGS)


def scene(image: Image.Image, key: str = "") -> Scene:
    """The image's scene, shared by all who ask for the same image. Safe to call from several threads at once.

    key: what names the image where that is known, such as its file's hash; else its pixels are hashed.
    """
    key = key or pixels_key(image)
    return _scenes.get(key, lambda: Scene(image, key))


def pixels_key(image: Image.Image) -> str:
    """A hash of size, mode and pixels."""
    return hashlib.sha256(repr((image.size, image.mode)).encode() + image.tobytes()).hexdigest()
