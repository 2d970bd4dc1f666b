"""What a release says that it gained and lost against the one before: all of it, and each sample for its reason."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tiny
from fakes import MemoryStore
from tiny import TYPES, TinyModels, tiny_images, tiny_models, tiny_seeds, tiny_settings, tiny_workspace

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.errors import DamageError
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.operations.takedown import take_down
from taskgalaxy_ops.records import Match, Reason
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.release.changes import Loss
from taskgalaxy_ops.release.published_rows import ReleaseRows, keep_made_of, made_of
from taskgalaxy_ops.settings import Settings
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.taxonomy import add_types
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace

__all__ = ["tiny_models"]

IMAGES = 12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_seeds(tmp_path / "seeds.yaml")
    tiny_images(tmp_path / "images", IMAGES)
    return tmp_path


def settings_of(folder: Path, **changes: Any) -> Settings:
    return tiny_settings(folder / "images", taxonomy={"seeds": str(folder / "seeds.yaml")}, **changes)


@pytest.fixture
def workspace(folder: Path, tiny_models: TinyModels) -> Workspace:
    """Twelve images in six shards, run and released."""
    workspace = tiny_workspace(settings_of(folder))
    pipeline.ingest(workspace, "mine")
    assert pipeline.generate(workspace).pending == 0
    receipt = publish.publish(workspace)
    assert (receipt.made, receipt.changes) == (True, None), "the first has none to compare with"
    return workspace


def next_release(
    workspace: Workspace, settings: Settings, *, run: bool = True, partial: bool = False
) -> dict[str, int]:
    """Run and release under these settings; checks that nothing is missed, and returns what was lost, by reason."""
    store = workspace.store
    assert isinstance(store, MemoryStore)
    before = ids(workspace)
    pipeline.generate(tiny_workspace(settings, store))
    receipt = publish.publish(tiny_workspace(settings, store), partial=partial)
    after, changes = ids(workspace), receipt.changes
    assert receipt.made and changes is not None
    assert changes.since == "v000001"
    assert (changes.kept, changes.gained) == (len(before & after), len(after - before))
    withdrawn = publish.published(workspace)[0].withdrawn
    assert sum(changes.lost.values()) == len(before - after) + withdrawn
    assert all(changes.lost.values())
    history = json.loads(store.get(keys.release(receipt.release.version) + "history.json"))
    assert history["changes"] == {
        "since": "v000001",
        "kept": changes.kept,
        "gained": changes.gained,
        "lost": changes.lost,
    }
    return dict(changes.lost)


def ids(workspace: Workspace) -> set[str]:
    """The samples of the latest release."""
    return {pair for pair, *_ in ReleaseRows(workspace.store, publish.published(workspace)[-1].version).samples()}


def test_what_is_over_a_lower_cap(workspace: Workspace, folder: Path) -> None:
    samples = Counter(task_type for _, _, task_type, _ in ReleaseRows(workspace.store, 1).samples())
    capped = settings_of(folder, release={"validation": 0, "test": 0, "near_duplicate_bits": -1, "cap": 2})
    lost = next_release(workspace, capped)
    assert lost == {Reason.OVER_CAP: sum(max(0, number - 2) for number in samples.values())}


def test_what_misses_a_higher_quorum(workspace: Workspace, folder: Path) -> None:
    before = ids(workspace)
    lost = next_release(workspace, settings_of(folder, vote={"quorum": 3}))
    assert lost == {Loss.NO_QUORUM: len(before - ids(workspace))}
    assert lost[Loss.NO_QUORUM] > 0


def test_what_new_task_types_push_out_of_the_nearest(workspace: Workspace, folder: Path) -> None:
    types = TaxonomyStore(workspace)
    grown = add_types(types.version().nodes, [f"ocr~ocr new {number}" for number in range(6)])
    types.publish(0, grown, [], "hand")
    former = list(ReleaseRows(workspace.store, 1).samples())
    lost = next_release(workspace, settings_of(folder))
    results = RunResults(tiny_workspace(workspace.settings, workspace.store))  # type: ignore[arg-type]
    nearest = {
        (match.image, match.task_type)
        for output in results.result.matches.values()
        for match in workspace.stage_outputs.load(output, "matches", Match)
    }
    gone = [pair for pair, image, task_type, _ in former if (image, task_type) not in nearest]
    assert lost.pop(Loss.PUSHED_OUT) == len(gone) > 0
    assert set(lost) <= {Reason.DUPLICATE_PAIR}, "a new task type may ask what an old one asks, with a smaller id"


def test_what_was_retired(workspace: Workspace, folder: Path) -> None:
    types = TaxonomyStore(workspace)
    types.publish(0, types.version().retire(TYPES[0], TYPES[1]).nodes, [], "hand")
    former = Counter(task_type for _, _, task_type, _ in ReleaseRows(workspace.store, 1).samples())
    assert next_release(workspace, settings_of(folder)) == {Loss.RETIRED: former[TYPES[0]] + former[TYPES[1]]}


def test_images_that_nobody_claims_and_images_that_were_taken_down(workspace: Workspace, folder: Path) -> None:
    former = Counter(image for _, image, *_ in ReleaseRows(workspace.store, 1).samples())
    down, gone, *_ = sorted(former, key=lambda image: -former[image])
    files = {claim.image: claim.file for claim in workspace.registry.claims()}
    take_down(workspace, [down])
    (folder / "images" / files[gone]).unlink()
    pipeline.ingest(tiny_workspace(workspace.settings, workspace.store), "mine")  # type: ignore[arg-type]
    lost = next_release(workspace, settings_of(folder))
    assert lost == {Loss.TAKEN_DOWN: former[down], Loss.UNCLAIMED: former[gone]}


def test_another_teacher_says_otherwise(workspace: Workspace, folder: Path) -> None:
    teacher = {**workspace.settings.teacher.model_dump(mode="json"), "model": "another"}
    lost = next_release(workspace, settings_of(folder, teacher=teacher))
    assert set(lost) <= {Loss.NOT_FITTING, Loss.WRITTEN_ANEW} and len(lost) == 2


def test_a_teacher_that_gives_no_usable_answer_finds_nothing_unfitting(
    workspace: Workspace, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = {**workspace.settings.teacher.model_dump(mode="json"), "model": "another"}
    reply = tiny._reply

    def vague(stage: str, drawn: float, token: str) -> dict[str, Any]:
        return {"fits": True if drawn < 0.9 else "perhaps"} if stage == "filter" else reply(stage, drawn, token)

    monkeypatch.setattr(tiny, "_reply", vague)
    lost = next_release(workspace, settings_of(folder, teacher=teacher))
    assert set(lost) == {Loss.UNJUDGED, Loss.WRITTEN_ANEW}


def test_a_variant_that_is_written_no_more(workspace: Workspace, folder: Path) -> None:
    before = ids(workspace)
    lost = next_release(workspace, settings_of(folder, write={"variants": ["chain_of_thought"]}))
    assert lost == {Reason.OTHER_VARIANT: len(before)}


def test_what_has_no_answer_yet_is_told_from_what_was_pushed_out(
    workspace: Workspace, folder: Path, tiny_models: TinyModels
) -> None:
    types = TaxonomyStore(workspace)
    types.publish(0, add_types(types.version().nodes, [f"ocr~ocr new {n}" for n in range(6)]), [], "hand")
    raw = [judge.model_dump(mode="json") for judge in workspace.settings.judges]
    judges = [{**judge, "revision": "2"} for judge in raw]
    tiny_models.start(25)
    lost = next_release(workspace, settings_of(folder, judges=judges), partial=True)
    assert lost[Loss.PUSHED_OUT] and lost[Loss.NO_ANSWER]
    assert set(lost) <= {Loss.PUSHED_OUT, Loss.NO_ANSWER, Loss.NO_QUORUM}


def test_a_damaged_release_keeps_none_from_being_made(workspace: Workspace, folder: Path) -> None:
    store = workspace.store
    assert isinstance(store, MemoryStore)
    (table,) = [key for key in store.objects if key.startswith("releases/v000001/data/")]
    store.objects[table] = b"damaged"
    with pytest.raises(DamageError):
        list(ReleaseRows(store, 1).samples())
    capped = settings_of(folder, release={"validation": 0, "test": 0, "near_duplicate_bits": -1, "cap": 1})
    receipt = publish.publish(tiny_workspace(capped, store))
    assert (receipt.made, receipt.changes) == (True, None)


def test_an_equal_release_has_no_changes(workspace: Workspace) -> None:
    receipt = publish.publish(tiny_workspace(workspace.settings, workspace.store))  # type: ignore[arg-type]
    assert (receipt.made, receipt.changes) == (False, None)


def test_what_a_release_was_made_of_is_kept_beside_it(workspace: Workspace) -> None:
    kept = made_of(workspace.store, 1)
    assert kept is not None
    assert kept.rules == {"cap": None, "near_duplicate_bits": -1, "variants": None}
    assert set(kept.outputs) == {shard.id for shard in workspace.registry.shards()}
    for spoilt in (b"", b"[]", b'{"outputs": 1}'):
        workspace.store.replace(keys.cache("made-of-000001.json"), spoilt)
        assert made_of(workspace.store, 1) is None
    keep_made_of(workspace.store, 1, kept)
    assert made_of(workspace.store, 1) == kept
