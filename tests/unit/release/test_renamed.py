"""A task type that is renamed, moved or merged: nothing is asked again, and people see its present path everywhere."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import MemoryStore
from tiny import TYPES, TinyModels, tiny_images, tiny_models, tiny_seeds, tiny_settings, tiny_workspace

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.generation.coverage import crowded
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.operations.carried_answers import carried_answers
from taskgalaxy_ops.operations.costs import costs
from taskgalaxy_ops.operations.explain import explain
from taskgalaxy_ops.operations.plan import plan
from taskgalaxy_ops.operations.release_outlook import release_outlook
from taskgalaxy_ops.operations.review import draw_pairs
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.release.changes import Loss, ReleaseChanges
from taskgalaxy_ops.release.published_rows import ReleaseRows
from taskgalaxy_ops.reports.pages import contact_sheet
from taskgalaxy_ops.reports.text.release import changed
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.taxonomy import TaxonomyVersion, aliases, diff
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace

__all__ = ["tiny_models"]

ONE, OTHER = TYPES[0], TYPES[1]  # "ocr~ocr a", "ocr~ocr b"


@pytest.fixture
def workspace(tmp_path: Path, tiny_models: TinyModels) -> Workspace:
    """Twelve images, run and released."""
    tiny_seeds(tmp_path / "seeds.yaml")
    tiny_images(tmp_path / "images", 12)
    settings = tiny_settings(tmp_path / "images", taxonomy={"seeds": str(tmp_path / "seeds.yaml")})
    workspace = tiny_workspace(settings)
    pipeline.ingest(workspace, "mine")
    pipeline.generate(workspace)
    publish.publish(workspace)
    tiny_models.start(None)
    return workspace


def changed_by(workspace: Workspace, change: Callable[[TaxonomyVersion], TaxonomyVersion]) -> Workspace:
    """The workspace, opened anew, after a change of its taxonomy and a run."""
    types = TaxonomyStore(workspace)
    base = types.version()
    types.publish(base.number, change(base).nodes, [], "hand")
    store = workspace.store
    assert isinstance(store, MemoryStore)
    again = tiny_workspace(workspace.settings, store)
    assert pipeline.generate(again).pending == 0
    return again


def released(workspace: Workspace, version: int) -> dict[str, str]:
    """A release's samples: id and task type."""
    return {pair: path for pair, _, path, _ in ReleaseRows(workspace.store, version).samples()}


def next_changes(workspace: Workspace) -> ReleaseChanges:
    receipt = publish.publish(workspace)
    assert receipt.made and receipt.changes is not None
    return receipt.changes


def test_nothing_is_asked_encoded_or_computed_again(workspace: Workspace, tiny_models: TinyModels) -> None:
    store = workspace.store
    before = {each.key for each in store.list("homes/")}
    again = changed_by(workspace, lambda base: aliases.rename(base, "ocr", "Text, printed"))
    assert tiny_models.requests == 0
    assert again.encoder_passes == 0
    assert {each.key for each in store.list("homes/")} == before, "not even a match is computed again"
    assert [stage.units.high for stage in plan(again).stages] == [0] * len(plan(again).stages)


def test_the_release_has_the_present_path_everywhere(workspace: Workspace) -> None:
    former = released(workspace, 1)
    again = changed_by(workspace, lambda base: aliases.rename(base, "ocr", "Text, printed"))
    changes = next_changes(again)
    assert released(again, 2) == {pair: path.replace("ocr~", "Text, printed~", 1) for pair, path in former.items()}
    renamed = sum(path.startswith("ocr~") for path in former.values())
    assert (changes.kept, changes.gained, dict(changes.lost), changes.renamed) == (len(former), 0, {}, renamed)
    assert renamed > 0 and f"{renamed:,} of them with a task type renamed since" in changed(changes)
    for listed in again.store.list(keys.release(2)):
        if listed.key.endswith((".json", ".md")):
            text = again.store.get(listed.key).decode()
            assert "ocr~ocr" not in text, listed.key
    rows = json.loads(again.store.get(keys.release(2) + "llava/train.json"))
    assert {row["task_type"] for row in rows} == set(released(again, 2).values())
    assert json.loads(again.store.get(keys.release(2) + "history.json"))["changes"]["renamed"] == renamed
    assert not publish.publish(again).made, "and a second time there is nothing to do"


