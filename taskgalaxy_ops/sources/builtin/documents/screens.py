"""Screens: settings, dialogs, web pages, slides, chats, inboxes, weather, code."""

from __future__ import annotations

from random import Random

from taskgalaxy_ops.sources.builtin.documents import words
from taskgalaxy_ops.sources.builtin.documents.canvas import Drawn, Look, Sheet, hsl

_FAMILIES = ("sans", "aileron", "sans")


def _dark(r: Random) -> tuple[bool, str, str, str]:
    """Whether a screen is dark; its ground, its surface and its ink."""
    hue = r.randrange(360)
    if r.random() < 0.4:
        return True, hsl(hue, 15, 12), hsl(hue, 14, 20), "#f0f0f0"
    return False, hsl(hue, 30, 95), "#ffffff", "#202124"


def settings_screen(r: Random) -> Drawn:
    """An app's settings: switches that are on or off, and a slider."""
    look, size = Look.of(r, _FAMILIES), r.choice((20, 21, 22))
    dark, ground, surface, ink = _dark(r)
    app = f"{r.choice(words.BRANDS)} {r.choice(('Mail', 'Maps', 'Music', 'Photos', 'Notes', 'Player'))}"
    switches = {name: r.random() < 0.5 for name in r.sample(words.SWITCHES, r.randint(4, 7))}
    if "Dark mode" in switches:
        switches["Dark mode"] = dark
    slider, level = r.choice(("Volume", "Brightness", "Text size")), r.randint(1, 19) * 5
    sheet = Sheet(r.randrange(520, 641, 20), 130 + 72 * len(switches) + 130, look, ground)
    width = sheet.width
    sheet.text(34, 52, "Settings", size + 14, bold=True, fill=ink, anchor="lm")
    sheet.text(34, 98, app, size, fill=ink, anchor="lm")
    y = 130.0
    for name, on in switches.items():
        sheet.box(20, y, width - 20, y + 64, surface, radius=12)
        sheet.text(40, y + 32, name, size, fill=ink, anchor="lm")
        sheet.box(width - 110, y + 16, width - 46, y + 48, look.accent if on else "#9a9a9a", radius=16)
        sheet.circle(width - (62 if on else 94), y + 32, 12, "#ffffff")
        y += 72
    sheet.box(20, y, width - 20, y + 100, surface, radius=12)
    sheet.text(40, y + 30, slider, size, fill=ink, anchor="lm")
    sheet.text(width - 46, y + 30, f"{level}%", size, fill=ink, anchor="rm")
    knob = 44 + (width - 90) * level / 100
    sheet.line([(44, y + 72), (width - 46, y + 72)], "#9a9a9a", 6)
    sheet.line([(44, y + 72), (knob, y + 72)], look.accent if not dark else look.soft, 6)
    sheet.circle(knob, y + 72, 13, look.accent, "#ffffff", 3)
    return sheet.done(app=app, switches=switches, on=[name for name, on in switches.items() if on], slider=slider,
                      level_percent=level, dark=dark)  # fmt: skip


