"""What the simulated models answer: the teacher's and the judges' findings, with planted wrong answers and errors.

Every answer is drawn from (seed, unit): it does not depend on what else a request carries, nor on when it is asked.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from PIL import Image

from taskgalaxy_ops.hashing import draw, fingerprint
from taskgalaxy_ops.simulator import absences, blind, boxes, descriptions, expansion, options
from taskgalaxy_ops.simulator.config import JUDGES, SimulatorConfig
from taskgalaxy_ops.simulator.memory import Memory
from taskgalaxy_ops.simulator.wire import Asked, Unit, WrongRequestError

if TYPE_CHECKING:
    from taskgalaxy_ops.simulator.judges import Finding

# Reasons for votes that are errors: they agree with the vote and name no truth.
_ACCEPT = (
    "The answer agrees with what the image shows.",
    "Question and answer both fit the image.",
    "Checked against the image: nothing contradicts the answer.",
    "What is asked about is there, and the answer describes it.",
)
_REJECT = (
    "The answer does not agree with what the image shows.",
    "A detail of the answer cannot be confirmed in the image.",
    "Looked for it in the image; the answer seems to be wrong.",
    "The answer is not what can be seen where the question points.",
)
_KEPT_IMAGES = 24  # decoded, some MB each: an image is asked about in several requests, one after another
_TURNS = (("question", "answer"), *((f"question_{n}", f"answer_{n}") for n in (2, 3, 4)))  # a reply's fields
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


_images: Memory[str, Image.Image] = Memory(_KEPT_IMAGES)


@dataclass(frozen=True, slots=True)
class Answers:
    """What a request is answered, and what only the statistics may know of it."""

    entries: list[Any]  # of the reply's list; one a unit, or for expand the labels
    pairs: list[dict[str, Any]] = field(default_factory=list)  # pairs written, and whether their answer is planted
    votes: list[dict[str, Any]] = field(default_factory=list)
    labels: list[dict[str, Any]] = field(default_factory=list)  # proposed labels and what they are


def open_images(asked: Asked) -> list[Image.Image]:
    """The request's images, decoded and RGB. Raises WrongRequestError."""
    return [_images.get(each.id, partial(_decoded, each.raw)) for each in asked.images]


def _decoded(raw: bytes) -> Image.Image:
    try:
        with Image.open(io.BytesIO(raw)) as opened:
            return opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise WrongRequestError(400, f"image_url.url: is no image that can be read ({error}).") from error


def answer(config: SimulatorConfig, asked: Asked, images: Sequence[Image.Image]) -> Answers:
    """Answer a request; to be called in a thread, for it computes from the image."""
    if asked.stage == "blind":
        return Answers([blind.guess(asked.head["question"], config.seed, asked.head["try"])])
    if not images:
        return _expand(config, asked)
    answers = Answers([])
    if len(images) > 1:
        about = {"write": _write_about_several, "vote": _vote_on_several}[asked.stage]
        for unit in asked.units:
            answers.entries.append({"index": unit.index, **about(config, asked, images, unit, answers)})
        return answers
    one: Callable[[SimulatorConfig, Asked, Image.Image, Unit, Answers], Mapping[str, Any]]
    one = {
        **{"filter": _filter, "write": _write, "filter and write": _filter_and_write},
        **{"answer": _answer, "vote": _vote},
    }[asked.stage]
    for unit in asked.units:
        answers.entries.append({"index": unit.index, **one(config, asked, images[0], unit, answers)})
    return answers


def _expand(config: SimulatorConfig, asked: Asked) -> Answers:
    labels = expansion.label_kinds(
        config.seed,
        asked.head,
        duplicates=config.expand_duplicates,
        near_duplicates=config.expand_near_duplicates,
        junk=config.expand_junk,
    )
    return Answers([each.label for each in labels], labels=[each._asdict() for each in labels])


