"""Tables and what is ruled like one: data tables, timetables, calendars, menus, league tables, nutrition labels."""

from __future__ import annotations

import calendar as days
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from taskgalaxy_ops.sources.builtin.documents import words
from taskgalaxy_ops.sources.builtin.documents.canvas import Drawn, Look, Sheet, hsl


@dataclass(frozen=True, slots=True)
class Ruling:
    """The measures of a table, in pixels."""

    widths: Sequence[float]  # by column
    height: float  # of a row
    size: int  # of its letters
    numbers_from: int = 1  # columns from this one on are set to the right


def grid(sheet: Sheet, r: Random, x: float, y: float, rows: Sequence[Sequence[str]], ruling: Ruling) -> float:
    """Draw a table whose first row is its head, with its left upper corner at (x, y); returns the y of its foot."""
    widths, height, size = ruling.widths, ruling.height, ruling.size
    look, right = sheet.look, x + sum(widths)
    style = r.choice(("zebra", "lines", "boxes"))
    dark_head = r.random() < 0.6
    for number, row in enumerate(rows):
        top = y + number * height
        head = number == 0
        if head:
            sheet.box(x, top, right, top + height, look.accent if dark_head else look.soft)
        elif style == "zebra" and number % 2 == 0:
            sheet.box(x, top, right, top + height, look.soft)
        if style != "zebra":
            sheet.line([(x, top + height), (right, top + height)], "#b0b0b0", 1)
        left = x
        for column, (text, width) in enumerate(zip(row, widths, strict=True)):
            numeric = column >= ruling.numbers_from
            place, anchor = (left + width - 12, "rm") if numeric else (left + 12, "lm")
            fill = "#ffffff" if head and dark_head else None
            if text:
                sheet.text(place, top + height / 2, text, size, bold=head, fill=fill, anchor=anchor, width=width - 22)
            left += width
    foot = y + len(rows) * height
    if style == "boxes":
        edges = [x]
        for width in widths:
            edges.append(edges[-1] + width)
        for edge in edges:
            sheet.line([(edge, y), (edge, foot)], "#b0b0b0", 1)
        sheet.line([(x, y), (right, y)], "#b0b0b0", 1)
    return foot


def data_table(r: Random) -> Drawn:
    """Towns, shops or people by a few numbers each."""
    look, size = Look.of(r), r.choice((18, 19, 20, 22))
    title, first, names, columns = r.choice((
        ("Branches of {brand}", "Town", words.TOWNS, (("Staff", 3, 60), ("Sales", 100, 990), ("Rooms", 2, 40))),
        ("Results of the {town} sports day", "Name", words.FIRST, (("Run", 1, 30), ("Jump", 1, 30), ("Throw", 1, 30))),
        ("Stock list, {brand}", "Item", words.PRODUCTS, (("Stock", 0, 200), ("Ordered", 0, 90), ("Price", 10, 400))),
        ("Harvest in {town}", "Fruit", words.FRUITS, (("2023", 10, 99), ("2024", 10, 99), ("2025", 10, 99))),
        ("Rivers and lakes near {town}", "Place", words.STREETS, (("Depth m", 1, 80), ("Length km", 2, 300))),
    ))  # fmt: skip
    title = words.fill(r, title)
    chosen = r.sample(names, r.randint(5, 9))
    values = {name: {column: r.randint(low, high) for column, low, high in columns} for name in chosen}
    rows = [[first, *(column for column, _, _ in columns)]]
    rows += [[name, *map(str, cells.values())] for name, cells in values.items()]
    widths = [r.randint(190, 240), *([r.randint(130, 160)] * len(columns))]
    height = size * r.uniform(2.0, 2.5)
    sheet = Sheet(round(sum(widths)) + 80, round(110 + height * len(rows)) + 40, look)
    sheet.text(40, 58, title, size + r.choice((6, 8, 10)), bold=True, anchor="lm", width=sheet.width - 80)
    grid(sheet, r, 40, 95, rows, Ruling(widths, height, size))
    return sheet.done(
        title=title, columns=rows[0], rows=values, number_of_rows=len(chosen),
        totals={column: sum(cells[column] for cells in values.values()) for column, _, _ in columns},
    )  # fmt: skip


