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
from taskgalaxy_ops.generation.stages.filter import filter_template
from taskgalaxy_ops.hashing import fingerprint
from taskgalaxy_ops.inference import attempts, gateway
from taskgalaxy_ops.inference.gateway import CallContext, Gateway
from taskgalaxy_ops.inference.model_health import outages
from taskgalaxy_ops.inference.spending import RunBudget, ShardBudget
from taskgalaxy_ops.inference.worker_shares import Presence, Shares
from taskgalaxy_ops.models import rate_limit, refusals
from taskgalaxy_ops.models.rate_limit import Limit
from taskgalaxy_ops.models.request import CANARY_TASK_TYPE
from taskgalaxy_ops.models.request_form import RequestForm
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


def is_canary(body):
    return asked(body) == [CANARY_TASK_TYPE]


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
    """asyncio and time as the gateway sees them, with a sleep that takes note and moves the clock on."""

    def __init__(self):
        self.slept = []
        self.skipped = 0.0  # seconds

    def monotonic(self):
        return time.monotonic() + self.skipped

    def time(self):
        return time.time()

    def localtime(self, at):
        return time.localtime(at)

    def strftime(self, form, at):
        return time.strftime(form, at)

    def __getattr__(self, name):
        return getattr(asyncio, name)

    async def sleep(self, seconds):
        if seconds:
            self.slept.append(seconds)
            self.skipped += seconds
        await asyncio.sleep(0)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(attempts, "asyncio", clock)
    for module in (attempts, gateway, rate_limit):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def paused(monkeypatch, clock):
    """How long all requests were to wait; none does, and the clock moves on."""
    pauses = []

    def pause(limit, seconds):
        pauses.append(seconds)
        clock.skipped += seconds

    monkeypatch.setattr(Limit, "_pause", pause)
    return pauses


@pytest.fixture
def slept(clock, paused):
    return clock.slept


class ImageShard:
    """An image shard with its journal, its budget, and a gateway: what a run gives to its calls."""

    def __init__(self, folder, url, cost=100.0, calls=10_000, **model):
        self.store = FolderStore(folder)
        self.ledger = Ledger(self.store, Caps(round(cost * NANO), calls))
        self.model = Model(**{"name": "t", "base_url": url, "model": "m", "simulated": True, "price": PRICE} | model)
        self.question = filter_template("Decide.", self.model)
        self.journal = Journal(self.store, "h")
        self.gateway = Gateway()
        self.check = lambda: None

    def units(self, n, image=IMAGE):
        return [self.question.unit(image, {"task_type": f"a~{i}"}) for i in range(n)]

    def ask(self, *requests, one_by_one=False):
        """Asks the requests, all at once or one after another; gives the journal's answers."""

        async def run():
            shard_budget = ShardBudget(RunBudget(self.ledger), "h", 8)
            context = CallContext(self.journal, shard_budget, lambda image: f"data:,{image}", self.check)
            try:
                for part in [[each] for each in requests] if one_by_one else [requests]:
                    await asyncio.gather(*(self.gateway.ask(self.question, units, context) for units in part))
            finally:
                await self.gateway.aclose()
                await shard_budget.close()
                self.journal.flush()

        asyncio.run(run())
        return self.journal.answers

    @property
    def replies(self):
        return list(self.journal.replies())


@pytest.fixture
def shard(tmp_path, server, slept):
    return ImageShard(tmp_path, server.url)


def ceiling(shard, n, **fields):
    """What a request may cost at most, in nano-dollars."""
    question = shard.question
    tokens = len(question.text(shard.units(n)).encode()) + 2 * (85 + 170 * 4)
    return round(tokens * 2500 + fields.get("room", question.model.max_tokens) * 10_000)


def test_a_good_reply_answers_its_units_and_is_kept_as_it_came(shard, server):
    units = shard.units(3)
    answers = shard.ask(units)
    assert [answers[unit.key].value for unit in units] == [{"fits": True, "reason": f"number {i}"} for i in (1, 2, 3)]
    (kept,) = shard.replies
    assert kept["raw"]["choices"][0]["message"]["content"] == verdicts((1, 2, 3))
    assert list(kept["units"]) == [unit.key for unit in units]
    assert (kept["stage"], kept["model"], kept["attempts"], kept["simulated"]) == ("filter", "t", 1, True)
    assert kept["usage"] == {"prompt_tokens": 100, "completion_tokens": 20}
    usage = shard.gateway.usage
    assert (usage.calls, usage.requests, usage.prompt_tokens, usage.completion_tokens) == (1, 1, 100, 20)
    (of_model,) = usage.by_model.items()
    assert of_model[0] == "t"
    assert (of_model[1].calls, of_model[1].units, of_model[1].tokens, of_model[1].cost) == (1, 3, 120, usage.cost)


@pytest.mark.parametrize("message", ["Error while downloading {}.", "Failed to fetch image from URL: {}"])
def test_an_image_that_could_not_be_fetched_is_no_verdict_on_it(shard, server, message):
    url = "https://b.s3.amazonaws.com/rendered/x.jpg?X-Amz-Expires=60&X-Amz-Signature=secret"
    shard.model = shard.model.model_copy(update={"images": "url", "retries": 1})
    shard.question = filter_template("Decide.", shard.model)
    fetched = failure(400, message.format(url), code="invalid_image_url")
    server.script = lambda number, body: reply(body) if number == 1 else fetched
    first, second = shard.units(1), shard.units(2)[1:]
    assert shard.ask(first)[first[0].key].value
    shard.gateway = Gateway()
    answers = shard.ask(second)
    assert second[0].key not in answers
    assert len(server.requests) == 3
    (why,) = shard.gateway.usage.gave_up.values()
    assert "rendered/x.jpg?…" in why and "secret" not in why