def test_pages_costs_coverage_and_explain_show_the_present_path(workspace: Workspace) -> None:
    paid = costs(workspace, task_types=True).task_type
    full = crowded(workspace, 0)
    again = changed_by(workspace, lambda base: aliases.move(base, ONE, "colour"))
    moved = "colour~ocr a"
    items = {item.task_type for item in contact_sheet.report_data(RunResults(again)).items}
    assert moved in items and ONE not in items
    assert costs(again, task_types=True).task_type[moved] == paid[ONE]
    now = crowded(again, 0)
    assert now["colour"] * 4 + now["ocr"] * 2 == pytest.approx(full["colour"] * 3 + full["ocr"] * 3)
    story = explain(again, moved)
    assert (story["asked_as"], story["matched"]) == (ONE, explain(workspace.snapshot(), ONE)["matched"])
    assert story["releases"] == {"v000001": list(released(again, 1).values()).count(ONE)}
    assert explain(again, ONE)["successor"] == moved
    image = next(iter(again.registry.claims())).image
    shown = {match["task_type"] for match in explain(again, image)["matches"]}
    assert ONE not in shown


def test_merged_answers_of_the_first_stand(workspace: Workspace, tiny_models: TinyModels) -> None:
    former = released(workspace, 1)
    base = TaxonomyStore(workspace).version()
    renamed = diff(base, aliases.merge(base, [ONE, OTHER], "ocr~letters")).renamed
    answers, paid = carried_answers(workspace, base, renamed), costs(workspace, task_types=True).task_type
    assert (answers.kept.share, answers.dropped.share) == (paid[ONE], paid[OTHER])
    again = changed_by(workspace, lambda base: aliases.merge(base, [ONE, OTHER], "ocr~letters"))
    changes, now = next_changes(again), released(again, 2)
    assert {now[pair] for pair, path in former.items() if path == ONE and pair in now} == {"ocr~letters"}
    assert not [pair for pair, path in former.items() if path == OTHER and pair in now]
    assert changes.lost[Loss.REPLACED] == list(former.values()).count(OTHER) > 0
    assert not [unit for unit in tiny_models.seen if "letters" in unit[3]], "what moves up is asked by its former path"


def test_asked_again_under_the_new_path(workspace: Workspace, tiny_models: TinyModels) -> None:
    former = Counter(released(workspace, 1).values())
    again = changed_by(workspace, lambda base: aliases.rename(base, ONE, "letters", keep=False))
    assert any("ocr~letters" in unit[3] for unit in tiny_models.seen)
    assert next_changes(again).lost[Loss.REPLACED] == former[ONE]


def test_the_outlook_of_a_release_knows_renamed_task_types(workspace: Workspace) -> None:
    base = TaxonomyStore(workspace).version()
    renamed = aliases.rename(base, "ocr", "text")
    outlook = release_outlook(workspace, renamed.nodes)
    assert outlook is not None and (dict(outlook.lost), outlook.open) == ({}, 0), "proposed"
    again = changed_by(workspace, lambda base: aliases.rename(base, "ocr", "text"))
    outlook = release_outlook(again)
    assert outlook is not None and (dict(outlook.lost), outlook.open) == ({}, 0), "and published"


def test_names_that_people_write_go_through_every_file(workspace: Workspace, tmp_path: Path) -> None:
    name = "Schilder, \"Läden\" & <5 m: 路牌 | [x](y) *z* `q` $HOME ../../etc; 'o'"
    again = changed_by(workspace, lambda base: aliases.rename(base, ONE, name))
    publish.publish(again)
    path = f"ocr~{name}"
    assert path in released(again, 2).values()
    card = again.store.get(keys.release(2) + "README.md").decode()
    assert "[x](y)" not in card and "*z*" not in card and "<5" not in card, "Markdown and HTML are escaped"
    page = tmp_path / "page.html"
    contact_sheet.write(page, contact_sheet.report_data(RunResults(again)))
    assert "<5 m" not in page.read_text("utf-8")
    fetched = publish.fetch(again, publish.published(again)[-1], tmp_path / "copy")
    assert all(file.resolve().is_relative_to(fetched.resolve()) for file in fetched.rglob("*"))


def test_people_review_a_branch_by_its_present_path(workspace: Workspace) -> None:
    again = changed_by(workspace, lambda base: aliases.rename(base, "ocr", "text", keep=True))
    strata = {each.stratum["branch"]: each.of for each in draw_pairs(again, 100, ("branch",))}
    assert "ocr" not in strata and strata["text"] > 0
    by_type = {each.stratum["task_type"]: each.pair.task_type for each in draw_pairs(again, 100, ("task_type",))}
    assert all(stratum == shown for stratum, shown in by_type.items())