def league_table(r: Random) -> Drawn:
    """Teams in order of points; points are three a win and one a draw."""
    look, size = Look.of(r), r.choice((18, 20))
    teams = [f"{town} {team}" for town, team in zip(r.sample(words.TOWNS, 8), r.sample(words.TEAMS, 8), strict=True)]
    table = {}
    for team in teams[: r.randint(5, 8)]:
        played = 18
        won = r.randint(2, 14)
        drawn = r.randint(0, played - won)
        table[team] = {"won": won, "drawn": drawn, "lost": played - won - drawn, "points": 3 * won + drawn}
    order = sorted(table, key=lambda team: (-table[team]["points"], -table[team]["won"], team))
    rows = [["", "Team", "W", "D", "L", "Pts"]]
    for place, team in enumerate(order, 1):
        rows.append([str(place), team, *map(str, table[team].values())])
    widths = [60, r.randint(320, 360), 70, 70, 70, 85]
    height = size * r.uniform(2.2, 2.7)
    sheet = Sheet(sum(widths) + 80, round(115 + height * len(rows) + 40), look)
    title = f"{r.choice(('Football', 'Hockey', 'Handball', 'Rugby', 'Water Polo'))} League {r.randint(2018, 2026)}"
    sheet.box(0, 0, sheet.width, 82, look.accent)
    sheet.text(sheet.width / 2, 41, title, size + 12, bold=True, fill="#ffffff", anchor="mm")
    grid(sheet, r, 40, 105, rows, Ruling(widths, height, size, numbers_from=2))
    return sheet.done(title=title, order=order, rows=table, first=order[0], last=order[-1], teams=len(order))


def timetable(r: Random) -> Drawn:
    """Departures of trains or buses, with platforms and delays."""
    size = r.choice((20, 22, 24))
    dark = r.random() < 0.6
    look = Look.of(r, ("sans", "mono", "aileron"))
    paper, ink, accent = (
        (hsl(r.randrange(360), 40, 12), "#f5f5f5", "#ffc933") if dark else (look.paper, look.ink, look.accent)
    )
    kind, stand = r.choice((("trains", "Platform"), ("buses", "Stop"), ("ferries", "Pier")))
    station = r.choice(words.TOWNS)
    minute = r.randint(300, 1200)
    departures = []
    for town in r.sample([town for town in words.TOWNS if town != station], r.randint(5, 8)):
        minute += r.randint(4, 35)
        remark = r.choice(("on time", "on time", "on time", f"{r.randint(3, 40)} min late", "cancelled"))
        departures.append(
            {"time": words.clock(minute), "to": town, "line": f"{r.choice('ABCRS')}{r.randint(1, 89)}",
             "stand": str(r.randint(1, 14)), "remark": remark}
        )  # fmt: skip
    row = size * 2.1
    columns = [40, 150, 250, 480, 610]
    sheet = Sheet(840, round(150 + row * len(departures) + 30), look, paper)
    title = f"Departures of {kind} from {station}"
    sheet.text(40, 45, title, size + 8, bold=True, fill=accent, anchor="lm", width=760)
    for x, head in zip(columns, ("Time", "Line", "To", stand, "Remark"), strict=True):
        sheet.text(x, 105, head, max(16, size - 3), fill=accent, anchor="lm", width=115)
    sheet.line([(40, 125), (800, 125)], accent, 2)
    for number, departure in enumerate(departures):
        y = 125 + row * (number + 0.55)
        late = departure["remark"] != "on time"
        for x, key, width in zip(
            columns, ("time", "line", "to", "stand", "remark"), (100, 90, 215, 60, 200), strict=True
        ):
            fill = ("#ff7a6b" if dark else "#c22f1f") if late and key == "remark" else ink
            sheet.text(x, y, departure[key], size, bold=key == "time", fill=fill, anchor="lm", width=width)
        if number:
            sheet.line([(40, y - row * 0.55), (800, y - row * 0.55)], "#808080", 1)
    return sheet.done(
        title=title, station=station, stand_is_called=stand, departures=departures, number=len(departures),
        cancelled=[departure["to"] for departure in departures if departure["remark"] == "cancelled"],
    )  # fmt: skip


