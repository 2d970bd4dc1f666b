"""Pictures whose parts carry names or letters: a plant, a house, a fish, a volcano, a bicycle."""

from __future__ import annotations

import math
from random import Random

from taskgalaxy_ops.sources.builtin.documents.canvas import Drawn, Look, Point, Sheet, hsl


def labelled_diagram(r: Random) -> Drawn:
    """A picture whose parts carry names, or letters to be named."""
    look, size = Look.of(r), r.choice((20, 21, 22))
    sheet = Sheet(r.randrange(820, 921, 20), r.randrange(640, 701, 20), look)
    draw = r.choice((_plant, _house, _fish, _volcano, _bicycle))
    middle, ground = sheet.width / 2, sheet.height * 0.55
    title, parts = draw(sheet, r, middle, ground)
    sheet.text(middle, 46, title, size + 10, bold=True, fill=look.accent, anchor="mm")
    shown = r.sample(list(parts), len(parts) - r.randint(0, 1))
    letters = r.random() < 0.35
    for side in (-1, 1):
        own = sorted((n for n in shown if (parts[n][0] >= middle) == (side > 0)), key=lambda name: parts[name][1])
        for number, name in enumerate(own):
            y = 130 + (sheet.height - 210) * (number + 0.5) / len(own)
            x = middle + side * (sheet.width / 2 - 145)
            sheet.line([parts[name], (x, y)], "#333333", 2)
            sheet.circle(*parts[name], 5, "#333333")
            text = chr(65 + shown.index(name)) if letters else name
            sheet.text(x + side * 8, y, text, size + 4 * letters, bold=letters, anchor="lm" if side > 0 else "rm")
    marked = {chr(65 + number): name for number, name in enumerate(shown)} if letters else None
    return sheet.done(title=title, parts=shown, labels="letters" if letters else "names", letters=marked)


_Parts = tuple[str, dict[str, Point]]


def _plant(sheet: Sheet, r: Random, x: float, y: float) -> _Parts:
    petal, soil = hsl(r.choice((0, 45, 280, 320, 210)), 75, 62), y + 130
    sheet.box(x - 190, soil, x + 190, soil + 130, "#b58a5a", radius=8)
    sheet.line([(x, y - 130), (x, soil)], "#3f8f3a", 10)
    for dx in (-60, -20, 25, 65):
        sheet.line([(x, soil), (x + dx, soil + 95)], "#efe0c0", 5)
    sheet.ellipse(x - 120, y + 10, x - 4, y + 58, "#55a84c")
    sheet.ellipse(x + 4, y - 30, x + 120, y + 18, "#55a84c")
    for turn in range(8):
        angle = math.pi * turn / 4
        sheet.circle(x + 52 * math.sin(angle), y - 190 + 52 * math.cos(angle), 30, petal)
    sheet.circle(x, y - 190, 34, "#f2c230")
    return "Parts of a plant", {
        "Petal": (x + 52, y - 190),
        "Leaf": (x - 70, y + 34),
        "Stem": (x + 2, y + 80),
        "Roots": (x - 30, soil + 48),
        "Soil": (x + 140, soil + 80),
    }


def _house(sheet: Sheet, r: Random, x: float, y: float) -> _Parts:
    wall, roof = hsl(r.randrange(30, 60), 50, 82), hsl(r.choice((5, 15, 200, 350)), 50, 42)
    sheet.box(x + 75, y - 175, x + 110, y - 80, "#8a5040")
    sheet.polygon([(x - 200, y - 60), (x, y - 200), (x + 200, y - 60)], roof)
    sheet.box(x - 170, y - 60, x + 170, y + 150, wall, outline="#555555", line=2)
    sheet.box(x - 35, y + 30, x + 35, y + 150, "#7a4a28")
    sheet.circle(x + 22, y + 95, 5, "#f0d060")
    for left in (x - 140, x + 70):
        sheet.box(left, y - 20, left + 70, y + 50, "#a9d8f0", outline="#ffffff", line=5)
    sheet.box(x - 230, y + 150, x + 230, y + 175, "#79a85a")
    return "Parts of a house", {
        "Roof": (x - 70, y - 110),
        "Chimney": (x + 92, y - 150),
        "Window": (x + 105, y + 15),
        "Door": (x + 8, y + 60),
        "Wall": (x - 150, y + 100),
        "Lawn": (x + 190, y + 162),
    }


