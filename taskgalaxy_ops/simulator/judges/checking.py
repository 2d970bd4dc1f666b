"""One pair before one judge: does the question belong to its task type, has the answer its form, is it right?"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import import_module

from PIL import Image

from taskgalaxy_ops.simulator import absences, boxes, claims, descriptions, german, options, templates
from taskgalaxy_ops.simulator.judges import palettes, places, words
from taskgalaxy_ops.simulator.judges.figures import overlap
from taskgalaxy_ops.simulator.judges.finding import REGIONS, Finding, Found, SenselessError, UnsureError, short
from taskgalaxy_ops.simulator.judges.views import View, view

_FAMILIES = (
    "colours",
    "light",
    "shapes",
    "things",
    "texts",
    "numbers",
    "documents",
    "pages",
    "tables",
    "charts",
    "places",
)
_MOST_WORDS = 20
_OVERLAP = 0.5  # of two boxes, from which on they are of one thing

Rule = Callable[[View, Mapping[str, str]], Found]


@lru_cache(maxsize=1)
def rules() -> dict[str, Rule]:
    """The rule of each task type, by the leaf's name: how its question is answered anew."""
    found: dict[str, Rule] = {}
    for family in _FAMILIES:
        found |= import_module(f"{__package__}.rules_{family}").RULES
    return found


def check(
    judge: str, image: Image.Image, path: str, question: str, answer: str | None, reasoning: str | None, key: str = ""
) -> Finding:
    """What a judge ("a", "b" or "c") finds of a question of the task type ``path``, and of its answer where shown.

    Without an answer only the question is judged. key: what names the image, where that is known. Raises ValueError
    for another judge.
    """
    seen = view(judge, image, key)
    template = templates.load().get(path)
    rule = rules().get(path.rsplit("~", 1)[-1])
    if template is None or rule is None:
        return Finding(False, f"I know no question of the task type '{short(path.rsplit('~', 1)[-1])}'")
    if answer is not None and absences.said(answer):
        return _unanswerable(seen, path, question, answer)
    if (bare := boxes.bare(question)) is not None:
        return _grounded(seen, bare, answer)
    if descriptions.asked(question):
        return _described(seen, answer)
    choice, claim = options.read(question), None
    if choice and (pick := options.pick(path)) and pick.question == choice.question:
        return _picked(seen, rule, pick, choice, answer)
    params = template.params(choice.question if choice else question)
    if params is None and (claim := claims.read(path, question)) is not None:
        params = claim.params
    if params is None and (asked := german.read(path, question)) is not None:
        params, answer = asked.params, None if answer is None else asked.english(answer)
    if params is None:
        return Finding(False, "the question is not of this task type")
    if choice and answer is not None:
        answer = choice.options.get(answer.strip())
        if answer is None:
            return Finding(False, "the answer is none of the options")
    said = claim.answer if claim else answer
    if said is not None and (fault := _form(template, said)):
        return Finding(False, fault)
    try:
        found = rule(seen, params)
    except SenselessError as error:
        return Finding(False, cut(f"the question does not fit: {error}"))
    except UnsureError as error:
        return Finding(None, cut(str(error)))
    if choice and (finding := _one_right(found, choice)):
        return finding
    if answer is None:
        return Finding(True, cut(f"the question makes sense: {found.said}"))
    right = found.agrees(said or "")
    if claim and right is not None:
        right = words.yes_no(answer) is right
    if right is None:
        return Finding(None, cut(f"I cannot tell; {found.said}"))
    if not right:
        return Finding(False, cut(f"{found.said}; the answer says {short(answer, 32)}"))
    if reasoning and not _follows(template, answer, reasoning):
        return Finding(False, cut(f"{found.said}, but the reasoning does not lead to the answer"))
    return Finding(True, cut(f"{found.said}, as answered"))


def _unanswerable(seen: View, path: str, question: str, answer: str) -> Finding:
    """Whether the image answers a question, of which the answer says that it does not."""
    finding = Finding(False, "the question is not of this task type")
    for template, params in absences.of(path, question):
        try:
            found = rules()[template.path.rpartition("~")[2]](seen, params)
        except SenselessError as error:
            if params and not absences.names_it(answer, params):
                return Finding(False, cut(f"{error}; the answer names something else"))
            return Finding(True, cut(f"{error}, as answered"))
        except UnsureError as error:
            finding = Finding(None, cut(str(error)))
        else:
            finding = Finding(False, cut(f"the image answers it: {found.said}"))
    return finding