def school_timetable(r: Random) -> Drawn:
    """Lessons by weekday and hour."""
    look, size = Look.of(r), r.choice((17, 18, 19))
    hours = [words.clock(480 + 55 * lesson) for lesson in range(r.randint(4, 6))]
    weekdays = words.WEEKDAYS[:5]
    lessons = {day: [r.choice(words.SUBJECTS) for _ in hours] for day in weekdays}
    colours = {subject: hsl(30 * number + r.randrange(25), 60, 86) for number, subject in enumerate(words.SUBJECTS)}
    cell, height = r.randint(128, 148), r.randint(58, 76)
    sheet = Sheet(100 + 5 * cell + 30, 130 + height * len(hours) + 30, look)
    title = f"Class {r.randint(5, 12)}{r.choice('abcd')}, {r.choice(words.TOWNS)} School"
    sheet.text(30, 48, title, size + 10, bold=True, anchor="lm")
    for column, day in enumerate(weekdays):
        sheet.text(100 + cell * (column + 0.5), 105, day, size, bold=True, anchor="mm", width=cell - 10)
        for number, subject in enumerate(lessons[day]):
            x, y = 100 + column * cell, 130 + number * height
            sheet.box(x + 3, y + 3, x + cell - 3, y + height - 3, colours[subject], radius=6)
            sheet.text(x + cell / 2, y + height / 2, subject, size, anchor="mm", width=cell - 16)
    for number, hour in enumerate(hours):
        sheet.text(88, 130 + (number + 0.5) * height, hour, size, anchor="rm")
    return sheet.done(title=title, hours=hours, lessons=lessons)


def calendar(r: Random) -> Drawn:
    """A month, with some days marked and named below."""
    look, size = Look.of(r), r.choice((20, 22, 24))
    year, month = r.randint(2019, 2028), r.randint(1, 12)
    weeks = days.Calendar().monthdayscalendar(year, month)
    marked = sorted(r.sample(range(1, days.monthrange(year, month)[1] + 1), r.randint(2, 4)))
    names = r.sample(words.EVENTS, len(marked))
    cell_x, cell_y = r.randint(86, 108), r.randint(62, 78)
    sheet = Sheet(7 * cell_x + 60, 170 + cell_y * len(weeks) + 50 + 34 * len(marked), look)
    title = f"{words.MONTHS[month - 1]} {year}"
    sheet.box(0, 0, sheet.width, 90, look.accent)
    sheet.text(sheet.width / 2, 45, title, size + 16, bold=True, fill="#ffffff", anchor="mm")
    for column, weekday in enumerate(words.WEEKDAYS):
        fill = look.second if column > 4 else None
        sheet.text(30 + cell_x * (column + 0.5), 128, weekday[:3], size - 2, bold=True, fill=fill, anchor="mm")
    for row, week in enumerate(weeks):
        for column, day in enumerate(week):
            x, y = 30 + column * cell_x, 155 + row * cell_y
            sheet.box(x, y, x + cell_x, y + cell_y, outline="#b5b5b5")
            if day:
                if day in marked:
                    sheet.circle(x + cell_x / 2, y + cell_y / 2, min(cell_x, cell_y) * 0.42, look.second)
                fill = "#ffffff" if day in marked else look.second if column > 4 else None
                sheet.text(x + cell_x / 2, y + cell_y / 2, str(day), size, fill=fill, anchor="mm")
    y = 155 + cell_y * len(weeks) + 40
    for day, name in zip(marked, names, strict=True):
        sheet.circle(46, y, 9, look.second)
        sheet.text(68, y, f"{day} {title.split()[0]}: {name}", size - 2, anchor="lm")
        y += 34
    return sheet.done(
        title=title, month=title.split()[0], year=year, days=days.monthrange(year, month)[1],
        first_weekday=words.WEEKDAYS[days.weekday(year, month, 1)],
        events=[
            {"day": day, "weekday": words.WEEKDAYS[days.weekday(year, month, day)], "name": name}
            for day, name in zip(marked, names, strict=True)
        ],
    )  # fmt: skip