def test_workers_of_one_store_share_the_models_limit_while_they_ask(shard, server):
    shard.gateway = Gateway(Shares(shard.store))
    limit = shard.gateway.attempts.limit(shard.model)
    group = fingerprint("limit", [shard.model.base_url, "m", "OPENAI_API_KEY"])[:32]
    another = Presence(shard.store)
    another.look([group])
    seen = []

    def script(number, body):
        seen.append((len(list(shard.store.list(f"workers/{group}/"))), limit.width.most))
        return reply(body)

    server.script = script
    shard.ask(shard.units(1), shard.units(2))
    assert seen == 2 * [(2, shard.model.concurrency // 2)]
    another.leave([group])
    assert not list(shard.store.list("workers/"))


def test_the_request_is_the_protocols(shard, server, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-1")
    shard.model = shard.model.model_copy(update={"api_key_env": "MY_KEY", "temperature": 0.25, "max_tokens": 77})
    shard.question = filter_template("Decide.", shard.model)
    shard.ask(shard.units(2))
    (body,) = server.requests
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0.25, 77)
    assert server.headers[0]["authorization"] == "Bearer sk-1"
    (message,) = body["messages"]
    text, image = message["content"]
    assert text == {"type": "text", "text": shard.question.text(shard.units(2))}
    assert image == {"type": "image_url", "image_url": {"url": f"data:,{IMAGE}"}}
    schema = body["response_format"]["json_schema"]
    assert schema == {
        "name": "filter",
        "strict": True,
        "schema": shard.question.json_schema(shard.units(2), bounded=True),
    }


def test_models_that_take_no_temperature_and_name_their_room_otherwise(shard, server):
    changes = {"temperature": None, "room_field": "max_completion_tokens", "max_tokens": 77}
    shard.question = filter_template("Decide.", shard.model.model_copy(update=changes))
    shard.ask(shard.units(1))
    assert not {"temperature", "max_tokens"} & set(server.requests[0])
    assert server.requests[0]["max_completion_tokens"] == 77


def test_the_form_that_a_model_takes_is_found_out_once_for_all_workers_and_a_day(shard, server):
    server.script = lambda number, body: (
        failure(400, "response_format json_schema is not supported")
        if body.get("response_format", {}).get("type") == "json_schema"
        else reply(body)
    )

    def forms():
        shard.gateway = Gateway(Shares(shard.store))
        units = shard.units(len(server.requests) + 1)[-1:]  # another one each time
        before = len(server.requests)
        assert units[0].key in shard.ask(units)
        return [body.get("response_format", {}).get("type") for body in server.requests[before:]]

    assert forms() == ["json_schema", "json_schema", "json_object"], "with counts, without, and without a schema"
    assert forms() == ["json_object"]
    shard.question = filter_template("Decide.", shard.model.model_copy(update={"structured": "text"}))
    assert forms() == [None], "what the settings say is not overruled"
    shard.question = filter_template("Decide.", shard.model)
    (key,) = (each.key for each in shard.store.list(keys.FORMS))
    shard.store.replace(key, b"../../etc")
    assert forms() == ["json_schema", "json_schema", "json_object"]


def test_a_plainer_form_never_goes_back(shard):
    forms = shard.gateway.attempts.forms
    for sent in ("json_object", "json_schema"):  # the second is an older request's reply, come late
        assert forms.simplify(shard.model, "response_format", RequestForm(mode=sent)).mode == "text"
    assert forms.of(shard.model).mode_for(shard.model) == "text"
    assert forms.simplify(shard.model, "response_format", RequestForm(mode="text")) is None


def test_a_reply_that_was_paid_for_is_kept_though_its_task_is_cancelled(shard, server, monkeypatch):
    async def sleep(self, seconds):
        if not seconds:
            asyncio.current_task().cancel()
        await asyncio.sleep(0)

    monkeypatch.setattr(Clock, "sleep", sleep)
    server.script = in_turn(completion("no answer"))  # so that the conversation would go on
    with pytest.raises(asyncio.CancelledError):
        shard.ask(shard.units(1))
    assert len(server.requests) == 1
    assert [kept["cost"] for kept in shard.replies] == [shard.ledger.spent().cost]


@pytest.mark.parametrize(("structured", "expected"), [("json_object", {"type": "json_object"}), ("text", None)])
def test_the_mode_of_structured_output_is_a_setting(shard, server, structured, expected):
    shard.question = filter_template("Decide.", shard.model.model_copy(update={"structured": structured}))
    shard.ask(shard.units(1))
    assert server.requests[0].get("response_format") == expected


def test_a_unit_without_an_image_sends_none(shard, server):
    shard.ask(shard.units(1, image=None))
    assert [part["type"] for part in server.requests[0]["messages"][0]["content"]] == ["text"]


# Retries


def test_retry_after_is_honoured(shard, server, slept):
    server.script = in_turn(*(failure(429, headers={"Retry-After": text}) for text in ("7", "2.5", "0", "450")))
    answers = shard.ask(shard.units(1))
    assert len(answers) == 1
    assert slept[:2] == [7, 2.5]
    assert 0 < slept[2] <= 2, "the server's 0 is no reason to hammer it"
    assert slept[3] == 450
    assert shard.replies[0]["attempts"] == 5
    assert shard.gateway.usage.requests == 5


def test_retry_after_may_be_a_date(shard, server, paused, monkeypatch):
    at = 1_800_000_000
    monkeypatch.setattr(refusals.time, "time", lambda: at + 0.5)
    dates = (formatdate(at + 20, usegmt=True), formatdate(at - 1000, usegmt=True))
    server.script = in_turn(*(failure(503, headers={"Retry-After": date}) for date in dates))
    assert shard.ask(shard.units(1))
    assert paused[0] == pytest.approx(19.5)
    assert 0 < paused[1] <= 1


@pytest.mark.parametrize("text", ["nan", "-5", "soon", "", "-inf", "Wed, 99 Foo 2026"])
def test_a_retry_after_that_says_nothing_is_a_common_back_off(shard, server, slept, text):
    server.script = in_turn(failure(429, headers={"Retry-After": text}))
    assert shard.ask(shard.units(1))
    assert len(slept) == 1
    assert 0.25 <= slept[0] <= 0.5


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_a_passing_failure_is_tried_again(shard, server, slept, status):
    server.script = in_turn(failure(status), failure(status))
    answers = shard.ask(shard.units(1))
    assert [answer.terminal for answer in answers.values()] == [None]
    assert len(server.requests) == 3
    assert 0.25 <= slept[0] <= 0.5 <= slept[1] <= 1.0


def test_waits_grow_and_are_bounded(shard, server, slept, paused):
    server.script = lambda number, body: failure(500)
    shard.ask(shard.units(1))
    # Once nothing but failures came back, it is all requests that wait, and one of them that looks.
    assert len(slept) == 4
    for waits in (slept, paused):
        for attempt, seconds in enumerate(waits):
            assert seconds <= min(30, 0.5 * 2**attempt)
    assert sum(slept) + sum(paused) == pytest.approx(1800, rel=0.1), "patience is time"


def test_a_model_that_serves_nothing_is_given_up_when_its_patience_is_over(shard, server):
    shard.question = filter_template("Decide.", shard.model.model_copy(update={"patience_seconds": 60}))
    server.script = lambda number, body: failure(500, "overloaded")
    assert shard.ask(*([unit] for unit in shard.units(8))) == {}
    assert shard.replies == []
    assert shard.ledger.spent().cost == 0, "an error is not billed"
    why = shard.gateway.usage.unavailable["t"]
    assert server.url in why and "500" in why and "overloaded" in why and "60 s (patience_seconds)" in why


def test_a_server_that_loads_for_five_minutes_costs_nothing(shard, server, clock):
    began = clock.monotonic()

    def script(number, body):
        away = clock.monotonic() - began < 300
        return failure(503, "The model is loading", headers={"Retry-After": "20"}) if away else reply(body)

    server.script = script
    shard.question = filter_template("Decide.", shard.model.model_copy(update={"retries": 1}))
    assert len(shard.ask(*([unit] for unit in shard.units(8)))) == 8
    assert shard.gateway.usage.unavailable == {}


def test_a_wait_that_is_longer_than_the_patience_is_not_waited_for(shard, server, slept, paused):
    server.script = lambda number, body: failure(503, "closed", headers={"Retry-After": "86400"})
    assert shard.ask(shard.units(1)) == {}
    assert (len(server.requests), slept, paused) == (1, [], [])
    assert "asks to wait 86,400 s, patience_seconds is 1800" in shard.gateway.usage.unavailable["t"]


def test_who_is_waited_for_is_told_and_when_it_is_back(shard, server):
    told = []
    shard.gateway = Gateway(note=told.append)
    server.script = in_turn(*6 * [failure(500, "no engine")])
    assert shard.ask(shard.units(1))
    assert "t at http" in told[0] and "no engine" in told[0] and "given up at" in told[0]
    assert told[-1].startswith("t is back after") and len(told) == 2, "the same is not told each time"


def test_who_looks_again_later_leaves_a_model_that_serves_nothing_after_a_minute(shard, server):
    shard.gateway = Gateway(Shares(shard.store), patient=False)
    server.script = lambda number, body: failure(500, "no engine")
    before = time.time()
    assert shard.ask(*([unit] for unit in shard.units(4))) == {}
    usage = shard.gateway.usage
    assert "no engine); it has served nothing for " in usage.unavailable["t"], "a minute, and not thirty"
    assert before - 120 < usage.away["t"] <= time.time()
    (outage,) = outages(shard.store, [shard.model])
    assert (outage.model, outage.base_url) == ("t", server.url) and "no engine" in outage.why
    assert before - 120 < outage.since <= outage.seen

    # Another worker, which it serves: that is over.
    shard.gateway = Gateway(Shares(shard.store), patient=False)
    server.script = lambda number, body: reply(body)
    assert len(shard.ask(*([unit] for unit in shard.units(4)))) == 4
    assert outages(shard.store, [shard.model]) == []
    assert list(shard.store.list("health/")) == []


def test_while_another_model_replies_one_that_serves_nothing_is_waited_for(shard, server, clock):
    """It is looked at while there is work to do all the same; ``clock``: the other replies now and then."""
    gateway = shard.gateway = Gateway(patient=False)
    began = clock.monotonic()

    def script(number, body):
        gateway.attempts._replied = clock.monotonic()
        return reply(body) if clock.monotonic() - began > 300 else failure(500, "no engine")

    server.script = script
    assert len(shard.ask(shard.units(1))) == 1
    assert gateway.usage.away == gateway.usage.unavailable == {}


def test_what_a_healthy_model_fails_at_each_time_is_given_up_with_a_reason(shard, server):
    server.script = lambda number, body: failure(500, "boom") if "a~1" in asked(body) else reply(body)
    units = shard.units(3)
    answers = shard.ask(units)
    assert [answers[unit.key].terminal for unit in units] == [None, Reason.MODEL_FAILS, None]
    assert "boom" in answers[units[1].key].detail
    assert shard.gateway.usage.unavailable == {}
    canaries = [kept for kept in shard.replies if kept["note"].get("canary")]
    assert canaries and not any(kept["units"] or kept["answers"] for kept in canaries), "kept, with their cost"


def test_what_a_healthy_model_fails_at_is_no_sign_that_it_went_away(shard, server):
    """Without patience, the second request that it fails at would be taken for its end."""
    model = shard.model.model_copy(update={"retries": 0, "concurrency": 1, "patience_seconds": 0})
    shard.question = filter_template("Decide.", model)
    server.script = lambda number, body: (
        reply(body) if is_canary(body) or "a~0" in asked(body) else failure(500, "boom")
    )
    units = shard.units(3)
    answers = shard.ask(*([unit] for unit in units), one_by_one=True)
    assert [answers[unit.key].terminal for unit in units] == [None, Reason.MODEL_FAILS, Reason.MODEL_FAILS]
    assert shard.gateway.usage.unavailable == {}


def test_a_server_that_fails_at_random_makes_nothing_end(shard, server):
    shard.question = filter_template("Decide.", shard.model.model_copy(update={"retries": 0, "concurrency": 1}))
    server.script = lambda number, body: reply(body) if number % 3 == 0 else failure(500)
    answers = shard.ask(*(shard.units(1, image=f"{number:064x}") for number in range(9)))
    assert not any(answer.terminal for answer in answers.values())
    assert shard.gateway.usage.unavailable == {}


def test_a_time_out_is_tried_again_and_counted_at_its_highest(shard, server):
    shard.question = filter_template("Decide.", shard.model.model_copy(update={"timeout_seconds": 0.3}))
    server.script = lambda number, body: HANG if number == 1 else reply(body)
    assert len(shard.ask(shard.units(1))) == 1
    assert shard.replies[0]["attempts"] == 2
    assert shard.ledger.spent().cost == ceiling(shard, 1) + 100 * 2500 + 20 * 10_000
    assert shard.ledger.spent().calls == 2


@pytest.mark.parametrize(
    "body", [b"<html>gateway</html>", b"", b"[]", b'"ok"', b"null", b"17", b'{"choices": [', b"\xff\xfe"]
)
def test_a_body_that_is_no_json_object_is_tried_again(shard, server, body):
    server.script = in_turn(Response(body, 200, media_type="application/json"))
    assert [answer.terminal for answer in shard.ask(shard.units(1)).values()] == [None]
    assert shard.ledger.spent().cost == ceiling(shard, 1) + 100 * 2500 + 20 * 10_000


def test_nobody_at_the_address_costs_nothing(tmp_path, slept):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: whoever connects is refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        shard = ImageShard(tmp_path, url, concurrency=1, patience_seconds=30)
        assert shard.ask(*([unit] for unit in shard.units(5))) == {}
    assert (shard.ledger.spent().cost, shard.ledger.spent().calls) == (0, 0)
    assert shard.model.base_url in shard.gateway.usage.unavailable["t"]


# Replies that are no answer


def test_a_malformed_reply_is_asked_again_with_what_was_wrong(shard, server):
    server.script = in_turn(completion("Sure! Both of them fit."))
    units = shard.units(2)
    assert len(shard.ask(units)) == 2
    first, again = (body["messages"] for body in server.requests)
    assert [message["role"] for message in again] == ["user"], "many templates of chats take nothing else"
    assert again[0]["content"][:-1] == first[0]["content"]
    assert "not JSON" in again[0]["content"][-1]["text"]
    assert "```" not in again[0]["content"][-1]["text"], "the request has the only fence"
    assert [len(kept["answers"]) for kept in shard.replies] == [0, 2], "what was paid for is kept, useful or not"


def test_only_what_lacks_an_answer_is_asked_again(shard, server):
    server.script = in_turn(completion(verdicts((1, 3))))
    units = shard.units(3)
    answers = shard.ask(units)
    assert len(answers) == 3
    assert [asked(body) for body in server.requests] == [["a~0", "a~1", "a~2"], ["a~1"]]
    assert "index 2: missing" in server.requests[1]["messages"][0]["content"][-1]["text"]
    first, second = shard.replies
    assert list(first["answers"]) == [units[0].key, units[2].key]
    assert list(second["answers"]) == [units[1].key]


def test_malformed_to_the_last_repair_is_a_terminal_answer(shard, server):
    server.script = lambda number, body: reply(body) if is_canary(body) else completion(verdicts((1,), fits="perhaps"))
    (unit,) = shard.units(1)
    answer = shard.ask([unit])[unit.key]
    assert (answer.value, answer.terminal) == (None, Reason.MALFORMED)
    assert answer.detail == "index 1: `fits` must be bool"
    assert len(server.requests) == shard.model.repairs + 2, "the last is the canary"
    assert shard.gateway.usage.calls == shard.model.repairs + 2
    assert sum(kept["cost"] for kept in shard.replies) == shard.gateway.usage.cost == shard.ledger.spent().cost


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
        {"choices": [{"message": {"role": "assistant", "content": None}, "finish_reason": None}]},
        {"choices": [{"message": {"content": ""}, "finish_reason": "error"}]},
        {"choices": [{"message": {"content": ""}, "finish_reason": None, "error": {"code": 502, "message": "up"}}]},
        {"error": {"code": 524, "message": "the provider timed out"}},
        {"usage": "much", "choices": [{"finish_reason": 7}]},
    ],
)
def test_a_200_that_holds_no_reply_is_a_failed_try(shard, server, body):
    server.script = in_turn(JSONResponse(body), JSONResponse(body))
    assert [answer.terminal for answer in shard.ask(shard.units(1)).values()] == [None]
    assert shard.replies[0]["attempts"] == 3


