"""The training data: the training split of a release mixed with the model's own data, read from local files.

An example has LLaVA's form: an image, several or none, and a conversation whose first turn begins with as many
``<image>``. No other text may contain what a tokenizer reads as a special token: it would stand for an image that is
not there, or end the answer.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from taskgalaxy_ops.errors import SettingsError, SourceError
from taskgalaxy_ops.finetune.recipes import BaseData, Recipe
from taskgalaxy_ops.hashing import fingerprint
from taskgalaxy_ops.models.special_tokens import neutral
from taskgalaxy_ops.release.base_data import LAYOUTS, rows_in
from taskgalaxy_ops.release.base_data.checking import Unusable, checked_rows, image_file
from taskgalaxy_ops.release.formats.layouts import Row, Who, said_of
from taskgalaxy_ops.release.local_copy import ReleaseCopy, sha256_of
from taskgalaxy_ops.sources.builtin import easy_vqa

BUILTIN = "builtin:easy-vqa"
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Example:
    """One conversation about one image, about several, or about none."""

    id: str
    image: str | None  # absolute path
    turns: tuple[tuple[Who, str], ...]  # no image marks in them
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
    left_out: Mapping[str, int] = field(default_factory=dict)  # rows of base data that cannot be used, by reason


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
    if not read and data.layout is None:
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
    left_out: Counter[str] = Counter()
    try:
        examples = tuple(_base_examples(data, file, left_out))
        content = [_digest(file)] if data.layout is None else _checked_content(data.layout, file, examples)
    except (OSError, ValueError, SourceError) as error:
        raise SettingsError(
            f"base data {data.name}: {file} cannot be read as {data.layout or 'LLaVA'}'s rows ({error}). Name it under "
            "`base_data` of a recipe of your own, or leave it out there."
        ) from error
    if left_out and not examples:
        raise SettingsError(f"base data {data.name}: no row of {file} can be used: {dict(left_out)}. Look at `images`.")
    return Part(
        name=data.name,
        kind="base",
        identity=fingerprint("base", [identity, *content]),
        rows=len(examples),
        repeat=data.repeat,
        examples=examples,
        left_out=left_out,
    )


def _base_examples(data: BaseData, file: Path, left_out: Counter[str]) -> Iterator[Example]:
    """The rows of a file; of a layout that is set, those that can be used. left_out: the others are counted there."""
    folder = Path(data.images).expanduser()
    if data.layout is None:
        for number, row in rows_in(data.name, "llava", file):
            images = [str((folder / named).resolve()) for named in row.images]
            turns = [{"from": who, "value": text} for who, text in row.turns]
            yield _based(row.id or str(number - 1), images, _turns(turns, max(1, len(images))))
        return
    for number, row, checked in checked_rows(data.name, data.layout, file):
        if row.held:
            raise ValueError(
                "its rows hold their pictures: mix it by `taskgalaxy release mix`, and name what that writes"
            )
        found = [image_file(folder.absolute(), named, follow_links=True) for named in row.images]
        problems = [each for each in (checked, *found) if isinstance(each, Unusable)]
        if problems or isinstance(checked, Unusable):
            left_out[problems[0]] += 1
        else:
            yield _based(row.id or str(number - 1), [str(path) for path in found], checked)


def _based(key: str, images: Sequence[str], turns: tuple[tuple[Who, str], ...]) -> Example:
    return Example(key, images[0] if images else None, turns, None, tuple(images[1:]))


def _checked_content(layout: str, file: Path, examples: Iterable[Example]) -> list[str]:
    """What names the rows that were taken of a file: which are, hangs on the images that are there, too."""
    return [layout, LAYOUTS.version(layout) or "", sha256_of(file), *(example.id for example in examples)]


def _digest(file: Path) -> str:
    """SHA-256 of a file's text, whatever its line ends."""
    digest = hashlib.sha256()
    with file.open(encoding="utf-8") as opened:
        while part := opened.read(1 << 20):
            digest.update(part.encode())
    return digest.hexdigest()


def _turns(conversation: Sequence[Row], images: int) -> tuple[tuple[Who, str], ...]:
    return tuple((who, neutral(text)) for who, text in said_of(conversation, images))
