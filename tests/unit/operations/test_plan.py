"""Plan and run agree: what a plan says of the first stage is what is asked, and all of it lies within its bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes import MemoryStore
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import TinyModels, tiny_images, tiny_models, tiny_seeds, tiny_settings, tiny_workspace

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.generation.stages import ASKING
from taskgalaxy_ops.operations.plan import Basis, RunPlan, StagePlan, plan
from taskgalaxy_ops.reports.pages.plan import plan_page
from taskgalaxy_ops.reports.text import plan as plan_text
from taskgalaxy_ops.settings import Settings
from taskgalaxy_ops.taxonomy import add_types
from taskgalaxy_ops.taxonomy.store import TaxonomyStore

__all__ = ["tiny_models"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two sources, which share an image, and seeds."""
    root = tmp_path_factory.mktemp("tiny")
    return {
        "one": tiny_images(root / "one", 5),
        "two": tiny_images(root / "two", 3, first=4),
        "seeds": tiny_seeds(root / "seeds.yaml"),
    }


def chosen(folders: dict[str, Path], *, sources: int = 2, **changes: Any) -> Settings:
    names = ["one", "two"][:sources]
    made = {"sources": {name: {"location": str(folders[name])} for name in names}}
    return tiny_settings(folders["one"], taxonomy={"seeds": str(folders["seeds"])}, **{**made, **changes})


def whole(store: MemoryStore, settings: Settings) -> pipeline.RunResult:
    workspace = tiny_workspace(settings, store)
    for source in settings.sources:
        pipeline.ingest(workspace, source)
    return pipeline.generate(workspace)


def stages(found: RunPlan) -> dict[str, StagePlan]:
    return {each.stage: each for each in found.stages}


def judges(revisions: dict[str, str]) -> list[dict[str, Any]]:
    plain = [model.model_dump(mode="json") for model in tiny_settings("x").judges]
    return [{**each, "revision": revisions.get(each["name"])} for each in plain]


BLIND = judges({})[0] | {"name": "blind", "model": "blind"}
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "match": st.sampled_from([{"k": 2}, {"k": 5}, {"k": 3, "prefer_starving": 0.3}]),
        "write": st.sampled_from([{"variants": ["plain", "chain_of_thought"]}, {"variants": ["chain_of_thought"]}])
        | st.fixed_dictionaries({"answers": st.integers(2, 3)}, optional={"checks": st.just({})})
        | st.fixed_dictionaries({"swapped": st.sampled_from([0.3, 1])}),
        "vote": st.fixed_dictionaries(
            {}, optional={"quorum": st.sampled_from([1, 2, 3]), "audit_share": st.sampled_from([0, 0.5, 1])}
        )
        | st.just({"show_answer": False})
        | st.fixed_dictionaries(
            {"blind": st.fixed_dictionaries({"model": st.just(BLIND), "rule": st.sampled_from(["mark", "reject"])})}
        )
        | st.fixed_dictionaries({"planted": st.sampled_from([0.2, 1])}),
        "judges": st.sampled_from([judges({"b": "2026"}), judges({})[:2]]),
        "run": st.sampled_from([{"units_a_request": 1}, {"homes_at_once": 1}]),
        "targets": st.sampled_from([{"samples": 1, "tries": 2}, {"samples": 2, "tries": 5}]),
    },
).filter(
    lambda made: (
        made.get("vote", {}).get("quorum", 2) <= len(made.get("judges", "abc"))
        and (
            "answers" not in made.get("write", {})
            or ("targets" not in made and made.get("vote") != {"show_answer": False})
        )
        and ("targets" not in made or not {"swapped", "planted"} & {*made.get("write", {}), *made.get("vote", {})})
    )
)


