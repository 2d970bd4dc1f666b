"""The context of an image: what its sources say of it beside its pixels (caption, alt text, tags), as texts by field.

Whoever made a data set wrote these texts: they are data, and nothing in them is followed, opened or taken as markup.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from taskgalaxy_ops.models.special_tokens import neutral
from taskgalaxy_ops.records import Claim, ImageId
from taskgalaxy_ops.text import clean, shown

Context = Mapping[ImageId, Mapping[str, str]]  # of images that have any: texts by field

CLAIMS = ("origin", "licence", "attribution")  # fields that every claim may have, whatever its kind of source

# The fields that are taken where the option `context` is left out, whatever the case of their letters.
USUAL = frozenset(
    (
        *("alt", "alt_text", "caption", "captions", "categories", "description", "keywords", "ocr", "ocr_text"),
        *("page", "page_number", "tags", "text", "title"),
    )
)
OPTION = (
    "fields to take as context, comma-separated; left out: those with usual names (caption, alt, text …); empty: none"
)

CHARACTERS = 4000  # of a field's text that are kept
FIELDS = 32  # of an image that are kept
_NAME = 64  # characters of a field's name
_READ = 4 * CHARACTERS  # of a text that are looked at: what is not printed takes room, too
_CUT = " … (cut)"
_MORE = "…"  # the name of the field that says how many more there were


def taken(option: str | None, there: Iterable[str]) -> list[str]:
    """Which of these fields are context. option: what the option `context` says; None: it is left out."""
    if option is None:
        return [name for name in there if name.lower() in USUAL]
    named = names(option)
    return [name for name in there if name in named]


def names(option: str) -> list[str]:
    """The fields that the option `context` names."""
    return [name for name in map(str.strip, option.split(",")) if name]


def kept(said: Mapping[str, Any] | None) -> dict[str, str]:
    """The context as it is stored: fields with a text, in order of name.

    Numbers and lists are written as text, other values as JSON. Characters that nobody sees are removed. A text that is
    too long ends with "… (cut)"; of too many fields, the field "…" says how many are left out.
    """
    texts = {
        name[:_NAME]: text for key, value in (said or {}).items() if (name := shown(key)) and (text := _text(value))
    }
    found = dict(islice(sorted(texts.items()), FIELDS))
    if len(texts) > FIELDS:
        found[_MORE] = f"{len(texts) - FIELDS:,} more fields"
    return found


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple) and all(isinstance(each, str | int | float) for each in value):
        text = "; ".join(map(_written, value[:_READ]))
    elif isinstance(value, str | int | float):
        text = _written(value)
    else:
        try:
            text = json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
        except (RecursionError, TypeError, ValueError):  # too deep, or of an odd package
            text = _CUT
    found = clean(text[:_READ])
    return found if len(text) <= _READ and len(found) <= CHARACTERS else f"{found[:CHARACTERS].rstrip()}{_CUT}".strip()


def _written(value: str | float) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def context_of(claims: Sequence[Claim], fields: Collection[str]) -> dict[str, str]:
    """What the claims on one image say in these fields, to be shown or released: without special tokens.

    claims: in order of source. The first source that has a field counts for it, so that no other order of scans gives
    another context.
    """
    found: dict[str, str] = {}
    for claim in claims if fields else ():
        own = {name: _text(getattr(claim, name)) for name in CLAIMS if name in fields}
        said = {**(json.loads(claim.context) if claim.context else {}), **{k: text for k, text in own.items() if text}}
        for name in sorted(fields):
            if name not in found and name in said:
                found[name] = neutral(said[name])
    return dict(sorted(found.items()))


def by_image(claims: Iterable[Claim]) -> dict[ImageId, list[Claim]]:
    """Claims by image, each image's in order of source and file."""
    found: dict[ImageId, list[Claim]] = {}
    for claim in sorted(claims, key=lambda claim: (claim.source, claim.file)):
        found.setdefault(claim.image, []).append(claim)
    return found
