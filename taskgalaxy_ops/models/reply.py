"""Interprets a reply: which answers it holds, and how to ask next for the units without one.

Replies to chat requests and replies of batches are interpreted alike.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from taskgalaxy_ops.models.request import RequestItem, RequestTemplate
from taskgalaxy_ops.records import Answer, Reason
from taskgalaxy_ops.text import clean

_CUT = {"length", "max_tokens", "max_output_tokens", "model_length"}  # why a reply ends whose room is used up
# Why a reply ends that a filter took: OpenAI's and Azure's word, and those that gateways pass on from others.
_FILTERED = {
    "content_filter",
    "content-filter",
    "safety",
    "image_safety",
    "prohibited_content",
    "image_prohibited_content",
    "blocklist",
    "spii",
    "recitation",
    "sensitive",
    "refusal",
}
_TEXT_PARTS = {"text", "output_text", "json"}  # types of parts that are said, not thought
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")  # where servers put what the model thought


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
        return _ended(self.data) in _CUT

    @property
    def filtered(self) -> bool:
        """Whether the provider's moderation withheld the reply."""
        return filtered(_choice(self.data))

    @property
    def moderated(self) -> bool:
        """Whether the provider's moderation is why there is no answer, by an error or in the reply."""
        return self.kind == "content" or self.filtered

    @property
    def refusal(self) -> str:
        """Why the model refused for good; "" if it did not."""
        if self.data.get("error"):
            return clean(f"{self.data['error']}")[:300]
        message = _message(self.data)
        if refusal := message.get("refusal") or _refused_in_part(message.get("content")):
            return clean(str(refusal))[:300] or "refused"
        return "content filter" if self.filtered else ""


@dataclass(frozen=True, slots=True)
class Interpretation:
    """The interpretation of a reply: which units it answers, and how to ask for the others."""

    answers: Mapping[str, Answer]
    gone: Mapping[str, Answer] = field(default_factory=dict)  # terminal answers of the units that are given up
    rest: Sequence[RequestItem] = ()  # to be asked again …
    after: RetryPlan = FIRST  # … in this way

    @property
    def good(self) -> dict[str, Answer]:
        """The answers that hold a value."""
        return {unit: answer for unit, answer in self.answers.items() if not answer.terminal}

    @property
    def terminal(self) -> dict[str, Answer]:
        """The answers that end a unit without a value."""
        return {unit: answer for unit, answer in self.answers.items() if answer.terminal} | dict(self.gone)


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


def filtered(choice: Mapping[str, Any]) -> bool:
    """Whether a choice was withheld by a filter."""
    return str(choice.get("finish_reason") or "").lower() in _FILTERED


def _choice(data: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = data.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}


def _message(data: Mapping[str, Any]) -> Mapping[str, Any]:
    message = _choice(data).get("message")
    return message if isinstance(message, dict) else {}


def _ended(data: Mapping[str, Any]) -> str:
    """Why the reply ended: "stop", "length", … in lower case; "" if it does not say."""
    return str(_choice(data).get("finish_reason") or "").lower()


def reply_text(data: Mapping[str, Any]) -> str:
    """The text of a chat completion's first choice; "" where there is none.

    Servers put it in several places: as a text, in parts, as the arguments of a tool's call, as a choice's text. If all
    of these are empty and the reply was not cut, it is what the model thought: some models never leave their thoughts.
    """
    message = _message(data)
    places = (message.get("content"), _arguments(message), _choice(data).get("text"))
    if text := next(filter(None, map(_text, places)), ""):
        return text
    if _ended(data) in _CUT:
        return ""
    return next(filter(None, (_text(message.get(name)) for name in _THOUGHTS)), "")


def _text(content: Any) -> str:
    """The text of a message's content: a text, a list of parts, or an object where a gateway has read its JSON."""
    if isinstance(content, str):
        return content if content.strip() else ""
    if isinstance(content, list):
        return "".join(map(_part, content))
    return json.dumps(content, ensure_ascii=False) if isinstance(content, dict) and content else ""


def _part(part: Any) -> str:
    """The text of a part of a content; "" for a part that is none, such as a thought."""
    if isinstance(part, str):
        return part
    if not isinstance(part, dict) or str(part.get("type", "text")) not in _TEXT_PARTS:
        return ""
    text = part.get("text")
    text = text.get("value") if isinstance(text, dict) else text
    return text if isinstance(text, str) else ""


def _arguments(message: Mapping[str, Any]) -> Any:
    """The arguments of the only call of a tool in a message; None: there is none, or more than one."""
    calls = message.get("tool_calls")
    call = calls[0] if isinstance(calls, list) and len(calls) == 1 else None
    function = call.get("function") if isinstance(call, dict) else message.get("function_call")
    return function.get("arguments") if isinstance(function, dict) else None


def _refused_in_part(content: Any) -> str:
    parts = content if isinstance(content, list) else []
    said = (part.get("refusal") for part in parts if isinstance(part, dict) and part.get("type") == "refusal")
    return next((text for text in said if isinstance(text, str)), "")
