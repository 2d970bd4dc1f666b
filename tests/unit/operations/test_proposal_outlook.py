"""What a proposal is said to do is what it does once it is published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes import MemoryStore
from tiny import TYPES, TinyModels, tiny_images, tiny_models, tiny_seeds, tiny_settings, tiny_workspace

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.operations import proposal_outlook as module
from taskgalaxy_ops.operations.plan import plan
from taskgalaxy_ops.operations.proposal_outlook import ProposalOutlook, proposal_outlook
from taskgalaxy_ops.records import Match
from taskgalaxy_ops.reports.html import thumbnail
from taskgalaxy_ops.reports.pages import proposal as pages
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.taxonomy import add_types
from taskgalaxy_ops.taxonomy.store import Proposal, TaxonomyStore
from taskgalaxy_ops.workspace import Workspace

__all__ = ["tiny_models"]

NEW = [f"ocr~ocr new {n}" for n in range(4)] + ["animals~birds~count birds"]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    folder = tiny_images(tmp_path / "images", 9)
    settings = tiny_settings(folder, taxonomy={"seeds": str(tiny_seeds(tmp_path / "seeds.yaml"))})
    return tiny_workspace(settings, MemoryStore())


def proposed(workspace: Workspace) -> Proposal:
    taxonomy_store = TaxonomyStore(workspace)
    taxonomy_store.ensure_seeds()
    base = taxonomy_store.version()
    return taxonomy_store.proposal(taxonomy_store.propose(base.number, add_types(base.nodes, NEW), []))


def test_it_counts_the_questions_that_a_published_proposal_asks(workspace: Workspace, tiny_models: TinyModels) -> None:
    pipeline.ingest(workspace, "mine")
    assert pipeline.generate(workspace).pending == 0
    proposal, passes = proposed(workspace), workspace.encoder.passes
    requests = tiny_models.requests
    found = proposal_outlook(workspace, proposal)
    assert (tiny_models.requests, workspace.encoder.passes - passes) == (requests, len(NEW)), "only the labels"
    assert (found.images, found.matched, found.unmatched) == (9, 9, 0)
    assert set(found.types) == set(NEW)
    assert found.pair_list_cost and not found.pair_cost

    TaxonomyStore(workspace).publish(proposal.base, proposal.nodes, [], "expand")
    (filtered,) = [each for each in plan(workspace).stages if each.stage == "filter"]
    assert found.pairs == filtered.units.expected > 0
    made = pipeline.generate(workspace)
    rows = [
        row
        for output in made.matches.values()
        for row in workspace.stage_outputs.load(output, "matches", Match)
        if row.task_type in found.types
    ]
    for path, each in found.types.items():
        mine = sorted((row for row in rows if row.task_type == path), key=lambda row: -row.similarity)
        assert each.images == len(mine)
        assert set(each.pictures) <= {row.image for row in mine}
        assert len(each.pictures) == min(3, len(mine))
    nearest = [path for path, _ in found.types[NEW[0]].nearest]
    assert len(nearest) == 3 and not set(nearest) & set(NEW)
    assert "ocr~ocr a" in found.types[NEW[0]].siblings
    assert found.types[NEW[-1]].siblings == (), "a branch of its own"


def test_the_room_that_a_leaf_leaves_as_it_becomes_a_group_is_counted(
    workspace: Workspace, tiny_models: TinyModels
) -> None:
    pipeline.ingest(workspace, "mine")
    assert pipeline.generate(workspace).pending == 0
    taxonomy_store = TaxonomyStore(workspace)
    base = taxonomy_store.version()
    nodes = add_types(base.nodes, ["animals~birds~count birds", *(f"{path}~finer" for path in TYPES[:2])])
    proposal = taxonomy_store.proposal(taxonomy_store.propose(base.number, nodes, []))
    found = proposal_outlook(workspace, proposal)
    taxonomy_store.publish(base.number, nodes, [], "expand")
    (filtered,) = [each for each in plan(workspace).stages if each.stage == "filter"]
    assert found.moved_up > 0
    assert found.pairs == filtered.units.expected


def test_a_large_store_is_estimated(
    workspace: Workspace, tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.ingest(workspace, "mine")
    pipeline.generate(workspace)
    monkeypatch.setattr(module, "MATCHED_IMAGES", 4)
    found = proposal_outlook(workspace, proposed(workspace))
    assert (found.images, found.matched) == (9, 4)
    assert "about" in pages.outlook_lines(found)[0]


def test_without_images_nothing_is_claimed(workspace: Workspace) -> None:
    found = proposal_outlook(workspace, proposed(workspace))
    assert (found.images, found.pairs, found.pair_cost) == (0, 0, None)
    assert "not known" in " ".join(pages.outlook_lines(found))
    pipeline.ingest(workspace, "mine")  # registered, and without an embedding
    found = proposal_outlook(workspace, proposed(workspace))
    assert (found.images, found.unmatched) == (0, 9)


def test_the_page_shows_pictures_neighbours_and_cost(workspace: Workspace, tiny_models: TinyModels) -> None:
    pipeline.ingest(workspace, "mine")
    pipeline.generate(workspace)
    proposal = proposed(workspace)
    found = proposal_outlook(workspace, proposal)

    def page(thumbnail_of: Any, outlook: ProposalOutlook = found) -> str:
        return pages.proposal_page(proposal, outlook, thumbnail_of, simulated=True)

    shown = page(lambda image: thumbnail(workspace.store.get(keys.blob(image))))
    pictures = sum(len(each.pictures) for each in found.types.values())
    assert shown.count('<img src="data:image/jpeg') == pictures > 0
    assert "ocr › ocr a (" in shown
    assert "at list prices" in shown
    for image in {each for outlook in found.types.values() for each in outlook.pictures}:
        workspace.store.delete(keys.blob(image))  # taken down meanwhile
    assert "data:image/jpeg" not in page(lambda image: thumbnail(workspace.store.get(keys.blob(image))))
    short = pages.proposal_markdown(proposal, found, "/galaxy/reports/proposal-1", "/galaxy/images")
    assert "(/galaxy/reports/proposal-1)" in short
    assert "![](/galaxy/images/" in short
