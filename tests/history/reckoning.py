"""What a state needs and comes to, reckoned from first principles: the answers that models gave, and no library code
but the two definitions that the rest cannot be told without, a pair's id and the draw of audits.

Everything is about one state: live images, task types, settings, and the answers that stand.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import product
from typing import Any

import numpy as np

from taskgalaxy_ops.generation.swaps import WORDINGS
from taskgalaxy_ops.hashing import draw
from taskgalaxy_ops.records import pair_id
from taskgalaxy_ops.settings import BlindSettings, MatchSettings, Model, Settings, TargetSettings, WriteSettings

from .encoder import angle, point
from .models import STAGES, Given, Unit, named, plain, rendered

SILENT = "?"  # a judge who has not answered yet
GROUPS = "several_images"  # the question form about several
GERMAN = "plain-de"
UNANSWERABLE = "unanswerable"  # of pairs with another image's question

# What people say of pairs: by pair and person, the last one last, a verdict and maybe the right answer.
People = Mapping[str, Mapping[str, tuple[str, str | None]]]


@dataclass(frozen=True)
class State:
    """All that decides what is needed."""

    images: Mapping[str, bytes]  # the live ones, by id
    leaves: Sequence[str]
    settings: Settings
    prompts: Mapping[str, str]
    said: Mapping[str, Mapping[str, str]]  # context, by image
    counted: Mapping[str, int]  # samples by task type, in the newest coverage entry
    recorded: Any  # the newest entry of the log of judges: ``judges``, and ``right`` by their votes
    present: Mapping[str, str]  # by a task type's path as it is asked, the path that people are shown
    groups: Mapping[str, tuple[str, ...]]  # by image, the others that it is asked about with
    shards: Mapping[str, str]  # by image
    people: People

    def shown(self, stage: str, image: str) -> dict[str, str]:
        """What a stage shows of an image's context."""
        fields = getattr(self.settings, stage).context
        return {field: text for field, text in self.said.get(image, {}).items() if field in fields}

    def head(self, image: str, **head: Any) -> dict[str, Any]:
        """What all items of a request about an image share."""
        said = self.shown(STAGES.get(head["request"], head["request"]), image)
        return {**head, "context": said} if said else head


@dataclass(frozen=True)
class Pair:
    """A question-answer pair."""

    id: str
    image: str
    task_type: str
    variant: str
    question: str
    answer: str
    reasoning: str
    number: int = 1  # of the answer to its question
    others: tuple[str, ...] = ()  # images that it is about, too

    @property
    def images(self) -> tuple[str, ...]:
        return self.image, *self.others


def found_wrong(pair: str, people: People) -> bool:
    """Whether more people find a pair wrong than right, or as many, and the last of them wrong."""
    sure = [verdict for verdict, _ in people.get(pair, {}).values() if verdict != "unsure"]
    wrong, right = sure.count("wrong"), sure.count("right")
    return wrong > right or (wrong == right > 0 and sure[-1] == "wrong")


def corrections(pairs: Mapping[str, Pair], people: People) -> dict[str, Pair]:
    """The pairs that people's answers add: one for each pair that is found wrong, and for each of these that is."""
    found: dict[str, Pair] = {}
    fresh = dict(pairs)
    while fresh:
        made = {}
        for pair in fresh.values():
            answers = [answer for _, answer in people.get(pair.id, {}).values() if answer is not None]
            if answers and found_wrong(pair.id, people):
                variant = "plain" if pair.reasoning else pair.variant
                identity = pair_id(pair.images, pair.task_type, variant, pair.question, answers[-1], None)
                made[identity] = replace(pair, id=identity, variant=variant, answer=answers[-1], reasoning="", number=1)
        fresh = {identity: pair for identity, pair in made.items() if identity not in found}
        found |= fresh
    return found


@dataclass
class Reckoned:
    """What is needed, and what comes out of each stage. Rows are by image, so that any image shard's can be told."""

    needed: set[Unit] = field(default_factory=set)
    rows: dict[str, dict[str, list[Any]]] = field(default_factory=dict)  # stage, image: what its shard would tell
    units_in: dict[str, int] = field(default_factory=dict)
    pending: dict[str, int] = field(default_factory=dict)
    samples: set[str] = field(default_factory=set)
    tried: dict[str, list[str]] = field(default_factory=dict)  # by image, the task types that it is asked about
    pairs: dict[str, Pair] = field(default_factory=dict)

    def lacking(self, stage: str, images: Sequence[str]) -> bool:
        """Whether one of these images lacks an answer at this stage."""
        return any(None in self.rows[stage].get(image, ()) for image in images)


