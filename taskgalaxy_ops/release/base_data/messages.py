"""Rows of ``messages``: TRL's and ours in Parquet, LLaMA-Factory's and ms-swift's in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taskgalaxy_ops.release.base_data import BaseLayout, BaseRow
from taskgalaxy_ops.release.base_data.conversations import base_row, text_of
from taskgalaxy_ops.release.formats.layouts import IMAGE


def message_row(row: Mapping[str, Any]) -> BaseRow:
    """``messages`` of ``{"role", "content"}``; a content is a text with ``<image>``, or parts of type image or text."""
    if not isinstance(row["messages"], list):
        raise TypeError("its 'messages' is no list")
    return base_row(row, [_turn(message) for message in row["messages"]])


def _turn(message: Any) -> tuple[str, str]:
    if not isinstance(message, Mapping):
        raise TypeError("a message is no object")
    content = message["content"]
    text = "".join(map(_part, content)) if isinstance(content, list) else text_of(content)
    return str(message["role"]), text


def _part(part: Any) -> str:
    if not isinstance(part, Mapping):
        raise TypeError("a part of a message is no object")
    if part["type"] == "image":
        return f"{IMAGE}\n"
    if part["type"] == "text":
        # Among parts, a picture is a part; a text that spells the mark is only a text.
        return text_of(part["text"]).replace(IMAGE, "‹image›")
    raise ValueError(f"a part of a message is of type {part['type']!r}")


MESSAGES = BaseLayout(
    suffixes=(".parquet", ".json", ".jsonl"),
    row=message_row,
    about="messages with images: TRL's Parquet, and what `release export --format messages` or `swift` writes",
)
