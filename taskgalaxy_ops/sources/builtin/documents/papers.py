"""Papers: receipts, invoices, letters, forms, articles, recipes, certificates."""

from __future__ import annotations

import datetime
from random import Random

from taskgalaxy_ops.sources.builtin.documents import words
from taskgalaxy_ops.sources.builtin.documents.canvas import Drawn, Look, Sheet
from taskgalaxy_ops.sources.builtin.documents.tables import Ruling, grid


def _cents(r: Random, low: float, high: float) -> int:
    return round(r.uniform(low, high) * 20) * 5


def money(cents: int) -> str:
    """1234 as 12.34."""
    return f"{cents // 100}.{cents % 100:02}"


def receipt(r: Random) -> Drawn:
    """A shop's receipt whose total is the sum of its lines."""
    look, size = Look.of(r, ("mono", "mono", "sans")), r.choice((19, 20, 21))
    day, currency = words.date(r), r.choice(("EUR", "USD", "GBP"))
    shop = f"{r.choice(words.BRANDS)} {r.choice(('Market', 'Grocery', 'Deli', 'Foods', 'Corner Shop'))}"
    clock = words.clock(r.randint(480, 1300))
    items = []
    for name in r.sample(list(words.GROCERIES), r.randint(3, 9)):
        price, count = _cents(r, *words.GROCERIES[name]), r.choice((1, 1, 1, 2, 3))
        items.append({"name": name, "count": count, "price": money(price), "amount": money(price * count)})
    total = sum(round(float(str(item["amount"])) * 100) for item in items)
    cash = r.random() < 0.5
    given = -(-total // 500) * 500 + r.choice((0, 500)) if cash else total
    width, row = r.randrange(500, 581, 10), size * 1.65
    street, town = words.street(r), words.town(r)
    sheet = Sheet(
        width, round(235 + row * (len(items) + (6 if cash else 5)) + 70), look, r.choice(("#ffffff", "#fbfaf2"))
    )
    middle = width / 2
    sheet.text(middle, 50, shop, size + 10, bold=True, anchor="mm", width=width - 60)
    for line, text in enumerate((street, town, f"{day.isoformat()}   {clock}")):
        sheet.text(middle, 95 + line * row, text, size, anchor="mm")
    y = 215.0

    def rule() -> None:
        for x in range(36, width - 36, 14):
            sheet.line([(x, y - row * 0.5), (x + 8, y - row * 0.5)], "#555555", 1.5)

    rule()
    for item in items:
        y += row * 0.2 if item is items[0] else 0
        sheet.text(36, y, f"{item['count']} x {item['name']}", size, anchor="lm", width=width - 190)
        sheet.text(width - 36, y, str(item["amount"]), size, anchor="rm")
        y += row
    y += row * 0.3
    rule()
    y += row * 0.3
    sheet.text(36, y, "TOTAL", size + 4, bold=True, anchor="lm")
    sheet.text(width - 36, y, f"{currency} {money(total)}", size + 4, bold=True, anchor="rm")
    y += row * 1.2
    paid = [("Cash", money(given)), ("Change", money(given - total))] if cash else [("Card", money(total))]
    for name, amount in paid:
        sheet.text(36, y, name, size, anchor="lm")
        sheet.text(width - 36, y, amount, size, anchor="rm")
        y += row
    number = f"{r.randint(1000, 99999)}"
    sheet.text(middle, y + row * 0.7, f"Receipt no. {number}", size, anchor="mm")
    sheet.text(middle, y + row * 1.7, r.choice(("Thank you!", "See you soon!", "Have a nice day!")), size, anchor="mm")
    return sheet.done(
        shop=shop, street=street, town=town, date=day.isoformat(), time=clock, currency=currency, items=items,
        lines=len(items), total=money(total), paid_by="cash" if cash else "card",
        change=money(given - total) if cash else None, number=number,
    )  # fmt: skip


def invoice(r: Random) -> Drawn:
    """A bill with positions, tax and a due date."""
    look, size = Look.of(r), r.choice((17, 18, 19))
    sender, customer, day = words.firm(r), words.person(r), words.date(r)
    due = day + datetime.timedelta(days=r.choice((7, 10, 14, 21, 30)))
    number, rate = f"{r.choice('ABKRX')}-{r.randint(1000, 9999)}", r.choice((5, 8, 10, 19, 20))
    items = []
    net = 0
    for name in r.sample(list(words.SERVICES), r.randint(2, 6)):
        low, high = words.SERVICES[name]
        price, count = r.randint(low, high) * 100, r.choice((1, 1, 2, 3, 4))
        net += price * count
        items.append({"name": name, "count": count, "price": money(price), "amount": money(price * count)})
    tax = round(net * rate / 100)
    sheet = Sheet(r.randrange(740, 841, 20), round(440 + 40 * len(items) + 190), look)
    width = sheet.width
    sheet.box(0, 0, width, 14, look.accent)
    sheet.text(50, 68, sender, size + 10, bold=True, fill=look.accent, anchor="lm", width=width - 300)
    sheet.text(width - 50, 68, "INVOICE", size + 14, bold=True, anchor="rm")
    street, town = words.street(r), words.town(r)
    for line, text in enumerate(("Bill to:", customer, street, town)):
        sheet.text(50, 140 + 30 * line, text, size, bold=line == 0, anchor="lm")
    facts = {"Invoice no.": number, "Date": words.long_date(day), "Due date": words.long_date(due)}
    for line, (name, text) in enumerate(facts.items()):
        sheet.text(width - 370, 140 + 32 * line, name, size, anchor="lm")
        sheet.text(width - 50, 140 + 32 * line, text, size, bold=True, anchor="rm", width=205)
    widths = [width - 100 - 80 - 130 - 140, 80, 130, 140]
    rows = [["Description", "Qty", "Price", "Amount"]]
    rows += [[str(item[key]) for key in ("name", "count", "price", "amount")] for item in items]
    y = grid(sheet, r, 50, 300, rows, Ruling(widths, 40, size)) + 35
    for name, amount in (("Subtotal", net), (f"Tax {rate}%", tax), ("Total due", net + tax)):
        last = name == "Total due"
        sheet.text(width - 330, y, name, size + 3 * last, bold=last, anchor="lm")
        sheet.text(width - 62, y, f"€ {money(amount)}", size + 3 * last, bold=last, anchor="rm")
        y += 36
    sheet.text(50, y + 30, f"Payment within {(due - day).days} days. Questions: office@example.org", size, anchor="lm",
               width=width - 100)  # fmt: skip
    return sheet.done(
        sender=sender, customer=customer, street=street, town=town, number=number, date=day.isoformat(),
        due=due.isoformat(), items=items, subtotal=money(net), tax_percent=rate, tax=money(tax), total=money(net + tax),
    )  # fmt: skip


def letter(r: Random) -> Drawn:
    """A letter from one person to another about one matter."""
    look, size = Look.of(r, ("serif", "stix", "sans", "aileron")), r.choice((19, 20, 21))
    writer, reader, day = words.person(r), words.person(r), words.date(r)
    meeting = day + datetime.timedelta(days=r.randint(9, 40))
    place = f"the {r.choice(words.BRANDS)} {r.choice(('Hotel', 'Library', 'Café', 'Hall'))}"
    clock = words.clock(r.randint(36, 76) * 15)
    matter, reason = r.choice((
        ("Invitation", "we would like to invite you to our {event}"), ("Your visit", "we look forward to the {event}"),
        ("Change of date", "we have to move the {event}"), ("Volunteers wanted", "we need helpers for the {event}"),
    ))  # fmt: skip
    event = r.choice(words.EVENTS)
    body = [
        f"{reason.format(event=event)[0].upper()}{reason.format(event=event)[1:]}. It takes place on "
        f"{words.WEEKDAYS[meeting.weekday()]}, {words.long_date(meeting)}, at {clock} in {place}.",
        " ".join(words.sentences(r, r.randint(2, 4))),
        f"Please let us know by mail to {words.mail(writer)} whether you can come.",
    ]
    width = r.randrange(700, 821, 20)
    inner = width - 140
    street, town = words.street(r), words.town(r)
    trial = Sheet(width, 10, look)
    lines = sum(len(trial.wrap(text, inner, size)) for text in body)
    sheet = Sheet(width, round(380 + lines * size * 1.5 + 7 * size + 60), look)
    for line, text in enumerate((writer, street, town)):
        sheet.text(width - 70, 60 + line * size * 1.5, text, size, bold=line == 0, anchor="rm")
    sheet.text(70, 200, reader, size, anchor="lm")
    sheet.text(width - 70, 200, words.long_date(day), size, anchor="rm")
    sheet.text(70, 270, matter, size + 6, bold=True, anchor="lm")
    sheet.text(70, 330, f"Dear {reader},", size, anchor="lm")
    y = 365.0
    for text in body:
        y = sheet.paragraph(70, y, text, inner, size, leading=1.5) + size * 0.8
    closing = r.choice(("Yours sincerely", "Kind regards", "Best wishes"))
    sheet.text(70, y + size, closing, size)
    sheet.text(70, y + size * 3, writer, size + 2, bold=True)
    return sheet.done(
        writer=writer, reader=reader, street=street, town=town, date=day.isoformat(), matter=matter, event=event,
        event_date=meeting.isoformat(), event_time=clock, place=place, closing=closing, mail=words.mail(writer),
        body=body,
    )  # fmt: skip


def form(r: Random) -> Drawn:
    """A filled-in form with boxes that are ticked or not."""
    look, size = Look.of(r), r.choice((18, 19, 20))
    name, day = words.person(r), words.date(r)
    title = r.choice(words.FORMS)
    every = {
        "Full name": name,
        "Date of birth": words.long_date(words.date(r) - datetime.timedelta(days=r.randint(9000, 24000))),
        "Occupation": r.choice(words.JOBS), "Customer no.": str(r.randint(100000, 999999)),
    }  # fmt: skip
    fields = {key: every[key] for key in every if key == "Full name" or r.random() < 0.75}
    question, choices = r.choice((
        ("How did you hear of us?", ("Friends", "Newspaper", "Internet", "Poster")),
        ("Which days suit you?", ("Monday", "Wednesday", "Friday", "Sunday")),
        ("What interests you?", ("Music", "Sport", "Books", "Travel")),
        ("How shall we reach you?", ("Letter", "Phone", "E-mail", "In person")),
    ))  # fmt: skip
    ticked = [choice for choice in choices if r.random() < 0.45]
    width = r.randrange(680, 801, 20)
    sheet = Sheet(width, 130 + 62 * len(fields) + 230, look)
    sheet.box(0, 0, width, 84, look.soft)
    sheet.text(44, 42, title, size + 12, bold=True, anchor="lm", width=width - 90)
    y = 130.0
    for key, value in fields.items():
        sheet.text(44, y + 22, key, size, anchor="lm")
        sheet.box(230, y, width - 44, y + 44, "#ffffff", outline="#8a8a8a", radius=3)
        sheet.text(244, y + 22, value, size + 1, fill="#1d3f91", anchor="lm", width=width - 310)
        y += 62
    sheet.text(44, y + 20, question, size, bold=True, anchor="lm")
    column = (width - 88) / 4
    for number, choice in enumerate(choices):
        x = 44 + number * column
        sheet.box(x, y + 50, x + 26, y + 76, "#ffffff", outline="#444444", line=2)
        if choice in ticked:
            sheet.line([(x + 5, y + 63), (x + 11, y + 71), (x + 22, y + 54)], "#1d3f91", 3.5)
        sheet.text(x + 36, y + 63, choice, size, anchor="lm", width=column - 44)
    y += 120
    sheet.text(44, y + 20, "Date", size, anchor="lm")
    sheet.text(110, y + 20, day.isoformat(), size, fill="#1d3f91", anchor="lm")
    sheet.text(width / 2, y + 20, "Signature", size, anchor="lm")
    signed = r.random() < 0.6
    sheet.line([(width / 2 + 110, y + 34), (width - 44, y + 34)], "#444444", 1)
    if signed:
        x, points = width / 2 + 125, []
        while x < width - 70:
            points.append((x, y + 18 + r.uniform(-16, 14)))
            x += r.uniform(5, 14)
        sheet.line(points, "#1d3f91", 2.5)
    return sheet.done(title=title, fields=fields, question=question, choices=list(choices), ticked=ticked,
                      date=day.isoformat(), signed=signed)  # fmt: skip


def two_column_page(r: Random) -> Drawn:
    """An article of a newspaper or journal in two columns."""
    look, size = Look.of(r, ("serif", "stix", "serif", "sans")), r.choice((17, 18, 19))
    size += 2 * (look.family == "stix")
    headline, author, day = words.fill(r, r.choice(words.HEADLINES)), words.person(r), words.date(r)
    paper = f"The {r.choice(words.TOWNS)} {r.choice(('Herald', 'Gazette', 'Times', 'Courier', 'Observer'))}"
    width = r.randrange(760, 901, 20)
    column = (width - 120 - 36) / 2
    page = r.randint(1, 48)
    texts = words.sentences(r, 14)
    trial = Sheet(width, 10, look)
    lines = [
        line
        for start in range(0, 14, 2)
        for line in [*trial.wrap(" ".join(texts[start : start + 2]), column, size), ""]
    ]
    half = -(-len(lines) // 2)
    while not lines[half]:  # no column starts with an empty line
        del lines[half]
    sheet = Sheet(width, round(270 + half * size * 1.42 + 60), look)
    sheet.text(width / 2, 50, paper, size + 14, bold=True, anchor="mm")
    sheet.line([(60, 82), (width - 60, 82)], None, 2)
    sheet.text(60, 104, words.long_date(day), size, anchor="lm")
    sheet.text(width - 60, 104, f"Page {page}", size, anchor="rm")
    sheet.line([(60, 124), (width - 60, 124)], None, 1)
    sheet.text(60, 172, headline, size + 17, bold=True, fill=look.accent, anchor="lm", width=width - 120)
    sheet.text(60, 220, f"By {author}", size, bold=True, anchor="lm")
    for number, line in enumerate(lines):
        if line:
            x = 60 if number < half else 60 + column + 36
            sheet.text(x, 252 + (number % half) * size * 1.42, line, size)
    sheet.line([(width / 2, 252), (width / 2, sheet.height - 50)], "#bbbbbb", 1)
    return sheet.done(paper=paper, headline=headline, author=author, date=day.isoformat(), page=page, columns=2,
                      sentences=texts)  # fmt: skip


def recipe(r: Random) -> Drawn:
    """Ingredients with amounts, and steps."""
    look, size = Look.of(r), r.choice((18, 19, 20))
    fruit = r.choice((*words.FRUITS[:9], "Carrot", "Onion", "Cheese", "Tomato")).removesuffix("s")
    dish = f"{fruit} {r.choice(('Tart', 'Bake', 'Cake', 'Pie'))}"
    rest = {"sugar": "g", "milk": "ml", "cream": "ml", "honey": "g", "eggs": "", "carrots": "", "nuts": "g",
            "cheese": "g", "yoghurt": "g", "lemons": "", "oats": "g", "apples": ""}  # fmt: skip
    stock = {"flour": "g", "butter": "g"} | {name: rest[name] for name in r.sample(list(rest), r.randint(3, 6))}
    ingredients = {
        name: f"{r.randint(2, 20) * 25} {unit}" if unit else str(r.randint(1, 6)) for name, unit in stock.items()
    }
    oven, minutes, people = r.choice((160, 170, 180, 190, 200, 220)), r.randint(4, 18) * 5, r.choice((2, 4, 6, 8))
    names = list(ingredients)
    steps = [
        f"Mix the {names[0]} with the {names[1]} in a large bowl.",
        f"Add the {names[2]} and stir for {r.randint(2, 9)} minutes.",
        f"Put in the {' and the '.join(names[3:5])}.", f"Bake at {oven} °C for {minutes} minutes.",
        r.choice(("Let it cool and serve.", "Serve hot.", "Serve with a green salad.")),
    ]  # fmt: skip
    width = r.randrange(720, 841, 20)
    sheet = Sheet(width, round(190 + max(len(names) * size * 1.7, len(steps) * size * 3.3) + 70), look)
    sheet.text(50, 60, dish, size + 16, bold=True, fill=look.accent, anchor="lm")
    facts = f"For {people} people   ·   {minutes + 20} minutes   ·   {r.choice(('easy', 'medium', 'difficult'))}"
    sheet.text(50, 108, facts, size, anchor="lm", width=width - 100)
    sheet.box(40, 140, 320, sheet.height - 40, look.soft, radius=10)
    sheet.text(60, 170, "Ingredients", size + 3, bold=True, anchor="lm")
    sheet.text(350, 170, "Method", size + 3, bold=True, anchor="lm")
    for line, (name, amount) in enumerate(ingredients.items()):
        sheet.text(60, 212 + line * size * 1.7, name, size, anchor="lm")
        sheet.text(300, 212 + line * size * 1.7, amount, size, anchor="rm")
    y = 202.0
    for number, step in enumerate(steps, 1):
        sheet.text(350, y, f"{number}.", size, bold=True)
        y = sheet.paragraph(384, y, step, width - 384 - 40, size) + size * 0.4
    return sheet.done(dish=dish, people=people, facts=facts, ingredients=ingredients, steps=steps, oven_celsius=oven,
                      baking_minutes=minutes)  # fmt: skip


def certificate(r: Random) -> Drawn:
    """An award to a person."""
    look, size = Look.of(r, ("serif", "stix", "serif")), r.choice((21, 22, 24))
    name, signer, day = words.person(r), words.person(r), words.date(r)
    title = r.choice(("Certificate of Merit", "Certificate of Completion", "Award of Excellence", "Diploma"))
    what = r.choice(("First Aid", "Photography", "Bread Baking", "Chess", "Spanish", "Sailing", "Pottery", "Gardening"))
    place = f"{r.choice(words.TOWNS)} {r.choice(('Academy', 'College', 'Institute', 'Evening School'))}"
    hours = r.randint(6, 80)
    sheet = Sheet(r.randrange(820, 981, 20), r.randrange(580, 661, 20), look)
    width, height = sheet.width, sheet.height
    for inset, line, colour in ((20, 6, look.accent), (36, 2, look.second)):
        sheet.box(inset, inset, width - inset, height - inset, outline=colour, line=line, radius=8)
    middle = width / 2
    sheet.text(middle, 110, title, size + 22, bold=True, fill=look.accent, anchor="mm")
    sheet.text(middle, 180, "This is to certify that", size, anchor="mm")
    sheet.text(middle, 245, name, size + 16, bold=True, anchor="mm")
    sheet.line([(middle - 200, 278), (middle + 200, 278)], look.second, 2)
    sheet.text(middle, 320, "has completed the course", size, anchor="mm")
    sheet.text(middle, 372, f"{what} ({hours} hours)", size + 8, bold=True, fill=look.second, anchor="mm")
    sheet.text(middle, 425, f"at {place}", size, anchor="mm")
    sheet.text(90, height - 90, words.long_date(day), size, anchor="lm")
    sheet.text(width - 90, height - 90, signer, size, anchor="rm")
    sheet.circle(middle, height - 95, 38, look.second)
    sheet.circle(middle, height - 95, 29, None, "#ffffff", 2)
    return sheet.done(
        title=title, name=name, course=what, hours=hours, place=place, date=day.isoformat(), signer=signer
    )
