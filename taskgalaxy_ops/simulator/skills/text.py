"""Skills for printed text: what is read word for word, counted, or found by its size."""

from __future__ import annotations

import re
from itertools import pairwise

from taskgalaxy_ops.simulator.perception import SURE, Row, Scene
from taskgalaxy_ops.simulator.skills.base import Found, need, one, quoted, skill, sure_rows

_WORDS = {
    "English": "the of and to in is for on with this by at from are was please you your it be have thank",
    "German": "der die das und ist nicht mit für auf den von ein eine wir sie zu im bitte",
    "French": "le la les des est pour dans avec une vous nous sur pas et du au aux",
    "Spanish": "el los las del para con una por es en que su como más",
    "Italian": "il gli della per con una che di sono nel non dal più",
}


def words(scene: Scene) -> list[str]:
    """All words in reading order, as printed."""
    return [word for row in scene.rows for word in row.text.split()]


def bare(word: str) -> str:
    """A word without the punctuation around it."""
    return word.strip(".,;:!?()[]\"'*-–")


def single(row: Row) -> bool:
    """Whether a row is one run of text, not cells or columns side by side."""
    return len(row.segments) == 1 or all(b.left - a.right < row.size for a, b in pairwise(row.segments))


def ruled_by_rows(scene: Scene) -> list[Row]:
    """All rows, if the text has one column only and all of it is read surely."""
    rows = sure_rows(scene)
    need(not scene.unread, "some of the text stands upright or is too small")
    need(all(single(row) for row in rows), "the text is set in cells or columns side by side")
    lefts, middles = [row.left for row in rows], [(row.left + row.right) / 2 for row in rows]
    ranges = max(lefts) - min(lefts), max(middles) - min(middles)
    need(min(ranges) < 0.12 * scene.width, "the text is scattered over the image")
    return rows


def title_row(scene: Scene) -> Row:
    """The title: the largest line, alone in its size, in the upper part. Raises NoFit if there is none."""
    need(len(scene.rows) >= 2, "no text with a title above it")
    ordered = sorted(scene.rows, key=lambda row: -row.size)
    first, second = ordered[:2]
    need(first.sure >= SURE and single(first), "the largest line cannot be read with certainty")
    need(first.size > 1.17 * second.size and len(first.text) > 2, "no line stands out as the title")
    need(first.bottom < 0.4 * scene.height, "the largest line does not stand at the top")
    need(first.text[0].isalpha() and first in scene.rows[:2], "the largest line is no title")
    return first


def _texts(rows: list[Row], right: str) -> list[str]:
    return [row.text for row in rows if row.sure >= SURE and row.text != right and single(row)][:6]


@skill("ocr~printed text ocr~title reading")
def title(scene: Scene) -> Found:
    row = title_row(scene)
    why = (
        f"The line {quoted(row.text)} is set in larger letters than all others. "
        "It stands at the top, so it is the title."
    )
    return one(f"text with the title {quoted(row.text)}", row.text, _texts(scene.rows, row.text), why)


@skill("ocr~printed text ocr~largest text reading")
def largest(scene: Scene) -> Found:
    need(len(scene.rows) >= 2, "no text of several sizes")
    first, second = sorted(scene.rows, key=lambda row: -row.size)[:2]
    need(first.sure >= SURE and single(first), "the largest line cannot be read with certainty")
    need(sum(c.isalpha() for c in first.text) > 2, "the largest print is not a word")
    need(first.size > 1.25 * second.size, "no line is clearly larger than the others")
    why = (
        f"The letters of {quoted(first.text)} are about {round(first.size)} pixels high. The next largest line has "
        f"letters of about {round(second.size)} pixels."
    )
    return one("lines of text in several sizes", first.text, _texts(scene.rows, first.text), why)


