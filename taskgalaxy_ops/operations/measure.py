"""Measure the images of an image shard for forecasts: their units and costs by stage, and the units without an answer.

Only units that today's settings need are counted: those of a former prompt or judge say nothing about future ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from taskgalaxy_ops.generation.corrected import put_to_vote
from taskgalaxy_ops.generation.planted import planted
from taskgalaxy_ops.generation.stage_keys import StageKeys
from taskgalaxy_ops.generation.staged import staged
from taskgalaxy_ops.generation.stages import filter as filter_stage
from taskgalaxy_ops.generation.stages import vote as vote_stage
from taskgalaxy_ops.generation.stages import write as write_stage
from taskgalaxy_ops.generation.stages.asking import Templates
from taskgalaxy_ops.generation.stages.blind import blind_unit, tries_of
from taskgalaxy_ops.models import pricing
from taskgalaxy_ops.models.request import RequestItem, RequestTemplate
from taskgalaxy_ops.operations import fused_saving
from taskgalaxy_ops.operations.shard_state import ShardState, StoreState, wanted_matches
from taskgalaxy_ops.records import Answer, ImageId, Match, Pair
from taskgalaxy_ops.settings import Model, VoteSettings
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.storage.ledger import NANO
from taskgalaxy_ops.workspace import Workspace

AMOUNTS = ("tokens", "cost", "list_cost")  # the latter two in USD
STEPS = 6  # counts in a `Measure.row` before the votes by judge


@dataclass(slots=True, kw_only=True)
class Lacking:
    """The numbers of images and units that have no answer yet."""

    judges: int
    images: int = 0
    filter: int = 0
    write: int = 0  # questions, each with its first answer
    further: int = 0  # further answers to questions that are written
    votes: list[int] = field(default_factory=list)  # votes that are certainly needed, by judge
    open_pairs: int = 0  # pairs whose verdict is open
    open_votes: list[int] = field(default_factory=list)  # votes that the open pairs have already, by judge

    def __post_init__(self) -> None:
        self.votes, self.open_votes = [0] * self.judges, [0] * self.judges


@dataclass(slots=True, kw_only=True)
class Measure:
    """One image's units and amounts (tokens, cost, list cost), by slot. Slots are filter, write, and each judge."""

    image: ImageId
    slots: int
    needed: list[int] = field(default_factory=list)
    units: list[int] = field(default_factory=list)  # of the needed ones, those that are answered
    first: int = 0  # of those that write needs, questions with their first answer
    pairs: int = 0
    open_pairs: int = 0
    amounts: dict[str, list[float]] = field(default_factory=dict)  # as if it had been asked without `write.fused`
    saved: dict[str, float] = field(default_factory=lambda: dict.fromkeys(AMOUNTS, 0.0))  # by `write.fused`

    def __post_init__(self) -> None:
        self.needed, self.units = [0] * self.slots, [0] * self.slots
        self.amounts = {name: [0.0] * self.slots for name in AMOUNTS}

    def _done(self, slot: int) -> bool:
        return self.units[slot] == self.needed[slot]

    @property
    def whole(self) -> bool:
        """Whether all units that it needs are answered."""
        return self._done(0) and self._done(1) and not self.open_pairs

    def row(self) -> list[float]:
        """The image's numbers as a row (STEPS + 4 + judges + 4 slots): counts of the steps between stages; units by
        slot; each amount by slot; units of the filter, and each amount that `write.fused` saves on them and their
        questions.

        The steps: matches, and the questions to write for them; questions written, with further answers these, and
        the pairs of both; pairs, and the votes on them by judge. A step counts only if its first stage is answered for
        the whole image; else it is 0.
        """
        filtered, written = self._done(0), self._done(0) and self._done(1)
        steps = [
            self.units[0] * filtered,
            self.first * filtered,
            self.first * written,
            self.units[1] * written,
            self.pairs * written,
            self.pairs * self.whole,
            *(votes * self.whole for votes in self.units[2:]),
        ]
        amounts = (amount for name in AMOUNTS for amount in self.amounts[name])
        saved = (self.saved[name] * written for name in AMOUNTS)
        return [*steps, *self.units, *amounts, self.units[0] * written, *saved]


