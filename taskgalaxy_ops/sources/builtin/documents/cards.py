"""What is read at a glance: business cards, signs, warnings, posters, covers, tickets, labels."""

from __future__ import annotations

import math
from random import Random

from taskgalaxy_ops.sources.builtin.documents import words
from taskgalaxy_ops.sources.builtin.documents.canvas import Drawn, Look, Sheet, hsl

_WALLS = ("#dfe6ea", "#cfd8c8", "#e9e1d4", "#d6d6d6", "#b9c8d6")


def business_card(r: Random) -> Drawn:
    """Name, job, company and how to reach them."""
    look, size = Look.of(r), r.choice((20, 21, 22))
    name, job, company = words.person(r), r.choice(words.JOBS), words.firm(r)
    lines = {"phone": words.phone(r), "mail": words.mail(name), "street": words.street(r), "town": words.town(r)}
    sheet = Sheet(r.randrange(760, 881, 20), r.randrange(500, 541, 10), look)
    width, height = sheet.width, sheet.height
    style = r.choice(("bar", "top", "plain"))
    left = 60.0
    if style == "bar":
        sheet.box(0, 0, 150, height, look.accent)
        sheet.circle(75, 90, 42, look.paper)
        sheet.text(75, 90, company[0], 44, bold=True, fill=look.accent, anchor="mm")
        left = 190
    elif style == "top":
        sheet.box(0, 0, width, 26, look.accent)
        sheet.box(0, height - 26, width, height, look.second)
    else:
        sheet.box(16, 16, width - 16, height - 16, outline=look.accent, line=3)
    sheet.text(left, 90, company, size + 8, bold=True, fill=look.accent, anchor="lm", width=width - left - 40)
    sheet.text(left, 190, name, size + 16, bold=True, anchor="lm", width=width - left - 40)
    sheet.text(left, 238, job, size + 2, fill=look.second, anchor="lm")
    for number, text in enumerate(lines.values()):
        sheet.text(left, 315 + number * size * 1.75, text, size, anchor="lm", width=width - left - 40)
    return sheet.done(name=name, job=job, company=company, **lines)


def direction_sign(r: Random) -> Drawn:
    """A road sign that points to towns, with distances."""
    look = Look.of(r, ("sans", "aileron"))
    colour = r.choice((("blue", "#1452a0"), ("green", "#1c6b3c"), ("brown", "#6e4524"), ("black", "#1e1e1e")))
    rows = [
        {"to": town, "direction": r.choice(("left", "right", "straight on")), "km": r.randint(1, 180)}
        for town in r.sample(words.TOWNS, r.randint(2, 5))
    ]
    sheet = Sheet(r.randrange(660, 801, 20), 150 + 104 * len(rows) + 60, look, hsl(205, 45, r.randint(70, 84)))
    width, height = sheet.width, sheet.height
    sheet.box(0, height - 70, width, height, hsl(100, 30, r.randint(35, 55)))
    for x in (width * 0.25, width * 0.75):
        sheet.box(x - 12, 60, x + 12, height - 30, "#8d9299")
    for number, row in enumerate(rows):
        y = 60 + 104 * number
        sheet.box(40, y, width - 40, y + 88, colour[1], radius=12)
        sheet.box(46, y + 6, width - 46, y + 82, outline="#ffffff", line=3, radius=8)
        middle, reach = y + 44, 26
        x = 100 if row["direction"] != "right" else width - 100
        dx, dy = {"left": (-1, 0), "right": (1, 0), "straight on": (0, -1)}[str(row["direction"])]
        sheet.arrow((x - dx * reach, middle - dy * reach), (x + dx * reach, middle + dy * reach), "#ffffff", 8, 26)
        left = 160 if x == 100 else 76
        sheet.text(left, middle, str(row["to"]), 34, bold=True, fill="#ffffff", anchor="lm", width=width - 400)
        sheet.text(width - (76 if x == 100 else 160), middle, f"{row['km']} km", 30, fill="#ffffff", anchor="rm")
    return sheet.done(
        signs=rows, colour=colour[0], number=len(rows),
        nearest=[row["to"] for row in rows if row["km"] == min(int(str(row["km"])) for row in rows)],
    )  # fmt: skip


