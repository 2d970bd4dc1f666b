"""A sheet to draw on: shapes with smooth edges, and text whose place is known.

The box of each text is measured and kept: it is the truth about what can be read where, and by it the generator rejects
a drawing on which two texts touch or one leaves the sheet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image as Pillow
from PIL import ImageColor, ImageDraw, ImageFont

SCALE = 2  # drawn twice as large and then reduced: smooth edges
SMALLEST = 16  # pixels: smaller text is hard to read
FAMILIES: Mapping[str, tuple[str, str]] = {
    "sans": ("DejaVuSans", "DejaVuSans-Bold"),
    "serif": ("DejaVuSerif", "DejaVuSerif-Bold"),
    "mono": ("DejaVuSansMono", "DejaVuSansMono-Bold"),
    "stix": ("STIXGeneral", "STIXGeneralBol"),
    "aileron": ("", ""),  # Pillow's own font; bold is a stroke
}
Box = tuple[float, float, float, float]
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A finished document: its picture, the facts that it shows, and each line of text with its box in pixels."""

    image: Pillow.Image
    truth: dict[str, Any]
    texts: list[tuple[str, Box]]

    def legible(self) -> bool:
        """Whether no text touches another or leaves the picture."""
        width, height = self.image.size
        boxes = [box for _, box in self.texts]
        inside = all(x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height for x0, y0, x1, y1 in boxes)
        return inside and not any(
            a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
            for number, a in enumerate(boxes)
            for b in boxes[:number]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The fonts and colours of one document."""

    family: str
    paper: str
    ink: str
    soft: str  # a tint of the accent, for backgrounds
    accent: str
    second: str

    @classmethod
    def of(cls, r: Random, families: Sequence[str] = ("sans", "serif", "stix", "aileron")) -> Look:
        """A random look, with dark ink on light paper."""
        hue = r.randrange(360)
        return cls(
            family=r.choice(families),
            paper=r.choice(("#ffffff", "#ffffff", "#fbfaf5", hsl(hue, 30, 97), hsl(r.randrange(360), 25, 95))),
            ink=r.choice(("#1a1a1a", "#222831", "#2b2b2b", hsl(hue, 40, 15))),
            soft=hsl(hue, r.randint(35, 70), r.randint(86, 92)),
            accent=hsl(hue, r.randint(50, 80), r.randint(28, 40)),
            second=hsl(hue + r.choice((120, 150, 180, 210, 240)), 65, r.randint(30, 40)),
        )


def hsl(hue: float, saturation: float, lightness: float) -> str:
    """A colour as #rrggbb."""
    red, green, blue = ImageColor.getrgb(f"hsl({hue % 360:.0f},{saturation:.0f}%,{lightness:.0f}%)")[:3]
    return f"#{red:02x}{green:02x}{blue:02x}"


def rounded(box: Box) -> Box:
    """A box to a tenth of a pixel."""
    x0, y0, x1, y1 = box
    return round(float(x0), 1), round(float(y0), 1), round(float(x1), 1), round(float(y1), 1)


def font_file(name: str) -> Path:
    """One of the fonts that matplotlib brings."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"


@lru_cache(maxsize=256)
def _font(family: str, bold: bool, size: int) -> ImageFont.FreeTypeFont:
    if family == "aileron":
        font = ImageFont.load_default(size)
        if not isinstance(font, ImageFont.FreeTypeFont):  # a Pillow without FreeType
            return _font("sans", bold, size)
        return font
    larger = 1.12 if family == "stix" else 1.0  # its letters are small for their size
    return ImageFont.truetype(str(font_file(FAMILIES[family][bold])), round(size * larger))


class Sheet:
    """Coordinates, sizes and widths are in pixels of the finished picture, which is at least 500 by 500."""

    def __init__(self, width: int, height: int, look: Look, paper: str | None = None) -> None:
        width, height = max(500, width), max(500, height)
        self.width, self.height, self.look = width, height, look
        self.image = Pillow.new("RGB", (width * SCALE, height * SCALE), paper or look.paper)
        self.draw = ImageDraw.Draw(self.image)
        self.texts: list[tuple[str, Box]] = []

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: int = 20,
        *,
        bold: bool = False,
        fill: str | None = None,
        anchor: str = "la",
        width: float | None = None,
        family: str | None = None,
    ) -> Box:
        """Write one line, made smaller (to no less than 16 pixels) if it is wider than ``width``; returns its box.

        ``anchor`` as in Pillow: l, m, r for left, middle, right and a, m, s for ascender, middle, baseline.
        """
        family = family or self.look.family
        if family == "aileron" and not text.isascii():  # the font has ASCII only
            family = "sans"
        while width is not None and size > SMALLEST and self.length(text, size, bold=bold, family=family) > width:
            size -= 1
        font = _font(family, bold, size * SCALE)
        stroke = max(1, size // 16) if bold and family == "aileron" else 0
        place = (x * SCALE, y * SCALE)
        self.draw.text(place, text, fill or self.look.ink, font, anchor, stroke_width=stroke)
        x0, y0, x1, y1 = self.draw.textbbox(place, text, font, anchor, stroke_width=stroke)
        self.texts.append((text, rounded((x0 / SCALE, y0 / SCALE, x1 / SCALE, y1 / SCALE))))
        return self.texts[-1][1]

    def upright(self, x: float, y: float, text: str, size: int = 20, *, fill: str | None = None) -> Box:
        """Write one line from bottom to top, its middle at (x, y); returns its box."""
        font = _font("sans" if self.look.family == "aileron" else self.look.family, False, size * SCALE)
        wide, tall = round(font.getlength(text)), round(size * SCALE * 1.3)
        mask = Pillow.new("L", (wide, tall))
        ImageDraw.Draw(mask).text((0, tall / 2), text, 255, font, "lm")
        mask = mask.transpose(Pillow.Transpose.ROTATE_90)
        left, top = round(x * SCALE - tall / 2), round(y * SCALE - wide / 2)
        self.image.paste(fill or self.look.ink, (left, top), mask)
        box = rounded((left / SCALE, top / SCALE, (left + tall) / SCALE, (top + wide) / SCALE))
        self.texts.append((text, box))
        return box

    def tint(self, x: float, y: float, radius: float, fill: str, opacity: float) -> None:
        """A transparent circle. opacity: 0..1."""
        mask = Pillow.new("L", self.image.size)
        place = [side * SCALE for side in (x - radius, y - radius, x + radius, y + radius)]
        ImageDraw.Draw(mask).ellipse(place, round(255 * opacity))
        self.image.paste(fill, (0, 0), mask)

    def length(self, text: str, size: int, *, bold: bool = False, family: str | None = None) -> float:
        """The width of a line of text in pixels."""
        return _font(family or self.look.family, bold, size * SCALE).getlength(text) / SCALE

    def paragraph(
        self,
        x: float,
        y: float,
        text: str,
        width: float,
        size: int = 20,
        *,
        bold: bool = False,
        fill: str | None = None,
        leading: float = 1.4,
        centre: bool = False,
    ) -> float:
        """Write words in lines of at most ``width`` pixels from the top ``y``; returns the top of the next line."""
        for line in self.wrap(text, width, size, bold=bold):
            self.text(
                x + width / 2 if centre else x, y, line, size, bold=bold, fill=fill, anchor="ma" if centre else "la"
            )
            y += size * leading
        return y

    def wrap(self, text: str, width: float, size: int, *, bold: bool = False) -> list[str]:
        """The words of a text in lines of at most ``width`` pixels."""
        lines: list[str] = []
        for word in text.split():
            longer = f"{lines[-1]} {word}" if lines else word
            if lines and self.length(longer, size, bold=bold) <= width:
                lines[-1] = longer
            else:
                lines.append(word)
        return lines

    def box(
        self, x0: float, y0: float, x1: float, y1: float, fill: str | None = None, *, outline: str | None = None,
        line: float = 1, radius: float = 0,
    ) -> None:  # fmt: skip
        """A rectangle, its corners rounded by ``radius``."""
        corners = (x0 * SCALE, y0 * SCALE, x1 * SCALE - 1, y1 * SCALE - 1)
        width = round(line * SCALE) if outline else 0
        self.draw.rounded_rectangle(corners, radius * SCALE, fill, outline, width)

    def line(self, points: Sequence[Point], fill: str | None = None, width: float = 1) -> None:
        """A line through points."""
        scaled = [(x * SCALE, y * SCALE) for x, y in points]
        self.draw.line(scaled, fill or self.look.ink, round(width * SCALE), joint="curve")

    def polygon(
        self, points: Sequence[Point], fill: str | None = None, outline: str | None = None, line: float = 1
    ) -> None:
        """A closed shape."""
        scaled = [(x * SCALE, y * SCALE) for x, y in points]
        self.draw.polygon(scaled, fill)
        if outline:
            self.draw.line([*scaled, scaled[0], scaled[1]], outline, round(line * SCALE), joint="curve")

    def circle(
        self, x: float, y: float, radius: float, fill: str | None = None, outline: str | None = None, line: float = 1
    ) -> None:
        """A circle about a point."""
        self.ellipse(x - radius, y - radius, x + radius, y + radius, fill, outline, line)

    def ellipse(
        self, x0: float, y0: float, x1: float, y1: float, fill: str | None = None, outline: str | None = None,
        line: float = 1,
    ) -> None:  # fmt: skip
        """An ellipse within a box."""
        self.draw.ellipse(
            (x0 * SCALE, y0 * SCALE, x1 * SCALE, y1 * SCALE), fill, outline, round(line * SCALE) if outline else 0
        )

    def arrow(self, start: Point, end: Point, fill: str | None = None, width: float = 2, head: float = 12) -> None:
        """A line with a point at its end."""
        (x0, y0), (x1, y1) = start, end
        length = max(1.0, ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5)
        ux, uy = (x1 - x0) / length, (y1 - y0) / length
        neck = (x1 - ux * head, y1 - uy * head)
        self.line([start, neck], fill, width)
        side = head * 0.5
        self.polygon(
            [end, (neck[0] - uy * side, neck[1] + ux * side), (neck[0] + uy * side, neck[1] - ux * side)],
            fill or self.look.ink,
        )

    def done(self, **truth: Any) -> Drawn:
        """The finished picture with its texts. truth: the facts that it shows."""
        return Drawn(self.image.reduce(SCALE), truth, self.texts)