@settings(max_examples=max(20, settings().max_examples // 2))
@given(
    first=st.sampled_from([0, 1, 2]),  # sources that were run before
    replies=st.none() | st.integers(0, 25),  # that the first run got before its models died
    added=st.integers(0, 2),  # task types
    changes=CHANGES,
    dropped=st.sets(st.sampled_from(["match", "filter", "write", "vote"])),  # markers that somebody deleted
)
def test_plan_and_run_agree(
    folders: dict[str, Path],
    tiny_models: TinyModels,
    first: int,
    replies: int | None,
    added: int,
    changes: dict[str, Any],
    dropped: set[str],
) -> None:
    store = MemoryStore()
    tiny_models.start(replies)
    if first:
        whole(store, chosen(folders, sources=first))
    workspace = tiny_workspace(chosen(folders, **changes), store)
    if added:
        taxonomy_store = TaxonomyStore(workspace)
        taxonomy_store.publish(
            0, add_types(taxonomy_store.version().nodes, [f"ocr~ocr new {n}" for n in range(added)]), [], "hand"
        )
    for key in [key for key in store.objects if "/markers/" in key and key.rpartition("/")[2].split(".")[0] in dropped]:
        store.delete(key)
    for source in workspace.settings.sources:
        pipeline.ingest(workspace, source)
    before = set(store.objects)
    tiny_models.start(None)

    planned = stages(plan(workspace))
    assert tiny_models.requests == 0
    made = {key.split("/")[0] for key in set(store.objects) - before}
    assert made <= {"cache", "taxonomy", "embeddings", "data"}, "a plan only keeps what it read, and new task types"
    assert workspace.encoder.passes == 0 or added or not first

    passes = workspace.encoder.passes
    result = pipeline.generate(workspace)
    assert result.pending == 0, result.reasons
    assert workspace.encoder.passes - passes >= planned["embed"].units.low
    exact = True
    for stage in ASKING:
        units, asked = planned[stage].units, tiny_models.distinct(stage)
        assert units.low <= asked <= units.high, (stage, units, asked)
        assert units.low <= units.expected <= units.high
        if exact and stage != "vote" and not changes.get("targets"):
            assert units.exact or (stage == "write" and "answers" in changes.get("write", {}))
        exact = exact and not asked
    again = plan(tiny_workspace(workspace.settings, store))
    assert all(each.units.high == 0 and each.shards_there == each.shards and not each.why for each in again.stages)


def test_a_plan_names_what_changed(folders: dict[str, Path], tiny_models: TinyModels, tmp_path: Path) -> None:
    store = MemoryStore()
    whole(store, chosen(folders, sources=1))

    def why(**changes: Any) -> dict[str, dict[str, int]]:
        found = plan(tiny_workspace(chosen(folders, sources=1, **changes), store))
        return {each.stage: dict(each.why) for each in found.stages if each.why}

    assert why() == {}
    prompt = tmp_path / "prompt.md"
    prompt.write_text("Which of these fit?")
    three = {"write": {"waits for filter": 3}, "vote": {"waits for write": 3}}
    assert why(prompts={"filter": str(prompt)}) == {"filter": {"prompt filter": 3}, **three}
    assert why(judges=judges({"b": "2026"})) == {"vote": {"judge b: revision unset -> 2026": 3}}
    assert why(judges=judges({})[:2]) == {"vote": {"judges a, b, c -> a, b": 3}}
    assert why(vote={"quorum": 3}) == {"vote": {"quorum 2 -> 3": 3}}
    assert why(match={"k": 2}) == {
        "match": {"k 3 -> 2": 3},
        "filter": {"matches": 3},
        "write": {"relevant matches": 3},
        "vote": {"pairs": 3},
    }
    taxonomy_store = TaxonomyStore(tiny_workspace(chosen(folders), store))
    taxonomy_store.publish(0, add_types(taxonomy_store.version().nodes, ["ocr~ocr new"]), [], "hand")
    assert why()["match"] == {"task types": 3}


def test_a_small_source_is_expected_by_the_shares_of_others(
    folders: dict[str, Path], tiny_models: TinyModels, tmp_path: Path
) -> None:
    """Its bounds stay what they are; what is expected, and what it costs, comes from the other source, and is said."""
    store = MemoryStore()
    sources = {"one": {"location": str(folders["one"])}, "few": {"location": str(tmp_path / "few")}}
    tiny_images(tmp_path / "few", 2, first=50)
    seeds = {"seeds": str(folders["seeds"])}
    workspace = tiny_workspace(tiny_settings(folders["one"], taxonomy=seeds, sources=sources), store)
    pipeline.ingest(workspace, "few")
    before = plan(tiny_workspace(workspace.settings, store), ["few"])
    assert stages(before)["write"].units.expected == 2 * 3, "nothing is known: as if all passed"
    told = "\n".join(plan_text.plan(before))
    assert "nothing of filter is answered yet, of no source: what follows it is expected as if all passed" in told
    assert "of all sources" not in told
    assert "A probe of a few images measures it: `taskgalaxy plan --probe`" in told

    pipeline.ingest(workspace, "one")
    result = pipeline.generate(workspace, pipeline.RunOptions(sources=["one"]))
    assert result.pending == 0
    after = plan(tiny_workspace(workspace.settings, store), ["few"])
    there, first = stages(after), stages(before)
    counts = {each.stage: each for each in RunResults(workspace, result).funnel}
    fits = counts["filter"].units_out / (5 * 3)
    assert there["filter"].units == first["filter"].units
    for stage in ("write", "vote"):
        now, then = there[stage].units, first[stage].units
        assert (now.low, now.high) == (then.low, then.high), "bounds are bounds"
        assert now.low < now.expected < now.high
    assert there["write"].units.expected == pytest.approx(2 * 3 * fits)
    assert {each.basis for each in after.stages if each.stage in ASKING} == {Basis(5, 3, elsewhere=True)}
    assert after.total("list_cost") is not None and before.total("list_cost") is None
    said = "the shares and costs of filter, write, vote are those of 5 images in 3 shards of all sources"
    assert said in "\n".join(plan_text.plan(after))
    assert said in plan_page(after, ["few"], 0)
    of_all = plan(tiny_workspace(workspace.settings, store))
    assert {each.basis for each in of_all.stages if each.stage in ASKING} == {Basis(5, 3)}
    assert "of all sources" not in "\n".join(plan_text.plan(of_all))
