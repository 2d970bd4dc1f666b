"""Skills for how text is laid out on a page, where it stands, and what kind of document it makes."""

from __future__ import annotations

import re
from itertools import combinations, pairwise

import numpy as np

from taskgalaxy_ops.simulator import structure
from taskgalaxy_ops.simulator.perception import SURE, Row, Scene
from taskgalaxy_ops.simulator.skills import amounts, tables
from taskgalaxy_ops.simulator.skills.base import (
    Asked,
    Found,
    NoFit,
    asked,
    in_cell,
    many,
    need,
    one,
    other_regions,
    quoted,
    region,
    skill,
)
from taskgalaxy_ops.simulator.skills.text import single, title_row, words

_TYPES = ("receipt", "invoice", "form", "menu", "timetable", "calendar", "letter")
_MOST = 12  # questions kept of many possible ones


def _page(scene: Scene, least: int = 5) -> list[Row]:
    need(len(scene.rows) >= least, "no page with several lines of text")
    return scene.rows


def _running(scene: Scene) -> list[Row]:
    """Rows of running text, all in one column and in letters of one size."""
    rows = _page(scene, 4)
    need(all(single(row) for row in rows), "the text is set in cells or columns side by side")
    return rows


@skill("documents~layout~page orientation")
def page_orientation(scene: Scene) -> Found:
    rows = _page(scene)
    need(not scene.photo, "no page of a document")
    ratio = scene.width / scene.height
    need(ratio > 1.12 or ratio < 0.89, "the page is nearly square")
    answer = "landscape" if ratio > 1 else "portrait"
    relation = "wider than it is high" if ratio > 1 else "higher than it is wide"
    why = (
        f"The page with {len(rows)} lines of text is {scene.width} by {scene.height} pixels. "
        f"It is {relation}, so it is {answer}."
    )
    return one(f"a page in {answer} format", answer, ("portrait", "landscape"), why)


@skill("documents~layout~table presence")
def table_presence(scene: Scene) -> Found:
    rows = _page(scene, 4)
    found = structure.table(scene)
    prose = all(single(row) for row in rows) and sum(len(row.text.split()) >= 4 for row in rows) >= 4
    need(found is not None or prose, "it is not certain whether there is a table")
    if found is not None:
        why = (
            f"Text stands in {len(found.header)} columns under the headings "
            f"{', '.join(map(quoted, filter(None, found.header)))}. So there is a table."
        )
        return one("a page with a table", "Yes", ("Yes", "No"), why)
    why = "All lines of the page are running text. Nothing is set in rows and columns, so there is no table."
    return one("a page of running text", "No", ("Yes", "No"), why)


@skill("documents~layout~text density estimation")
def density(scene: Scene) -> Found:
    rows = _page(scene, 4)
    need(scene.graphic, "no page of a document")
    share = sum((s.right - s.left) * (s.bottom - s.top) for s in scene.segments) / (scene.width * scene.height)
    outside = np.abs(scene.light - np.median(scene.light)) > 40
    for s in scene.segments:
        outside[int(s.top) : int(s.bottom) + 1, int(s.left) : int(s.right) + 1] = False
    need(outside.mean() < 0.01, "figures or areas of colour beside the text")
    need(share < 0.06 or (share > 0.25 and len(rows) > 10), "the page is neither sparse nor full")
    answer = "sparsely" if share < 0.06 else "densely"
    why = f"The {len(rows)} lines of text cover about {round(100 * share)} % of the page. So it is filled {answer}."
    return one(f"a page {answer} filled with text", answer, ("sparsely", "densely"), why)


@skill("documents~layout~title position")
def title_position(scene: Scene) -> Found:
    row = title_row(scene)
    _page(scene, 3)
    middle = (row.left + row.right) / 2 / scene.width
    centred = abs(middle - 0.5) < 0.03 and row.left > 0.12 * scene.width
    left = row.left < 0.15 * scene.width and middle < 0.4
    right = row.right > 0.85 * scene.width and middle > 0.6
    need(centred or left or right, "the title stands neither clearly left, centred nor right")
    answer = "centre" if centred else "left" if left else "right"
    why = (
        f"The title is {quoted(row.text)}. "
        f"Its middle lies at {round(100 * middle)} % of the page's width, which is {answer}."
    )
    return one("a page with a title", answer, ("left", "centre", "right"), why)


