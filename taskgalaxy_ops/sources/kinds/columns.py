"""Which column of a table holds images, and how one is taken out of it.

An image is a value of a binary column, or of a struct with a field ``bytes`` (as Hugging Face's ``datasets`` writes
them), or an item of a list of either.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from taskgalaxy_ops.errors import UnreadableError
from taskgalaxy_ops.sources.content import HEAD_BYTES, holds_image


class ColumnError(Exception):
    """A table has no column of images, or several; its message says so, to be put behind the table's name."""


def image_column(schema: Any, wanted: str | None, first: Callable[[str], Any]) -> str:
    """The column of a table that holds its images.

    schema: pyarrow's. wanted: the column's name; None: it is found, by what ``datasets`` noted, else by its content.
    first: the first value of a column that is not null, None if there is none. Raises ColumnError.
    """
    fit = [field.name for field in schema if can_hold_images(field.type)]
    if wanted is not None:
        if wanted in fit:
            return wanted
        if wanted not in schema.names:
            raise ColumnError(f"it has no column {wanted!r}, but {_listed(schema.names)}")
        raise ColumnError(f"its column {wanted!r} is {schema.field(wanted).type}, not binary or a struct with `bytes`")
    noted = [name for name in _noted(schema) if name in fit]
    found = noted or [name for name in fit if _is_image(first(name))]
    if len(found) == 1:
        return found[0]
    if found:
        raise ColumnError(f"its columns {_listed(found)} hold images: name one by the option `column`")
    raise ColumnError(f"none of its columns ({_listed(schema.names)}) holds images; name one by the option `column`")


def _listed(names: Iterable[str]) -> str:
    named = [repr(name) for name in names]
    return ", ".join(named[:12]) + (" …" if len(named) > 12 else "")


def _noted(schema: Any) -> list[str]:
    """The columns of images by what ``datasets`` wrote into the schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return [name for name, feature in features.items() if _is_feature(feature)]
    except (KeyError, ValueError, TypeError, AttributeError):
        return []


def _is_feature(feature: Any) -> bool:
    if isinstance(feature, list):  # as older versions wrote a list
        feature = {"feature": feature[0]} if feature else {}
    return isinstance(feature, dict) and (feature.get("_type") == "Image" or _is_feature(feature.get("feature")))


def is_list(kind: Any) -> bool:
    """Whether values of this type are lists."""
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def can_hold_images(kind: Any) -> bool:
    """Whether values of this type can be images."""
    if is_list(kind):
        kind = kind.value_type
    return _is_bytes(kind) or any(field.name == "bytes" and _is_bytes(field.type) for field in _fields(kind))


def _fields(kind: Any) -> Iterable[Any]:
    from pyarrow import types

    return kind if types.is_struct(kind) else ()


def _is_bytes(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def holds_text(kind: Any) -> bool:
    """Whether values of this type are texts, whole numbers, or lists of either."""
    from pyarrow import types

    if is_list(kind):
        kind = kind.value_type
    is_text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    return bool(is_text or types.is_integer(kind))


def counts(column: Any, *, items: bool) -> list[int]:
    """How many images each row of a column has. items: rows are lists."""
    import pyarrow.compute

    held = pyarrow.compute.list_value_length(column) if items else column.is_valid().cast("int32")
    return [each or 0 for each in held.to_pylist()]


def image_bytes(value: Any, item: int | None) -> bytes:
    """The image of a value. item: which of a list; None: it is no list. Raises UnreadableError."""
    if item is not None and value.is_valid:
        value = value.values[item]
    raw = value.as_py()
    held = raw if isinstance(raw, dict) else {"bytes": raw}
    if isinstance(held.get("bytes"), bytes):
        return bytes(held["bytes"])
    if held.get("path"):  # it is no path of ours: who wrote the table chose it
        raise UnreadableError("the row names a file instead of holding its bytes: write the images into the table")
    raise UnreadableError("the row holds no image")


def _is_image(value: Any) -> bool:
    if isinstance(value, list):
        value = next((each for each in value if each is not None), None)
    if isinstance(value, dict):
        value = value.get("bytes")
    return isinstance(value, bytes) and holds_image(value[:HEAD_BYTES])
