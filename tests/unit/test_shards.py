"""Shards and registry: what a marker names is whole, what is gone or changed is named, homes stay."""

from __future__ import annotations

import json

import numpy as np
import pytest

from taskgalaxy_ops.errors import DamageError, NotFoundError
from taskgalaxy_ops.records import Claim, FileReject, Image, Match
from taskgalaxy_ops.storage import Store, keys
from taskgalaxy_ops.storage.registry import Registry
from taskgalaxy_ops.storage.shards import Shard, Shards, Stats, embedding_table, shard_key, table

MATCHES = [Match("i", "ocr~titles", 0.5, 1), Match("i", "counting~people", 0.25, 2)]


def _commit(store: Store, matches: list[Match], key: str = "k") -> Shard:
    return Shards(store).commit("home", "match", key, {"matches": table(matches, Match)}, Stats(1, len(matches)))


def test_a_committed_shard_is_found_by_a_listing_and_loaded(folder_store: Store) -> None:
    shards = Shards(folder_store)
    assert shards.committed("home") == {}
    shard = _commit(folder_store, MATCHES)
    assert shards.committed("home") == {("match", "k"): shard}
    assert shards.committed("hom") == {}
    assert shards.load(shard, "matches", Match) == MATCHES
    body = shards.marker(shard)
    assert body["stats"] == {"units_in": 1, "units_out": 2, "rejects": {}, "seconds": 0.0, "asked": {}}


def test_embeddings_are_loaded_with_their_width(folder_store: Store) -> None:
    shards = Shards(folder_store)
    vectors = np.eye(3, 5, dtype=np.float32)
    shard = shards.commit("home", "embed", "k", {"embeddings": embedding_table(list("abc"), vectors)}, Stats())
    ids, found = shards.load_embeddings(shard)
    assert ids == ["a", "b", "c"]
    assert np.array_equal(found, vectors)
    assert shards.read_embeddings(shards.refs(shard)["embeddings"])[1].shape == (3, 5)


def test_committing_the_same_again_changes_nothing(folder_store: Store) -> None:
    shard = _commit(folder_store, MATCHES)
    before = folder_store.get(shard.marker)
    assert _commit(folder_store, MATCHES) == shard
    assert folder_store.get(shard.marker) == before


def test_of_two_outputs_of_one_key_the_smallest_stands(folder_store: Store) -> None:
    two = [_commit(folder_store, MATCHES), _commit(folder_store, MATCHES[:1])]
    assert Shards(folder_store).committed("home") == {("match", "k"): min(two, key=lambda shard: shard.output)}


def test_the_marker_is_written_last(folder_store: Store) -> None:
    shard = _commit(folder_store, MATCHES)
    for listed in list(folder_store.list("homes/")):
        folder_store.delete(listed.key)
    assert Shards(folder_store).committed("home") == {}
    assert len(list(folder_store.list("data/"))) == 1
    assert _commit(folder_store, MATCHES) == shard  # a marker may be deleted: it is computed again


def test_a_lost_or_changed_object_is_named(folder_store: Store) -> None:
    shards = Shards(folder_store)
    shard = _commit(folder_store, MATCHES)
    key = shards.refs(shard)["matches"].key
    folder_store.replace(key, folder_store.get(key)[:-1])
    with pytest.raises(DamageError, match=rf"{key} is not the object that was written"):
        shards.load(shard, "matches", Match)
    folder_store.delete(key)
    with pytest.raises(DamageError, match=rf"{key} is named by a marker but is gone"):
        shards.load(shard, "matches", Match)


@pytest.mark.parametrize("spoilt", [b"{", b"[]", b"\xff"])
def test_a_damaged_marker_is_named(folder_store: Store, spoilt: bytes) -> None:
    shard = _commit(folder_store, MATCHES)
    folder_store.replace(shard.marker, spoilt)
    with pytest.raises(DamageError, match="Delete it: the shard is computed again"):
        Shards(folder_store).refs(shard)
    folder_store.delete(shard.marker)
    with pytest.raises(NotFoundError):
        Shards(folder_store).refs(shard)