def test_a_model_whose_replies_are_all_unusable_is_left_alone_and_its_units_stay_pending(shard, server):
    server.script = lambda number, body: completion("I like turtles.")
    shard.question = filter_template("Decide.", shard.model.model_copy(update={"concurrency": 2}))
    assert shard.ask(*([unit] for unit in shard.units(30))) == {}
    why = shard.gateway.usage.unavailable["t"]
    assert "hold no usable answer" in why and "I like turtles." in why
    assert len(server.requests) < 20, "it is not paid for thirty units"


def test_a_model_that_turns_bad_loses_a_bounded_share(shard, server):
    shard.question = filter_template("Decide.", shard.model.model_copy(update={"concurrency": 1, "repairs": 0}))
    server.script = lambda number, body: reply(body) if number <= 30 or is_canary(body) else completion("no")
    answers = shard.ask(*([unit] for unit in shard.units(200)))
    lost = [answer for answer in answers.values() if answer.terminal]
    assert 0 < len(lost) <= 31 and len(answers) < 100
    assert "hold no usable answer" in shard.gateway.usage.unavailable["t"]


def test_a_null_error_beside_the_choices_is_none(shard, server):
    def script(number, body):
        plain = json.loads(reply(body).body)
        return JSONResponse({"error": None, **plain})

    server.script = script
    assert [answer.terminal for answer in shard.ask(shard.units(2)).values()] == [None, None]