@skill("documents~layout~text alignment")
def alignment(scene: Scene) -> Found:
    rows = _running(scene)
    lefts, rights = np.array([r.left for r in rows]), np.array([r.right for r in rows])
    edges = {
        "aligned left": np.ptp(lefts),
        "centred": np.ptp((lefts + rights) / 2),
        "aligned right": np.ptp(rights),
    }
    (answer, least), (_, second) = sorted(edges.items(), key=lambda item: float(item[1]))[:2]
    need(least < 0.02 * scene.width and second > 0.08 * scene.width, "the lines are set in more than one way")
    what = {"aligned left": "left edges", "centred": "middles", "aligned right": "right edges"}[answer]
    why = (
        f"The {what} of all {len(rows)} lines lie one below the other. "
        f"Their other edges differ, so the text is {answer}."
    )
    return one(f"lines of text that are {answer}", answer, edges, why)


@skill("documents~layout~column counting")
def columns(scene: Scene) -> Found:
    rows = _page(scene, 6)
    need(structure.table(scene) is None, "a table, not columns of running text")
    pairs = [r for r in rows if len(r.segments) == 2 and all(len(s.text.split()) >= 3 for s in r.segments)]
    prose = [r for r in rows if single(r) and len(r.text.split()) >= 5]
    two = len(pairs) >= 6 and np.ptp([r.segments[1].left for r in pairs]) < 0.03 * scene.width
    one_column = (
        len(prose) >= 5 and all(single(r) for r in rows) and np.ptp([r.left for r in prose]) < 0.03 * scene.width
    )
    need(two or one_column, "no columns of running text can be told apart")
    count = 2 if two else 1
    why = (
        "Most lines consist of two runs of text with a gap between them at the same place. So there are two columns."
        if two
        else "All lines begin at the same left edge and none is split by a gap. So there is a single column."
    )
    return one("running text in columns", str(count), ("1", "2", "3"), why)


def _is(check: object, scene: Scene) -> bool:
    try:
        check(scene)  # type: ignore[operator]
    except NoFit:
        return False
    return True


@skill("documents~document understanding~document type classification")
def document_type(scene: Scene) -> Found:
    _page(scene)
    text = scene.text
    found = {
        "receipt": (_is(amounts.receipt_total, scene), "items with amounts and a total"),
        "invoice": (
            amounts.is_invoice(scene) and bool(re.search(r"(?i)due|total|bill to", text)),
            "the word invoice and amounts due",
        ),
        "menu": (_is(amounts.menu_price, scene), "dishes and drinks with prices"),
        "timetable": (_is(tables.next_departure, scene), "a table of departures and times"),
        "calendar": (_is(tables.calendar_month, scene), "the days of one month under the weekdays"),
        "letter": (
            bool(re.search(r"^Dear \w", text, re.M)) and bool(re.search(r"regards|Yours|incerely|wishes", text)),
            "a salutation and a closing",
        ),
    }
    kinds = [kind for kind, (right, _) in found.items() if right]
    need(len(kinds) == 1, "the kind of document is not clear")
    kind = kinds[0]
    why = f"The page shows {found[kind][1]}. That is typical of a {kind}."
    return one(f"a {kind}", kind, _TYPES, why)


def _lines(scene: Scene, least: int = 2) -> list[Row]:
    """Lines that can be quoted: read surely, of some length, and no two alike."""
    texts = [row.text.casefold() for row in scene.rows]
    found = [
        row
        for row in scene.rows
        if row.sure >= SURE and single(row) and 3 <= len(row.text) <= 40 and texts.count(row.text.casefold()) == 1
        and sum(c.isalpha() for c in row.text) >= 3 and '"' not in row.text
    ]  # fmt: skip
    need(len(found) >= least, "no lines of text that can be told apart")
    return found


