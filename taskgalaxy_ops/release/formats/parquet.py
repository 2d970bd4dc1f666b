"""Parquet for ``datasets.load_dataset``: every row with its image and its votes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from taskgalaxy_ops.records import ImageId, turns_in
from taskgalaxy_ops.release import judged
from taskgalaxy_ops.release.agreement import Ballot
from taskgalaxy_ops.release.formats import Gone, ReleaseFormat
from taskgalaxy_ops.release.images import copied_image, fetch
from taskgalaxy_ops.release.near_groups import group_names, marks
from taskgalaxy_ops.release.rows import Sample, SampleImage
from taskgalaxy_ops.release.select import Part, Selection
from taskgalaxy_ops.release.spooled import spooled

GROUP_BYTES = 32 << 20  # about the bytes of images in a row group: a reader holds one at a time in memory
GROUP_ROWS = 1000
_PICTURE_COLUMNS = ("image", "images", "further_images")

_Right = Callable[[Ballot], float | None]  # the probability of being right, by votes

WRITING: Mapping[str, Any] = {"compression": "zstd", "write_statistics": False}

_TEXT = {"dtype": "string", "_type": "Value"}
_FLAG = {"dtype": "bool", "_type": "Value"}
_TURN = pa.struct([("question", pa.string()), ("answer", pa.string())])
_CLAIM_COLUMNS = {"sources": "source", "origins": "origin", "licences": "licence", "attributions": "attribution"}
_CLAIM = pa.struct([(name, pa.string()) for name in _CLAIM_COLUMNS.values()])
_VOTE = pa.struct([("judge", pa.string()), ("vote", pa.int8()), ("reason", pa.string()), ("audit", pa.bool_())])

# Each column: its Arrow type, and its Hugging Face feature. Lists are written ``[feature]``, which `datasets` reads in
# every version; `List` is known to the newer ones alone.
_COLUMNS: dict[str, tuple[pa.DataType, Any]] = {
    "id": (pa.string(), _TEXT),
    "image": (pa.struct([("bytes", pa.binary()), ("path", pa.string())]), {"_type": "Image"}),
    "image_id": (pa.string(), _TEXT),
    "task_type": (pa.string(), _TEXT),
    "variant": (pa.string(), _TEXT),
    "question": (pa.string(), _TEXT),
    "answer": (pa.string(), _TEXT),
    "reasoning": (pa.string(), _TEXT),
    "votes": (
        pa.list_(_VOTE),
        [{"judge": _TEXT, "vote": {"dtype": "int8", "_type": "Value"}, "reason": _TEXT, "audit": _FLAG}],
    ),
    # One entry a live source of the image, in order of name.
    "sources": (pa.list_(pa.string()), [_TEXT]),
    "origins": (pa.list_(pa.string()), [_TEXT]),
    "licences": (pa.list_(pa.string()), [_TEXT]),
    "attributions": (pa.list_(pa.string()), [_TEXT]),
    "simulated": (pa.bool_(), _FLAG),
}


def schema_of(
    fields: Sequence[str],
    *,
    probability: bool = False,
    blind: bool = False,
    conversations: bool = False,
    groups: bool = False,
    alike: bool = False,
) -> pa.Schema:
    """The columns; fields: those of the context that rows have, in the column ``context`` if there are any.

    probability: whether rows have their probability of being right. blind: whether they say if they were answered
    without their image. conversations: whether there is a column ``further_turns``, which only rows of several turns
    fill. groups: whether there are ``further_images`` and ``further_image_ids``, which only rows about several images
    fill. alike: whether rows name the group of images that look the same as their first.
    """
    columns = dict(_COLUMNS)
    if probability:
        columns["probability"] = (pa.float64(), {"dtype": "float64", "_type": "Value"})
    if blind:
        columns["blind"] = (pa.bool_(), _FLAG)
    if conversations:
        columns["further_turns"] = (pa.list_(_TURN), [{"question": _TEXT, "answer": _TEXT}])
    if groups:
        kind, feature = columns["image"]
        columns["further_images"] = (pa.list_(kind), [feature])
        columns["further_image_ids"] = (pa.list_(pa.string()), [_TEXT])
    if alike:
        columns["near_duplicates"] = (pa.string(), _TEXT)
    if fields:
        columns["context"] = (pa.struct([(name, pa.string()) for name in fields]), dict.fromkeys(fields, _TEXT))
    features = {"info": {"features": {name: feature for name, (_, feature) in columns.items()}}}
    return pa.schema(
        [(name, kind) for name, (kind, _) in columns.items()], metadata={"huggingface": json.dumps(features)}
    )


SCHEMA = schema_of(())


def schema_for(plan: Selection) -> pa.Schema:
    """The columns of a release's Parquet files."""
    return schema_of(
        plan.settings.context,
        probability=plan.settings.probability is not None,
        blind=plan.settings.blind,
        conversations=plan.has_conversations,
        groups=plan.has_groups,
        alike=marks(plan.settings),
    )


