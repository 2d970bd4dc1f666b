"""The layouts of a row, one function each: what formats write, and what trainers' jobs read.

A conversation is told as (who, text) in order, ``human`` and ``gpt`` by turns; its images stand before its first text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from taskgalaxy_ops.generation.forms import Texts, conversation
from taskgalaxy_ops.records import turns_in
from taskgalaxy_ops.release.rows import Sample

IMAGE = "<image>"  # the mark that trainers replace by an image
Who = Literal["human", "gpt"]
Said = Sequence[tuple[Who, str]]
Row = dict[str, Any]

_ROLES = {"human": "user", "gpt": "assistant"}


def said_in(sample: Sample) -> list[tuple[Who, str]]:
    """The conversation that a model is trained on, by the form of its question."""
    texts = Texts(sample.question, sample.answer, sample.reasoning, turns_in(sample.further_turns))
    return said_as(sample.variant, texts)


def said_as(variant: str, texts: Texts) -> list[tuple[Who, str]]:
    """The conversation of texts, by the form of their question."""
    return [each for asked, answer in conversation(variant, texts) for each in (("human", asked), ("gpt", answer))]


def conversations(said: Said, images: int = 1) -> list[Row]:
    """LLaVA's and ShareGPT's turns: ``{"from", "value"}``, with a line ``<image>`` for each image."""
    turns = [{"from": who, "value": text} for who, text in said]
    turns[0]["value"] = f"{IMAGE}\n" * images + turns[0]["value"]
    return turns


def said_of(turns: Sequence[Row], images: int = 1) -> list[tuple[Who, str]]:
    """What such turns tell, without the marks of the images, which others put behind the first text."""
    said: list[tuple[Who, str]] = [("human" if turn["from"] == "human" else "gpt", turn["value"]) for turn in turns]
    for _ in range(images if said else 0):
        who, text = said[0]
        said[0] = who, text.removeprefix(f"{IMAGE}\n").removesuffix(f"\n{IMAGE}")
    return said


def messages(said: Said, images: int = 1) -> list[Row]:
    """Messages whose content is a text, with a line ``<image>`` for each image, as ms-swift has them."""
    return [{"role": _ROLES[turn["from"]], "content": turn["value"]} for turn in conversations(said, images)]


def parts(said: Said, images: int = 1) -> list[Row]:
    """Messages whose content is parts, ``{"type": "image" or "text", "text"}``, as TRL and transformers have them."""
    contents: list[list[Row]] = [[{"type": "text", "text": text}] for _, text in said]
    contents[0][:0] = [{"type": "image", "text": None}] * images
    return [{"role": _ROLES[who], "content": content} for (who, _), content in zip(said, contents, strict=True)]


def llava(key: str, said: Said, images: Sequence[str], **more: Any) -> Row:
    """LLaVA's row: ``image`` is a path, of several images a list of them; without an image there is none."""
    row: Row = {"id": key}
    if images:
        row["image"] = images[0] if len(images) == 1 else list(images)
    return {**row, **more, "conversations": conversations(said, len(images))}


def llava_images(row: Row) -> list[str]:
    """The images of LLaVA's row."""
    named: str | list[str] = row.get("image") or []
    return [named] if isinstance(named, str) else named


def sharegpt(key: str, said: Said, images: Sequence[str]) -> Row:
    """ShareGPT's row, as LLaMA-Factory reads it."""
    return {"id": key, "images": list(images), "conversations": conversations(said, len(images))}


def swift(key: str, said: Said, images: Sequence[str]) -> Row:
    """ms-swift's row."""
    return {"id": key, "messages": messages(said, len(images)), "images": list(images)}


def line(row: Row) -> str:
    """A row as a line of JSON, without its end."""
    return json.dumps(row, ensure_ascii=False)


def lines(rows: Iterable[Row]) -> Iterator[bytes]:
    """The rows of a file with one a line."""
    return (f"{line(row)}\n".encode() for row in rows)


def json_array(rows: Iterable[Row]) -> Iterator[bytes]:
    """The parts of a file that is one JSON array of rows, a row a line."""
    before = "[\n"
    for row in rows:
        yield f"{before}{line(row)}".encode()
        before = ",\n"
    yield b"[]\n" if before == "[\n" else b"\n]\n"
