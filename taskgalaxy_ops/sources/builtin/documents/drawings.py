"""Plans and diagrams: maps, flowcharts, labelled pictures, floor plans, family trees, food chains, sets."""

from __future__ import annotations

from itertools import pairwise
from random import Random

from taskgalaxy_ops.sources.builtin.documents import words
from taskgalaxy_ops.sources.builtin.documents.canvas import Drawn, Look, Sheet, hsl

COLOURS = {
    "red": "#d12f2f", "blue": "#2f62c9", "green": "#2f8f46", "orange": "#ea8420", "purple": "#8344b5",
    "yellow": "#f2c91d", "pink": "#e678b4", "brown": "#7b4a2b", "black": "#202020", "gray": "#8d8d8d",
}  # fmt: skip


def town_map(r: Random) -> Drawn:
    """Streets that cross at right angles, a river or a park, and marked places."""
    look = Look.of(r, ("sans", "aileron", "serif"))
    width, height, size = r.randrange(820, 981, 20), r.randrange(680, 781, 20), r.choice((18, 19, 20))
    ground = r.choice(("#f1efe6", "#eef0ea", "#f5f1e8", "#ecece8"))
    sheet = Sheet(width, height, look, ground)
    names = r.sample(words.STREETS, 6)
    rows = [round(height * share) for share in (0.2, 0.5, 0.8)][: r.randint(2, 3)]
    columns = [round(width * share) for share in (0.18, 0.5, 0.82)][: r.randint(2, 3)]
    block_w, block_h = width * 0.32, height * 0.3
    park = (r.randrange(len(rows) - 1), r.randrange(len(columns) - 1))
    park_name = f"{r.choice(words.TOWNS)} Park"
    x, y = columns[park[1]], rows[park[0]]
    sheet.box(x + 34, y + 34, x + block_w - 34, y + block_h - 34, "#b9dba4", radius=12)
    for _ in range(9):
        tree_x, tree_y = r.uniform(x + 50, x + block_w - 50), r.choice((y + 52, y + block_h - 52))
        sheet.circle(tree_x, tree_y, 9, "#6ea85a")
    for row in (*rows, height):
        for column in columns:
            if (row, column) != (rows[park[0] + 1], columns[park[1]]) and r.random() < 0.6:
                left, top = column + r.randint(40, 90), row - r.randint(150, 165)
                sheet.box(left, top, left + r.randint(50, 110), top + r.randint(36, 60), "#d9d2c2", outline="#bfb6a2")
    sheet.text(x + block_w / 2, y + block_h / 2, park_name, size, fill="#2d5a22", anchor="mm", width=block_w - 90)
    streets = []
    for number, row in enumerate(rows):
        sheet.box(0, row - 17, width, row + 17, "#ffffff", outline="#c9c3b4", line=1.5)
        streets.append({"name": f"{names[number]} {r.choice(('Street', 'Road'))}", "runs": "west to east"})
    for number, column in enumerate(columns):
        sheet.box(column - 17, 0, column + 17, height, "#ffffff", outline="#c9c3b4", line=1.5)
        streets.append({"name": f"{names[3 + number]} {r.choice(('Avenue', 'Lane'))}", "runs": "north to south"})
    for row in rows:
        sheet.box(2, row - 15.5, width - 2, row + 15.5, "#ffffff")
    for street, row in zip(streets, rows, strict=False):
        between = (columns[0] + columns[1]) / 2
        sheet.text(between, row, street["name"], size, fill="#444444", anchor="mm")
    for street, column in zip(streets[len(rows) :], columns, strict=True):
        sheet.box(column - 15.5, rows[0] + 20, column + 15.5, rows[0] + 40, "#ffffff")
        sheet.upright(column, rows[0] + (rows[1] - rows[0]) / 2, street["name"], size, fill="#444444")
    kinds = {"Hospital": "#d12f2f", "School": "#2f62c9", "Bank": "#2f8f46", "Museum": "#8344b5", "Station": "#444444",
             "Hotel": "#c2649a", "Church": "#7b4a2b", "Cinema": "#0f8f8f", "Post": "#b88a00"}  # fmt: skip
    places = []
    below = rows[park[0] + 1]  # a place stands above its street: none may stand in the park
    taken = {(below, columns[park[1]], 1), (below, columns[park[1] + 1], -1)}
    free = [
        c for c in ((row, column, side) for row in rows for column in columns for side in (-1, 1)) if c not in taken
    ]
    for kind, (row, column, side) in zip(r.sample(list(kinds), r.randint(3, 5)), r.sample(free, 5), strict=False):
        left, top = column + (28 if side > 0 else -60), row - 58
        sheet.box(left, top, left + 32, top + 32, kinds[kind], radius=6)
        sheet.text(left + 16, top + 16, kind[0], 20, bold=True, fill="#ffffff", anchor="mm")
        sheet.text(left + (40 if side > 0 else -8), top + 16, kind, size, anchor="lm" if side > 0 else "rm")
        places.append({"name": kind, "street": streets[rows.index(row)]["name"],
                       "avenue": streets[len(rows) + columns.index(column)]["name"]})  # fmt: skip
    sheet.arrow((width - 40, height - 40), (width - 40, height - 105), "#333333", 4, 18)
    sheet.text(width - 66, height - 72, "N", 24, bold=True, anchor="mm")
    return sheet.done(streets=streets, places=places, park=park_name, north="up")