def dialog(r: Random) -> Drawn:
    """A window with a message and buttons, over a desktop."""
    look, size = Look.of(r, _FAMILIES), r.choice((19, 20, 21))
    file = f"{r.choice(words.NOUNS).lower()}_{r.randint(1, 99)}.{r.choice(('txt', 'pdf', 'png', 'csv', 'zip'))}"
    kind, title, message, buttons = r.choice((
        ("question", "Delete file", f"Do you want to delete {file} for good?", ("Cancel", "Delete")),
        ("question", "Unsaved changes", f"Save the changes to {file}?", ("Don't save", "Cancel", "Save")),
        ("error", "Cannot open file", f"{file} is damaged or has an unknown format.", ("Close", "Retry")),
        ("error", "No connection", f"No answer. Error code {r.randint(100, 599)}.", ("Cancel", "Retry")),
        ("info", "Update finished", f"Version {r.randint(1, 9)}.{r.randint(0, 20)} has been installed.", ("OK",)),
        ("info", "Low battery", f"Your battery is at {r.randint(3, 19)}%. Please plug in the charger.", ("OK",)),
        ("warning", "Disk full", f"Only {r.randint(100, 900)} MB left on {r.choice('CDEF')}.", ("Later", "Clean")),
    ))  # fmt: skip
    hue, light = r.randrange(360), r.randint(35, 70)
    sheet = Sheet(r.randrange(740, 901, 20), r.randrange(500, 581, 20), look, hsl(hue, 45, light))
    width, height = sheet.width, sheet.height
    left, top, right, bottom = 90, 90, width - 90, height - 90
    sheet.box(left + 8, top + 10, right + 8, bottom + 10, hsl(hue, 45, light - 14), radius=12)
    sheet.box(left, top, right, bottom, "#fafafa", radius=12)
    sheet.box(left, top, right, top + 56, look.accent, radius=12)
    sheet.box(left, top + 30, right, top + 56, look.accent)
    sheet.text(left + 24, top + 28, title, size + 2, bold=True, fill="#ffffff", anchor="lm")
    sheet.text(right - 28, top + 28, "x", size + 4, bold=True, fill="#ffffff", anchor="mm")
    colour = {"question": "#2f6fd0", "error": "#cc2b2b", "info": "#2f8f4e", "warning": "#e39b10"}[kind]
    sign = {"question": "?", "info": "i"}.get(kind, "!")
    sheet.circle(left + 66, top + 128, 34, colour)
    sheet.text(left + 66, top + 128, sign, 40, bold=True, fill="#ffffff", anchor="mm", family="sans")
    sheet.paragraph(left + 124, top + 98, message, right - left - 156, size, fill="#1d1d1d")
    checked = None
    if len(buttons) < 3 and r.random() < 0.5:
        checked = r.random() < 0.5
        sheet.box(left + 30, bottom - 66, left + 54, bottom - 42, "#ffffff", outline="#666666", line=2, radius=3)
        if checked:
            sheet.line([(left + 35, bottom - 54), (left + 41, bottom - 47), (left + 50, bottom - 61)], "#1d1d1d", 3)
        sheet.text(left + 66, bottom - 54, "Don't ask again", size - 2, fill="#1d1d1d", anchor="lm", width=140)
    x = right - 24.0
    for number, button in enumerate(reversed(buttons)):
        wide = sheet.length(button, size, bold=True) + 44
        main = number == 0
        sheet.box(x - wide, bottom - 78, x, bottom - 30, look.accent if main else "#e2e2e2", radius=8)
        sheet.text(
            x - wide / 2, bottom - 54, button, size, bold=main, fill="#ffffff" if main else "#1d1d1d", anchor="mm"
        )
        x -= wide + 14
    return sheet.done(kind=kind, title=title, message=message, buttons=list(buttons), main_button=buttons[-1],
                      ask_again_ticked=checked)  # fmt: skip


