"""Interprets a reply: which answers it holds, and how to ask next for the units without one.

Replies to chat requests and replies of batches are interpreted alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from taskgalaxy_ops.models.request import RequestItem, RequestTemplate
from taskgalaxy_ops.records import Answer, Reason
from taskgalaxy_ops.text import clean


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPlan:
    """How to ask next for a unit, in view of its earlier replies."""

    round: int = 0  # number of unusable replies so far
    fault: str = ""  # what was wrong with the last of them
    cut: bool = False  # a reply was cut off, so the next one gets more room
    alone: bool = False  # ask in a request of its own: a refusal may concern another unit of its request
    mode: str = ""  # form of structured output; "": the model's current one
    size: int = 0  # the most units of a request; 0: as many as there are
    tokens: int = 0  # the most room for the reply that the model has; 0: it is not known
    lost: int = 0  # number of requests in a row that were not served …
    run: str = ""  # … in this run

    def to_json(self) -> dict[str, Any]:
        """The form that the journal holds: fields with their default are left out."""
        return {name: value for name, value in asdict(self).items() if value}

    def room(self, tokens: int) -> int:
        """The room for the reply in tokens: ``tokens``, or twice as many after a reply that was cut off.

        It is doubled only once, since a longer reply would probably never end; and never above what the model has.
        """
        return min(tokens * (1 + self.cut), self.tokens or tokens * 2)

    def shorter(self, units: int, tokens: int, allowed: int) -> RetryPlan | None:
        """How to ask after a request of ``units`` units and room for ``tokens`` was too long; None: it cannot be less.

        First fewer units, then less room; where the server said how much room it has (``allowed``, else 0), that.
        """
        room = self.room(tokens)
        if 0 < allowed < room:
            return replace(self, tokens=allowed)
        if units > 1:
            return replace(self, size=(units + 1) // 2, tokens=min(room, tokens) if self.cut else self.tokens)
        if self.cut and room > tokens:
            return replace(self, tokens=tokens)
        return replace(self, tokens=room // 2) if room // 2 >= _LEAST_ROOM else None


_LEAST_ROOM = 64  # tokens; no reply of ours is shorter
FIRST = RetryPlan()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReply:
    """A reply, the request that it answers, and what the call cost."""

    data: Mapping[str, Any]
    units: Sequence[RequestItem]
    template: RequestTemplate
    block: str  # of the budget
    ceiling: int  # nano-dollars that the budget held for the call
    cost: int  # nano-dollars
    attempts: int  # requests sent, this one included
    seen: int  # number of the last journal entry that the sender had read
    seconds: float  # from the first request to the reply
    note: Mapping[str, Any]
    batch: str = ""  # nonce of the batch that brought it; "": a chat request did
    run: str = ""  # the run that sent the request, if it is not the run that received the reply
    name: str = ""  # the reply's id, if a reply that is received twice must have the same
    kind: str = "served"  # `models.http.Outcome.kind`; "failing": a healthy model failed at each try
    allowed: int = 0  # of a request that was too long: the most room, where the server said it

    @property
    def text(self) -> str:
        """The text that the model wrote."""
        return reply_text(self.data)

    @property
    def cut(self) -> bool:
        """Whether the reply was cut off because its room was used up."""
        return _choice(self.data).get("finish_reason") == "length"

    @property
    def filtered(self) -> bool:
        """Whether the provider's moderation withheld the reply."""
        return _choice(self.data).get("finish_reason") == "content_filter"

    @property
    def refusal(self) -> str:
        """Why the model refused for good; "" if it did not."""
        if self.data.get("error"):
            return clean(f"{self.data['error']}")[:300]
        message = _choice(self.data).get("message")
        refusal = message.get("refusal") if isinstance(message, dict) else None
        if refusal:
            return clean(str(refusal))[:300] or "refused"
        return "content filter" if _choice(self.data).get("finish_reason") == "content_filter" else ""


@dataclass(frozen=True, slots=True)
class Interpretation:
    """The interpretation of a reply: which units it answers, and how to ask for the others."""

    answers: Mapping[str, Answer]
    gone: Mapping[str, Answer] = field(default_factory=dict)  # terminal answers of the units that are given up
    rest: Sequence[RequestItem] = ()  # to be asked again …
    after: RetryPlan = FIRST  # … in this way


def interpret(received: ModelReply, before: RetryPlan) -> Interpretation:
    """Interpret a reply to units that were asked according to ``before``."""
    units, model = received.units, received.template.model
    if received.kind in {"long", "failing"}:
        return _smaller(received, before)
    if received.refusal:
        if len(units) > 1:  # it is not known which of them was refused: ask for each alone
            return Interpretation({}, rest=units, after=RetryPlan(alone=True, mode=before.mode, tokens=before.tokens))
        return Interpretation({units[0].key: Answer(terminal=Reason.REFUSED, detail=received.refusal)})
    answers, fault = received.template.parse(units, received.text)
    rest = [unit for unit in units if unit.key not in answers]
    if before.round >= model.repairs:
        return Interpretation(
            answers, {unit.key: Answer(terminal=Reason.MALFORMED, detail=fault[:300]) for unit in rest}
        )
    reported = "" if received.cut else fault  # a reply that was cut off was not wrong, only too long
    cut = before.cut or received.cut
    after = replace(before, round=before.round + 1, fault=reported, cut=cut, lost=0, run="")
    return Interpretation(answers, rest=rest, after=after)


def _smaller(received: ModelReply, before: RetryPlan) -> Interpretation:
    """Ask for less after a request that is too long for the model, or that it fails at; the last unit is given up."""
    units, reason = received.units, Reason.TOO_LONG if received.kind == "long" else Reason.MODEL_FAILS
    if reason == Reason.TOO_LONG:
        after = before.shorter(len(units), received.template.model.max_tokens, received.allowed)
    else:
        after = replace(before, size=(len(units) + 1) // 2) if len(units) > 1 else None
    if after is not None:
        return Interpretation({}, rest=units, after=after)
    return Interpretation({units[0].key: Answer(terminal=reason, detail=received.refusal)})


def _choice(data: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = data.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}


def reply_text(data: Mapping[str, Any]) -> str:
    """The text of a chat completion's first choice; "" where there is none."""
    message = _choice(data).get("message")
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, str) else ""