def warning_sign(r: Random) -> Drawn:
    """A safety sign: its shape, its word and what it warns of."""
    look = Look.of(r, ("sans", "aileron"))
    word, paper, ink, texts = r.choice((
        ("DANGER", "#c4161c", "#ffffff", ("High voltage", "Deep water", "Falling rocks", "Moving machinery")),
        ("WARNING", "#f28c00", "#161616", ("Hot surface", "Strong magnet", "Slippery floor", "Loud noise")),
        ("CAUTION", "#ffd500", "#161616", ("Wet floor", "Low ceiling", "Mind the step", "Forklift trucks")),
        ("NOTICE", "#1256a3", "#ffffff", ("Staff only", "Wear a helmet", "Keep door closed", "Wash your hands")),
        ("SAFETY FIRST", "#13753d", "#ffffff", ("Emergency exit", "First aid", "Assembly point", "Eye wash")),
    ))  # fmt: skip
    text = r.choice(texts)
    more = r.choice(("No entry for visitors", "Ask the staff for help", f"Call {words.phone(r)}", "Keep children away",
                     f"Building {r.choice('ABCDEF')}, floor {r.randint(1, 9)}"))  # fmt: skip
    sheet = Sheet(r.randrange(600, 801, 20), r.randrange(600, 701, 20), look, r.choice(_WALLS))
    width, height = sheet.width, sheet.height
    sheet.box(40, 40, width - 40, height - 40, "#ffffff", outline="#333333", line=4, radius=20)
    sheet.box(40, 40, width - 40, 160, paper, outline="#333333", line=4, radius=20)
    sheet.text(width / 2, 100, word, 58, bold=True, fill=ink, anchor="mm", width=width - 130)
    x, y, half = width / 2, 280, 92
    shape = r.choice(("triangle", "circle", "square", "diamond"))
    corners = {"triangle": 3, "square": 4, "diamond": 4}
    if shape == "circle":
        sheet.circle(x, y, half, paper, "#161616", 7)
    else:
        turn = math.pi / 4 if shape == "square" else 0
        steps = [2 * math.pi * step / corners[shape] + turn for step in range(corners[shape])]
        drop = 15 if shape == "triangle" else 0
        points = [(x + half * math.sin(step), y + drop - half * math.cos(step)) for step in steps]
        sheet.polygon(points, paper, "#161616", 7)
    sheet.box(x - 8, y - 42, x + 8, y + 18, ink)
    sheet.circle(x, y + 40, 10, ink)
    sheet.text(width / 2, height - 190, text, 42, bold=True, fill="#161616", anchor="mm", width=width - 120)
    sheet.text(width / 2, height - 105, more, 26, fill="#161616", anchor="mm", width=width - 120)
    colour = {"DANGER": "red", "WARNING": "orange", "CAUTION": "yellow", "NOTICE": "blue", "SAFETY FIRST": "green"}[
        word
    ]
    return sheet.done(word=word, text=text, more=more, colour=colour, symbol=f"exclamation mark in a {shape}")


def poster(r: Random) -> Drawn:
    """An event with day, time, place and price, before coloured shapes."""
    look, hue = Look.of(r), r.randrange(360)
    event, day = r.choice(words.EVENTS), words.date(r)
    place = f"{r.choice(words.TOWNS)} {r.choice(('Hall', 'Park', 'Theatre', 'Square'))}"
    clock = words.clock(r.randint(40, 84) * 15)
    price = r.choice(("Admission free", f"Tickets €{r.randint(4, 60)}"))
    dark = r.random() < 0.5
    paper, ink = (hsl(hue, 55, 20), "#ffffff") if dark else (hsl(hue, 60, 88), hsl(hue, 70, 14))
    sheet = Sheet(r.randrange(580, 721, 20), r.randrange(800, 981, 20), look, paper)
    width, height = sheet.width, sheet.height
    kind = r.choice(("circles", "stripes", "triangles"))
    number = r.randint(4, 9)
    for part in range(number):
        colour = hsl(hue + r.randint(-50, 50), 70, r.randint(38, 60) if dark else r.randint(60, 78))
        x, y, reach = width * (part + 0.5) / number, height * 0.5 + r.uniform(-60, 60), width / number * 0.42
        if kind == "circles":
            sheet.circle(x, y, reach, colour)
        elif kind == "stripes":
            sheet.box(x - reach * 0.7, height * 0.36, x + reach * 0.7, height * 0.64, colour)
        else:
            sheet.polygon([(x, y - reach), (x + reach, y + reach), (x - reach, y + reach)], colour)
    line = 110.0
    for part_of in event.split():
        sheet.text(width / 2, line, part_of.upper(), 74, bold=True, fill=ink, anchor="mm", width=width - 80)
        line += 92
    texts = (f"{words.WEEKDAYS[day.weekday()]}, {words.long_date(day)}", f"{clock} at {place}", price)
    for row, text in enumerate(texts):
        y = height * 0.76 + 52 * row
        sheet.text(width / 2, y, text, 29, bold=row == 2, fill=ink, anchor="mm", width=width - 80)
    return sheet.done(event=event, date=day.isoformat(), weekday=words.WEEKDAYS[day.weekday()], time=clock, place=place,
                      price=price, shapes={kind: number})  # fmt: skip


