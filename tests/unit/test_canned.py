"""Canned replies: valid answers to each form of request, the same ones each time, and nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from taskgalaxy_ops.models.questions import GREETING, Question, Unit
from taskgalaxy_ops.models.simulated.canned import APPROVED, FITS, Canned
from taskgalaxy_ops.prompts import load_prompts
from taskgalaxy_ops.qa import filter_question, write_question
from taskgalaxy_ops.settings import Model
from taskgalaxy_ops.storage.journal import Answer
from taskgalaxy_ops.voting import vote_question

MODEL = Model(name="m", base_url="http://127.0.0.1:1/v1", model="m", simulated=True)
PROMPTS = load_prompts({})
FILTER = filter_question(PROMPTS["filter"], MODEL)
WRITE = write_question(PROMPTS["write_chain_of_thought"], MODEL, "chain_of_thought")
VOTE = vote_question(PROMPTS["vote"], MODEL, True)


def _send(app: Canned, path: str, body: bytes = b"", method: str = "POST") -> tuple[int, dict[str, Any]]:
    sent: list[dict[str, Any]] = []
    received = [{"body": body[:7], "more_body": True}, {"body": body[7:]}]

    async def receive() -> dict[str, Any]:
        return received.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(app({"type": "http", "path": path, "method": method}, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"])


def _chat(app: Canned, text: str) -> tuple[int, dict[str, Any]]:
    content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    body = {"model": "m", "messages": [{"role": "user", "content": content}]}
    return _send(app, "/v1/chat/completions", json.dumps(body).encode())


def _ask(app: Canned, question: Question, units: Sequence[Unit]) -> dict[str, Answer]:
    status, body = _chat(app, question.text(units))
    assert status == 200
    assert body["simulated"] is True
    answers, fault = question.parse(units, body["choices"][0]["message"]["content"])
    assert fault == ""
    return answers


def _units(question: Question, count: int) -> list[Unit]:
    items = [{"task_type": f"ocr~type `{n}`"} for n in range(count)]
    if question is VOTE:
        items = [{**item, "question": "Which?", "answer": "That."} for item in items]
    return [question.unit("0" * 64, item) for item in items]


@pytest.mark.parametrize("question", [FILTER, WRITE, VOTE])
def test_each_unit_gets_a_valid_answer_and_the_same_again_in_another_request(question: Question) -> None:
    units = _units(question, 20)
    together = _ask(Canned(), question, units)
    assert set(together) == {unit.key for unit in units}
    apart = [_ask(Canned(), question, [unit]) for unit in units]
    assert together == {key: answer for one in apart for key, answer in one.items()}


def test_answers_differ_by_the_shares_that_are_stated() -> None:
    fits = [answer.value["fits"] for answer in _ask(Canned(), FILTER, _units(FILTER, 1000)).values() if answer.value]
    votes = [answer.value["vote"] for answer in _ask(Canned(), VOTE, _units(VOTE, 1000)).values() if answer.value]
    assert abs(sum(fits) / 1000 - FITS) < 0.06
    assert abs(sum(votes) / 1000 - APPROVED) < 0.06


def test_requests_and_units_are_counted_until_they_are_counted_anew() -> None:
    app = Canned()
    _ask(app, FILTER, _units(FILTER, 3))
    _ask(app, VOTE, _units(VOTE, 2))
    assert _chat(app, GREETING)[1]["choices"][0]["message"]["content"] == "ready"
    assert _send(app, "/stats", method="GET")[1] == {"requests": 3, "units": {"filter": 3, "vote": 2}}
    assert _send(app, "/stats", method="DELETE")[1] == {"requests": 0, "units": {}}


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"model": "m", "messages": [{"content": "x\\n```"}]}'])
def test_what_is_no_request_is_refused_and_not_counted(body: bytes) -> None:
    app = Canned()
    status, reply = _send(app, "/v1/chat/completions", body)
    assert status == 400
    assert reply["error"]["type"] == "invalid_request_error"
    assert _send(app, "/stats", method="GET")[1]["requests"] == 0
