"""Vote: judges score each pair independently; the votes decide by a rule whether it becomes a sample.

Paper, section 3.4, whose rule is a quorum of approvals (``vote_rule``). Judges are asked in the settings' order while
the verdict is open. A fixed share of pairs, chosen by the pair's hash, is shown to every judge for statistics; such an
audit never changes a verdict.

With ``vote.planted`` every judge is also asked about some accepted pairs with a wrong answer in place of theirs
(``planted``). These have votes and are rejects, and have no verdict: they are there to measure judges by.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from taskgalaxy_ops.generation.planted import VERSION as PLANTED
from taskgalaxy_ops.generation.planted import Planted, planted
from taskgalaxy_ops.generation.stages.asking import Answers, Output, Tables, Templates, Work
from taskgalaxy_ops.generation.stages.blind import REQUEST as BLIND
from taskgalaxy_ops.generation.stages.blind import blind_template, blind_templates, blind_unit, probed, tries_of
from taskgalaxy_ops.generation.vote_rule import MISSING, Cast, MeasuredVote, Rule, rule_of
from taskgalaxy_ops.hashing import draw
from taskgalaxy_ops.models.request import (
    CANARY_QUESTION,
    CANARY_TASK_TYPE,
    RequestItem,
    RequestTemplate,
    entry_schema,
    reason_of,
    vote_of,
)
from taskgalaxy_ops.records import Answer, Pair, Reason, Reject, Verdict, Vote, reject_of, turns_in
from taskgalaxy_ops.settings import BlindSettings, Model, Settings, VoteSettings
from taskgalaxy_ops.text import clean

_SHOWN = 200  # characters of an answer in a reject's detail

FURTHER = "further_turns"  # field of an item: what a conversation has after its first question and answer

_OF_FURTHER = (
    f"A pair's `{FURTHER}` are what is asked and answered after it, in the same conversation. Vote 1 for such a pair "
    "only if all turns hold: each further question makes sense after the turns before it (it need not be of the task "
    "type), and every answer that is shown is right."
)

_OF_IMAGES = (
    "`images` is how many images you see, not one: image 1 is the first of them, image 2 the second, and so on. Each "
    "pair is about all of them, its task type about the first. Vote 1 only if the question makes sense for these "
    "images, and at least two of them are needed to answer it."
)


def templates(prompts: Mapping[str, str], settings: Settings) -> Templates:
    """One a judge, in the settings' order; then one a try of the blind probe."""
    vote = settings.vote
    judges = {judge.name: vote_template(prompts["vote"], judge, vote.show_answer) for judge in settings.judges}
    return {**judges, **({} if vote.blind is None else blind_templates(prompts["blind"], vote.blind))}


def rules(settings: Settings) -> dict[str, Any]:
    """When a pair becomes a sample."""
    vote = settings.vote
    rule: dict[str, Any] = {"quorum": vote.quorum}
    if isinstance(vote, MeasuredVote) and vote.rule != "quorum":
        rule = {"probability": vote.rule.probability, "recorded of judges": {"measure": vote.measure.hash}}
    blind = {} if vote.blind is None else {"blind": {"right": vote.blind.right, "rule": vote.blind.rule}}
    errors = {"planted": {"share": vote.planted, "version": PLANTED}} if vote.planted else {}
    return {**rule, "audit_share": vote.audit_share, "show_answer": vote.show_answer, **blind, **errors}


def judges_of(templates: Templates) -> list[RequestTemplate]:
    """The judges' templates, in order."""
    return [template for template in templates.values() if template.head["request"] == "vote"]


