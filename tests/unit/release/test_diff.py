"""``release diff``: what one release has against another, against the sets of both; and why."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fakes import MemoryStore
from tiny import TinyModels, tiny_images, tiny_models, tiny_seeds, tiny_settings, tiny_workspace

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.cli import main
from taskgalaxy_ops.drawing.svg import esc
from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.operations.takedown import take_down
from taskgalaxy_ops.records import Reason
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.release.changes import Loss
from taskgalaxy_ops.release.diff import ReleaseDiff, release_diff
from taskgalaxy_ops.release.published_rows import ReleaseRows
from taskgalaxy_ops.reports.pages.release_diff import release_diff_page
from taskgalaxy_ops.reports.text.release_diff import diff
from taskgalaxy_ops.taxonomy import add_types
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace

__all__ = ["tiny_models"]

Row = tuple[str, str, str, str, str]


@pytest.fixture
def workspace(tmp_path: Path, tiny_models: TinyModels) -> Workspace:
    """Twelve images, run and released."""
    tiny_seeds(tmp_path / "seeds.yaml")
    tiny_images(tmp_path / "images", 12)
    found = under(tmp_path)
    pipeline.ingest(found, "mine")
    pipeline.generate(found)
    publish.publish(found)
    return found


def under(folder: Path, workspace: Workspace | None = None, **changes: Any) -> Workspace:
    settings = tiny_settings(folder / "images", taxonomy={"seeds": str(folder / "seeds.yaml")}, **changes)
    store = None if workspace is None else workspace.store
    assert store is None or isinstance(store, MemoryStore)
    return tiny_workspace(settings, store)


def rules(**release: Any) -> dict[str, Any]:
    return {"release": {"validation": 0, "test": 0, "near_duplicate_bits": -1, **release}}


def rows(workspace: Workspace, version: int) -> dict[str, Row]:
    return {row[0]: row for row in ReleaseRows(workspace.store, version).samples_in_splits()}


def checked(workspace: Workspace, before: int = 1, after: int = 2) -> ReleaseDiff:
    """The comparison of two releases, whose numbers are those of their rows."""
    found = release_diff(workspace, f"v{before:06d}", f"v{after:06d}")
    was, now = rows(workspace, before), rows(workspace, after)
    assert found.samples == (len(was), len(now))
    assert found.kept == len(was.keys() & now.keys())
    assert found.kept + found.added + found.changed == len(now)
    gone = sum(found.gone.values()) - publish.published(workspace)[before - 1].withdrawn
    assert found.kept + gone + found.changed == len(was)
    lost = Counter(was[pair][1:4] for pair in was.keys() - now.keys())
    gained = Counter(now[pair][1:4] for pair in now.keys() - was.keys())
    assert found.changed == (lost & gained).total(), "of the same image, task type and form"
    page, lines = release_diff_page(found), "\n".join(diff(found))
    for why, number in found.gone.items():
        assert f"{number:,}  gone: {why}" in lines
        assert f"Examples: gone: {esc(why)}" in page or why == Loss.TAKEN_DOWN
    json.dumps(found.examples, default=str)
    return found


def test_what_a_cap_leaves_out_and_what_was_set_otherwise(workspace: Workspace, tmp_path: Path) -> None:
    capped = under(tmp_path, workspace, **rules(cap=1))
    publish.publish(capped)
    found = checked(capped)
    assert found.exact
    assert set(found.gone) == {Reason.OVER_CAP}
    assert [(each.name, each.before, each.after) for each in found.settings] == [("release.cap", None, 1)]
    assert (found.added, found.changed, found.moved) == (0, 0, {})
    words = {(each.image, each.task_type): each.before for each in found.examples}
    pair, image, task_type, *_ = next(row for row in rows(workspace, 1).values() if row[1:3] in words)
    assert ReleaseRows(workspace.store, 1).words_of([pair])[pair] == words[image, task_type]


def test_an_older_release_is_explained_by_what_is_kept_of_it(workspace: Workspace, tmp_path: Path) -> None:
    publish.publish(under(tmp_path, workspace, **rules(cap=1)))
    types = TaxonomyStore(workspace)
    grown = add_types(types.version().nodes, [f"ocr~ocr new {number}" for number in range(6)])
    types.publish(0, grown, [], "hand")
    again = under(tmp_path, workspace)
    pipeline.generate(again)
    publish.publish(again)
    assert set(checked(again, 1, 2).gone) == {Reason.OVER_CAP}
    assert not checked(again, 1, 2).exact
    latest = checked(again, 1, 3)
    assert latest.exact
    assert Loss.PUSHED_OUT in latest.gone
    assert checked(again, 2, 1).added > 0, "backwards, too"


def test_other_words_for_the_same_are_changes(workspace: Workspace, tmp_path: Path) -> None:
    raw = workspace.settings.model_dump(mode="json")["teacher"]
    other = under(tmp_path, workspace, teacher={**raw, "model": "another teacher"})
    pipeline.generate(other)
    publish.publish(other)
    found = checked(other)
    assert found.changed > 0
    assert {each.name for each in found.settings} == {"teacher.model"}
    both = [each for each in found.examples if each.before and each.after]
    assert both
    assert all(each.before != each.after for each in both)


def test_take_downs_and_moved_samples_are_told(workspace: Workspace, tmp_path: Path) -> None:
    other = under(tmp_path, workspace, **rules(test=0.5))
    publish.publish(other)
    moved = checked(other).moved
    assert moved == {"train → test": sum(row[4] == "test" for row in rows(other, 2).values())}
    assert "WARNING" in "\n".join(diff(checked(other)))
    gone = next(iter(rows(workspace, 1).values()))[1]
    held = sum(row[1] == gone for row in rows(workspace, 1).values())
    take_down(other, [gone])
    pipeline.generate(other)
    publish.publish(other)
    assert checked(other, 1, 3).gone == {Loss.TAKEN_DOWN: held}


def test_the_command_takes_the_last_two_and_writes_a_page(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("taskgalaxy_ops.cli.release_diff.workspace_of", lambda chosen: workspace)
    assert main(["release", "diff"]) != 0
    assert "name two releases" in capsys.readouterr().err
    publish.publish(under(tmp_path, workspace, **rules(cap=1)))
    assert main(["release", "diff", "--html", str(tmp_path / "page.html")]) == 0
    told = capsys.readouterr().out
    assert told.startswith("v000002 against v000001\n")
    assert "release.cap" in told
    assert "over the cap" in (tmp_path / "page.html").read_text()
    assert main(["release", "diff", "v000001", "v000002", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gone"].keys() == {"over the cap"}


def test_who_names_no_release_is_told_which_there_are(workspace: Workspace) -> None:
    with pytest.raises(SettingsError, match="no release 'v000009'"):
        release_diff(workspace, "v000001", "v000009")