def _fish(sheet: Sheet, r: Random, x: float, y: float) -> _Parts:
    body, fin = hsl(r.randrange(360), 60, 60), hsl(r.randrange(360), 60, 45)
    sheet.polygon([(x + 130, y), (x + 215, y - 75), (x + 215, y + 75)], fin)
    sheet.polygon([(x - 60, y - 80), (x + 20, y - 160), (x + 80, y - 70)], fin)
    sheet.polygon([(x - 20, y + 80), (x + 30, y + 145), (x + 70, y + 65)], fin)
    sheet.ellipse(x - 190, y - 95, x + 160, y + 95, body)
    sheet.circle(x - 120, y - 22, 17, "#ffffff")
    sheet.circle(x - 122, y - 22, 8, "#111111")
    sheet.line([(x - 70, y - 60), (x - 55, y), (x - 70, y + 60)], fin, 5)
    sheet.line([(x - 185, y + 25), (x - 150, y + 30)], "#333333", 4)
    return "Parts of a fish", {
        "Eye": (x - 120, y - 22),
        "Mouth": (x - 175, y + 27),
        "Gills": (x - 66, y - 48),
        "Tail fin": (x + 185, y),
        "Back fin": (x + 30, y - 115),
        "Belly fin": (x + 28, y + 112),
    }


def _volcano(sheet: Sheet, r: Random, x: float, y: float) -> _Parts:
    rock, lava = hsl(r.randrange(10, 40), 25, r.randint(35, 50)), "#e4471b"
    for dx, dy, reach in ((-40, -185, 42), (20, -200, 52), (75, -180, 38)):
        sheet.circle(x + dx, y + dy, reach, "#b9bec4")
    sheet.polygon([(x - 210, y + 130), (x - 45, y - 105), (x + 45, y - 105), (x + 210, y + 130)], rock)
    sheet.box(x - 230, y + 130, x + 230, y + 215, hsl(30, 30, 30))
    sheet.box(x - 13, y - 105, x + 13, y + 150, lava)
    sheet.ellipse(x - 95, y + 135, x + 95, y + 205, lava)
    sheet.ellipse(x - 46, y - 116, x + 46, y - 92, "#5a2a18")
    sheet.polygon([(x + 20, y - 100), (x + 44, y - 102), (x + 125, y + 40), (x + 92, y + 34)], lava)
    return "Parts of a volcano", {
        "Ash cloud": (x + 25, y - 205),
        "Crater": (x - 18, y - 104),
        "Lava": (x + 80, y - 10),
        "Vent": (x - 2, y + 30),
        "Magma": (x + 45, y + 172),
        "Rock": (x - 120, y + 90),
    }


def _bicycle(sheet: Sheet, r: Random, x: float, y: float) -> _Parts:
    frame = hsl(r.randrange(360), 65, 42)
    back, front, pedal, saddle, head = (
        (x - 130, y + 70),
        (x + 135, y + 70),
        (x - 15, y + 75),
        (x - 55, y - 55),
        (x + 95, y - 50),
    )
    for wheel in (back, front):
        sheet.circle(*wheel, 86, None, "#222222", 9)
        for turn in range(8):
            angle = math.pi * turn / 4
            sheet.line([wheel, (wheel[0] + 80 * math.cos(angle), wheel[1] + 80 * math.sin(angle))], "#9a9a9a", 1.5)
    sheet.line([back, pedal, head, saddle, back], frame, 9)
    sheet.line([saddle, pedal], frame, 9)
    sheet.line([front, head, (head[0] - 10, head[1] - 40), (head[0] + 35, head[1] - 48)], frame, 8)
    sheet.line([saddle, (saddle[0] - 8, saddle[1] - 30)], frame, 8)
    sheet.box(saddle[0] - 45, saddle[1] - 42, saddle[0] + 28, saddle[1] - 26, "#222222", radius=8)
    sheet.circle(*pedal, 22, None, "#555555", 6)
    sheet.line([pedal, (pedal[0] + 20, pedal[1] + 32)], "#555555", 6)
    sheet.box(pedal[0] + 4, pedal[1] + 28, pedal[0] + 40, pedal[1] + 38, "#222222")
    return "Parts of a bicycle", {
        "Saddle": (saddle[0] - 10, saddle[1] - 34),
        "Wheel": (back[0] - 84, back[1]),
        "Handlebar": (head[0] + 32, head[1] - 47),
        "Frame": (x + 30, y - 53),
        "Pedal": (pedal[0] + 24, pedal[1] + 33),
        "Spokes": (front[0] + 50, front[1]),
    }
