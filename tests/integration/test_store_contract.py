"""The store's promises, on every implementation. A new one is one more word in the ``place`` fixture's params."""

from __future__ import annotations

import multiprocessing
import os
import signal
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import Place
from racing import PROCESSES, Racers, together

from taskgalaxy_ops.errors import NotFoundError, StoreError
from taskgalaxy_ops.storage import Store, keys, open_store
from taskgalaxy_ops.storage.base import in_parts

ODD_NAMES = [  # no backslash: SeaweedFS takes it for a slash, and no key of ours has one
    "plain",
    "with space",
    " leading and trailing ",
    "größe",
    "größe".replace("ö", "o\u0308"),  # decomposed: another key
    "画像",
    "emoji 🪐",
    "a+b",
    "a%2Fb",
    "100%",
    "what?",
    "a#b",
    "a&b=c",
    "quote'\"s",
    "tab\tand newline\nin it",
    "<xml>",
    "semi;colon:at@tilde~",
    "..dots..",
    "{brace}[bracket]",
    "*star*",
]
OPENED = [keys.PROBE, keys.LAYOUT]  # what lies in a store that was opened


def _put_many(store: Store, names: list[str]) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda name: store.put_if_absent(name, b""), names))


def test_what_was_put_is_got(store: Store) -> None:
    data = bytes(range(256)) * 5000
    assert store.put_if_absent("a/b", data)
    assert store.get("a/b") == data
    assert store.put_if_absent("a/empty", b"")
    assert store.get("a/empty") == b""


@pytest.mark.parametrize("size", [0, 5, (8 << 20) - 1, 8 << 20, (8 << 20) + 1])
def test_a_file_is_put_whole_and_stands_as_bytes_do(store: Store, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "file").write_bytes(data)
    (tmp_path / "other").write_bytes(data + b"more")
    with (tmp_path / "file").open("rb") as file, (tmp_path / "other").open("rb") as other:
        file.seek(0, os.SEEK_END)  # where it stands does not matter
        assert store.put_if_absent("k", file)
        assert store.get("k") == data == b"".join(in_parts(store, "k"))
        assert store.put_if_absent("k", file) and store.put_if_absent("k", data)
        assert not store.put_if_absent("k", other)
        assert store.put_if_absent("longer", other) and not store.put_if_absent("longer", file)
    assert store.get("k") == data


def test_a_copy_stands_by_itself(store: Store) -> None:
    store.put_if_absent("a/one", b"content")
    store.copy("a/one", "b/two/three")
    store.copy("a/one", "b/two/three")
    store.replace("a/one", b"another")
    assert store.get("b/two/three") == b"content"
    store.delete("a/one")
    assert store.get("b/two/three") == b"content"
    with pytest.raises(NotFoundError, match="no object"):
        store.copy("a/one", "b/four")
    assert [listed.key for listed in store.list("b/")] == ["b/two/three"]


def test_a_key_is_written_once(store: Store) -> None:
    assert store.put_if_absent("k", b"first")
    assert not store.put_if_absent("k", b"second")
    assert store.get("k") == b"first"


def test_the_same_bytes_again_are_a_success(store: Store) -> None:
    assert store.put_if_absent("k", b"same")
    assert store.put_if_absent("k", b"same")


def test_replace_writes_over(store: Store) -> None:
    store.replace("k", b"one")
    store.replace("k", b"two, longer")
    store.replace("k", b"3")
    assert store.get("k") == b"3"
    assert not store.put_if_absent("k", b"two")


def test_what_is_not_there_is_not_found(store: Store) -> None:
    store.put_if_absent("there/is", b"x")
    for key in ("no", "there/no", "there/is/below", "there"):
        with pytest.raises(NotFoundError, match="no object"):
            store.get(key)
        with pytest.raises(NotFoundError):
            store.age(key)


def test_ranges(store: Store) -> None:
    store.put_if_absent("k", b"0123456789")
    store.put_if_absent("empty", b"")
    assert store.get("k", start=3) == b"3456789"
    assert store.get("k", start=3, length=2) == b"34"
    assert store.get("k", length=4) == b"0123"
    assert store.get("k", start=8, length=100) == b"89"
    assert store.get("k", start=3, length=0) == b""
    assert store.get("k", start=10) == store.get("k", start=99, length=5) == b""
    assert store.get("empty", length=5) == b""
    with pytest.raises(NotFoundError):
        store.get("no", start=3, length=2)


