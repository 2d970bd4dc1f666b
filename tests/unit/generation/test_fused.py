"""Verdicts and questions in one request: the same data as apart, and nothing is asked twice, whatever is set when."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fakes import MemoryStore
from tiny import TinyModels, tiny_images, tiny_models, tiny_seeds, tiny_settings, tiny_workspace

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.generation.bill import bill
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.generation.stages import write
from taskgalaxy_ops.generation.stages.asking import pure
from taskgalaxy_ops.models.request import MalformedReplyError
from taskgalaxy_ops.operations import answers
from taskgalaxy_ops.operations.explain import explain
from taskgalaxy_ops.operations.forecast import forecast
from taskgalaxy_ops.operations.forget import forget
from taskgalaxy_ops.operations.probe import probe
from taskgalaxy_ops.records import Answer, Match, Reason
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.reports.text.costs import forecast_notes
from taskgalaxy_ops.reports.text.explain import explained
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.workspace import Workspace

__all__ = ["tiny_models"]

IMAGES = 6
DECIDED = '{"verdicts": [{"index": 1, "fits": true, "question": "What?", "answer": "It."}]}'
FUSED: Mapping[str, Any] = {"write": {"fused": True}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_seeds(tmp_path / "seeds.yaml")
    tiny_images(tmp_path / "images", IMAGES)
    return tmp_path


def opened(folder: Path, store: MemoryStore | None = None, **changes: Any) -> Workspace:
    settings = tiny_settings(folder / "images", taxonomy={"seeds": str(folder / "seeds.yaml")}, **changes)
    workspace = tiny_workspace(settings, store)
    if store is None:
        pipeline.ingest(workspace, "mine")
    return workspace


def made(workspace: Workspace) -> tuple[Any, ...]:
    """What a finished run has made: the funnel, every stage output by its key, and the release's content."""
    result = pipeline.generate(workspace)
    assert result.pending == 0, result.reasons
    outputs = {
        (shard.id, *key): output.output
        for shard in workspace.registry.shards()
        for key, output in workspace.stage_outputs.committed(shard.id).items()
    }
    results = RunResults(workspace)
    return results.funnel, outputs, publish.publish(workspace).release.content


def asked(models: TinyModels) -> Counter[tuple[str, ...]]:
    """How often each unit was asked for, whatever its request's text: model, stage, item and image."""
    found: Counter[tuple[str, ...]] = Counter()
    for (model, stage, _, *item), times in models.seen.items():
        found[model, stage, *item] += times
    return found


def calls(workspace: Workspace) -> Counter[str]:
    """The requests that were served, by stage."""
    journals = [Journal(workspace.store, shard.id) for shard in workspace.registry.shards()]
    return Counter(reply["stage"] for journal in journals for reply in journal.replies() if reply["raw"])


@pytest.mark.parametrize(
    ("write", "saved"),
    [
        ({"variants": ["plain"]}, 1.0),
        ({"variants": ["chain_of_thought", "plain"]}, 0.5),
        ({"variants": ["plain", "chain_of_thought"], "suits": {"plain": ["ocr~ocr a"]}}, 0.5),
        ({"variants": ["plain", "chain_of_thought"], "shares": {"plain": 1, "chain_of_thought": 2}}, 0.5),
        ({"variants": ["plain"], "answers": 3}, 0.33),
    ],
)
def test_the_data_are_the_same_for_fewer_requests(
    folder: Path, tiny_models: TinyModels, write: Mapping[str, Any], saved: float
) -> None:
    apart = opened(folder, write=write)
    expected, units = made(apart), asked(tiny_models)
    tiny_models.start(None)
    fused = opened(folder, write={**write, "fused": True})
    assert made(fused) == expected
    assert asked(tiny_models) == units
    assert calls(apart)["filter"] == calls(fused)["filter"] == IMAGES
    assert calls(fused)["write"] <= (1 - saved) * calls(apart)["write"]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("replies", [1, 3, 5])
