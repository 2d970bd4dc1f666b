"""What the next release would lose is said before it is made, and is what it then loses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import MemoryStore
from tiny import TYPES, TinyModels, tiny_images, tiny_models, tiny_seeds, tiny_settings, tiny_workspace

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.operations.plan import plan
from taskgalaxy_ops.operations.release_outlook import ReleaseOutlook, release_outlook
from taskgalaxy_ops.records import Node, Reason
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.release.changes import Loss
from taskgalaxy_ops.release.published_rows import ReleaseRows
from taskgalaxy_ops.reports.pages.plan import plan_page
from taskgalaxy_ops.reports.text import plan as plan_text
from taskgalaxy_ops.settings import Settings
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.taxonomy import add_types
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace

__all__ = ["tiny_models"]

RULES = {"validation": 0, "test": 0, "near_duplicate_bits": -1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_seeds(tmp_path / "seeds.yaml")
    tiny_images(tmp_path / "images", 12)
    return tmp_path


def settings_of(folder: Path, **changes: Any) -> Settings:
    return tiny_settings(folder / "images", taxonomy={"seeds": str(folder / "seeds.yaml")}, **changes)


@pytest.fixture
def workspace(folder: Path, tiny_models: TinyModels) -> Workspace:
    """Twelve images in six shards, run and released."""
    workspace = tiny_workspace(settings_of(folder))
    pipeline.ingest(workspace, "mine")
    assert pipeline.generate(workspace).pending == 0
    publish.publish(workspace)
    tiny_models.start(None)
    return workspace


def under(workspace: Workspace, settings: Settings) -> Workspace:
    return tiny_workspace(settings, workspace.store)  # type: ignore[arg-type]


def grown(workspace: Workspace, count: int = 6) -> tuple[Node, ...]:
    nodes = TaxonomyStore(workspace).version().nodes
    return tuple(add_types(nodes, [f"ocr~ocr new {number}" for number in range(count)]))


def test_nothing_is_lost_and_nothing_read_where_nothing_changed(workspace: Workspace, folder: Path) -> None:
    store = workspace.store
    assert isinstance(store, MemoryStore)
    read: list[str] = []
    store.before = lambda operation, key: read.append(key) if operation == "get" else None
    found = plan(under(workspace, settings_of(folder)))
    store.before = lambda operation, key: None
    samples = publish.published(workspace)[0].samples
    assert found.outlook == ReleaseOutlook(since="v000001", samples=samples)
    assert not [key for key in read if key.startswith("releases/v")]
    assert plan_text.plan_notes(found) == ["nothing to do"]


def test_before_there_is_a_release_nothing_can_be_lost(folder: Path, tiny_models: TinyModels) -> None:
    workspace = tiny_workspace(settings_of(folder))
    assert plan(workspace).outlook is None
    pipeline.ingest(workspace, "mine")
    assert release_outlook(workspace) is None
    assert release_outlook(workspace, TaxonomyStore(workspace).version().nodes) is None


def lower_cap(workspace: Workspace, folder: Path) -> Settings:
    return settings_of(folder, release={**RULES, "cap": 2})


def more_types(workspace: Workspace, folder: Path) -> Settings:
    TaxonomyStore(workspace).publish(0, grown(workspace), [], "hand")
    return settings_of(folder)


def fewer_types(workspace: Workspace, folder: Path) -> Settings:
    types = TaxonomyStore(workspace)
    types.publish(0, types.version().retire(TYPES[0]).nodes, [], "hand")
    return settings_of(folder)


def fewer_images(workspace: Workspace, folder: Path) -> Settings:
    for file in sorted((folder / "images").glob("*.png"))[:3]:
        file.unlink()
    pipeline.ingest(under(workspace, settings_of(folder)), "mine")
    return settings_of(folder)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lower_cap, Reason.OVER_CAP),
        (more_types, Loss.PUSHED_OUT),
        (fewer_types, Loss.RETIRED),
        (fewer_images, Loss.UNCLAIMED),
    ],
)
def test_the_plan_says_what_the_next_release_then_loses(
    workspace: Workspace,
    folder: Path,
    tiny_models: TinyModels,
    change: Callable[[Workspace, Path], Settings],
    why: str,
) -> None:
    settings = change(workspace, folder)
    found = plan(under(workspace, settings))
    assert tiny_models.requests == 0
    assert found.outlook is not None and found.outlook.open == 0
    assert set(found.outlook.lost) == {why}
    said = f"{found.outlook.losses} ({found.outlook.losses} {why})"
    line = f"of the {found.outlook.samples} samples of v000001 the next release loses {said}"
    assert line in plan_text.plan(found)
    assert line.replace("'", "&#x27;") in plan_page(found, ["mine"], 0)
    assert release_outlook(under(workspace, settings)) == found.outlook
    assert pipeline.generate(under(workspace, settings)).pending == 0
    now, made = release_outlook(under(workspace, settings)), publish.publish(under(workspace, settings))
    assert now is not None and made.changes is not None
    assert now.lost == made.changes.lost, "whether it was run already or not"
    assert now.lost[why] == found.outlook.lost[why]
    assert set(now.lost) - {why} <= {Reason.DUPLICATE_PAIR}, "what was answered since may ask the same"
    after = release_outlook(under(workspace, settings))
    assert after is not None and (after.since, after.losses, after.open) == ("v000002", 0, 0)


def test_what_waits_for_an_answer_is_neither_lost_nor_sure(workspace: Workspace, folder: Path) -> None:
    higher = settings_of(folder, vote={"quorum": 3})
    found = plan(under(workspace, higher)).outlook
    assert found is not None and found.open > 0
    assert f"does not know yet of {found.open}, which wait for an answer" in "".join(plan_text.outlook(found))
    assert pipeline.generate(under(workspace, higher)).pending == 0
    now = release_outlook(under(workspace, higher))
    assert now is not None and now.open == 0
    assert found.losses <= now.losses <= found.losses + found.open
    assert set(now.lost) == {Loss.NO_QUORUM}


def test_a_plan_of_one_source_looks_at_the_release_of_all(workspace: Workspace, folder: Path, tmp_path: Path) -> None:
    tiny_images(tmp_path / "more", 2, first=40)
    sources = {"mine": {"location": str(folder / "images")}, "more": {"location": str(tmp_path / "more")}}
    pipeline.ingest(under(workspace, settings_of(folder, sources=sources)), "more")
    assert plan(under(workspace, settings_of(folder, sources=sources)), ["more"]).outlook == release_outlook(workspace)
    capped = settings_of(folder, sources=sources, release={**RULES, "cap": 2})
    of_one, of_all = plan(under(workspace, capped), ["more"]).outlook, plan(under(workspace, capped)).outlook
    assert of_one == of_all
    assert of_one is not None and of_one.losses


def test_a_proposed_taxonomy_says_what_it_alone_would_cost(workspace: Workspace, folder: Path) -> None:
    settings = settings_of(folder)
    before = dict(workspace.store.objects)  # type: ignore[attr-defined]
    nodes = grown(workspace)
    proposed = release_outlook(under(workspace, settings), nodes)
    assert workspace.store.objects.keys() == before.keys(), "nothing is stored of what is only proposed"  # type: ignore[attr-defined]
    assert proposed is not None and proposed.open == 0 and set(proposed.lost) == {Loss.PUSHED_OUT}
    same = release_outlook(under(workspace, settings), TaxonomyStore(workspace).version().nodes)
    assert same is not None and same.losses == 0
    capped = settings_of(folder, release={**RULES, "cap": 2})
    assert release_outlook(under(workspace, capped), nodes) == proposed, "that is the settings' doing"
    TaxonomyStore(workspace).publish(0, nodes, [], "hand")
    assert release_outlook(under(workspace, settings)) == proposed
    fewer_images(workspace, folder)
    both, alone = release_outlook(under(workspace, settings)), release_outlook(under(workspace, settings), nodes)
    assert both is not None and set(both.lost) == {Loss.PUSHED_OUT, Loss.UNCLAIMED}
    assert alone is not None and alone.losses == 0, "what is lost without it does not count"


def test_a_task_type_that_became_a_group_is_divided_and_not_retired(workspace: Workspace, folder: Path) -> None:
    settings, types = settings_of(folder), TaxonomyStore(workspace)
    nodes = tuple(add_types(types.version().nodes, [f"{path}~finer" for path in TYPES]))
    former = Counter(task_type for _, _, task_type, _ in ReleaseRows(workspace.store, 1).samples())
    proposed = release_outlook(under(workspace, settings), nodes)
    assert proposed is not None and proposed.lost == {Loss.DIVIDED: sum(former[path] for path in TYPES)}
    types.publish(0, nodes, [], "hand")
    assert plan(under(workspace, settings)).outlook == proposed


def test_what_a_release_was_made_of_is_found_out_again_where_it_was_deleted(workspace: Workspace, folder: Path) -> None:
    kept = keys.cache("made-of-000001.json")
    content = workspace.store.get(kept)
    workspace.store.delete(kept)
    found = release_outlook(under(workspace, settings_of(folder)))
    assert found is not None and (found.losses, found.open) == (0, 0)
    assert workspace.store.get(kept) == content
    workspace.store.delete(kept)
    release_outlook(under(workspace, settings_of(folder, release={**RULES, "cap": 1})))
    assert kept not in workspace.store.objects, "a look that finds losses does not take them for what was released"  # type: ignore[attr-defined]


def test_a_release_that_cannot_be_read_keeps_no_plan_from_being_made(workspace: Workspace, folder: Path) -> None:
    store = workspace.store
    assert isinstance(store, MemoryStore)
    (table,) = [key for key in store.objects if key.startswith("releases/v000001/data/")]
    store.objects[table] = b"damaged"
    capped = settings_of(folder, release={**RULES, "cap": 1})
    assert plan(under(workspace, capped)).outlook is None
    assert release_outlook(under(workspace, capped), grown(workspace)) is None
