"""What must not change unnoticed: the store's format, and what each stage makes of the same input.

Where a stage's output changes on purpose, raise its code version and write the new hash here: old shards are then
computed again, which costs no call. Where the store's format would change, do not: old stores must stay readable.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from fakes import KilledError, MemoryStore
from golden.golden_store import golden_workspace, unpack
from PIL import Image as Pillow

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.errors import StoreError
from taskgalaxy_ops.generation.bill import bill
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.generation.stages import STAGE
from taskgalaxy_ops.generation.stages import filter as filter_stage
from taskgalaxy_ops.generation.stages import vote as vote_stage
from taskgalaxy_ops.generation.stages import write as write_stage
from taskgalaxy_ops.generation.stages.match import match
from taskgalaxy_ops.models.encoders.base import EmbeddingMatrix
from taskgalaxy_ops.operations import takedown
from taskgalaxy_ops.operations.upgrade import upgrade
from taskgalaxy_ops.operations.verify import verify
from taskgalaxy_ops.records import Answer, Image, Match, Pair, Relevant, pair_id
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.settings import IngestSettings, Model, VoteSettings
from taskgalaxy_ops.sources.inspecting import inspect
from taskgalaxy_ops.storage import connect, keys
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.storage.log import Log
from taskgalaxy_ops.storage.parquet import rows_hash
from taskgalaxy_ops.storage.registry import Registry
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return golden_workspace(tmp_path / "store")


def test_every_object_of_the_golden_store_is_still_read(workspace: Workspace) -> None:
    assert verify(workspace).damage == []
    assert list(workspace.registry.scans()) == ["shapes"]
    assert [claim.licence for claim in workspace.registry.claims()] == ["MIT"] * 3
    assert len(workspace.registry.shards()) == 2
    assert len(TaxonomyStore(workspace).version(0).leaves()) == 5
    paid = bill(workspace)
    assert paid.all.calls == workspace.ledger().spent().calls > 0
    assert set(paid.by_stage) == {"filter", "write", "vote"}


def test_nothing_of_the_golden_store_is_computed_or_asked_again(workspace: Workspace) -> None:
    before = {listed.key for listed in workspace.store.list("")}
    (latest,) = publish.published(workspace)
    result = pipeline.generate(workspace)
    assert (result.pending, result.usage.requests) == (0, 0)
    assert all(stage.counts is None for shard in result.shards for stage in shard.stages.values())
    assert "encoder" not in workspace.__dict__
    assert publish.publish(workspace).release == latest
    assert {listed.key for listed in workspace.store.list("")} - before <= {
        f"{keys.SETTINGS_LOG}/e/0000000002",  # the addresses differ
        *(keys.tally(shard.id) for shard in workspace.registry.shards()),
    }


def test_markers_are_cache_shards_come_back_from_the_journal(workspace: Workspace) -> None:
    samples = RunResults(workspace).samples
    assert samples
    for shard in workspace.registry.shards():
        for listed in list(workspace.store.list(keys.markers(shard.id))):
            if listed.key.rpartition("/")[2].split(".")[0] in {"match", "filter", "write", "vote"}:
                workspace.store.delete(listed.key)
    result = pipeline.generate(workspace)
    assert (result.pending, result.usage.requests) == (0, 0)
    assert RunResults(workspace, result).samples == samples


def test_a_store_of_layout_1_is_upgraded_and_nothing_of_it_is_computed_or_asked_again(tmp_path: Path) -> None:
    settings = unpack(tmp_path / "store", GOLDEN / "store.json")
    with pytest.raises(StoreError, match=r"layout 1, this version reads layout 2\. Run `taskgalaxy upgrade`"):
        Workspace.open(settings)
    store = connect(settings.store)
    scan = next(entry.body for entry in Log(store, keys.REGISTRY_LOG).read())
    assert Registry(store).upgrade()
    assert not Registry(store).upgrade()
    store.replace(keys.LAYOUT, json.dumps({"layout": keys.LAYOUT_VERSION}).encode())
    workspace = Workspace.open(settings)
    assert verify(workspace).damage == []
    assert not list(store.list(scan["claims"]["key"])), "a take-down would not find it"
    assert [(shard.id, shard.output) for shard in workspace.registry.shards()] == sorted(
        (shard["home"], shard["output"]) for shard in scan["homes"]
    )
    assert [claim.licence for claim in workspace.registry.claims()] == ["MIT"] * 3
    test_nothing_of_the_golden_store_is_computed_or_asked_again(workspace)


def test_after_an_upgrade_an_image_can_be_taken_down_and_nothing_is_asked_for_the_others(tmp_path: Path) -> None:
    settings = unpack(tmp_path / "store", GOLDEN / "store.json")
    assert upgrade(settings) == (1, 2)
    assert upgrade(settings) == (2, 2)
    workspace = Workspace.open(settings)
    replies = [reply for shard in workspace.registry.shards() for reply in Journal(workspace.store, shard.id).replies()]
    assert replies
    assert all(reply["image"] for reply in replies), "each could be told from the shards"
    image = sorted(claim.image for claim in workspace.registry.claims())[0]
    takedown.take_down(workspace, [image])
    assert list(takedown.left(workspace)) == []
    result = pipeline.generate(workspace)
    assert (result.pending, result.usage.requests) == (0, 0)
    assert image not in {pair.image for pair in RunResults(workspace, result).samples}


def test_an_upgrade_that_was_killed_is_gone_on_with(tmp_path: Path) -> None:
    raws = json.loads((GOLDEN / "store.json").read_text("utf-8"))
    for steps in count():
        store = MemoryStore()
        for key, raw in raws.items():
            store.put_if_absent(key, base64.b64decode(raw))
        left = iter(range(steps))

        def die(operation: str, key: str, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise KilledError

        store.before = die
        with suppress(KilledError):
            Registry(store).upgrade()
        ended = next(left, None) is not None
        store.before = lambda operation, key: None
        Registry(store).upgrade()
        assert len(list(Registry(store).claims())) == 3
        named = Registry(store).named()
        assert {ref.key for ref, _ in Registry(store).tables()} <= named <= set(store.objects)
        if ended:
            break


# Each stage on a fixed input: (code version, hash of the rows that come out)

IMAGE, OTHER = "1" * 64, "2" * 64
TYPES = ("colour~main colours~dominant colour identification", "ocr~printed text ocr~title reading")
MODEL = Model(name="m", base_url="http://127.0.0.1:9/v1", model="m", simulated=True)


def png() -> bytes:
    pixels = np.indices((48, 64)).sum(axis=0) % 256
    out = io.BytesIO()
    Pillow.fromarray(np.stack([pixels, pixels[::-1], 255 - pixels], axis=-1).astype(np.uint8)).save(out, "BMP")
    return out.getvalue()


def ingested() -> str:
    seen = inspect(png(), IngestSettings())
    assert isinstance(seen, Image)
    return rows_hash([seen])


def matched() -> str:
    angles = np.arange(12, dtype=np.float32).reshape(6, 2)
    units = np.stack([np.cos(angles).prod(axis=1), np.sin(angles).sum(axis=1)], axis=1)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    images = EmbeddingMatrix((IMAGE, OTHER), units[:2].astype(np.float32))
    types = EmbeddingMatrix(tuple(f"a~b~{n}" for n in range(4)), units[2:].astype(np.float32))
    return rows_hash([(m.image, m.task_type, m.rank) for m in match(images, types, k=3)])  # no rounding in a hash


def filtered() -> str:
    question = filter_stage.filter_template("golden", MODEL)
    units = filter_stage.filter_units(question, [Match(i, t, 0.5, 1) for i in (OTHER, IMAGE) for t in TYPES])
    answers = {
        units[0].key: Answer({"fits": True, "reason": "yes"}),
        units[1].key: Answer({"fits": False, "reason": "no"}),
        units[2].key: Answer(terminal="refused", detail="d"),
    }
    made = filter_stage.filtered(units, answers)
    return rows_hash([*made.relevant, *made.rejects, {"pending": made.pending}, [unit.key for unit in units]])


def written() -> str:
    question = write_stage.write_template("golden", MODEL, "chain_of_thought")
    units = write_stage.write_units(question, [Relevant(i, t, "r") for i in (OTHER, IMAGE) for t in TYPES])
    texts = [("Q?", "A", "R"), ("", "", ""), ("Q?", "<image>", "R"), ("Q?", "A", "")]
    answers = {
        unit.key: Answer(dict(zip(("question", "answer", "reasoning"), text, strict=True)))
        for unit, text in zip(units, texts, strict=True)
    }
    made = write_stage.written("chain_of_thought", units, answers)
    return rows_hash([*made.pairs, *made.rejects, {"pending": made.pending}, [unit.key for unit in units]])


def voted() -> str:
    pairs = [
        Pair(pair_id(IMAGE, TYPES[0], "plain", f"Q{n}?", "A", None), IMAGE, TYPES[0], "plain", f"Q{n}?", "A")
        for n in range(8)
    ]
    judges = [Model(name=name, base_url="http://127.0.0.1:9/v1", model=name, simulated=True) for name in "abc"]
    questions = [vote_stage.vote_template("golden", judge, True) for judge in judges]
    settings = VoteSettings()
    answers: dict[str, Answer] = {}
    while any(needed := vote_stage.votes_needed(pairs, questions, settings, answers)):
        for judge, units in enumerate(needed):
            for number, unit in enumerate(units):
                value = {"vote": (number + judge) % 2, "reason": f"{judge}"}
                answers[unit.key] = Answer(value) if number % 5 else Answer(terminal="refused", detail="no")
    made = vote_stage.voted(pairs, questions, settings, answers)
    return rows_hash([*made.votes, *made.verdicts, *made.samples, *made.rejects, sorted(answers)])


STAGES = {
    "ingest": (ingested, 1),
    "match": (matched, STAGE["match"].version),
    "filter": (filtered, STAGE["filter"].version),
    "write": (written, STAGE["write"].version),
    "vote": (voted, STAGE["vote"].version),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_whose_output_changes_has_a_new_code_version(stage: str) -> None:
    made, version = STAGES[stage]
    golden = json.loads((GOLDEN / "stages.json").read_text("utf-8"))[stage]
    assert {"version": version, "rows_hash": made()} == golden