def leaves(nodes: Mapping[str, str]) -> list[str]:
    """The task types among nodes with their status: live, and above nothing."""
    return sorted(
        path
        for path, status in nodes.items()
        if status == "live" and not any(other.startswith(f"{path}~") for other in nodes)
    )


def matches(
    images: Mapping[str, bytes], types: Sequence[str], chosen: MatchSettings, counted: Mapping[str, int]
) -> dict[str, list[tuple[str, float]]]:
    """The nearest task types of each image, the nearest first, by looking at all of them, one after the other."""
    found = {}
    for image, raw in images.items():
        here = point(angle(raw)).astype(np.float64)
        near = [(float(np.round(here @ point(angle(path)).astype(np.float64), 6)), path) for path in types]
        least = -2.0 if chosen.min_similarity is None else chosen.min_similarity
        weight = chosen.prefer_starving
        wider = 1 if weight is None else 4
        taken = _first(sorted(near, key=lambda each: (-each[0], each[1])), chosen, wider)
        taken = [(cosine, path) for cosine, path in taken if cosine >= least]
        if weight is not None:
            less = {path: round(weight * np.log10(1 + counted.get(path, 0)), 6) for path in types}
            by_score = sorted(taken, key=lambda each: (-round(each[0] - less[each[1]], 6), each[1]))
            taken = sorted(_first(by_score, chosen, 1), key=lambda each: (-each[0], each[1]))
        found[image] = [(path, cosine) for cosine, path in taken]
    return found


def _first(near: Sequence[tuple[float, str]], chosen: MatchSettings, wider: int) -> list[tuple[float, str]]:
    """The first ``wider`` times k, and of a branch ``wider`` times as many as it may have."""
    taken: list[tuple[float, str]] = []
    below: Counter[str] = Counter()
    for cosine, path in near:
        branch = path.split("~")[0]
        if len(taken) < wider * chosen.k and (chosen.per_branch is None or below[branch] < wider * chosen.per_branch):
            taken.append((cosine, path))
            below[branch] += 1
    return taken


def reckon(state: State, standing: Mapping[Unit, Given]) -> Reckoned:
    """What a state comes to with the answers that stand; a unit without one is needed, and ends its branch."""
    near = matches(state.images, state.leaves, state.settings.match, state.counted)
    tried = {image: [path for path, _ in row] for image, row in near.items()}
    if state.settings.targets is not None:
        walked = set(_walked(state, standing, tried, state.settings.targets))
        tried = {image: [path for path in paths if (image, path) in walked] for image, paths in tried.items()}
    return _reckon(state, standing, tried)


def _walked(
    state: State, standing: Mapping[Unit, Given], tried: Mapping[str, Sequence[str]], targets: TargetSettings
) -> Iterator[tuple[str, str]]:
    """What is asked one at a time, until a task type has its samples or its tries are used up; as far as is certain:
    what is open may give a sample."""
    for path in {path for paths in tried.values() for path in paths}:
        above = _upwards(state.present[path])
        target = next((targets.branches[each] for each in above if each in targets.branches), targets)
        images = sorted((image for image in tried if path in tried[image]), key=lambda image: draw("target", image))
        hoped = 0
        for image in images[: target.tries]:
            if hoped >= target.samples:
                break
            yield image, path
            alone = _reckon(state, standing, {image: [path]})
            write = state.settings.write
            unfiltered = alone.pending["filter"] * (1 if write.shares else len(write.variants))
            hoped += len(alone.samples) + unfiltered + alone.pending["write"] + alone.pending["vote"]


def _upwards(path: str) -> list[str]:
    labels = path.split("~")
    return ["~".join(labels[:depth]) for depth in range(len(labels), 0, -1)]