def work(templates: Templates, rows: Sequence[Pair], settings: Settings) -> Work:
    """Units as the verdicts come to need them; out come samples."""
    judges, tries = judges_of(templates), tries_of(templates)
    errors = planted(rows, settings.vote.planted)
    to_all = shown_to_all(settings.vote)

    def needed(answers: Answers) -> list[tuple[RequestTemplate, list[RequestItem]]]:
        asked = votes_needed(rows, judges, settings.vote, answers, tries)
        due, _ = errors_due(errors, judges, settings.vote, answers, tries)
        for units, more in zip(asked, votes_needed(due, judges, to_all, answers), strict=False):
            units += more
        return list(zip([*judges, *tries], asked, strict=True))

    def output(answers: Answers) -> Output:
        made = voted(rows, judges, settings.vote, answers, tries)
        more = errors_voted(errors, judges, settings.vote, answers, tries)
        tables: Tables = {
            "votes": sorted([*made.votes, *more.votes], key=lambda vote: vote.pair),
            "verdicts": made.verdicts,
            "samples": made.samples,
            "rejects": sorted([*made.rejects, *more.rejects], key=lambda reject: reject.pair or ""),
        }
        units = len(rows) + len(more.rejects) + more.pending
        return Output(tables, units, len(made.samples), made.pending + more.pending)

    def most(answers: Answers) -> int:
        due, waiting = errors_due(errors, judges, settings.vote, answers, tries)
        own = votes_at_most(rows, judges, settings.vote, answers, tries)
        return len(own | votes_at_most([*due, *waiting], judges, to_all, answers))

    return Work(needed, output, most)


def reader(model: Model, _: str | None, request: str | None = None) -> RequestTemplate:
    """Reads votes, or answers to a question without its image."""
    return blind_template("", model, 1) if request == BLIND else vote_template("", model, True)


def vote_template(prompt: str, judge: Model, show_answer: bool) -> RequestTemplate:
    """The request to one judge to score pairs."""
    return RequestTemplate(
        stage="vote",
        prompt=prompt,
        model=judge,
        head={"request": "vote", "show_answer": show_answer},
        items="pairs",
        replies="votes",
        schema=entry_schema(vote="integer", reason="string"),
        read=_read_vote,
        canary=_canary(show_answer),
        choices={"vote": (0, 1)},
        may_lack=frozenset({"reason"}),
        notes={FURTHER: _OF_FURTHER, "images": _OF_IMAGES},
    )


def _canary(show_answer: bool) -> dict[str, Any]:
    asked = {"task_type": CANARY_TASK_TYPE, "question": CANARY_QUESTION}
    return {**asked, "answer": "White."} if show_answer else asked


def _read_vote(_: Mapping[str, Any], entry: Any) -> Answer:
    return Answer({"vote": vote_of(entry, "vote"), "reason": clean(reason_of(entry))})


def vote_unit(question: RequestTemplate, pair: Pair) -> RequestItem:
    """The unit that asks a judge about a pair; it contains answer and reasoning only if the judge is shown them."""
    item: dict[str, Any] = {"task_type": pair.task_type, "question": pair.question}
    if question.head["show_answer"]:
        item["answer"] = pair.answer
        if pair.reasoning:
            item["reasoning"] = pair.reasoning
    if further := turns_in(pair.further_turns):
        shown = 2 if question.head["show_answer"] else 1
        item[FURTHER] = [dict(zip(("question", "answer")[:shown], turn, strict=False)) for turn in further]
    return question.unit(pair.image, item, pair.images[1:])


@dataclass(frozen=True, slots=True)
class _Ballot:
    """The state of a pair's vote: its votes so far, in the judges' order, and the units that are needed next."""

    votes: list[Vote]
    needed: list[tuple[int, RequestItem]]  # index of judge, or of a try of the blind probe after all judges; unit
    cast: Cast  # those that count
    blind: bool | None = None  # whether it is answered without the image; None: nobody tried, or it is open


