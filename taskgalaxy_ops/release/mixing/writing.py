"""The rows of a mixture as files, in the layouts of a row that releases have: one file a format, or several of Parquet.

Paths of images start from where a release's do, so that whatever trains on a release trains on a mixture.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.release.copying import write_file
from taskgalaxy_ops.release.formats.layouts import Row, Said, json_array, lines, llava, parts, sharegpt, swift
from taskgalaxy_ops.release.formats.parquet import GROUP_BYTES, GROUP_ROWS, WRITING, array
from taskgalaxy_ops.release.formats.sharegpt import COLUMNS, ENTRY, INFO, NAMES
from taskgalaxy_ops.release.formats.tables import FLAG, IMAGES_COLUMN, MESSAGES_COLUMN, TEXT, table_schema
from taskgalaxy_ops.release.rows import beside

# What may lie there of an earlier run.
OWN = ("llava/train.json", "swift/train.jsonl", "sharegpt/train.jsonl", f"sharegpt/{INFO}", "messages/train-*.parquet*")

_FILE_BYTES = 400 << 20  # of images in a Parquet file

_SCHEMA = table_schema(
    {"id": TEXT, "images": IMAGES_COLUMN, "messages": MESSAGES_COLUMN, "source": TEXT, "simulated": FLAG}
)


class MixedRow(NamedTuple):
    """A row of a mixture. marks: what each row says beside: its part as ``source``, and whether it is simulated."""

    key: str
    said: Said
    images: tuple[str, ...]  # paths in the mixture's folder
    marks: Mapping[str, Any]


Rows = Callable[[], Iterable[MixedRow]]  # all rows, in order, each time it is called


def write(name: str, folder: Path, rows: Rows) -> list[str]:
    """Write the files of a format into the mixture's folder; returns their paths within it."""
    return WRITERS[name](folder, rows)


def check_format(name: str) -> None:
    """Raises SettingsError for a format that mixtures are not written in."""
    if name not in WRITERS:
        raise SettingsError(f"--format {name}: a mixture is written as {', '.join(WRITERS)}.")


def _llava(folder: Path, rows: Rows) -> list[str]:
    write_file(folder / "llava/train.json", json_array(llava(r.key, r.said, r.images, **r.marks) for r in rows()))
    return ["llava/train.json"]


def _swift(folder: Path, rows: Rows) -> list[str]:
    return _lines(folder, "swift/train.jsonl", ({**swift(r.key, r.said, r.images), **r.marks} for r in rows()))


def _sharegpt(folder: Path, rows: Rows) -> list[str]:
    def row(each: MixedRow) -> Row:
        return {**sharegpt(each.key, each.said, [beside(image) for image in each.images]), **each.marks}

    # Of empty lists alone, the trainer's reader cannot tell what they hold.
    columns = COLUMNS if any(each.images for each in rows()) else {"messages": COLUMNS["messages"]}
    info = {NAMES["train"]: {"file_name": "train.jsonl", **ENTRY, "columns": columns}}
    files = _lines(folder, "sharegpt/train.jsonl", map(row, rows()))
    write_file(folder / "sharegpt" / INFO, [json.dumps(info, indent=1).encode() + b"\n"])
    return [*files, f"sharegpt/{INFO}"]


def _lines(folder: Path, path: str, rows: Iterable[Row]) -> list[str]:
    write_file(folder / path, lines(rows))
    return [path]


def _messages(folder: Path, rows: Rows) -> list[str]:
    place = folder / "messages"
    place.mkdir(parents=True, exist_ok=True)
    parted: list[Path] = []
    groups = _groups(folder, rows())
    group = next(groups, None)
    while group is not None:
        parted.append(place / f"train-{len(parted):05d}.parquet.part")
        with pq.ParquetWriter(parted[-1], _SCHEMA, **WRITING) as writer:
            written = 0
            while group is not None and written < _FILE_BYTES:
                writer.write_table(_table(group))
                written += sum(len(raw) for _, raws in group for raw in raws)
                group = next(groups, None)
    names = [f"train-{number:05d}-of-{len(parted):05d}.parquet" for number in range(len(parted))]
    for part, name in zip(parted, names, strict=True):
        part.replace(place / name)
    return [f"messages/{name}" for name in names]


_Group = list[tuple[MixedRow, list[bytes]]]  # rows with the bytes of their images


def _groups(folder: Path, rows: Iterable[MixedRow]) -> Iterator[_Group]:
    """Rows with their images, a row group in memory at a time."""
    group: _Group = []
    size = 0
    for row in rows:
        raws = [(folder / image).read_bytes() for image in row.images]
        more = sum(map(len, raws))
        if group and (len(group) == GROUP_ROWS or size + more > GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append((row, raws))
        size += more
    if group:
        yield group


def _table(group: _Group) -> pa.Table:
    columns: dict[str, list[Any]] = {
        "id": [row.key for row, _ in group],
        "images": [
            [{"bytes": raw, "path": path} for raw, path in zip(raws, row.images, strict=True)] for row, raws in group
        ],
        "messages": [parts(row.said, len(row.images)) for row, _ in group],
        "source": [row.marks["source"] for row, _ in group],
        "simulated": [bool(row.marks.get("simulated")) for row, _ in group],
    }
    return pa.Table.from_arrays([array(columns[field.name], field.type) for field in _SCHEMA], schema=_SCHEMA)


WRITERS: Mapping[str, Callable[[Path, Rows], list[str]]] = {
    "llava": _llava,
    "sharegpt": _sharegpt,
    "messages": _messages,
    "swift": _swift,
}