def test_a_marker_with_the_wrong_count_is_named(folder_store: Store) -> None:
    shards = Shards(folder_store)
    shard = _commit(folder_store, MATCHES)
    body = shards.marker(shard)
    body["tables"]["matches"]["rows"] = 3
    folder_store.replace(shard.marker, json.dumps(body).encode())
    with pytest.raises(DamageError, match="holds 2 rows, its marker says 3"):
        shards.load(shard, "matches", Match)


def test_a_shards_key_follows_from_what_went_in() -> None:
    key = shard_key("match", 1, {"k": 10}, {"images": "abc"})
    assert len(key) == 32
    assert key == shard_key("match", 1, {"k": 10, "later": None}, {"images": "abc"})
    others = [
        shard_key("vote", 1, {"k": 10}, {"images": "abc"}),
        shard_key("match", 2, {"k": 10}, {"images": "abc"}),
        shard_key("match", 1, {"k": 11}, {"images": "abc"}),
        shard_key("match", 1, {"k": 10}, {"images": "abd"}),
    ]
    assert len({key, *others}) == 5


def _images(*numbers: int) -> dict[str, Image]:
    return {f"{n:064x}": Image(f"{n:064x}", 10 + n, 10, "png", 100, "0" * 40) for n in numbers}


def _scan(registry: Registry, source: str, *numbers: int, rejects: int = 0) -> int:
    images = _images(*numbers)
    claims = [Claim(source, image, f"größe {image[-2:]}.png") for image in images]
    bad = [FileReject(source, f"{n}.txt", "not an image", "") for n in range(rejects)]
    return len(registry.register(source, f"/{source}", images, claims, bad, shard_images=2))


def test_new_images_are_cut_into_homes_once(folder_store: Store) -> None:
    registry = Registry(folder_store)
    assert _scan(registry, "a", 1, 2, 3, 4, 5, rejects=2) == 3
    homes = registry.homes()
    assert _scan(registry, "a", 1, 2, 3, 4, 5, rejects=2) == 0
    assert len(list(folder_store.list(keys.REGISTRY_LOG))) == 1  # the same scan again appends nothing
    assert _scan(registry, "a", 1, 2, 3, 4, 5, 6) == 1
    assert set(homes) < set(registry.homes())
    assert sorted(registry.housed()) == sorted(_images(1, 2, 3, 4, 5, 6))
    assert registry.rejects() == []
    for home in homes:
        assert Shards(folder_store).committed(home.home) == {("ingest", home.home): home.shard()}


def test_an_image_of_two_sources_has_one_home_and_two_claims(folder_store: Store) -> None:
    registry = Registry(folder_store)
    _scan(registry, "b", 1, 2)
    assert _scan(registry, "a", 2, 3) == 1
    assert [(claim.source, int(claim.image, 16)) for claim in registry.claims()] == [
        ("a", 2),
        ("a", 3),
        ("b", 1),
        ("b", 2),
    ]
    assert [len(registry.images(home)) for home in registry.homes()] in ([1, 2], [2, 1])


def test_a_scan_replaces_its_sources_claims_and_a_removal_takes_them_away(folder_store: Store) -> None:
    registry = Registry(folder_store)
    _scan(registry, "a", 1, 2)
    _scan(registry, "b", 2)
    _scan(registry, "a", 1, rejects=1)
    assert [(claim.source, int(claim.image, 16)) for claim in registry.claims()] == [("a", 1), ("b", 2)]
    assert [reject.source for reject in registry.rejects()] == ["a"]
    assert registry.remove("a")
    assert not registry.remove("a")
    assert list(registry.scans()) == ["b"]
    assert registry.rejects() == []
    assert sorted(registry.housed()) == sorted(_images(1, 2))
    assert _scan(registry, "a", 1, 2) == 0  # it comes back to the homes it had
    assert list(registry.scans()) == ["a", "b"]


def test_homes_depend_on_the_images_alone(folder_store: Store) -> None:
    registry = Registry(folder_store)
    _scan(registry, "a", 3, 1, 2)
    assert [sorted(int(i.image, 16) for i in registry.images(home)) for home in registry.homes()] in (
        [[1, 2], [3]],
        [[3], [1, 2]],
    )
