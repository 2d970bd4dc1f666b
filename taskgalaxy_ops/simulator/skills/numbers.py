"""Skills for numbers, dates and the like in text, and for contact details."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

from taskgalaxy_ops.simulator.perception import SURE, Scene
from taskgalaxy_ops.simulator.skills.base import Asked, Found, asked, many, need, one, quoted, skill, sure_rows
from taskgalaxy_ops.simulator.skills.text import bare, words

MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_MONTH = "(?:" + "|".join(f"{m}|{m[:3]}" for m in MONTHS) + r")\.?"
DATE = re.compile(
    rf"(?<!\d )\b\d{{1,2}}\.? {_MONTH} (?:19|20)\d\d\b"
    rf"|\b{_MONTH} \d{{1,2}}, (?:19|20)\d\d\b|\b(?:19|20)\d\d-\d\d-\d\d\b"
    r"|\b\d{1,2}[/.]\d{1,2}[/.](?:19|20)\d\d\b"
)
TIME = re.compile(r"(?<![\d:.])(?:[01]?\d|2[0-3]):[0-5]\d(?![\d:])")
_YEAR = re.compile(r"(?<![\d.,-])(?:19|20)\d\d(?![\d.,]\d|\d)")
_PRICE = re.compile(r"\$ ?\d+(?:,\d{3})*\.\d\d(?!\d)")
_PER_CENT = re.compile(r"(?<![\d.,])\d+(?:\.\d+)? ?%")
_UNITS = "g|kg|mg|ml|cl|l|mm|cm|m|km|km/h|mph|kcal|kJ|°C|°F|kW|W|V|GB|MB|minutes|hours|days"
_MEASURE = re.compile(rf"(?<![\d.,])\d+(?:\.\d+)? ?(?:{_UNITS})(?![\w/])")
_NUMBER = re.compile(r"\d+|\d{1,3}(?:,\d{3})+|\d+\.\d+")
_PHONE = re.compile(r"\+?\(?\d[\d ()/-]{5,}\d")
_MAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_WEB = re.compile(
    r"(?:https?://|www\.)[\w./-]+\w|(?<![@\w.])[\w-]+(?:\.[\w-]+)*\.(?:com|org|net|example)(?:/[\w/-]+)?\b"
)
_STREET = re.compile(r"^\d{1,4} (?:[A-Z][a-z]+ ){1,2}(?:Street|Road|Lane|Avenue)$")
_TOWN = re.compile(r"^[A-Z][a-z]+(?: [A-Z][a-z]+)* \d{4,5}$")


def changed(text: str, step: int = 1) -> str:
    """The text with its last digit that may change raised by ``step``, modulo 10."""
    place = max((i for i, c in enumerate(text) if c.isdigit()), default=-1)
    if place < 0:
        return text + "s"
    return f"{text[:place]}{(int(text[place]) + step) % 10}{text[place + 1 :]}"


def _changes(text: str) -> list[str]:
    """Other texts of the same form: different digits in two places."""
    places = [i for i, c in enumerate(text) if c.isdigit()]
    found = [changed(text, 3), changed(text, 5)]
    if len(places) > 2 and int(text[places[-2]]) < 8:
        i = places[-2]
        found.append(f"{text[:i]}{int(text[i]) + 1}{text[i + 1 :]}")
    return found


def _only(scene: Scene, pattern: re.Pattern[str], what: str) -> tuple[str, str]:
    """The one match in all text (repeated ones count once), and the row's text where it stands."""
    need(scene.segments, "no text can be seen in the image")
    found: dict[str, str] = {}
    for segment in scene.segments:
        for match in pattern.findall(segment.text):
            need(segment.sure >= SURE, f"a {what} is there but cannot be read with certainty")
            found.setdefault(match, segment.text)
    need(found, f"no {what} is printed in the image")
    need(len(found) == 1, f"more than one {what} is printed")
    return next(iter(found.items()))


def _reading(scene: Scene, pattern: re.Pattern[str], what: str, wrong: Callable[[str], list[str]] = _changes) -> Found:
    text, line = _only(scene, pattern, what)
    where = "stands alone" if line == text else f"stands in {quoted(line)}"
    why = f"Looking through all printed text, one {what} can be found. It {where}, and reads {text}."
    return one(f"text with one {what}", text, wrong(text), why)


