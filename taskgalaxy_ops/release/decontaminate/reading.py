"""Reads a benchmark's items in the layouts in which benchmarks are published.

These are the Parquet files of lmms-eval's data sets on the hub, JSON, JSON lines, CSV and TSV beside a folder of
images, conversations as LLaVA writes them, and a folder of images alone. Columns are found by their usual names, and
pictures by what they hold. What a file says is data: nothing in it is run.
"""

from __future__ import annotations

import ast
import base64
import binascii
import csv
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from taskgalaxy_ops.errors import NotFoundError, SourceError
from taskgalaxy_ops.sources.content import by_suffix, holds_image, suffix_of
from taskgalaxy_ops.storage import connect
from taskgalaxy_ops.storage.base import Store
from taskgalaxy_ops.text import clean

_IDS = ("question_id", "id", "pid", "qid", "questionId", "sample_id", "index", "uid")
_QUESTIONS = ("question", "query", "question_text", "prompt", "text", "conversations", "messages")
_ANSWERS = ("answer", "answers", "gpt_answer", "gt_answer", "label", "correct_choice", "correct_ans")
_OPTIONS = ("options", "choices", "candidates")
_LETTERED = ("ABCDEFGHIJ", [f"option{number}" for number in range(10)], [f"choice_{letter}" for letter in "abcdefghij"])
_PICTURES = ("image", "images", "decoded_image", "img", "picture", "image_path", "img_path", "file_name", "filename")
_ROWS = (".parquet", ".json", ".jsonl", ".ndjson", ".tsv", ".csv")
_NONE = ("", "nan", "N/A")  # what stands where a row has fewer options than the table has columns
_MARK = re.compile(r"<image(?: \d+)?>")  # where a picture stands in a text
_AT_ONCE = 64  # rows in memory, with their pictures


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One item of a benchmark. An item may lack its pictures or its question."""

    item: str  # its id; of several with one id, the later ones have a number
    pictures: tuple[bytes, ...] = ()  # image files
    question: str = ""
    options: tuple[str, ...] = ()
    answer: str = ""
    missing: int = 0  # pictures that it names and that are not there


def read_items(location: str, **s3_options: Any) -> Iterator[Item]:
    """The items of a benchmark, in the order of its files and rows.

    location: a file or a folder, by path or ``file://``, or ``s3://bucket/prefix``. Raises SourceError for a place that
    holds no item, and for a file that cannot be read.
    """
    store, names = _files(location, s3_options)
    tables = [name for name in names if suffix_of(name) in _ROWS]
    tables.sort(key=lambda name: suffix_of(name) != ".parquet")
    known: set[tuple[str, str]] = set()  # ids and questions of Parquet's rows
    taken: Counter[str] = Counter()
    found = 0
    for name in tables:
        for number, row in enumerate(_rows(store, name)):
            item = _item(row, _Place(store, name), f"{PurePosixPath(name).stem}-{number}")
            if item is None:
                continue
            if suffix_of(name) == ".parquet":
                known.add((item.item, item.question))
            elif (item.item, item.question) in known:
                continue  # beside its Parquet files, MathVista has its items as JSON again
            found += 1
            yield _numbered(item, taken)
    if not found:
        for name in names:
            if by_suffix(suffix_of(name)):
                found += 1
                yield Item(item=name, pictures=(store.get(name),))
    if not found:
        raise SourceError(
            f"benchmark at {location}: no item was found.\n  Name a folder or a file with Parquet, JSON, JSON lines, "
            f"TSV or CSV whose rows have a column {', '.join(_QUESTIONS[:4])} or image, or a folder of images."
        )


def _files(location: str, s3_options: Mapping[str, Any]) -> tuple[Store, list[str]]:
    """The place as a store, and the names of its files, those of hidden folders left out."""
    parts = urlsplit(location)
    if parts.scheme in {"", "file"}:
        path = Path(unquote(parts.path) if parts.scheme else location)
        if not path.exists():
            raise SourceError(f"benchmark at {location}: there is no such file or folder.")
        single = path.is_file()
        store, prefix = connect(str(path.parent if single else path)), path.name if single else ""
    else:
        store, prefix = connect(location, **s3_options), ""
        if suffix_of(parts.path) in _ROWS:
            store, prefix = connect(location.rpartition("/")[0], **s3_options), location.rpartition("/")[2]
    names = [listed.key for listed in store.list(prefix)]
    if prefix:
        names = [name for name in names if name == prefix]
    return store, [name for name in names if not any(part.startswith(".") for part in name.split("/"))]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the rows of a file find the pictures that they name."""

    store: Store
    file: str

    def picture(self, name: str) -> bytes | None:
        """The image file of this name, beside the rows' file or in a folder of images there; None: there is none."""
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "://" in name:
            return None
        folder = PurePosixPath(self.file).parent
        for above in (folder, folder / "images", folder.parent, folder.parent / "images"):
            with suppress(NotFoundError, OSError, ValueError):
                return self.store.get(str(above / path).removeprefix("./"))
        return None


def _rows(store: Store, name: str) -> Iterator[Mapping[str, Any]]:
    raw = store.get(name)
    try:
        yield from _READERS[suffix_of(name)](raw)
    except (pa.ArrowException, ValueError, csv.Error, RecursionError) as error:
        raise SourceError(
            f"benchmark file {name}: it cannot be read ({error}).\n  Mend it, or name another."
        ) from error


