"""Measure the images of an image shard for forecasts: their units and costs by stage, and the units without an answer.

Only units that today's settings need are counted: those of a former prompt or judge say nothing about future ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from taskgalaxy_ops.generation.stage_keys import StageKeys
from taskgalaxy_ops.generation.stages import filter as filter_stage
from taskgalaxy_ops.generation.stages import vote as vote_stage
from taskgalaxy_ops.generation.stages import write as write_stage
from taskgalaxy_ops.generation.stages.asking import Templates
from taskgalaxy_ops.models import pricing
from taskgalaxy_ops.models.request import RequestItem
from taskgalaxy_ops.operations.shard_state import ShardState, StoreState, wanted_matches
from taskgalaxy_ops.records import Answer, ImageId, Match, Pair
from taskgalaxy_ops.settings import Model
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.storage.ledger import NANO
from taskgalaxy_ops.workspace import Workspace

AMOUNTS = ("tokens", "cost", "list_cost")  # the latter two in USD


@dataclass(slots=True, kw_only=True)
class Lacking:
    """The numbers of images and units that have no answer yet."""

    judges: int
    images: int = 0
    filter: int = 0
    write: int = 0
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
    pairs: int = 0
    open_pairs: int = 0
    amounts: dict[str, list[float]] = field(default_factory=dict)

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
        """The image's numbers as a row (5 + judges + 4 slots): counts of the steps between stages; units by slot; each
        amount by slot.

        The steps: matches, and the questions to write for them; questions written, and their pairs; pairs, and the
        votes on them by judge. A step counts only if its first stage is answered for the whole image; else it is 0.
        """
        filtered, written = self._done(0), self._done(0) and self._done(1)
        steps = [
            self.units[0] * filtered,
            self.needed[1] * filtered,
            self.units[1] * written,
            self.pairs * written,
            self.pairs * self.whole,
            *(votes * self.whole for votes in self.units[2:]),
        ]
        return [*steps, *self.units, *(amount for name in AMOUNTS for amount in self.amounts[name])]


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
        self._models: list[Model] = [look.settings.teacher] * 2 + list(look.settings.judges)
        self._measures = {match.image: Measure(image=match.image, slots=len(self._models)) for match in matches}
        self._slots: dict[str, tuple[Measure, int]] = {}  # by unit that is answered
        self._matches = matches

    def measured(self, lacking: Lacking) -> list[Measure]:
        answers = self._journal.answers
        units = filter_stage.filter_units(self._templates["filter"]["filter"], self._matches)
        lacking.filter += self._count_units(units, 0, answers)
        relevant = filter_stage.filtered(units, answers).relevant
        pairs: list[Pair] = []
        for variant, question in self._templates["write"].items():
            units = write_stage.write_units(question, relevant)
            lacking.write += self._count_units(units, 1, answers)
            pairs += write_stage.written(variant, units, answers).pairs
        for pair in pairs:
            self._voted(pair, answers, lacking)
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

    def _voted(self, pair: Pair, answers: Mapping[str, Answer], lacking: Lacking) -> None:
        questions, settings = list(self._templates["vote"].values()), self._look.settings.vote
        needed = vote_stage.votes_needed([pair], questions, settings, answers)
        is_open = any(needed)
        self._measures[pair.image].pairs += 1
        lacking.open_pairs += is_open
        for judge, question in enumerate(questions):
            unit = vote_stage.vote_unit(question, pair)
            if unit.key in answers:
                self._count_units([unit], 2 + judge, answers)
                lacking.open_votes[judge] += is_open
            lacking.votes[judge] += len(needed[judge])
        self._measures[pair.image].open_pairs += is_open

    def _add_amounts(self) -> None:
        """Add the replies' tokens and costs, divided among their units; replies that could not be used count, too."""
        for reply in self._journal.replies():
            places = [self._slots[unit] for unit in reply["units"] if unit in self._slots]
            if not places or not reply["raw"]:
                continue
            for name, amount in self._amounts(reply, self._models[places[0][1]]).items():
                for image_measure, slot in places:
                    image_measure.amounts[name][slot] += amount / len(reply["units"])

    def _amounts(self, reply: Mapping[str, Any], model: Model) -> dict[str, float]:
        """A reply's tokens, and its cost at today's prices if it states its tokens, else as it was paid."""
        usage, price = reply["usage"], pricing.price_of(model) or pricing.FREE
        states_tokens = pricing.is_told(usage)
        batch = model.mode == "batch"
        cost = pricing.cost(usage, price, batch=batch) if states_tokens else reply["cost"]
        listed = pricing.cost(usage, model.list_price or price, batch=batch) if states_tokens else reply["list_cost"]
        tokens = pricing.tokens(usage) if states_tokens else 0
        return {"tokens": tokens, "cost": cost / NANO, "list_cost": listed / NANO}
