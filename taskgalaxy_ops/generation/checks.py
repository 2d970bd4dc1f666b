"""Checks of a pair's texts between write and vote, so that no judge is paid for what a rule can tell. Pure.

The rules are data: ``checks.yaml`` beside this module, and the settings' own laid over it. What is a special token to a
trainer is no case for them: it has other brackets already (``models/special_tokens.py``).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from taskgalaxy_ops.extensions import LANGUAGES, QUESTION_FORMS
from taskgalaxy_ops.records import Pair, Reason, Reject, reject_of
from taskgalaxy_ops.settings.base import Patterns, Strict
from taskgalaxy_ops.settings.checks import CheckSettings, RepeatSettings, TextField, TextRule
from taskgalaxy_ops.text import normal_question, script, shown

RULES_FILE = Path(__file__).with_name("checks.yaml")

_VERSION = 1  # of what this module makes of rules and pairs: one more whenever the same give another verdict
_SHOWN = 80  # characters of what was found
_WORD = re.compile(r"[^\W_]+")
_QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|„[^“”]*[“”]|‘[^’]*’|«[^»]*»|`[^`]*`|(?<!\w)'[^']*'(?!\w)")
_ARTICLES = frozenset({"a", "an", "the"})
# Scripts of languages that are not written in Latin letters.
_SCRIPTS = {
    "ar": ("ARABIC",),
    "hi": ("DEVANAGARI",),
    "ja": ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"),
    "ko": ("HANGUL",),
    "ru": ("CYRILLIC",),
    "uk": ("CYRILLIC",),
    "zh": ("CJK",),
}
_LETTERS = 8  # in a question, from which on its script tells of its language


class _Shipped(Strict):
    rules: Mapping[str, TextRule]
    personal_data: Mapping[str, TextRule]


@cache
def _shipped() -> _Shipped:
    return _Shipped.model_validate(yaml.safe_load(RULES_FILE.read_text("utf-8")))


def rules_of(chosen: CheckSettings) -> dict[str, TextRule]:
    """The rules in force, by name: the package's, with the settings' own laid over them."""
    shipped = _shipped()
    laid = {**shipped.rules, **(shipped.personal_data if chosen.personal_data else {}), **chosen.rules}
    return {name: rule for name, rule in laid.items() if rule is not None}


def decided_by(chosen: CheckSettings) -> dict[str, Any]:
    """All that the verdicts on given pairs depend on, as JSON has it."""
    rules = [[name, rule.model_dump(mode="json", exclude_defaults=True)] for name, rule in rules_of(chosen).items()]
    repeats = chosen.repeats.model_dump(mode="json") if chosen.repeats else None
    return {"version": _VERSION, "rules": rules, "repeats": repeats}


def checked(pairs: Sequence[Pair], chosen: CheckSettings) -> tuple[list[Pair], list[Reject]]:
    """The pairs of an image shard that pass, in their order, and the rejects, ordered by pair: together all of them."""
    rules = rules_of(chosen)
    found = {pair.pair: reason for pair in pairs if (reason := broken(rules, pair)) is not None}
    if chosen.repeats is not None:
        found |= _repeated((pair for pair in pairs if pair.pair not in found), chosen.repeats)
    rejects = [
        reject_of("write", pair, *found[pair.pair])
        for pair in sorted(pairs, key=lambda pair: pair.pair)
        if pair.pair in found
    ]
    return [pair for pair in pairs if pair.pair not in found], rejects


def broken(rules: Mapping[str, TextRule], pair: Pair) -> tuple[Reason, str] | None:
    """The first rule that a pair breaks, as a reject's reason and detail; None: it breaks none."""
    for name, rule in rules.items():
        if (told := _KINDS[rule.kind](rule, pair)) is not None:
            return rule.reason, f"{name}: {shown(told)[:_SHOWN]}" if rule.quoted else name
    return None