def web_page(r: Random) -> Drawn:
    """A shop's page in a browser: menu, headline, offers with prices."""
    look, size = Look.of(r, _FAMILIES), r.choice((17, 18, 19))
    shop = words.shop(r)
    address = f"www.{shop.split()[0].lower()}.example.org"
    tabs = r.sample(("Home", "Shop", "About", "News", "Contact", "Help", "Offers"), 4)
    active = r.choice(tabs)
    offers = {
        name: f"€{r.randint(5, 480)}.{r.choice(('00', '50', '99'))}"
        for name in r.sample(words.PRODUCTS + words.DEVICES, 3)
    }
    headline = r.choice(
        ("Welcome to our shop", "Summer sale: up to {}% off", "New arrivals this week", "Free delivery over €{}")
    )
    headline = headline.format(r.randint(2, 7) * 10)
    sheet = Sheet(r.randrange(840, 981, 20), r.randrange(620, 701, 20), look, "#ffffff")
    width, height = sheet.width, sheet.height
    sheet.box(0, 0, width, 56, "#dadce0")
    for number, colour in enumerate(("#ee6a5f", "#f5bd4f", "#61c454")):
        sheet.circle(28 + 28 * number, 28, 9, colour)
    sheet.box(120, 10, width - 24, 46, "#ffffff", radius=18)
    sheet.text(142, 28, address, size - 1, fill="#3c4043", anchor="lm", width=width - 200)
    sheet.box(0, 56, width, 124, look.accent)
    sheet.text(30, 90, shop, size + 6, bold=True, fill="#ffffff", anchor="lm", width=width * 0.36)
    for number, tab in enumerate(tabs):
        x = width * 0.46 + (width * 0.54) / 4 * (number + 0.5)
        box = sheet.text(x, 90, tab, size, bold=tab == active, fill="#ffffff", anchor="mm")
        if tab == active:
            sheet.line([(box[0], 112), (box[2], 112)], "#ffffff", 4)
    sheet.box(0, 124, width, 260, look.soft)
    sheet.text(width / 2, 192, headline, size + 18, bold=True, anchor="mm", width=width - 80)
    card = (width - 120) / 3
    for number, (name, price) in enumerate(offers.items()):
        x = 30 + number * (card + 30)
        sheet.box(x, 290, x + card, height - 70, "#ffffff", outline="#cccccc", line=1.5, radius=10)
        colour = hsl(r.randrange(360), 50, 72)
        sheet.box(x + 16, 306, x + card - 16, height - 220, colour, radius=8)
        middle, foot = x + card / 2, (306 + height - 220) / 2
        if number % 2:
            sheet.circle(middle, foot, 32, "#ffffff")
        else:
            sheet.box(middle - 30, foot - 30, middle + 30, foot + 30, "#ffffff", radius=6)
        sheet.text(x + 18, height - 190, name, size + 1, bold=True, anchor="lm")
        sheet.text(x + card - 18, height - 190, price, size, anchor="rm")
        sheet.box(x + 18, height - 160, x + card - 18, height - 110, look.second, radius=8)
        sheet.text(middle, height - 135, "Add to cart", size, fill="#ffffff", anchor="mm")
    mail = f"info@{shop.split()[0].lower()}.example.org"
    sheet.text(width / 2, height - 34, mail, size - 1, fill="#555555", anchor="mm")
    return sheet.done(
        shop=shop, address=address, tabs=tabs, active_tab=active, headline=headline, offers=offers, mail=mail
    )


def slide(r: Random) -> Drawn:
    """A slide with a title, points and a number."""
    look, size = Look.of(r), r.choice((24, 26, 28))
    title = r.choice(("Goals for {}", "Results of {}", "Plan for {}", "Lessons from {}")).format(r.randint(2020, 2028))
    points = r.sample((
        f"Sales rose by {r.randint(2, 60)} percent", f"{r.randint(3, 90)} new colleagues joined us",
        f"New office in {r.choice(words.TOWNS)}", f"Costs fell by {r.randint(2, 40)} percent",
        f"{r.randint(2, 25)} products were launched", f"Partnership with {words.firm(r)}",
        f"Customer rating of {r.randint(60, 99)} percent", f"Training for {r.randint(10, 300)} people",
    ), r.randint(3, 5))  # fmt: skip
    speaker, page = words.person(r), r.randint(2, 40)
    dark = r.random() < 0.35
    hue = r.randrange(360)
    paper, ink = (hsl(hue, 45, 18), "#ffffff") if dark else (look.paper, look.ink)
    sheet = Sheet(960, r.choice((540, 600, 640)), look, paper)
    style = r.choice(("bar", "top", "corner"))
    accent = hsl(hue + 40, 75, 55) if dark else look.accent
    if style == "bar":
        sheet.box(0, 0, 26, sheet.height, accent)
    elif style == "top":
        sheet.box(0, 0, 960, 16, accent)
    else:
        sheet.polygon([(820, 0), (960, 0), (960, 140)], accent)
    sheet.text(70, 85, title, size + 18, bold=True, fill=ink, anchor="lm", width=760)
    sheet.line([(70, 125), (300, 125)], accent, 5)
    step = (sheet.height - 260) / len(points)
    for number, point in enumerate(points):
        y = 150 + step * (number + 0.5)
        sheet.circle(84, y, 8, accent)
        sheet.text(112, y, point, size, fill=ink, anchor="lm", width=800)
    sheet.text(70, sheet.height - 45, speaker, 20, fill=ink, anchor="lm")
    sheet.text(900, sheet.height - 45, str(page), 20, fill=ink, anchor="rm")
    return sheet.done(title=title, points=points, number_of_points=len(points), speaker=speaker, page=page)


