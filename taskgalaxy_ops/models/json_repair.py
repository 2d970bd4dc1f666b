"""Reads the list in a reply that should be one JSON object.

Models put prose, fences and thoughts around the object, and write it as people write JSON (trailing commas, single
quotes, comments) or as Python prints it. Nothing is invented: of a list that breaks off, only complete entries are
read, and no string is closed for the model.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any

LONGEST = 400_000  # characters; a longer reply is no answer to any of our requests
_DEEPEST = 64
_THOUGHTS = re.compile(r"\A.*?</think(?:ing)?>", re.DOTALL)
_FENCE = re.compile(r"```[a-zA-Z0-9]*[ \t]*\n(.*?)(?:\n[ \t]*```|\Z)", re.DOTALL)
_STRICT = json.JSONDecoder()


def entries(text: str, name: str, *, part: bool) -> list[Any]:
    """The list ``name`` of the object in a reply.

    part: accept the complete entries of a list that breaks off, since each is an answer of its own. Raises ValueError
    with a message that tells the model what is wrong.
    """
    if len(text) > LONGEST:
        raise ValueError(f"the reply is not JSON of at most {LONGEST} characters")
    body = _THOUGHTS.sub("", text, count=1).strip()
    faults: list[str] = []
    for candidate in _candidates(body):
        try:
            value = _value(candidate)
        except ValueError as error:
            faults.append(f"the reply is not JSON ({str(error)[:100]})")
            continue
        if not isinstance(value, dict):
            faults.append("the reply must be a JSON object")
        elif name not in value:
            faults.append(f"the field `{name}` is missing")
        elif not isinstance(value[name], list):
            faults.append(f"`{name}` must be a list")
        else:
            return list(value[name])
    if part and body.count(f'"{name}"') == 1 and (whole := list(_whole(body, name))):
        return whole
    raise ValueError(faults[0])


def _candidates(body: str) -> Iterator[str]:
    """The texts that may be the object: the whole body, the content of its only fence, from first to last brace."""
    yield body
    fences = _FENCE.findall(body)
    if len(fences) == 1:
        yield fences[0]
    first, last = body.find("{"), body.rfind("}")
    if 0 <= first < last:
        yield body[first : last + 1]


def _value(text: str) -> Any:
    """The text as strict JSON; else as JSON5, which allows what people write; else as Python. Raises ValueError."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except ValueError as error:
        for read in (_json5, ast.literal_eval):
            with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
                return read(text)
        raise error


def _json5(text: str) -> Any:
    import pyjson5

    try:
        return pyjson5.decode(text, maxdepth=_DEEPEST)
    except pyjson5.Json5Exception as error:
        raise ValueError(str(error)) from error


def _whole(body: str, name: str) -> Iterator[Any]:
    """The complete entries of a list that breaks off, up to the first that is no closed object."""
    start = re.search(rf'"{re.escape(name)}"\s*:\s*\[', body)
    at = start.end() if start else len(body)
    while at < len(body):
        try:
            value, at = _STRICT.raw_decode(body, at)
        except (ValueError, RecursionError):
            return
        if not isinstance(value, dict):
            return
        yield value
        while at < len(body) and body[at] in ", \t\r\n":
            at += 1
