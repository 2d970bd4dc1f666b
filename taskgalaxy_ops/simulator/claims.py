"""Questions with yes or no as simulated models see them: of a task type's question, whether a claim is its answer.

Teacher and judges share these texts (``claims.yaml``) and nothing else; nothing here looks at an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import yaml

from taskgalaxy_ops.simulator import templates

FILE = Path(__file__).with_name("claims.yaml")
_ONE = "1"


class Claimed(NamedTuple):
    """What a question with yes or no claims: an answer to the task type's own question with these parameters."""

    params: dict[str, str]
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """The questions with yes or no that a task type may be asked with."""

    texts: tuple[str, ...]
    one: str = ""
    say: Mapping[str, str]
    article: bool = False
    value: str = ""

    def ask(self, index: int, params: Mapping[str, str], answer: str) -> str:
        """The ``index``-th question (counted around) whether something is the answer."""
        text = self.one if self.one and answer == _ONE else self.texts[index % len(self.texts)]
        said = self.say.get(answer, answer)
        return templates.filled(text, {**params, "answer": templates.with_article(said) if self.article else said})

    def read(self, question: str) -> Claimed | None:
        """What a question claims; None: it is none of these."""
        if self.one and (params := templates.params_in((self.one,), question)) is not None:
            return Claimed(params, _ONE)
        params = templates.params_in(self.texts, question)
        if params is None:
            return None
        said = params.pop("answer", self.value)
        said = templates.without_article(said) if self.article else said
        return Claimed(params, {words: answer for answer, words in self.say.items()}.get(said, said))


def of(path: str) -> Claims | None:
    """The questions with yes or no of a task type; None where it is not asked so."""
    return _load().get(path)


def read(path: str, question: str) -> Claimed | None:
    """What a question of a task type claims; None: it is a question of another form."""
    claims = of(path)
    return claims.read(question) if claims else None


@lru_cache(maxsize=1)
def _load() -> dict[str, Claims]:
    """By task type. Those whose own questions are answered by yes or no are asked with these."""
    own = {
        path: Claims(texts=template.texts, say={}, value="Yes")
        for path, template in templates.load().items()
        if template.kind == "yes/no"
    }
    told = yaml.safe_load(FILE.read_text("utf-8"))
    return own | {path: Claims(**{"say": {}, **entry, "texts": tuple(entry["texts"])}) for path, entry in told.items()}