def _filter(_: SimulatorConfig, asked: Asked, image: Image.Image, unit: Unit, ___: Answers) -> Mapping[str, Any]:
    from taskgalaxy_ops.simulator import teacher

    fits, reason = teacher.fits(image, unit.item["task_type"], asked.image_id)
    return {"fits": bool(fits), "reason": reason}


def _filter_and_write(
    config: SimulatorConfig, asked: Asked, image: Image.Image, unit: Unit, answers: Answers
) -> Mapping[str, Any]:
    """Both, as they are answered apart."""
    verdict = _filter(config, asked, image, unit, answers)
    if not verdict["fits"] or unit.item.get("part_2") is False:
        return verdict
    return {**verdict, **_write(config, asked, image, unit, answers)}


def _write(
    config: SimulatorConfig, asked: Asked, image: Image.Image, unit: Unit, answers: Answers
) -> Mapping[str, Any]:
    from taskgalaxy_ops.simulator import teacher

    path, variant, identity = unit.item["task_type"], asked.head["variant"], _written(asked, unit)
    if language := asked.head.get("language"):
        # It knows a few German words; in other forms and languages it finds nothing to ask.
        knows = (variant, language) == ("plain-de", "German")
        variant = variant.rpartition("-")[0]
        written = teacher.in_german(image, path, (config.seed, identity), asked.image_id) if knows else None
    elif variant in _OF_FORM:
        return _OF_FORM[variant](config, asked, image, unit, answers)
    else:
        how = teacher.of_options if variant == "multiple_choice" else teacher.write
        written = how(image, path, (config.seed, identity), asked.image_id)
    if written is None:
        return _empty(variant)
    planted = _planted(config, identity) and written.wrong != written.answer
    said = written.wrong if planted else written.answer
    reasoning = written.reasoning if variant == "chain_of_thought" else ""
    if planted and reasoning:
        reasoning = reworded(reasoning, written.answer, said)
    _tell(answers, asked, unit, written.question, said, written.answer if planted else None)
    if variant == "multiple_choice":
        rest = (written.answer if planted else written.wrong, *written.others)
        return {"question": written.question, "answer": said, **options.wrong_ones(said, rest)}
    return {"question": written.question, "answer": said, "reasoning": reasoning}


def _write_yes_no(
    config: SimulatorConfig, asked: Asked, image: Image.Image, unit: Unit, answers: Answers
) -> Mapping[str, Any]:
    """A question for each answer; where it is planted wrong, they have changed places."""
    from taskgalaxy_ops.simulator import teacher

    identity = _written(asked, unit)
    found = teacher.yes_no(image, unit.item["task_type"], (config.seed, identity), asked.image_id)
    if found is None:
        return _empty("yes_no")
    planted = _planted(config, identity)
    yes, no = reversed(found) if planted else found
    for question, said in ((yes, "Yes"), (no, "No")):
        if question:
            other = "No" if said == "Yes" else "Yes"
            _tell(answers, asked, unit, question, said, other if planted else None)
    return {"question_yes": yes, "question_no": no}


def _write_unanswerable(
    config: SimulatorConfig, asked: Asked, image: Image.Image, unit: Unit, answers: Answers
) -> Mapping[str, Any]:
    """A question that the image does not answer; where it is planted wrong, one that it does."""
    from taskgalaxy_ops.simulator import teacher

    path, identity = unit.item["task_type"], _written(asked, unit)
    found = teacher.unanswerable(image, path, (config.seed, identity), asked.image_id)
    other = teacher.write(image, path, (config.seed, identity), asked.image_id)
    if found is None or other is None:
        return _empty("unanswerable")
    question, missing = found
    planted = _planted(config, identity)
    if planted:
        question = other.question
    _tell(answers, asked, unit, question, absences.SAID, other.answer if planted else None)
    return {"question": question, "missing": missing}


