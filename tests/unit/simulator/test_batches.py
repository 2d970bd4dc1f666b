"""The simulated Files and Batch APIs, through the official client as it comes."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import openai
import pytest
from openai.types import Batch

from taskgalaxy_ops.simulator.config import Batches, Faults, SimulatorConfig
from taskgalaxy_ops.simulator.serve import running

URL = "/v1/chat/completions"
Line = dict[str, Any]


def line(number: int, **more: Any) -> Line:
    block = {"request": "expand", "kind": "level1", "path": "", "existing": [], "count": 3, "round": number}
    messages = [{"role": "user", "content": f"```json\n{json.dumps(block)}\n```"}]
    body = {"model": "sim-teacher", "messages": messages}
    return {"custom_id": f"unit-{number}", "method": "POST", "url": URL, "body": body, **more}


class Client:
    """The official client, and what a user of it writes around."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.api = openai.OpenAI(base_url=url, api_key="key", max_retries=0)

    def upload(self, lines: Sequence[Line] | bytes, name: str = "input.jsonl") -> str:
        raw = lines if isinstance(lines, bytes) else "".join(json.dumps(line) + "\n" for line in lines).encode()
        return self.api.files.create(file=(name, raw), purpose="batch").id

    def submit(self, lines: Sequence[Line] | bytes, **metadata: str) -> Batch:
        file = self.upload(lines)
        return self.api.batches.create(
            input_file_id=file, endpoint=URL, completion_window="24h", metadata=metadata or None
        )

    def until(self, id: str, met: Callable[[Batch], bool]) -> Batch:
        give_up = time.monotonic() + 60
        while not met(batch := self.api.batches.retrieve(id)):
            assert time.monotonic() < give_up, batch
            time.sleep(0.01)
        return batch

    def ended(self, id: str) -> Batch:
        return self.until(id, lambda batch: batch.status in {"completed", "failed", "expired", "cancelled"})

    def run(self, lines: Sequence[Line] | bytes) -> Batch:
        return self.ended(self.submit(lines).id)

    def lines(self, file: str | None) -> list[Line]:
        return [json.loads(line) for line in self.api.files.content(file or "").text.splitlines()] if file else []

    def control(self, **changes: Any) -> None:
        where = self.url.removesuffix("/v1") + "/control"
        urllib.request.urlopen(where, json.dumps(changes).encode(), timeout=60).close()

    def stats(self) -> dict[str, Any]:
        with urllib.request.urlopen(self.url.removesuffix("/v1") + "/stats", timeout=60) as reply:
            told: dict[str, Any] = json.load(reply)
        return told


@pytest.fixture
def serve() -> Iterator[Callable[..., Client]]:
    from contextlib import ExitStack

    with ExitStack() as stack:

        def start(**config: Any) -> Client:
            client = Client(stack.enter_context(running(SimulatorConfig(**config))))
            stack.callback(client.api.close)
            return client

        yield start


def ids(lines: Sequence[Line]) -> list[str]:
    return [line["custom_id"] for line in lines]


ALL = [line(number) for number in range(20)]


# Files


def test_a_file_is_kept_told_listed_and_deleted(serve: Callable[..., Client]) -> None:
    client = serve()
    first, second = client.upload(b"{}\n"), client.upload(ALL)
    told = client.api.files.retrieve(first)
    assert (told.bytes, told.filename, told.purpose, told.status) == (3, "input.jsonl", "batch", "processed")
    assert client.api.files.content(first).read() == b"{}\n"
    assert [file.id for file in client.api.files.list(limit=1)] == [second, first]  # page by page
    assert [file.id for file in client.api.files.list(order="asc", purpose="batch")] == [first, second]
    assert list(client.api.files.list(purpose="vision")) == []
    assert client.api.files.delete(first).deleted
    with pytest.raises(openai.NotFoundError, match="No such File"):
        client.api.files.content(first)


def test_a_wrong_upload_is_refused(serve: Callable[..., Client]) -> None:
    client = serve(batches=Batches(max_bytes=10))
    assert client.upload(b"0123456789")
    for file, purpose, error in (
        (("a.jsonl", b"01234567890"), "batch", 413),
        (("a.txt", b"{}"), "batch", 400),
        (("a.jsonl", b"{}"), "fine-tune", 400),
    ):
        with pytest.raises(openai.APIStatusError) as refused:
            client.api.files.create(file=file, purpose=purpose)  # type: ignore[arg-type]
        assert refused.value.status_code == error
    with pytest.raises(openai.BadRequestError):
        client.api.post("/files", cast_to=object, body={"purpose": "batch"})


# Batches


