"""Reads the list in a reply that should be one JSON object.

Models put prose, fences and thoughts around the object, write it as people write JSON (trailing commas, single quotes,
comments) or as Python prints it, leave out what is around the list, or wrap it as a call of a tool. What has one
reading is read. Nothing is invented: of a list that breaks off, only complete entries are read, no string is closed for
the model, and a text whose backslashes can be read in two ways is marked (models/json_strings.py).
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from taskgalaxy_ops.models import json_strings

LONGEST = 400_000  # characters; a longer reply is no answer to any of our requests
_DEEPEST = 64
_WRAPPED = 6  # layers around the list, at most
_THOUGHT = r"(?:think(?:ing)?|thoughts?|reasoning|reflection)"
_THOUGHTS = re.compile(rf"\A.*?(?:</{_THOUGHT}>|\[/THINK\]|◁/think▷)", re.DOTALL | re.IGNORECASE)
_THINKING = re.compile(rf"\s*(?:<{_THOUGHT}>|\[THINK\]|◁think▷)", re.IGNORECASE)
_FENCE = re.compile(r"```[a-zA-Z0-9]*[ \t]*\n(.*?)(?:\n[ \t]*```|\Z)", re.DOTALL)
_BETWEEN = re.compile(r"[, \t\r\n]*")
_ARGUMENTS = ("arguments", "parameters", "input")  # of a call of a tool, by whose model it is


class _Number(float):
    """A number with a fraction, and how it was written."""

    written: str


@dataclass(frozen=True, slots=True)
class Shape:
    """The form of a reply: an object with the list ``name``.

    fields: the fields by which an entry of the list is known; none: its entries are texts.
    """

    name: str
    fields: Collection[str] = ()

    def is_entry(self, value: Any) -> bool:
        """Whether a value can be nothing else than an entry of the list."""
        if not self.fields:
            return isinstance(value, str)
        return isinstance(value, dict) and set(map(_plain, self.fields)) <= set(map(_plain, value))


def entries(text: str, shape: Shape, *, part: bool) -> list[Any]:
    """The list of a reply.

    part: accept the complete entries of a list that breaks off, since each is an answer of its own. Raises ValueError
    with a message that tells the model what is wrong.
    """
    if len(text) > LONGEST:
        raise ValueError(f"the reply is not JSON of at most {LONGEST} characters")
    body = _THOUGHTS.sub("", text, count=1).strip()
    if _THINKING.match(body):  # a thought that does not end is no answer, whatever it holds
        raise ValueError("the reply is not JSON (a thought that does not end)")
    faults: list[str] = []
    for candidate in _candidates(body):
        try:
            value = _value(candidate)
        except ValueError as error:
            faults.append(f"the reply is not JSON ({str(error)[:100]})")
            continue
        try:
            return _list(value, shape)
        except ValueError as error:
            faults.append(str(error))
    if lines := _lines(body, shape):
        return lines
    if part and (whole := list(_whole(body, shape.name))):
        return whole
    raise ValueError(faults[0])


def fault_in(value: Any) -> str:
    """What is wrong with a text in a value that can be read in two ways; "" if there is none."""
    if isinstance(value, str):
        return json_strings.fault_of(value)
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return next(filter(None, map(fault_in, inner)), "")


def written(value: Any) -> str | None:
    """A number or a text as it was written; None for anything else, and where that is not known."""
    if isinstance(value, str):
        return value
    if isinstance(value, _Number):
        return value.written
    return str(value) if type(value) is int else None


def _candidates(body: str) -> Iterator[str]:
    """The texts that may be the reply: the whole body, the content of its only fence, from first to last bracket."""
    yield body
    fences = _FENCE.findall(body)
    if len(fences) == 1:
        yield fences[0]
    brace, bracket = body.find("{"), body.find("[")
    if 0 <= brace < (last := body.rfind("}")):
        yield body[brace : last + 1]
    if 0 <= bracket < (last := body.rfind("]")) - 1 and (brace < 0 or bracket < brace):  # a list, not one in an object
        yield body[bracket : last + 1]


def _list(value: Any, shape: Shape, layers: int = _WRAPPED) -> list[Any]:
    """The list in a value that holds it. Raises ValueError, saying what is missing."""
    if isinstance(value, str) and layers and value.strip()[:1] in {"{", "["}:  # JSON in JSON
        return _list(_value(value), shape, layers - 1)
    if isinstance(value, list | tuple):
        if not value or any(map(shape.is_entry, value)):
            return list(value)
        if len(value) == 1 and isinstance(value[0], dict) and layers:
            return _list(value[0], shape, layers - 1)
    if not isinstance(value, dict):
        raise ValueError("the reply must be a JSON object")
    if (name := name_in(value, shape.name)) is not None:
        return _named(value[name], shape)
    if shape.fields and shape.is_entry(value):  # an entry without its list
        return [value]
    if (numbered := _numbered(value)) is not None and all(map(shape.is_entry, numbered)):
        return numbered
    inside = [each for each in value.values() if isinstance(each, list | dict)]
    for key in _ARGUMENTS:
        if isinstance(value.get(key), str) and value[key].lstrip()[:1] in {"{", "["}:
            inside.append(value[key])
    only = len(inside) == 1 and (shape.fields or len(value) == 1 or any(key in value for key in _ARGUMENTS))
    if only and layers and inside[0]:
        with contextlib.suppress(ValueError):
            return _list(inside[0], shape, layers - 1)
    raise ValueError(f"the field `{shape.name}` is missing")


def _named(value: Any, shape: Shape) -> list[Any]:
    """The list, where it has its name; an object in its place is its only entry, or holds its entries by number."""
    if isinstance(value, str) and value.strip()[:1] in {"{", "["}:
        with contextlib.suppress(ValueError):
            value = _value(value)
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, dict) and shape.fields:
        if shape.is_entry(value):
            return [value]
        if (numbered := _numbered(value)) is not None and all(map(shape.is_entry, numbered)):
            return numbered
    raise ValueError(f"`{shape.name}` must be a list")


def _numbered(value: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The entries of an object that holds them by number: {"1": {…}, "2": {…}}; None for any other."""
    found = []
    for number, entry in value.items():
        if not isinstance(entry, dict) or not re.fullmatch(r"\d{1,6}", str(number).strip()):
            return None
        index = {"index": int(number)} | entry
        if str(index["index"]).strip() != str(int(number)):
            return None
        found.append(index)
    return found or None


