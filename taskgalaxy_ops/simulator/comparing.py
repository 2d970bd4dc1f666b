"""What the simulated teacher can ask about several images, from what its skills found in each of them.

A question is possible where each image that it is about was looked at for certain, and no two answers are as good.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

from taskgalaxy_ops.simulator import inventory, several
from taskgalaxy_ops.simulator.perception import Scene
from taskgalaxy_ops.simulator.several import About, Comparison, Value
from taskgalaxy_ops.simulator.skills.base import Asked, Found

_NUMBER = re.compile(r"(\D*?)([\d,]*\d(?:\.\d+)?)(\D*)")
_LEAST_LETTERS = 3  # of a text that is looked for in other images
_LONGEST_MARK = 40  # characters of a text by which an image is known


@dataclass(frozen=True, slots=True)
class Possible:
    """A question about several images, with its answer and wrong ones."""

    comparison: Comparison
    about: About
    answer: str
    wrong: tuple[str, ...]


def possible(path: str, scenes: Sequence[Scene], look: Callable[[int, str], Found | str]) -> Iterator[Possible]:
    """All that can be asked. look: what the skill of a task type finds in the image at an index, or why it does not
    fit."""
    for comparison in several.of(path):
        found = [look(at, comparison.path) for at in range(len(scenes))]
        known = {at: each.asked for at, each in enumerate(found, 1) if isinstance(each, Found)}
        if comparison.suits(len(scenes)):
            yield from (
                _alone(comparison, scenes, known) if comparison.alone else _compared(comparison, len(scenes), known)
            )


def marks(scenes: Sequence[Scene], at: int, asked: Asked) -> list[str]:
    """Lines of text that tell an image (counted from 1) from the others, and have nothing to do with what is asked."""
    told = [_letters(text) for text in (asked.answer, *asked.params.values())]
    lines = [row.text for row in inventory.sure_lines(scenes[at - 1])]
    apart = [line for line in lines if not any(_letters(line) in text or text in _letters(line) for text in told)]
    short = [line for line in apart if len(line) <= _LONGEST_MARK and line[0].isupper() and line[-1] not in ".,:;?!"]
    return [line for line in short if _nowhere_else(scenes, at, line)]


def _nowhere_else(scenes: Sequence[Scene], at: int, text: str) -> bool:
    """Whether no image but one holds a text, as far as its letters can tell."""
    others = (_letters(scene.text) for number, scene in enumerate(scenes, 1) if number != at)
    return len(_letters(text)) >= _LEAST_LETTERS and not any(_letters(text) in other for other in others)


def _alone(comparison: Comparison, scenes: Sequence[Scene], known: Mapping[int, Sequence[Asked]]) -> Iterator[Possible]:
    """Questions for the one image in which a text stands that is not printed in any other."""
    images = tuple(range(1, len(scenes) + 1))
    for at, every in known.items():
        for asked in every:
            if comparison.value and asked.answer != comparison.value:
                continue
            if _nowhere_else(scenes, at, asked.params.get("text", asked.answer)):
                others = tuple(several.named(image) for image in images if image != at)
                yield Possible(comparison, About(images, asked.answer, asked.params), several.named(at), others)


def _compared(comparison: Comparison, count: int, known: Mapping[int, Sequence[Asked]]) -> Iterator[Possible]:
    """Questions that the images' answers to one question of the task type settle."""
    asked: dict[tuple[tuple[str, str], ...], dict[int, Asked]] = {}
    for at, every in known.items():
        for each in every:
            params = tuple(sorted(item for item in each.params.items() if item[0] in comparison.names))
            asked.setdefault(params, {})[at] = each
    for params, said in asked.items():
        for images in _groups(comparison, sorted(said), count):
            shown = [said[at] for at in images]
            for value in sorted(_named(comparison, shown)):
                about = About(images, value, dict(params))
                yield from _settled(comparison, about, [each.answer for each in shown])


def _named(comparison: Comparison, shown: Sequence[Asked]) -> set[str]:
    """The values that a question can name, of each of which it is certain whether an image has it; "" for none."""
    if not comparison.by_value:
        return {""}
    if comparison.value:
        return {comparison.value}
    return {each.answer for each in shown} | set.intersection(*({each.answer, *each.wrong} for each in shown))


def _groups(comparison: Comparison, images: Sequence[int], count: int) -> Iterator[tuple[int, ...]]:
    """Which images a question may be about: all, if all are known, or each two."""
    if not comparison.of_two:
        yield from [tuple(images)] if len(images) == count else []
    elif comparison.relation == "difference":
        yield from permutations(images, 2)
    elif comparison.relation != "both" or count > 2:
        yield from combinations(images, 2)


def _settled(comparison: Comparison, about: About, shown: Sequence[str]) -> Iterator[Possible]:
    """The question about images that show this, if it has one answer."""
    values: Sequence[float] | Sequence[str]
    if comparison.compares_texts:
        values = shown
    elif comparison.grades:
        values = [next(n for n, grade in enumerate(comparison.grades) if each in grade) for each in shown]
    else:
        numbers = [_NUMBER.fullmatch(each) for each in shown]
        if None in numbers or len({(each[1], each[3]) for each in numbers if each}) > 1:
            return  # no numbers, or not of one unit
        values = [float(each[2].replace(",", "")) for each in numbers if each]
        if any(abs(one - other) < comparison.margin for one, other in combinations(values, 2)):
            return
    answer = several.answer(comparison.relation, values, about)
    nothing = comparison.relation in several.SUMS and not any(values)
    if answer is not None and not nothing:
        told = [_as_shown(each, comparison, shown) for each in (answer, *_wrong(comparison, answer, values, about))]
        right, *wrong = dict.fromkeys(told)
        yield Possible(comparison, about, right, tuple(wrong))


def _wrong(comparison: Comparison, answer: str, values: Sequence[Value], about: About) -> Iterator[str]:
    """Answers of the same form."""
    if answer in {"Yes", "No"}:
        yield "No" if answer == "Yes" else "Yes"
    elif answer.startswith("Image") and "," in answer:
        order = [int(image) for image in re.findall(r"\d", answer)]
        yield from (several.in_order(each) for each in (order[::-1], [*order[1:], order[0]]))
    elif answer.startswith("Image"):
        yield from map(several.named, about.images)
    elif comparison.relation == "number":
        yield from (str(count) for count in range(len(values) + 1))
    else:
        number = float(answer)
        near = [number + off for off in (1, -1, 2)]
        far = [value for value in values if isinstance(value, float) and value != number] if "." in answer else []
        yield from (f"{each:.10g}" for each in (*far, *near) if each > 0)


def _as_shown(answer: str, comparison: Comparison, shown: Sequence[str]) -> str:
    """A sum or a difference, written as the images write what it was made of."""
    unit = _NUMBER.fullmatch(shown[0])
    if unit is None or comparison.relation not in several.SUMS:
        return answer
    decimals = 2 if any("." in each for each in shown) else 0
    return f"{unit[1]}{float(answer):,.{decimals}f}{unit[3]}"


def _letters(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())