def book_cover(r: Random) -> Drawn:
    """Title, author and publisher over a landscape."""
    look, hue = Look.of(r, ("serif", "stix", "sans")), r.randrange(360)
    title, author = words.fill(r, r.choice(words.BOOKS)), words.person(r)
    kind = r.choice(("A Novel", "Stories", "A Memoir", "Poems", "A Mystery"))
    sheet = Sheet(r.randrange(560, 661, 20), r.randrange(800, 901, 20), look, hsl(hue, 50, r.randint(72, 88)))
    width, height = sheet.width, sheet.height
    scene = r.choice(("sun", "moon"))
    sheet.circle(
        width * r.uniform(0.25, 0.75), height * 0.5, r.randint(50, 85), "#f6c445" if scene == "sun" else "#f4f1e4"
    )
    for layer in range(3):
        base, wave, shift = height * (0.58 + 0.12 * layer), r.uniform(18, 50), r.uniform(0, 6)
        steps = r.uniform(4, 9)
        points = [(x, base - wave * math.sin(x / width * steps + shift)) for x in range(0, width + 12, 12)]
        sheet.polygon([*points, (width, height), (0, height)], hsl(hue + 15 * layer, 45, 55 - 16 * layer))
    ink = hsl(hue, 60, 13)
    lines = sheet.wrap(title, width - 90, 52, bold=True)
    for number, line in enumerate(lines):
        sheet.text(width / 2, 95 + 64 * number, line, 52, bold=True, fill=ink, anchor="mm", width=width - 60)
    sheet.text(width / 2, 100 + 64 * len(lines), kind, 25, fill=ink, anchor="mm")
    sheet.text(width / 2, height - 95, author, 38, bold=True, fill="#ffffff", anchor="mm", width=width - 80)
    publisher = f"{r.choice(words.BRANDS)} Press"
    sheet.text(width / 2, height - 42, publisher, 22, fill="#ffffff", anchor="mm")
    return sheet.done(title=title, author=author, kind=kind, publisher=publisher, picture=f"hills with a {scene}")


