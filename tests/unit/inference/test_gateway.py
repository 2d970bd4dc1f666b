"""The door to chat models, against a real HTTP server on loopback that answers as each test tells it to."""

import asyncio
import json
import threading
import time
from email.utils import formatdate

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from taskgalaxy_ops.errors import BudgetError, LeaseLostError
from taskgalaxy_ops.generation.stages.filter import filter_question
from taskgalaxy_ops.hashing import fingerprint
from taskgalaxy_ops.inference import gateway
from taskgalaxy_ops.inference.gateway import Desk, Gateway
from taskgalaxy_ops.inference.spending import Purse, Till
from taskgalaxy_ops.inference.worker_shares import Presence, Shares
from taskgalaxy_ops.models.rate_limit import Limit
from taskgalaxy_ops.records import Match, Reason
from taskgalaxy_ops.settings import Model, Price
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.folder import FolderStore
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.storage.ledger import NANO, Caps, Ledger

IMAGE = "ab" * 32
PRICE = Price(input=2.5, output=10.0)


# The server: answers each request with what the test's script gives for it.


class Server:
    """What was asked, and what is to be answered; one for all tests of this module."""

    def __init__(self):
        self.url = ""
        self.script = lambda number, body: reply(body)
        self.reset()

    def reset(self):
        self.requests = []  # bodies, in order
        self.headers = []
        self.now = self.most = 0  # requests in flight

    async def serve(self, request: Request) -> Response:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            answer = self.script(len(self.requests), body)
            if asyncio.iscoroutine(answer):
                answer = await answer
            if answer is HANG:
                while (await request.receive())["type"] != "http.disconnect":
                    pass
                return Response()
            return answer
        finally:
            self.now -= 1


HANG = object()


@pytest.fixture(scope="module")
def running():
    server = Server()
    app = Starlette(routes=[Route("/v1/chat/completions", server.serve, methods=["POST"])])
    http = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", timeout_graceful_shutdown=2))
    socket = http.config.bind_socket()
    server.url = f"http://127.0.0.1:{socket.getsockname()[1]}/v1"
    thread = threading.Thread(target=lambda: http.run([socket]))
    thread.start()
    while not http.started:  # before, a connection is refused
        time.sleep(0.01)
    yield server
    http.should_exit = True
    thread.join()
    socket.close()


@pytest.fixture
def server(running):
    running.reset()
    running.script = lambda number, body: reply(body)
    return running


def asked(body):
    """The task types that a request asks about."""
    text = body["messages"][-1]["content"][0]["text"]
    return [item["task_type"] for item in json.loads(text.split("```json\n")[1].split("\n```")[0])["task_types"]]


def completion(content, finish="stop", usage=(100, 20), **message):
    body = {
        "id": "x",
        "object": "chat.completion",
        "choices": [
            {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content, **message}}
        ],
    }
    if usage:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return JSONResponse(body)


def verdicts(indices, **fields):
    entries = [{"index": index, "fits": True, "reason": f"number {index}"} | fields for index in indices]
    return json.dumps({"verdicts": entries})


def reply(body, **options):
    """A right answer to all that a request asks."""
    return completion(verdicts(range(1, len(asked(body)) + 1)), **options)


def failure(status, message="no", headers=None, **error):
    return JSONResponse({"error": {"message": message, **error}}, status, headers)


def in_turn(*answers):
    """The first request gets the first answer, and so on; from the last on, all get a right one."""

    def script(number, body):
        answer = answers[number - 1] if number <= len(answers) else reply
        return answer if isinstance(answer, Response) else answer(body)

    return script


# The client


class Clock:
    """asyncio as the gateway sees it, with a sleep that only takes note."""

    def __init__(self):
        self.slept = []

    def __getattr__(self, name):
        return getattr(asyncio, name)

    async def sleep(self, seconds):
        if seconds:
            self.slept.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def paused(monkeypatch):
    """How long all requests were to wait; none does."""
    pauses = []
    monkeypatch.setattr(Limit, "_pause", lambda limit, seconds: pauses.append(seconds))
    return pauses


