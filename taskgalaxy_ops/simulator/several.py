"""Questions about several images as simulated models see them: their texts (``several.yaml``), and what they ask.

Teacher and judges share the texts, and which answer follows from what each image shows; nothing here looks at an image.
Images are counted from 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from taskgalaxy_ops.simulator import templates
from taskgalaxy_ops.simulator.templates import Template

FILE = Path(__file__).with_name("several.yaml")
Value = float | str  # what an image shows: a number or a grade, which have an order, or another answer

_NUMBERS = {2: "two", 3: "three", 4: "four"}
_OF_TWO = frozenset({"more", "less", "both", "difference", "same"})
_OF_THREE = frozenset({"most", "least", "order", "number", "odd"})  # of three images or four; of two they ask nothing
SUMS = frozenset({"total", "both", "difference"})
_BY_VALUE = frozenset({"which", "number"})  # ask which images have a value
_HIGHEST = frozenset({"more", "most"})
_HOLDERS = "receipt|invoice|page|chart|table|form|menu|calendar|timetable|photograph|window|text"
# Where a question about one image says which it is: the first of these that its text has is replaced.
_PLACES = (
    (r"\b[Tt]h(?:is|e) (?:image|picture)\b(?!')", "{which}"),
    (r"\bIs this(?= an? )", "Is {which}"),
    (r"\b(?:is this|is shown)(?=[?:])", "is shown in {which}"),
    (r"\bhere(?=[?,])", "in {which}"),
    (rf"\b(?:this|the) ({_HOLDERS})\b(?! or| \")", r"the \1 in {which}"),
)
_BY_NUMBER, _BY_MARK = "image {at}", "the image that says “{mark}”"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One way to ask about several images by a task type."""

    relation: str
    texts: tuple[str, ...]
    path: str  # the task type whose answers are compared
    grades: tuple[tuple[str, ...], ...] = ()  # answers from the least to the greatest; those in a tuple count alike
    say: Mapping[str, str]
    article: bool = False
    value: str = ""  # what a question means that names none
    margin: float = 0  # what numbers must differ by at least, to be compared
    alone: bool = False  # one image has it, and what is printed in the others need not be of the kind

    @property
    def of_two(self) -> bool:
        """Whether it is about two of the images; else it is about all."""
        return self.relation in _OF_TWO

    @property
    def compares_texts(self) -> bool:
        """Whether it matters only which images answer alike, and not which is greater."""
        return self.by_value or self.relation in {"same", "odd"}

    @property
    def by_value(self) -> bool:
        """Whether it asks which images have a value, and not what they have."""
        return self.relation in _BY_VALUE

    @property
    def names(self) -> frozenset[str]:
        """The parameters that it names."""
        return frozenset(name for text in self.texts for name in templates.fields(text))

    def suits(self, count: int) -> bool:
        """Whether it can be asked of so many images."""
        return count > 2 or self.relation not in _OF_THREE

    def ask(self, index: int, about: About, count: int) -> str:
        """The ``index``-th text (counted around) for images of which there are ``count``."""
        said = self.say.get(about.value, about.value)
        named = dict(zip("ab", about.images, strict=False)) if self.of_two else {}
        words = {"n": _NUMBERS[count], "value": templates.with_article(said) if self.article else said}
        return templates.filled(self.texts[index % len(self.texts)], {**about.params, **words, **named})

    def about(self, question: str, count: int) -> About | None:
        """What a question asks; None: it is none of this comparison."""
        found = templates.params_in(self.texts, question)
        if found is None or not self.suits(count) or found.pop("n", _NUMBERS[count]) != _NUMBERS[count]:
            return None
        images = tuple(range(1, count + 1))
        if self.of_two:
            named = (found.pop("a"), found.pop("b"))
            images = tuple(int(name) for name in named if name in map(str, images))
            if len(set(images)) < 2:
                return None
        said = found.pop("value", self.value)
        said = templates.without_article(said) if self.article else said
        meant = {words: answer for answer, words in self.say.items()}
        return About(images, meant.get(said, said), found)


class About(NamedTuple):
    """What a question about several images is about."""

    images: tuple[int, ...]
    value: str  # the answer that it names; "" for none
    params: Mapping[str, str]  # of the task type's own question


class Alone(NamedTuple):
    """A question that is about one of the images."""

    at: int | None  # its number, or
    mark: str  # a text that is printed in no other
    question: str  # as it is asked where there is no other image


def of(path: str) -> tuple[Comparison, ...]:
    """How images can be compared by a task type."""
    return _load().get(path, ())