def test_delete_is_idempotent(store: Store) -> None:
    store.put_if_absent("a/b", b"x")
    store.delete("a/b")
    store.delete("a/b")
    store.delete("a/b/c")
    store.delete("never/was")
    assert list(store.list("a/")) == []
    assert store.put_if_absent("a/b", b"again")


def test_a_deleted_key_leaves_no_trace_in_listings(store: Store) -> None:
    store.put_if_absent("deep/er/still", b"x")
    store.delete("deep/er/still")
    assert list(store.list("deep")) == []


def test_a_listing_pages_past_a_thousand_keys(store: Store) -> None:
    names = [f"many/{number:05d}" for number in range(2345)]
    _put_many(store, names)
    assert [listed.key for listed in store.list("many/")] == names
    assert [listed.key for listed in store.list("many/", after="many/00009")] == names[10:]
    assert [listed.key for listed in store.list("many/", after="many/01999")] == names[2000:]
    assert list(store.list("many/", after="many/02344")) == []
    assert [listed.key for listed in store.list("many/0123")] == names[1230:1240]


def test_a_listing_pages_over_many_folders(store: Store) -> None:
    names = sorted(f"homes/{number % 301:03d}/m/{number:05d}" for number in range(1204))
    _put_many(store, names)
    assert [listed.key for listed in store.list("homes/")] == names
    assert [listed.key for listed in store.list("homes/", after=names[700])] == names[701:]


def test_a_listing_is_in_order_of_utf8_keys(store: Store) -> None:
    names = ["a/b", "a-b", "a.b", "a0", "a b", "a/b-c", "ab/c", "a/", "é", "\uffff", "🪐", "z", "Z", "a/b!/x"]
    names = [name for name in names if not name.endswith("/")]
    _put_many(store, [f"o/{name}" for name in names])
    expected = sorted((f"o/{name}" for name in names), key=str.encode)
    assert [listed.key for listed in store.list("o/")] == expected
    for position, name in enumerate(expected):
        assert [listed.key for listed in store.list("o/", after=name)] == expected[position + 1 :]
        unordered = [listed.key for listed in store.list("o/", after=name, ordered=False)]
        assert sorted(unordered, key=str.encode) == expected[position + 1 :]


def test_a_prefix_need_not_end_at_a_slash(store: Store) -> None:
    for name in ("n/one", "n/only/x", "n/two", "none", "q"):
        store.put_if_absent(name, b"12345")
    assert [listed.key for listed in store.list("n/on")] == ["n/one", "n/only/x"]
    assert [listed.key for listed in store.list("n")] == ["n/one", "n/only/x", "n/two", "none"]
    assert [listed.key for listed in store.list("no/such/prefix")] == []
    assert {listed.size for listed in store.list("n/")} == {5}


def test_a_listing_of_everything_holds_objects_alone(store: Store) -> None:
    store.put_if_absent("a", b"x")
    assert [listed.key for listed in store.list("")] == ["a", *OPENED]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_keys_like_any_other(store: Store, name: str) -> None:
    key = f"odd/{name}/{name}.bin"
    assert store.put_if_absent(key, name.encode())
    assert store.get(key) == name.encode()
    assert [listed.key for listed in store.list("odd/")] == [key]
    assert [listed.key for listed in store.list(f"odd/{name}/")] == [key]
    assert store.age(key) >= 0
    store.delete(key)
    assert list(store.list("odd/")) == []


def test_age_is_by_the_stores_clock(store: Store) -> None:
    store.put_if_absent("older", b"")
    first = store.age("older")
    store.put_if_absent("newer", b"")
    assert 0 <= store.age("newer") <= store.age("older") + 1  # S3's times are whole seconds
    assert first <= store.age("older")


def test_two_stores_in_one_bucket_do_not_see_each_other(place: Place) -> None:
    here = open_store(place.url, **place.options)
    there = open_store(f"{place.url}/within", **place.options)
    there.put_if_absent("k", b"there")
    with pytest.raises(NotFoundError):
        here.get("k")
    assert [listed.key for listed in there.list("")] == ["k", *OPENED]


def test_a_store_of_another_layout_is_refused(place: Place) -> None:
    open_store(place.url, **place.options).replace(keys.LAYOUT, b'{"layout": 99}')
    with pytest.raises(StoreError, match="layout 99, this version reads layout 2"):
        open_store(place.url, **place.options)


