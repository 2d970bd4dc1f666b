"""Rows of ``conversations``: LLaVA's, ShareGPT's, and those of LLaVA-OneVision's Parquet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taskgalaxy_ops.release.base_data import BaseLayout, BaseRow
from taskgalaxy_ops.release.base_data.files import as_list

_NO_IMAGE = ("", "None", "none", "nan")  # what sets write instead of leaving it out: Cambrian-1's trainer knows these


def conversation_row(row: Mapping[str, Any]) -> BaseRow:
    """``id``, ``image`` or ``images``, and ``conversations`` of ``{"from", "value"}``, ``<image>`` in the texts."""
    turns = [_turn(turn) for turn in _list(row, "conversations")]
    return base_row(row, turns)


def base_row(row: Mapping[str, Any], turns: list[tuple[str, str]]) -> BaseRow:
    """A row of these turns, whose images are named or held in ``image`` or ``images``."""
    named = [each for name in ("image", "images") for each in as_list(row.get(name)) if each not in _NO_IMAGE]
    paths = tuple(each for each in named if isinstance(each, str))
    if not all(isinstance(each, str | bytes | Mapping) for each in named) or (paths and len(paths) < len(named)):
        raise TypeError(f"its image is {str(named[0])[:60]!r}, which is neither a path nor a picture")
    return BaseRow(
        id=str(next((row[name] for name in ("id", "idx") if row.get(name) is not None), "")),
        turns=tuple(turns),
        images=paths,
        held=len(named) - len(paths),
        system=bool(row.get("system")),
        video=any(row.get(name) for name in ("video", "videos")),
    )


def text_of(value: Any) -> str:
    """A turn's text; "" for none. Raises TypeError for what is no text."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"the text of a turn is {value!r}"[:200])
    return value or ""


def _list(row: Mapping[str, Any], name: str) -> list[Any]:
    if not isinstance(found := row[name], list):
        raise TypeError(f"its {name!r} is no list")
    return found


def _turn(turn: Any) -> tuple[str, str]:
    if not isinstance(turn, Mapping):
        raise TypeError("a turn is no object")
    return str(turn["from"]), text_of(turn["value"])


LLAVA = BaseLayout(
    suffixes=(".json", ".jsonl"),
    row=conversation_row,
    about="LLaVA's JSON or JSON lines: LLaVA, ShareGPT-4V, ALLaVA-4V, Cambrian-1; ShareGPT rows of LLaMA-Factory",
)
ONEVISION = BaseLayout(
    suffixes=(".parquet",),
    row=conversation_row,
    about="the same in Parquet with the pictures: LLaVA-OneVision-Data, LLaVA-NeXT-Data",
)
