"""Targets: what is asked in waves, by any workers, comes to what asking one at a time would; and what people are told.

``tests/history`` holds that a release is this walk, whatever happened to the store before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import MemoryStore
from hypothesis import given
from hypothesis import strategies as st
from tiny import TinyModels, tiny_images, tiny_models, tiny_seeds, tiny_settings, tiny_workspace

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.generation.coverage import coverage
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.generation.targets import Candidate, Candidates, Standing, TargetRules, Try, Walk, counts
from taskgalaxy_ops.operations.explain import explain
from taskgalaxy_ops.operations.forecast import forecast
from taskgalaxy_ops.operations.plan import plan
from taskgalaxy_ops.operations.status import status
from taskgalaxy_ops.records import Match, Node
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.release.changes import Loss
from taskgalaxy_ops.reports.text import explain as explain_text
from taskgalaxy_ops.reports.text import plan as plan_text
from taskgalaxy_ops.reports.text import status as status_text
from taskgalaxy_ops.settings import BranchTarget, TargetSettings
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.taxonomy import TaxonomyVersion
from taskgalaxy_ops.taxonomy.weaknesses import WeakBranch, Weaknesses
from taskgalaxy_ops.workspace import Workspace

__all__ = ["tiny_models"]

TYPES = ("ocr~a", "ocr~b", "shape")


def candidates(images: int, types: tuple[str, ...] = TYPES) -> Candidates:
    return Candidates.of(Match(f"{n:02}", path, 0.5, 1) for n in range(images) for path in types)


def walk(images: int, forms: int = 1, **targets: Any) -> Walk:
    return Walk(candidates(images), TargetRules(TargetSettings(**targets)), lambda _: forms)


def one_at_a_time(found: Walk, fate: Callable[[Candidate], int]) -> dict[str, list[str]]:
    """By task type, the images that are asked about if each waits for the answer on the one before."""
    asked: dict[str, list[str]] = {}
    for path, images in found.candidates.images.items():
        target, samples = found.targets.of(path), 0
        asked[path] = []
        for image in images[: target.tries]:
            if samples >= target.samples:
                break
            asked[path].append(image)
            samples += fate((image, path))
    return asked


amounts = st.integers(0, 12)


@given(
    images=st.integers(0, 40),
    forms=st.integers(1, 2),
    samples=amounts,
    more=amounts,
    share=st.integers(0, 10),
    seed=st.randoms(use_true_random=False),
    data=st.data(),
)
def test_waves_end_where_asking_one_at_a_time_ends(
    images: int, forms: int, samples: int, more: int, share: int, seed: Any, data: st.DataObject
) -> None:
    found = walk(images, forms, samples=samples, tries=max(1, samples + more))
    fates = {
        (image, path): sum(seed.random() * 10 < share for _ in range(forms))
        for path, all_images in found.candidates.images.items()
        for image in all_images
    }
    expected = one_at_a_time(found, fates.__getitem__)
    passed: set[Candidate] = set()
    while wave := found.wave(found.walked(), passed):
        assert not wave & found.tried.keys()
        passed |= wave
        # Another worker may not see all of these answers: what it holds for certain is certain all the same.
        stale = Walk(found.candidates, found.targets, found.forms, {each: found.tried[each] for each in found.tried})
        for each in wave:
            found.tried[each] = Try(fates[each], 0)
            if data.draw(st.booleans()):
                stale.tried[each] = found.tried[each]
        certain = {(image, path) for path, chosen in expected.items() for image in chosen}
        assert stale.taken(stale.walked()) <= certain
    walked = found.walked()
    assert {path: found.candidates.images[path][: each.tries] for path, each in walked.items()} == expected
    for path, each in walked.items():
        assert each.open == 0 and each.samples == sum(fates[image, path] for image in expected[path])
        assert (each.standing is Standing.REACHED) == (each.samples >= samples)
    if images and samples <= 9 and forms == 1 and samples + more < 10:  # too few tries to know a rate: no image in vain
        assert passed == found.taken(walked)


def test_what_is_asked_beyond_need_is_little() -> None:
    found = walk(2000, samples=200, tries=900)
    fates = {
        (image, path): int(hash((int(image), TYPES.index(path), 7)) % 10 < rate)
        for path, rate in zip(TYPES, (3, 5, 9), strict=True)
        for image in found.candidates.images[path]
    }
    expected = sum(map(len, one_at_a_time(found, fates.__getitem__).values()))
    passed: set[Candidate] = set()
    waves = 0
    while wave := found.wave(found.walked(), passed):
        passed |= wave
        waves += 1
        found.tried.update((each, Try(fates[each], 0)) for each in wave)
    assert expected <= len(passed) <= 1.1 * expected
    assert waves < 15, "each wave waits for the slowest answer of the one before"


def test_a_new_image_comes_before_no_larger_share_of_the_others_and_changes_no_order() -> None:
    before, after = candidates(100).images["shape"], candidates(110).images["shape"]
    assert [image for image in after if int(image) < 100] == before
    assert sum(int(image) >= 100 for image in after[:55]) in range(1, 12)  # half of ten, about
    assert Candidates.of(Match(image, "shape", 0.9, 1) for image in reversed(after)).images["shape"] == after


def test_those_furthest_from_their_target_are_asked_first_and_what_has_no_answer_keeps_nobody_waiting() -> None:
    found = walk(6, samples=2, tries=6)
    first = {path: images[0] for path, images in found.candidates.images.items()}
    found.tried[first["shape"], "shape"] = Try(1, 0)
    wave = found.wave(found.walked(), ())
    assert {path for _, path in wave} == {"ocr~a", "ocr~b"}
    then = found.wave(found.walked(), wave)  # which stayed without an answer
    assert then == {(found.candidates.images["shape"][1], "shape")}
    assert found.walked()["ocr~a"].standing is Standing.SHORT


def test_why_a_task_type_ends_short_of_its_target_has_a_name() -> None:
    found = walk(3, samples=2, tries=2, branches={"shape": {"samples": 2, "tries": 9}, "nowhere": {}})
    for path, images in found.candidates.images.items():
        found.tried |= {(image, path): Try(int(path == "ocr~b"), 0) for image in images}
    told = counts(found.walked(), [*TYPES, "colour"], found.targets)
    assert told.types == {"at its target": 1, "on its way": 0, "given up: tries used up": 1, "too few images": 1}
    assert (told.without_images, told.unmet_branches) == (1, ["nowhere"])


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        ({"samples": 5, "tries": 4}, "targets: 4 tries give 4 samples at most, not 5: raise tries or lower samples"),
        ({"branches": {"ocr": {"samples": 300}}}, "targets.branches.ocr: 120 tries give 120 samples at most"),
        ({"branches": {"ocr~": {}}}, "'ocr~' is no path of a node"),
        ({"samples": -1}, "targets.samples is -1"),
        ({"tries": 0}, "targets.tries is 0"),
        ({"sample": 1}, "targets.sample: no such field"),
    ],
)
def test_targets_that_cannot_be_met_are_refused(targets: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        tiny_settings("nowhere", targets=targets)
    assert said in str(refused.value)


def test_the_longest_path_counts_and_several_forms_give_several_samples() -> None:
    found = TargetSettings(branches={"ocr": {"samples": 9}, "ocr~a": {"samples": 3}})
    assert [found.of(path).samples for path in ("ocr~a~b", "ocr~ab", "ocr", "ocrs", "shape")] == [3, 9, 9, 50, 50]
    variants = {"variants": ["plain", "chain_of_thought"]}
    assert tiny_settings("nowhere", write=variants, targets={"samples": 8, "tries": 4}).targets
    assert "targets" not in tiny_settings("nowhere").model_dump(mode="json")


# --- a store


@pytest.fixture
def opened(tmp_path: Path, tiny_models: TinyModels) -> Callable[..., Workspace]:
    """Opens a store of twelve images, always the same one, or the one that is given."""
    images, seeds = tiny_images(tmp_path / "images", 12), tiny_seeds(tmp_path / "seeds.yaml")
    shared = MemoryStore()

    def workspace(store: MemoryStore | None = None, **changes: Any) -> Workspace:
        settings = tiny_settings(images, taxonomy={"seeds": str(seeds)}, match={"k": 6}, **changes)
        found = tiny_workspace(settings, shared if store is None else store)
        if not found.registry.scans():
            pipeline.ingest(found, "mine")
        return found

    return workspace


def released(workspace: Workspace) -> dict[str, bytes]:
    prefix = keys.release(publish.publish(workspace).release.version)
    names = [listed.key for listed in workspace.store.list(prefix) if not listed.key.endswith("history.json")]
    return {name.removeprefix(prefix): workspace.store.get(name) for name in names}


AIM = {"samples": 1, "tries": 4}


def test_targets_ask_less_and_raising_them_asks_only_what_is_new(
    opened: Callable[..., Workspace], tiny_models: TinyModels
) -> None:
    result = pipeline.generate(opened(targets=AIM))
    assert result.pending == 0
    few = tiny_models.requests
    low = released(opened(targets=AIM))
    each = Counter(sample.task_type for sample in RunResults(opened(targets=AIM)).samples)
    assert each and max(each.values()) == 1

    pipeline.generate(opened(targets={"samples": 2, "tries": 8}))
    assert tiny_models.requests > few
    high = released(opened(targets={"samples": 2, "tries": 8}))
    assert high != low
    pipeline.generate(opened())  # no targets: all is asked
    assert max(tiny_models.seen.values()) == 1, "something was asked twice"
    asked = tiny_models.requests
    for aim, before in ((AIM, low), ({"samples": 2, "tries": 8}, high)):
        pipeline.generate(opened(targets=aim))
        assert released(opened(targets=aim)) == before
    assert tiny_models.requests == asked


def test_coverage_counts_what_the_targets_take(opened: Callable[..., Workspace], tiny_models: TinyModels) -> None:
    pipeline.generate(opened())
    for aim in (AIM, {"samples": 0, "tries": 1}):
        found = coverage(opened(targets=aim))
        pipeline.generate(opened(targets=aim))
        each = Counter(sample.task_type for sample in RunResults(opened(targets=aim)).samples)
        assert dict(zip(found.asked, found.counts.samples.tolist(), strict=True)) == {
            path: each[path] for path in found.asked
        }
    assert found.unmatched == 0, "what is not asked about may fit"


def test_a_lowered_target_is_named_as_why_samples_are_lost(
    opened: Callable[..., Workspace], tiny_models: TinyModels
) -> None:
    aim = {"samples": 2, "tries": 8}
    pipeline.generate(opened(targets=aim))
    before = publish.publish(opened(targets=aim)).release.samples
    view = opened(targets=AIM)
    outlook = plan(view).outlook
    assert outlook is not None and set(outlook.lost) == {Loss.NOT_TRIED} and outlook.open == 0
    pipeline.generate(view)
    receipt = publish.publish(view)
    assert receipt.changes is not None and dict(receipt.changes.lost) == dict(outlook.lost)
    assert receipt.release.samples == before - outlook.losses + receipt.changes.gained


def test_targets_beyond_what_there_is_change_no_key(opened: Callable[..., Workspace], tiny_models: TinyModels) -> None:
    pipeline.generate(opened())
    asked = tiny_models.requests
    markers = set(opened().store.list("homes/"))
    pipeline.generate(opened(targets={"samples": 100, "tries": 100}))
    assert tiny_models.requests == asked
    assert set(opened().store.list("homes/")) == markers


def test_a_run_whose_models_die_is_continued_to_the_same_release(
    opened: Callable[..., Workspace], tiny_models: TinyModels
) -> None:
    aim = {"samples": 2, "tries": 8}
    pipeline.generate(opened(targets=aim))
    whole, asked = released(opened(targets=aim)), dict(tiny_models.seen)
    store = MemoryStore()
    for replies in (3, 11, None):
        tiny_models.start(replies)
        result = pipeline.generate(opened(store, targets=aim))
        assert bool(result.pending) == (replies is not None)
    assert released(opened(store, targets=aim)) == whole
    assert set(tiny_models.seen) <= set(asked)


def test_people_are_told(opened: Callable[..., Workspace], tiny_models: TinyModels) -> None:
    aim = {"samples": 1, "tries": 2, "branches": {"colour": {"samples": 9, "tries": 99}, "nowhere": {"samples": 1}}}
    view = opened(targets=aim)
    pipeline.generate(view, pipeline.RunOptions(last_stage="match"))
    planned = plan(view)
    filtering = next(each for each in planned.stages if each.stage == "filter")
    assert 0 < filtering.units.low <= filtering.units.high < 12 * 6
    assert "on its way" in "\n".join(plan_text.plan(planned))
    assert forecast(view).unknown == ["mine"]

    pipeline.generate(view)
    found = status(view)
    assert found.targets is not None and found.targets.types["on its way"] == 0
    said = "\n".join(status_text.status(found))
    assert "at its target" in said and "too few images" in said and "targets.branches: nowhere" in said
    assert all(each.units.high == 0 for each in plan(view).stages)
    results = RunResults(view)
    (path, *_) = {sample.task_type for sample in results.samples}
    told = explain(view, path)
    assert told["target"]["samples"] == sum(sample.task_type == path for sample in results.samples)
    assert " images tried, " in "\n".join(explain_text.explained(told))
    fates = [explain(view, image) for image in results.images]
    assert any("not tried: " in "\n".join(explain_text.explained(each)) for each in fates)
    assert not any("PENDING" in "\n".join(explain_text.explained(each)) for each in fates)
    card = released(view)["README.md"].decode()
    assert "| at its target |" in card and "1 samples, 2 tries" in card


def test_runs_of_two_sources_at_once_end_where_one_run_of_both_does(
    opened: Callable[..., Workspace], tiny_models: TinyModels, tmp_path: Path
) -> None:
    """Each run asks about its own images, by what it has seen of the others'."""
    aim = {"samples": 2, "tries": 6}
    sources = {
        "mine": {"location": str(tmp_path / "images")},
        "yours": {"location": str(tiny_images(tmp_path / "more", 8, first=12))},
    }
    made = []
    for order in (("mine", "yours", "mine", None), (None,)):
        workspace = opened(MemoryStore(), targets=aim, sources=sources)
        pipeline.ingest(workspace, "yours")
        for source in order:
            tiny_models.start(None)
            result = pipeline.generate(workspace, pipeline.RunOptions(sources=source and [source]))
            assert not tiny_models.seen or max(tiny_models.seen.values()) == 1
        assert result.pending == 0
        made.append(released(workspace))
    assert made[0] == made[1]


SETTINGS = TargetSettings(samples=10, tries=25, branches={"reading": BranchTarget(samples=3, tries=9)})


def test_a_branch_is_named_by_the_path_that_people_are_shown() -> None:
    nodes = (
        Node("reading", 1, "hand", "live"),
        Node("reading~signs", 2, "hand", "live", asked_as="ocr~sign reading"),
        Node("colour", 1, "hand", "live"),
    )
    rules = TargetRules(SETTINGS, TaxonomyVersion(1, 0, nodes).shown)
    assert (rules.of("ocr~sign reading").samples, rules.of("colour").samples) == (3, 10)


def test_a_weak_branch_has_a_higher_target_and_no_branch_a_lower_one() -> None:
    weak = Weaknesses("m", "s", (WeakBranch("reading", 1.5, ()), WeakBranch("colour", 0.4, ())))
    rules = TargetRules(SETTINGS, weaknesses=weak)
    found = {path: rules.of(path) for path in ("reading~signs", "colour~hues", "counting")}
    assert {path: (each.samples, each.tries) for path, each in found.items()} == {
        "reading~signs": (5, 14),
        "colour~hues": (10, 25),
        "counting": (10, 25),
    }
