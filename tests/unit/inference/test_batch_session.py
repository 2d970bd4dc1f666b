"""Batch mode: what a run through the Batch API leaves is what chats leave, and nothing is submitted twice."""

from __future__ import annotations

import contextlib
import json
import logging
import traceback
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import openai
import pytest
from fakes import KilledError, MemoryStore
from PIL import Image
from tiny import tiny_seeds, tiny_settings, tiny_workspace

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.errors import PendingError
from taskgalaxy_ops.generation.run import RunResult
from taskgalaxy_ops.inference import batch_room, batch_session
from taskgalaxy_ops.models import batch_api
from taskgalaxy_ops.models.http import Outcome, refused
from taskgalaxy_ops.operations.forget import forget
from taskgalaxy_ops.operations.takedown import left, take_down
from taskgalaxy_ops.records import LOST, Answer, Reason
from taskgalaxy_ops.settings import Model, Settings, parse_settings
from taskgalaxy_ops.simulator.config import Batches, Faults, SimulatorConfig
from taskgalaxy_ops.simulator.serve import running
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.storage.ledger import Caps, Ledger
from taskgalaxy_ops.storage.log import Log
from taskgalaxy_ops.taxonomy.expand import Growth, expand
from taskgalaxy_ops.workspace import Workspace

TYPES = tuple(
    f"colour~{path}"
    for path in (
        "main colours~dominant colour identification",
        "main colours~background colour identification",
        "colour properties~warm or cool palette",
        "colour properties~greyscale or colour",
    )
)
CANARY, WRONG = "sk-canary-4c1d77", "sk-canary-of-nobody"
PRICE = {"input": 1.0, "output": 2.0}
QUICK = {"poll_seconds": 0.02, "lookup_seconds": 0}