def measure(look: Workspace, there: StoreState, one: ShardState, lacking: Lacking) -> list[Measure]:
    """Measure the images of an image shard that have an answer; units without one are added to ``lacking``.

    look: a snapshot of the workspace. there, one: its state, and that of the image shard.
    """
    matches, shard = wanted_matches(look, there, one), one.shard.id
    if matches is None:  # not embedded yet: the number of its matches is certain, but not which they are
        lacking.images += one.live
        lacking.filter += one.live * min(look.settings.match.k, len(there.types.ids))
        return []
    if there.targets is not None:
        lacking.filter += there.targets.ahead(shard)[0]
    templates = StageKeys(look).templates_for(shard)
    return _MeasuredShard(look, templates, matches, Journal(look.store, shard, there.begun.get(shard))).measured(
        lacking
    )


class _MeasuredShard:
    def __init__(
        self, look: Workspace, templates: Mapping[str, Templates], matches: Sequence[Match], journal: Journal
    ) -> None:
        self._look = look
        self._templates = templates
        self._journal = journal
        self._models: list[Model] = [look.settings.teacher] * 2 + list(look.settings.voters)
        self._measures = {match.image: Measure(image=match.image, slots=len(self._models)) for match in matches}
        self._slots: dict[str, tuple[Measure, int]] = {}  # by unit that is answered
        # By image: how its verdicts would be asked for with `write.fused`.
        self._along: dict[str, tuple[RequestTemplate, list[RequestItem]]] = {}
        self._matches = matches

    def measured(self, lacking: Lacking) -> list[Measure]:
        answers = self._journal.answers
        units = filter_stage.filter_units(self._templates["filter"]["filter"], self._matches)
        lacking.filter += self._count_units(units, 0, answers)
        relevant = filter_stage.filtered(units, answers).relevant
        self._look_along(units)
        templates, settings = self._templates["write"], self._look.settings
        written = write_stage.work(templates, relevant, settings).output(answers)
        pairs = put_to_vote(self._look, written.rows["pairs"])
        for units in write_stage.units_by_form(templates, relevant, settings)[0].values():
            lacking.write += self._count_units(units, 1, answers)
            for unit in units:
                self._measures[unit.image or ""].first += 1
        first = [pair for pair in written.rows["pairs"] if pair.number is None]
        for question in write_stage.further_answers(templates).values():
            lacking.further += self._count_units(write_stage.answer_units(question, first), 1, answers)
        asked, vote = self._templates["vote"], staged(self._look).vote
        questions, tries = vote_stage.judges_of(asked), tries_of(asked)
        for pair in pairs:
            self._measures[pair.image].pairs += 1
            self._voted(pair, vote, questions, tries, lacking)
        errors = [] if written.pending else planted(pairs, vote.planted)
        for wrong in vote_stage.errors_due(errors, questions, vote, answers, tries)[0]:
            self._voted(wrong, vote_stage.shown_to_all(vote), questions, (), lacking)
        lacking.images += sum(not each.whole for each in self._measures.values())
        self._add_amounts()
        return [each for each in self._measures.values() if any(each.units)]

    def _count_units(self, units: Iterable[RequestItem], slot: int, answers: Mapping[str, Answer]) -> int:
        """Count units in a slot of their images; returns how many of them have no answer."""
        missing = 0
        for unit in units:
            if unit.image is None:
                raise AssertionError("a unit of an image shard is about an image")
            image_measure, answered = self._measures[unit.image], unit.key in answers
            image_measure.needed[slot] += 1
            image_measure.units[slot] += answered
            missing += not answered
            if answered:
                self._slots[unit.key] = (image_measure, slot)
        return missing

    def _voted(
        self,
        pair: Pair,
        settings: VoteSettings,
        questions: Sequence[RequestTemplate],
        tries: Sequence[RequestTemplate],
        lacking: Lacking,
    ) -> None:
        """Count the votes on a pair, or on a planted error, which is none."""
        answers = self._journal.answers
        needed = vote_stage.votes_needed([pair], questions, settings, answers, tries)
        is_open = any(needed)
        lacking.open_pairs += is_open
        for judge, question in enumerate(questions):
            unit = vote_stage.vote_unit(question, pair)
            if unit.key in answers:
                self._count_units([unit], 2 + judge, answers)
                lacking.open_votes[judge] += is_open
            lacking.votes[judge] += len(needed[judge])
        for number, template in enumerate(tries, len(questions)):
            unit = blind_unit(template, pair)
            if unit.key in answers:
                self._count_units([unit], 2 + len(questions), answers)
                lacking.open_votes[-1] += is_open
            lacking.votes[-1] += len(needed[number])
        self._measures[pair.image].open_pairs += is_open

    def _look_along(self, units: Sequence[RequestItem]) -> None:
        """Find how the filter's units would be asked with `write.fused`."""
        settings = self._look.settings
        if set(settings.filter.context) != set(settings.write.context):
            return  # they cannot be
        fused = settings.write.model_copy(update={"fused": True})
        for template, items in filter_stage.as_asked(self._templates["filter"]["filter"], units, fused):
            for item in items:
                self._along.setdefault(item.image or "", (template, []))[1].append(item)

    def _add_amounts(self) -> None:
        """Add the replies' tokens and costs, divided among their units; replies that could not be used count, too."""
        replies = {reply["reply"]: reply for reply in self._journal.replies()}
        written = {reply["note"]["asked_along"]: reply for reply in replies.values() if _asked_along(reply)}
        apart: set[str] = set()  # images whose verdicts were asked for alone
        for reply in replies.values():
            places = [self._slots[unit] for unit in reply["units"] if unit in self._slots]
            if not places or not reply["raw"]:
                continue
            model = self._models[places[0][1]]
            if (reply.get("note") or {}).get("along") and pricing.is_told(reply["usage"]):
                self._add_fused(reply, written.get(reply["reply"]), places[0][0], model)
                continue
            for name, amount in self._amounts(reply, model).items():
                for image_measure, slot in places:
                    image_measure.amounts[name][slot] += amount / len(reply["units"])
            if reply["stage"] == "filter":
                apart.add(places[0][0].image)
            elif reply["stage"] == "write" and pricing.is_told(reply["usage"]):
                _, items = self._along.get(places[0][0].image, (None, []))
                share = len({item.follow_up for item in items}.intersection(reply["units"])) / len(reply["units"])
                self._save(places[0][0], reply["usage"]["prompt_tokens"] * share, model)
        for image in apart & self._along.keys():
            template, items = self._along[image]
            self._save(self._measures[image], -fused_saving.longer(template, items), self._models[0])

    def _add_fused(
        self, reply: Mapping[str, Any], written: Mapping[str, Any] | None, image: Measure, model: Model
    ) -> None:
        """Add a reply to both questions as two that were asked apart, and what it saved."""
        template, items = self._along.get(image.image, (self._templates["filter"]["filter"], []))
        asked = [item for item in items if item.key in reply["units"]]
        values = {unit: answer.get("value") or {} for unit, answer in (written or {"answers": {}})["answers"].items()}
        told = fused_saving.parted(reply["usage"], template, asked, values)
        for slot, usage in enumerate((told.filter, told.write)):
            for name, amount in self._priced(usage, model).items():
                image.amounts[name][slot] += amount
        self._save(image, told.saved, model)

    def _save(self, image: Measure, prompt_tokens: float, model: Model) -> None:
        for name, amount in self._priced({"prompt_tokens": prompt_tokens}, model).items():
            image.saved[name] += amount

    def _amounts(self, reply: Mapping[str, Any], model: Model) -> dict[str, float]:
        """A reply's tokens, and its cost at today's prices if it states its tokens, else as it was paid."""
        if pricing.is_told(reply["usage"]):
            return self._priced(reply["usage"], model)
        return {"tokens": 0, "cost": reply["cost"] / NANO, "list_cost": reply["list_cost"] / NANO}

    def _priced(self, usage: Mapping[str, Any], model: Model) -> dict[str, float]:
        """Tokens, and their cost at today's prices."""
        price, batch = pricing.price_of(model) or pricing.FREE, model.mode == "batch"
        cost = pricing.cost(usage, price, batch=batch)
        listed = pricing.cost(usage, model.list_price or price, batch=batch)
        return {"tokens": pricing.tokens(usage), "cost": cost / NANO, "list_cost": listed / NANO}


def _asked_along(reply: Mapping[str, Any]) -> bool:
    return "asked_along" in (reply.get("note") or {})