def _plain_numbers(scene: Scene) -> list[str]:
    """All numbers, if everything that has a digit is a plain number, and no text is in doubt."""
    sure_rows(scene)
    need(not scene.unread, "some of the text stands upright or is too small")
    with_digits = [bare(word) for word in words(scene) if any(c.isdigit() for c in word)]
    need(with_digits, "no number is printed in the image")
    need(all(_NUMBER.fullmatch(w) for w in with_digits), "digits stand in dates, codes or prices, not as plain numbers")
    need(not DATE.search(scene.text), "a date is printed rather than plain numbers")
    return with_digits


@skill("ocr~number & date ocr~number reading")
def number_reading(scene: Scene) -> Found:
    found = _plain_numbers(scene)
    need(len(found) <= 8, "too many numbers to list them")
    answer = "; ".join(found)
    wrong = ["; ".join([*found[:-1], changed(found[-1], 4)]), "; ".join([changed(found[0], 3), *found[1:]])]
    why = f"In reading order, the words that are made of digits are {', '.join(found)}. No other number is printed."
    return one(f"{len(found)} printed number(s)", answer, wrong, why)


@skill("ocr~number & date ocr~largest number finding")
def largest_number(scene: Scene) -> Found:
    found = sorted(set(_plain_numbers(scene)), key=lambda text: -value(text))
    need(len(found) >= 3 and value(found[0]) > value(found[1]), "no several different numbers")
    why = f"Comparing all printed numbers, {found[0]} is the greatest. The next is {found[1]}."
    return one("several printed numbers", found[0], found[1:4], why)


def value(text: str) -> float:
    """What a printed number is worth; separators of thousands are left out."""
    return float(text.replace(",", ""))


@skill("ocr~number & date ocr~date reading")
def date(scene: Scene) -> Found:
    return _reading(scene, DATE, "date")


@skill("ocr~number & date ocr~year reading")
def year(scene: Scene) -> Found:
    return _reading(scene, _YEAR, "year")


@skill("ocr~number & date ocr~clock time reading")
def clock_time(scene: Scene) -> Found:
    return _reading(scene, TIME, "time", lambda text: [w for w in _changes(text) if TIME.fullmatch(w)] or ["12:00"])


@skill("ocr~number & date ocr~price reading")
def price(scene: Scene) -> Found:
    need(len(re.findall(r"\d+[.,]\d\d(?!\d)", scene.text)) == 1, "no single price is printed")
    return _reading(scene, _PRICE, "price")


@skill("ocr~number & date ocr~percentage reading")
def percentages(scene: Scene) -> Found:
    need(scene.text.count("%"), "no percentage is printed in the image")
    need(not scene.unread or scene.text.count("%") > 1, "some of the text cannot be read")
    rows = [row for row in scene.rows if "%" in row.text]
    need(all(row.sure >= SURE for row in rows), "a percentage cannot be read with certainty")
    found = [match for row in rows for match in _PER_CENT.findall(row.text)]
    need(len(found) == scene.text.count("%") and len(found) <= 3, "no few percentages with their numbers")
    why = f"A percentage sign stands in {len(found)} place(s). Read from top to bottom, they are {', '.join(found)}."
    wrong = ["; ".join([changed(found[0], 4), *found[1:]]), "; ".join([*found[:-1], changed(found[-1], 3)])]
    return one("printed percentages", "; ".join(found), wrong, why)


@skill("ocr~number & date ocr~measurement reading")
def measurement(scene: Scene) -> Found:
    return _reading(scene, _MEASURE, "quantity with a unit")


@skill("ocr~contact detail ocr~phone number extraction")
def phone(scene: Scene) -> Found:
    need(re.search(r"(?i)\b(?:tel|phone|call|mobile|fax)\b|\+\d", scene.text), "no telephone number can be seen")
    found = []
    for row in scene.rows:
        for match in _PHONE.findall(DATE.sub("", row.text)):
            if sum(c.isdigit() for c in match) >= 7:
                need(row.sure >= SURE, "the telephone number cannot be read with certainty")
                found.append((match, row.text))
    need(len(found) == 1, "no single telephone number can be seen")
    text, line = found[0]
    why = f"The line {quoted(line)} holds the only telephone number. It reads {text}."
    return one("a telephone number in the text", text, _changes(text), why)


