"""Prompts: versioned text, one file each. A prompt's identity is the hash of its text, so a changed word asks anew.

Each is the instruction alone. What is asked about follows it as one JSON block (models/request.py): labels,
questions and answers are data in that block, never part of the instruction.

``filter_and_write`` is none of them: it only joins two of them, word for word, in a request that asks both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path

from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.extensions import LANGUAGES, QUESTION_FORMS

NAMES = ("filter", *(f"write_{form}" for form in QUESTION_FORMS.shipped), "answer", "blind", "vote", "expand")

# Part of every release's content, used or not. A prompt that came later is read where it is used, so that it changes no
# release of a store that does without.
_ALWAYS = ("filter", "write_plain", "write_chain_of_thought", "vote", "expand")


def load_prompts(own: Mapping[str, str], forms: Iterable[str] = (), also: Iterable[str] = ()) -> dict[str, str]:
    """Every prompt's text by name; ``own`` names the files that replace the package's.

    forms: question forms that are written. One that another package brings has its prompt with it, here under
    ``write_`` and its name. also: names of what else is used (``Settings.further_prompts``). Raises SettingsError.
    """
    written = [f"write_{form}" for form in forms]
    texts = {name: _shipped(name) for name in NAMES if name in {*_ALWAYS, *written, *also}}
    texts |= {name: _prompt(name, own) for name in written if name not in NAMES}
    return texts | {name: _own(name, path) for name, path in own.items()}


def _prompt(name: str, own: Mapping[str, str]) -> str:
    """The prompt of a form that a package brings, or of one in a language: the form's, and a paragraph on that."""
    form, language = QUESTION_FORMS.split(name.removeprefix("write_"))
    if not language:
        return str(QUESTION_FORMS.get(form).prompt.strip())
    base = f"write_{form}"
    said = _own(base, own[base]) if base in own else _shipped(base) if base in NAMES else _prompt(base, own)
    return f"{said}\n\n{_shipped('in_language').format(language=LANGUAGES[language])}"


def _own(name: str, path: str) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings prompts.{name}: {path} cannot be read ({error}).") from error
    if not text:
        raise SettingsError(f"settings prompts.{name}: {path} is empty.")
    return text


def joined(filter_: str, write: str) -> str:
    """The instruction of a request that asks which task types fit, and for the questions on those."""
    parts = {"filter": filter_, "write": write}
    return re.sub(r"\{(filter|write)\}", lambda found: parts[found[1]], _shipped("filter_and_write"))


def _shipped(name: str) -> str:
    return files(__name__).joinpath(f"{name}.md").read_text(encoding="utf-8").strip()