def parquet_files(plan: Selection) -> Iterator[tuple[str, BinaryIO]]:
    """``data/<split>-00000-of-0000N.parquet``, rows in order of id; no file for an empty split: readers reject it."""
    right = judged.right(plan) if plan.settings.probability else None
    for split, parts in plan.parts.items():
        for number, part in enumerate(parts):
            with spooled() as file:
                _write(plan, part, file, right)
                yield f"data/{split}-{number:05d}-of-{len(parts):05d}.parquet", file


def _write(plan: Selection, part: Part, file: BinaryIO, right: _Right | None) -> None:
    """Write the rows of a part, a row group in memory at a time. right: None: rows have no such column."""
    rows = group_rows(part)
    samples = plan.samples(part.first, part.last)
    schema = schema_for(plan)
    with pq.ParquetWriter(file, schema, **WRITING) as writer:
        while group := list(islice(samples, rows)):
            columns = _columns(plan, group)
            if right is not None:
                columns["probability"] = [right(judged.ballot_of(sample.votes)) for sample in group]
            arrays = [array(columns[field.name], field.type) for field in schema]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def group_rows(part: Part) -> int:
    """The rows of a row group."""
    return rows_a_group(part.largest)


def rows_a_group(largest: int) -> int:
    """The rows of a row group, of whose images the largest has so many bytes."""
    return max(1, min(GROUP_ROWS, GROUP_BYTES // max(largest, 1)))


def _columns(plan: Selection, samples: Sequence[Sample]) -> dict[str, Any]:
    """The values of each column; of a struct, the values of each field."""
    shown = [sample.images for sample in samples]
    fetch(plan, samples)
    images = {
        image.picture: copied_image(plan, image.picture, image.image) if image.size else None
        for each in shown
        for image in each
    }
    columns: dict[str, Any] = {
        "id": [sample.pair for sample in samples],
        "image": {
            "bytes": [images[sample.picture] for sample in samples],
            "path": [sample.location for sample in samples],
        },
        "image_id": [sample.image for sample in samples],
        "task_type": [sample.task_type for sample in samples],
        "variant": [sample.variant for sample in samples],
        "question": [sample.question for sample in samples],
        "answer": [sample.answer for sample in samples],
        "reasoning": [sample.reasoning for sample in samples],
        "votes": _structs([sample.votes or "[]" for sample in samples], _VOTE),
        "simulated": [plan.inputs.simulated] * len(samples),
    }
    columns |= _claims(shown)
    if plan.settings.blind:
        columns["blind"] = [None if sample.blind is None else bool(sample.blind) for sample in samples]
    fields = plan.settings.context
    if fields:
        stated = [json.loads(sample.context) if sample.context else {} for sample in samples]
        columns["context"] = {name: [each.get(name) for each in stated] for name in fields}
    if marks(plan.settings):
        columns["near_duplicates"] = group_names(plan.rows, [sample.image for sample in samples])
    if plan.has_conversations:
        columns["further_turns"] = [
            [{"question": question, "answer": answer} for question, answer in turns_in(sample.further_turns)]
            for sample in samples
        ]
    return columns | (_further([each[1:] for each in shown], images) if plan.has_groups else {})


def _further(others: Sequence[Sequence[SampleImage]], images: Mapping[int, bytes | None]) -> dict[str, Any]:
    """The columns of samples' further images. images: the bytes of each that the release contains, by picture."""
    return {
        "further_images": [[{"bytes": images[i.picture], "path": i.location} for i in each] for each in others],
        "further_image_ids": [[image.image for image in each] for each in others],
    }


def _claims(shown: Sequence[Sequence[SampleImage]]) -> dict[str, pa.Array]:
    """The columns of what sources state of samples' images, of each image in its turn."""
    texts = {image.picture: image.claims for each in shown for image in each}
    places = {picture: place for place, picture in enumerate(texts)}
    said = _structs(list(texts.values()), _CLAIM).take(pa.array([places[i.picture] for each in shown for i in each]))
    ends = pa.array([0, *accumulate(map(len, shown))])
    claims, starts = said.flatten(), said.offsets.take(ends)
    return {
        column: pa.ListArray.from_arrays(starts, claims.field(number)) for number, column in enumerate(_CLAIM_COLUMNS)
    }


def _structs(texts: Sequence[str], kind: pa.DataType) -> pa.ListArray:
    """Lists of structs from a list's JSON each; other keys are passed by."""
    if not texts:
        return pa.array([], pa.list_(kind))
    lines = "\n".join([f'{{"all":{text}}}' for text in texts]).encode()
    options = pa_json.ParseOptions(
        explicit_schema=pa.schema([("all", pa.list_(kind))]), unexpected_field_behavior="ignore"
    )
    reading = pa_json.ReadOptions(use_threads=False, block_size=len(lines) + 1)
    return pa_json.read_json(pa.BufferReader(lines), reading, options)["all"].combine_chunks()


def array(values: Any, kind: pa.DataType) -> pa.Array:
    """An Arrow array of a list of values; of a struct type, from a list for each field; an array as it is.

    Lists are flattened here, because Arrow's own conversion is slower.
    """
    if isinstance(values, pa.Array):
        return values
    if pa.types.is_struct(kind):
        parts = [array(values[field.name], field.type) for field in kind]
        return pa.StructArray.from_arrays(parts, fields=list(kind))
    if pa.types.is_list(kind):
        flat: Any = [value for each in values for value in each]
        if pa.types.is_struct(kind.value_type):
            flat = {field.name: [value.get(field.name) for value in flat] for field in kind.value_type}
        ends = [0, *accumulate(map(len, values))]
        return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), array(flat, kind.value_type), type=kind)
    return pa.array(values, kind)


