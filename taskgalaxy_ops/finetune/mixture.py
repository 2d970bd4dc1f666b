"""The training data: the training split of a release mixed with the model's own data, read from local files.

An example has LLaVA's form: an image, several or none, and a conversation whose first turn begins with as many
``<image>``. No other text may contain what a tokenizer reads as a special token: it would stand for an image that is
not there, or end the answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from taskgalaxy_ops.errors import SettingsError, SourceError
from taskgalaxy_ops.finetune.recipes import BaseData, Recipe
from taskgalaxy_ops.hashing import fingerprint, sha256_hex
from taskgalaxy_ops.models.special_tokens import neutral
from taskgalaxy_ops.release.formats.layouts import IMAGE
from taskgalaxy_ops.release.local_copy import ReleaseCopy
from taskgalaxy_ops.sources.builtin import easy_vqa

BUILTIN = "builtin:easy-vqa"
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Example:
    """One conversation about one image, about several, or about none."""

    id: str
    image: str | None  # absolute path
    turns: tuple[tuple[Literal["human", "gpt"], str], ...]  # no image marks in them
    task_type: str | None = None
    further_images: tuple[str, ...] = ()  # absolute paths of those after the first

    @property
    def images(self) -> tuple[str, ...]:
        """Its images, as rows of any layout have them."""
        return () if self.image is None else (self.image, *self.further_images)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One source of examples in a mixture."""

    name: str
    kind: Literal["release", "base"]
    identity: str  # fingerprint of its content
    rows: int
    repeat: float  # how often it is seen in an epoch
    examples: tuple[Example, ...] | None  # None: not read here, because the trainer reads ``annotations`` itself
    annotations: str | None = None
    images: str | None = None


def check_licences(copy: ReleaseCopy, allowed: Sequence[str] | None) -> None:
    """Check the licences of the training split's images. allowed: None allows all.

    Raises SourceError, which names the licences that are not allowed.
    """
    if allowed is None:
        return
    others: dict[str, int] = {}
    for row in copy.table(["train"], ["licences"]):
        for licence in row["licences"] or [None]:
            if (stated := licence or UNKNOWN) not in allowed:
                others[stated] = others.get(stated, 0) + 1
    if others:
        shown = ", ".join(f"{name!r} ({number:,} samples)" for name, number in sorted(others.items())[:10])
        raise SourceError(
            f"release {copy.name}: finetune.licences allows {', '.join(allowed)}, but it holds {shown}. Allow them, or "
            "release without those sources."
        )


def release_part(copy: ReleaseCopy, recipe: Recipe, only: frozenset[str] | None = None) -> Part:
    """The training split of a release, in the recipe's variants. only: ids of the samples to take; None: all.

    Raises SourceError where no sample is left.
    """
    wanted = None
    if recipe.variants is not None:
        rows = copy.table(["train"], ["id", "variant"])
        wanted = {row["id"] for row in rows if row["variant"] in recipe.variants}
    if only is not None:
        wanted = set(only) if wanted is None else wanted & only
    examples = tuple(_example(copy, row) for row in copy.rows("train") if wanted is None or row["id"] in wanted)
    if not examples:
        raise SourceError(
            f"release {copy.name}: its training split holds nothing that {recipe.name} takes. Release more, a smaller "
            "test share, or other variants."
        )
    identity = copy.identity if only is None else fingerprint("release.part", [copy.identity, sorted(only)])
    return Part(
        name=f"taskgalaxy-{copy.name}",
        kind="release",
        identity=identity,
        rows=len(examples),
        repeat=recipe.release_repeat,
        examples=examples,
    )


def _example(copy: ReleaseCopy, row: dict[str, Any]) -> Example:
    first, *others = copy.images(row)
    turns = _turns(row["conversations"], 1 + len(others))
    return Example(row["id"], first, turns, row["task_type"], tuple(others))


def base_part(data: BaseData, excluded: frozenset[str], *, read: bool) -> Part:
    """The model's own fine-tuning data.

    excluded: images (sha256) that built-in data may not hold. read: read the examples of a file here; if False, the
    trainer reads it.
    Raises SettingsError where the file must be read and cannot be.
    """
    if data.annotations == BUILTIN:
        asked = easy_vqa.questions("train", data.rows or 120, excluded)
        examples = tuple(Example(q.id, str(q.file), (("human", q.question), ("gpt", q.answer))) for q in asked)
        identity = fingerprint("base", [data.name, [(q.image, q.question, q.answer) for q in asked]])
        return Part(
            name=data.name, kind="base", identity=identity, rows=len(examples), repeat=data.repeat, examples=examples
        )
    identity = fingerprint("base", [data.name, data.annotations, data.revision, data.rows])
    if not read:
        return Part(
            name=data.name,
            kind="base",
            identity=identity,
            rows=data.rows or 0,
            repeat=data.repeat,
            examples=None,
            annotations=data.annotations,
            images=data.images,
        )
    file = Path(data.annotations).expanduser()
    try:
        text = file.read_text(encoding="utf-8")
        rows = [json.loads(line) for line in text.split("\n") if line] if file.suffix == ".jsonl" else json.loads(text)
        examples = tuple(_base_example(row, number, data.images) for number, row in enumerate(rows))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"base data {data.name}: {file} cannot be read as LLaVA's JSON ({error}). Name it under `base_data` of a "
            "recipe of your own, or leave it out there."
        ) from error
    return Part(
        name=data.name,
        kind="base",
        identity=fingerprint("base", [identity, sha256_hex(text.encode())]),
        rows=len(examples),
        repeat=data.repeat,
        examples=examples,
    )


def _base_example(row: dict[str, Any], number: int, images: str) -> Example:
    image = row.get("image") or []
    paths = [
        str((Path(images).expanduser() / each).resolve()) for each in ([image] if isinstance(image, str) else image)
    ]
    turns = _turns(row["conversations"], max(1, len(paths)))
    return Example(str(row.get("id", number)), paths[0] if paths else None, turns, None, tuple(paths[1:]))


def _turns(conversation: Iterable[dict[str, str]], images: int) -> tuple[tuple[Literal["human", "gpt"], str], ...]:
    """The turns without the marks of the first, which stand before or behind its text. images: how many there are."""
    turns = []
    for number, turn in enumerate(conversation):
        text = turn["value"]
        for _ in range(0 if number else images):
            text = text.removeprefix(f"{IMAGE}\n").removesuffix(f"\n{IMAGE}")
        turns.append(("human" if turn["from"] == "human" else "gpt", neutral(text)))
    return tuple(turns)  # type: ignore[arg-type]
