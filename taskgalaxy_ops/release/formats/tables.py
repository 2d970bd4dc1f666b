"""Parquet of rows with ``images``, for ``datasets.load_dataset`` and the trainers that read it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from taskgalaxy_ops.records import ImageId, leading_id
from taskgalaxy_ops.release.formats import ReleaseFormat
from taskgalaxy_ops.release.formats.layouts import Row
from taskgalaxy_ops.release.formats.parquet import WRITING, array, group_rows, redacted_table
from taskgalaxy_ops.release.images import fetch, image_bytes
from taskgalaxy_ops.release.rows import Sample
from taskgalaxy_ops.release.select import Part, Selection
from taskgalaxy_ops.release.spooled import spooled

Column = tuple[pa.DataType, Any]  # its Arrow type, and its Hugging Face feature
Rows = Callable[[Selection, Sample], Sequence[Row]]

TEXT: Column = (pa.string(), {"dtype": "string", "_type": "Value"})
NUMBER: Column = (pa.float64(), {"dtype": "float64", "_type": "Value"})
FLAG: Column = (pa.bool_(), {"dtype": "bool", "_type": "Value"})
_PART = pa.struct([("type", pa.string()), ("text", pa.string())])
MESSAGES_COLUMN: Column = (
    pa.list_(pa.struct([("role", pa.string()), ("content", pa.list_(_PART))])),
    [{"role": TEXT[1], "content": [{"type": TEXT[1], "text": TEXT[1]}]}],
)
IMAGES_COLUMN: Column = (pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())])), [{"_type": "Image"}])
_COMMON: Mapping[str, Column] = {"id": TEXT, "images": IMAGES_COLUMN}
_LAST: Mapping[str, Column] = {"task_type": TEXT, "simulated": FLAG}


def table_format(
    name: str, columns: Mapping[str, Column], rows: Rows, about: str, of_published: bool = True
) -> ReleaseFormat:
    """A format of ``<name>/<split>-00000-of-0000N.parquet``, samples in order of id.

    columns: beside those that each has: ``id``, ``images``, ``task_type``, ``simulated``. rows: a sample's rows, by
    column; none leaves it out. A split without rows has no file, because readers reject one.
    """
    schema = table_schema({**_COMMON, **columns, **_LAST})

    def files(plan: Selection) -> Iterator[tuple[str, BinaryIO]]:
        for split, parts in _parts(plan, rows).items():
            for number, part in enumerate(parts):
                with spooled() as file:
                    _write(plan, part, file, schema, rows)
                    yield f"{name}/{split}-{number:05d}-of-{len(parts):05d}.parquet", file

    return ReleaseFormat(
        files=files,
        redact=redacted_table,
        count=lambda plan: sum(map(len, _parts(plan, rows).values())),
        of_published=of_published,
        about=f'{about}: `load_dataset("path/to/this/folder/{name}")`',
    )


def images_in(raw: bytes) -> set[ImageId]:
    """The images that such a file's rows show, by their locations; of a file without a column of images, none."""
    file = pq.ParquetFile(io.BytesIO(raw))
    if "images" not in file.schema_arrow.names:
        return set()
    named = file.read(columns=["images.list.element.path"], use_threads=False)["images"].to_pylist()
    parts = (part for row in named for image in row for part in PurePosixPath(image["path"]).parts)
    return {image for part in parts if (image := leading_id(part))}


def table_schema(columns: Mapping[str, Column]) -> pa.Schema:
    """The schema of these columns, with their Hugging Face features."""
    features = {"info": {"features": {name: feature for name, (_, feature) in columns.items()}}}
    return pa.schema(
        [(name, kind) for name, (kind, _) in columns.items()], metadata={"huggingface": json.dumps(features)}
    )


def _parts(plan: Selection, rows: Rows) -> dict[str, list[Part]]:
    """The files by split: those of the release's Parquet in which a sample has rows."""
    found = {
        split: [part for part in parts if any(rows(plan, each) for each in plan.samples(part.first, part.last))]
        for split, parts in plan.parts.items()
    }
    return {split: parts for split, parts in found.items() if parts}


def _write(plan: Selection, part: Part, file: BinaryIO, schema: pa.Schema, rows: Rows) -> None:
    """Write the rows of a part, a row group in memory at a time."""
    found = ((sample, row) for sample in plan.samples(part.first, part.last) for row in rows(plan, sample))
    with pq.ParquetWriter(file, schema, **WRITING) as writer:
        for group in _groups(found, group_rows(part)):
            columns = _columns(plan, [sample for sample, _ in group])
            columns |= {name: [row[name] for _, row in group] for name in schema.names if name not in columns}
            arrays = [array(columns[field.name], field.type) for field in schema]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _groups(rows: Iterable[tuple[Sample, Row]], size: int) -> Iterator[list[tuple[Sample, Row]]]:
    left = iter(rows)
    while group := list(islice(left, size)):
        yield group


def _columns(plan: Selection, samples: Sequence[Sample]) -> dict[str, list[Any]]:
    fetch(plan, samples)
    return {
        "id": [sample.pair for sample in samples],
        "images": [
            [
                {"bytes": raw, "path": path}
                for raw, path in zip(image_bytes(plan, sample), sample.locations, strict=True)
            ]
            for sample in samples
        ],
        "task_type": [sample.task_type for sample in samples],
        "simulated": [plan.inputs.simulated] * len(samples),
    }