def flowchart(r: Random) -> Drawn:
    """Steps from start to end with one question."""
    look, size = Look.of(r), r.choice((19, 20, 21))
    n, m = r.randint(2, 30), r.randint(2, 9)
    title, first, question, yes, no, last = r.choice((
        ("Making tea", "Boil water", "Is it hot?", "Pour it in the pot", f"Wait {m} minutes", "Drink the tea"),
        ("Returning a book", "Go to the library", "Is it late?", f"Pay {m} euros", "Show the book", "Shelve it"),
        ("Order check", "Receive order", f"Over {n} in stock?", "Pack the goods", "Order supply", "Send invoice"),
        ("Broken lamp", "Lamp is dark", "Plugged in?", "Change the bulb", "Plug it in", "Lamp works"),
        ("Crossing a road", "Stop at the kerb", "Light green?", "Look both ways", f"Wait {m} seconds", "Cross"),
        ("Login", "Enter password", "Is it correct?", "Load profile", "Show an error", "Write to the log"),
        ("Quality test", f"Take {m} samples", "Are they good?", "Approve batch", "Reject batch", "File the report"),
        ("Heating", "Read the sensor", f"Below {n} °C?", "Heat on", "Heat off", f"Wait {m} minutes"),
        ("Number game", "Read x", f"x > {n}?", f"x = x + {m}", f"x = x - {m}", "Print x"),
        ("Ticket price", "Ask for the age", f"Under {n}?", f"Charge {m} euros", f"Charge {2 * m} euros", "Print it"),
    ))  # fmt: skip
    sheet = Sheet(r.randrange(740, 861, 20), r.randrange(820, 901, 20), look)
    width, height = sheet.width, sheet.height
    fill, ink = r.choice(((look.soft, look.ink), (look.second, "#ffffff"), ("#ffffff", look.ink)))
    fill_question = hsl(r.randrange(360), 70, r.randint(70, 88))
    full = f"{title}: {r.choice(words.BRANDS)} guide"
    sheet.text(width / 2, 46, full, size + 8, bold=True, anchor="mm", width=width - 60)
    step = (height - 110) / 5
    ys = [100 + step * (place + 0.5) for place in range(5)]
    middle, side = width / 2, width * r.uniform(0.22, 0.27)
    left, right = (middle - side, middle + side) if r.random() < 0.5 else (middle + side, middle - side)
    wide, tall, turn = r.randint(118, 138), step * r.uniform(0.22, 0.29), 1 if left < right else -1

    def joint(points: list[tuple[float, float]]) -> None:
        sheet.line(points[:-1], None, 2.5)
        sheet.arrow(points[-2], points[-1], None, 2.5, 13)

    joint([(middle, ys[0]), (middle, ys[1] - tall)])
    joint([(middle, ys[1]), (middle, ys[2] - tall * 1.5)])
    joint([(middle, ys[2]), (left, ys[2]), (left, ys[3] - tall)])
    joint([(middle, ys[2]), (right, ys[2]), (right, ys[3] - tall)])
    joint([(left, ys[3]), (left, ys[4]), (middle - turn * wide, ys[4])])
    joint([(right, ys[3]), (right, ys[4]), (middle + turn * wide, ys[4])])
    sheet.box(middle - 75, ys[0] - tall, middle + 75, ys[0] + tall, look.accent, radius=tall)
    sheet.text(middle, ys[0], "Start", size, bold=True, fill="#ffffff", anchor="mm")
    for x, y, text in ((middle, ys[1], first), (left, ys[3], yes), (right, ys[3], no), (middle, ys[4], last)):
        sheet.box(x - wide, y - tall, x + wide, y + tall, fill, outline=look.ink, line=2, radius=6)
        sheet.text(x, y, text, size, fill=ink, anchor="mm", width=2 * wide - 20)
    rise = tall * 1.5
    sheet.polygon([(middle, ys[2] - rise), (middle + 135, ys[2]), (middle, ys[2] + rise), (middle - 135, ys[2])],
                  fill_question, look.ink, 2)  # fmt: skip
    sheet.text(middle, ys[2], question, size, anchor="mm", width=190)
    sheet.text(left + turn * 12, ys[2] - 20, "yes", size, bold=True, anchor="mm")
    sheet.text(right - turn * 12, ys[2] - 20, "no", size, bold=True, anchor="mm")
    return sheet.done(title=full, first=first, question=question, if_yes=yes, if_no=no, last=last)