def _of_parquet(raw: bytes) -> Iterator[Mapping[str, Any]]:
    with pq.ParquetFile(io.BytesIO(raw), pre_buffer=False) as file:
        for batch in file.iter_batches(_AT_ONCE, use_threads=False):
            yield from batch.to_pylist()


def _of_json(raw: bytes) -> Iterator[Mapping[str, Any]]:
    value = json.loads(raw.decode("utf-8-sig"))
    if isinstance(value, dict):
        lists = [each for each in value.values() if isinstance(each, list)]
        # A list of rows under some name (questions, data …); or rows by their ids, as MM-Vet and MathVista have them.
        value = (
            lists[0] if len(lists) == 1 else [{"id": key, **row} for key, row in value.items() if isinstance(row, dict)]
        )
    yield from (row for row in value if isinstance(row, dict))


def _of_lines(raw: bytes) -> Iterator[Mapping[str, Any]]:
    rows = (json.loads(line) for line in raw.decode("utf-8-sig").splitlines() if line.strip())
    yield from (row for row in rows if isinstance(row, dict))


def _of_separated(separator: str, raw: bytes) -> Iterator[Mapping[str, Any]]:
    csv.field_size_limit(sys.maxsize)  # a picture may be a field, in base64
    yield from csv.DictReader(io.StringIO(raw.decode("utf-8-sig"), newline=""), delimiter=separator)


_READERS: Mapping[str, Callable[[bytes], Iterator[Mapping[str, Any]]]] = {
    ".parquet": _of_parquet,
    ".json": _of_json,
    ".jsonl": _of_lines,
    ".ndjson": _of_lines,
    ".tsv": partial(_of_separated, "\t"),
    ".csv": partial(_of_separated, ","),
}


def _item(row: Mapping[str, Any], place: _Place, number: str) -> Item | None:
    """A row as an item; None: it has neither a question nor a picture."""
    pictures, missing = _pictures(row, place)
    question = _text(next((row[name] for name in _QUESTIONS if row.get(name)), ""))
    if not pictures and not missing and not question:
        return None
    named = next((str(row[name]) for name in _IDS if row.get(name) not in (None, "")), number)
    answer = _text(next((row[name] for name in _ANSWERS if row.get(name) not in (None, "")), ""))
    return Item(
        item=clean(named)[:200] or number,
        pictures=tuple(pictures),
        question=question,
        options=_options(row),
        answer=answer,
        missing=missing,
    )


def _numbered(item: Item, taken: Counter[str]) -> Item:
    taken[item.item] += 1
    if taken[item.item] == 1:
        return item
    fields = {name: getattr(item, name) for name in Item.__slots__}
    return Item(**{**fields, "item": f"{item.item} ({taken[item.item]})"})


def _text(value: Any) -> str:
    """A text, or what a person says in a conversation, without the marks where pictures stand."""
    if isinstance(value, str):
        return clean(_MARK.sub(" ", value))
    if isinstance(value, list):
        return " ".join(filter(None, map(_said, value)))
    return "" if value is None else clean(str(value))


def _said(turn: Any) -> str:
    if not isinstance(turn, Mapping):
        return _text(turn) if isinstance(turn, str | int | float) else ""
    speaker = turn.get("from", turn.get("role", "user"))
    return _text(turn.get("value", turn.get("content", turn.get("text")))) if speaker in {"human", "user"} else ""


def _options(row: Mapping[str, Any]) -> tuple[str, ...]:
    found = next((row[name] for name in _OPTIONS if row.get(name)), None)
    if isinstance(found, str):  # as MMMU has it: a list, as Python writes it
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            found = ast.literal_eval(found)
    if isinstance(found, Mapping):
        found = list(found.values())
    if isinstance(found, list | tuple):
        return tuple(_text(each) for each in found)
    for names in _LETTERED:
        if lettered := [_text(row[name]) for name in names if row.get(name) not in (None, *_NONE)]:
            return tuple(lettered)
    return (_text(found),) if found else ()


def _pictures(row: Mapping[str, Any], place: _Place) -> tuple[list[bytes], int]:
    """A row's image files, each once, and how many it names that are not there."""
    found: dict[bytes, None] = {}
    missing = 0
    for name, value in row.items():
        named = name in _PICTURES or name.rstrip("0123456789").rstrip("_") == "image"
        for each in _several(value, named):
            raw = _picture(each, named, place)
            if raw:
                found[raw] = None
            elif named and isinstance(each, str):
                missing += 1
    # A path beside the picture itself, as MathVista has it, names nothing that is missing.
    return list(found), 0 if found else missing


def _several(value: Any, named: bool) -> Iterable[Any]:
    if isinstance(value, list):
        return value
    if named and isinstance(value, str) and value.startswith("["):
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            listed = ast.literal_eval(value)
            return listed if isinstance(listed, list) else [value]
    return [value]


def _picture(value: Any, named: bool, place: _Place) -> bytes | None:
    if isinstance(value, Mapping):
        raw = value.get("bytes")
        if isinstance(raw, bytes) and holds_image(raw[:32]):
            return raw
        path = value.get("path")
        return place.picture(path) if isinstance(path, str) and named else None
    if isinstance(value, bytes):
        return value if holds_image(value[:32]) else None
    if not named or not isinstance(value, str) or not value:
        return None
    if len(value) > 255 or value.startswith("data:"):  # base64, as MMBench has it
        with suppress(binascii.Error, ValueError):
            raw = base64.b64decode(value.partition("base64,")[2] or value, validate=True)
            return raw if holds_image(raw[:32]) else None
        return None
    return place.picture(value)
