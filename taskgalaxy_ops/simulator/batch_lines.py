"""A batch's input file, read and checked, and the lines of its output: OpenAI's JSONL, both ways."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from taskgalaxy_ops.simulator.config import Batches
from taskgalaxy_ops.simulator.wire import encode

ENDPOINT = "/v1/chat/completions"
_MOST_ERRORS = 100  # told of one file


@dataclass(frozen=True, slots=True)
class Line:
    """A request of a batch."""

    custom_id: str
    body: Mapping[str, Any]


def problem(code: str, message: str, line: int | None = None, param: str | None = None) -> dict[str, Any]:
    """Why a batch fails as a whole: an entry of its ``errors``."""
    return {"code": code, "message": message, "line": line, "param": param}


def read(data: bytes, allowed: Batches) -> tuple[list[Line], list[dict[str, Any]]]:
    """The requests of an input file, and what is wrong with it; lines count from 1."""
    raw = data.split(b"\n")
    numbered = [(number, line) for number, line in enumerate(raw, 1) if line.strip()]
    if not numbered:
        return [], [problem("empty_file", "The input file has no requests.")]
    if len(numbered) > allowed.max_requests:
        message = f"The input file has {len(numbered)} requests: at most {allowed.max_requests}."
        return [], [problem("too_many_tasks", message)]
    lines: dict[str, Line] = {}
    wrong: list[dict[str, Any]] = []
    for number, text in numbered:
        found = _line(number, text)
        if isinstance(found, Line) and found.custom_id in lines:
            message = f"The custom_id {found.custom_id[:64]!r} is used by another line of this file."
            found = problem("duplicate_custom_id", message, number, "custom_id")
        if isinstance(found, Line):
            lines[found.custom_id] = found
        else:
            wrong.append(found)
    models = sorted({str(line.body.get("model")) for line in lines.values()})
    if len(models) > 1:
        message = f"All requests of a batch must be for one model, not for {', '.join(models)}."
        wrong.append(problem("model_mismatch", message, None, "body.model"))
    return list(lines.values()), wrong[:_MOST_ERRORS]


def _line(number: int, text: bytes) -> Line | dict[str, Any]:
    try:
        value = from_json(text, allow_inf_nan=False)
    except ValueError:
        return problem("invalid_json_line", "This line is not parseable as valid JSON.", number)
    if not isinstance(value, dict):
        return problem("invalid_json_line", "This line is not a JSON object.", number)
    for name, kind in (("custom_id", str), ("method", str), ("url", str), ("body", dict)):
        if not isinstance(value.get(name), kind):
            return problem("missing_required_parameter", f"Missing required parameter: '{name}'.", number, name)
    if value["method"] != "POST":
        return problem("invalid_method", "The method must be POST.", number, "method")
    if value["url"] != ENDPOINT:
        return problem("url_mismatch", f"The url must be the batch's endpoint, {ENDPOINT}.", number, "url")
    return Line(value["custom_id"], value["body"])


def outcome(line: Line, status: int, body: Mapping[str, Any]) -> dict[str, Any]:
    """The line of a request that was made."""
    response = {"status_code": status, "request_id": uuid.uuid4().hex, "body": body}
    return _result(line, response, None)


def unmade(line: Line, code: str) -> dict[str, Any]:
    """The line of a request that was not made, because its batch had ``batch_expired`` or was ``batch_cancelled``."""
    message = {
        "batch_expired": "This request could not be executed before the completion window expired.",
        "batch_cancelled": "This request was not executed, because its batch was cancelled.",
    }[code]
    return _result(line, None, {"code": code, "message": message})


def _result(line: Line, response: Mapping[str, Any] | None, error: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "id": f"batch_req_{uuid.uuid4().hex}",
        "custom_id": line.custom_id,
        "response": response,
        "error": error,
    }


def written(lines: Sequence[Mapping[str, Any]]) -> bytes:
    """The file of these lines."""
    return "".join(encode(line) + "\n" for line in lines).encode()