def _reckon(state: State, standing: Mapping[Unit, Given], tried: Mapping[str, Sequence[str]]) -> Reckoned:
    """The same where each image is asked about these task types."""
    found = Reckoned(tried={image: sorted(paths) for image, paths in tried.items()})
    settings = state.settings
    teacher = settings.teacher
    fitting = []
    for image, paths in tried.items():
        for path in paths:
            unit = _unit(
                teacher, state.prompts["filter"], [image], state.head(image, request="filter"), {"task_type": path}
            )
            given = _given(found, standing, "filter", unit, image, path)
            if given is not None and not given.terminal and given.entry["fits"]:
                fitting.append((image, path))
    asked: dict[tuple[str, str], Pair | str] = {}  # the plain pairs; "": there is none, SILENT: not yet
    for image, path in fitting:
        forms = _forms(settings.write, image, path)
        if not forms:
            found.units_in["write"] = found.units_in.get("write", 0) + 1
            found.rows.setdefault("write", {}).setdefault(image, []).append((path, "no form"))
        for variant in forms:
            prompt, head = state.prompts[f"write_{variant}"], state.head(image, request="write", variant=variant)
            others: tuple[str, ...] = ()
            if variant == GROUPS:
                others = state.groups.get(image, ())
                if not others:
                    found.units_in["write"] = found.units_in.get("write", 0) + 1
                    found.rows.setdefault("write", {}).setdefault(image, []).append((path, "no group"))
                    continue
                head = {"request": "write", "variant": variant, "images": 1 + len(others)}
            if variant == GERMAN:
                head["language"] = "German"
            unit = _unit(teacher, prompt, [image, *others], head, {"task_type": path})
            given = _given(found, standing, "write", unit, image, path, variant)
            pair = None if given is None else _pair(image, path, variant, given, others)
            if variant == "plain":
                asked[image, path] = SILENT if given is None else pair or ""
            if pair is None:
                continue
            if _refused(settings, pair):
                found.rows["write"][image][-1] = ("refused", pair.id)
            else:
                found.pairs[pair.id] = pair
                _answer_again(state, found, standing, pair)
    _swap(state, found, fitting, asked)
    if settings.review.corrections == "judged" and settings.review.rule == "veto":
        found.pairs |= {
            pair: made for pair, made in corrections(found.pairs, state.people).items() if pair not in found.pairs
        }
    found.units_in["vote"], found.pending["vote"] = len(found.pairs), 0
    found.rows["vote"] = {}
    for pair in found.pairs.values():
        _vote(state, found, standing, pair)
    _plant(state, found, standing)
    for stage in ("filter", "write"):
        found.rows.setdefault(stage, {})
        found.units_in.setdefault(stage, 0)
        found.pending.setdefault(stage, 0)
    return found


def _swap(
    state: State, found: Reckoned, fitting: Sequence[tuple[str, str]], asked: Mapping[tuple[str, str], Pair | str]
) -> None:
    """Matches that are drawn take the plain question of another image of the shard that fits the task type, too."""
    for image, path in fitting:
        if draw("swapped", image, path) >= state.settings.write.swapped:
            continue
        own = asked.get((image, path), "")
        there = {other for other, its in fitting if its == path and state.shards[other] == state.shards[image]}
        row: tuple[str, ...] | None = (path, "nothing to swap")
        for other in sorted(there - {image}, key=lambda each: draw("swap", image, path, each)):
            theirs = asked.get((other, path), "")
            if theirs == SILENT:
                row = None
                break
            if isinstance(theirs, Pair) and not (isinstance(own, Pair) and own.question == theirs.question):
                answer = WORDINGS[int(draw("swapped answer", image, path) * len(WORDINGS))]
                identity = pair_id(image, path, UNANSWERABLE, theirs.question, answer, None)
                pair = Pair(identity, image, path, UNANSWERABLE, theirs.question, answer, reasoning="")
                row = ("swapped", identity)
                if not _refused(state.settings, pair):
                    found.pairs[identity] = pair
                break
        found.units_in["write"] = found.units_in.get("write", 0) + 1
        found.pending["write"] = found.pending.get("write", 0) + (row is None)
        found.rows.setdefault("write", {}).setdefault(image, []).append(row)


def _answer_again(state: State, found: Reckoned, standing: Mapping[Unit, Given], pair: Pair) -> None:
    """The teacher is asked the question again, warmer; what says something else becomes a pair."""
    if pair.others or pair.variant == GERMAN:
        return
    said = {(pair.answer, pair.reasoning)}
    for number in range(2, state.settings.write.answers + 1):
        head = state.head(pair.image, request="answer", variant=pair.variant, number=number)
        item = {"task_type": pair.task_type, "question": pair.question}
        unit = _unit(state.settings.teacher, state.prompts["answer"], [pair.image], head, item)
        given = _given(found, standing, "write", unit, pair.image, pair.task_type, pair.variant, f"answer {number}")
        if given is None or given.terminal or not given.entry["answer"]:
            continue
        answer, reasoning = given.entry["answer"], given.entry.get("reasoning", "")
        if (answer, reasoning) in said:
            found.rows["write"][pair.image][-1] = ("said", pair.id, number)
            continue
        said.add((answer, reasoning))
        identity = pair_id(pair.image, pair.task_type, pair.variant, pair.question, answer, reasoning or None)
        found.pairs[identity] = replace(pair, id=identity, answer=answer, reasoning=reasoning, number=number)


