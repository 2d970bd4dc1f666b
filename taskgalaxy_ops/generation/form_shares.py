"""Which question forms a fitting match is written in: all that suit its task type, or one of them by their shares.

A share is drawn by weighted rendezvous hashing (Efraimidis and Spirakis 2006, with hashes for chance): each form races
with an exponential draw of its own, and the first wins. So a form's share of the matches is its weight's share, and a
weight that is raised moves matches to that form alone: all others keep theirs, and what was answered about them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache

from taskgalaxy_ops.generation.forms import FORMS
from taskgalaxy_ops.hashing import draw
from taskgalaxy_ops.records import ImageId, TaskTypePath
from taskgalaxy_ops.settings import WriteSettings


def suits(patterns: Sequence[str], task_type: TaskTypePath) -> bool:
    """Whether a form with these patterns suits a task type.

    A pattern is a node's path, which stands for all below it, or has ``*``, ``?`` and ``[…]``, which stand for any
    text; it must fit the whole path. With ``!`` before it, it names what is left out. No pattern: all suit.
    """
    only = [pattern for pattern in patterns if not pattern.startswith("!")]
    never = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    return (not only or _any(only, task_type)) and not _any(never, task_type)


def _any(patterns: Sequence[str], path: TaskTypePath) -> bool:
    return any(fnmatchcase(path, pattern) or path.startswith(f"{pattern}~") for pattern in patterns)


def suited(write: WriteSettings) -> dict[str, tuple[str, ...]]:
    """The patterns of each form that is written: the settings' own, else those that the form declares."""
    return {form: write.suits.get(form, FORMS.get(form).suits) for form in sorted(set(write.variants))}


def forms_of(
    write: WriteSettings, patterns: Mapping[str, Sequence[str]], image: ImageId, task_type: TaskTypePath
) -> tuple[str, ...]:
    """The question forms that a fitting match is written in; (): none suits it. patterns: see ``suited``."""
    forms = tuple(form for form, own in patterns.items() if suits(own, task_type))
    shares = write.shares
    if shares is None or len(forms) < 2:
        return forms
    return (min(forms, key=lambda form: (_arrives(form, shares[form], image, task_type), form)),)


def questions_of(write: WriteSettings) -> Callable[[TaskTypePath], int]:
    """How many questions a fitting match of a task type comes to; one that no form suits is one, which is rejected."""
    patterns = suited(write)
    return cache(lambda task_type: len(forms_of(write, patterns, "", task_type)) or 1)


def _arrives(form: str, weight: float, image: ImageId, task_type: TaskTypePath) -> float:
    return -math.log1p(-draw("question form", form, image, task_type)) / weight