def _ballot(
    pair: Pair,
    questions: Sequence[RequestTemplate],
    settings: VoteSettings,
    answers: Mapping[str, Answer],
    tries: Sequence[RequestTemplate],
) -> _Ballot:
    probe = probed(pair, tries, settings.blind, answers)
    asked = [(len(questions) + at, unit) for at, unit in probe.needed]
    if settings.blind and settings.blind.rule == "reject" and (asked or probe.blind):
        return _Ballot([], asked, (), probe.blind)  # no judge is paid for it
    ballot = _judged(pair, questions, settings, answers)
    if asked:
        return replace(ballot, needed=[*ballot.needed, *asked])
    return replace(ballot, blind=probe.blind)


def _judged(
    pair: Pair, questions: Sequence[RequestTemplate], settings: VoteSettings, answers: Mapping[str, Answer]
) -> _Ballot:
    rule = rule_by(settings, questions)
    audited = draw("audit", pair.pair) < settings.audit_share
    votes: list[Vote] = []
    needed: list[tuple[int, RequestItem]] = []
    cast: Cast = ()
    for index, question in enumerate(questions):
        # Certainly needed: however the judges vote whose votes are missing, the verdict is open at this judge's turn.
        certain = rule.is_open(cast)
        decided = not needed and not certain
        if not audited and not certain:
            break
        unit = vote_unit(question, pair)
        answer = answers.get(unit.key)
        if answer is None:
            needed.append((index, unit))
            cast = cast if decided else (*cast, MISSING)
            continue
        value = None if answer.value is None else int(answer.value["vote"])
        reason = answer.value["reason"] if answer.value else f"{answer.terminal}: {answer.detail}".rstrip(": ")
        votes.append(Vote(pair.pair, question.model.name, value, reason, decided))
        if not decided:
            cast = (*cast, value)
    return _Ballot(votes, needed, cast)


def rule_by(settings: VoteSettings, questions: Sequence[RequestTemplate]) -> Rule:
    """The rule of the settings for the judges that are asked so."""
    return rule_of(settings, [question.model.name for question in questions])


def votes_needed(
    pairs: Iterable[Pair],
    questions: Sequence[RequestTemplate],
    settings: VoteSettings,
    answers: Mapping[str, Answer],
    tries: Sequence[RequestTemplate] = (),
) -> list[list[RequestItem]]:
    """For each judge, and then each of the blind probe's ``tries``, the units that are needed now and have no answer;
    all empty: every verdict is reached.

    A judge is not asked yet while the judges before may still reach a verdict without it.
    """
    needed: list[list[RequestItem]] = [[] for _ in (*questions, *tries)]
    for pair in pairs:
        for index, unit in _ballot(pair, questions, settings, answers, tries).needed:
            needed[index].append(unit)
    return needed


def votes_at_most(
    pairs: Iterable[Pair],
    questions: Sequence[RequestTemplate],
    settings: VoteSettings,
    answers: Mapping[str, Answer],
    tries: Sequence[RequestTemplate] = (),
) -> set[str]:
    """The most units that open verdicts and audits may need: those of every judge and try that have no answer yet."""
    return {
        unit.key
        for pair in pairs
        if _ballot(pair, questions, settings, answers, tries).needed
        for unit in (
            *(vote_unit(question, pair) for question in questions),
            *(blind_unit(template, pair) for template in tries),
        )
        if unit.key not in answers
    }


@dataclass(frozen=True, slots=True)
class Voted:
    """The vote's result: pairs = samples + rejects + pending."""

    votes: list[Vote]
    verdicts: list[Verdict]
    samples: list[Pair]
    rejects: list[Reject]
    pending: int


