"""Skills for forms, labels, signs and windows on a screen."""

from __future__ import annotations

import re

import numpy as np

from taskgalaxy_ops.simulator import structure
from taskgalaxy_ops.simulator.perception import SURE, Row, Scene
from taskgalaxy_ops.simulator.reading import Segment
from taskgalaxy_ops.simulator.skills.base import Asked, Found, asked, many, need, one, quoted, skill
from taskgalaxy_ops.simulator.skills.numbers import DATE, changed
from taskgalaxy_ops.simulator.structure import Pair

_BUTTONS = {
    "ok", "cancel", "save", "don't save", "yes", "no", "close", "retry", "try again", "apply", "delete", "keep",
    "later", "install", "restart", "continue", "back", "next", "finish", "allow", "deny", "ignore", "help", "submit",
    "update", "restart now", "not now", "remind me later", "discard", "replace", "skip",
}  # fmt: skip
_SIGN = re.compile(r"(?:DANGER|WARNING|CAUTION|NOTICE|STOP|EXIT|ATTENTION|CLOSED|OPEN|PRIVATE|NO [A-Z]+)!?$")
_FIELD = re.compile(
    r"(?i)(?:full |first |last )?name|date|street|town|city|e-?mail|phone|occupation|customer|address|country|postcode|"
    r"date of birth|nationality|company"
)


def _form(scene: Scene) -> list[Pair]:
    """The fields of a form with what is filled in. Raises NoFit if it is no form."""
    need(scene.segments, "no text can be seen in the image")
    pairs = [p for p in structure.pairs(scene) if len(p.row.segments) == 2]
    pairs = [p for p in pairs if re.search(r"\w", p.value)]
    need(sum(bool(_FIELD.match(p.caption)) for p in pairs) >= 3, "no form with captions and filled-in values")
    left = np.array([p.row.left for p in pairs])
    value = np.array([p.row.segments[1].left for p in pairs])
    aligned = (np.abs(left - np.median(left)) < 8) & (np.abs(value - np.median(value)) < 8)
    found = [p for p, right in zip(pairs, aligned, strict=True) if right]
    need(len(found) >= 3, "captions and values are not set in two columns")
    return found


@skill("documents~forms & cards~form field lookup")
def form_field(scene: Scene) -> Found:
    fields = _form(scene)

    def ask(field: Pair) -> Asked:
        others = [f.value for f in fields if f is not field]
        why = (
            f"The form has a field with the caption {quoted(field.caption)}. "
            f"What is filled in beside it is {quoted(field.value)}."
        )
        return asked(field.value, others, why, field=field.caption)

    return many("a form with filled-in fields", [ask(field) for field in fields])


@skill("products & brands~nutrition facts lookup")
def nutrition(scene: Scene) -> Found:
    need(re.search(r"(?i)nutrition", scene.text), "no nutrition table can be seen")
    heads = [row for row in scene.rows if len(row.segments) == 2 and row.text.lower().count("per") == 2]
    need(len(heads) == 1 and heads[0].sure >= SURE, "the columns of the nutrition table are not clear")
    columns = heads[0].segments
    questions = []
    for row in scene.rows:
        texts = [s.text for s in row.segments]
        if (
            len(texts) == 3
            and row.sure >= SURE
            and all(re.fullmatch(r"[\d.]+ ?(?:g|mg|kcal|kJ)", t) for t in texts[1:])
        ):
            for index, column in enumerate(columns):
                cell = row.segments[index + 1]
                if cell.right < column.left - 20 or cell.left > column.right + 20:
                    continue
                why = (
                    f"The nutrition table has a row for {quoted(texts[0])}. "
                    f"Under {quoted(column.text)} it says {cell.text}."
                )
                wrong = (texts[2 - index], changed(cell.text, 2))
                questions.append(asked(cell.text, wrong, why, nutrient=texts[0], column=column.text))
    need(questions, "the nutrition table cannot be read with certainty")
    return many("a nutrition table", questions)


@skill("products & brands~expiry date reading")
def expiry(scene: Scene) -> Found:
    need(re.search(r"(?i)best before|use by|expiry|exp\.", scene.text), "no best-before date can be seen")
    rows = [r for r in scene.rows if re.search(r"(?i)best before|use by|expiry|exp\.", r.text) and DATE.search(r.text)]
    need(len(rows) == 1 and rows[0].sure >= SURE, "the date beside the caption is not clear")
    match = DATE.search(rows[0].text)
    assert match
    why = f"The package says {quoted(rows[0].text)}. So the product keeps until {match[0]}."
    return one("a best-before date", match[0], (changed(match[0], 1), changed(match[0], 4)), why)


@skill("ocr~scene text ocr~sign reading")
def sign(scene: Scene) -> Found:
    rows = [row for row in scene.rows if any(c.isalnum() for c in row.text)]
    need(1 <= len(rows) <= 4, "no sign with a few words")
    need(all(row.sure >= SURE for row in rows), "the sign cannot be read with certainty")
    heads = [row for row in rows if _SIGN.match(row.text)]
    need(
        heads and heads[0] is rows[0] and min(r.size for r in rows) > 0.018 * scene.height,
        "the text is not that of a sign",
    )
    text = " ".join(row.text for row in rows)
    wrong = [
        " ".join([word, *(row.text for row in rows[1:])])
        for word in ("NOTICE", "STOP", "CAUTION")
        if word != rows[0].text
    ]
    why = f"The sign has {len(rows)} line(s) in large letters. From top to bottom it says {quoted(text)}."
    return one("a sign with a few words", text, wrong, why)