def test_a_batch_is_answered_as_chats_are(serve: Callable[..., Client]) -> None:
    client = serve()
    made = client.submit(ALL, run="r1", attempt="2")
    assert made.status in {"validating", "in_progress"} and made.metadata == {"run": "r1", "attempt": "2"}
    batch = client.ended(made.id)
    assert (batch.status, batch.model, batch.error_file_id) == ("completed", "sim-teacher", None)
    assert batch.request_counts and batch.request_counts.to_dict() == {"total": 20, "completed": 20, "failed": 0}
    assert batch.created_at <= (batch.in_progress_at or 0) <= (batch.finalizing_at or 0) <= (batch.completed_at or 0)
    output = client.lines(batch.output_file_id)
    assert sorted(ids(output)) == sorted(ids(ALL)) != ids(output)  # in another order
    for result in output:
        number = int(result["custom_id"].removeprefix("unit-"))
        reply = client.api.chat.completions.create(**line(number)["body"])
        assert result["error"] is None and result["response"]["status_code"] == 200
        told = result["response"]["body"]
        assert told["choices"] == reply.to_dict()["choices"] and told["simulated"] is True and told["usage"]
    assert client.api.files.retrieve(batch.output_file_id or "").purpose == "batch_output"


def test_output_may_come_in_order(serve: Callable[..., Client]) -> None:
    client = serve(batches=Batches(shuffled=False))
    assert ids(client.lines(client.run(ALL).output_file_id)) == ids(ALL)


def test_what_fails_is_in_the_error_file_and_may_go_better_another_time(serve: Callable[..., Client]) -> None:
    client = serve(batches=Batches(failed=0.5))
    first = client.run(ALL)
    failed = client.lines(first.error_file_id)
    assert first.status == "completed" and 3 <= len(failed) <= 17
    assert {result["response"]["status_code"] for result in failed} == {500}
    assert sorted(ids(failed) + ids(client.lines(first.output_file_id))) == sorted(ids(ALL))
    assert first.request_counts and first.request_counts.failed == len(failed)
    assert client.stats()["faults"] == {"server_error": len(failed)}
    assert ids(client.lines(client.run(ALL).error_file_id)) != ids(failed)


def test_a_request_that_is_wrong_fails_alone(serve: Callable[..., Client]) -> None:
    client = serve()
    batch = client.run([line(1), line(2, body={"model": "sim-teacher", "messages": []})])
    assert ids(client.lines(batch.output_file_id)) == ["unit-1"]
    (wrong,) = client.lines(batch.error_file_id)
    assert wrong["response"]["status_code"] == 400 and "messages" in wrong["response"]["body"]["error"]["message"]


def test_where_nothing_succeeds_there_is_no_output_file(serve: Callable[..., Client]) -> None:
    batch = serve(batches=Batches(failed=1)).run(ALL)
    assert (batch.status, batch.output_file_id) == ("completed", None)


def test_the_models_faults_spoil_texts_and_never_connections(serve: Callable[..., Client]) -> None:
    faults = Faults(truncated=0.3, reset=0.3, hang=0.2, rate_limit=0.2)
    batch = (client := serve(faults=faults)).run(ALL)
    finishes = [
        result["response"]["body"]["choices"][0]["finish_reason"] for result in client.lines(batch.output_file_id)
    ]
    assert len(finishes) == 20 and set(finishes) == {"stop", "length"}


def test_an_expired_batch_has_done_a_part(serve: Callable[..., Client]) -> None:
    client = serve(batches=Batches(expired=1, expired_done=0.25))
    batch = client.run(ALL)
    assert batch.status == "expired" and batch.expired_at and not batch.completed_at
    done, rest = client.lines(batch.output_file_id), client.lines(batch.error_file_id)
    assert (len(done), len(rest)) == (5, 15)
    assert sorted(ids(done) + ids(rest)) == sorted(ids(ALL))
    assert {(result["response"], result["error"]["code"]) for result in rest} == {(None, "batch_expired")}
    assert client.stats()["units"]["asked"] == 5


def test_a_batch_takes_its_time_until_control_lets_it_go(serve: Callable[..., Client]) -> None:
    client = serve(batches=Batches(seconds=3600))
    made = client.submit(ALL)
    batch = client.until(made.id, lambda batch: bool(batch.request_counts and batch.request_counts.completed == 20))
    assert (batch.status, batch.output_file_id) == ("in_progress", None)
    client.control(batches={"seconds": 0})
    assert client.ended(made.id).status == "completed"


