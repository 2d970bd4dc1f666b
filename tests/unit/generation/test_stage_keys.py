"""A shard's key follows from what its stage declares to read, and from nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from fakes import MemoryStore
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from tiny import TinyModels, tiny_images, tiny_models, tiny_seeds, tiny_settings, tiny_workspace

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.generation.stage_keys import StageKeys, differences
from taskgalaxy_ops.generation.stages import ASKING, NAMES
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.settings import Settings, parse_settings
from taskgalaxy_ops.storage.registry.state import ImageShard
from taskgalaxy_ops.storage.shards import Key, TableRef

__all__ = ["tiny_models"]

TABLE = TableRef("data/x", 2, "cd" * 32, "ef" * 32)
HOME = ImageShard(id="ab" * 16, images=TABLE, output="01" * 16, cut=2)


def made(settings: Settings, *, types: str = "t" * 64, dead: Iterable[str] = (), edits: int = 0) -> dict[str, Key]:
    """Every stage's key, each as if its input's content were what it is under any settings."""
    workspace = tiny_workspace(settings)
    one = StageKeys(workspace)
    return {
        "embed": one.embed(HOME, None),
        "match": one.match("e" * 32, types, list(dead)),
        **{name: one.asking(name, name[0] * 32, edits) for name in ASKING},
    }


def changed(base: Mapping[str, Key], other: Mapping[str, Key]) -> set[str]:
    """The stages whose keys differ; what they are made of differs for the same ones, by name."""
    found = {stage for stage in NAMES if base[stage].key != other[stage].key}
    assert found == {stage for stage in NAMES if differences(other[stage].made_of, base[stage].made_of)}
    return found


def settings(tmp_path: Path, **changes: Any) -> Settings:
    return tiny_settings("here", taxonomy={"seeds": str(tiny_seeds(tmp_path / "seeds.yaml"))}, **changes)


def with_models(base: Settings, teacher: Mapping[str, Any] = {}, judge: Mapping[str, Any] = {}) -> Settings:
    raw = base.model_dump(mode="json")
    raw["teacher"].update(teacher)
    raw["judges"][1].update(judge)
    return parse_settings(raw)


ASKED = {
    "model": st.just("another"),
    "revision": st.sampled_from(["2026-11", "2"]),
    "temperature": st.sampled_from([None, 0.7]),
    "image_side": st.sampled_from([128, 512]),
    "image_quality": st.integers(1, 89),
    "top_p": st.floats(0.1, 0.9),
    "seed": st.integers(0, 9),
    "extra_body": st.just({"top_k": 5}),
    "name": st.just("renamed"),
}
# What may change with every deployment, and changes no data.
UNASKED = {
    "base_url": st.sampled_from(["https://elsewhere/v1", "http://127.0.0.1:1/v1", "transformers:owner/name"]),
    "api_key_env": st.just("OTHER_KEY"),
    "price": st.fixed_dictionaries({"input": st.floats(0, 9), "output": st.floats(0, 9)}),
    "list_price": st.none(),
    "max_tokens": st.integers(16, 9000),
    "room_field": st.just("max_completion_tokens"),
    "concurrency": st.integers(1, 99),
    "timeout_seconds": st.floats(1, 999),
    "retries": st.integers(0, 9),
    "patience_seconds": st.floats(0, 900),
    "repairs": st.integers(0, 9),
    "headers": st.just({"X-Tenant": "blue"}),
    "structured": st.sampled_from(["json_object", "text"]),
    "simulated": st.just(False),
}
ELSEWHERE = {
    "store": st.just("s3://elsewhere/prefix"),
    "s3": st.just({"endpoint_url": "http://127.0.0.1:2"}),
    "sources": st.just({"another": {"location": "/elsewhere"}}),
    "ingest": st.just({"shard_images": 7, "max_pixels": 99}),
    "budget": st.fixed_dictionaries({"max_cost": st.floats(0, 99)}),
    "release": st.just({"cap": 3, "validation": 0.2}),
    "run": st.fixed_dictionaries({"units_a_request": st.integers(1, 99), "homes_at_once": st.integers(1, 64)}),
    "airflow": st.just({"lanes": 3, "pools": {"teacher": 1, "judges": 2}}),
    "finetune": st.just({"recipe": "other"}),
}


@given(
    teacher=st.fixed_dictionaries({}, optional=UNASKED),
    judge=st.fixed_dictionaries({}, optional=UNASKED),
    rest=st.fixed_dictionaries({}, optional=ELSEWHERE),
)
def test_what_no_stage_declares_changes_no_key(
    tmp_path: Path, teacher: dict[str, Any], judge: dict[str, Any], rest: dict[str, Any]
) -> None:
    base = settings(tmp_path)
    other = with_models(settings(tmp_path, **rest), teacher, judge)
    assert {stage: key.key for stage, key in made(base).items()} == {s: key.key for s, key in made(other).items()}
    assert changed(made(base), made(other)) == set()


@given(name=st.sampled_from(sorted(ASKED)), data=st.data())
def test_a_model_counts_where_it_is_asked(tmp_path: Path, name: str, data: st.DataObject) -> None:
    base, change = settings(tmp_path), {name: data.draw(ASKED[name])}
    assert changed(made(base), made(with_models(base, teacher=change))) == {"filter", "write"}
    assert changed(made(base), made(with_models(base, judge=change))) == {"vote"}


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ({"match": {"k": 4}}, {"match"}),
        ({"write": {"variants": ["plain", "chain_of_thought"]}}, {"write"}),
        ({"vote": {"quorum": 3}}, {"vote"}),
        ({"vote": {"audit_share": 0.2}}, {"vote"}),
        ({"vote": {"show_answer": False}}, {"vote"}),
    ],
)
def test_a_rule_counts_in_its_stage(tmp_path: Path, change: dict[str, Any], stages: set[str]) -> None:
    assert changed(made(settings(tmp_path)), made(settings(tmp_path, **change))) == stages


def test_inputs_count_where_they_go_in(tmp_path: Path) -> None:
    base = settings(tmp_path)
    assert changed(made(base), made(base, types="u" * 64)) == {"match"}
    assert changed(made(base), made(base, dead=["1" * 64])) == {"match"}
    assert changed(made(base), made(base, edits=1)) == {"filter", "write", "vote"}


@pytest.mark.parametrize(
    ("prompt", "stages"), [("filter", {"filter"}), ("write_plain", {"write"}), ("vote", {"vote"}), ("expand", set())]
)
def test_a_prompt_is_its_text(tmp_path: Path, prompt: str, stages: set[str]) -> None:
    one, two = tmp_path / "one.md", tmp_path / "another name.md"
    one.write_text("Which of these?\n", "utf-8")
    two.write_text("Which of these?", "utf-8")
    first, second = (settings(tmp_path, prompts={prompt: str(file)}) for file in (one, two))
    assert changed(made(first), made(second)) == set()
    two.write_text("Which of those?", "utf-8")
    assert changed(made(first), made(second)) == stages
    assert changed(made(settings(tmp_path)), made(first)) == stages


def test_a_variants_prompt_counts_only_where_it_is_written(tmp_path: Path) -> None:
    prompt = tmp_path / "own.md"
    prompt.write_text("Think.", "utf-8")
    own = {"prompts": {"write_chain_of_thought": str(prompt)}}
    both = {"write": {"variants": ["plain", "chain_of_thought"]}}
    assert changed(made(settings(tmp_path)), made(settings(tmp_path, **own))) == set()
    assert changed(made(settings(tmp_path, **both)), made(settings(tmp_path, **both, **own))) == {"write"}
    turned = {"write": {"variants": ["chain_of_thought", "plain"]}}
    assert changed(made(settings(tmp_path, **both)), made(settings(tmp_path, **turned))) == set()


# Whole runs: the same images by another way are the same shards, byte for byte


def run(folder: Path, tmp_path: Path, store: MemoryStore | None = None, **changes: Any) -> MemoryStore:
    store = store or MemoryStore()
    workspace = tiny_workspace(settings(tmp_path, **{"sources": {"mine": {"location": str(folder)}}, **changes}), store)
    for source in workspace.settings.sources:
        pipeline.ingest(workspace, source)
    result = pipeline.generate(workspace)
    assert result.pending == 0, result.reasons
    publish.publish(workspace)
    return store


def content(store: MemoryStore) -> dict[str, Any]:
    """The bytes of a store's data: each marker's tables, and the releases' files but for their histories."""
    shards = {}
    for key, raw in store.objects.items():
        if "/markers/" in key:
            tables = json.loads(raw)["tables"]
            shards[key] = {name: sha256_hex(store.objects[ref["key"]]) for name, ref in tables.items()}
    released = {
        key: sha256_hex(raw)
        for key, raw in store.objects.items()
        if key.startswith("releases/v") and not key.endswith("history.json")
    }
    return {"shards": shards, "released": released}