def test_a_cut_reply_gets_more_room(shard, server):
    cut = completion(verdicts((1, 2))[:40], finish="length", usage=(100, 2000))
    server.script = in_turn(cut)
    assert len(shard.ask(shard.units(2))) == 2
    assert [body["max_tokens"] for body in server.requests] == [2000, 4000]
    assert all(len(body["messages"][0]["content"]) == 2 for body in server.requests), (
        "it was not wrong, it was too long"
    )
    assert [kept["ceiling"] for kept in shard.replies] == [ceiling(shard, 2, room=room) for room in (2000, 4000)]


def test_cut_to_the_last_is_terminal(shard, server):
    server.script = lambda number, body: (
        reply(body) if is_canary(body) else completion('{"verdicts": [', finish="length")
    )
    (answer,) = shard.ask(shard.units(1)).values()
    assert answer.terminal == Reason.MALFORMED
    assert "not JSON" in answer.detail
    assert [body["max_tokens"] for body in server.requests] == [2000, 4000, 4000, 4000, 2000]


def too_long(most, words="maximum context length is {} tokens. However, you requested {} tokens"):
    """A server whose context holds ``most`` tokens: 100 a unit, and the reply's room."""

    def script(number, body):
        needed = 100 * len(asked(body)) + body["max_tokens"]
        return failure(400, words.format(most, needed)) if needed > most else reply(body)

    return script


