"""Shards and registry: what a marker names is whole, what is gone or changed is named, image shards stay."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from fakes import MemoryStore

from taskgalaxy_ops.errors import DamageError, NotFoundError
from taskgalaxy_ops.records import Claim, FileReject, Image, Match, Reason
from taskgalaxy_ops.storage import Store, keys, open_store
from taskgalaxy_ops.storage.log import Log
from taskgalaxy_ops.storage.registry import Registry
from taskgalaxy_ops.storage.scan_staging import ScanStaging
from taskgalaxy_ops.storage.shards import StageOutput, StageOutputs, Stats, embedding_table, stage_output_key, table

MATCHES = [Match("i", "ocr~titles", 0.5, 1), Match("i", "counting~people", 0.25, 2)]


def _commit(store: Store, matches: list[Match], key: str = "k") -> StageOutput:
    return StageOutputs(store).commit("home", "match", key, {"matches": table(matches, Match)}, Stats(1, len(matches)))


def test_a_committed_shard_is_found_by_a_listing_and_loaded(folder_store: Store) -> None:
    stage_outputs = StageOutputs(folder_store)
    assert stage_outputs.committed("home") == {}
    stage_output = _commit(folder_store, MATCHES)
    assert stage_outputs.committed("home") == {("match", "k"): stage_output}
    assert stage_outputs.committed("hom") == {}
    assert stage_outputs.load(stage_output, "matches", Match) == MATCHES
    body = stage_outputs.marker(stage_output)
    assert body["stats"] == {"units_in": 1, "units_out": 2, "rejects": {}, "seconds": 0.0, "asked": {}}


def test_embeddings_are_loaded_with_their_width(folder_store: Store) -> None:
    stage_outputs = StageOutputs(folder_store)
    vectors = np.eye(3, 5, dtype=np.float32)
    stage_output = stage_outputs.commit(
        "home", "embed", "k", {"embeddings": embedding_table(list("abc"), vectors)}, Stats()
    )
    ids, found = stage_outputs.load_embeddings(stage_output)
    assert ids == ["a", "b", "c"]
    assert np.array_equal(found, vectors)
    assert stage_outputs.read_embeddings(stage_outputs.refs(stage_output)["embeddings"])[1].shape == (3, 5)


def test_committing_the_same_again_changes_nothing(folder_store: Store) -> None:
    stage_output = _commit(folder_store, MATCHES)
    before = folder_store.get(stage_output.marker)
    assert _commit(folder_store, MATCHES) == stage_output
    assert folder_store.get(stage_output.marker) == before


def test_of_two_outputs_of_one_key_the_smallest_stands(folder_store: Store) -> None:
    two = [_commit(folder_store, MATCHES), _commit(folder_store, MATCHES[:1])]
    assert StageOutputs(folder_store).committed("home") == {
        ("match", "k"): min(two, key=lambda stage_output: stage_output.output)
    }


def test_the_marker_is_written_last(folder_store: Store) -> None:
    stage_output = _commit(folder_store, MATCHES)
    for listed in list(folder_store.list("homes/")):
        folder_store.delete(listed.key)
    assert StageOutputs(folder_store).committed("home") == {}
    assert len(list(folder_store.list("data/"))) == 1
    assert _commit(folder_store, MATCHES) == stage_output  # a marker may be deleted: it is computed again


def test_a_lost_or_changed_object_is_named(folder_store: Store) -> None:
    stage_outputs = StageOutputs(folder_store)
    stage_output = _commit(folder_store, MATCHES)
    key = stage_outputs.refs(stage_output)["matches"].key
    folder_store.replace(key, folder_store.get(key)[:-1])
    with pytest.raises(DamageError, match=rf"{key} is not the object that was written"):
        stage_outputs.load(stage_output, "matches", Match)
    folder_store.delete(key)
    with pytest.raises(DamageError, match=rf"{key} is named by a marker but is gone"):
        stage_outputs.load(stage_output, "matches", Match)


@pytest.mark.parametrize("spoilt", [b"{", b"[]", b"\xff"])
def test_a_damaged_marker_is_named(folder_store: Store, spoilt: bytes) -> None:
    stage_output = _commit(folder_store, MATCHES)
    folder_store.replace(stage_output.marker, spoilt)
    with pytest.raises(DamageError, match="Delete it: the stage output is computed again"):
        StageOutputs(folder_store).refs(stage_output)
    folder_store.delete(stage_output.marker)
    with pytest.raises(NotFoundError):
        StageOutputs(folder_store).refs(stage_output)


def test_a_marker_with_the_wrong_count_is_named(folder_store: Store) -> None:
    stage_outputs = StageOutputs(folder_store)
    stage_output = _commit(folder_store, MATCHES)
    body = stage_outputs.marker(stage_output)
    body["tables"]["matches"]["rows"] = 3
    folder_store.replace(stage_output.marker, json.dumps(body).encode())
    with pytest.raises(DamageError, match="holds 2 rows, its marker says 3"):
        stage_outputs.load(stage_output, "matches", Match)


def test_a_shards_key_follows_from_what_went_in() -> None:
    key = stage_output_key("match", 1, {"k": 10}, {"images": "abc"})
    assert len(key) == 32
    assert key == stage_output_key("match", 1, {"k": 10, "later": None}, {"images": "abc"})
    others = [
        stage_output_key("vote", 1, {"k": 10}, {"images": "abc"}),
        stage_output_key("match", 2, {"k": 10}, {"images": "abc"}),
        stage_output_key("match", 1, {"k": 11}, {"images": "abc"}),
        stage_output_key("match", 1, {"k": 10}, {"images": "abd"}),
    ]
    assert len({key, *others}) == 5


def _images(*numbers: int) -> dict[str, Image]:
    return {f"{n:064x}": Image(f"{n:064x}", 10 + n, 10, "png", 100, "0" * 40) for n in numbers}


def _scan(registry: Registry, source: str, *numbers: int, rejects: int = 0) -> int:
    with ScanStaging(source) as found:
        for image in _images(*numbers).values():
            found.claim(Claim(source, image.image, f"größe {image.image[-2:]}.png"), image)
        for number in range(rejects):
            found.reject(FileReject(source, f"{number}.txt", "not an image", ""))
        return len(registry.register(f"/{source}", found, shard_images=2))


def test_new_images_are_cut_into_image_shards_once(folder_store: Store) -> None:
    registry = Registry(folder_store)
    assert _scan(registry, "a", 1, 2, 3, 4, 5, rejects=2) == 3
    shards = registry.shards()
    assert _scan(registry, "a", 1, 2, 3, 4, 5, rejects=2) == 0
    assert len(list(folder_store.list(keys.REGISTRY_LOG))) == 1  # the same scan again appends nothing
    assert _scan(registry, "a", 1, 2, 3, 4, 5, 6) == 1
    assert set(shards) < set(registry.shards())
    assert sorted(registry.image_index()) == sorted(_images(1, 2, 3, 4, 5, 6))
    assert list(registry.rejects()) == []
    for shard in shards:
        assert StageOutputs(folder_store).committed(shard.id) == {("ingest", shard.id): shard.stage_output()}


def test_an_image_of_two_sources_has_one_image_shard_and_two_claims(folder_store: Store) -> None:
    registry = Registry(folder_store)
    _scan(registry, "b", 1, 2)
    assert _scan(registry, "a", 2, 3) == 1
    assert _seen(registry) == [
        ("a", 2),
        ("a", 3),
        ("b", 1),
        ("b", 2),
    ]
    assert [len(registry.images(shard)) for shard in registry.shards()] in ([1, 2], [2, 1])


def test_a_scan_replaces_its_sources_claims_and_a_removal_takes_them_away(folder_store: Store) -> None:
    registry = Registry(folder_store)
    _scan(registry, "a", 1, 2)
    _scan(registry, "b", 2)
    _scan(registry, "a", 1, rejects=1)
    assert _seen(registry) == [("a", 1), ("b", 2)]
    assert [reject.source for reject in registry.rejects()] == ["a"]
    assert registry.remove("a")
    assert not registry.remove("a")
    assert list(registry.scans()) == ["b"]
    assert list(registry.rejects()) == []
    assert sorted(registry.image_index()) == sorted(_images(1, 2))
    assert _scan(registry, "a", 1, 2) == 0  # it comes back to the image shards it had
    assert list(registry.scans()) == ["a", "b"]


def test_image_shards_depend_on_the_images_alone(folder_store: Store) -> None:
    registry = Registry(folder_store)
    _scan(registry, "a", 3, 1, 2)
    assert [sorted(int(i.image, 16) for i in registry.images(shard)) for shard in registry.shards()] in (
        [[1, 2], [3]],
        [[3], [1, 2]],
    )


# Take-downs


def _id(number: int) -> str:
    return f"{number:064x}"


def _seen(registry: Registry) -> list[tuple[str, int]]:
    return sorted((claim.source, int(claim.image, 16)) for claim in registry.claims())


def test_what_is_taken_down_is_claimed_by_nobody_whichever_came_first(folder_store: Store, tmp_path: Path) -> None:
    first, later = Registry(folder_store), Registry(open_store(str(tmp_path / "other")))
    _scan(first, "a", 1, 2, 3, rejects=1)
    _scan(first, "b", 2)
    first.deny([_id(2), _id(9)], "asked for")
    later.deny([_id(9), _id(2)], "asked for")
    _scan(later, "a", 1, 2, 3, rejects=1)
    _scan(later, "b", 2)
    for registry in (first, later):
        assert registry.denied() == {_id(2), _id(9)}
        assert _seen(registry) == [("a", 1), ("a", 3)]
        assert [(r.source, r.file, r.reason) for r in registry.rejects()] == [
            ("a", "0.txt", "not an image"),
            ("a", "größe 02.png", Reason.TAKEN_DOWN),
            ("b", "größe 02.png", Reason.TAKEN_DOWN),
        ]
    assert sorted(later.image_index()) == [_id(1), _id(3)]
    assert first.denied(until=2) == frozenset()


def test_a_take_down_gives_its_image_shards_again_to_who_goes_on_with_it(folder_store: Store) -> None:
    registry = Registry(folder_store)
    _scan(registry, "a", 1, 2, 3)
    where = {shard.id: [image.image for image in registry.images(shard)] for shard in registry.shards()}
    whole, part = sorted(where, key=lambda shard: -len(where[shard]))
    assert registry.deny([_id(3)], "first") == {part: [_id(3)]}
    number = registry.last()
    assert registry.deny([_id(3)], "again") == {part: [_id(3)]}
    assert registry.last() == number
    assert registry.deny([_id(3), _id(2)], "more") == {whole: [_id(2)], part: [_id(3)]}
    assert registry.taken_down() == {whole: [_id(2)], part: [_id(3)]}


def test_a_redacted_registry_names_no_table_that_holds_what_was_taken_down(folder_store: Store) -> None:
    registry = Registry(folder_store)
    _scan(registry, "a", 1, 2, 3, rejects=1)
    _scan(registry, "b", 2)
    _scan(registry, "a", 1, 2, 3)  # the scan before it is superseded, and still read by lanes that began with it
    shards = registry.shards()
    assert registry.redact() == []
    registry.deny([_id(2)], "asked for")
    claims, rejects = list(registry.claims()), list(registry.rejects())
    gone = registry.redact()
    for key in gone:
        folder_store.delete(key)
    assert gone
    for again in (registry, Registry(folder_store)):
        assert again.redact() == gone  # who goes on with a killed take-down is told again
        assert (list(again.claims()), list(again.rejects())) == (claims, rejects)
        assert [(shard.id, shard.output) for shard in again.shards()] == [(shard.id, shard.output) for shard in shards]
        assert sorted(again.image_index()) == [_id(1), _id(3)]
        assert sorted(claim.image for claim in again.claims(until=1)) == [_id(1), _id(3)]
    left = [folder_store.get(listed.key) for listed in folder_store.list("data/")]
    assert not any(_id(2) in str(pq.read_table(io.BytesIO(raw)).to_pydict()) for raw in left)
    assert _scan(registry, "b", 2, 4) == 1
    assert _scan(registry, "a", 1, 2, 3) == 0
    assert registry.redact() == gone


def test_a_table_that_an_earlier_scan_shares_with_a_redacted_one_stays(folder_store: Store) -> None:
    registry = Registry(folder_store)
    _scan(registry, "a", 1)
    _scan(registry, "a", 2)  # rejects nothing either: its table of rejects is the former's
    registry.deny([_id(2)], "asked for")
    for key in registry.redact():
        folder_store.delete(key)
    assert all(folder_store.get(key) for key in registry.named())


def test_a_take_down_beside_a_scan_holds_and_leaves_no_trace_of_the_image() -> None:
    store = MemoryStore()
    registry, other = Registry(store), Registry(store)
    _scan(registry, "a", 1)

    def meanwhile(operation: str, key: str) -> None:
        if operation == "put" and key == f"{keys.REGISTRY_LOG}/e/0000000002":
            store.before = lambda operation, key: None
            other.deny([_id(2)], "asked for")

    store.before = meanwhile
    assert _scan(registry, "b", 2, 3) == 1
    assert _seen(registry) == [("a", 1), ("b", 3)]
    assert [(r.source, r.reason) for r in registry.rejects()] == [("b", Reason.TAKEN_DOWN)]
    assert sorted(registry.image_index()) == [_id(1), _id(3)]
    tables = [pq.read_table(io.BytesIO(raw)).to_pydict() for key, raw in store.objects.items() if "parquet" in key]
    assert tables
    assert not any(_id(2) in str(table) for table in tables)
    assert len([key for key in store.objects if "/markers/ingest." in key]) == 2


def test_a_lost_race_of_compactions_is_run_again() -> None:
    store = MemoryStore()
    registry = Registry(store)
    _scan(registry, "a", 1, 2)
    registry.deny([_id(1)], "asked for")

    def meanwhile(operation: str, key: str) -> None:
        if operation == "put" and key.startswith(f"{keys.REGISTRY_LOG}/b/"):
            store.before = lambda operation, key: None
            Log(store, keys.REGISTRY_LOG).compact()

    store.before = meanwhile
    gone = registry.redact()
    named = str([entry.body for entry in Log(store, keys.REGISTRY_LOG).read() if entry.body["kind"] == "scan"])
    assert gone
    assert not any(key in named for key in gone)
    assert sorted(registry.image_index()) == [_id(2)]