def _unit(model: Model, prompt: str, images: Sequence[str], head: Mapping[str, Any], item: Mapping[str, Any]) -> Unit:
    return Unit(named(model.model, model.revision), prompt, rendered(images, model), plain(head), plain(item))


def _given(
    found: Reckoned, standing: Mapping[Unit, Given], stage: str, unit: Unit, image: str, *what: str
) -> Given | None:
    """A unit's answer, which is needed; None where there is none."""
    found.needed.add(unit)
    found.units_in[stage] = found.units_in.get(stage, 0) + 1
    given = standing.get(unit)
    row = None if given is None else (*what, given.terminal, _told(stage, given))
    found.rows.setdefault(stage, {}).setdefault(image, []).append(row)
    found.pending[stage] = found.pending.get(stage, 0) + (given is None)
    return given


def _told(stage: str, given: Given) -> str:
    """What of an answer its stage's shard tells: of a question that cannot be used, only why."""
    if stage == "write" and not given.terminal and "question" in given.entry and (why := _unusable(given)):
        return why
    return plain(given.entry)


def _unusable(given: Given) -> str:
    question, answer = given.entry["question"], given.entry["answer"]
    if not question and not answer:
        return "declined"
    return "" if answer else "empty"


def _pair(image: str, path: str, variant: str, given: Given, others: tuple[str, ...]) -> Pair | None:
    if given.terminal or _unusable(given):
        return None
    question, answer, reasoning = (given.entry[name] for name in ("question", "answer", "reasoning"))
    identity = pair_id((image, *others), path, variant, question, answer, reasoning or None)
    return Pair(identity, image, path, variant, question, answer, reasoning, others=others)


def _forms(write: WriteSettings, image: str, path: str) -> list[str]:
    """Of those that suit the task type all, or the one whose draw to the power of one by its weight is greatest."""
    forms = [form for form in write.variants if _suits(write.suits.get(form, ()), path)]
    if write.shares is None or not forms:
        return forms
    shares = write.shares

    def rank(form: str) -> float:
        return math.log(1 - draw("question form", form, image, path)) / shares[form]

    return [max(forms, key=rank)]


def _suits(patterns: Sequence[str], path: str) -> bool:
    found = {
        pattern: fnmatchcase(path, pattern.lstrip("!")) or any(each == pattern.lstrip("!") for each in _upwards(path))
        for pattern in patterns
    }
    named = [held for pattern, held in found.items() if not pattern.startswith("!")]
    return not any(held for pattern, held in found.items() if pattern.startswith("!")) and (not named or any(named))


def _refused(settings: Settings, pair: Pair) -> bool:
    """Whether a check of the history's own rejects a pair; the package's have nothing against any of these texts."""
    if settings.write.checks is None:
        return False
    rule = settings.write.checks.rules["refused"]
    return rule is not None and any(re.search(pattern, pair.question) for pattern in rule.patterns)


def _plant(state: State, found: Reckoned, standing: Mapping[Unit, Given]) -> None:
    """Accepted pairs that are drawn are shown to all judges with another answer, once all of their shard is written."""
    lacking = {
        state.shards[image]
        for stage in ("filter", "write")
        for image, rows in found.rows.get(stage, {}).items()
        if None in rows
    }
    share = state.settings.vote.planted
    due = [pair for pair in found.pairs.values() if pair.id in found.samples and draw("planted", pair.id) < share]
    for pair in due:
        shard = state.shards[pair.image]
        there = [other for other in found.pairs.values() if state.shards[other.image] == shard]
        if shard not in lacking and (wrong := _wrong(pair, there)) is not None:
            found.units_in["vote"] += 1
            _vote(state, found, standing, wrong, planted=True)