def read(path: str, question: str, count: int) -> tuple[Comparison, About] | Alone | None:
    """What a question about ``count`` images asks; None: it is none of the task type."""
    for comparison in of(path):
        if (about := comparison.about(question, count)) is not None:
            return comparison, about
    template = templates.load().get(path)
    for index, text in enumerate(template.texts if template else ()):
        for which in (_BY_NUMBER, _BY_MARK):
            found = templates.params_in((_placed(text, which),), question)
            if template is None or found is None:
                continue
            at, mark = found.pop("at", ""), found.pop("mark", "")
            if mark or at in map(str, range(1, count + 1)):
                return Alone(None if mark else int(at), mark, template.fill(index, **found))
    return None


def ask_alone(template: Template, index: int, params: Mapping[str, str], at: int, mark: str = "") -> str:
    """The ``index``-th text (counted around) of a task type's own question, about one of several images.

    mark: a text by which it is known instead of its number ``at``.
    """
    placed = _placed(template.texts[index % len(template.texts)], _BY_MARK if mark else _BY_NUMBER)
    return templates.filled(placed, {**params, "at": at, "mark": mark})


def answer(relation: str, values: Sequence[Value], about: About) -> str | None:
    """What answers a question, by what each of its images shows, in their order; None: there is no one answer."""
    if relation in _BY_VALUE:
        having = [image for image, value in zip(about.images, values, strict=True) if value == about.value]
        if relation == "number":
            return str(len(having))
        return named(having[0]) if len(having) == 1 else None
    if relation == "same":
        return "Yes" if values[0] == values[1] else "No"
    if relation == "odd":
        kinds = sorted(set(values), key=values.count)
        alone = len(kinds) == 2 and values.count(kinds[0]) == 1 < values.count(kinds[1])
        return named(about.images[values.index(kinds[0])]) if alone else None
    return _of_order(relation, [float(value) for value in values], about.images)


def _of_order(relation: str, values: Sequence[float], images: Sequence[int]) -> str | None:
    if relation in {"total", "both"}:
        return f"{round(sum(values), 2):.10g}"
    if relation == "difference":
        return f"{round(values[0] - values[1], 2):.10g}" if values[0] > values[1] else None
    if relation == "order":
        ordered = [image for _, image in sorted(zip(values, images, strict=True))]
        return in_order(ordered) if len(set(values)) == len(values) else None
    edge = max(values) if relation in _HIGHEST else min(values)
    return named(images[values.index(edge)]) if values.count(edge) == 1 else None


def named(image: int) -> str:
    """An image as an answer."""
    return f"Image {image}"


def in_order(images: Sequence[int]) -> str:
    """Images in an order, as an answer."""
    return ", ".join(map(named, images)).replace(", I", ", i")


def _placed(text: str, which: str) -> str:
    """The text of a question about one image, with a parameter that says ``which`` of several it is."""
    for pattern, words in _PLACES:
        placed, found = re.subn(pattern, words.replace("{which}", which), text, count=1)
        if found:
            return placed[0].upper() + placed[1:]
    return f"In {which}, {text[0].lower()}{text[1:]}".replace("the image's", "its")


@lru_cache(maxsize=1)
def _load() -> dict[str, tuple[Comparison, ...]]:
    told = yaml.safe_load(FILE.read_text("utf-8"))
    return {
        path: tuple(
            comparison
            for entry in (entries if isinstance(entries, list) else [entries])
            for comparison in _comparisons(path, entry, told["wordings"])
        )
        for path, entries in told["task types"].items()
    }


def _comparisons(path: str, entry: Mapping[str, Any], wordings: Mapping[str, Any]) -> Iterator[Comparison]:
    named = {"a", "b", "n", "value", *templates.load()[path].meanings}
    for family, relations in wordings.items():
        for relation, texts in relations.items() if family in entry else ():
            worded = tuple(_worded(text, entry[family]) for text in texts)
            if not all(named.issuperset(templates.fields(text)) for text in worded):
                continue  # the task type has no words for it
            yield Comparison(
                relation=relation,
                texts=worded,
                path=entry.get("of", path),
                grades=tuple((each,) if isinstance(each, str) else tuple(each) for each in entry.get("grades", ())),
                say=entry.get("say", {}),
                article=entry.get("article", False),
                value=entry.get("value", ""),
                margin=entry.get("margin", 0),
                alone=family == "only",
            )


def _worded(text: str, words: Mapping[str, str]) -> str:
    for name, word in words.items():
        text = text.replace("{" + name + "}", word)
    return text