@pytest.fixture
def slept(monkeypatch, paused):
    clock = Clock()
    monkeypatch.setattr(gateway, "asyncio", clock)
    return clock.slept


class Home:
    """A home with its journal, its budget, and a gateway: what a run gives to its calls."""

    def __init__(self, folder, url, cost=100.0, calls=10_000, **model):
        self.store = FolderStore(folder)
        self.ledger = Ledger(self.store, Caps(round(cost * NANO), calls))
        self.model = Model(**{"name": "t", "base_url": url, "model": "m", "simulated": True, "price": PRICE} | model)
        self.question = filter_question("Decide.", self.model)
        self.journal = Journal(self.store, "h")
        self.gateway = Gateway()
        self.check = lambda: None

    def units(self, n, image=IMAGE):
        return [self.question.unit(image, {"task_type": f"a~{i}"}) for i in range(n)]

    def ask(self, *requests):
        """Each request's units at once; gives the journal's answers."""

        async def run():
            purse = Purse(Till(self.ledger), "h", 8)
            desk = Desk(self.journal, purse, lambda image: f"data:,{image}", self.check)
            try:
                await asyncio.gather(*(self.gateway.ask(self.question, units, desk) for units in requests))
            finally:
                await self.gateway.aclose()
                await purse.close()
                self.journal.flush()

        asyncio.run(run())
        return self.journal.answers

    @property
    def replies(self):
        return list(self.journal.replies())


@pytest.fixture
def home(tmp_path, server, slept):
    return Home(tmp_path, server.url)


def ceiling(home, n, **fields):
    """What a request may cost at most, in nano-dollars."""
    question = home.question
    tokens = len(question.text(home.units(n)).encode()) + 2 * (85 + 170 * 4)
    return round(tokens * 2500 + fields.get("room", question.model.max_tokens) * 10_000)


def test_a_good_reply_answers_its_units_and_is_kept_as_it_came(home, server):
    units = home.units(3)
    answers = home.ask(units)
    assert [answers[unit.key].value for unit in units] == [{"fits": True, "reason": f"number {i}"} for i in (1, 2, 3)]
    (kept,) = home.replies
    assert kept["raw"]["choices"][0]["message"]["content"] == verdicts((1, 2, 3))
    assert list(kept["units"]) == [unit.key for unit in units]
    assert (kept["stage"], kept["model"], kept["attempts"], kept["simulated"]) == ("filter", "t", 1, True)
    assert kept["usage"] == {"prompt_tokens": 100, "completion_tokens": 20}
    usage = home.gateway.usage
    assert (usage.calls, usage.requests, usage.prompt_tokens, usage.completion_tokens) == (1, 1, 100, 20)


@pytest.mark.parametrize("message", ["Error while downloading {}.", "Failed to fetch image from URL: {}"])
def test_an_image_that_could_not_be_fetched_is_no_verdict_on_it(home, server, message):
    url = "https://b.s3.amazonaws.com/rendered/x.jpg?X-Amz-Expires=60&X-Amz-Signature=secret"
    home.model = home.model.model_copy(update={"images": "url", "retries": 1})
    home.question = filter_question("Decide.", home.model)
    server.script = in_turn(reply, *3 * [failure(400, message.format(url), code="invalid_image_url")])
    first, second = home.units(1), home.units(2)[1:]
    assert home.ask(first)[first[0].key].value
    home.gateway = Gateway()
    answers = home.ask(second)
    assert second[0].key not in answers
    assert len(server.requests) == 3
    (why,) = home.gateway.usage.gave_up.values()
    assert "rendered/x.jpg?…" in why and "secret" not in why