def _dialog(scene: Scene) -> tuple[Segment, list[Row], list[Segment]]:
    """Title, message and buttons of a window. Raises NoFit if there is none."""
    rows = scene.rows
    need(3 <= len(rows) <= 9, "no dialog window can be seen")
    buttons = [s for s in rows[-1].segments if s.text.lower() in _BUTTONS]
    need(buttons and all(s.sure >= SURE for s in buttons), "no buttons of a window can be seen")
    title = rows[0].segments[0]
    need(
        len(rows[0].segments) == 1 or (len(rows[0].segments) == 2 and len(rows[0].segments[1].text) == 1),
        "no title bar",
    )
    need(title.sure >= SURE and title.text.lower() not in _BUTTONS, "the window has no clear title")
    return title, rows[1:-1], buttons


@skill("gui~dialog title reading")
def dialog_title(scene: Scene) -> Found:
    title, message, buttons = _dialog(scene)
    wrong = [b.text for b in buttons] + [row.text for row in message if len(row.text) < 50]
    why = f"The window has a bar along its top. The text in it is {quoted(title.text)}, which is its title."
    return one(f"a window titled {quoted(title.text)}", title.text, wrong, why)


@skill("gui~button caption listing")
def buttons(scene: Scene) -> Found:
    title, _, found = _dialog(scene)
    rest = [s for s in scene.rows[-1].segments if s not in found]
    need(all(s.right < found[0].left for s in rest), "not everything beside the buttons is clear")
    names = [s.text for s in found]
    wrong = ("; ".join([*names, "Help"]), "; ".join(["Retry", *names[1:]]))
    why = (
        f"Along the bottom of the window {quoted(title.text)} there are {len(names)} button(s). "
        f"Their captions are {', '.join(map(quoted, names))}."
    )
    return one("a window with buttons", "; ".join(names), wrong, why)


@skill("gui~error message reading")
def error(scene: Scene) -> Found:
    title, message, found = _dialog(scene)
    text = " ".join(row.text for row in message)
    need(
        re.search(r"(?i)error|fail|problem|could not|cannot|can't|unable|not found|lost", f"{title.text} {text}"),
        "no error message",
    )
    need(message and all(row.sure >= SURE for row in message), "the message cannot be read with certainty")
    need(
        all(len(row.segments) == 1 and row.size < 1.3 * message[0].size for row in message),
        "the message is not one text",
    )
    need(len(text.split()) >= 3, "the message is too short")
    why = f"Between the title {quoted(title.text)} and the buttons stands the message. It reads {quoted(text)}."
    return one("a window with an error message", text, [title.text, *(s.text for s in found)], why)


def _boxes(scene: Scene) -> list[tuple[Segment, bool]]:
    """Captions with a box to their left, and whether it is ticked."""
    from scipy import ndimage

    found = []
    for segment in scene.segments:
        side = segment.size
        left, right = int(segment.left - 3.2 * side), int(segment.left - 0.15 * side)
        top, bottom = int(segment.middle[1] - 1.5 * side), int(segment.middle[1] + 1.5 * side)
        if left < 0 or top < 0 or bottom > scene.height or segment.sure < SURE:
            continue
        patch = scene.light[top:bottom, left:right]
        ink = np.abs(patch - np.median(patch)) > 60
        labels, count = ndimage.label(ink, np.ones((3, 3)))
        for number, part in enumerate(ndimage.find_objects(labels), 1):
            height, width = part[0].stop - part[0].start, part[1].stop - part[1].start
            if count > 3 or not (0.85 < width / height < 1.18 and 0.9 * side < height < 2.2 * side):
                continue
            box = labels[part] == number
            frame = np.concatenate([box[:2].any(0), box[-2:].any(0), box[:, :2].any(1), box[:, -2:].any(1)])
            inner = ink[part][height // 4 : -(height // 4), width // 4 : -(width // 4)]
            if frame.mean() > 0.9 and (inner.mean() < 0.01 or 0.06 < inner.mean() < 0.7):
                found.append((segment, bool(inner.mean() > 0.05)))
    return found


@skill("gui~checkbox state reading")
def checkbox(scene: Scene) -> Found:
    need(scene.graphic and scene.segments, "no form or window with boxes to tick")
    found = _boxes(scene)
    need(found, "no boxes to tick with captions can be seen")

    def ask(segment: Segment, ticked: bool) -> Asked:
        answer = "Yes" if ticked else "No"
        state = "holds a tick" if ticked else "is empty"
        why = (
            f"To the left of {quoted(segment.text)} there is a small box. "
            f"It {state}, so the answer is {answer.lower()}."
        )
        return asked(answer, ("Yes", "No"), why, box=segment.text)

    return many("boxes to tick with captions", [ask(segment, ticked) for segment, ticked in found])