def test_a_damaged_layout_is_refused(place: Place) -> None:
    open_store(place.url, **place.options).replace(keys.LAYOUT, b"[]")
    with pytest.raises(StoreError, match="is damaged"):
        open_store(place.url, **place.options)


def test_the_url_opens_the_same_store(place: Place, store: Store) -> None:
    store.put_if_absent("k", b"v")
    assert open_store(store.url, **place.options).get("k") == b"v"


def _write_each(racer: int, place: Place, names: list[str]) -> list[bool]:
    store = place.connect()
    together()
    return [store.put_if_absent(name, f"by {racer}".encode() * 100) for name in names]


def test_of_racing_writers_exactly_one_wins(racers: Racers, place: Place, store: Store) -> None:
    names = [f"race/{number}" for number in range(50)]
    won = racers.race(_write_each, place, names)
    for number, name in enumerate(names):
        winners = [racer for racer in range(PROCESSES) if won[racer][number]]
        assert len(winners) == 1
        assert store.get(name) == f"by {winners[0]}".encode() * 100


def _replace_often(racer: int, place: Place, rounds: int) -> list[bytes]:
    store = place.connect()
    together()
    seen = []
    for _ in range(rounds):
        store.replace("pointer", str(racer).encode() * 200_000)
        seen.append(store.get("pointer"))
    return seen


def test_a_reader_beside_writers_sees_whole_objects(racers: Racers, place: Place, store: Store) -> None:
    for seen in racers.race(_replace_often, place, 15):
        assert all(len(data) == 200_000 and len(set(data)) == 1 for data in seen)


def _write_until_killed(place: Place, size: int, wrote: multiprocessing.synchronize.Event) -> None:
    store = place.connect()
    for number in range(1_000_000):
        store.put_if_absent(f"torn/{number:06d}", (b"%06d" % number) * (size // 6))
        if number == 3:
            wrote.set()


def test_a_killed_writer_leaves_no_torn_object(place: Place, store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    size = 6_000_000
    for _ in range(2):
        wrote = context.Event()
        writer = context.Process(target=_write_until_killed, args=(place, size, wrote))
        writer.start()
        assert wrote.wait(60)
        os.kill(writer.pid or 0, signal.SIGKILL)
        writer.join()
        found = list(store.list("torn/"))
        assert len(found) >= 4
        for listed in found:
            assert listed.size == size
            assert store.get(listed.key) == listed.key[-6:].encode() * (size // 6)
            store.delete(listed.key)
        assert [listed.key for listed in store.list("")] == OPENED


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot be written"):
        open_store(str(tmp_path / "file" / "below"))


def test_a_folder_key_cannot_leave_the_folder(folder_store: Store) -> None:
    for key in ("../x", "a/../../x", "/x", "a//b", ".tmp/x", "a/", "", "a\0b"):
        with pytest.raises(StoreError, match="is no key"):
            folder_store.put_if_absent(key, b"")


def test_an_unknown_kind_of_url_is_named() -> None:
    with pytest.raises(StoreError, match="unknown kind 'gs'"):
        open_store("gs://bucket/prefix")
    with pytest.raises(StoreError, match="no bucket"):
        open_store("s3:///prefix")


def test_the_test_place_is_empty(store: Store) -> None:
    assert store.put_if_absent(f"mine/{uuid.uuid4().hex}", b"")
    assert len(list(store.list("mine/"))) == 1


def test_a_fast_clock_takes_nobodys_temporary_file_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(str(tmp_path))
    (in_use := tmp_path / ".tmp" / "another worker's").touch()
    (left := tmp_path / ".tmp" / "a dead worker's").touch()
    os.utime(left, (0, 0))
    monkeypatch.setattr("time.time", lambda: 4e9)
    open_store(str(tmp_path))
    assert in_use.exists()
    assert not left.exists()


def test_a_disk_without_nameless_files_keeps_the_promises_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskgalaxy_ops.storage.folder._nameless", lambda folder: None)
    store = open_store(str(tmp_path))
    assert store.put_if_absent("a/b", b"mine")
    assert not store.put_if_absent("a/b", b"theirs")
    store.replace("a/b", b"new")
    assert store.get("a/b") == b"new"
    assert list((tmp_path / ".tmp").iterdir()) == []