def floor_plan(r: Random) -> Drawn:
    """Rooms of a flat with their areas."""
    look, size = Look.of(r), r.choice((20, 21, 22))
    width, height = r.randrange(800, 961, 20), r.randrange(640, 741, 20)
    sheet = Sheet(width, height, look)
    title = f"Flat {r.randint(1, 60)}, {words.street(r)}"
    sheet.text(50, 48, title, size + 6, bold=True, anchor="lm")
    left, top, right, bottom = 50.0, 90.0, width - 50.0, height - 50.0
    cut = top + (bottom - top) * r.uniform(0.42, 0.58)
    scale = r.uniform(60, 85)  # pixels a metre
    names = r.sample(("Kitchen", "Bedroom", "Bathroom", "Office", "Hall", "Dining room", "Nursery", "Guest room"), 6)
    names[r.randrange(2)] = "Living room"
    rooms: list[dict[str, str]] = []
    for y0, y1, number in ((top, cut, r.randint(2, 3)), (cut, bottom, r.randint(2, 3))):
        inner = sorted((right - left) * (n + r.uniform(-0.12, 0.12)) / number for n in range(1, number))
        edges = [left, *(left + edge for edge in inner), right]
        for x0, x1 in pairwise(edges):
            name = names[len(rooms)]
            area = f"{(x1 - x0) * (y1 - y0) / scale**2:.1f} m²"
            sheet.box(x0, y0, x1, y1, hsl(r.randrange(360), 45, 92), outline="#222222", line=6)
            sheet.text((x0 + x1) / 2, (y0 + y1) / 2 - 18, name, size, bold=True, anchor="mm", width=x1 - x0 - 30)
            sheet.text((x0 + x1) / 2, (y0 + y1) / 2 + 18, area, size, anchor="mm", family="sans")
            rooms.append({"name": name, "area": area, "row": "top" if y0 == top else "bottom"})
    for x in (left + 80, right - 140):
        sheet.box(x, cut - 4, x + 60, cut + 4, look.paper)
        sheet.line([(x, cut), (x + 42, cut - 42)], "#222222", 2.5)
    for x in (left + 90, (left + right) / 2 + 60):
        sheet.box(x, top - 4, x + 90, top + 4, "#8fc7ea", outline="#222222", line=1)
    largest = max(rooms, key=lambda room: float(room["area"].split()[0]))
    return sheet.done(title=title, rooms=rooms, number_of_rooms=len(rooms), largest=largest["name"])