def voted(
    pairs: Iterable[Pair],
    questions: Sequence[RequestTemplate],
    settings: VoteSettings,
    answers: Mapping[str, Answer],
    tries: Sequence[RequestTemplate] = (),
) -> Voted:
    """Votes, verdicts, samples and rejects, ordered by pair; only the votes that the settings need."""
    result = Voted([], [], [], [], 0)
    rule, pending = rule_by(settings, questions), 0
    for pair in sorted(pairs, key=lambda p: p.pair):
        ballot = _ballot(pair, questions, settings, answers, tries)
        if ballot.needed:
            pending += 1
            continue
        if ballot.blind and settings.blind and settings.blind.rule == "reject":
            result.rejects.append(_blind_reject(pair, settings.blind))
            continue
        accepted = rule.accepts(ballot.cast)
        result.votes.extend(ballot.votes)
        result.verdicts.append(Verdict(pair.pair, accepted, ballot.cast.count(1), len(ballot.cast), ballot.blind))
        if accepted:
            result.samples.append(pair)
        else:
            result.rejects.append(_reject(pair, ballot, rule))
    return Voted(result.votes, result.verdicts, result.samples, result.rejects, pending)


def _blind_reject(pair: Pair, chosen: BlindSettings) -> Reject:
    detail = f"{chosen.model.name}: {chosen.right} of {chosen.tries} tries or more"
    return reject_of("vote", pair, Reason.ANSWERED_BLIND, detail)


def _reject(pair: Pair, ballot: _Ballot, rule: Rule) -> Reject:
    # If the abstentions had been approvals, it would have been accepted: abstaining decided, not a vote of 0.
    approving = tuple(1 if vote is None else vote for vote in ballot.cast)
    reason = Reason.ABSTAINED if None in ballot.cast and rule.accepts(approving) else rule.reason
    detail = "; ".join(filter(None, [rule.told(ballot.cast), *map(_told, ballot.votes)]))
    return reject_of("vote", pair, reason, detail)


def _told(vote: Vote) -> str:
    return f"{vote.judge} {'abstained' if vote.vote is None else vote.vote}: {vote.reason}"


# --- planted errors


def shown_to_all(settings: VoteSettings) -> VoteSettings:
    """The settings by which planted errors are voted on: every judge sees them, and nobody answers them blind."""
    return settings.model_copy(update={"audit_share": 1.0, "blind": None})


def errors_due(
    errors: Sequence[Planted],
    questions: Sequence[RequestTemplate],
    settings: VoteSettings,
    answers: Answers,
    tries: Sequence[RequestTemplate],
) -> tuple[list[Pair], list[Pair]]:
    """The wrong pairs that judges are to see, since the right ones are accepted; and those of which that is open."""
    made = voted([error.of for error in errors], questions, settings, answers, tries)
    accepted, rejected = ({pair.pair for pair in rows} for rows in (made.samples, made.rejects))
    due = [error.wrong for error in errors if error.of.pair in accepted]
    return due, [error.wrong for error in errors if error.of.pair not in accepted | rejected]


def errors_voted(
    errors: Sequence[Planted],
    questions: Sequence[RequestTemplate],
    settings: VoteSettings,
    answers: Answers,
    tries: Sequence[RequestTemplate],
) -> Voted:
    """The votes on planted errors, each of which is a reject, and what is pending of them."""
    due, _ = errors_due(errors, questions, settings, answers, tries)
    made = voted(due, questions, shown_to_all(settings), answers)
    right = {error.wrong.pair: error.of for error in errors}
    said: dict[str, list[Vote]] = {}
    for vote in made.votes:
        said.setdefault(vote.pair, []).append(vote)
    accepted = {pair.pair for pair in made.samples}
    rejects = [
        _planted_reject(pair, right[pair.pair], pair.pair in accepted, said[pair.pair])
        for pair in due
        if pair.pair in said
    ]
    return Voted(made.votes, [], [], rejects, made.pending)


def _planted_reject(pair: Pair, right: Pair, accepted: bool, votes: Sequence[Vote]) -> Reject:
    shown = (
        f"{pair.answer[:_SHOWN]!r} in place of {right.answer[:_SHOWN]!r} was {'accepted' if accepted else 'rejected'}"
    )
    detail = "; ".join([shown, *map(_told, votes)])
    return reject_of("vote", pair, Reason.PLANTED, detail)