@given(
    order=st.permutations(range(5)),
    shards=st.integers(1, 5),
    units=st.integers(1, 9),
    slots=st.integers(1, 9),
)
@examples(max_examples=12)
def test_the_way_to_the_same_images_changes_no_byte(
    tmp_path: Path, tiny_models: TinyModels, order: list[int], shards: int, units: int, slots: int
) -> None:
    """Another folder, file times and creation order, another parallelism, another machine's store."""
    tiny_models.start(None)
    first = tmp_path / "first"
    if not first.exists():
        tiny_images(first, 5)
    other = tmp_path / "a folder of another name"
    shutil.rmtree(other, ignore_errors=True)
    other.mkdir()
    for number in order:
        shutil.copy(first / f"{number:03d}.png", other)
    expected = content(run(first, tmp_path))
    assert expected["released"]
    teacher = {**settings(tmp_path).teacher.model_dump(mode="json"), "concurrency": slots}
    store = run(other, tmp_path, run={"homes_at_once": shards, "units_a_request": units}, teacher=teacher)
    assert content(store) == expected
    assert content(run(other, tmp_path, store=store)) == expected  # listed again


def test_the_wave_stops_where_content_comes_out_the_same(tmp_path: Path, tiny_models: TinyModels) -> None:
    folder = tiny_images(tmp_path / "images", 4)
    store = run(folder, tmp_path)
    before = {key for key in store.objects if "/markers/" in key}
    tiny_models.start(None)
    # Another prompt, and the very same verdicts: filter is made anew, what follows is not.
    prompt = tmp_path / "filter.md"
    prompt.write_text("Which of these task types fit this image?", "utf-8")
    run(folder, tmp_path, store=store, prompts={"filter": str(prompt)})
    new = {key.rpartition("/")[2].split(".")[0] for key in set(store.objects) - before if "/markers/" in key}
    asked = {unit[1] for unit in tiny_models.seen}
    assert (new, asked) == ({"filter"}, {"filter"})


def test_generated_files_carry_no_dates(
    tmp_path: Path, tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_images(tmp_path / "images", 3)
    monkeypatch.setattr("time.time", lambda: 1.7e9)
    first = content(run(folder, tmp_path))
    tiny_models.start(None)
    monkeypatch.setattr("time.time", lambda: 1.9e9)
    second = content(run(folder, tmp_path))
    assert first == second