@skill("ocr~printed text ocr~heading listing")
def headings(scene: Scene) -> Found:
    rows = sure_rows(scene, 6)
    sizes = sorted(row.size for row in rows)
    body = sizes[len(sizes) // 3]
    found = [row for row in rows if row.size > 1.22 * body]
    need(2 <= len(found) <= 6 and len(found) < 0.45 * len(rows), "no headings above a body of text")
    need(all(not 1.1 * body < row.size <= 1.22 * body for row in rows), "headings and body differ too little in size")
    need(all(single(row) and not re.search(r"\d[.,]\d\d\b", row.text) for row in found), "large lines are no headings")
    names = [row.text for row in found]
    why = (
        f"Most lines have letters of one size. {len(names)} lines are clearly larger: {', '.join(map(quoted, names))}."
    )
    return one(
        f"{len(names)} headings above smaller text",
        "; ".join(names),
        ("; ".join(names[:-1]), "; ".join(names[1:])),
        why,
    )


@skill("ocr~printed text ocr~first line reading")
def first_line(scene: Scene) -> Found:
    return _end(scene, 0, "topmost")


@skill("ocr~printed text ocr~last line reading")
def last_line(scene: Scene) -> Found:
    return _end(scene, -1, "bottom")


def _end(scene: Scene, index: int, word: str) -> Found:
    need(len(scene.rows) >= 3, "fewer than three lines of text")
    row, near = scene.rows[index], scene.rows[1 if index == 0 else -2]
    need(row.sure >= SURE and single(row) and len(row.text) > 2, f"the {word} line is not one clear run of text")
    apart = near.top - row.bottom if index == 0 else row.top - near.bottom
    need(apart > -0.2 * row.size, f"it is not clear which line is the {word} one")
    why = f"There are {len(scene.rows)} lines of text. The {word} of them reads {quoted(row.text)}."
    return one("several lines of text", row.text, _texts(scene.rows, row.text), why)


@skill("ocr~printed text ocr~text line counting")
def line_count(scene: Scene) -> Found:
    rows = ruled_by_rows(scene)
    count = len(rows)
    need(2 <= count <= 20, "only one line of text, or too many to count")
    why = (
        f"The first line reads {quoted(rows[0].text)}, the last {quoted(rows[-1].text)}. "
        f"From top to bottom there are {count}."
    )
    return one(f"{count} lines of text", str(count), (str(count + 1), str(count + 3), str(max(1, count - 2))), why)


@skill("ocr~printed text ocr~word counting")
def word_count(scene: Scene) -> Found:
    rows = ruled_by_rows(scene)
    found = words(scene)
    count = len(found)
    need(
        2 <= count <= 25 and all(any(c.isalnum() for c in w) for w in found), "no short text whose words can be counted"
    )
    parts = " + ".join(str(len(row.text.split())) for row in rows)
    why = f"Line by line, the numbers of words are {parts}. Together that makes {count}."
    return one(
        f"a short text of {count} words", str(count), (str(count + 2), str(count + 4), str(max(1, count - 2))), why
    )


@skill("ocr~printed text ocr~longest word finding")
def longest_word(scene: Scene) -> Found:
    rows = sure_rows(scene)
    found = sorted({bare(word) for row in rows for word in row.text.split()}, key=lambda w: (-len(w), w))
    found = [word for word in found if word.isalpha()]
    need(len(found) >= 4, "too few words")
    need(len(words(scene)) <= 90, "too much text to find one word in")
    first, second = found[0], found[1]
    need(len(first) > len(second) and len(first) <= 18, "no single word is clearly the longest")
    others = [bare(w) for w in words(scene) if "@" in w or "." in bare(w) or "-" in bare(w) or "/" in w]
    need(all(len(w) < len(first) for w in others), "the longest run of characters is not a plain word")
    why = f"{quoted(first)} has {len(first)} letters. The next longest word is {quoted(second)} with {len(second)}."
    return one("printed words", first, found[1:4], why)


@skill("ocr~printed text ocr~full text transcription")
def transcription(scene: Scene) -> Found:
    rows = ruled_by_rows(scene)
    need(2 <= len(words(scene)) <= 30, "no text short enough to be transcribed as a whole")
    text = " ".join(row.text for row in rows)
    wrong = (" ".join(row.text for row in rows[:-1]), " ".join(row.text for row in reversed(rows)))
    why = f"The text has {len(rows)} lines. Read from top to bottom, it begins with {quoted(rows[0].text)}."
    return one("a short text that can be read as a whole", text, wrong, why)


@skill("ocr~printed text ocr~uppercase word finding")
def uppercase(scene: Scene) -> Found:
    sure_rows(scene)
    need(not scene.unread, "some of the text stands upright or is too small")
    all_words = [bare(word) for word in words(scene)]
    found = list(dict.fromkeys(w for w in all_words if len(w) > 1 and w.isalpha() and w.isupper()))
    others = list(dict.fromkeys(w for w in all_words if len(w) > 2 and w.isalpha() and not w.isupper()))
    need(1 <= len(found) <= 5 and len(others) >= 2, "no few words in capitals among others")
    need(
        all(w.isalpha() or not any(c.isupper() for c in w) or not w.isupper() for w in all_words if len(w) > 1),
        "codes in capitals",
    )
    why = (
        f"Most words, such as {quoted(others[0])}, have small letters. "
        f"Only {', '.join(map(quoted, found))} stand in capitals."
    )
    wrong = ("; ".join([*found, others[0].upper()]), others[-1].upper())
    return one("some words in capitals", "; ".join(found), wrong, why)


@skill("ocr~printed text ocr~language identification")
def language(scene: Scene) -> Found:
    found = [bare(word).lower() for word in words(scene)]
    counts = {name: sum(word in common.split() for word in found) for name, common in _WORDS.items()}
    first, second = sorted(counts, key=lambda name: -counts[name])[:2]
    need(counts[first] >= 6 and counts[first] > 3 * counts[second], "too little running text to tell its language")
    known = [w for w in dict.fromkeys(found) if w in _WORDS[first].split()][:3]
    why = (
        f"The text has words such as {', '.join(map(quoted, known))}. "
        f"They are common in {first}, so that is its language."
    )
    return one(f"running text in {first}", first, _WORDS, why)