def _write_grounded(
    config: SimulatorConfig, asked: Asked, image: Image.Image, unit: Unit, answers: Answers
) -> Mapping[str, Any]:
    """A question where something is, and its box; where it is planted wrong, a box beside it."""
    from taskgalaxy_ops.simulator import teacher

    identity = _written(asked, unit)
    found = teacher.grounded(image, unit.item["task_type"], (config.seed, identity), asked.image_id)
    if found is None:
        return _empty("grounded")
    question, right, wrong = found[0], boxes.told(found[1]), boxes.told(found[2])
    planted = _planted(config, identity)
    said = wrong if planted else right
    _tell(answers, asked, unit, question, boxes.written(said), boxes.written(right) if planted else None)
    return {"question": question, **said}


def _write_description(
    config: SimulatorConfig, asked: Asked, image: Image.Image, unit: Unit, answers: Answers
) -> Mapping[str, Any]:
    """A description; where it is planted wrong, one of its statements is."""
    from taskgalaxy_ops.simulator import teacher

    identity = _written(asked, unit)
    found = teacher.description(image, unit.item["task_type"], (config.seed, identity), asked.image_id)
    if found is None:
        return _empty("long_description")
    planted = _planted(config, identity)
    said = found[planted]
    _tell(answers, asked, unit, descriptions.ASKED, said, found[0] if planted else None)
    return {"description": said}


def _write_conversation(
    config: SimulatorConfig, asked: Asked, image: Image.Image, unit: Unit, answers: Answers
) -> Mapping[str, Any]:
    """Turns that build on each other; where it is planted wrong, the answer of one of them is."""
    from taskgalaxy_ops.simulator import teacher

    identity = _written(asked, unit)
    turns = teacher.conversation(image, unit.item["task_type"], (config.seed, identity), asked.image_id)
    if not turns:
        return _empty("multi_turn")
    told = [(turn.question, turn.answer) for turn in turns]
    right = None
    if _planted(config, identity):
        at = int(draw(config.seed, "planted turn", identity) * len(turns))
        right, told[at] = turns[at].answer, (turns[at].question, turns[at].wrong)
    _tell(answers, asked, unit, *_as_one(told), right)
    fields = {
        name: text for names, turn in zip(_TURNS, told, strict=False) for name, text in zip(names, turn, strict=True)
    }
    return {**_empty("multi_turn"), **fields}


def _write_about_several(
    config: SimulatorConfig, asked: Asked, images: Sequence[Image.Image], unit: Unit, answers: Answers
) -> Mapping[str, Any]:
    """A question about several images; it knows them in one form alone."""
    from taskgalaxy_ops.simulator import teacher

    identity, keys = _written(asked, unit), [each.id for each in asked.images]
    knows = asked.head["variant"] == "several_images"
    found = teacher.about_several(images, unit.item["task_type"], (config.seed, identity), keys) if knows else None
    if found is None:
        return _empty("several_images")
    planted = _planted(config, identity)
    said = found.wrong if planted else found.answer
    _tell(answers, asked, unit, found.question, said, found.answer if planted else None)
    return {"question": found.question, "answer": said}


_OF_FORM = {
    "yes_no": _write_yes_no,
    "unanswerable": _write_unanswerable,
    "grounded": _write_grounded,
    "long_description": _write_description,
    "multi_turn": _write_conversation,
}