def test_workers_of_one_store_share_the_models_limit_while_they_ask(home, server):
    home.gateway = Gateway(Shares(home.store))
    limit = home.gateway.limit(home.model)
    group = fingerprint("limit", [home.model.base_url, "m", "OPENAI_API_KEY"])[:32]
    another = Presence(home.store)
    another.look([group])
    seen = []

    def script(number, body):
        seen.append((len(list(home.store.list(f"workers/{group}/"))), limit.width.most))
        return reply(body)

    server.script = script
    home.ask(home.units(1), home.units(2))
    assert seen == 2 * [(2, home.model.concurrency // 2)]
    another.leave([group])
    assert not list(home.store.list("workers/"))


def test_the_request_is_the_protocols(home, server, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-1")
    home.model = home.model.model_copy(update={"api_key_env": "MY_KEY", "temperature": 0.25, "max_tokens": 77})
    home.question = filter_question("Decide.", home.model)
    home.ask(home.units(2))
    (body,) = server.requests
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0.25, 77)
    assert server.headers[0]["authorization"] == "Bearer sk-1"
    (message,) = body["messages"]
    text, image = message["content"]
    assert text == {"type": "text", "text": home.question.text(home.units(2))}
    assert image == {"type": "image_url", "image_url": {"url": f"data:,{IMAGE}"}}
    schema = body["response_format"]["json_schema"]
    assert schema == {"name": "filter", "strict": True, "schema": home.question.json_schema()}


def test_models_that_take_no_temperature_and_name_their_room_otherwise(home, server):
    changes = {"temperature": None, "room_field": "max_completion_tokens", "max_tokens": 77}
    home.question = filter_question("Decide.", home.model.model_copy(update=changes))
    home.ask(home.units(1))
    assert not {"temperature", "max_tokens"} & set(server.requests[0])
    assert server.requests[0]["max_completion_tokens"] == 77


def test_the_form_that_a_model_takes_is_found_out_once_for_all_workers_and_a_day(home, server):
    server.script = lambda number, body: (
        failure(400, "response_format json_schema is not supported")
        if body.get("response_format", {}).get("type") == "json_schema"
        else reply(body)
    )

    def forms():
        home.gateway = Gateway(Shares(home.store))
        units = home.units(len(server.requests) + 1)[-1:]  # another one each time
        before = len(server.requests)
        assert units[0].key in home.ask(units)
        return [body.get("response_format", {}).get("type") for body in server.requests[before:]]

    assert forms() == ["json_schema", "json_object"]
    assert forms() == ["json_object"]
    home.question = filter_question("Decide.", home.model.model_copy(update={"structured": "text"}))
    assert forms() == [None], "what the settings say is not overruled"
    home.question = filter_question("Decide.", home.model)
    (key,) = (each.key for each in home.store.list(keys.FORMS))
    home.store.replace(key, b"../../etc")
    assert forms() == ["json_schema", "json_object"]


def test_a_plainer_form_never_goes_back(home):
    assert home.gateway.plainer(home.model, "json_object") == "text"
    assert home.gateway.plainer(home.model, "json_schema") == "text", "an older request's reply, come late"
    assert home.gateway.mode(home.model) == "text"


def test_a_reply_that_was_paid_for_is_kept_though_its_task_is_cancelled(home, server, monkeypatch):
    async def sleep(self, seconds):
        if not seconds:
            asyncio.current_task().cancel()
        await asyncio.sleep(0)

    monkeypatch.setattr(Clock, "sleep", sleep)
    server.script = in_turn(completion("no answer"))  # so that the conversation would go on
    with pytest.raises(asyncio.CancelledError):
        home.ask(home.units(1))
    assert len(server.requests) == 1
    assert [kept["cost"] for kept in home.replies] == [home.ledger.spent().cost]


@pytest.mark.parametrize(("structured", "expected"), [("json_object", {"type": "json_object"}), ("text", None)])
def test_the_mode_of_structured_output_is_a_setting(home, server, structured, expected):
    home.question = filter_question("Decide.", home.model.model_copy(update={"structured": structured}))
    home.ask(home.units(1))
    assert server.requests[0].get("response_format") == expected


def test_a_unit_without_an_image_sends_none(home, server):
    home.ask(home.units(1, image=None))
    assert [part["type"] for part in server.requests[0]["messages"][0]["content"]] == ["text"]


# Retries


def test_retry_after_is_honoured(home, server, slept):
    server.script = in_turn(*(failure(429, headers={"Retry-After": text}) for text in ("7", "2.5", "0", "100000")))
    answers = home.ask(home.units(1))
    assert len(answers) == 1
    assert slept[:2] == [7, 2.5]
    assert 0 < slept[2] <= 2, "the server's 0 is no reason to hammer it"
    assert slept[3] == 300
    assert home.replies[0]["attempts"] == 5
    assert home.gateway.usage.requests == 5


def test_retry_after_may_be_a_date(home, server, slept, monkeypatch):
    at = 1_800_000_000
    monkeypatch.setattr(time, "time", lambda: at + 0.5)
    dates = (formatdate(at + 20, usegmt=True), formatdate(at - 1000, usegmt=True))
    server.script = in_turn(*(failure(503, headers={"Retry-After": date}) for date in dates))
    assert home.ask(home.units(1))
    assert slept[0] == pytest.approx(19.5)
    assert 0 < slept[1] <= 1


@pytest.mark.parametrize("text", ["nan", "-5", "soon", "", "-inf", "Wed, 99 Foo 2026"])
def test_a_retry_after_that_says_nothing_is_a_common_back_off(home, server, slept, text):
    server.script = in_turn(failure(429, headers={"Retry-After": text}))
    assert home.ask(home.units(1))
    assert len(slept) == 1
    assert 0.25 <= slept[0] <= 0.5


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_a_passing_failure_is_tried_again(home, server, slept, status):
    server.script = in_turn(failure(status), failure(status))
    answers = home.ask(home.units(1))
    assert [answer.terminal for answer in answers.values()] == [None]
    assert len(server.requests) == 3
    assert 0.25 <= slept[0] <= 0.5 <= slept[1] <= 1.0


def test_waits_grow_and_are_bounded(home, server, slept, paused):
    home.question = filter_question("Decide.", home.model.model_copy(update={"retries": 12}))
    server.script = lambda number, body: failure(500)
    home.ask(home.units(1))
    assert len(server.requests) == 13
    # Once nothing but failures came back, it is all requests that wait, and one of them that looks.
    assert (len(slept), len(paused)) == (4, 9)
    for waits in (slept, paused):
        for attempt, seconds in enumerate(waits):
            assert min(30, 0.5 * 2**attempt) / 2 <= seconds <= min(30, 0.5 * 2**attempt)


def test_without_a_reply_a_unit_stays_pending_and_costs_what_could_be_billed(home, server):
    server.script = lambda number, body: failure(500)
    assert home.ask(home.units(2)) == {}
    assert home.replies == []
    assert home.ledger.spent().cost == 0, "an error is not billed"
    assert home.ledger.spent().calls == home.model.retries + 1
    assert home.gateway.usage.unavailable == {}, "one request that gave up says nothing of the model"
    assert "500" in home.gateway.usage.gave_up["t"]


def test_a_model_that_keeps_failing_is_left_alone(home, server):
    home.question = filter_question("Decide.", home.model.model_copy(update={"retries": 1, "concurrency": 1}))
    server.script = lambda number, body: failure(500, "overloaded")
    home.ask(*([unit] for unit in home.units(8)))
    assert len(server.requests) == 6, "five failures in a row, and one look more"
    why = home.gateway.usage.unavailable["t"]
    assert server.url in why and "500" in why and "overloaded" in why


def test_a_success_between_failures_keeps_a_model_in_use(home, server):
    home.question = filter_question("Decide.", home.model.model_copy(update={"retries": 0, "concurrency": 1}))
    server.script = lambda number, body: reply(body) if number % 3 == 0 else failure(500)
    assert len(home.ask(*([unit] for unit in home.units(9)))) == 3
    assert len(server.requests) == 9
    assert home.gateway.usage.unavailable == {}


def test_a_time_out_is_tried_again_and_counted_at_its_highest(home, server):
    home.question = filter_question("Decide.", home.model.model_copy(update={"timeout_seconds": 0.3}))
    server.script = lambda number, body: HANG if number == 1 else reply(body)
    assert len(home.ask(home.units(1))) == 1
    assert home.replies[0]["attempts"] == 2
    assert home.ledger.spent().cost == ceiling(home, 1) + 100 * 2500 + 20 * 10_000
    assert home.ledger.spent().calls == 2


@pytest.mark.parametrize(
    "body", [b"<html>gateway</html>", b"", b"[]", b'"ok"', b"null", b"17", b'{"choices": [', b"\xff\xfe"]
)
def test_a_body_that_is_no_json_object_is_tried_again(home, server, body):
    server.script = in_turn(Response(body, 200, media_type="application/json"))
    assert [answer.terminal for answer in home.ask(home.units(1)).values()] == [None]
    assert home.ledger.spent().cost == ceiling(home, 1) + 100 * 2500 + 20 * 10_000


def test_nobody_at_the_address_costs_nothing(tmp_path, slept):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: whoever connects is refused
        home = Home(tmp_path, f"http://127.0.0.1:{taken.getsockname()[1]}/v1", concurrency=1)
        assert home.ask(*([unit] for unit in home.units(5))) == {}
    assert (home.ledger.spent().cost, home.ledger.spent().calls) == (0, 0)
    assert home.model.base_url in home.gateway.usage.unavailable["t"]
    assert home.gateway.usage.requests == 11, "five failures in a row, and six looks more"


# Replies that are no answer


def test_a_malformed_reply_is_asked_again_with_what_was_wrong(home, server):
    server.script = in_turn(completion("Sure! Both of them fit."))
    units = home.units(2)
    assert len(home.ask(units)) == 2
    again = server.requests[1]["messages"]
    assert [message["role"] for message in again] == ["system", "user"]
    assert "not JSON" in again[0]["content"]
    assert again[1] == server.requests[0]["messages"][0]
    assert [len(kept["answers"]) for kept in home.replies] == [0, 2], "what was paid for is kept, useful or not"


def test_only_what_lacks_an_answer_is_asked_again(home, server):
    server.script = in_turn(completion(verdicts((1, 3))))
    units = home.units(3)
    answers = home.ask(units)
    assert len(answers) == 3
    assert [asked(body) for body in server.requests] == [["a~0", "a~1", "a~2"], ["a~1"]]
    assert "index 2: missing" in server.requests[1]["messages"][0]["content"]
    first, second = home.replies
    assert list(first["answers"]) == [units[0].key, units[2].key]
    assert list(second["answers"]) == [units[1].key]


def test_malformed_to_the_last_repair_is_a_terminal_answer(home, server):
    server.script = lambda number, body: completion(verdicts((1,), fits="yes"))
    (unit,) = home.units(1)
    answer = home.ask([unit])[unit.key]
    assert (answer.value, answer.terminal) == (None, Reason.MALFORMED)
    assert answer.detail == "index 1: `fits` must be bool"
    assert len(server.requests) == home.model.repairs + 1
    assert home.gateway.usage.calls == home.model.repairs + 1
    assert sum(kept["cost"] for kept in home.replies) == home.gateway.usage.cost == home.ledger.spent().cost


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"choices": []},
        {"choices": None},
        {"choices": [None]},
        {"choices": {"0": 1}},
        {"choices": [{"message": None}]},
        {"choices": [{"message": "text"}]},
        {"choices": [{"message": {"content": None}}]},
        {"choices": [{"message": {"content": [{"type": "text"}]}}]},
        {"usage": "much", "choices": [{"finish_reason": 7}]},
    ],
)
def test_a_body_of_another_shape_is_malformed_and_nothing_worse(home, server, body):
    server.script = lambda number, _: JSONResponse(body)
    (answer,) = home.ask(home.units(1)).values()
    assert answer.terminal == Reason.MALFORMED


