"""Rules of what a proposed label may say, and which labels say the same in the same words. Pure; the rules are data.

``labels.check`` says whether a text can be a label at all. These rules say whether a label names a task that the
taxonomy should have. They come from ``label_rules.yaml`` beside this module, and a file of the user's laid over it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from taskgalaxy_ops.errors import TaxonomyError
from taskgalaxy_ops.settings.base import Patterns
from taskgalaxy_ops.taxonomy import labels
from taskgalaxy_ops.text import script

RULES_FILE = Path(__file__).with_name("label_rules.yaml")

_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*|&")


Words = tuple[str, ...]


class Rule(BaseModel):
    """One rule as it is written in a file; what each field means is said at the head of ``label_rules.yaml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["patterns", "length", "parent", "two operations", "proper name", "language"] = "patterns"
    patterns: Patterns = ()
    allowed: Patterns = Field((), alias="except")
    words: int | Mapping[str, Words] | None = None
    characters: int = labels.MAX_LABEL
    least: int = 2
    general: Words = ()
    joins: Words = ()
    capitals: Words = ()


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    rules: Mapping[str, Rule | None] = {}
    operations: tuple[Words, ...] = ()
    same: tuple[Words, ...] = ()
    fillers: Words = ()


@dataclass(frozen=True)
class Rules:
    """The rules that hold."""

    rules: Mapping[str, Rule]  # by name
    operations: tuple[Words, ...]
    same: tuple[Words, ...]
    fillers: Words
    _stems: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    def wording(self, label: str) -> str:
        """What a label says, whatever its word order, inflections, spelling and filler words: equal where it is the
        same. ``sign reading`` and ``reading of the signs`` have the wording ``read sign``.
        """
        return " ".join(sorted(self._content(label)))

    def broken(self, label: str, raw: str, parent: str, known: TaxonomyWords) -> str | None:
        """The name of the first rule that a (normalised) label breaks, and how; None: it breaks none.

        raw: the label as it was proposed. parent: the parent's label; empty for the first level.
        """
        for name, rule in self.rules.items():
            written = _compiled(rule.patterns).search(label)
            found = written[0] if written else self._of_kind(rule, label, raw, parent, known)
            if found is not None and not _compiled(rule.allowed).search(label):
                return f"{name}: {found}"
        return None

    def _of_kind(self, rule: Rule, label: str, raw: str, parent: str, known: TaxonomyWords) -> str | None:
        match rule.kind:
            case "length":
                count = len(label.split(" "))
                if isinstance(rule.words, int) and count > rule.words:
                    return f"{count} words, {rule.words} at most"
                return f"{len(label)} characters, {rule.characters} at most" if len(label) > rule.characters else None
            case "parent":
                general = {self._stem(word) for word in rule.general}
                said, above = set(self._content(label)), set(self._content(parent))
                return parent if parent and said - general <= above and above <= said else None
            case "two operations":
                return self._two(rule, label)
            case "proper name":
                return _proper(raw, rule.capitals)
            case "language":
                return _foreign(rule, label, known)
        return None

    def _two(self, rule: Rule, label: str) -> str | None:
        """Two operations with a join between them."""
        places = [
            (found.start(), found.end(), found[0])
            for found in _WORD.finditer(label)
            if self._stem(found[0]) in self._operation_stems
        ]
        for (_, end, one), (start, _, other) in pairwise(places):
            between = f" {label[end:start].strip()} "
            if self._stem(one) != self._stem(other) and any(f" {join} " in between for join in rule.joins):
                return f"{one}, {other}"
        return None

    @cached_property
    def _operation_stems(self) -> frozenset[str]:
        return frozenset(self._stem(word) for words in self.operations for word in words)

    def _content(self, label: str) -> list[str]:
        """The stems of the words that say something; of all words, where all are fillers."""
        said = _words(self._fillers.sub(" ", label)) or _words(label)
        stems: list[str] = []
        for word in said:
            # With a hyphen or apart is the same, but for a word that is known with its hyphen.
            known = "-" not in word or _stemmer().stemWord(word) in self._families
            stems += [self._stem(part) for part in ([word] if known else word.split("-"))]
        return stems

    @cached_property
    def _fillers(self) -> re.Pattern[str]:
        phrases = sorted(map(re.escape, self.fillers), key=len, reverse=True)
        return re.compile(rf"(?<![\w'-])(?:{'|'.join(phrases)})(?![\w'-])" if phrases else r"(?!)")

    def _stem(self, word: str) -> str:
        if (known := self._stems.get(word)) is None:
            stem = _stemmer().stemWord(word)
            known = self._stems[word] = self._families.get(stem, stem)
        return known

    @cached_property
    def _families(self) -> dict[str, str]:
        """By a word's stem, the stem of the first of those that say the same."""
        stem = _stemmer().stemWord
        return {stem(word): stem(words[0]) for words in (*self.operations, *self.same) for word in words}