def test_nothing_is_asked_again_where_it_is_set_or_unset_on_the_way(
    folder: Path, tiny_models: TinyModels, fused: bool, replies: int
) -> None:
    expected, units = made(opened(folder)), asked(tiny_models)
    tiny_models.start(replies)
    workspace = opened(folder, write={"fused": fused})
    assert pipeline.generate(workspace, pipeline.RunOptions(last_stage="write")).pending
    tiny_models.replies = None
    for then in (not fused, fused):
        assert made(opened(folder, workspace.store, write={"fused": then})) == expected  # type: ignore[arg-type]
    assert asked(tiny_models) == units


def spoilt(models: TinyModels, monkeypatch: pytest.MonkeyPatch, **said: Any) -> None:
    """Let every entry of a reply to both questions say this."""
    answer = models._answer

    async def spoil(request: httpx.Request) -> httpx.Response:
        reply = await answer(request)
        if b"filter and write" not in request.content:
            return reply
        body = reply.json()
        message = body["choices"][0]["message"]
        entries = json.loads(message["content"])["verdicts"]
        message["content"] = json.dumps({"verdicts": [{**each, **said} for each in entries]})
        return httpx.Response(200, json=body)

    monkeypatch.setattr(models, "_answer", spoil)


@pytest.mark.parametrize("question", [None, "...", "x" * 5000, ["What?"]])
def test_a_question_that_is_no_good_is_written_apart_and_the_verdict_counts(
    folder: Path, tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch, question: Any
) -> None:
    apart = opened(folder)
    expected = made(apart)
    spoilt(tiny_models, monkeypatch, question=question)
    fused = opened(folder, **FUSED)
    assert made(fused) == expected
    assert calls(fused) == calls(apart), "the questions of an image are asked for in one request, none a second time"