def chat(r: Random) -> Drawn:
    """Two people who make an appointment."""
    look, size = Look.of(r, _FAMILIES), r.choice((19, 20, 21))
    _, ground, surface, ink = _dark(r)
    other, minute = r.choice(words.FIRST), r.randint(480, 1200)
    event, day = r.choice(words.EVENTS), r.choice(words.WEEKDAYS)
    clock, place = words.clock(r.randint(36, 80) * 15), f"{r.choice(words.STREETS)} {r.choice(words.ROADS)}"
    texts = [
        (False, r.choice(("Hi! Are you free on {}?", "Hello, any plans for {}?")).format(day)),
        (True, r.choice(("Yes, what's up?", "I think so. Why?", "Yes! Any ideas?"))),
        (False, f"There is the {event} in {place}. Shall we go?"),
        (True, r.choice(("Great idea! When does it start?", "Love to! What time?"))),
        (False, f"At {clock}. I can bring {r.choice(('tickets', 'snacks', 'my camera', 'umbrellas', 'my sister'))}."),
        (True, r.choice(("See you there!", "Perfect, see you!", "I'll be there."))),
    ][: r.randint(4, 6)]
    width = r.randrange(520, 601, 20)
    trial = Sheet(width, 10, look)
    wrapped = [trial.wrap(text, width * 0.62, size) for _, text in texts]
    height = 110 + sum(len(lines) * size * 1.4 + 68 for lines in wrapped)
    sheet = Sheet(width, round(height) + 80, look, ground)
    sheet.box(0, 0, width, 80, look.accent)
    sheet.circle(52, 40, 26, look.soft)
    sheet.text(52, 40, other[0], 26, bold=True, fill=look.accent, anchor="mm")
    sheet.text(96, 40, other, size + 4, bold=True, fill="#ffffff", anchor="lm")
    y, messages = 100.0, []
    for (mine, text), lines in zip(texts, wrapped, strict=True):
        wide = max([sheet.length(line, size) for line in lines] + [70]) + 32
        tall = len(lines) * size * 1.4 + 20
        left = width - 20 - wide if mine else 20
        sheet.box(left, y, left + wide, y + tall, look.accent if mine else surface, radius=14)
        sheet.paragraph(left + 16, y + 10, text, width * 0.62, size, fill="#ffffff" if mine else ink)
        minute += r.randint(1, 9)
        time = words.clock(minute)
        sheet.text(
            left + wide - 4 if mine else left + 4, y + tall + 14, time, 16, fill=ink, anchor="rm" if mine else "lm"
        )
        messages.append({"from": "me" if mine else other, "text": text, "time": time})
        y += tall + 48
    sheet.box(20, sheet.height - 62, width - 20, sheet.height - 16, surface, radius=22)
    sheet.text(42, sheet.height - 39, "Type a message", size - 2, fill="#8a8a8a", anchor="lm")
    return sheet.done(other=other, messages=messages, number=len(messages), day=day, event=event, place=place)