class Provider:
    """The simulated models, and their counts."""

    def __init__(self, url: str, key: str = "any") -> None:
        self.url = url
        self.key = key
        self.before: Mapping[str, int] = {}

    def _ask(self, path: str, method: str = "GET", data: bytes | None = None) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.key}"}
        request = urllib.request.Request(self.url.removesuffix("/v1") + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as reply:
            told: dict[str, Any] = json.load(reply)
        return told

    def control(self, **changes: Any) -> None:
        self._ask("/control", "POST", json.dumps(changes).encode())

    def anew(self) -> None:
        """Well, and with counts of nothing."""
        self.control(batches=Batches().model_dump(), faults=Faults().model_dump())
        self._ask("/stats", "DELETE")
        self.before = self._ask("/stats")["batches"]

    def stats(self) -> dict[str, Any]:
        return self._ask("/stats")

    @property
    def batches(self) -> tuple[int, int]:
        """How many were made, and of how many requests."""
        now = self._ask("/stats")["batches"]
        return now["created"] - self.before["created"], now["requests"] - self.before["requests"]


@pytest.fixture(scope="module")
def server() -> Iterator[Provider]:
    with running(SimulatorConfig()) as url:
        yield Provider(url)


@pytest.fixture
def provider(server: Provider) -> Provider:
    server.anew()
    return server


class Place:
    """A store and the images that it holds, asked by batch or by chat."""

    def __init__(self, folder: Path, url: str, images: int = 2) -> None:
        self.folder = folder / "images"
        self.folder.mkdir(parents=True)
        for number, colour in enumerate([(200, 20, 20), (20, 20, 200), (20, 160, 20)][:images]):
            Image.new("RGB", (64, 64), colour).save(self.folder / f"{number}.png")
        self.url = url
        self.store = MemoryStore()
        self.write: dict[str, Any] = {"variants": ["plain"]}
        workspace = self.open("chat")
        pipeline.ingest(workspace, "mine")

    def settings(self, mode: str, run: Mapping[str, Any] | None = None, **changes: Any) -> Settings:
        def model(name: str) -> dict[str, Any]:
            told = {"name": name, "base_url": self.url, "model": name, "simulated": True, "price": PRICE}
            return {
                **told,
                "mode": mode,
                "image_side": 64,
                "retries": 1,
                "patience_seconds": 5,
                "repairs": 4,
                "api_key_env": "CANARY_KEY",
            }

        return tiny_settings(
            self.folder,
            teacher=model("sim-teacher"),
            judges=[model(f"sim-judge-{letter}") for letter in "abc"],
            taxonomy={"seeds": str(tiny_seeds(self.folder.parent / "seeds.yaml", TYPES))},
            budget={"max_cost": 100.0, "max_calls": None},
            run={"batch": {**QUICK, **(run or {})}, "lease_seconds": 5, "homes_at_once": 1},
            **{"write": self.write, **changes},
        )

    def open(self, mode: str = "batch", **run: Any) -> Workspace:
        return tiny_workspace(self.settings(mode, run), self.store)

    def run(self, mode: str = "batch", last_stage: str = "vote", **run: Any) -> RunResult:
        return pipeline.generate(self.open(mode, **run), pipeline.RunOptions(last_stage=last_stage))

    def answers(self) -> dict[str, Answer]:
        workspace = self.open()
        return {
            unit: answer
            for shard in workspace.journals()
            for unit, answer in Journal(self.store, shard).answers.items()
        }

    def spent(self) -> tuple[int, int, int]:
        return Ledger(self.store, Caps()).spent().to_json()

    def billed(self) -> tuple[int, int]:
        """What the journals say that replies cost, and how many tokens they took."""
        found = [reply for shard in self.open().journals() for reply in Journal(self.store, shard).replies()]
        return sum(r["cost"] for r in found), sum(
            r["usage"].get("prompt_tokens", 0) + r["usage"].get("completion_tokens", 0) for r in found
        )


@pytest.fixture
def place(tmp_path: Path, provider: Provider) -> Place:
    return Place(tmp_path / "batch", provider.url)


def chatted(tmp_path: Path, provider: Provider, **options: Any) -> Place:
    """The same by chat, on a provider that counts anew afterwards."""
    other = Place(tmp_path / "chat", provider.url)
    assert other.run("chat", **options).pending == 0
    return other


def test_a_run_by_batch_comes_to_what_chats_come_to_at_half_the_price(
    place: Place, provider: Provider, tmp_path: Path
) -> None:
    result = place.run()
    assert result.pending == 0, result.reasons
    stats = provider.stats()
    assert provider.batches[1] == stats["requests"] == result.usage.calls
    assert stats["asked_again"] == []
    assert set(stats["units"]["by_stage"]) == {"filter", "write", "vote"}
    other = chatted(tmp_path, provider)
    assert place.answers() == other.answers()
    assert place.billed()[1] == other.billed()[1]
    assert place.billed()[0] == pytest.approx(other.billed()[0] / 2, abs=result.usage.calls)
    assert place.spent() == (place.billed()[0], result.usage.calls, place.billed()[1])
    before = provider.stats()["requests"]
    assert place.run().pending == 0
    assert provider.stats()["requests"] == before


def test_each_reply_of_a_batch_is_read_in_the_form_that_was_asked_for(
    place: Place, provider: Provider, tmp_path: Path
) -> None:
    other = Place(tmp_path / "chat", provider.url)
    for each in (place, other):
        each.write = {"variants": ["multiple_choice", "plain", "yes_no"], "answers": 2}
    assert place.run(last_stage="write").pending == other.run("chat", last_stage="write").pending == 0
    assert place.answers() == other.answers()
    read = {field for answer in place.answers().values() for field in answer.value or {}}
    assert {"wrong_1", "question_yes", "reasoning"} <= read
    assert {"answer"} in [set(answer.value or {}) for answer in place.answers().values()], "a further answer"


def test_what_failed_expired_or_was_malformed_alone_is_asked_again(
    place: Place, provider: Provider, tmp_path: Path
) -> None:
    provider.control(
        batches={"failed": 0.2, "expired": 0.3}, faults={"malformed": 0.1, "truncated": 0.1, "duplicated": 0.1}
    )
    result = place.run()
    while result.pending:  # a run gives up what was lost too often
        result = place.run()
    assert provider.stats()["answered_again"] == 0, "what was answered stands"
    provider.anew()
    mine, theirs = place.answers(), chatted(tmp_path, provider).answers()
    ended = {Reason(answer.terminal) for answer in mine.values() if answer.terminal}
    assert ended <= set(LOST), "the provider draws its faults by nonces: chance may end some, and says so"
    if ended:  # a vote that is lost lets the third judge be asked; a pair that is lost is not voted on
        mine = {unit: answer for unit, answer in mine.items() if not answer.terminal and unit in theirs}
        theirs = {unit: theirs[unit] for unit in mine}
    assert mine == theirs, "by batch and by chat the answers are the same"
    assert len(mine) > 7
    assert place.spent()[::2] == place.billed()


def test_refused_units_are_found_out_and_answered_for_good(place: Place, provider: Provider, tmp_path: Path) -> None:
    provider.control(faults={"refusal": 0.3})
    assert place.run().pending == 0
    other = Place(tmp_path / "chat", provider.url)
    assert other.run("chat").pending == 0
    mine, theirs = place.answers(), other.answers()
    assert {unit: (answer.value, answer.terminal) for unit, answer in mine.items()} == {
        unit: (answer.value, answer.terminal) for unit, answer in theirs.items()
    }
    assert any(answer.terminal for answer in mine.values())


def test_a_run_that_does_not_wait_says_what_is_under_way_and_the_next_collects(
    place: Place, provider: Provider
) -> None:
    provider.control(batches={"seconds": 3600})
    first = place.run(wait_seconds=0)
    assert first.pending
    assert any("request items in batch batch_" in reason and "run again" in reason for reason in first.reasons)
    held = place.spent()
    assert held[1] == first.usage.requests > 0 == place.billed()[0]
    made = provider.batches
    again = place.run(wait_seconds=0)
    assert (again.usage.requests, provider.batches) == (0, made)
    assert place.run("chat", wait_seconds=0).usage.requests == 0  # who asks by chat now may not ask for it either
    assert place.spent() == held
    provider.control(batches={"seconds": 0})
    assert place.run().pending == 0
    assert provider.stats()["asked_again"] == []
    assert place.spent()[::2] == place.billed()


@pytest.mark.parametrize("fused", [True, False])
def test_a_batch_counts_in_full_where_both_questions_are_asked_otherwise_when_it_ends(
    place: Place, provider: Provider, tmp_path: Path, fused: bool
) -> None:
    def run(fused: bool, **run: Any) -> RunResult:
        settings = place.settings("batch", run, write={"fused": fused})
        return pipeline.generate(tiny_workspace(settings, place.store))

    provider.control(batches={"seconds": 3600})
    assert run(fused, wait_seconds=0).pending
    provider.control(batches={"seconds": 0})
    result = run(not fused)
    assert result.pending == 0, result.reasons
    asked = set(provider.stats()["units"]["by_stage"])
    assert asked == ({"filter and write", "vote"} if fused else {"filter", "write", "vote"})
    provider.anew()
    assert place.answers() == chatted(tmp_path, provider).answers()


def test_a_provider_that_is_away_is_not_awaited_for_good(
    place: Place, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> Any:
        raise batch_api.NoReplyError("nobody is there", heard=True)

    provider.control(batches={"seconds": 3600})
    assert place.run(wait_seconds=0).pending
    with monkeypatch.context() as patched:
        patched.setattr(batch_api, "_once", away)
        result = place.run()
    assert result.pending and "nobody is there" in result.reasons
    assert any("under way: run again" in reason for reason in result.reasons)
    provider.control(batches={"seconds": 0})
    assert place.run().pending == 0
    assert provider.stats()["asked_again"] == []


def test_a_batch_whose_making_was_not_heard_of_is_found_though_the_list_lags(place: Place, provider: Provider) -> None:
    provider.control(batches={"lost_reply": 1, "list_lag": 3600})
    first = place.run(last_stage="filter", wait_seconds=0, lookup_seconds=600)
    assert first.pending and any("may not have been made" in reason for reason in first.reasons)
    made = provider.batches
    place.run(last_stage="filter", wait_seconds=0, lookup_seconds=600)
    assert provider.batches == made
    provider.control(batches={"list_lag": 0})
    assert place.run(last_stage="filter", lookup_seconds=600).pending == 0
    assert provider.stats()["asked_again"] == []


def test_a_batch_that_was_never_made_is_made_anew_once_it_was_looked_for_long_enough(
    place: Place, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dead(*_: Any) -> str:
        raise batch_api.NoReplyError("gone", heard=True)

    with monkeypatch.context() as patched:
        patched.setattr(batch_api.Batches, "make", dead)
        assert place.run(last_stage="filter", wait_seconds=0, lookup_seconds=600).pending
    assert place.run(last_stage="filter", wait_seconds=0, lookup_seconds=600).usage.requests == 0
    assert provider.batches == (0, 0)
    assert place.run(last_stage="filter").pending == 0
    assert provider.stats()["asked_again"] == []
    assert place.spent()[::2] == place.billed()


def test_batches_keep_within_requests_and_bytes(place: Place, provider: Provider) -> None:
    assert place.run(last_stage="filter", max_requests=1).pending == 0
    assert provider.batches == (2, 2)
    forget(place.open(), model="sim-teacher", dry_run=False)
    assert place.run(last_stage="filter", max_bytes=2000).pending == 0
    assert provider.batches == (4, 4)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full queue is asked again at once."""
    monkeypatch.setattr(batch_session, "_CROWDED_SECONDS", 0.0)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("refusal", ["429", "400", "failed"])
def test_a_full_queue_is_waited_for_in_smaller_batches(
    place: Place, provider: Provider, tmp_path: Path, refusal: str
) -> None:
    provider.control(batches={"enqueued_requests": 1, "enqueued_refusal": refusal, "seconds": 0.1})
    result = place.run()
    assert (result.pending, result.reasons) == (0, [])
    stats = provider.stats()
    assert (stats["asked_again"], provider.batches[1]) == ([], stats["requests"]), "nothing was paid for twice"
    assert place.spent() == (place.billed()[0], result.usage.calls, place.billed()[1]), "what was refused cost nothing"
    other = chatted(tmp_path, provider)
    assert place.answers() == other.answers()


@pytest.mark.usefixtures("patient")
def test_a_queue_that_others_fill_is_waited_for(place: Place, provider: Provider) -> None:
    provider.control(batches={"enqueued_requests": 0, "enqueued_refusal": "429"})
    first = place.run(wait_seconds=0)
    assert first.pending and not first.usage.unavailable
    assert any("wait for room in its queue" in reason for reason in first.reasons)
    assert place.spent() == (0, 0, 0)
    provider.control(batches={"enqueued_requests": None})
    assert place.run().pending == 0
    assert provider.stats()["asked_again"] == []


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("refusal", ["429", "failed"])
def test_a_queue_that_never_has_room_ends_the_run_with_a_reason(
    place: Place, provider: Provider, monkeypatch: pytest.MonkeyPatch, refusal: str
) -> None:
    monkeypatch.setattr(batch_room, "PATIENCE_SECONDS", 0.0)
    provider.control(batches={"enqueued_requests": 0, "enqueued_refusal": refusal})
    result = place.run()
    assert result.pending
    (why,) = result.usage.unavailable.values()
    assert "no room for a single request" in why and "nqueued token limit reached" in why
    assert place.spent() == (0, 0, 0)


@pytest.mark.usefixtures("patient")
def test_uploads_that_are_refused_for_their_rate_are_tried_later(
    place: Place, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload, refused = batch_api.Batches.upload, iter([True])

    async def once(self: batch_api.Batches, *arguments: Any) -> str:
        if next(refused, False):
            raise batch_api.NoReplyError("429, rate limit", heard=False, crowded=True, wait=0.01)
        return await upload(self, *arguments)

    monkeypatch.setattr(batch_api.Batches, "upload", once)
    result = place.run()
    assert (result.pending, result.usage.gave_up) == (0, {})


def test_how_large_a_batch_may_be_is_found_out_and_forgotten() -> None:
    room = batch_room.BatchRoom()
    assert room.refused("m", 100) and room.most("m") == 50
    room.entered("m", "a")
    assert not room.refused("m", 50) and room.most("m") == 50, "there will be room when ours has ended"
    room.left("m", "a", served=True)
    assert room.most("m") == 100
    assert room.refused("m", 3) and room.most("m") == 1
    assert not room.refused("m", 1) and not room.hopeless("m")


def test_what_was_forgotten_meanwhile_is_asked_again_after_the_batch(place: Place, provider: Provider) -> None:
    assert place.run("chat", "filter").pending == 0
    forget(place.open(), model="sim-teacher", dry_run=False)
    provider.anew()
    provider.control(batches={"seconds": 3600})
    place.run(last_stage="filter", wait_seconds=0)
    workspace = place.open()
    (shard,) = [shard.id for shard in workspace.registry.shards()]
    units = next(iter(Journal(place.store, shard).batches.under_way))
    workspace.edits().forget(shard, {"filter": [units]})
    provider.control(batches={"seconds": 0})
    assert place.run(last_stage="filter").pending == 0
    assert [(each["asked"], each["stage"]) for each in provider.stats()["asked_again"]] == [(2, "filter")]


def test_what_was_forgotten_meanwhile_is_asked_from_the_beginning(place: Place, provider: Provider) -> None:
    provider.control(batches={"seconds": 3600}, faults={"malformed": 1.0})
    place.run(last_stage="filter", wait_seconds=0)
    workspace = place.open()
    (shard,) = [shard.id for shard in workspace.registry.shards()]
    units = Journal(place.store, shard).batches.under_way
    forgotten = min(units)
    workspace.edits().forget(shard, {"filter": [forgotten]})
    provider.control(batches={"seconds": 0})
    place.run(last_stage="filter", wait_seconds=0)
    journal = Journal(place.store, shard)
    again = journal.batches.again
    assert again.keys() == units - {forgotten} - journal.answers.keys() != set(), "some replies spoil one entry alone"
    assert {told["round"] for told in again.values()} == {1}


def test_nothing_is_kept_of_an_image_that_was_taken_down_meanwhile(place: Place, provider: Provider) -> None:
    provider.control(batches={"seconds": 3600})
    place.run(last_stage="filter", wait_seconds=0)
    workspace = place.open()
    (shard,) = workspace.registry.shards()
    gone = workspace.registry.image_ids(shard)[0]
    take_down(workspace, [gone])
    journal = Journal(place.store, shard.id)
    assert gone not in json.dumps(list(journal.batches.open.values()))
    provider.control(batches={"seconds": 0})
    assert place.run(last_stage="filter").pending == 0
    assert list(left(place.open())) == []
    Journal(place.store, shard.id).compact()
    assert gone not in json.dumps([dict(reply) for reply in Journal(place.store, shard.id).replies()])
    assert place.spent()[::2] == place.billed()
    assert provider.stats()["asked_again"] == []


def test_a_batch_about_more_images_than_a_model_takes_leaves_its_units_pending(
    place: Place, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write = {"variants": ["several_images"], "suits": {"several_images": []}}
    assert place.run(last_stage="filter").pending == 0

    async def refuse(batches: batch_api.Batches, model: Model, status: batch_api.BatchStatus) -> Mapping[str, Outcome]:
        said = {"error": {"message": "At most 1 image(s) may be provided in one prompt."}}
        return {name: refused(400, said, {}) for name in await served(batches, model, status)}

    served = batch_api.Batches.results
    with monkeypatch.context() as patched:
        patched.setattr(batch_api.Batches, "results", refuse)
        result = place.run()
    assert result.pending > 0 and "takes fewer images in a request than a group has" in result.reasons[0]
    assert all(not shard.stages["write"].counts.rejects for shard in result.shards if shard.stages["write"].counts)
    assert place.run().pending == 0
    (journal,) = (Journal(place.store, shard.id) for shard in place.open().registry.shards())
    assert {len(reply.get("further_images", ())) for reply in journal.replies() if reply["stage"] == "write"} == {1}


def test_an_expansion_waits_for_its_batches(place: Place, provider: Provider) -> None:
    provider.control(batches={"seconds": 3600})
    with pytest.raises(PendingError, match="request items in batch batch_") as raised:
        expand(place.open(), Growth(max_new=3), wait=False)
    assert [batch.model.name for batch in raised.value.waiting] == ["sim-teacher"]
    provider.control(batches={"seconds": 0})
    assert len(expand(place.open(), Growth(max_new=3)).added) == 3
    assert provider.stats()["asked_again"] == []


def test_a_batch_that_a_run_would_not_collect_is_not_waited_for(place: Place, provider: Provider) -> None:
    """The budget ends before its stage is asked; the batch has ended, and would be looked at for ever."""
    place.run("chat", last_stage="write")
    provider.control(batches={"seconds": 3600})
    assert place.run(wait_seconds=0).waiting
    provider.control(batches={"seconds": 0})
    forget(place.open(), model="sim-teacher", dry_run=False)
    settings = place.settings("chat")
    spent = settings.model_copy(update={"budget": settings.budget.model_copy(update={"max_calls": 1})})
    result = pipeline.generate(tiny_workspace(spent, place.store))
    assert result.unaffordable and result.pending
    assert result.waiting == []


def test_a_budget_for_one_request_gets_one(place: Place, provider: Provider) -> None:
    settings = place.settings("batch", {"max_requests": 1}).model_copy(
        update={
            "budget": parse_settings(
                {**place.settings("batch").model_dump(mode="json"), "budget": {"max_calls": 1}}
            ).budget
        }
    )
    result = pipeline.generate(tiny_workspace(settings, place.store), pipeline.RunOptions(last_stage="filter"))
    assert result.pending and result.unaffordable
    assert provider.batches == (1, 1)
    assert place.spent()[1] == 1


def test_an_expansion_says_what_it_waits_for_and_goes_on(place: Place, provider: Provider, tmp_path: Path) -> None:
    provider.control(batches={"seconds": 3600})
    for _ in range(2):
        with pytest.raises(PendingError, match=r"sim-teacher: .* request items in batch batch_.*, under way"):
            expand(place.open(wait_seconds=0), Growth(rounds=2))
        assert provider.batches[0] == 1
    provider.control(batches={"seconds": 0})
    grown = expand(place.open(), Growth(rounds=2))
    assert grown.added
    assert provider.stats()["asked_again"] == []
    other = Place(tmp_path / "chat", provider.url)
    assert expand(other.open("chat"), Growth(rounds=2)).added == grown.added


def test_a_provider_without_batches_is_left_alone(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async def none(*_: Any) -> str:
        raise batch_api.GoneError("Not Found")

    monkeypatch.setattr(batch_api.Batches, "upload", none)
    result = place.run()
    assert result.pending and result.reasons == ["Not Found"]
    assert place.spent() == (0, 0, 0)


def test_the_key_is_nowhere_in_what_a_run_by_batch_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def leftovers() -> Iterator[bytes]:
        """What lies in the store and at the provider, what was logged and what was said."""
        yield from place.store.objects.values()
        for shard in place.open().journals():  # long entries are packed
            yield from (json.dumps(entry.body).encode() for entry in Log(place.store, keys.journal(shard)).read())
        client = openai.OpenAI(base_url=url, api_key=CANARY)
        for file in client.files.list():
            yield file.to_json().encode() + client.files.content(file.id).content
        for batch in client.batches.list():
            yield batch.to_json().encode()
        yield caplog.text.encode()
        yield from (repr(told).encode() for told in said)

    def clean() -> None:
        found = list(leftovers())
        assert not any(CANARY.encode() in raw or WRONG.encode() in raw for raw in found)
        assert any(b'"batch_made"' in raw for raw in found)

    said: list[Any] = []
    caplog.set_level(logging.DEBUG)
    with running(SimulatorConfig(api_key=CANARY)) as url:  # which it takes, and no other
        provider = Provider(url, CANARY)
        place = Place(tmp_path / "batch", url)
        monkeypatch.setenv("CANARY_KEY", CANARY)
        provider.control(batches={"seconds": 3600})
        said.append(place.run(wait_seconds=0))
        clean()
        monkeypatch.setenv("CANARY_KEY", WRONG)
        said.append(place.run())
        assert any("401" in reason for reason in said[-1].reasons)
        with pytest.raises(PendingError) as refused:
            expand(place.open())
        said += ["".join(traceback.format_exception(refused.value)), place.open().settings]
        clean()
        monkeypatch.setenv("CANARY_KEY", CANARY)
        provider.control(batches={"seconds": 0})
        said.append(place.run())
        assert said[-1].pending == 0
        clean()


class Killer:
    """Kills the worker before, or after, the nth operation on journal, budget or provider; it stays dead."""

    def __init__(self, place: Place, monkeypatch: pytest.MonkeyPatch, n: int, served: bool) -> None:
        self.count = 0
        self.n = n
        once = batch_api._once

        def hit(_: str = "", key: str = "budget") -> None:
            if not key.startswith("budget") and "/journal" not in key:
                return
            self.count += 1
            if self.count > self.n:
                raise KilledError

        async def killed(model: Any, ask: Callable[[], Awaitable[Any]]) -> Any:
            if not served:
                hit()
            found = await once(model, ask)
            if served:
                hit()
            return found

        monkeypatch.setattr(batch_api, "_once", killed)
        setattr(place.store, "after" if served else "before", hit)

    def bury(self, place: Place) -> None:
        place.store.before = place.store.after = lambda operation, key: None
        place.store.clock += 1000  # its lease runs out


@pytest.mark.parametrize("served", [True, False])
def test_killed_at_any_operation_nothing_is_submitted_twice(
    tmp_path: Path, provider: Provider, monkeypatch: pytest.MonkeyPatch, served: bool
) -> None:
    whole = Place(tmp_path / "whole", provider.url)
    assert whole.run(last_stage="filter").pending == 0
    place = Place(tmp_path / "each", provider.url)
    objects, n = dict(place.store.objects), 0
    while True:
        place.store.objects = dict(objects)
        place.store.written = dict.fromkeys(objects, place.store.clock)
        provider.anew()
        with monkeypatch.context() as patched:
            killer = Killer(place, patched, n, served)
            with contextlib.suppress(KilledError, BaseExceptionGroup):
                place.run(last_stage="filter")
            killer.bury(place)
        assert place.run(last_stage="filter").pending == 0
        assert provider.stats()["asked_again"] == [], n
        assert place.answers() == whole.answers(), n
        assert provider.batches[1] == 2, n
        assert place.spent()[::2] == place.billed(), n
        if killer.count <= n:
            return
        n += 1
