"""What models are asked: a request item is the smallest question, a template makes a request of one or several items.

An item's key is its **unit**: the hash of everything that the model is shown or told about the item, and of nothing
else. How items are grouped into requests, the URL, retries and the form of structured output change no key.
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

GREETING = "Reply with the single word: ready"  # a request without work, to check that a model replies

CANARY_TASK_TYPE = "image~colour~main colours of the picture"  # of a canary: any picture has some

RENDER_VERSION = 1  # how images are scaled and encoded for a model (models/rendering.py)


class MalformedReplyError(ValueError):
    """A reply, or an entry of it, does not have the form that was asked for. The message is sent to the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTemplate:
    """One kind of request: the instruction, the reply's schema, and how an entry of the reply becomes an answer."""

    stage: str
    prompt: str  # the instruction's text
    model: Model
    head: Mapping[str, Any]  # the fields that all items share: {"request": "write", "variant": "plain"}
    items: str | None  # name of the request's list of items; None: a request has one item, which is the whole block
    replies: str  # name of the reply's list of entries
    schema: Mapping[str, Any]  # JSON schema of one entry of the reply's list
    read: Callable[[Mapping[str, Any], Any], Answer]  # (item asked, entry of the reply) -> answer
    form: Mapping[str, str] | None = None  # name and version of the question form, where a package brings it
    canary: Mapping[str, Any] | None = None  # an item that any model can answer in form, to tell its faults from ours
    about_images: bool = True  # whether each item is about an image

    def unit(self, image: ImageId | None, item: Mapping[str, Any]) -> RequestItem:
        """The request item that asks ``item`` about an image, or about none."""
        shown = {
            "prompt": _prompt_fingerprint(self.prompt),
            "head": self.head,
            "item": item,
            "image": image,
            "render": rendering(self.model) if image else None,
            "model": self.model.model,
            "revision": self.model.revision,
            "temperature": self.model.temperature,
            "form": self.form,  # None is left out of a fingerprint
            "sampling": self.model.sampling or None,
        }
        return RequestItem(fingerprint(f"unit.{self.stage}", shown), image, item)

    def text(self, units: Sequence[RequestItem]) -> str:
        """The user message's text: the instruction, then the request as data in a fenced JSON block."""
        if self.items is None:
            block: dict[str, Any] = {**self.head, **units[0].item}
        else:
            block = {
                **self.head,
                self.items: [{"index": i, **unit.item} for i, unit in enumerate(units, 1)],
            }
        # "<" and "`" are escaped, so that no label can close the fence or open a tag.
        body = json.dumps(block, ensure_ascii=False, indent=1).replace("`", "\\u0060").replace("<", "\\u003c")
        return f"{self.prompt}\n\n```json\n{body}\n```"

    def json_schema(self) -> dict[str, Any]:
        """The reply's JSON schema, strict in OpenAI's sense: every field is required, no other is allowed."""
        return {
            "type": "object",
            "properties": {self.replies: {"type": "array", "items": dict(self.schema)}},
            "required": [self.replies],
            "additionalProperties": False,
        }

    def parse(self, units: Sequence[RequestItem], text: str) -> tuple[dict[str, Answer], str]:
        """The answers in a reply's text, by unit, and what is wrong with the other entries ("" if nothing).

        Valid entries count even if others are wrong. An index that was not asked, or occurs twice, answers nothing.
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
        by_index: dict[int, list[Any]] = {}
        for entry in entries:
            index = entry.get("index") if isinstance(entry, dict) else None
            if isinstance(index, int) and not isinstance(index, bool):
                by_index.setdefault(index, []).append(entry)
        answers: dict[str, Answer] = {}
        faults: list[str] = []
        for number, unit in enumerate(units, 1):
            given = by_index.get(number, [])
            if len(given) != 1:
                faults.append(f"index {number}: {'missing' if not given else 'given more than once'}")
                continue
            try:
                answers[unit.key] = self.read(unit.item, given[0])
            except MalformedReplyError as error:
                faults.append(f"index {number}: {error}")
        return answers, "; ".join(faults)


def rendering(model: Model) -> dict[str, int]:
    """The parameters that decide how an image is rendered for a model."""
    return {"v": RENDER_VERSION, "side": model.image_side, "quality": model.image_quality}


@cache
def _prompt_fingerprint(prompt: str) -> str:
    return fingerprint("prompt", prompt)


@dataclass(frozen=True, slots=True)
class RequestItem:
    """The smallest question: its key (the unit), the image that it is about, and the item as the model is shown it."""

    key: str
    image: ImageId | None
    item: Mapping[str, Any]


def field(entry: Any, name: str, kind: type, *, longest: int = 4000) -> Any:
    """A field of a reply's entry, checked for its type and length. Raises MalformedReplyError."""
    value = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise MalformedReplyError(f"`{name}` must be {kind.__name__}")
    if isinstance(value, str) and len(value) > longest:
        raise MalformedReplyError(f"`{name}` is longer than {longest} characters")
    return value


def entry_schema(**fields: str) -> dict[str, Any]:
    """The JSON schema of a reply's entry: ``index``, and ``fields`` (name=JSON type)."""
    properties = {"index": {"type": "integer"}, **{name: {"type": kind} for name, kind in fields.items()}}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def terminal(answer: Answer) -> tuple[Reason, str] | None:
    """The reason and detail of a terminal answer; None for a real answer."""
    return (Reason(answer.terminal), answer.detail) if answer.terminal else None


def ordered(units: Sequence[RequestItem]) -> list[RequestItem]:
    """The request items in order of image, then task type."""
    return sorted(units, key=lambda unit: (unit.image or "", unit.item["task_type"]))