def inbox(r: Random) -> Drawn:
    """A list of mails, some unread."""
    look, size = Look.of(r, _FAMILIES), r.choice((18, 19, 20))
    _, ground, surface, ink = _dark(r)
    mails = [
        {"from": words.person(r), "subject": subject, "time": words.clock(minute), "unread": r.random() < 0.4}
        for subject, minute in zip(
            r.sample(words.SUBJECT_LINES, 7), sorted(r.sample(range(400, 1300), 7), reverse=True), strict=True
        )
    ][: r.randint(4, 7)]
    folders = {
        "Inbox": sum(bool(mail["unread"]) for mail in mails),
        "Drafts": r.randint(1, 9),
        "Sent": 0,
        "Spam": r.randint(1, 30),
    }
    sheet = Sheet(r.randrange(880, 981, 20), max(500, 110 + 84 * len(mails) + 30), look, ground)
    width = sheet.width
    sheet.box(0, 0, width, 76, look.accent)
    sheet.text(30, 38, f"{r.choice(words.BRANDS)} Mail", size + 8, bold=True, fill="#ffffff", anchor="lm")
    sheet.box(330, 18, width - 30, 58, "#ffffff", radius=8)
    sheet.text(350, 38, "Search mail", size - 2, fill="#777777", anchor="lm")
    for number, (name, count) in enumerate(folders.items()):
        y = 122 + 56 * number
        if number == 0:
            sheet.box(14, y - 24, 216, y + 24, look.soft, radius=8)
        fill = look.ink if number == 0 else ink
        sheet.text(32, y, name, size, bold=number == 0, fill=fill, anchor="lm")
        if count:
            sheet.text(198, y, str(count), size, fill=fill, anchor="rm")
    for number, mail in enumerate(mails):
        y = 96 + 84 * number
        sheet.box(234, y, width - 20, y + 76, surface, radius=8)
        unread = bool(mail["unread"])
        if unread:
            sheet.circle(254, y + 24, 7, "#2f7be0")
        sheet.text(276, y + 24, str(mail["from"]), size, bold=unread, fill=ink, anchor="lm")
        sheet.text(276, y + 53, str(mail["subject"]), size - 1, fill=ink, anchor="lm", width=width - 420)
        sheet.text(width - 40, y + 24, str(mail["time"]), size - 1, fill=ink, anchor="rm")
    return sheet.done(mails=mails, number=len(mails), unread=folders["Inbox"], folders=folders)


def weather(r: Random) -> Drawn:
    """A forecast: now and the next days, each with a symbol."""
    look, size = Look.of(r, _FAMILIES), r.choice((20, 21, 22))
    town, now = r.choice(words.TOWNS), r.randint(-8, 34)
    hue = r.choice((205, 215, 190, 230, 260))
    start, number = r.randrange(7), r.randint(4, 5)
    kinds = ("sunny", "cloudy", "rain", "partly cloudy") + (("snow",) if now < 5 else ())
    sheet = Sheet(r.randrange(680, 801, 20), 520, look, hsl(hue, 55, r.randint(30, 46)))
    width = sheet.width
    today = r.choice(kinds)
    sheet.text(44, 62, town, size + 18, bold=True, fill="#ffffff", anchor="lm")
    sheet.text(44, 112, words.WEEKDAYS[start], size, fill="#ffffff", anchor="lm")
    sheet.text(44, 190, f"{now} °C", size + 46, bold=True, fill="#ffffff", anchor="lm", family="sans")
    wind, rain = r.randint(2, 70), r.randint(0, 20) * 5
    sheet.text(44, 258, f"{today.capitalize()}, wind {wind} km/h, rain {rain}%", size, fill="#ffffff", anchor="lm")
    _sky(sheet, width - 150, 150, 62, today)
    days = []
    for day in range(1, number + 1):
        x0 = 30 + (width - 60) / number * (day - 1)
        x1 = x0 + (width - 60) / number - 12
        kind, high = r.choice(kinds), now + r.randint(-6, 6)
        low = high - r.randint(3, 9)
        sheet.box(x0, 300, x1, 490, hsl(hue, 45, 60), radius=14)
        middle, name = (x0 + x1) / 2, words.WEEKDAYS[(start + day) % 7]
        sheet.text(middle, 328, name[:3], size, bold=True, fill="#ffffff", anchor="mm")
        _sky(sheet, middle, 388, 27, kind)
        sheet.text(
            middle, 458, f"{high}° / {low}°", size, fill="#ffffff", anchor="mm", width=x1 - x0 - 8, family="sans"
        )
        days.append({"day": name, "weather": kind, "high": high, "low": low})
    return sheet.done(town=town, now_celsius=now, weekday=words.WEEKDAYS[start], weather=today, wind_km_h=wind,
                      rain_percent=rain, days=days)  # fmt: skip