class TaxonomyWords:
    """What a taxonomy's own labels are written in."""

    def __init__(self, names: Iterable[str]) -> None:
        self.scripts: set[str] = set()
        self.words: set[str] = set()
        for name in names:
            self.scripts |= scripts(name)
            self.words.update(_words(name))


def load_rules(own: str | Path | None = None) -> Rules:
    """The package's rules, with those of a file of the user's laid over them. Raises TaxonomyError for a wrong file."""
    shipped = _read(RULES_FILE)
    over = _read(Path(own)) if own else _File()
    rules = {**shipped.rules, **over.rules}
    of = {name: getattr(over if name in over.model_fields_set else shipped, name) for name in _LISTS}
    return Rules({name: rule for name, rule in rules.items() if rule is not None}, **of)


_LISTS = ("operations", "same", "fillers")


def _read(file: Path) -> _File:
    try:
        raw: Any = yaml.safe_load(file.read_text("utf-8"))
        return _File.model_validate({} if raw is None else raw)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise TaxonomyError(
            f"rules of labels {file} cannot be read ({error}).\n"
            "  Check `taxonomy.rules`; leave it out for the package's."
        ) from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, each['loc'])) or '(whole)'}: {each['msg']}" for each in error.errors())
        raise TaxonomyError(f"rules of labels {file}: {wrong}.\n  Its form is that of {RULES_FILE}.") from error


def scripts(text: str) -> set[str]:
    """The scripts of a text's letters: LATIN, CYRILLIC, CJK …"""
    if text.isascii():
        return {"LATIN"} if any(map(str.isalpha, text)) else set()
    return {script(letter) for letter in text if letter.isalpha()}


def _words(text: str) -> list[str]:
    return _WORD.findall(text)


def _proper(raw: str, capitals: Collection[str]) -> str | None:
    """A word that is written as a name: a capital inside a label whose other inner words have some in lower case."""
    inner = [word for word in _WORD.findall(raw)[1:] if len(word) > 1 and word[0].isalpha()]
    named = [word for word in inner if word[0].isupper() and not word[1:].isupper()]
    if not any(word[0].islower() and len(word) > 3 for word in inner):
        return None  # in capitals throughout: a title's way of writing
    return next((word for word in named if word.lower() not in capitals), None)


def _foreign(rule: Rule, label: str, known: TaxonomyWords) -> str | None:
    if known.scripts and (others := sorted(scripts(label) - known.scripts)):
        return others[0].lower()
    if isinstance(rule.words, Mapping):
        said = set(_words(label)) - known.words
        for language, words in rule.words.items():
            if len(said & set(words)) >= rule.least:
                return language
    return None


@cache
def _compiled(patterns: Patterns) -> re.Pattern[str]:
    """What is found where one of the patterns is; with none of them, nothing."""
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns) or r"(?!)")


@cache
def _stemmer() -> Any:
    import snowballstemmer

    return snowballstemmer.stemmer("english")