def menu(r: Random) -> Drawn:
    """A restaurant's dishes with prices, by course."""
    look, size = Look.of(r, ("serif", "stix", "sans", "aileron")), r.choice((20, 21, 22))
    name = f"{r.choice(words.BRANDS)} {r.choice(('Kitchen', 'Bistro', 'Café', 'Inn', 'Tavern', 'Diner'))}"
    sign = r.choice("€$£")
    ranges = {"Starters": (4, 11), "Mains": (11, 28), "Desserts": (4, 9), "Drinks": (2, 7)}
    courses = {
        course: {
            dish: f"{sign}{r.randint(*ranges[course])}.{r.choice(('00', '50', '80', '90'))}"
            for dish in r.sample(words.DISHES[course], r.randint(2, 4))
        }
        for course in sorted(r.sample(list(ranges), r.randint(3, 4)), key=list(ranges).index)
    }
    lines = sum(len(dishes) for dishes in courses.values())
    width = r.randrange(540, 681, 20)
    sheet = Sheet(width, round(150 + 70 * len(courses) + lines * size * 1.8 + 40), look)
    sheet.box(18, 18, width - 18, sheet.height - 18, outline=look.accent, line=3)
    sheet.text(width / 2, 75, name, size + 18, bold=True, fill=look.accent, anchor="mm", width=width - 90)
    sheet.line([(width / 2 - 90, 112), (width / 2 + 90, 112)], look.second, 2)
    y = 150.0
    for course, dishes in courses.items():
        sheet.text(width / 2, y, course, size + 6, bold=True, fill=look.second, anchor="mm")
        y += size * 1.9
        for dish, price in dishes.items():
            left = sheet.text(55, y, dish, size, anchor="lm")[2]
            right = sheet.text(width - 55, y, price, size, anchor="rm")[0]
            for dot in range(round(left) + 14, round(right) - 10, 10):
                sheet.circle(dot, y + size * 0.3, 1.2, "#9a9a9a")
            y += size * 1.8
        y += 70 - size * 1.9
    every = {dish: price for dishes in courses.values() for dish, price in dishes.items()}
    return sheet.done(
        restaurant=name, courses=courses, dishes=len(every),
        dearest=[dish for dish in every if _amount(every[dish]) == max(map(_amount, every.values()))],
        cheapest=[dish for dish in every if _amount(every[dish]) == min(map(_amount, every.values()))],
    )  # fmt: skip


def _amount(price: str) -> float:
    return float(price[1:])


def nutrition_label(r: Random) -> Drawn:
    """What is in a food, per 100 g and per portion."""
    look, size = Look.of(r, ("sans", "aileron")), r.choice((20, 21, 22))
    food = r.choice(words.FOODS)
    brand, portion = r.choice(words.BRANDS), r.choice((20, 25, 30, 40, 50, 125, 150, 200))
    grams = {"Fat": r.randint(1, 300), "Carbohydrate": r.randint(50, 600), "Protein": r.randint(5, 240),
             "Fibre": r.randint(2, 120), "Salt": r.randint(1, 25)}  # fmt: skip
    tenths = {"of which sugars": r.randint(5, grams["Carbohydrate"])}
    energy = round(9 * grams["Fat"] / 10 + 4 * (grams["Carbohydrate"] + grams["Protein"]) / 10)
    order = ["Fat", "Carbohydrate", "of which sugars", "Protein", "Fibre", "Salt"]
    every = grams | tenths
    rows = {"Energy": (f"{energy} kcal", f"{round(energy * portion / 100)} kcal")}
    rows |= {name: (f"{every[name] / 10:.1f} g", f"{every[name] * portion / 1000:.1f} g") for name in order}
    width = r.randrange(560, 681, 20)
    sheet = Sheet(width, round(225 + 8 * size * 2.0 + 30), look, "#ffffff")
    sheet.box(14, 14, width - 14, sheet.height - 14, outline="#000000", line=4)
    sheet.text(36, 52, f"{brand} {food}", size + 8, bold=True, anchor="lm", width=width - 72)
    sheet.text(36, 96, "Nutrition Facts", size + 12, bold=True, fill=look.accent, anchor="lm")
    sheet.text(36, 136, f"Portion {portion} g", size, anchor="lm")
    sheet.box(30, 160, width - 30, 170, "#000000")
    y = 195.0
    for column, text in ((width - 190, "per 100 g"), (width - 36, "per portion")):
        sheet.text(column, y, text, size - 2, bold=True, anchor="rm")
    for name, (hundred, one) in rows.items():
        y += size * 2.0
        sheet.line([(30, y - size), (width - 30, y - size)], "#000000", 1)
        inner = name.startswith("of")
        sheet.text(62 if inner else 36, y, name, size, bold=not inner, anchor="lm")
        sheet.text(width - 190, y, hundred, size, anchor="rm")
        sheet.text(width - 36, y, one, size, anchor="rm")
    return sheet.done(product=f"{brand} {food}", portion_grams=portion, per_100_g={n: v[0] for n, v in rows.items()},
                      per_portion={n: v[1] for n, v in rows.items()})  # fmt: skip
