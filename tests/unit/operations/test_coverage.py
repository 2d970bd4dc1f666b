"""What people and scripts read of coverage: reports, groups, wish lists, a pile of images, and the page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from fakes import MemoryStore
from golden.golden_store import golden_workspace
from tiny import TYPES, TinyModels, tiny_images, tiny_models, tiny_seeds, tiny_settings, tiny_workspace

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.cli import main
from taskgalaxy_ops.errors import TaxonomyError
from taskgalaxy_ops.generation.coverage import Counts, Coverage, as_entry, coverage
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.models.encoders.base import normalise
from taskgalaxy_ops.operations.coverage import branch_of, listed, report, targets_of
from taskgalaxy_ops.operations.coverage_against import against
from taskgalaxy_ops.operations.coverage_groups import clustered, groups
from taskgalaxy_ops.operations.wishes import queries, samples_an_image, wishes
from taskgalaxy_ops.reports.pages.coverage import coverage_page
from taskgalaxy_ops.reports.text import coverage as coverage_text
from taskgalaxy_ops.settings import SourceSettings
from taskgalaxy_ops.storage.coverage_log import CoverageLog
from taskgalaxy_ops.taxonomy import aliases
from taskgalaxy_ops.taxonomy.labels import parent
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace

__all__ = ["tiny_models"]

PATHS = ("colour~a", "colour~b", "ocr~signs~c", "ocr~signs~d", "ocr~tables~e")
PLAIN = tiny_workspace(tiny_settings("x"), MemoryStore())
HOSTILE = "<script>alert(1)</script>\u202e & 'it'"


def made(samples: list[int], matched: list[int] | None = None, kept: list[int] | None = None) -> Coverage:
    matched, kept = matched or [9] * 5, kept or [5] * 5
    counts = Counts(*(np.array(each, np.int64) for each in (matched, kept, samples, samples)))
    return Coverage(
        taxonomy=3, types=PATHS, asked=PATHS, counts=counts, by_source={"one": counts}, by_form={}, images=7
    )


@pytest.fixture
def workspace(tmp_path: Path, tiny_models: TinyModels) -> Workspace:
    """Two dozen images, a task type each: some fit nothing."""
    settings = tiny_settings(
        tiny_images(tmp_path / "images", 24),
        match={"k": 1},
        taxonomy={"seeds": str(tiny_seeds(tmp_path / "seeds.yaml", [*TYPES, "ocr~signs & more"]))},
    )
    found = tiny_workspace(settings)
    pipeline.ingest(found, "mine")
    pipeline.generate(found)
    return found


# --- reports


def test_the_worst_come_first_and_a_reason_says_at_what_they_end() -> None:
    found = made([0, 8, 0, 2, 0], matched=[0, 9, 4, 9, 5], kept=[0, 9, 0, 9, 3])
    told = report(found, targets_of(PLAIN, found, 4))
    assert [each.path for each in told.types] == ["colour~a", "ocr~signs~c", "ocr~tables~e", "ocr~signs~d", "colour~b"]
    assert [each.why for each in told.types] == [
        "no image is near it",
        "it fits no image that is near it",
        "no pair is written",
        "",
        "",
    ]
    assert (told.starving, told.flooding, told.task_types, told.total["samples"]) == (4, 0, 5, 10)
    assert [(each.path, each.task_types, each.starving, each.samples) for each in told.branches] == [
        ("colour", 2, 1, 8),
        ("ocr", 3, 3, 2),
    ]


def test_a_branch_shows_what_lies_right_below_it() -> None:
    found = made([1, 2, 3, 4, 5])
    told = report(found, targets_of(PLAIN, found), branch=branch_of(found, "OCR"), below=5, most=1)
    assert [each.path for each in told.branches] == ["ocr~signs", "ocr~tables"]
    assert [each.path for each in told.types] == ["ocr~signs~c"]
    assert told.sources["one"]["samples"] == 12
    with pytest.raises(TaxonomyError, match="no task type is 'oc' or below it"):
        branch_of(found, "oc")


def test_the_target_is_given_or_the_settings_or_the_median_of_those_that_have_samples() -> None:
    branches = {"ocr": {"samples": 10, "tries": 30}, "ocr~signs": {"samples": 20, "tries": 60}}
    chosen = tiny_settings("x", targets={"samples": 50, "tries": 120, "branches": branches})
    found = made([0, 2, 4, 12, 0])
    assert targets_of(PLAIN, found, 9).tolist() == [9] * 5
    assert targets_of(PLAIN, found).tolist() == [4] * 5
    assert targets_of(tiny_workspace(chosen, MemoryStore()), found).tolist() == [50, 50, 20, 20, 10]
    assert targets_of(PLAIN, made([0] * 5)).tolist() == [1] * 5


def test_more_than_four_times_the_target_floods() -> None:
    found = made([0, 8, 9, 2, 1])
    assert report(found, targets_of(PLAIN, found, 2)).flooding == 1


def test_the_text_has_a_line_for_each_and_no_character_that_a_terminal_obeys() -> None:
    found = made([0, 8, 0, 2, 0])
    evil = Coverage(
        taxonomy=1,
        types=("a\x1b[31m~b",),
        asked=("a~b",),
        counts=Counts(*np.zeros((4, 1), np.int64)),
        by_source={},
        by_form={},
        images=0,
    )
    assert "\x1b" not in "".join(coverage_text.coverage(report(evil, np.ones(1, np.int64))))
    lines = coverage_text.coverage(report(found, targets_of(PLAIN, found, 4), most=2))
    assert lines[0] == "taxonomy 3: 5 task types, target 4 samples: 4 starve, 0 flood"
    assert len([line for line in lines if "›" in line]) == 2


# --- images that fit nothing


def test_images_that_look_alike_are_one_group_in_any_order() -> None:
    rng = np.random.default_rng(0)
    middles = normalise(rng.standard_normal((4, 32)))
    truth = np.repeat(np.arange(4), [40, 10, 5, 2])
    vectors = normalise(middles[truth] + 0.05 * rng.standard_normal((len(truth), 32)))
    group_of, _ = clustered(vectors, 4)
    assert len(set(zip(truth.tolist(), group_of.tolist(), strict=True))) == 4
    order = rng.permutation(len(truth))
    other, _ = clustered(vectors[order], 4)
    assert len(set(zip(group_of[order].tolist(), other.tolist(), strict=True))) == 4


def test_equal_images_are_one_group() -> None:
    group_of, middles = clustered(normalise(np.ones((5, 3))), 3)
    assert (set(group_of.tolist()), len(middles)) == ({0}, 1)


def test_every_image_that_fits_nothing_is_in_one_group(workspace: Workspace) -> None:
    found = coverage(workspace)
    alike = groups(workspace, found)
    assert found.unmatched > 2
    assert sum(group.images for group in alike) == found.unmatched
    fit = {each.image for each in RunResults(workspace).relevant}
    assert not fit & {image for group in alike for image in group.pictures}
    assert alike == groups(workspace, found)


# --- wishes


def test_a_wish_has_texts_and_the_nearest_images_that_fitted(workspace: Workspace) -> None:
    found = coverage(workspace)
    targets = targets_of(workspace, found, 3)
    wanted = wishes(workspace, found, targets, listed(found, targets).tolist())
    short = [path for path, samples in zip(found.types, found.counts.samples.tolist(), strict=True) if samples < 3]
    assert sorted(each.task_type for each in wanted.wishes) == short
    relevant = {(each.image, each.task_type) for each in RunResults(workspace).relevant}
    for wish in wanted.wishes:
        shown = [(each.image, wish.task_type) for each in wish.fitted]
        assert set(shown) <= relevant
        assert len(shown) == min(3, wish.kept)
        assert [each.similarity for each in wish.fitted] == sorted((e.similarity for e in wish.fitted), reverse=True)
    told = json.loads(json.dumps(wanted.to_json()))
    assert (told["format"], told["version"], told["simulated"]) == ("taskgalaxy wish list", 1, True)
    assert told["wishes"][0].keys() == {
        *("task_type", "samples", "target", "matched", "kept", "why", "images_wanted", "queries", "fitted")
    }


def test_queries_are_the_label_its_branch_and_what_the_encoder_is_given() -> None:
    assert queries("ocr~signs~road signs", ["a photo of {}"]) == [
        "road signs",
        "signs: road signs",
        "a photo of road signs, signs, ocr",
    ]
    assert queries("ocr", []) == ["ocr"]


def test_a_task_type_that_few_images_were_near_is_expected_to_do_as_the_others_do() -> None:
    gives = samples_an_image(made([0, 50, 0, 0, 0], matched=[0, 100, 0, 0, 0]))
    assert gives[0] == pytest.approx(0.5)
    assert gives[1] == pytest.approx(0.5)
    assert not samples_an_image(made([0] * 5, matched=[0] * 5)).any()


# --- a pile that is not registered


def test_what_was_renamed_has_what_it_had_under_its_present_path(workspace: Workspace) -> None:
    before, listed_before = coverage(workspace), TaxonomyStore(workspace).version()
    row = int(before.counts.samples.argmax())
    old, samples = before.types[row], int(before.counts.samples[row])
    new = f"{parent(old)}~a name of another kind"
    version = aliases.rename(listed_before, old, new)
    TaxonomyStore(workspace).publish(listed_before.number, version.nodes, [], "hand")
    found = coverage(workspace)
    place = found.types.index(new)
    assert old not in found.types and list(found.types) == sorted(found.types)
    assert (found.asked[place], int(found.counts.samples[place])) == (old, samples)
    assert as_entry(found).samples == as_entry(before).samples, "by the path that is asked: the match stage reads it"
    targets = np.full(len(found.types), samples + 1)
    (wish,) = wishes(workspace, found, targets, [place]).wishes
    assert wish.task_type == new and wish.fitted


def test_a_pile_is_matched_and_nothing_of_it_is_kept(
    workspace: Workspace, tmp_path: Path, tiny_models: TinyModels
) -> None:
    pile = tiny_images(tmp_path / "pile", 6, first=21)  # three of them are known
    (pile / "broken.png").write_bytes(b"no image")
    found = coverage(workspace)
    targets = targets_of(workspace, found, 100)
    assert isinstance(workspace.store, MemoryStore)
    before, asked = dict(workspace.store.objects), tiny_models.requests
    added = against(workspace, SourceSettings(location=str(pile)), found, targets)
    assert (added.files, added.new, added.known, added.rejected) == (7, 3, 3, {"not an image": 1})
    assert workspace.store.objects == before
    assert tiny_models.requests == asked
    # What comes when the pile is registered after all is what was said.
    settings = workspace.settings.model_copy(update={"sources": {"pile": SourceSettings(location=str(pile))}})
    registered = Workspace(settings, workspace.store)
    registered.__dict__["encoder"] = workspace.encoder
    pipeline.ingest(registered, "pile")
    pipeline.generate(registered, pipeline.RunOptions(last_stage="match"))
    more = coverage(registered).counts.matched - found.counts.matched
    assert {each.path: each.images for each in added.types} == {
        path: number for path, number in zip(found.types, more.tolist(), strict=True) if number
    }
    assert added.matches == 3 * settings.match.k
    assert (added.starving, added.reached, added.filled) == (len(found.types), len(added.types), 0)


# --- the page


def test_the_page_loads_nothing_and_holds_labels_only_as_data(workspace: Workspace) -> None:
    found = coverage(workspace)
    types = (HOSTILE, *found.types[1:])
    by_source = {HOSTILE: found.counts}
    evil = Coverage(
        taxonomy=0, types=types, asked=found.asked, counts=found.counts, by_source=by_source, by_form={},
        images=1, unmatched=1, drawn=found.drawn,
    )  # fmt: skip
    page = coverage_page(workspace, evil, targets_of(workspace, evil), groups(workspace, evil))
    assert "<script>alert" not in page
    assert "\u202e" not in page
    assert "Simulated" in page
    assert page.count('<img src="data:image/jpeg;base64,') >= 3
    head = page[: page.index("<style>")]
    assert "default-src 'none'" in head
    assert "http" not in head.replace("http-equiv", "")
    assert "connect-src" not in head


# --- the command


def test_the_command_writes_page_and_wishes_and_records_when_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = golden_workspace(tmp_path / "store")
    settings = tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump(golden.settings.model_dump(mode="json")), encoding="utf-8")
    page, wished = tmp_path / "made" / "page.html", tmp_path / "made" / "wishes.json"
    common = ["coverage", "--settings", str(settings), "--json"]
    assert main([*common, "--html", str(page), "--wishes", str(wished), "--target", "2"]) == 0
    told = json.loads(capsys.readouterr().out)
    found = coverage(golden)
    assert told["total"]["samples"] == found.counts.sums()["samples"] > 0
    assert len(told["types"]) == len(found.types)
    assert sum(group["images"] for group in told["groups"]) == told["unmatched"]
    assert page.read_text("utf-8").startswith("<!doctype html>")
    assert len(json.loads(wished.read_text("utf-8"))["wishes"]) == told["starving"]
    assert CoverageLog(golden.store).newest() is None
    assert main([*common, "--record"]) == 0
    assert json.loads(capsys.readouterr().out)["entry"] == 1
    newest = CoverageLog(golden.store).newest()
    assert newest is not None
    assert sum(newest.samples.values()) == told["total"]["samples"]
    assert main([*common[:-1], "--branch", "no such branch"]) == 1
    assert "no task type is 'no such branch'" in capsys.readouterr().err
