"""The rows of a JSON file, one by one: a list, or an object a line. Memory does not grow with the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

from taskgalaxy_ops.text import shown

_LINE = 64 << 20  # bytes of a line
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class NoJson:
    """A line that is no JSON, and why."""

    why: str


def json_rows(opened: BinaryIO) -> Iterator[tuple[int, Any]]:
    """The values of a JSON list, or of a file with one object a line, each with its number, from 1.

    A line that is no JSON is a ``NoJson``. Raises ValueError where the file is neither, or a list is cut off.
    """
    start = opened.read(4096).lstrip(_BOM + b" \t\r\n")[:1]
    opened.seek(0)
    if start == b"[":
        yield from enumerate(json_items(opened, "item"), 1)
        return
    if start != b"{":
        raise ValueError("it is neither a JSON list nor one object a line")
    for number, line in enumerate(iter(partial(opened.readline, _LINE), b""), 1):
        if len(line) == _LINE:
            raise ValueError(f"line {number:,} has more than {_LINE:,} bytes")
        if line.strip():
            try:
                yield number, json.loads(line.removeprefix(_BOM))
            except (ValueError, RecursionError) as error:
                yield number, NoJson(shown(error))


def json_items(opened: BinaryIO, prefix: str) -> Iterator[Any]:
    """The items below a prefix, as ijson names it. Raises ValueError where the file is no JSON, or is cut off."""
    import ijson

    opened.seek(0)
    try:
        yield from ijson.items(opened, prefix, use_float=True)
    except ijson.JSONError as error:
        raise ValueError(str(error)) from error