@pytest.mark.parametrize(("most", "size", "room"), [(2500, 5, 2000), (1200, 1, 1000), (400, 1, 250)])
def test_what_is_too_long_is_asked_with_fewer_units_and_then_less_room(shard, server, most, size, room):
    server.script = too_long(most)
    units = shard.units(10)
    answers = shard.ask(units)
    assert [answers[unit.key].terminal for unit in units] == 10 * [None]
    served = [body for body in server.requests if 100 * len(asked(body)) + body["max_tokens"] <= most]
    assert max(len(asked(body)) for body in served) == size
    assert max(body["max_tokens"] for body in served) == room
    before = len(server.requests)
    shard.gateway = Gateway()
    shard.ask(*([unit] for unit in shard.units(14)[10:]))
    assert len(server.requests) - before < 4 * 6, "what was learnt is remembered"


def test_a_cut_reply_whose_double_room_is_refused_is_no_refusal(shard, server):
    def script(number, body):
        if is_canary(body):
            return reply(body)
        return (
            failure(400, "max_tokens is too large: 4000. This model supports at most 3000 completion tokens")
            if (body["max_tokens"] > 3000)
            else completion('{"verdicts": [', finish="length")
        )

    server.script = script
    (answer,) = shard.ask(shard.units(1)).values()
    assert answer.terminal == Reason.MALFORMED
    assert [body["max_tokens"] for body in server.requests][:3] == [2000, 4000, 3000]


def test_what_is_too_long_even_by_itself_is_rejected_so(shard, server):
    server.script = lambda number, body: reply(body) if is_canary(body) else failure(400, "prompt is too long")
    (answer,) = shard.ask(shard.units(1)).values()
    assert answer.terminal == Reason.TOO_LONG