def ticket(r: Random) -> Drawn:
    """A ticket for a train or a flight."""
    look, size = Look.of(r, ("sans", "mono", "aileron")), r.choice((18, 19, 20))
    flight = r.random() < 0.5
    start, end = r.sample(words.TOWNS, 2)
    minute, day = r.randint(300, 1200), words.date(r)
    facts = {
        "Passenger": words.person(r), "Date": words.long_date(day), "Departs": words.clock(minute),
        "Arrives": words.clock(minute + r.randint(35, 230)), ("Gate" if flight else "Coach"): str(r.randint(1, 40)),
        "Seat": f"{r.randint(1, 38)}{r.choice('ABCDEF')}",
        ("Flight" if flight else "Train"): f"{r.choice(('TG', 'NX', 'VL', 'EC', 'QR'))} {r.randint(100, 999)}",
        "Price": f"€{r.randint(15, 420)}.{r.choice(('00', '50', '90'))}",
    }  # fmt: skip
    sheet = Sheet(r.randrange(820, 961, 20), r.randrange(500, 541, 10), look, r.choice(_WALLS))
    width, height = sheet.width, sheet.height
    sheet.box(30, 40, width - 30, height - 40, "#ffffff", radius=18)
    sheet.box(30, 40, width - 30, 120, look.accent, radius=18)
    sheet.box(30, 100, width - 30, 120, look.accent)
    name = "BOARDING PASS" if flight else "TRAIN TICKET"
    sheet.text(60, 80, name, size + 10, bold=True, fill="#ffffff", anchor="lm")
    company = f"{r.choice(words.BRANDS)} {'Air' if flight else 'Rail'}"
    sheet.text(width - 60, 80, company, size + 4, fill="#ffffff", anchor="rm")
    sheet.text(60, 170, start, size + 16, bold=True, anchor="lm", width=width * 0.36)
    sheet.text(width - 60, 170, end, size + 16, bold=True, anchor="rm", width=width * 0.36)
    sheet.arrow((width / 2 - 50, 170), (width / 2 + 50, 170), look.second, 5, 20)
    for number, (key, value) in enumerate(facts.items()):
        x = 60 + (width - 110) / 4 * (number % 4)
        y = 240 + 105 * (number // 4)
        sheet.text(x, y, key, size - 2, fill="#666666", anchor="lm")
        sheet.text(x, y + 36, value, size + 2, bold=True, anchor="lm", width=(width - 110) / 4 - 14)
    return sheet.done(kind=name.lower(), company=company, start=start, end=end, **facts)


def opening_hours(r: Random) -> Drawn:
    """When a shop is open."""
    look, size = Look.of(r), r.choice((24, 26, 28))
    shop, hours = words.shop(r), {}
    usual = (r.randint(14, 20) * 30, r.randint(33, 40) * 30)
    for day in words.WEEKDAYS:
        own = (usual[0] + r.choice((0, 0, 60)), usual[1] - r.choice((0, 0, 0, 120)))
        closed = r.random() < (0.75 if day == "Sunday" else 0.08)
        hours[day] = "closed" if closed else f"{words.clock(own[0])} - {words.clock(own[1])}"
    dark = r.random() < 0.4
    paper, ink = (hsl(r.randrange(360), 35, 16), "#ffffff") if dark else (look.paper, look.ink)
    sheet = Sheet(r.randrange(560, 681, 20), round(200 + 7 * size * 1.9 + 90), look, paper)
    width = sheet.width
    sheet.box(16, 16, width - 16, sheet.height - 16, outline=look.second, line=4, radius=12)
    sheet.text(width / 2, 75, shop, size + 14, bold=True, fill=ink, anchor="mm", width=width - 80)
    sheet.text(width / 2, 135, "Opening hours", size + 2, fill=ink, anchor="mm")
    for number, (day, time) in enumerate(hours.items()):
        y = 200 + number * size * 1.9
        sheet.text(60, y, day, size, fill=ink, anchor="lm")
        sheet.text(width - 60, y, time, size, bold=time == "closed", fill=ink, anchor="rm")
    phone = words.phone(r)
    sheet.text(width / 2, sheet.height - 60, f"Tel. {phone}", size - 2, fill=ink, anchor="mm")
    return sheet.done(shop=shop, hours=hours, closed=[d for d, t in hours.items() if t == "closed"], phone=phone)


def parcel_label(r: Random) -> Drawn:
    """Sender, receiver and bars to scan."""
    look, size = Look.of(r, ("sans", "mono", "aileron")), r.choice((19, 20, 21))
    sender, receiver = words.firm(r), words.person(r)
    places = [(words.street(r), words.town(r)) for _ in range(2)]
    weight, number = f"{r.randint(2, 180) / 10:.1f} kg", "".join(str(r.randrange(10)) for _ in range(12))
    service = r.choice(("EXPRESS", "STANDARD", "ECONOMY", "OVERNIGHT"))
    sheet = Sheet(
        r.randrange(560, 661, 20), r.randrange(700, 761, 20), look, r.choice(("#c89b66", "#b98b58", "#d3ad7d"))
    )
    width, height = sheet.width, sheet.height
    sheet.box(30, 30, width - 30, height - 30, "#ffffff", outline="#111111", line=3)
    sheet.box(30, 30, width - 30, 110, r.choice(("#111111", look.accent)))
    sheet.text(54, 70, service, size + 18, bold=True, fill="#ffffff", anchor="lm")
    sheet.text(width - 54, 70, weight, size + 6, bold=True, fill="#ffffff", anchor="rm")
    for top, head, name, (street, town), more in (
        (140, "From:", sender, places[0], 0), (310, "To:", receiver, places[1], 5),
    ):  # fmt: skip
        sheet.text(54, top, head, size - 2, fill="#555555", anchor="lm")
        for line, text in enumerate((name, street, town)):
            sheet.text(54, top + 34 * (line + 1) + line * more, text, size + more, bold=line == 0, anchor="lm",
                       width=width - 110)  # fmt: skip
        sheet.line([(30, top + 150), (width - 30, top + 150)], "#111111", 2)
    x = 70.0
    while x < width - 74:
        bar = r.choice((2, 3, 5, 7))
        sheet.box(x, 485, x + bar, height - 100, "#111111")
        x += bar + r.choice((3, 4, 6))
    sheet.text(width / 2, height - 68, " ".join(number[i : i + 4] for i in (0, 4, 8)), size, anchor="mm", family="mono")
    return sheet.done(
        sender=sender, receiver=receiver, sender_street=places[0][0], sender_town=places[0][1],
        receiver_street=places[1][0], receiver_town=places[1][1], weight=weight, service=service, number=number,
    )  # fmt: skip