def redacted_table(_: str, raw: bytes, gone: Gone) -> bytes | None:
    file = pq.ParquetFile(io.BytesIO(raw))
    out = io.BytesIO()
    left = 0
    with pq.ParquetWriter(out, file.schema_arrow, **WRITING) as writer:
        for number in range(file.num_row_groups):
            rows = file.read_row_group(number, use_threads=False)
            of_gone = one_of(rows["id"], gone.samples)
            if "image_id" in rows.column_names:
                of_gone = pc.or_(of_gone, shows_one_of(rows, gone.images))
            rows = rows.filter(pc.invert(of_gone))
            left += len(rows)
            if len(rows):  # no empty group: readers take the first group's number of rows as the size of a batch
                writer.write_table(rows)
    if left == file.metadata.num_rows:
        return raw
    return out.getvalue() if left else None


def rewritten(file: pq.ParquetFile, to: Path, largest: int, picture: Callable[[str], tuple[str, bytes | None]]) -> None:
    """Write a file of a release with other images. picture: an image's place and bytes, by its place in the file.

    largest: bytes of the largest image.
    """
    schema = file.schema_arrow
    with pq.ParquetWriter(to, schema, **WRITING) as writer:
        for batch in file.iter_batches(batch_size=rows_a_group(largest), use_threads=False):
            columns = [
                array(_pictured(column.to_pylist(), field.type, picture), field.type)
                if field.name in _PICTURE_COLUMNS
                else column
                for column, field in zip(batch.columns, schema, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _pictured(values: list[Any], kind: pa.DataType, picture: Callable[[str], tuple[str, bytes | None]]) -> Any:
    if pa.types.is_list(kind):
        return [[_picture(each, picture) for each in value or ()] for value in values]
    found = [_picture(value, picture) for value in values]
    return {name: [each[name] for each in found] for name in ("bytes", "path")}


def _picture(value: Mapping[str, Any], picture: Callable[[str], tuple[str, bytes | None]]) -> dict[str, Any]:
    path, raw = picture(value["path"])
    return {"bytes": raw, "path": path}


def one_of(column: pa.ChunkedArray, ids: Collection[str]) -> pa.ChunkedArray:
    """Which values of a column are among these."""
    return pc.is_in(column, pa.array(list(ids), pa.string()))


def shows_one_of(rows: pa.Table, images: Collection[ImageId]) -> pa.ChunkedArray:
    """Which rows of a release are about any of these images."""
    found = one_of(rows["image_id"], images)
    if "further_image_ids" not in rows.column_names:
        return found
    gone = set(images)
    further = [not gone.isdisjoint(each or ()) for each in rows["further_image_ids"].to_pylist()]
    return pc.or_(found, pa.array(further, pa.bool_()))


PARQUET = ReleaseFormat(
    files=parquet_files, redact=redacted_table, count=lambda plan: sum(map(len, plan.parts.values())), folder="data"
)
