"""The question texts of the simulated models: what is asked for a task type, and what the answer looks like.

Teacher and judges share this text (``templates.yaml``) and nothing else; nothing here looks at an image.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).with_name("templates.yaml")
LIST_JOINT = "; "  # between the items of an answer of kind "list"

_FIELD = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, kw_only=True)
class Template:
    """The questions that a task type may be asked with."""

    path: str
    texts: tuple[str, ...]  # with {parameters} in braces
    kind: str  # of the answer: see templates.yaml
    form: str
    choices: tuple[str, ...]  # for kind "choice", else empty
    meanings: dict[str, str]  # parameter: what it stands for

    def fill(self, index: int, **params: object) -> str:
        """The ``index``-th text (counted around) with its parameters. Raises KeyError if one is missing."""
        return filled(self.texts[index % len(self.texts)], params)

    def params(self, question: str) -> dict[str, str] | None:
        """The parameters in a filled question, {} where it has none; None if no text of this type can give it."""
        return params_in(self.texts, question)


def fields(text: str) -> list[str]:
    """The names of the parameters in a text."""
    return _FIELD.findall(text)


def with_article(name: str) -> str:
    """The name of a thing with "a" or "an", but for one that is a plural."""
    if name.endswith("s") and not name.endswith(("ss", "us", "is")):
        return name
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def without_article(name: str) -> str:
    """What ``with_article`` was given."""
    return re.sub(r"^an? ", "", name)


def filled(text: str, params: Mapping[str, object]) -> str:
    """A text with its parameters. Raises KeyError if one is missing."""
    return _FIELD.sub(lambda match: str(params[match[1]]), text)


def params_in(texts: tuple[str, ...], question: str) -> dict[str, str] | None:
    """The parameters in a question that is one of these texts, filled; None: it is none of them."""
    for pattern in _patterns(texts):
        if match := pattern.fullmatch(question.strip()):
            return match.groupdict()
    return None


@lru_cache(maxsize=512)
def _patterns(texts: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(_pattern(text), re.DOTALL) for text in texts)


def _pattern(text: str) -> str:
    pieces = _FIELD.split(text)  # text, name, text, name, …
    return "".join(f"(?P<{piece}>.+?)" if odd % 2 else re.escape(piece) for odd, piece in enumerate(pieces))


@lru_cache(maxsize=1)
def load() -> dict[str, Template]:
    """All templates by the path of their task type. The dict is shared: do not change it."""
    entries: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text("utf-8"))
    return {path: _template(path, entry) for path, entry in entries.items()}


def _template(path: str, entry: dict[str, Any]) -> Template:
    answer = entry["answer"]
    choices = {"yes/no": ("Yes", "No")}.get(answer["kind"], tuple(answer.get("choices", ())))
    return Template(
        path=path,
        texts=tuple(entry["templates"]),
        kind=answer["kind"],
        form=answer["form"],
        choices=choices,
        meanings=entry.get("params", {}),
    )