def _wrong(pair: Pair, there: Sequence[Pair]) -> Pair | None:
    """The number, one more or less; or what another image says of the kind, where it says something else."""
    if pair.variant == UNANSWERABLE:
        return None
    given = {other.answer for other in there if (other.image, other.question) == (pair.image, pair.question)}
    alike = [p for p in there if (p.task_type, p.variant) == (pair.task_type, pair.variant) and p.image != pair.image]
    alike.sort(key=lambda p: (p.question != pair.question, draw("planted from", pair.id, p.id)))
    said = [(other.answer, other.reasoning) for other in alike if other.answer != pair.answer]
    number = re.fullmatch(r"(?:It is|Es ist die) (\d)\.", pair.answer)
    if number and not pair.reasoning:
        less = number[1] != "0" and draw("planted less", pair.id) < 0.5
        said = [(pair.answer.replace(number[1], str(int(number[1]) + (-1 if less else 1))), "")]
    for answer, reasoning in said:
        if answer not in given:
            names = pair.images, pair.task_type, pair.variant, pair.question
            return replace(pair, id=pair_id(*names, answer, reasoning or None), answer=answer, reasoning=reasoning)
    return None


def _vote(state: State, found: Reckoned, standing: Mapping[Unit, Given], pair: Pair, *, planted: bool = False) -> None:
    """Judges are asked in order while the verdict is open, whatever those say who have not answered yet."""
    settings, judges = state.settings.vote, state.settings.judges
    audited = planted or draw("audit", pair.id) < settings.audit_share
    tried = [] if planted or settings.blind is None else _tried(state, found, standing, pair, settings.blind)
    seen = settings.blind is None or tried.count(True) < settings.blind.right
    if settings.blind and settings.blind.rule == "reject" and not planted and (None in tried or not seen):
        found.pending["vote"] += None in tried
        found.rows["vote"].setdefault(pair.image, []).append(None if None in tried else (pair.id, "blind"))
        return
    head = state.head(pair.image, request="vote", show_answer=settings.show_answer)
    if pair.others:  # no context would say of which of them it is
        head = {"request": "vote", "show_answer": settings.show_answer, "images": len(pair.images)}
    item = {"task_type": pair.task_type, "question": pair.question}
    if settings.show_answer:
        item |= {"answer": pair.answer} | ({"reasoning": pair.reasoning} if pair.reasoning else {})
    votes: list[int | str | None] = []  # None: an abstention
    for judge in judges:
        if not _is_open(state, votes) and not audited:
            break
        unit = _unit(judge, state.prompts["vote"], pair.images, head, item)
        found.needed.add(unit)
        given = standing.get(unit)
        votes.append(SILENT if given is None else None if given.terminal else int(given.entry["vote"]))
    if SILENT in votes or None in tried:
        found.pending["vote"] += 1
        found.rows["vote"].setdefault(pair.image, []).append(None)
        return
    found.rows["vote"].setdefault(pair.image, []).append((pair.id,))
    if _accepted(state, votes) and not planted:
        found.samples.add(pair.id)


def _tried(
    state: State, found: Reckoned, standing: Mapping[Unit, Given], pair: Pair, blind: BlindSettings
) -> list[bool | None]:
    """Whether a model answers a pair's question rightly that sees no image, try after try while that can decide."""
    tried: list[bool | None] = []  # None: it has not answered yet
    for number in range(1, blind.tries + 1):
        right, open_ = tried.count(True), tried.count(None)
        if right + open_ >= blind.right or right + blind.tries - len(tried) < blind.right:
            break
        head, item = plain({"request": "blind", "try": number}), plain({"question": pair.question})
        unit = Unit(named(blind.model.model, blind.model.revision), state.prompts["blind"], pair.image, head, item)
        found.needed.add(unit)
        given = standing.get(unit)
        tried.append(None if given is None else not given.terminal and given.entry["answer"] == pair.answer)
    return tried


def _is_open(state: State, votes: Sequence[int | str | None]) -> bool:
    """Whether both verdicts are possible at the next judge's turn, whatever those say who have not answered yet."""
    said = product(*((1, 0, None) if vote == SILENT else (vote,) for vote in votes))
    following = list(product((1, 0, None), repeat=len(state.settings.judges) - len(votes)))
    return all(len({_accepted(state, (*ways, *then)) for then in following}) == 2 for ways in said)


def _accepted(state: State, votes: Sequence[int | str | None]) -> bool:
    rule = state.settings.vote.rule
    if rule == "quorum":
        return votes.count(1) >= state.settings.vote.quorum
    named = dict(zip((judge.name for judge in state.settings.judges), votes, strict=False))
    place = sum(3**at * {None: 0, 0: 1, 1: 2}[named.get(judge)] for at, judge in enumerate(state.recorded.judges))
    return state.recorded.right[place] >= rule.probability
