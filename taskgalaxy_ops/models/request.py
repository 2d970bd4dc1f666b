"""What is asked: a unit is the smallest thing asked, a question the form of a request that may carry several.

A unit's key is the hash of all that the model is shown or told about it, and of nothing else: how units are batched,
the URL, retries and schema mode change no key.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from taskgalaxy_ops.hashing import fingerprint
from taskgalaxy_ops.models import json_repair
from taskgalaxy_ops.records import Answer, ImageId, Reason
from taskgalaxy_ops.settings import Model

GREETING = "Reply with the single word: ready"  # asks for no work: whether a model is there

RENDER_VERSION = 1  # how images are scaled and encoded for a model (models/rendering.py)


class MalformedReplyError(ValueError):
    """A reply, or a part of it, is not what was asked for; the message goes back to the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTemplate:
    """One form of request: instruction, reply schema, and how one item of the reply becomes an answer."""

    stage: str
    prompt: str  # the instruction's text
    model: Model
    head: Mapping[str, Any]  # what all items share: {"request": "write", "variant": "plain"}
    items: str | None  # name of the request's list; None: the request is one unit, its item the whole block
    replies: str  # name of the reply's list
    schema: Mapping[str, Any]  # JSON schema of one entry of the reply's list
    read: Callable[[Mapping[str, Any], Any], Answer]  # (item asked, entry of the reply) -> answer
    form: Mapping[str, str] | None = None  # name and version of the question form, where a package brings it

    def unit(self, image: ImageId | None, item: Mapping[str, Any]) -> RequestItem:
        """The unit that asks ``item`` about an image (or about none)."""
        told = {
            "prompt": _prompt_fingerprint(self.prompt),
            "head": self.head,
            "item": item,
            "image": image,
            "render": rendering(self.model) if image else None,
            "model": self.model.model,
            "revision": self.model.revision,
            "temperature": self.model.temperature,
            "form": self.form,  # None is left out of a fingerprint
        }
        return RequestItem(fingerprint(f"unit.{self.stage}", told), image, item)

    def text(self, units: Sequence[RequestItem]) -> str:
        """The user message's text: the instruction, then the request as data in a fenced JSON block."""
        if self.items is None:
            block: dict[str, Any] = {**self.head, **units[0].item}
        else:
            block = {
                **self.head,
                self.items: [{"index": i, **unit.item} for i, unit in enumerate(units, 1)],
            }
        # "<" and "`" are escaped: no label can close the fence or open a tag
        body = json.dumps(block, ensure_ascii=False, indent=1).replace("`", "\\u0060").replace("<", "\\u003c")
        return f"{self.prompt}\n\n```json\n{body}\n```"

    def json_schema(self) -> dict[str, Any]:
        """The reply's JSON schema, strict in OpenAI's sense: every field required, no others."""
        return {
            "type": "object",
            "properties": {self.replies: {"type": "array", "items": dict(self.schema)}},
            "required": [self.replies],
            "additionalProperties": False,
        }

    def parse(self, units: Sequence[RequestItem], text: str) -> tuple[dict[str, Answer], str]:
        """The answers in a reply, by unit, and what is wrong with the rest ("" if nothing).

        What is valid is kept; an index that was not asked, or is given twice, is no answer to anything.
        """
        try:
            entries = json_repair.entries(text, self.replies, part=self.items is not None)
        except ValueError as error:
            return {}, str(error)
        if self.items is None:
            try:
                return {units[0].key: self.read(units[0].item, entries)}, ""
            except MalformedReplyError as error:
                return {}, str(error)
        return self._parse_entries(units, entries)

    def _parse_entries(self, units: Sequence[RequestItem], entries: Sequence[Any]) -> tuple[dict[str, Answer], str]:
        seen: dict[int, list[Any]] = {}
        for entry in entries:
            index = entry.get("index") if isinstance(entry, dict) else None
            if isinstance(index, int) and not isinstance(index, bool):
                seen.setdefault(index, []).append(entry)
        answers: dict[str, Answer] = {}
        faults: list[str] = []
        for number, unit in enumerate(units, 1):
            found = seen.get(number, [])
            if len(found) != 1:
                faults.append(f"index {number}: {'missing' if not found else 'given more than once'}")
                continue
            try:
                answers[unit.key] = self.read(unit.item, found[0])
            except MalformedReplyError as error:
                faults.append(f"index {number}: {error}")
        return answers, "; ".join(faults)


def rendering(model: Model) -> dict[str, int]:
    """All that decides how a model is shown an image."""
    return {"v": RENDER_VERSION, "side": model.image_side, "quality": model.image_quality}


@cache
def _prompt_fingerprint(prompt: str) -> str:
    return fingerprint("prompt", prompt)


@dataclass(frozen=True, slots=True)
class RequestItem:
    """The smallest thing asked: its key, the image that it is about, and the item as shown to the model."""

    key: str
    image: ImageId | None
    item: Mapping[str, Any]


def field(entry: Any, name: str, kind: type, *, longest: int = 4000) -> Any:
    """A field of a reply's entry, of the right type and of bounded length. Raises MalformedReplyError."""
    value = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise MalformedReplyError(f"`{name}` must be {kind.__name__}")
    if isinstance(value, str) and len(value) > longest:
        raise MalformedReplyError(f"`{name}` is longer than {longest} characters")
    return value


def entry_schema(**fields: str) -> dict[str, Any]:
    """Schema of one reply entry: ``index`` and fields of simple types."""
    properties = {"index": {"type": "integer"}, **{name: {"type": kind} for name, kind in fields.items()}}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def terminal(answer: Answer) -> tuple[Reason, str] | None:
    """The reason and detail of a terminal answer; None for a real one."""
    return (Reason(answer.terminal), answer.detail) if answer.terminal else None


def ordered(units: Sequence[RequestItem]) -> list[RequestItem]:
    return sorted(units, key=lambda unit: (unit.image or "", unit.item["task_type"]))