def _described(seen: View, answer: str | None) -> Finding:
    """Whether all that a description states is so."""
    if answer is None:
        return Finding(True, "an image can always be described")
    stated = descriptions.read(answer)
    if stated is None:
        return Finding(None, "I cannot check all that is stated")
    unsure = None
    for path, params, said in stated:
        try:
            found = rules()[path.rpartition("~")[2]](seen, params)
        except SenselessError as error:
            return Finding(False, cut(f"{error}; it is said: {short(said, 32)}"))
        except UnsureError as error:
            unsure = str(error)
            continue
        right = found.agrees(said)
        if right is False:
            return Finding(False, cut(f"{found.said}; the description says {short(said, 32)}"))
        unsure = unsure if right else found.said
    return Finding(True, f"all {len(stated)} statements are so") if unsure is None else Finding(None, cut(unsure))


def _grounded(seen: View, question: str, answer: str | None) -> Finding:
    """Whether an answer is the box of what a question seeks."""
    sought = boxes.read(question)
    if sought is None:
        return Finding(False, "the question seeks nothing that I know")
    try:
        found = places.box(seen, sought)
    except SenselessError as error:
        return Finding(False, cut(f"the question does not fit: {error}"))
    mine = boxes.written(boxes.told(found))
    if answer is None:
        return Finding(True, f"the question makes sense: I find it at {mine}")
    said = boxes.box(answer)
    share = 0.0 if said is None else overlap(found, said)
    return Finding(share >= _OVERLAP, f"I find it at {mine}; the boxes share {share:.0%}")


def _picked(seen: View, rule: Rule, pick: options.Pick, choice: options.Choice, answer: str | None) -> Finding:
    """Whether an option is the one for which the task type's own question has the right answer."""
    may_be, surely = [], []  # an option that lies between right and wrong may be either
    for letter, option in choice.options.items():
        try:
            agrees = rule(seen, {pick.name: option}).agrees
        except SenselessError:
            continue
        except UnsureError as error:
            return Finding(None, cut(str(error)))
        may_be += [letter] * (agrees(pick.right) is True)
        surely += [letter] * (agrees(pick.right) is True and agrees(pick.wrong) is not True)
    if not may_be or len(surely) > 1:
        return Finding(False, f"{len(surely) or 'none'} of the options are right")
    mine = (surely or may_be)[0]
    right = answer is None or answer.strip() in (surely or may_be)
    return Finding(right, cut(f"it is '{short(choice.options[mine], 40)}'"))


def _one_right(found: Found, choice: options.Choice) -> Finding | None:
    """What is wrong with a question's options, of which one must be right; None: nothing."""
    verdicts = [found.agrees(option) for option in choice.options.values()]
    if verdicts.count(True) > 1:
        return Finding(False, cut(f"more than one option is right; {found.said}"))
    if True in verdicts:
        return None
    if None in verdicts:
        return Finding(None, cut(f"I cannot tell which option is right; {found.said}"))
    return Finding(False, cut(f"no option is right; {found.said}"))


def cut(reason: str) -> str:
    """A reason of no more words than a judge gives."""
    parts = reason.split()
    return " ".join(parts) if len(parts) <= _MOST_WORDS else " ".join(parts[:_MOST_WORDS]) + "…"


def _form(template: templates.Template, answer: str) -> str:
    """What is wrong with the form of an answer; "" if nothing."""
    said = answer.strip()
    plain = said.lower()
    fits = {
        "number": bool(re.fullmatch(r"[-+−]?[\d.,' ]*\d", said)),
        "amount": bool(re.search(r"\d", said)),
        "percent": "%" in said and words.number(said) is not None,
        "choice": plain in {c.lower() for c in template.choices},
        "yes/no": plain in {"yes", "no"},
        "colour": plain in {*palettes.NAMES, "gray"},
        "region": any(plain in row for row in REGIONS),
        "pair": " to " in plain,
    }.get(template.kind, True)
    if not said:
        return "the answer is empty"
    return "" if fits else f"the answer '{short(said, 32)}' is no {template.kind}"


def _follows(template: templates.Template, answer: str, reasoning: str) -> bool:
    """Whether a reasoning names a short answer, its words or its numbers; of a long one it may tell anything."""
    small, large = words.squash(answer), words.squash(reasoning)
    if small in large or small in {"yes", "no", "true", "false"}:
        return True
    if template.kind == "choice":  # it may say the same in other words, but must not end at another choice
        return not any(words.squash(choice) in large for choice in template.choices)
    parts = [words.squash(part) for part in re.findall(r"\w{3,}", answer)]
    if len(parts) > 3 or ";" in answer:
        return True
    figures, given = words.numbers(answer), words.numbers(reasoning)
    if figures and not (figures[0] <= 20 and small.isdigit()):  # a count may be told otherwise
        return sum(any(words.close(f, g) for g in given) for f in figures) >= 0.5 * len(figures)
    return sum(part in large for part in parts) >= 0.5 * len(parts)