def family_tree(r: Random) -> Drawn:
    """Grandparents, parents and children."""
    look, size = Look.of(r), r.choice((19, 20, 21))
    last, names = r.choice(words.LAST), r.sample(words.FIRST, 11)
    children = r.randint(2, 3)
    counts = [r.randint(0, 2) for _ in range(children)]
    counts[r.randrange(children)] = 2
    width, height = 940, r.randrange(600, 681, 20)
    sheet = Sheet(width, height, look)
    sheet.text(width / 2, 48, f"The {last} family", size + 12, bold=True, fill=look.accent, anchor="mm")
    ys = [height * share for share in (0.25, 0.55, 0.85)]
    people: list[tuple[float, float, str]] = []
    couple = names[:2]
    people += [(width / 2 - 110, ys[0], couple[0]), (width / 2 + 110, ys[0], couple[1])]
    sheet.line([(width / 2 - 110, ys[0]), (width / 2 + 110, ys[0])], None, 2.5)
    rest = iter(names[2:])
    tree = {}
    xs = [width * (n + 0.5) / children for n in range(children)]
    turn = (ys[0] + ys[1]) / 2
    sheet.line([(width / 2, ys[0]), (width / 2, turn)], None, 2.5)
    sheet.line([(xs[0], turn), (xs[-1], turn)], None, 2.5)
    for x, count in zip(xs, counts, strict=True):
        parent = next(rest)
        people.append((x, ys[1], parent))
        sheet.line([(x, turn), (x, ys[1])], None, 2.5)
        own = [(x + (number - (count - 1) / 2) * 150, next(rest)) for number in range(count)]
        half = (ys[1] + ys[2]) / 2
        if own:
            sheet.line([(x, ys[1]), (x, half)], None, 2.5)
            sheet.line([(own[0][0], half), (own[-1][0], half)], None, 2.5)
        for child_x, child in own:
            sheet.line([(child_x, half), (child_x, ys[2])], None, 2.5)
            people.append((child_x, ys[2], child))
        tree[parent] = [child for _, child in own]
    for x, y, name in people:
        sheet.box(x - 66, y - 28, x + 66, y + 28, look.soft, outline=look.accent, line=2, radius=10)
        sheet.text(x, y, name, size, bold=y == ys[0], anchor="mm", width=116)
    return sheet.done(family=last, grandparents=couple, children=list(tree), grandchildren=tree, people=len(people))


