"""A reply as it was received, and what comes of it: answers, and how the units without one are to be asked next.

The same whether it came by itself or in a batch.
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
    """How a unit is to be asked next, by what came of it until now."""

    round: int = 0  # replies that could not be used
    fault: str = ""  # of the last one
    cut: bool = False  # it ran out of room
    alone: bool = False  # one that it was asked with may have been refused
    mode: str = ""  # form of structured output; "": as any
    lost: int = 0  # requests in a row that were not served,
    run: str = ""  # of this run

    def to_json(self) -> dict[str, Any]:
        """As the journal has it: what is as it was at first is left out."""
        return {name: value for name, value in asdict(self).items() if value}

    def room(self, tokens: int) -> int:
        """The room for a reply; ``tokens``: at first. Not more than twice that: it would never end."""
        return tokens * (1 + self.cut)


FIRST = RetryPlan()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReply:
    """What a request brought, and what it took."""

    data: Mapping[str, Any]
    units: Sequence[RequestItem]
    template: RequestTemplate
    block: str
    ceiling: int  # nano-dollars that the budget held for it
    cost: int  # nano-dollars
    attempts: int
    seen: int
    seconds: float
    note: Mapping[str, Any]
    batch: str = ""  # in which it came; "": by itself
    run: str = ""  # that asked, where it is not the one that received it
    name: str = ""  # of the reply, where it is the same each time that it is received

    @property
    def text(self) -> str:
        """What the model said."""
        return reply_text(self.data)

    @property
    def cut(self) -> bool:
        """Whether it ran out of room."""
        return _choice(self.data).get("finish_reason") == "length"

    @property
    def refusal(self) -> str:
        """Why this is no answer for good; "" if it is one."""
        if self.data.get("error"):
            return clean(f"{self.data['error']}")[:300]
        message = _choice(self.data).get("message")
        refusal = message.get("refusal") if isinstance(message, dict) else None
        if refusal:
            return clean(str(refusal))[:300] or "refused"
        return "content filter" if _choice(self.data).get("finish_reason") == "content_filter" else ""


@dataclass(frozen=True, slots=True)
class Interpretation:
    """What comes of a reply."""

    answers: Mapping[str, Answer]
    gone: Mapping[str, Answer] = field(default_factory=dict)  # given up: no more is asked of these
    rest: Sequence[RequestItem] = ()  # to be asked again,
    after: RetryPlan = FIRST  # in this way


def interpret(received: ModelReply, before: RetryPlan) -> Interpretation:
    """What comes of a reply to units that were asked as ``before`` says."""
    units, model = received.units, received.template.model
    if received.refusal:
        if len(units) > 1:  # which of them was it?
            return Interpretation({}, rest=units, after=RetryPlan(alone=True, mode=before.mode))
        return Interpretation({units[0].key: Answer(terminal=Reason.REFUSED, detail=received.refusal)})
    answers, fault = received.template.parse(units, received.text)
    rest = [unit for unit in units if unit.key not in answers]
    if before.round >= model.repairs:
        return Interpretation(
            answers, {unit.key: Answer(terminal=Reason.MALFORMED, detail=fault[:300]) for unit in rest}
        )
    told = "" if received.cut else fault  # it was not wrong, it was too long
    cut = before.cut or received.cut
    after = replace(before, round=before.round + 1, fault=told, cut=cut, lost=0, run="")
    return Interpretation(answers, rest=rest, after=after)


def _choice(data: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = data.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}


def reply_text(data: Mapping[str, Any]) -> str:
    """The text of a chat completion's first choice; "" where there is none."""
    message = _choice(data).get("message")
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, str) else ""