def test_what_is_said_to_fit_and_left_empty_is_declined_as_apart(
    folder: Path, tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt(tiny_models, monkeypatch, question="", answer="", reasoning="")
    fused = opened(folder, **FUSED)
    pipeline.generate(fused)
    written = RunResults(fused).funnel[2]
    assert written.rejects == {Reason.DECLINED: written.units_in}
    assert written.units_in
    assert not calls(fused)["write"]


def test_a_request_holds_both_prompts_word_for_word_and_keeps_both_units(folder: Path) -> None:
    own = {"filter": "Decide, {write}.", "write_plain": "Write, {filter}."}
    for name, text in own.items():
        (folder / name).write_text(text)
    workspace = opened(folder, MemoryStore(), prompts={name: str(folder / name) for name in own}, **FUSED)
    templates = {name: pure(name).templates(workspace.prompts, workspace.settings) for name in ("filter", "write")}
    row = Match("i", "a~b", 0.5, 1)
    ((asked, (item,)),) = pure("filter").work(templates["filter"], [row], workspace.settings).needed({})
    assert item.key == templates["filter"]["filter"].unit("i", {"task_type": "a~b"}).key
    assert item.follow_up == templates["write"]["plain"].unit("i", {"task_type": "a~b"}).key
    assert all(f"\n\n{text}\n\n" in asked.text([item]) for text in own.values())
    entries = asked.json_schema([item], bounded=True)["properties"]["verdicts"]["items"]["anyOf"]
    assert {entry["properties"]["fits"]["enum"][0]: entry["required"][3:] for entry in entries} == {
        True: ["question", "answer"],
        False: [],
    }
    answers, fault = asked.parse([item], '{"verdicts": [{"index": 1, "fits": false, "question": "What?"}]}')
    assert (set(answers), fault) == ({item.key}, ""), "of what does not fit nothing is asked"
    assert "part_2" not in asked.text([item])
    answers, fault = asked.parse([alone := replace(item, follow_up="")], DECIDED)
    assert (set(answers), fault) == ({item.key}, ""), "nor of what is written otherwise"
    assert '"part_2": false' in asked.text([alone])


def test_explain_names_the_request_that_a_pair_came_from(folder: Path, tiny_models: TinyModels) -> None:
    fused = opened(folder, **FUSED)
    made(fused)
    pair = next(iter(RunResults(fused).pairs.values()))
    (match,) = explain(fused, pair.pair)["matches"]
    (told,) = match["pairs"]
    assert told["written_by"]["asked_along_with"] == "filter"
    assert told["written_by"]["request"] == match["filtered_by"]["request"]
    assert told["written_by"]["prompt"] == "write_plain"
    assert "asked_along_with" not in match["filtered_by"]
    assert any("in the filter's" in line for line in explained(explain(fused, pair.pair)))


@pytest.mark.parametrize("stage", ["filter", "write"])
def test_what_is_forgotten_of_one_stage_is_asked_again_of_it_alone(
    folder: Path, tiny_models: TinyModels, stage: str
) -> None:
    fused = opened(folder, **FUSED)
    expected, units = made(fused), asked(tiny_models)
    told = forget(fused, where={"stage": stage}, dry_run=False)
    assert told.units == {stage: sum(unit[1] == stage for unit in units)}
    assert told.tokens
    assert told.list_cost
    tiny_models.start(None)
    funnel, _, content = made(opened(folder, fused.store))  # type: ignore[arg-type]
    assert (funnel, content) == (expected[0], expected[2])
    assert {unit[1] for unit in asked(tiny_models)} == {stage}


def test_answers_that_were_given_along_go_to_other_stores_and_are_read_again(
    folder: Path, tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opened(folder, write={"fused": True, "variants": ["chain_of_thought"]})
    expected = made(first)
    count = answers.export(first, folder / "answers.jsonl")
    tiny_models.start(None)
    second = opened(folder, write={"variants": ["chain_of_thought"]})
    assert answers.load(second, folder / "answers.jsonl").read == count
    assert made(second) == expected
    assert tiny_models.requests == 0


def test_a_later_parser_reads_the_questions_of_replies_to_both(
    folder: Path, tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = made(opened(folder))
    units = asked(tiny_models)
    tiny_models.start(None)
    fused = opened(folder, **FUSED)
    with monkeypatch.context() as older:
        older.setattr(write, "_read_pair", _reads_nothing)
        pipeline.generate(fused, pipeline.RunOptions(last_stage="filter"))
    assert calls(fused)["write"] == 0
    again = answers.read_again(fused)
    assert again.answers == {"write": sum(unit[1] == "write" for unit in units)}
    assert not answers.read_again(fused).answers
    assert made(opened(folder, fused.store)) == expected  # type: ignore[arg-type]
    assert asked(tiny_models) == units


def _reads_nothing(*_: Any) -> Answer:
    raise MalformedReplyError("it could not")


def test_both_are_shown_one_context() -> None:
    with pytest.raises(SettingsError, match=r"filter\.context and write\.context"):
        tiny_settings("x", write={"fused": True, "context": ["caption"]})
    tiny_settings("x", write={"fused": True, "context": ["caption"]}, filter={"context": ["caption"]})


@pytest.mark.parametrize("asked_fused", [False, True])
def test_a_forecast_knows_both_ways_by_what_was_asked_in_either(
    folder: Path, tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch, asked_fused: bool
) -> None:
    tiny_images(folder / "images", 40, first=IMAGES)
    answer = tiny_models._answer

    async def priced(request: httpx.Request) -> httpx.Response:
        body = (await answer(request)).json()
        text = json.loads(request.content)["messages"][-1]["content"][0]["text"]
        said = body["choices"][0]["message"]["content"]
        body["usage"] = {"prompt_tokens": 700 + len(text) // 4, "completion_tokens": len(said) // 4}
        return httpx.Response(200, json=body)

    monkeypatch.setattr(tiny_models, "_answer", priced)
    begun = opened(folder, write={"fused": asked_fused})
    probe(begun, images=20)
    found, spent = {}, {}
    for fused in (False, True):
        store = MemoryStore()
        store.objects.update(begun.store.objects)  # type: ignore[attr-defined]
        workspace = opened(folder, store, write={"fused": fused})
        before = bill(workspace).all.tokens
        found[fused] = forecast(workspace)
        pipeline.generate(workspace)
        spent[fused] = bill(workspace).all.tokens - before
        assert found[fused].tokens.expected == pytest.approx(spent[fused], rel=0.12)
        assert found[fused].tokens.low < spent[fused] < found[fused].tokens.high
    for each in found.values():
        assert each.fused_saves["tokens"] == pytest.approx(spent[False] - spent[True], rel=0.2)
    said = [forecast_notes(each)[0] for each in (found[False], found[True])]
    assert [each.partition(" about ")[0] for each in said] == ["write.fused would save", "write.fused saves"]
