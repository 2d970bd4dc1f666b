"""The rows of a release in the formats that trainers read: LLaVA's JSON, and Parquet for ``datasets.load_dataset``."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from taskgalaxy_ops.records import ImageId, Pair
from taskgalaxy_ops.release.images import read_image
from taskgalaxy_ops.release.planning import SPLITS, Plan

_GROUP_BYTES = 32 << 20  # of images in a row group, about: a reader takes one at a time
_GROUP_ROWS = 1000

WRITING: Mapping[str, Any] = {"compression": "zstd", "write_statistics": False}

_TEXT = {"dtype": "string", "_type": "Value"}
_FLAG = {"dtype": "bool", "_type": "Value"}
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
_FEATURES = {"info": {"features": {name: feature for name, (_, feature) in _COLUMNS.items()}}}
SCHEMA = pa.schema(
    [(name, kind) for name, (kind, _) in _COLUMNS.items()], metadata={"huggingface": json.dumps(_FEATURES)}
)


def llava_files(plan: Plan) -> Iterator[tuple[str, bytes]]:
    """One JSON array a split, a sample a line: id, image, task type and conversation (paper, section 3.5)."""
    for split in SPLITS:
        lines = [json.dumps(_llava(plan, pair), ensure_ascii=False) for pair in plan.splits[split]]
        body = "[\n" + ",\n".join(lines) + "\n]\n" if lines else "[]\n"
        yield f"llava/{split}.json", body.encode()


def _llava(plan: Plan, pair: Pair) -> dict[str, Any]:
    answer = f"{pair.reasoning}\n\n{pair.answer}" if pair.reasoning else pair.answer
    row: dict[str, Any] = {
        "id": pair.pair,
        "image": plan.location(pair.image),
        "task_type": pair.task_type,
        "conversations": [
            {"from": "human", "value": f"<image>\n{pair.question}"},
            {"from": "gpt", "value": answer},
        ],
    }
    return {**row, "simulated": True} if plan.material.simulated else row


def parquet_files(plan: Plan) -> Iterator[tuple[str, bytes]]:
    """``data/<split>-00000-of-0000N.parquet``, rows in order of id; none for an empty split: no reader takes it."""
    for split, parts in plan.parts.items():
        for number, part in enumerate(parts):
            yield f"data/{split}-{number:05d}-of-{len(parts):05d}.parquet", _parquet(plan, part)


def _parquet(plan: Plan, pairs: Sequence[Pair]) -> bytes:
    images: dict[ImageId, bytes | None] = {}
    for pair in pairs:
        if pair.image not in images:
            images[pair.image] = read_image(plan, pair.image) if pair.image in plan.copied else None
    table = pa.Table.from_pylist([_row(plan, pair, images) for pair in pairs], schema=SCHEMA)
    largest = max((plan.shown_bytes(image) for image in images), default=0)
    rows = max(1, min(_GROUP_ROWS, _GROUP_BYTES // max(largest, 1)))
    out = io.BytesIO()
    pq.write_table(table, out, row_group_size=rows, **WRITING)
    return out.getvalue()


def _row(plan: Plan, pair: Pair, images: Mapping[ImageId, bytes | None]) -> dict[str, Any]:
    claims = plan.claims(pair.image)
    return {
        "id": pair.pair,
        "image": {"bytes": images[pair.image], "path": plan.location(pair.image)},
        "image_id": pair.image,
        "task_type": pair.task_type,
        "variant": pair.variant,
        "question": pair.question,
        "answer": pair.answer,
        "reasoning": pair.reasoning,
        "votes": [
            {"judge": vote.judge, "vote": vote.vote, "reason": vote.reason, "audit": vote.audit}
            for vote in plan.votes(pair.pair)
        ],
        "sources": [claim.source for claim in claims],
        "origins": [claim.origin for claim in claims],
        "licences": [claim.licence for claim in claims],
        "attributions": [claim.attribution for claim in claims],
        "simulated": plan.material.simulated,
    }