def test_a_cancelled_batch_keeps_what_was_done(serve: Callable[..., Client]) -> None:
    client = serve(batches=Batches(seconds=3600))
    made = client.submit(ALL)
    client.until(made.id, lambda batch: bool(batch.request_counts and batch.request_counts.completed == 20))
    assert client.api.batches.cancel(made.id).status == "cancelling"
    batch = client.ended(made.id)
    assert batch.status == "cancelled" and batch.cancelled_at
    assert len(client.lines(batch.output_file_id)) == 20
    with pytest.raises(openai.ConflictError, match="status 'cancelled'"):
        client.api.batches.cancel(made.id)


def test_a_batch_cancelled_at_once_tells_of_each_request(serve: Callable[..., Client]) -> None:
    client = serve(batches=Batches(seconds=3600))
    made = client.submit(ALL)
    client.api.batches.cancel(made.id)
    batch = client.ended(made.id)
    done, rest = client.lines(batch.output_file_id), client.lines(batch.error_file_id)
    assert sorted(ids(done) + ids(rest)) == sorted(ids(ALL))
    assert {result["error"]["code"] for result in rest} <= {"batch_cancelled"}


def test_lists_page_show_metadata_and_lag(serve: Callable[..., Client]) -> None:
    client = serve(batches=Batches(list_lag=3600))
    made = [client.submit([line(number)], number=str(number)) for number in range(5)]
    assert list(client.api.batches.list()) == []
    assert client.api.batches.retrieve(made[0].id).id == made[0].id  # by its id it is there
    client.control(batches={"list_lag": 0})
    listed = list(client.api.batches.list(limit=2))
    assert [batch.metadata for batch in listed] == [{"number": str(number)} for number in (4, 3, 2, 1, 0)]
    assert client.stats()["batches"]["created"] == 5


def test_a_creation_whose_reply_is_lost_has_made_its_batch(serve: Callable[..., Client]) -> None:
    client = serve(batches=Batches(lost_reply=1))
    with pytest.raises(openai.APIConnectionError):
        client.submit(ALL, run="r1")
    (batch,) = client.api.batches.list()
    assert batch.metadata == {"run": "r1"}
    assert client.ended(batch.id).status == "completed"


WRONG: dict[str, tuple[Sequence[Line] | bytes, str, int | None]] = {
    "empty": (b"\n", "empty_file", None),
    "too many": (ALL[:4], "too_many_tasks", None),
    "no json": (b"{}{", "invalid_json_line", 1),
    "no object": (b"[]", "invalid_json_line", 1),
    "half a surrogate": (b'{"custom_id": "\\ud800"}', "invalid_json_line", 1),
    "no custom_id": ([line(1), {"method": "POST"}], "missing_required_parameter", 2),
    "twice the same": ([line(1), line(1)], "duplicate_custom_id", 2),
    "other method": ([line(1, method="GET")], "invalid_method", 1),
    "other url": ([line(1, url="/v1/embeddings")], "url_mismatch", 1),
    "two models": ([line(1), line(2, body={"model": "sim-judge-a"})], "model_mismatch", None),
}


@pytest.fixture(scope="module")
def strict() -> Iterator[Client]:
    with running(SimulatorConfig(batches=Batches(max_requests=3))) as url:
        yield Client(url)


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_cannot_be_read_fails_its_batch(strict: Client, case: str) -> None:
    lines, code, number = WRONG[case]
    batch = strict.run(lines)
    assert batch.status == "failed" and batch.failed_at and batch.output_file_id is None
    assert batch.errors and batch.errors.data
    assert (batch.errors.data[0].code, batch.errors.data[0].line) == (code, number)


def test_a_wrong_creation_is_refused(strict: Client) -> None:
    file = strict.upload(ALL[:2])
    create: Any = strict.api.batches.create
    good = {"input_file_id": file, "endpoint": URL, "completion_window": "24h"}
    for change, named in (
        ({"endpoint": "/v1/embeddings"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"metadata": {str(number): "x" for number in range(17)}}, "metadata"),
        ({"metadata": {"long": "x" * 513}}, "metadata"),
    ):
        with pytest.raises(openai.BadRequestError, match=named):
            create(**{**good, **change})
    assert strict.ended(create(**{**good, "input_file_id": "file-none"}).id).status == "failed"
    with pytest.raises(openai.NotFoundError):
        strict.api.batches.retrieve("batch_none")
    with pytest.raises(openai.BadRequestError, match="limit"):
        strict.api.batches.list(limit=101)
    with pytest.raises(openai.BadRequestError, match="after"):
        strict.api.batches.list(after="batch_none")


def test_files_and_batches_ask_for_the_key(serve: Callable[..., Client]) -> None:
    client = serve(api_key="secret")
    for ask in (client.api.files.list, client.api.batches.list, lambda: client.upload(ALL)):
        with pytest.raises(openai.AuthenticationError):
            ask()
