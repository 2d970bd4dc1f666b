"""A reply as it was received: its text, whether it was cut, whether it is a refusal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from taskgalaxy_ops.models.questions import Question, Unit, clean


@dataclass(frozen=True, slots=True)
class Received:
    """What a request brought, and what it took."""

    data: Mapping[str, Any]
    units: Sequence[Unit]
    question: Question
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


def _choice(data: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = data.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}


def reply_text(data: Mapping[str, Any]) -> str:
    """The text of a chat completion's first choice; "" where there is none."""
    message = _choice(data).get("message")
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, str) else ""