def test_of_a_cut_reply_what_is_whole_is_kept(shard, server):
    whole = verdicts((1, 2, 3))
    server.script = in_turn(completion(whole[: whole.rindex("number 3")], finish="length"))
    answers = shard.ask(shard.units(3))
    assert [answer.value["reason"] for answer in answers.values()] == ["number 1", "number 2", "number 1"]
    assert [asked(body) for body in server.requests] == [["a~0", "a~1", "a~2"], ["a~2"]]


REFUSALS = {
    "refusal": lambda: completion(None, refusal="I cannot help with that."),
    "content filter": lambda: completion("", finish="content_filter"),
    "content filter, in Google's words": lambda: completion(None, finish="PROHIBITED_CONTENT"),
    "content filter, and no message": lambda: JSONResponse({"choices": [{"finish_reason": "content_filter"}]}),
    "400 by a filter": lambda: failure(400, "flagged by our safety system", code="content_filter"),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_refusal_of_one_unit_is_its_answer(shard, server, kind):
    server.script = lambda number, body: reply(body) if is_canary(body) else REFUSALS[kind]()
    (answer,) = shard.ask(shard.units(1)).values()
    assert (answer.value, answer.terminal) == (None, Reason.REFUSED)
    assert answer.detail
    assert len([body for body in server.requests if not is_canary(body)]) == 1, "asking again would not help"


@pytest.mark.parametrize("kind", REFUSALS)
def test_of_a_request_that_is_refused_each_unit_is_asked_by_itself(shard, server, kind):
    server.script = lambda number, body: REFUSALS[kind]() if "a~1" in asked(body) else reply(body)
    units = shard.units(3)
    answers = shard.ask(units)
    assert [answers[unit.key].terminal for unit in units] == [None, Reason.REFUSED, None]
    sent = [asked(body) for body in server.requests if not is_canary(body)]
    assert sent == [["a~0", "a~1", "a~2"], ["a~0"], ["a~1"], ["a~2"]]


def test_a_refusals_text_is_fit_for_a_table(shard, server):
    refused = '{"choices": [{"message": {"refusal": "no\\ud800\\u202e\\u0000 way"}}]}'
    server.script = lambda number, body: (
        reply(body) if is_canary(body) else Response(refused, media_type="application/json")
    )
    (answer,) = shard.ask(shard.units(1)).values()
    assert answer.detail == "no way"


def test_a_400_of_a_model_that_works_is_the_units_answer(shard, server):
    server.script = lambda number, body: failure(400, "bad image") if "a~1" in asked(body) else reply(body)
    units = shard.units(2)
    shard.question = filter_template("Decide.", shard.model.model_copy(update={"concurrency": 1}))
    answers = shard.ask([units[0]], [units[1]])
    assert answers[units[1].key].terminal == Reason.REFUSED
    assert "bad image" in answers[units[1].key].detail
    assert len(server.requests) == 2, "the other's answer is evidence enough"
    assert shard.ledger.spent().cost == 100 * 2500 + 20 * 10_000, "an error is not billed"


@pytest.mark.parametrize("status", [400, 403, 422])
def test_a_refusal_before_anything_was_served_is_settled_by_a_canary(shard, server, status):
    server.script = lambda number, body: failure(status, "no") if "a~0" in asked(body) else reply(body)
    units = shard.units(1)
    assert shard.ask(units)[units[0].key].terminal == Reason.REFUSED
    assert [is_canary(body) for body in server.requests] == [False, True]
    (sent,) = (part["image_url"]["url"] for part in server.requests[1]["messages"][-1]["content"][1:])
    assert sent == "data:,canary"
    for field in ("model", "temperature", "max_tokens", "response_format"):
        assert server.requests[0][field] == server.requests[1][field], "the form is the same"
    assert shard.gateway.usage.unavailable == {}


def test_a_canary_that_meets_a_passing_failure_is_asked_again(shard, server):
    def script(number, body):
        if is_canary(body):
            return Response('{"choices": [{"mess', media_type="application/json") if number == 2 else reply(body)
        return failure(400, "no") if "a~0" in asked(body) else reply(body)

    server.script = script
    units = shard.units(1)
    assert shard.ask(units)[units[0].key].terminal == Reason.REFUSED
    assert [is_canary(body) for body in server.requests] == [False, True, True]
    assert shard.gateway.usage.unavailable == {}


def test_a_canary_fits_a_short_context(shard, server):
    long = too_long(1200)
    server.script = lambda number, body: failure(403, "no") if "a~0" in asked(body) else long(number, body)
    units = shard.units(1)
    assert shard.ask(units)[units[0].key].terminal == Reason.REFUSED
    assert [body["max_tokens"] for body in server.requests if is_canary(body)] == [2000, 1000]
    assert shard.gateway.usage.unavailable == {}


def test_a_refused_canary_is_our_mistake_and_says_what_it_was_told(shard, server):
    server.script = lambda number, body: failure(400, "At most 0 image(s) may be provided in one prompt.")
    shard.question = filter_template("Decide.", shard.model.model_copy(update={"concurrency": 1}))
    assert shard.ask(*([unit] for unit in shard.units(4))) == {}
    assert len(server.requests) <= 3
    assert "refuses a plain picture, too: At most 0 image(s)" in shard.gateway.usage.unavailable["t"]


# What no other request would mend


@pytest.mark.parametrize("status", [401, 402, 404, 405])
@pytest.mark.parametrize("served", [0, 1])
def test_a_fatal_answer_stops_the_model_at_once(shard, server, slept, status, served):
    server.script = in_turn(*[reply] * served, *[failure(status, "go away")] * 9)
    shard.question = filter_template("Decide.", shard.model.model_copy(update={"concurrency": 1}))
    assert len(shard.ask(*([unit] for unit in shard.units(6)))) == served
    assert len(server.requests) == served + 1
    assert slept == []
    why = shard.gateway.usage.unavailable["t"]
    for part in (server.url, str(status), "go away", "'m'", "OPENAI_API_KEY"):
        assert part in why
    assert shard.ledger.spent().cost == served * (100 * 2500 + 20 * 10_000)


def test_a_model_without_schemas_is_asked_without(shard, server):
    server.script = lambda number, body: (
        failure(400, "response_format json_schema is not supported")
        if body.get("response_format", {}).get("type") == "json_schema"
        else reply(body)
    )
    shard.question = filter_template("Decide.", shard.model.model_copy(update={"concurrency": 1}))
    assert len(shard.ask(*([unit] for unit in shard.units(5)))) == 5
    asked_for = [body["response_format"]["type"] for body in server.requests]
    assert asked_for.count("json_object") == 5 and asked_for[-3:] == ["json_object"] * 3, "found out once"


def test_a_model_without_any_structure_is_asked_for_text(shard, server):
    server.script = lambda number, body: (
        failure(400, "unknown field: response_format") if "response_format" in body else reply(body)
    )
    assert len(shard.ask(shard.units(1))) == 1
    assert [body.get("response_format", {}).get("type") for body in server.requests] == [
        "json_schema",
        "json_schema",
        "json_object",
        None,
    ]


@pytest.mark.parametrize("parameter", ["temperature", "top_p", "seed", "reasoning_effort"])
def test_a_parameter_that_a_model_does_not_take_is_left_out_found_out_once(shard, server, parameter):
    told = f"Unsupported value: '{parameter}' is not supported with this model."
    server.script = lambda number, body: failure(400, told, param=parameter) if parameter in body else reply(body)
    update = {"concurrency": 1, "top_p": 0.5, "seed": 3, "reasoning_effort": "low"}
    shard.question = filter_template("Decide.", shard.model.model_copy(update=update))
    assert len(shard.ask(*([unit] for unit in shard.units(3)))) == 3
    assert [parameter in body for body in server.requests] == [True, False, False, False]
    assert shard.replies[0]["note"] == {"left_out": [parameter]}


def test_a_model_that_names_its_room_otherwise_is_told_it_so(shard, server):
    told = "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    server.script = lambda number, body: failure(400, told, param="max_tokens") if "max_tokens" in body else reply(body)
    assert len(shard.ask(shard.units(1))) == 1
    assert server.requests[1]["max_completion_tokens"] == shard.model.max_tokens


def test_further_settings_are_sent_and_are_part_of_the_key(shard, server, monkeypatch):
    monkeypatch.setenv("TENANT", "blue")
    more = {"extra_body": {"top_k": 5}, "stop": ("END",), "headers": {"X-Tenant": "${TENANT}"}}
    plain = shard.units(1)
    shard.question = filter_template("Decide.", shard.model.model_copy(update=more))
    (unit,) = shard.units(1)
    shard.ask([unit])
    assert (server.requests[0]["top_k"], server.requests[0]["stop"]) == (5, ["END"])
    assert server.headers[0]["x-tenant"] == "blue"
    assert unit.key != plain[0].key
    shard.question = filter_template("Decide.", shard.model.model_copy(update={"headers": {"X-A": "b"}}))
    assert shard.units(1)[0].key == plain[0].key, "headers change no answer"


def test_a_missing_key_is_named_before_anything_is_sent(shard, server, monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    real = shard.model.model_copy(update={"simulated": False, "api_key_env": "NO_SUCH_KEY"})
    shard.question = filter_template("Decide.", real)
    assert shard.ask(shard.units(1)) == {}
    assert server.requests == []
    assert "NO_SUCH_KEY holds no key" in shard.gateway.usage.unavailable["t"]


def test_a_lost_lease_sends_nothing(shard, server):
    def lost():
        raise LeaseLostError("gone")

    shard.check = lost
    with pytest.raises(LeaseLostError):
        shard.ask(shard.units(1))
    assert server.requests == []
    assert shard.ledger.spent().calls == 0


def test_a_spent_budget_sends_nothing_more(tmp_path, server, slept):
    shard = ImageShard(tmp_path, server.url, calls=2, concurrency=1)
    with pytest.raises(BudgetError, match=r"2 calls of 2 \(budget\.max_calls\)"):
        shard.ask(*([unit] for unit in shard.units(3)))
    assert len(server.requests) == 2
    assert len(shard.journal.answers) == 2


# Costs


def test_costs_are_tokens_at_the_price(shard, server):
    usages = [(0, 0), (1, 0), (0, 1), (123_456, 789)]
    costs = [0, 2500, 10_000, 123_456 * 2500 + 789 * 10_000]
    server.script = in_turn(*(completion(verdicts((1,)), usage=usage) for usage in usages))
    shard.question = filter_template("Decide.", shard.model.model_copy(update={"concurrency": 1}))
    shard.ask(*([unit] for unit in shard.units(4)))
    assert [kept["cost"] for kept in shard.replies] == costs
    assert shard.gateway.usage.cost == shard.ledger.spent().cost == sum(costs)
    assert shard.ledger.spent().calls == 4


def test_list_prices_are_for_comparison_alone(shard, server):
    free = shard.model.model_copy(update={"price": Price(), "list_price": Price(input=1, output=2)})
    shard.question = filter_template("Decide.", free)
    shard.ask(shard.units(1))
    (kept,) = shard.replies
    assert (kept["cost"], kept["list_cost"], kept["ceiling"]) == (0, 100 * 1000 + 20 * 2000, 0)
    assert shard.ledger.spent().cost == shard.gateway.usage.cost == 0
    assert shard.gateway.usage.list_cost == 140_000


@pytest.mark.parametrize(
    "usage",
    [None, {}, {"prompt_tokens": 5}, {"prompt_tokens": 5, "completion_tokens": None}, [1, 2],
     {"prompt_tokens": -1, "completion_tokens": 2}, {"prompt_tokens": "5", "completion_tokens": "6"}],
)  # fmt: skip
def test_without_its_usage_a_reply_counts_at_its_highest(shard, server, usage):
    def script(number, body):
        plain = json.loads(reply(body).body)
        return JSONResponse({**plain, "usage": usage})

    server.script = script
    shard.ask(shard.units(1))
    (kept,) = shard.replies
    assert kept["cost"] == kept["ceiling"] == ceiling(shard, 1)
    assert shard.ledger.spent().cost == shard.gateway.usage.cost == kept["cost"]


def test_the_ceiling_counts_the_repair_and_every_byte(shard, server):
    server.script = in_turn(completion("no"))
    shard.question = filter_template("Entscheide: paßt es? 漢字", shard.model)
    shard.ask(shard.units(1))
    first, second = shard.replies
    extra = len(server.requests[1]["messages"][0]["content"][-1]["text"].encode())
    assert first["ceiling"] == ceiling(shard, 1)
    assert second["ceiling"] == first["ceiling"] + extra * 2500


def test_a_model_that_costs_more_than_reckoned_is_reckoned_with(shard, server):
    shard.question = filter_template("Decide.", shard.model.model_copy(update={"concurrency": 1}))
    server.script = lambda number, body: completion(verdicts((1,)), usage=(40_000, 0))
    shard.ask(*([unit] for unit in shard.units(3)))
    assert [kept["ceiling"] for kept in shard.replies] == [ceiling(shard, 1), *[40_000 * 2500] * 2]


def test_a_reply_keeps_what_was_cached_and_reasoned_its_run_and_its_task_types(shard, server):
    price = Price(input=2.5, output=10.0, cached=1.25)
    shard.question = filter_template("Decide.", shard.model.model_copy(update={"price": price}))
    details = {"prompt_tokens_details": {"cached_tokens": 60}, "completion_tokens_details": {"reasoning_tokens": 15}}

    def script(number, body):
        plain = json.loads(reply(body).body)
        return JSONResponse({**plain, "usage": {**plain["usage"], **details}})

    server.script = script
    units = shard.units(2)
    shard.ask(units)
    (kept,) = shard.replies
    assert kept["usage"] == {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "cached_tokens": 60,
        "reasoning_tokens": 15,
    }
    assert kept["cost"] == shard.ledger.spent().cost == 40 * 2500 + 60 * 1250 + 20 * 10_000
    assert shard.ledger.spent().tokens == 120
    assert (kept["run"], kept["types"]) == (shard.ledger.run, [unit.item["task_type"] for unit in units])


# Concurrency


def test_requests_in_flight_are_bounded_and_used(shard, server):
    gate = []

    async def script(number, body):
        # Nobody is answered before as many are there as may be: waiting for more would never end.
        gate.append(number)
        while len(gate) < 3:
            await asyncio.sleep(0.001)
        return reply(body)

    server.script = script
    shard.question = filter_template("Decide.", shard.model.model_copy(update={"concurrency": 3}))
    assert len(shard.ask(*([unit] for unit in shard.units(20)))) == 20
    assert server.most == 3
    assert shard.ledger.spent().calls == 20


def test_a_refused_request_costs_no_try_while_others_are_served(shard, server, monkeypatch):
    def sent(first):
        return sum((asked(body) == ["a~0"]) is first for body in server.requests)

    async def sleep(self, seconds):
        before = sent(first=False)
        while seconds and sent(first=False) == before < 39:
            await asyncio.sleep(0.001)

    monkeypatch.setattr(Clock, "sleep", sleep)
    server.script = lambda number, body: failure(429) if asked(body) == ["a~0"] and sent(True) <= 9 else reply(body)
    shard.question = filter_template("Decide.", shard.model.model_copy(update={"concurrency": 1, "retries": 5}))
    assert len(shard.ask(*([unit] for unit in shard.units(40)))) == 40
    assert sent(first=True) == 10 and server.most == 1, "it has six tries"


def test_a_match_becomes_a_unit_that_the_gateway_can_ask(shard):
    from taskgalaxy_ops.generation.stages.filter import filter_units, filtered

    units = filter_units(shard.question, [Match(IMAGE, f"a~{i}", 0.5, i + 1) for i in range(3)])
    made = filtered(units, shard.ask(units))
    assert (len(made.relevant), made.rejects, made.pending) == (3, [], 0)
