"""What canned replies say: valid answers drawn by hash, spoilt ones, and the tokens that they would have cost.

Nothing is looked at but an image's size, in its first bytes.
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from taskgalaxy_ops.simulator.wire import image_tokens

FITS = 0.3  # share of task types that fit
APPROVED = 0.7  # share of a judge's votes that approve
UNKNOWN_IMAGE_TOKENS = image_tokens(1024, 1024)  # of an image whose size is not in its first bytes

_IMAGE = b'"data:image/'
_HEAD = 1600  # characters of a data URL that are looked at: enough for a JPEG's or PNG's size
_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers of the segments that tell it
_PNG = b"\x89PNG\r\n\x1a\n"

_SUBJECTS = ("the sign", "the person on the left", "the largest object", "the background", "the text", "the vehicle")
_FINDINGS = ("is red and stands upright", "cannot be seen whole", "is the nearest thing", "shows two words", "is empty")


def split(raw: bytes) -> tuple[Any, bytes]:
    """A request's JSON without its images (their data URLs are empty), and the first image's beginning.

    Base64 is most of a request's bytes; cut out, it need not be parsed. Raises ValueError for no JSON.
    """
    parts, at, start = [], 0, raw.find(_IMAGE)
    head = raw[start : start + _HEAD] if start >= 0 else b""
    while start >= 0 and (end := raw.find(b'"', start + 1)) >= 0:
        parts.append(raw[at : start + 1])
        at, start = end, raw.find(_IMAGE, end)
    try:
        return json.loads(b"".join((*parts, raw[at:]))), head
    except ValueError:
        return json.loads(raw), head  # a text that quotes a data URL


def tokens_of_image(head: bytes, detail: str) -> int:
    """Tokens of the image that a data URL begins with."""
    data = head.partition(b"base64,")[2].partition(b'"')[0]
    try:
        size = _size(base64.b64decode(data[: len(data) // 4 * 4]))
    except (ValueError, struct.error, IndexError):
        size = None
    return image_tokens(*size, detail) if size and min(size) > 0 else UNKNOWN_IMAGE_TOKENS


def _size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a PNG or JPEG; None where they are not told."""
    if data.startswith(_PNG):
        width, height = struct.unpack_from(">II", data, 16)
        return width, height
    at = 2
    while data.startswith(b"\xff\xd8") and data[at] == 0xFF:
        if data[at + 1] in _JPEG_SIZES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None


def entries(block: Mapping[str, Any], model: str) -> tuple[str, Sequence[Mapping[str, Any]]]:
    """The reply's list by name, and its entries, for a request's block."""
    match block["request"]:
        case "filter":
            verdicts = [
                {"index": item["index"], "fits": _draw("fits", item["task_type"]) < FITS, "reason": "canned"}
                for item in block["task_types"]
            ]
            return "verdicts", verdicts
        case "filter and write":
            parts = [entries({**block, "request": request}, model)[1] for request in ("filter", "write")]
            return "verdicts", [
                pair | verdict if verdict["fits"] else verdict for verdict, pair in zip(*parts, strict=True)
            ]
        case "write":
            return "pairs", [_pair(item["index"], item["task_type"], block["variant"]) for item in block["task_types"]]
        case "answer":
            further = [
                {"index": item["index"], **_answer(item["task_type"], str(block["number"]))}
                for item in block["questions"]
            ]
            return "answers", further
        case "vote":
            votes = [
                {
                    "index": item["index"],
                    "vote": int(_draw(model, item["task_type"], item["question"]) < APPROVED),
                    "reason": "canned",
                }
                for item in block["pairs"]
            ]
            return "votes", votes
    return "children", []


def plain(hashed: int) -> str:
    """The reply to a request that is none of ours: a question and its answer, as JSON, drawn by the request's hash."""
    subject, finding = _SUBJECTS[hashed % len(_SUBJECTS)], _FINDINGS[hashed // 7 % len(_FINDINGS)]
    return json.dumps(
        {"question": f"What can be said of {subject}?", "answer": f"Canned answer {hashed:08x}: {subject} {finding}."}
    )


def malformed(text: str, hashed: int) -> str:
    """A spoilt reply: torn, in a field that nobody asked for, or no JSON at all."""
    match hashed % 3:
        case 0:
            return text[: max(1, len(text) // 2)]
        case 1:
            return json.dumps({"result": text})
    return "Sure! I had a look at the image, and here is what I think of it."


def _pair(index: int, task_type: str, variant: str) -> dict[str, Any]:
    more: dict[str, dict[str, Any]] = {"multiple_choice": {f"wrong_{n}": f"Canned option {n}." for n in (1, 2, 3)}}
    more["yes_no"] = {"question_yes": f"Is it {task_type}?", "question_no": f"Is it not {task_type}?"}
    more["unanswerable"] = {"missing": "any canned thing"}
    said = "A canned description says nothing of the image. It is as long as one must be. It has enough sentences."
    more["long_description"] = {"description": f"{said} Its task type is {task_type}."}
    place = _hash(task_type) % 500
    more["grounded"] = {"x1": place, "y1": place, "x2": place + 300, "y2": place + 200}
    more["multi_turn"] = {
        f"{field}_{n}": f"Canned {field} {n}." if n == 2 else "" for n in (2, 3, 4) for field in ("question", "answer")
    }
    return {
        "index": index,
        "question": f"What does this image show with regard to {task_type.rpartition('~')[2]}?",
        **_answer(task_type),
        **more.get(variant.partition("-")[0], {}),
    }


def _answer(*drawn_by: str) -> dict[str, str]:
    return {"answer": f"Canned answer {_hash(*drawn_by):08x}.", "reasoning": "It was drawn by hash."}


def _hash(*parts: str) -> int:
    return zlib.crc32("\x1f".join(parts).encode())


def _draw(*parts: str) -> float:
    return _hash(*parts) / 2**32