def food_chain(r: Random) -> Drawn:
    """Who is eaten by whom, along arrows."""
    look, size = Look.of(r), r.choice((20, 21, 22))
    place, chain = r.choice((
        ("a meadow", ("Grass", "Grasshopper", "Frog", "Snake", "Eagle")),
        ("a lake", ("Algae", "Water flea", "Small fish", "Pike", "Heron")),
        ("the sea", ("Plankton", "Krill", "Herring", "Seal", "Orca")),
        ("a forest", ("Leaves", "Caterpillar", "Blue tit", "Marten", "Lynx")),
        ("a desert", ("Cactus", "Beetle", "Lizard", "Snake", "Hawk")),
        ("a garden", ("Lettuce", "Snail", "Hedgehog", "Badger", "Wolf")),
    ))  # fmt: skip
    shown = list(chain[: r.randint(3, 5)])
    roles = ("producer", "primary consumer", "secondary consumer", "tertiary consumer", "top predator")
    sheet = Sheet(r.randrange(620, 741, 20), 130 + 128 * len(shown), look)
    width, hue = sheet.width, r.randrange(360)
    title = f"Food chain in {place} near {r.choice(words.TOWNS)}"
    sheet.text(width / 2, 56, title, size + 10, bold=True, anchor="mm", width=width - 60)
    reach, half = r.choice((0, 30, 60)), r.randint(140, 200)
    xs = [width / 2 + (reach if number % 2 else -reach) for number in range(len(shown))]
    for number, name in enumerate(shown):
        y = 150 + 128 * number
        if number:
            sheet.arrow((xs[number - 1], y - 86), (xs[number], y - 44), look.ink, 4, 16)
        sheet.box(xs[number] - half, y - 42, xs[number] + half, y + 42, hsl(hue + 35 * number, 50, 86),
                  outline=hsl(hue + 35 * number, 55, 35), line=3, radius=42)  # fmt: skip
        sheet.text(xs[number], y - 13, name, size + 3, bold=True, anchor="mm")
        sheet.text(xs[number], y + 18, roles[number], max(16, size - 3), anchor="mm")
    eats = {eater: eaten for eaten, eater in pairwise(shown)}
    return sheet.done(title=title, chain=shown, eats=eats, roles=dict(zip(shown, roles, strict=False)))


def venn_diagram(r: Random) -> Drawn:
    """Two sets and what is in both."""
    look, size = Look.of(r), r.choice((19, 20, 21))
    names, sports = r.sample(words.FIRST, 9), r.sample(words.SPORTS, 2)
    a, b = r.sample((2, 3, 4, 5, 7), 2)
    rest = [number for number in range(2, 60) if number % a or number % b]
    first, second, only_first, both, only_second = r.choice((
        ("Can fly", "Can swim", ("Butterfly", "Bat", "Owl"), ("Duck", "Swan", "Gull"), ("Shark", "Otter", "Salmon")),
        ("Has wheels", "Has an engine", ("Bicycle", "Cart", "Skates"), ("Car", "Bus", "Truck"), ("Motorboat",)),
        ("Red", "Fruit", ("Fire engine", "Ruby", "Brick"), ("Cherry", "Raspberry"), ("Banana", "Lime", "Pear")),
        (f"Likes {sports[0]}", f"Likes {sports[1]}", names[:3], names[3:6], names[6:]),
        (f"Likes {sports[0]}", f"Likes {sports[1]}", names[:3], names[3:6], names[6:]),
        (f"Multiples of {a}", f"Multiples of {b}", [str(n) for n in rest if n % a == 0],
         [str(n) for n in range(1, 60) if n % a == 0 and n % b == 0], [str(n) for n in rest if n % b == 0]),
    ))  # fmt: skip
    sets = [r.sample(group, min(len(group), r.randint(1, 3))) for group in (only_first, both, only_second)]
    sheet = Sheet(r.randrange(820, 921, 20), r.randrange(560, 641, 20), look)
    width, height, reach = sheet.width, sheet.height, 205
    named = r.sample([name for name in COLOURS if name not in ("black", "gray", "brown")], 2)
    centres = (width / 2 - 120, width / 2 + 120)
    y0 = height / 2 + 35
    for x, name in zip(centres, named, strict=True):
        sheet.tint(x, y0, reach, COLOURS[name], 0.32)
        sheet.circle(x, y0, reach, None, COLOURS[name], 4)
    sheet.text(centres[0] - 60, 50, first, size + 6, bold=True, anchor="mm", width=300)
    sheet.text(centres[1] + 60, 50, second, size + 6, bold=True, anchor="mm", width=300)
    for x, group in zip((width / 2 - 225, width / 2, width / 2 + 225), sets, strict=True):
        for number, name in enumerate(group):
            sheet.text(x, y0 + (number - (len(group) - 1) / 2) * 48, name, size, anchor="mm", width=150)
    return sheet.done(
        first=first, second=second, only_first=sets[0], both=sets[1], only_second=sets[2],
        colours={first: named[0], second: named[1]},
    )  # fmt: skip