@skill("ocr~contact detail ocr~email address extraction")
def mail(scene: Scene) -> Found:
    def wrong(text: str) -> list[str]:
        name, host = text.split("@")
        return [f"info@{host}", f"{name}@mail.{host}", f"{name}s@{host}"]

    need(scene.text.count("@") == 1, "no single e-mail address can be seen")
    return _reading(scene, _MAIL, "e-mail address", wrong)


@skill("ocr~contact detail ocr~web address extraction")
def web(scene: Scene) -> Found:
    need("@" not in scene.text, "an e-mail address, or no web address, is printed")
    return _reading(scene, _WEB, "web address", lambda text: [text.rsplit(".", 1)[0] + ".info", f"shop.{text}"])


@skill("ocr~contact detail ocr~postal address extraction")
def postal_address(scene: Scene) -> Found:
    streets = [s for s in scene.segments if _STREET.match(s.text)]
    towns = [s for s in scene.segments if _TOWN.match(s.text)]
    need(len(streets) == 1 and len(towns) == 1, "no single postal address can be seen")
    street, town = streets[0], towns[0]
    need(min(street.sure, town.sure) >= SURE, "the address cannot be read with certainty")
    need(0 < town.middle[1] - street.middle[1] < 0.12 * scene.height, "street and town do not stand together")
    answer = f"{street.text}, {town.text}"
    wrong = (f"{changed(street.text, 4)}, {town.text}", f"{street.text}, {changed(town.text, 3)}")
    why = (
        f"The street with its number is {quoted(street.text)}. "
        f"Below it stands the town with its postcode, {quoted(town.text)}."
    )
    return one("a postal address", answer, wrong, why)


@skill("mathematics~arithmetic on images~odd or even number identification")
def odd_or_even(scene: Scene) -> Found:
    found = [n for n in dict.fromkeys(_plain_numbers(scene)) if n.isdigit() and len(n) < 5]
    need(found, "no whole number is printed")

    def ask(number: str) -> Asked:
        answer = "even" if int(number) % 2 == 0 else "odd"
        why = f"The number {number} is printed in the image. Its last digit is {number[-1]}, so it is {answer}."
        return asked(answer, ("odd", "even"), why, number=number)

    return many("printed whole numbers", [ask(number) for number in found[:8]])


@skill("mathematics~arithmetic on images~difference of numbers")
def difference(scene: Scene) -> Found:
    found = [n for n in dict.fromkeys(_plain_numbers(scene)) if n.isdigit() and len(n) < 5]
    need(2 <= len(found) <= 40, "no pair of whole numbers is printed")
    pairs = [(a, b) for a, b in pairwise(found) if int(a) != int(b)]

    def ask(a: str, b: str) -> Asked:
        answer = abs(int(a) - int(b))
        why = f"Both {a} and {b} are printed in the image. {max(int(a), int(b))} - {min(int(a), int(b))} = {answer}."
        return asked(str(answer), (str(answer + 10), str(answer + 2), str(int(a) + int(b))), why, first=a, second=b)

    return many("printed whole numbers", [ask(a, b) for a, b in pairs[:8]])


@skill("mathematics~arithmetic on images~printed equation solving")
def equation(scene: Scene) -> Found:
    pattern = re.compile(r"(?<![\d.,])(\d{1,3}) ?([+\-×x÷]) ?(\d{1,3}) ?= ?(?:\?|_*)\s*$")
    questions = []
    for row in scene.rows:
        match = pattern.search(row.text)
        if match and row.sure >= SURE:
            a, sign, b = int(match[1]), match[2], int(match[3])
            if sign == "÷" and (b == 0 or a % b):
                continue
            result = {"+": a + b, "-": a - b}.get(sign, a * b if sign in "×x" else a // max(1, b))
            why = f"The calculation {match[1]} {sign} {match[3]} is printed. Its result is {result}."
            expression = f"{match[1]} {sign} {match[3]}"
            wrong = (str(result + 1), str(result + 10), str(result - 2))
            questions.append(asked(str(result), wrong, why, expression=expression))
    need(questions, "no printed calculation can be seen")
    return many("a printed calculation", questions)