def _repeated(pairs: Iterable[Pair], chosen: RepeatSettings) -> dict[str, tuple[Reason, str]]:
    """The pairs that ask once too often what others ask, and which; those with the smallest ids stay."""
    found = {}
    asked: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for pair in sorted(pairs, key=lambda pair: pair.pair):
        questions = tuple(normal_question(question) for question, _ in pair.turns)
        answers = tuple(normal_question(answer) for _, answer in pair.turns)
        bounds: dict[tuple[str, ...], int | None] = {("image", pair.image, pair.variant, *questions): chosen.image}
        bounds["type", pair.task_type, pair.variant, *questions, *answers] = chosen.task_type
        over = [asked[key] for key, most in bounds.items() if most is not None and len(asked[key]) >= most]
        if over:
            found[pair.pair] = (Reason.DUPLICATE_PAIR, f"of {over[0][0]}")
            continue
        for key in bounds:
            asked[key].append(pair.pair)
    return found


def _by_patterns(rule: TextRule, pair: Pair) -> str | None:
    for text in (text.replace("’", "'") for text in _texts(rule, pair)):
        if (found := _first(rule.patterns, text)) is not None and _first(rule.allowed, text) is None:
            return found
    return None


def _by_length(rule: TextRule, pair: Pair) -> str | None:
    for name, most in rule.characters.items():
        if (length := max(map(len, _named(name, pair)), default=0)) > most:
            return f"{name} of {length} characters, {most} at most"
    return None


def _by_answer_in_question(rule: TextRule, pair: Pair) -> str | None:
    """An answer that its question gives away. One without a word of three letters is not looked for.

    What a question may name is told by English words, so that those in other languages are left to judges.
    """
    if QUESTION_FORMS.split(pair.variant)[1]:
        return None
    return next((answer for question, answer in pair.turns if _gives_away(rule, question, answer)), None)


def _gives_away(rule: TextRule, asked: str, said: str) -> bool:
    question, answer = (
        f" {' '.join(word for word in _words(text) if word not in _ARTICLES)} " for text in (asked, said)
    )
    if answer not in question or not any(len(word) > 2 and word.isalpha() for word in answer.split()):
        return False
    return _first(rule.allowed, asked) is None


def _by_echo(_: TextRule, pair: Pair) -> str | None:
    echoes = (
        answer for question, answer in pair.turns if (said := _words(answer)) == _words(question) and len(said) > 1
    )
    return next(echoes, None)


def _by_language(rule: TextRule, pair: Pair) -> str | None:
    """The script or language of a text, where it is not the one asked for: the rule's, or that of the pair's form."""
    if asked := QUESTION_FORMS.split(pair.variant)[1]:
        own_scripts = _SCRIPTS.get(asked, ("LATIN",))
        rule = rule.model_copy(update={"language": LANGUAGES[asked].lower(), "scripts": own_scripts})
    for text in _texts(rule, pair):
        plain = _QUOTED.sub(" ", text)
        scripts = Counter(script(letter) for letter in plain if letter.isalpha())
        other = scripts.total() - sum(scripts[name] for name in rule.scripts)
        if rule.scripts and scripts.total() >= _LETTERS and 2 * other > scripts.total():
            return next(name for name, _ in scripts.most_common() if name not in rule.scripts).lower()
        said, own = set(_words(plain)), set(rule.words.get(rule.language, ()))
        if not said & own:
            for language, words in rule.words.items():
                if len(said & set(words)) >= rule.least:
                    return language
    return None


_KINDS = {
    "patterns": _by_patterns,
    "length": _by_length,
    "answer in question": _by_answer_in_question,
    "answer repeats question": _by_echo,
    "language": _by_language,
}


def _texts(rule: TextRule, pair: Pair) -> list[str]:
    return [text for name in rule.of for text in _named(name, pair)]


def _named(name: TextField, pair: Pair) -> list[str]:
    """The texts of a pair that a rule calls so: of a conversation, those of all turns."""
    if name == "reasoning":
        return [pair.reasoning] if pair.reasoning else []
    return [text for turn in pair.turns if (text := turn[name == "answer"])]


def _words(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFC", text.casefold()))


def _first(patterns: Patterns, text: str) -> str | None:
    """What the first of the patterns that is in a text finds there; None: none of them is."""
    found = (pattern.search(text) for pattern in _compiled(patterns))
    return next((each[0] for each in found if each), None)


@cache
def _compiled(patterns: Patterns) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(pattern, re.IGNORECASE) for pattern in patterns)