def test_a_null_error_beside_the_choices_is_none(home, server):
    def script(number, body):
        plain = json.loads(reply(body).body)
        return JSONResponse({"error": None, **plain})

    server.script = script
    assert [answer.terminal for answer in home.ask(home.units(2)).values()] == [None, None]


def test_a_cut_reply_gets_more_room(home, server):
    cut = completion(verdicts((1, 2))[:40], finish="length", usage=(100, 2000))
    server.script = in_turn(cut)
    assert len(home.ask(home.units(2))) == 2
    assert [body["max_tokens"] for body in server.requests] == [2000, 4000]
    assert all(len(body["messages"]) == 1 for body in server.requests), "it was not wrong, it was too long"
    assert [kept["ceiling"] for kept in home.replies] == [ceiling(home, 2, room=room) for room in (2000, 4000)]


def test_cut_to_the_last_is_terminal(home, server):
    server.script = lambda number, body: completion('{"verdicts": [', finish="length")
    (answer,) = home.ask(home.units(1)).values()
    assert answer.terminal == Reason.MALFORMED
    assert "not JSON" in answer.detail
    assert [body["max_tokens"] for body in server.requests] == [2000, 4000, 4000, 4000]


def test_of_a_cut_reply_what_is_whole_is_kept(home, server):
    whole = verdicts((1, 2, 3))
    server.script = in_turn(completion(whole[: whole.rindex("number 3")], finish="length"))
    answers = home.ask(home.units(3))
    assert [answer.value["reason"] for answer in answers.values()] == ["number 1", "number 2", "number 1"]
    assert [asked(body) for body in server.requests] == [["a~0", "a~1", "a~2"], ["a~2"]]