def name_in(value: Mapping[str, Any], name: str) -> str | None:
    """The key of an object that is ``name``, but for case and blanks; None: there is none, or more than one."""
    if name in value:
        return name
    alike = [key for key in value if _plain(key) == name]
    return alike[0] if len(alike) == 1 else None


def _plain(name: Any) -> str:
    return str(name).strip().casefold()


def _value(text: str) -> Any:
    """The text as strict JSON; else as JSON5, which allows what people write; else as Python. Raises ValueError."""
    strict = json_strings.strict(text) if re.search(r"[\\\b\f]", text) else text
    try:
        return json.loads(strict, parse_float=_number, strict=False)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except ValueError as error:
        lenient = json_strings.strict(text, lenient=True)
        for read in (_json5, ast.literal_eval):
            with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
                return read(lenient)
        raise error


def _number(text: str) -> _Number:
    number = _Number(text)
    number.written = text
    return number


def _json5(text: str) -> Any:
    import pyjson5

    try:
        return pyjson5.decode(text, maxdepth=_DEEPEST)
    except pyjson5.Json5Exception as error:
        raise ValueError(str(error)) from error


def _objects(text: str, at: int) -> Iterator[tuple[Any, int]]:
    """The values one after another from a place on, each with the place where it ends, up to one that is broken."""
    decoder = json.JSONDecoder(parse_float=_number, strict=False)
    while (at := _BETWEEN.match(text, at).end()) < len(text):  # type: ignore[union-attr]
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return
        yield value, at


def _lines(body: str, shape: Shape) -> list[Any]:
    """The entries of a reply that is nothing but entries, one after another; [] for any other."""
    if not shape.fields or not body.startswith("{"):
        return []
    text = json_strings.strict(body)
    found = list(_objects(text, 0))
    whole = found and found[-1][1] == len(text.rstrip(", \t\r\n")) and all(shape.is_entry(value) for value, _ in found)
    return [value for value, _ in found] if whole else []


def _whole(body: str, name: str) -> Iterator[Any]:
    """The complete entries of a list that breaks off, up to the first that is no closed object."""
    starts = [found.start() for found in re.finditer(rf'"{re.escape(name)}"\s*:\s*\[', body)]
    if len(starts) != 1 and not (not starts and body.startswith("[")):
        return
    # From the list on, since what is said before it may hold a quotation mark.
    text = json_strings.strict(body[starts[0] :] if starts else body)
    for value, _ in _objects(text, text.index("[") + 1):
        if not isinstance(value, dict):
            return
        yield value


def by_index(entries: Sequence[Any], count: int) -> dict[int, list[Any]]:
    """The entries by the number of the item that they answer; ``count``: of items."""
    by_index: dict[int, list[Any]] = {}
    for entry in entries:
        if isinstance(entry, dict) and (index := whole_number(entry.get("index"))) is not None:
            by_index.setdefault(index, []).append(entry)
    if count > 1 and by_index.keys() == set(range(count)):  # counted from 0
        return {index + 1: given for index, given in by_index.items()}
    if count == len(entries) == 1 and isinstance(entries[0], dict) and by_index.keys() <= {0}:
        nameless = not by_index and entries[0].get("index") is None
        return {1: [entries[0]]} if by_index or nameless else {}  # there is nothing else that it could answer
    return by_index


def whole_number(value: Any) -> int | None:
    """A whole number, also one that is written as a text or with the fraction 0; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d{1,18}(?:\.0*)?", value.strip()):
        return int(float(value)) if "." in value else int(value)
    return value if isinstance(value, int) else None
