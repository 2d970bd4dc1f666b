"""Rules on printed text: which line, which words, which date, address or number stands there."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from taskgalaxy_ops.simulator.judges import finding, layout, words
from taskgalaxy_ops.simulator.judges.finding import Found, SenselessError, short
from taskgalaxy_ops.simulator.judges.readers import Piece
from taskgalaxy_ops.simulator.judges.views import View

if TYPE_CHECKING:
    from taskgalaxy_ops.simulator.judges.checking import Rule

Params = Mapping[str, str]

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)(?![a-z])"
)
DATE = re.compile(
    rf"\d{{4}}[-./]\d{{1,2}}[-./]\d{{1,2}}|\d{{1,2}}[-./]\d{{1,2}}[-./]\d{{2,4}}"
    rf"|\d{{1,2}}(?:st|nd|rd|th)?\.?\s?{_MONTH}\.?,?\s?\d{{4}}|{_MONTH}\.?\s?\d{{1,2}}(?:st|nd|rd|th)?\s?[,.]?\s?\d{{4}}"
    rf"|\d{{1,2}}(?:st|nd|rd|th)?\.?\s?{_MONTH}\b|{_MONTH}\.?\s?\d{{1,2}}\b|{_MONTH}\.?\s?\d{{4}}",
    re.IGNORECASE,
)
TIME = re.compile(r"(?<!\d)\d{1,2}\s?[:.]\s?\d{2}(?!\d)\s?(?:[ap]\.?m\.?)?|\d{1,2}\s?[ap]\.?m\.?\b", re.IGNORECASE)
_PERCENT = re.compile(r"\d+(?:[.,]\d+)?\s?[%％]")
_UNIT = re.compile(
    r"\d+(?:[.,]\d+)?\s?(?:mg|kg|g|ml|cl|dl|l|km/h|mph|km|cm|mm|m|kcal|kj|kwh|kw|w|v|°\s?[cf]?|oz|lb|ft|mi|gb|mb"
    r"|min(?:utes?)?|h(?:ours?)?|days?|weeks?|months?|years?|sec(?:onds?)?|people|persons?|portions?|pieces)\b",
    re.IGNORECASE,
)
_PHONE = re.compile(r"\+?\(?\d[\d\s().\-/]{5,}\d")
_MAIL = re.compile(r"[\w.+-]+\s?@\s?[\w.-]+\.?\w+")
_WEB = re.compile(
    r"(?:https?[:/;]*|www[.,])?[\w-]+(?:\.[\w-]+)*\.(?:com|org|net|example|info|co|io|de|uk|eu|gov|edu|shop|travel|test)\b[\w/.-]*",
    re.IGNORECASE,
)
_TALL = 0.9  # share of the greatest height from which letters count as about as tall
_STOPWORDS = {
    "English": "the and of to in is for with on at by from your our are this that please be will",
    "German": "der die das und ist ein eine für mit von zu auf nicht bitte den im wir sie ihr",
    "French": "le la les et est une des pour avec dans sur pas vous nous au du ce votre",
    "Spanish": "el la los las es una para con por del que en su se al no más",
    "Italian": "il lo la gli è una per con di che del nel non si alla sono",
}


def line_found(what: str, *lines: Piece) -> Found:
    """Right is any of these lines, or the words of one that the reader cut in two."""
    if not lines:
        raise SenselessError(f"I read nothing that could be {what}")
    texts = [line.text for line in lines]
    return finding.text(what, *texts)


def _tallest(view: View, lines: list[Piece]) -> list[Piece]:
    heights = {id(line): layout.letters(view, line) for line in lines}
    most = max(heights.values())
    return sorted((line for line in lines if heights[id(line)] >= _TALL * most), key=lambda line: -heights[id(line)])


def title_lines(view: View) -> list[Piece]:
    """The lines near the top that are about as tall as the tallest of them, that one first."""
    lines = layout.need_text(view)
    upper = [line for line in lines[:3] if line.y < 0.5 * view.height and any(c.isalpha() for c in line.text)]
    return _tallest(view, upper or lines[:1])


def _title(view: View, _: Params) -> Found:
    tall = title_lines(view)
    joined = [run for run in _runs(view.lines, tall) if len(run) > 1]
    return finding.text("the title", *(line.text for line in tall), *(" ".join(p.text for p in run) for run in joined))


def _runs(lines: list[Piece], chosen: list[Piece]) -> list[list[Piece]]:
    """Neighbouring lines that are all among the chosen."""
    found: list[list[Piece]] = [[]]
    for line in lines:
        if line in chosen:
            found[-1].append(line)
        elif found[-1]:
            found.append([])
    return [run for run in found if run]


def _largest(view: View, _: Params) -> Found:
    candidates = [p for p in [*layout.need_text(view), *view.pieces] if not p.upright]
    # a short piece that is higher than wide is most likely cut from text that stands upright
    level = [p for p in candidates if p.width > 0.8 * p.height or len(p.text) > 2 or not p.text.isalnum()]
    return line_found("the largest text", *_tallest(view, level or candidates))


def _headings(view: View, _: Params) -> Found:
    lines = layout.need_text(view, 3)
    sizes = [(layout.letters(view, line), line) for line in lines]
    body = sorted(size for size, _ in sizes)[len(lines) // 3]
    tall = [line for size, line in sizes if size > 1.1 * body]
    surely = [line for size, line in sizes if size > 1.35 * body]

    def agrees(said: str) -> bool:
        entries = [part for part in said.split(";") if part.strip()]
        unseen, _ = words.same_items(entries, [line.text for line in tall], 0.8)
        _, missed = words.same_items(entries, [line.text for line in surely], 0.8)
        places = [words.best(entry, [line.text for line in tall])[0] for entry in entries]
        return not unseen and not missed and places == sorted(places)

    return Found(f"headings: {short('; '.join(line.text for line in surely or tall))}", agrees)


def _end_line(index: int, what: str) -> Rule:
    """A rule that asks for the first or last line."""

    def rule(view: View, _: Params) -> Found:
        lines = layout.need_text(view)
        line = lines[index]
        near = [other for other in lines if abs(other.y - line.y) < 0.5 * min(line.height, other.height)]
        return line_found(what, line, *near)

    return rule


def _line_count(view: View, _: Params) -> Found:
    count = len(layout.need_text(view))
    return finding.number("the number of lines", count, tolerance=0.0)


def _word_count(view: View, _: Params) -> Found:
    layout.need_text(view)
    count = len(layout.printed_words(view))
    return finding.number("the number of words", count, tolerance=1.0 if count > 4 else 0.0)


def _longest_word(view: View, _: Params) -> Found:
    layout.need_text(view)
    cut = r"[^\W\d_]?[^\W\d_A-Z]+|[A-Z]{2,}"  # where a small letter is followed by a capital, a blank was lost
    printed = [part for word in layout.printed_words(view) for part in re.findall(cut, word)] or [""]
    longest = max(printed, key=lambda w: len(words.squash(w)))
    most = len(words.squash(longest))
    text = layout.everything(view)

    def agrees(said: str) -> bool:
        return len(words.squash(said)) >= most and words.within(said, text, 0.9)

    return Found(f"the longest word is '{short(longest)}'", agrees)


def _transcription(view: View, _: Params) -> Found:
    lines = layout.need_text(view)
    mine = " ".join(line.text for line in lines)

    def agrees(said: str) -> bool:
        missing = [p for p in view.pieces if len(p.text) > 3 and not p.upright and not words.within(p.text, said, 0.72)]
        shorter = len(words.squash(said)) < 0.93 * len(words.squash(mine))
        if words.likeness(said, mine) < 0.84 or missing or shorter:
            return False
        printed = words.squash(mine)
        strange = [w for w in re.findall(r"\w{4,}", said) if not words.within(w, printed, 0.74)]
        figures = words.digits(said), words.digits(mine)
        return len(strange) <= 0.04 * len(said.split()) and words.likeness(f"x{figures[0]}", f"x{figures[1]}") > 0.93

    return Found(f"I read '{short(mine)}'", agrees)


def _capitals(view: View, _: Params) -> Found:
    layout.need_text(view)
    found = [re.sub(r"^\W+|\W+$", "", word) for word in layout.printed_words(view)]
    seen = list(dict.fromkeys(w for w in found if sum(c.isalpha() for c in w) >= 2 and w == w.upper()))
    if not seen:
        raise SenselessError("I read no word in capitals")
    whole = " ".join(words.squash(word) for word in seen)

    def agrees(said: str) -> bool:
        entries = [part.strip() for part in said.split(";") if part.strip()]
        strange = [entry for entry in entries if entry != entry.upper() or not words.within(entry, whole, 0.8)]
        told = words.squash(said)
        missing = [word for word in seen if len(words.squash(word)) > 2 and not words.within(word, told, 0.8)]
        return not strange and len(missing) <= max(0, len(seen) // 6)

    return Found(f"in capitals: {short(' '.join(seen))}", agrees)


def _language(view: View, _: Params) -> Found:
    layout.need_text(view)
    printed = [word.strip(".,:;!?").lower() for line in view.lines for word in line.text.split()]
    counts = {name: sum(word in common.split() for word in printed) for name, common in _STOPWORDS.items()}
    name = max(counts, key=lambda k: counts[k])
    return finding.choice("the language", name if counts[name] else "English")


def printed(pattern: re.Pattern[str], what: str, least: float = 0.85, *, exact: bool = False) -> Rule:
    """A rule that asks for something with a form of its own: right is what is printed in that form.

    Where it must be ``exact``, no letter may be missing or added.
    """

    def rule(view: View, _: Params) -> Found:
        text = "\n".join([layout.everything(view), *(p.text for p in view.pieces)])
        seen = [match.group().strip() for match in pattern.finditer(text)]
        if not seen:
            raise SenselessError(f"I read no {what}")

        def agrees(said: str) -> bool:
            near = [value for value in seen if same_form(said, value, least)]
            # blanks before it may have been lost: then it ends a long run of letters
            ends = exact and any(words.squash(v).endswith(words.squash(said)) and len(v) > len(said) + 8 for v in seen)
            return ends or any(not exact or len(words.squash(said)) == len(words.squash(value)) for value in near)

        return Found(f"I read the {what} '{short(seen[0])}'", agrees)

    return rule


def same_form(said: str, seen: str, least: float = 0.85) -> bool:
    """Whether two dates, addresses or quantities are one: digits exactly, letters nearly."""
    if words.digits(said) != words.digits(seen):
        return False
    return words.likeness(f"x{said}", f"x{seen}") >= least


def _year(view: View, _: Params) -> Found:
    seen = [float(y) for y in re.findall(r"(?<!\d)(?:1[5-9]|20)\d{2}(?!\d)", layout.everything(view))]
    if not seen:
        raise SenselessError("I read no year")
    return finding.number("the year", *dict.fromkeys(seen))


def _price(view: View, _: Params) -> Found:
    text = layout.everything(view)
    seen = [words.numbers(m.group()) for m in layout.AMOUNT.finditer(text)]
    seen += [words.numbers(m) for m in re.findall(r"[$€£¥]\s?\d+(?:[.,]\d+)?|\d+(?:[.,]\d+)?\s?[€£$]", text)]
    values = [v[-1] for v in seen if v]
    if not values:
        raise SenselessError("I read no price")
    return finding.number("the price", *values)


def _percentages(view: View, _: Params) -> Found:
    layout.need_text(view)
    seen = [m.group() for line in view.lines for m in _PERCENT.finditer(line.text)]
    return figures_found("the percentages", seen, view)


def figures_found(what: str, seen: list[str], view: View) -> Found:
    """Right is the list of these figures in order; one in ten may be missed, none may be another."""
    if not seen:
        raise SenselessError(f"I read none of {what}")
    mine = [words.digits(s) for s in seen]
    everything = words.digits(" ".join(p.text for p in view.pieces))

    def agrees(said: str) -> bool:
        theirs = [words.digits(part) for part in said.split(";") if part.strip()]
        strange = [t for t in theirs if t not in mine and t not in everything]
        kept = [t for t in theirs if t in mine]
        missed = len(mine) - len(kept)
        order = [mine.index(t) for t in dict.fromkeys(kept)]
        swaps = sum(a > b for a, b in itertools.pairwise(order))
        if "".join(theirs) == "".join(mine):  # cut in other places
            return True
        slack = len(mine) // 8
        return bool(theirs) and not strange and missed <= slack and len(theirs) - len(mine) <= slack and swaps <= slack

    return Found(f"{what}: {short('; '.join(seen))}", agrees)


def _address(view: View, _: Params) -> Found:
    lines = layout.need_text(view)
    halves = [piece.text for piece in [*lines, *view.pieces]]
    if not any(re.search(r"\d", text) for text in halves):
        raise SenselessError("I read no address")

    def agrees(said: str) -> bool:
        return all(any(words.within(part, text) for text in halves) for part in said.split(", ") if part)

    seen = next((line for line in halves if re.search(r"\d", line)), halves[0])
    return Found(f"I read '{short(seen)}'", agrees)


def _sign(view: View, _: Params) -> Found:
    lines = layout.need_text(view)
    return finding.text("the sign", " ".join(line.text for line in lines), least=0.86)


RULES: dict[str, Rule] = {
    "title reading": _title,
    "largest text reading": _largest,
    "heading listing": _headings,
    "first line reading": _end_line(0, "the topmost line"),
    "last line reading": _end_line(-1, "the bottom line"),
    "text line counting": _line_count,
    "word counting": _word_count,
    "longest word finding": _longest_word,
    "full text transcription": _transcription,
    "uppercase word finding": _capitals,
    "language identification": _language,
    "date reading": printed(DATE, "date"),
    "year reading": _year,
    "clock time reading": printed(TIME, "time"),
    "price reading": _price,
    "percentage reading": _percentages,
    "measurement reading": printed(_UNIT, "quantity", 0.7),
    "phone number extraction": printed(_PHONE, "telephone number", 0.6),
    "email address extraction": printed(_MAIL, "e-mail address", 0.92, exact=True),
    "web address extraction": printed(_WEB, "web address", 0.92, exact=True),
    "postal address extraction": _address,
    "sign reading": _sign,
    "dialog title reading": _end_line(0, "the window's title"),
}