def _sky(sheet: Sheet, x: float, y: float, size: float, kind: str) -> None:
    if kind in ("sunny", "partly cloudy"):
        shift = size * 0.45 if kind == "partly cloudy" else 0
        sheet.circle(x - shift, y - shift, size * 0.7, "#ffd23f")
    if kind != "sunny":
        cloud = "#f2f4f7" if kind in ("partly cloudy", "snow") else "#c3ccd6"
        for dx, dy, reach in ((-0.5, 0.1, 0.45), (0.1, -0.15, 0.6), (0.6, 0.15, 0.42)):
            sheet.circle(x + dx * size, y + dy * size, reach * size, cloud)
        sheet.box(x - size * 0.6, y + size * 0.1, x + size * 0.7, y + size * 0.56, cloud, radius=size * 0.2)
    for dx in (-0.4, 0.05, 0.5):
        if kind == "rain":
            sheet.line(
                [(x + dx * size, y + size * 0.7), (x + (dx - 0.15) * size, y + size * 1.15)], "#5cc8ff", size * 0.1
            )
        elif kind == "snow":
            sheet.circle(x + dx * size, y + size * 0.9, size * 0.11, "#ffffff")


def code_screen(r: Random) -> Drawn:
    """A few lines of Python in an editor, and what they print."""
    look, size = Look.of(r, ("mono",)), r.choice((20, 21, 22))
    a, b, n = r.randint(2, 30), r.randint(2, 30), r.randint(3, 6)
    names = r.sample([name.lower() for name in words.FRUITS], 3)
    numbers = [r.randint(1, 40) for _ in range(5)]
    lines, output = r.choice((
        ([f"width = {a}", f"height = {b}", "area = width * height", "print(area)"], str(a * b)),
        (["total = 0", f"for i in range({n}):", "    total = total + i", "print(total)"], str(sum(range(n)))),
        ([f"numbers = {numbers}", "largest = max(numbers)", "print(largest)"], str(max(numbers))),
        ([f"fruits = {names}".replace("'", '"'), "print(len(fruits))", "print(fruits[0])"], f"3\n{names[0]}"),
        ([f"x = {a}", f"if x > {b}:", '    print("large")', "else:", '    print("small")'],
         "large" if a > b else "small"),
        (["def double(x):", "    return 2 * x", "", f"print(double({a}))"], str(2 * a)),
        ([f'word = "{names[1]}"', "print(word.upper())", "print(len(word))"], f"{names[1].upper()}\n{len(names[1])}"),
        ([f"a = {a}", f"b = {b}", "a, b = b, a", "print(a - b)"], str(b - a)),
    ))  # fmt: skip
    lines = [f"# {r.choice(words.ADJECTIVES).lower()} {r.choice(words.NOUNS).lower()}", *lines]
    dark = r.random() < 0.6
    hue = r.randrange(360)
    paper, ink, soft = (hsl(hue, 18, 14), "#e8e8e8", "#8f9aa5") if dark else (hsl(hue, 30, 97), "#1e1e1e", "#6b7680")
    file = f"{r.choice(words.NOUNS).lower()}.py"
    printed = output.split("\n")
    row = size * 1.6
    sheet = Sheet(
        r.randrange(680, 821, 20), round(90 + row * (len(lines) + len(printed)) + r.randint(200, 400)), look, paper
    )
    sheet.box(0, 0, sheet.width, 54, hsl(hue, 20, 26 if dark else 86))
    sheet.text(30, 27, file, size - 2, fill=ink, anchor="lm")
    for number, line in enumerate(lines, 1):
        y = 90 + row * (number - 1)
        sheet.text(46, y, str(number), size, fill=soft, anchor="rm")
        if line:
            indent = len(line) - len(line.lstrip())
            x = 70 + indent * sheet.length(" ", size)
            sheet.text(
                x, y, line.strip(), size, fill=soft if line[0] == "#" else ink, anchor="lm", width=sheet.width - x - 20
            )
    foot = sheet.height - 60 - row * len(printed)
    sheet.box(0, foot - 34, sheet.width, sheet.height, "#000000" if dark else "#e6e6e6")
    sheet.text(30, foot - 6, "Output", size - 2, bold=True, fill=soft, anchor="lm")
    for number, line in enumerate(printed):
        sheet.text(30, foot + 28 + row * number, line, size, fill=ink, anchor="lm")
    return sheet.done(file=file, code=lines, output=output, language="Python", lines=len(lines))