def _as_one(turns: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """A conversation as one question and one answer, by which its votes are found; a pair of one turn is as it is."""
    questions, answers = zip(*turns, strict=True)
    return "\n".join(questions), "\n".join(answers)


def _answer(
    config: SimulatorConfig, asked: Asked, image: Image.Image, unit: Unit, answers: Answers
) -> Mapping[str, Any]:
    """Another answer to a question of its own, drawn anew; where it is wrong, as one of several."""
    from taskgalaxy_ops.simulator import teacher

    path, question, variant = unit.item["task_type"], unit.item["question"], asked.head["variant"]
    identity = fingerprint("simulated.answer", {"of": _written(asked, unit), "number": asked.head["number"]})
    found = teacher.answer(image, path, question, asked.image_id)
    thinks = variant == "chain_of_thought"
    if found is None:
        return {"answer": "", **({"reasoning": ""} if thinks else {})}
    planted = _planted(config, identity) and bool(found.wrong)
    said = found.wrong[int(draw(config.seed, "wrong", identity) * len(found.wrong))] if planted else found.answer
    _tell(answers, asked, unit, question, said, found.answer if planted else None)
    reasoning = reworded(found.reasoning, found.answer, said) if planted else found.reasoning
    return {"answer": said, **({"reasoning": reasoning} if thinks else {})}


def _written(asked: Asked, unit: Unit) -> str:
    """By which the draws of what is written are made."""
    told = {"image": asked.image_id, "task_type": unit.item["task_type"], "variant": asked.head["variant"]}
    return fingerprint("simulated.written", told)


def _planted(config: SimulatorConfig, identity: str) -> bool:
    """Whether what is written is to be wrong."""
    return draw(config.seed, "planted", identity) < config.wrong_share


def _tell(answers: Answers, asked: Asked, unit: Unit, question: str, said: str, right: str | None) -> None:
    """Let the statistics know of a pair. right: the right answer, where ``said`` is planted; None: it is right."""
    path, planted = unit.item["task_type"], right is not None
    pair = {"unit": unit.key, "pair": pair_key(asked.image_id, path, question, said), "planted": planted}
    if planted:
        pair |= {"image": asked.images[0].id, "task_type": path, "variant": asked.head["variant"]}
        pair |= {"question": question, "answer": said, "right": right}
    answers.pairs.append(pair)


_NOTHING: Mapping[str, Mapping[str, Any]] = {
    "yes_no": {"question_yes": "", "question_no": ""},
    "unanswerable": {"question": "", "missing": ""},
    "grounded": {"question": "", "x1": 0, "y1": 0, "x2": 0, "y2": 0},
    "long_description": {"description": ""},
    "several_images": {"question": "", "answer": ""},
    "multi_turn": {name: "" for names in _TURNS for name in names},
}


def _empty(variant: str) -> Mapping[str, Any]:
    """The entry of who finds nothing to ask."""
    if variant in _NOTHING:
        return _NOTHING[variant]
    rest = options.wrong_ones("", ()) if variant == "multiple_choice" else {"reasoning": ""}
    return {"question": "", "answer": "", **rest}


def pair_key(image_id: str, task_type: str, question: str, answer: str) -> str:
    """By which a judge's vote finds what the teacher wrote: the same image bytes, task type, question and answer."""
    told = {"image": image_id, "task_type": task_type, "question": question.strip(), "answer": answer.strip()}
    return fingerprint("simulated.pair", told)


def reworded(reasoning: str, right: str, wrong: str) -> str:
    """Reasoning that leads, on the face of it, to the wrong answer.

    The right answer is replaced wherever it stands as a word (a small number in words too); where it stands nowhere,
    or is a yes or no, the last sentence is replaced by one that concludes the wrong one.
    """
    text = reasoning if right.casefold() in {"yes", "no"} else _replaced(reasoning, right, wrong)
    if right.isdecimal() and wrong.isdecimal() and int(right) < len(_NUMBERS):
        word = _NUMBERS[int(wrong)] if int(wrong) < len(_NUMBERS) else wrong
        text = _replaced(text, _NUMBERS[int(right)], word)
    if text != reasoning:
        return text
    sentences = re.split(r"(?<=[.!?])\s+", reasoning.strip())
    return " ".join([*sentences[:-1], f"So the answer is {wrong.rstrip('.')}."])


def _replaced(text: str, old: str, new: str) -> str:
    return re.sub(rf"(?<!\w){re.escape(old.strip())}(?!\w)", lambda _: new.strip(), text, flags=re.IGNORECASE)


def _vote(config: SimulatorConfig, asked: Asked, image: Image.Image, unit: Unit, answers: Answers) -> Mapping[str, Any]:
    from taskgalaxy_ops.simulator import judges

    judge, item = JUDGES[asked.model], unit.item
    shown, reasoning = item.get("answer"), item.get("reasoning")
    found = judges.check(judge, image, item["task_type"], item["question"], shown, reasoning, asked.image_id)
    further = [(turn["question"], turn.get("answer")) for turn in item.get("further_turns", ())]
    if further:
        turns = [(item["question"], shown), *further]
        found = judges.check_later(judge, image, item["task_type"], turns, found, asked.image_id)
    meant = _as_one([_meant(item["question"], shown), *further]) if shown else None
    return _voted(config, asked, unit, found, meant, answers)


def _vote_on_several(
    config: SimulatorConfig, asked: Asked, images: Sequence[Image.Image], unit: Unit, answers: Answers
) -> Mapping[str, Any]:
    from taskgalaxy_ops.simulator import judges

    item, keys = unit.item, [each.id for each in asked.images]
    question, shown = item["question"], item.get("answer")
    found = judges.check_several(JUDGES[asked.model], images, keys, item["task_type"], question, shown)
    return _voted(config, asked, unit, found, (question, shown) if shown else None, answers)


def _voted(
    config: SimulatorConfig, asked: Asked, unit: Unit, found: Finding, pair: tuple[str, str] | None, answers: Answers
) -> Mapping[str, Any]:
    """The vote that a finding becomes, which the statistics are told of. pair: as the teacher wrote it, if shown."""
    key = fingerprint("simulated.voted", {"image": asked.image_id, "item": unit.item})
    vote, reason, erred = voted(config, JUDGES[asked.model], key, found.right, found.reason)
    answers.votes.append(
        {
            "unit": unit.key,
            "pair": pair_key(asked.image_id, unit.item["task_type"], *pair) if pair else None,
            "found": found.right,
            "vote": vote,
            "erred": erred,
        }
    )
    return {"vote": vote, "reason": reason}


def _meant(question: str, answer: str) -> tuple[str, str]:
    """A pair as the teacher wrote it, without what its form made of it."""
    if absences.said(answer):
        return question, absences.SAID
    if descriptions.asked(question):
        return descriptions.ASKED, answer
    return (bare, answer) if (bare := boxes.bare(question)) is not None else options.meant(question, answer)


def voted(config: SimulatorConfig, judge: str, pair: str, found: bool | None, reason: str) -> tuple[int, str, bool]:
    """A judge's vote, its reason, and whether it is a seeded error, from what the judge found.

    What a judge cannot tell (``found`` None) it does not approve, as the prompt asks of it, but for the share
    ``guess_accept``. The reason of an error agrees with the vote and names no truth.
    """
    if found is None:
        accept = draw(config.seed, "guess", judge, pair) < config.guess_accept
        return int(accept), _pick(_ACCEPT, config.seed, judge, pair) if accept else reason, False
    if not errs(config, judge, pair, found):
        return int(found), reason, False
    return int(not found), _pick(_REJECT if found else _ACCEPT, config.seed, judge, pair), True


def errs(config: SimulatorConfig, judge: str, pair: str, right: bool) -> bool:
    """Whether a judge errs on a pair that it found right or wrong: drawn from (seed, judge, pair).

    Over all pairs the share of errors is the configured rate: hard pairs have ``hard_factor`` times it, easy ones as
    much less. A share ``correlated`` of pairs is drawn from (seed, pair) alone: there the judges err together.
    """
    errors = config.judges[judge]
    rate = errors.false_reject if right else errors.false_accept
    hard_rate = min(1.0, rate * config.hard_factor)
    if draw(config.seed, "hard", pair) < config.hard_share:
        rate = hard_rate
    elif config.hard_share < 1:
        rate = (rate - config.hard_share * hard_rate) / (1 - config.hard_share)
    together = draw(config.seed, "correlated", pair) < config.correlated
    return draw(config.seed, "error", "" if together else judge, pair) < rate


def _pick(choices: tuple[str, ...], *place: object) -> str:
    return choices[int(draw(*place, "reason") * len(choices))]