def _first(questions: list[Asked]) -> list[Asked]:
    """At most a dozen of the questions, spread over all of them."""
    step = max(1, len(questions) // _MOST)
    return questions[::step][:_MOST]


@skill("spatial relations~position in the image~text position")
def text_half(scene: Scene) -> Found:
    questions = []
    for row in _lines(scene, 1):
        if row.bottom < 0.45 * scene.height or row.top > 0.55 * scene.height:
            answer = "upper half" if row.bottom < 0.5 * scene.height else "lower half"
            place = round(50 * (row.top + row.bottom) / scene.height)
            why = (
                f"The line {quoted(row.text)} stands at about {place} % of the image's height from the top. "
                f"That is in the {answer}."
            )
            questions.append(asked(answer, ("upper half", "lower half"), why, text=row.text))
    return many("lines of text", questions)


@skill("detection & localisation~text region localisation")
def text_region(scene: Scene) -> Found:
    questions = []
    for row in _lines(scene, 1):
        x, y = (row.left + row.right) / 2 / scene.width, (row.top + row.bottom) / 2 / scene.height
        if in_cell(x, y, 0.06) and row.right - row.left < 0.6 * scene.width:
            where = region(x, y)
            why = (
                f"The middle of {quoted(row.text)} lies at {round(100 * x)} % of the width and {round(100 * y)} % "
                f"of the height. That is the part called {where}."
            )
            questions.append(asked(where, other_regions(where), why, text=row.text))
    return many("lines of text", questions)


@skill("spatial relations~relations between things~above or below relation")
def above_or_below(scene: Scene) -> Found:
    questions = []
    for number, (a, b) in enumerate(combinations(_lines(scene), 2)):
        if b.top - a.bottom > 0.04 * scene.height:
            first, second = (a, b) if number % 2 else (b, a)
            why = (
                f"The line {quoted(a.text)} stands nearer to the top of the image than {quoted(b.text)}. "
                "So it is higher up."
            )
            questions.append(asked(a.text, (b.text,), why, first=first.text, second=second.text))
    return many("lines of text one below the other", _first(questions))


@skill("spatial relations~relations between things~left or right relation")
def left_or_right(scene: Scene) -> Found:
    found = [
        s for s in scene.segments
        if s.sure >= SURE and 3 <= len(s.text) <= 30 and sum(c.isalpha() for c in s.text) >= 3 and '"' not in s.text
    ]  # fmt: skip
    texts = [s.text for s in found]
    found = [s for s in found if texts.count(s.text) == 1]
    questions = []
    for number, (a, b) in enumerate(combinations(found, 2)):
        left, right = sorted((a, b), key=lambda s: s.left)
        if right.left - left.right > 0.04 * scene.width:
            first, second = (a, b) if number % 2 else (b, a)
            why = (
                f"The text {quoted(left.text)} ends before {quoted(right.text)} begins, seen from the left. "
                "So it is further left."
            )
            questions.append(asked(left.text, (right.text,), why, first=first.text, second=second.text))
    return many("texts side by side", _first(questions))


@skill("spatial relations~relations between things~relative size comparison")
def larger_text(scene: Scene) -> Found:
    questions = []
    for number, (a, b) in enumerate(combinations(_lines(scene), 2)):
        large, small = sorted((a, b), key=lambda row: -row.size)
        if large.size > 1.45 * small.size:
            first, second = (a, b) if number % 2 else (b, a)
            why = (
                f"The capitals of {quoted(large.text)} are about {round(large.size)} pixels high, those of "
                f"{quoted(small.text)} about {round(small.size)}. The first are larger."
            )
            questions.append(asked(large.text, (small.text,), why, first=first.text, second=second.text))
    return many("lines of text in different sizes", _first(questions))


@skill("detection & localisation~referring expression grounding")
def line_below(scene: Scene) -> Found:
    usable = _lines(scene)
    questions = []
    for a, b in pairwise(scene.rows):
        aligned = abs(a.left - b.left) < a.size or abs((a.left + a.right) - (b.left + b.right)) < 2 * a.size
        if a in usable and b in usable and aligned and 0 < b.top - a.bottom < 0.12 * scene.height:
            others = [row.text for row in usable if row not in (a, b)]
            why = f"The line {quoted(a.text)} is easily found. The next line below it is {quoted(b.text)}."
            questions.append(asked(b.text, others, why, text=a.text))
    return many("lines of text one below the other", questions)


@skill("logical reasoning~inference~visual claim verification")
def claim(scene: Scene) -> Found:
    rows = _lines(scene)
    all_words = {word.strip(".,:;!?").casefold() for word in words(scene)}
    questions = []
    for row in rows:
        why = (
            f"The text in question is {quoted(row.text)}. "
            "A line in the image reads exactly so, so the statement is true."
        )
        questions.append(asked("true", ("false",), why, text=row.text))
    for row, other in pairwise(rows):
        if len(row.text.split()) < 2:
            continue
        start, end = row.text.split()[0], other.text.split()[-1]
        changed = " ".join([*row.text.split()[:-1], end])
        if start != end and changed.casefold() not in scene.text.casefold() and end.casefold() in all_words:
            why = (
                f"The text in question is {quoted(changed)}. "
                f"The image has the line {quoted(row.text)} instead, so the statement is false."
            )
            questions.append(asked("false", ("true",), why, text=changed))
    return many("lines of printed text", _first(questions))
