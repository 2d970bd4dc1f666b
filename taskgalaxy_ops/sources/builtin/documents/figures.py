"""Figures to reason about: clocks, shapes, angles, sums, patterns, gauges, boards."""

from __future__ import annotations

import math
from random import Random

from taskgalaxy_ops.sources.builtin.documents import words
from taskgalaxy_ops.sources.builtin.documents.canvas import Drawn, Look, Point, Sheet, hsl
from taskgalaxy_ops.sources.builtin.documents.drawings import COLOURS

_ROMAN = ("XII", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI")
_CLOCKS = (  # rim, face, ink
    ("#222222", "#ffffff", "#111111"),
    ("#8a5a2b", "#fbf5e6", "#2b1a0a"),
    ("#c0392b", "#ffffff", "#111111"),
    ("#f0f0f0", "#22303c", "#ffffff"),
    ("#2c5f8a", "#f4f9ff", "#0d2233"),
)
_SHAPES = ("circle", "square", "triangle", "star", "hexagon", "diamond")


def shape(sheet: Sheet, kind: str, x: float, y: float, size: float, fill: str) -> None:
    """A filled shape about a point; ``size`` is about half its width."""
    if kind == "circle":
        return sheet.circle(x, y, size, fill)
    if kind == "square":
        return sheet.box(x - size * 0.88, y - size * 0.88, x + size * 0.88, y + size * 0.88, fill)
    corners = {"triangle": 3, "star": 10, "hexagon": 6, "diamond": 4}[kind]
    points = []
    for corner in range(corners):
        reach = size * (0.45 if kind == "star" and corner % 2 else 1.05)
        angle = 2 * math.pi * corner / corners
        points.append((x + reach * math.sin(angle), y - reach * math.cos(angle)))
    return sheet.polygon(points, fill)


def clock_face(r: Random) -> Drawn:
    """A round clock."""
    look = Look.of(r)
    side = r.randrange(560, 721, 20)
    wall = hsl(r.randrange(360), r.randint(15, 55), r.randint(60, 88))
    sheet = Sheet(side + r.randrange(0, 121, 20), side + 90, look, wall)
    x, y, reach = sheet.width / 2, side / 2 + 5, side * 0.43
    rim, face, ink = r.choice(_CLOCKS)
    sheet.circle(x, y, reach, face, rim, 16)
    for tick in range(60):
        angle = math.pi * tick / 30
        inner = 0.86 if tick % 5 == 0 else 0.91
        ends = [(x + reach * share * math.sin(angle), y - reach * share * math.cos(angle)) for share in (inner, 0.94)]
        sheet.line(ends, ink, 4 if tick % 5 == 0 else 1.5)
    roman = r.random() < 0.3
    names = _ROMAN if roman else ("12", *map(str, range(1, 12)))
    for number, name in enumerate(names):
        angle = math.pi * number / 6
        place = (x + reach * 0.74 * math.sin(angle), y - reach * 0.74 * math.cos(angle))
        sheet.text(*place, name, round(reach * (0.11 if roman else 0.14)), bold=True, fill=ink, anchor="mm")
    hour, minute = r.randint(0, 11), r.randrange(0, 60, 5)
    hands = (((hour + minute / 60) / 12, 0.48, 12), (minute / 60, 0.66, 7))
    for turn, length, width in hands:
        angle = 2 * math.pi * turn
        sheet.line([(x, y), (x + reach * length * math.sin(angle), y - reach * length * math.cos(angle))], ink, width)
    sheet.circle(x, y, 13, rim if rim != "#f0f0f0" else ink)
    town = r.choice(words.TOWNS)
    sheet.text(x, sheet.height - 48, town, 30, bold=True, fill="#1a1a1a", anchor="mm")
    time = f"{hour or 12}:{minute:02}"
    return sheet.done(time=time, hour=hour or 12, minute=minute, numerals="Roman" if roman else "Arabic", town=town)


def coloured_shapes(r: Random) -> Drawn:
    """Shapes of several kinds, colours and sizes, none touching."""
    look = Look.of(r)
    columns, rows = r.randint(3, 5), r.randint(2, 4)
    cell = r.randint(150, 190)
    sheet = Sheet(
        max(520, columns * cell), max(500, rows * cell), look, r.choice(("#ffffff", "#f2f2f2", "#fdf8ec", "#e9f1f7"))
    )
    wide, tall = sheet.width / columns, sheet.height / rows
    places = [(column, row) for row in range(rows) for column in range(columns)]
    colours, kinds = r.sample(list(COLOURS), r.randint(3, 5)), r.sample(_SHAPES, r.randint(2, 4))
    items = []
    for column, row in sorted(r.sample(places, r.randint(4, max(5, len(places) - 2))), key=lambda p: (p[1], p[0])):
        kind, colour, size = r.choice(kinds), r.choice(colours), r.choice((34, 48, 62))
        x = wide * (column + 0.5) + r.uniform(-10, 10)
        y = tall * (row + 0.5) + r.uniform(-10, 10)
        shape(sheet, kind, x, y, size, COLOURS[colour])
        items.append({"shape": kind, "colour": colour, "x": round(x), "y": round(y), "radius": size})
    counts = {f"{colour} {kind}": sum(i["colour"] == colour and i["shape"] == kind for i in items)
              for colour in colours for kind in kinds}  # fmt: skip
    return sheet.done(items=items, number=len(items), counts={name: count for name, count in counts.items() if count})


def pattern_puzzle(r: Random) -> Drawn:
    """A row that repeats; what comes next?"""
    look, size = Look.of(r), r.choice((26, 28, 30))
    sheet = Sheet(r.randrange(900, 1001, 20), r.randrange(500, 541, 20), look)
    numbers = r.random() < 0.5
    if numbers:
        first, step, rule = r.randint(1, 12), r.randint(2, 9), r.choice(("add", "add", "double", "subtract"))
        row = [first]
        for _ in range(5):
            row.append(row[-1] + step if rule == "add" else row[-1] * 2 if rule == "double" else row[-1] - step)
        if rule == "subtract":
            row = [value + 5 * step + first for value in row]
        shown = [str(value) for value in row]
        told = f"{rule} {step}" if rule != "double" else "double"
    else:
        unit = [(r.choice(list(COLOURS)), kind) for kind in r.sample(_SHAPES, r.randint(2, 3))]
        shown = [" ".join(unit[number % len(unit)]) for number in range(6)]
        told = f"the {len(unit)} shapes repeat"
    title = "What comes next?"
    sheet.text(sheet.width / 2, 90, title, size + 14, bold=True, fill=look.accent, anchor="mm")
    cell = (sheet.width - 80) / 6
    for number, name in enumerate(shown):
        x, y = 40 + cell * (number + 0.5), 280
        last = number == 5
        sheet.box(x - cell * 0.45, y - cell * 0.45, x + cell * 0.45, y + cell * 0.45,
                  look.soft if last else "#ffffff", outline=look.accent, line=3, radius=10)  # fmt: skip
        if last or numbers:
            sheet.text(x, y, "?" if last else name, size + 8, bold=True, anchor="mm", width=cell * 0.8)
        else:
            colour, kind = name.split()
            shape(sheet, kind, x, y, cell * 0.26, COLOURS[colour])
    hint = f"Puzzle {r.randint(1, 99)} of the {r.choice(words.TOWNS)} quiz"
    sheet.text(sheet.width / 2, sheet.height - 70, hint, size - 4, anchor="mm")
    return sheet.done(title=title, shown=shown[:5], answer=shown[5], rule=told, hint=hint)


def blackboard(r: Random) -> Drawn:
    """Sums on a school board, one of them perhaps wrong."""
    look = Look.of(r, ("sans", "serif", "stix", "mono"))
    size = r.choice((34, 36, 38))
    board, frame = r.choice((("#23402f", "#8a5a2b"), ("#2b2f36", "#6b4a2b"), ("#1f3d3a", "#a9763f")))
    sums = []
    for _ in range(r.randint(3, 5)):
        kind = r.choice("+-×÷")
        a, b = (r.randint(2, 12), r.randint(2, 12)) if kind in "×÷" else (r.randint(12, 99), r.randint(2, 60))
        if kind == "÷":
            a *= b
        if kind == "-" and b > a:
            a, b = b, a
        right = {"+": a + b, "-": a - b, "×": a * b, "÷": a // b if b else 0}[kind]
        written = right + (r.choice((-2, -1, 1, 2, 10)) if r.random() < 0.3 else 0)
        sums.append({"sum": f"{a} {kind} {b}", "written": written, "result": right, "correct": written == right})
    sheet = Sheet(r.randrange(700, 841, 20), 150 + 84 * len(sums) + 70, look, frame)
    sheet.box(26, 26, sheet.width - 26, sheet.height - 26, board)
    title = f"{r.choice(words.WEEKDAYS)}: {r.choice(('Sums', 'Homework', 'Practice', 'Test'))}"
    sheet.text(70, 84, title, size - 6, fill="#f5e9a9", anchor="lm")
    for number, item in enumerate(sums):
        y = 172 + 84 * number
        sheet.text(70, y, f"{chr(97 + number)})", size - 4, fill="#d8d8d8", anchor="lm")
        sheet.text(140, y, f"{item['sum']} = {item['written']}", size, fill="#fafafa", anchor="lm")
    sheet.box(sheet.width - 190, sheet.height - 34, sheet.width - 110, sheet.height - 22, "#ffffff", radius=4)
    return sheet.done(title=title, sums=sums, number=len(sums), wrong=[i["sum"] for i in sums if not i["correct"]])


def geometry_figure(r: Random) -> Drawn:
    """A triangle, rectangle or circle with its measures."""
    look, size = Look.of(r, ("sans", "serif", "stix")), r.choice((24, 26, 28))
    sheet = Sheet(r.randrange(680, 801, 20), r.randrange(540, 621, 20), look)
    width, height = sheet.width, sheet.height
    kind, unit = r.choice(("right triangle", "rectangle", "circle", "triangle")), r.choice(("cm", "m", "mm"))
    fill = hsl(r.randrange(360), 55, 84)
    title = f"Figure {r.randint(1, 40)}"
    sheet.text(50, 50, title, size, bold=True, anchor="lm")
    left, right = width * r.uniform(0.19, 0.3), width * r.uniform(0.68, 0.8)
    top, bottom = r.uniform(95, 140), height - r.uniform(85, 130)
    if kind == "right triangle":
        a, b, c = r.choice(((3, 4, 5), (6, 8, 10), (5, 12, 13), (8, 15, 17), (9, 12, 15)))
        corners: list[Point] = [(left, top), (left, bottom), (right, bottom)]
        sheet.polygon(corners, fill, look.ink, 4)
        sheet.box(left + 2, bottom - 26, left + 28, bottom - 2, outline=look.ink, line=2)
        sheet.text(left - 16, (top + bottom) / 2, f"{a} {unit}", size, anchor="rm")
        sheet.text((left + right) / 2, bottom + 36, f"{b} {unit}", size, anchor="mm")
        sheet.text((left + right) / 2 + 16, (top + bottom) / 2 - 24, f"{c} {unit}", size, anchor="lm")
        facts = {"sides": [a, b, c], "area": a * b / 2, "perimeter": a + b + c}
    elif kind == "rectangle":
        a, b = r.randint(6, 30), r.randint(2, 20)
        sheet.box(left, top + 20, right, bottom - 20, fill, outline=look.ink, line=4)
        sheet.text((left + right) / 2, bottom + 20, f"{a} {unit}", size, anchor="mm")
        sheet.text(left - 16, (top + bottom) / 2, f"{b} {unit}", size, anchor="rm")
        facts = {"sides": [a, b], "area": a * b, "perimeter": 2 * (a + b)}
    elif kind == "circle":
        a = r.randint(2, 30)
        x, y, reach = (left + right) / 2, (top + bottom) / 2, (bottom - top) / 2
        sheet.circle(x, y, reach, fill, look.ink, 4)
        sheet.line([(x, y), (x + reach, y)], look.ink, 3)
        sheet.circle(x, y, 6, look.ink)
        sheet.text(x + reach / 2, y - 26, f"{a} {unit}", size, anchor="mm")
        facts = {"radius": a, "diameter": 2 * a, "area": round(math.pi * a * a, 2)}
    else:
        a, b = r.randint(35, 75), r.randint(35, 75)
        base = right - left
        tan_a, tan_b = math.tan(math.radians(a)), math.tan(math.radians(b))
        tip_x, tip_y = base * tan_b / (tan_a + tan_b), base * tan_a * tan_b / (tan_a + tan_b)
        share = min(1.0, (bottom - top) / tip_y)
        right = left + base * share
        tip = (left + tip_x * share, bottom - tip_y * share)
        sheet.polygon([(left, bottom), (right, bottom), tip], fill, look.ink, 4)
        sheet.text(left - 14, bottom + 8, f"{a}°", size, anchor="rm")
        sheet.text(right + 14, bottom + 8, f"{b}°", size, anchor="lm")
        sheet.text(tip[0] + 22, tip[1] - 10, "x", size, bold=True, anchor="lm")
        facts = {"angles": [a, b], "x": 180 - a - b}
    if kind == "triangle":
        unit = "degrees"
    return sheet.done(title=title, figure=kind, unit=unit, **facts)


def thermometers(r: Random) -> Drawn:
    """Thermometers of several towns, to be read off."""
    look, size = Look.of(r), r.choice((20, 21, 22))
    towns = {town: r.randrange(-10, 41, 2) for town in r.sample(words.TOWNS, r.randint(2, 4))}
    column, paper = r.randint(170, 220), hsl(r.randrange(360), 45, r.randint(74, 97))
    sheet = Sheet(max(520, column * len(towns) + 60), r.randrange(600, 741, 20), look, paper)
    top, bottom = 130.0, sheet.height - 150.0
    sheet.text(sheet.width / 2, 54, f"Temperatures in {r.choice(words.MONTHS)}", size + 8, bold=True, anchor="mm")
    colour = r.choice(("#d62828", "#c2185b", "#1f5fb4"))
    start = (sheet.width - column * len(towns)) / 2
    for number, (town, degrees) in enumerate(towns.items()):
        x = start + column * (number + 0.5)
        sheet.box(x - 16, top - 22, x + 16, bottom + 30, "#ffffff", outline="#555555", line=2, radius=16)
        sheet.circle(x, bottom + 40, 30, colour, "#555555", 2)
        level = bottom - (bottom - top) * (degrees + 10) / 50
        sheet.box(x - 8, level, x + 8, bottom + 30, colour)
        for mark in range(-10, 41, 2):
            y = bottom - (bottom - top) * (mark + 10) / 50
            sheet.line([(x + 18, y), (x + (32 if mark % 10 == 0 else 25), y)], "#333333", 2)
            if mark % 10 == 0:
                sheet.text(x + 38, y, str(mark), 17, anchor="lm")
        sheet.text(x, sheet.height - 50, town, size, bold=True, anchor="mm", width=column - 16)
    warm = max(towns, key=towns.__getitem__)
    return sheet.done(degrees_celsius=towns, warmest=[town for town in towns if towns[town] == towns[warm]])


def noughts_and_crosses(r: Random) -> Drawn:
    """A board of three by three, some fields taken."""
    look = Look.of(r)
    side = r.randrange(520, 641, 20)
    sheet = Sheet(side, side + 90, look)
    board = [["" for _ in range(3)] for _ in range(3)]
    fields = r.sample([(row, column) for row in range(3) for column in range(3)], r.randint(4, 8))
    cell, left, top = (side - 100) / 3, 50.0, 100.0
    colours = r.sample(["red", "blue", "green", "orange", "purple", "black"], 2)
    for line in (1, 2):
        sheet.line([(left + cell * line, top), (left + cell * line, top + 3 * cell)], look.ink, 6)
        sheet.line([(left, top + cell * line), (left + 3 * cell, top + cell * line)], look.ink, 6)
    for number, (row, column) in enumerate(fields):
        x, y, reach = left + cell * (column + 0.5), top + cell * (row + 0.5), cell * 0.3
        board[row][column] = "XO"[number % 2]
        colour = COLOURS[colours[number % 2]]
        if number % 2:
            sheet.circle(x, y, reach, None, colour, 11)
        else:
            for turn in (-1, 1):
                sheet.line([(x - reach, y - turn * reach), (x + reach, y + turn * reach)], colour, 11)
    rows = [*board, *([board[i][j] for i in range(3)] for j in range(3)), [board[i][i] for i in range(3)],
            [board[i][2 - i] for i in range(3)]]  # fmt: skip
    winners = sorted({row[0] for row in rows if row[0] and len(set(row)) == 1})
    title = f"Round {r.randint(1, 20)}: {r.choice(words.FIRST)}'s game"
    sheet.text(side / 2, 50, title, 26, bold=True, anchor="mm", width=side - 60)
    return sheet.done(title=title, board=board, crosses=sum(row.count("X") for row in board), winners=winners,
                      noughts=sum(row.count("O") for row in board), empty=sum(row.count("") for row in board),
                      colours={"X": colours[0], "O": colours[1]})  # fmt: skip