REFUSALS = {
    "refusal": lambda: completion(None, refusal="I cannot help with that."),
    "content filter": lambda: completion("", finish="content_filter"),
    "400 by a filter": lambda: failure(400, "flagged by our safety system", code="content_filter"),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_refusal_of_one_unit_is_its_answer(home, server, kind):
    server.script = lambda number, body: REFUSALS[kind]()
    (answer,) = home.ask(home.units(1)).values()
    assert (answer.value, answer.terminal) == (None, Reason.REFUSED)
    assert answer.detail
    assert len(server.requests) == 1, "asking again would not help"


@pytest.mark.parametrize("kind", REFUSALS)
def test_of_a_request_that_is_refused_each_unit_is_asked_by_itself(home, server, kind):
    server.script = lambda number, body: REFUSALS[kind]() if "a~1" in asked(body) else reply(body)
    units = home.units(3)
    answers = home.ask(units)
    assert [answers[unit.key].terminal for unit in units] == [None, Reason.REFUSED, None]
    assert [asked(body) for body in server.requests] == [["a~0", "a~1", "a~2"], ["a~0"], ["a~1"], ["a~2"]]


def test_a_refusals_text_is_fit_for_a_table(home, server):
    refused = '{"choices": [{"message": {"refusal": "no\\ud800\\u202e\\u0000 way"}}]}'
    server.script = lambda number, body: Response(refused, media_type="application/json")
    (answer,) = home.ask(home.units(1)).values()
    assert answer.detail == "no way"


def test_a_400_of_a_model_that_works_is_the_units_answer(home, server):
    server.script = lambda number, body: failure(400, "bad image") if "a~1" in asked(body) else reply(body)
    units = home.units(2)
    home.question = filter_question("Decide.", home.model.model_copy(update={"concurrency": 1}))
    answers = home.ask([units[0]], [units[1]])
    assert answers[units[1].key].terminal == Reason.REFUSED
    assert "bad image" in answers[units[1].key].detail
    assert home.ledger.spent().cost == 100 * 2500 + 20 * 10_000, "an error is not billed"


# What no other request would mend


@pytest.mark.parametrize("status", [401, 402, 403, 404, 405])
@pytest.mark.parametrize("served", [0, 1])
def test_a_fatal_answer_stops_the_model_at_once(home, server, slept, status, served):
    server.script = in_turn(*[reply] * served, *[failure(status, "go away")] * 9)
    home.question = filter_question("Decide.", home.model.model_copy(update={"concurrency": 1}))
    assert len(home.ask(*([unit] for unit in home.units(6)))) == served
    assert len(server.requests) == served + 1
    assert slept == []
    why = home.gateway.usage.unavailable["t"]
    for part in (server.url, str(status), "go away", "'m'", "OPENAI_API_KEY"):
        assert part in why
    assert home.ledger.spent().cost == served * (100 * 2500 + 20 * 10_000)


def test_a_model_without_schemas_is_asked_without(home, server):
    server.script = lambda number, body: (
        failure(400, "response_format json_schema is not supported")
        if body.get("response_format", {}).get("type") == "json_schema"
        else reply(body)
    )
    home.question = filter_question("Decide.", home.model.model_copy(update={"concurrency": 1}))
    assert len(home.ask(*([unit] for unit in home.units(5)))) == 5
    asked_for = [body["response_format"]["type"] for body in server.requests]
    assert asked_for.count("json_object") == 5 and asked_for[-3:] == ["json_object"] * 3, "found out once"


def test_a_model_without_any_structure_is_asked_for_text(home, server):
    server.script = lambda number, body: (
        failure(400, "unknown field: response_format") if "response_format" in body else reply(body)
    )
    assert len(home.ask(home.units(1))) == 1
    assert [body.get("response_format", {}).get("type") for body in server.requests] == [
        "json_schema",
        "json_object",
        None,
    ]


def test_a_400_from_the_first_on_is_taken_for_our_own_mistake(home, server):
    server.script = lambda number, body: failure(400, "temperature is not supported")
    home.question = filter_question("Decide.", home.model.model_copy(update={"concurrency": 1}))
    assert home.ask(*([unit] for unit in home.units(3))) == {}, "no unit is refused for good by it"
    assert len(server.requests) == 1
    assert "structured ('json_schema')" in home.gateway.usage.unavailable["t"]


def test_a_missing_key_is_named_before_anything_is_sent(home, server, monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    real = home.model.model_copy(update={"simulated": False, "api_key_env": "NO_SUCH_KEY"})
    home.question = filter_question("Decide.", real)
    assert home.ask(home.units(1)) == {}
    assert server.requests == []
    assert "NO_SUCH_KEY holds no key" in home.gateway.usage.unavailable["t"]


def test_a_lost_lease_sends_nothing(home, server):
    def lost():
        raise LeaseLostError("gone")

    home.check = lost
    with pytest.raises(LeaseLostError):
        home.ask(home.units(1))
    assert server.requests == []
    assert home.ledger.spent().calls == 0


def test_a_spent_budget_sends_nothing_more(tmp_path, server, slept):
    home = Home(tmp_path, server.url, calls=2, concurrency=1)
    with pytest.raises(BudgetError, match=r"2 calls of 2 \(budget\.max_calls\)"):
        home.ask(*([unit] for unit in home.units(3)))
    assert len(server.requests) == 2
    assert len(home.journal.answers) == 2


# Costs


def test_costs_are_tokens_at_the_price(home, server):
    usages = [(0, 0), (1, 0), (0, 1), (123_456, 789)]
    costs = [0, 2500, 10_000, 123_456 * 2500 + 789 * 10_000]
    server.script = in_turn(*(completion(verdicts((1,)), usage=usage) for usage in usages))
    home.question = filter_question("Decide.", home.model.model_copy(update={"concurrency": 1}))
    home.ask(*([unit] for unit in home.units(4)))
    assert [kept["cost"] for kept in home.replies] == costs
    assert home.gateway.usage.cost == home.ledger.spent().cost == sum(costs)
    assert home.ledger.spent().calls == 4


def test_list_prices_are_for_comparison_alone(home, server):
    free = home.model.model_copy(update={"price": Price(), "list_price": Price(input=1, output=2)})
    home.question = filter_question("Decide.", free)
    home.ask(home.units(1))
    (kept,) = home.replies
    assert (kept["cost"], kept["list_cost"], kept["ceiling"]) == (0, 100 * 1000 + 20 * 2000, 0)
    assert home.ledger.spent().cost == home.gateway.usage.cost == 0
    assert home.gateway.usage.list_cost == 140_000


@pytest.mark.parametrize(
    "usage",
    [None, {}, {"prompt_tokens": 5}, {"prompt_tokens": 5, "completion_tokens": None}, [1, 2],
     {"prompt_tokens": -1, "completion_tokens": 2}, {"prompt_tokens": "5", "completion_tokens": "6"}],
)  # fmt: skip
def test_without_its_usage_a_reply_counts_at_its_highest(home, server, usage):
    def script(number, body):
        plain = json.loads(reply(body).body)
        return JSONResponse({**plain, "usage": usage})

    server.script = script
    home.ask(home.units(1))
    (kept,) = home.replies
    assert kept["cost"] == kept["ceiling"] == ceiling(home, 1)
    assert home.ledger.spent().cost == home.gateway.usage.cost == kept["cost"]


def test_the_ceiling_counts_the_repair_and_every_byte(home, server):
    server.script = in_turn(completion("no"))
    home.question = filter_question("Entscheide: paßt es? 漢字", home.model)
    home.ask(home.units(1))
    first, second = home.replies
    extra = len(server.requests[1]["messages"][0]["content"].encode())
    assert first["ceiling"] == ceiling(home, 1)
    assert second["ceiling"] == first["ceiling"] + extra * 2500


def test_a_model_that_costs_more_than_reckoned_is_reckoned_with(home, server):
    home.question = filter_question("Decide.", home.model.model_copy(update={"concurrency": 1}))
    server.script = lambda number, body: completion(verdicts((1,)), usage=(40_000, 0))
    home.ask(*([unit] for unit in home.units(3)))
    assert [kept["ceiling"] for kept in home.replies] == [ceiling(home, 1), *[40_000 * 2500] * 2]


def test_a_reply_keeps_what_was_cached_and_reasoned_its_run_and_its_task_types(home, server):
    price = Price(input=2.5, output=10.0, cached=1.25)
    home.question = filter_question("Decide.", home.model.model_copy(update={"price": price}))
    details = {"prompt_tokens_details": {"cached_tokens": 60}, "completion_tokens_details": {"reasoning_tokens": 15}}

    def script(number, body):
        plain = json.loads(reply(body).body)
        return JSONResponse({**plain, "usage": {**plain["usage"], **details}})

    server.script = script
    units = home.units(2)
    home.ask(units)
    (kept,) = home.replies
    assert kept["usage"] == {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "cached_tokens": 60,
        "reasoning_tokens": 15,
    }
    assert kept["cost"] == home.ledger.spent().cost == 40 * 2500 + 60 * 1250 + 20 * 10_000
    assert home.ledger.spent().tokens == 120
    assert (kept["run"], kept["types"]) == (home.ledger.run, [unit.item["task_type"] for unit in units])


# Concurrency


def test_requests_in_flight_are_bounded_and_used(home, server):
    gate = []

    async def script(number, body):
        # Nobody is answered before as many are there as may be: waiting for more would never end.
        gate.append(number)
        while len(gate) < 3:
            await asyncio.sleep(0.001)
        return reply(body)

    server.script = script
    home.question = filter_question("Decide.", home.model.model_copy(update={"concurrency": 3}))
    assert len(home.ask(*([unit] for unit in home.units(20)))) == 20
    assert server.most == 3
    assert home.ledger.spent().calls == 20


def test_a_refused_request_costs_no_try_while_others_are_served(home, server, monkeypatch):
    def sent(first):
        return sum((asked(body) == ["a~0"]) is first for body in server.requests)

    async def sleep(self, seconds):
        before = sent(first=False)
        while seconds and sent(first=False) == before < 39:
            await asyncio.sleep(0.001)

    monkeypatch.setattr(Clock, "sleep", sleep)
    server.script = lambda number, body: failure(429) if asked(body) == ["a~0"] and sent(True) <= 9 else reply(body)
    home.question = filter_question("Decide.", home.model.model_copy(update={"concurrency": 1, "retries": 5}))
    assert len(home.ask(*([unit] for unit in home.units(40)))) == 40
    assert sent(first=True) == 10 and server.most == 1, "it has six tries"


def test_a_match_becomes_a_unit_that_the_gateway_can_ask(home):
    from taskgalaxy_ops.generation.stages.filter import filter_units, filtered

    units = filter_units(home.question, [Match(IMAGE, f"a~{i}", 0.5, i + 1) for i in range(3)])
    made = filtered(units, home.ask(units))
    assert (len(made.relevant), made.rejects, made.pending) == (3, [], 0)
