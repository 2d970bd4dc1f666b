"""Canned replies: valid answers to each form of request, the same ones each time, and nothing else."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import time
import urllib.request
from collections.abc import Sequence
from typing import Any

import openai
import pytest
from PIL import Image

from taskgalaxy_ops.generation.stages.filter import filter_template
from taskgalaxy_ops.generation.stages.vote import vote_template
from taskgalaxy_ops.generation.stages.write import answer_template, write_template
from taskgalaxy_ops.models.request import GREETING, RequestItem, RequestTemplate
from taskgalaxy_ops.prompts import load_prompts
from taskgalaxy_ops.records import Answer
from taskgalaxy_ops.settings import Model
from taskgalaxy_ops.simulator import wire
from taskgalaxy_ops.simulator.canned import Canned
from taskgalaxy_ops.simulator.canned_answers import APPROVED, FITS, UNKNOWN_IMAGE_TOKENS
from taskgalaxy_ops.simulator.config import Faults, Limits, SimulatorConfig
from taskgalaxy_ops.simulator.serve import running

MODEL = Model(name="m", base_url="http://127.0.0.1:1/v1", model="m", simulated=True)
PROMPTS = load_prompts({}, also=("answer",))
FILTER = filter_template(PROMPTS["filter"], MODEL)
WRITE = write_template(PROMPTS["write_chain_of_thought"], MODEL, "chain_of_thought")
ANSWER = answer_template(PROMPTS["answer"], MODEL, "chain_of_thought", 2)
VOTE = vote_template(PROMPTS["vote"], MODEL, True)


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


def _ask(app: Canned, question: RequestTemplate, units: Sequence[RequestItem]) -> dict[str, Answer]:
    status, body = _chat(app, question.text(units))
    assert status == 200
    assert body["simulated"] is True
    answers, fault = question.parse(units, body["choices"][0]["message"]["content"])
    assert fault == ""
    return answers


def _units(question: RequestTemplate, count: int) -> list[RequestItem]:
    items = [{"task_type": f"ocr~type `{n}`"} for n in range(count)]
    more = {"vote": {"question": "Which?", "answer": "That."}, "answer": {"question": "Which?"}}
    items = [{**item, **more.get(question.head["request"], {})} for item in items]
    return [question.unit("0" * 64, item) for item in items]


@pytest.mark.parametrize("question", [FILTER, WRITE, ANSWER, VOTE])
def test_each_unit_gets_a_valid_answer_and_the_same_again_in_another_request(question: RequestTemplate) -> None:
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
    told = _send(app, "/stats", method="GET")[1]
    assert (told["requests"], told["units"], told["calls"]) == (3, {"filter": 3, "vote": 2}, {"m": 3})
    traffic = told["traffic"]
    assert (traffic["statuses"], traffic["rate_limited"], traffic["in_flight_max"]) == ({"200": 3}, 0, 1)
    assert traffic["first_arrival"] <= traffic["last_reply"]
    told = _send(app, "/stats", method="DELETE")[1]
    assert (told["requests"], told["units"], told["traffic"]["first_arrival"]) == (0, {}, None)


WRONG = [
    *(b"", b"[]", b"{}", b'{"model": "m", "messages": [{"content": "x\\n```"}]}'),
    b'{"model": "m", "messages": [{"content": "```json\\n{\\"request\\": \\"vote\\"}\\n```"}]}',
]


@pytest.mark.parametrize("body", WRONG)
def test_what_is_no_request_is_refused_and_not_counted(body: bytes) -> None:
    app = Canned()
    status, reply = _send(app, "/v1/chat/completions", body)
    assert status == 400
    assert reply["error"]["type"] == "invalid_request_error"
    assert _send(app, "/stats", method="GET")[1]["requests"] == 0
    assert _send(app, "/stats", method="GET")[1]["traffic"]["statuses"] == {}


# Another tool's requests


def _foreign(text: str = "Ask something about this image.", image: bytes = b"", **more: Any) -> dict[str, Any]:
    url = "data:image/jpeg;base64," + base64.b64encode(image).decode()
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]
    return {"model": "m", "messages": [{"role": "user", "content": content}], **more}


def _message(app: Canned, body: dict[str, Any]) -> dict[str, Any]:
    status, reply = _send(app, "/v1/chat/completions", json.dumps(body).encode())
    assert status == 200
    message: dict[str, Any] = reply["choices"][0]["message"]
    return message


def test_another_s_request_gets_a_question_and_an_answer_drawn_by_hash() -> None:
    app = Canned()
    schema = {"type": "json_schema", "json_schema": {"name": "pair", "schema": {"type": "object"}}}
    texts = [_message(app, _foreign(image=bytes([number]), response_format=schema))["content"] for number in range(9)]
    assert all(set(json.loads(text)) == {"question", "answer"} for text in texts)
    assert len(set(texts)) == 9
    assert texts[0] == _message(Canned(), _foreign(image=b"\0", response_format=schema))["content"]


def test_a_text_that_quotes_a_data_url_is_read_whole() -> None:
    text = 'Compare it with "data:image/png;base64,AAAA", then answer.'
    assert _message(Canned(), _foreign(text))["content"] != _message(Canned(), _foreign(text + "!"))["content"]


def test_a_tool_that_is_offered_is_called() -> None:
    tool = {"type": "function", "function": {"name": "Pair", "parameters": {}}}
    message = _message(Canned(), _foreign(tools=[tool]))
    assert message["content"] is None
    function = message["tool_calls"][0]["function"]
    assert function["name"] == "Pair" and set(json.loads(function["arguments"])) == {"question", "answer"}


# Usage


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@pytest.mark.parametrize("size", [(64, 64), (800, 600), (2048, 1024)])
def test_an_image_costs_what_its_size_says(form: str, size: tuple[int, int]) -> None:
    out = io.BytesIO()
    Image.new("RGB", size).save(out, form)
    status, reply = _send(Canned(), "/v1/chat/completions", json.dumps(_foreign("word", out.getvalue())).encode())
    assert status == 200
    assert reply["usage"]["prompt_tokens"] == wire.image_tokens(*size) + 1
    assert reply["usage"]["completion_tokens"] == wire.text_tokens(reply["choices"][0]["message"]["content"])


@pytest.mark.parametrize(
    "image", [b"", b"GIF89a", b"\xff\xd8\xff", b"\xff\xd8\xff\xc0\0\x11\x08\0\0\0\0", b"\x89PNG\r\n\x1a\n"]
)
def test_an_image_of_no_known_size_costs_as_a_usual_one(image: bytes) -> None:
    _, reply = _send(Canned(), "/v1/chat/completions", json.dumps(_foreign("word", image)).encode())
    assert reply["usage"]["prompt_tokens"] == UNKNOWN_IMAGE_TOKENS + 1


# Limits and faults


def test_limits_are_kept_and_counted() -> None:
    app = Canned(SimulatorConfig(limits=Limits(requests_per_minute=3)))
    body = json.dumps(_foreign()).encode()
    assert [_send(app, "/v1/chat/completions", body)[0] for _ in range(5)] == [200] * 3 + [429] * 2
    told = _send(app, "/stats", method="GET")[1]
    assert (told["requests"], told["traffic"]["rate_limited"]) == (3, 2)
    assert _send(app, "/control", b'{"limits": {"requests_per_minute": 1}}')[1]["limits"]["requests_per_minute"] == 1
    assert [_send(app, "/v1/chat/completions", body)[0] for _ in range(2)] == [200, 429]
    assert _send(app, "/control", b'{"seed": 1}')[0] == 400


def test_a_key_is_asked_for_where_one_is_configured() -> None:
    app = Canned(SimulatorConfig(api_key="secret"))
    assert [_send(app, path)[0] for path in ("/v1/chat/completions", "/stats", "/healthz")] == [401, 401, 200]


def test_faults_come_at_their_shares_and_another_attempt_fares_better() -> None:
    app = Canned(SimulatorConfig(faults=Faults(malformed=0.1, truncated=0.1, server_error=0.1)))
    spoilt = 0
    for number in range(500):
        raw = json.dumps(_foreign(f"request {number}")).encode()
        for _ in range(9):
            status, reply = _send(app, "/v1/chat/completions", raw)
            choice = reply["choices"][0] if status == 200 else {"finish_reason": None}
            try:
                if set(json.loads(choice["message"]["content"])) == {"question", "answer"}:
                    break
            except (ValueError, KeyError):
                assert status == 500 or choice["finish_reason"] in {"stop", "length"}
            spoilt += 1
        else:
            raise AssertionError("no attempt fared better")
    told = _send(app, "/stats", method="GET")[1]
    assert all(0.05 < told["faults"][name] / told["requests"] < 0.15 for name in ("malformed", "truncated"))
    assert 0.05 < told["faults"]["server_error"] / told["requests"] < 0.15
    assert told["requests"] == 500 + spoilt == sum(told["traffic"]["statuses"].values())


def test_a_duplicated_reply_says_everything_twice_and_a_starting_server_nothing() -> None:
    app = Canned(SimulatorConfig(faults=Faults(duplicated=1)))
    content = _message(app, {"model": "m", "messages": [{"content": FILTER.text(_units(FILTER, 2))}]})["content"]
    assert [entry["index"] for entry in json.loads(content)["verdicts"]] == [1, 2, 1, 2]
    _send(app, "/control", b'{"faults": {"slow_start": 3600}}')
    assert _send(app, "/v1/chat/completions", json.dumps(_foreign()).encode())[0] == 503


def test_served_it_breaks_connections_as_told_and_answers_the_official_client() -> None:
    config = SimulatorConfig(latency=0.001, latency_spread=0.5, faults=Faults(reset=0.5, half_body=0.3))
    with running(config, canned=True) as url, openai.OpenAI(base_url=url, api_key="k", max_retries=0) as client:
        body: Any = _foreign()
        failed = 0
        for _ in range(60):
            try:
                text = client.chat.completions.create(**body).choices[0].message.content
                assert set(json.loads(text or "")) == {"question", "answer"}
            except openai.APIConnectionError:
                failed += 1
        assert 30 <= failed <= 59


def test_a_request_that_hangs_is_in_flight_until_its_client_gives_up() -> None:
    config = SimulatorConfig(faults=Faults(hang=1), limits=Limits(concurrency=1))
    with running(config, canned=True) as url, openai.OpenAI(base_url=url, api_key="k", max_retries=0) as client:
        body: Any = _foreign()
        for given_up in range(1, 3):
            with pytest.raises(openai.APITimeoutError):
                client.chat.completions.create(**body, timeout=0.2)
            while _statuses(url) != {"500": given_up}:
                time.sleep(0.01)


def _statuses(url: str) -> dict[str, int]:
    with urllib.request.urlopen(url.removesuffix("/v1") + "/stats", timeout=60) as reply:
        told: dict[str, int] = json.load(reply)["traffic"]["statuses"]
    return told
