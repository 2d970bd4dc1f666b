"""WebDataset tars, whole, hostile and broken, as files, by ranges, in folders and in buckets."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import MemoryStore
from sourcing import files_of, picture, seen, workspace_at

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.demo.services import SeaweedFS
from taskgalaxy_ops.errors import SourceError, StoreError, UnreadableError
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.records import Reason
from taskgalaxy_ops.storage import connect


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TASKGALAXY_CACHE", str(folder))
    return folder


def shard(path: Path, seeds: range) -> Path:
    """A tar as the package webdataset writes it."""
    import webdataset  # it loads torch

    with webdataset.TarWriter(str(path)) as writer:
        for seed in seeds:
            writer.write({"__key__": f"{seed:06}", "png": picture(seed), "json": {"n": seed}, "txt": "text", "cls": 1})
    return path


def tar_of(*members: tuple[str, bytes], **more: object) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", **more) as tar:  # type: ignore[call-overload]
        for name, raw in members:
            header = tarfile.TarInfo(name)
            header.size = len(raw)
            tar.addfile(header, io.BytesIO(raw))
    return out.getvalue()


@pytest.fixture
def tar(tmp_path: Path) -> Callable[[bytes], str]:
    def written(raw: bytes) -> str:
        (tmp_path / "a.tar").write_bytes(raw)
        return f"webdataset:{tmp_path}/a.tar"

    return written


def test_images_are_members_and_metadata_are_none(tmp_path: Path) -> None:
    shard(tmp_path / "s-0000.tar", range(3))
    found = seen(f"webdataset:{tmp_path}/s-0000.tar")
    assert found.files == {f"s-0000.tar/{seed:06}.png": picture(seed) for seed in range(3)}
    assert found.left_out == {"metadata of a sample": 9}


def test_tars_are_found_by_range_and_by_folder(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for number in range(3):
        shard(tmp_path / "train" / f"s-{number:02}.tar", range(10 * number, 10 * number + 2))
    (tmp_path / "train" / "README.md").write_text("text")
    by_folder = seen(f"webdataset:{tmp_path}")
    assert next(iter(by_folder.files)) == "train/s-00.tar/000000.png"
    assert len(by_folder.files) == 6
    assert by_folder.left_out["suffix .md"] == 1
    by_range = seen(f"webdataset:{tmp_path}/train/s-{{00..03}}.tar")
    assert list(by_range.files) == [name.removeprefix("train/") for name in by_folder.files]
    assert by_range.broken == {"s-03.tar": "No such file or directory"}


def test_members_are_read_in_the_order_of_the_tar(tar: Callable[[bytes], str]) -> None:
    assert seen(tar(tar_of(("9.png", picture(9)), ("10.png", picture(10))))).order == ["a.tar/9.png", "a.tar/10.png"]


def test_hostile_names_are_rejects_and_links_and_devices_are_counted(tar: Callable[[bytes], str]) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for name in ("/etc/a.png", "../b.png", "x/../../c.png", "new\nline.png", "l" * 5000 + ".png", "./good.png"):
            header = tarfile.TarInfo(name)
            header.size = len(picture(1))
            made.addfile(header, io.BytesIO(picture(1)))
        for name, kind in (("s.png", tarfile.SYMTYPE), ("h.png", tarfile.LNKTYPE), ("d.png", tarfile.CHRTYPE)):
            header = tarfile.TarInfo(name)
            header.type, header.linkname = kind, "/etc/passwd"
            made.addfile(header)
    found = seen(tar(out.getvalue()))
    assert list(found.files) == ["a.tar/good.png"]
    assert [why.split(":")[0][:30] for _, why in sorted(found.broken.items())] == [
        "its name leads out of the tar",
        "its name leads out of the tar",
        "its name has 5,004 characters,",
        "its name has control character",
        "its name leads out of the tar",
    ]
    assert found.left_out == {"link in a tar": 2, "neither file nor folder": 1}


def test_a_sparse_member_is_a_reject(tar: Callable[[bytes], str]) -> None:
    raw = bytearray(tar_of(("hole.png", picture(1)), ("good.png", picture(2))))
    raw[156:157] = tarfile.GNUTYPE_SPARSE
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    found = seen(tar(bytes(raw)))
    assert list(found.files) == ["a.tar/good.png"]
    assert "sparse" in found.broken["a.tar/hole.png"]


def test_names_that_are_no_utf8_and_hidden_ones(tar: Callable[[bytes], str]) -> None:
    raw = tar_of(("\udcff.png", picture(1)), ("._ä.png", picture(2)), ("ä.png", picture(3)), encoding="utf-8")
    found = seen(tar(raw))
    assert found.files == {"a.tar/\\xff.png": picture(1), "a.tar/ä.png": picture(3)}
    assert found.left_out == {"hidden": 1}


def test_of_two_members_with_one_name_the_later_stands_and_the_other_is_counted(tar: Callable[[bytes], str]) -> None:
    found = seen(tar(tar_of(("a.png", picture(1)), ("b.png", picture(2)), ("a.png", picture(3)))))
    assert found.files == {"a.tar/b.png": picture(2), "a.tar/a.png": picture(3)}
    assert found.left_out == {"file that another of the same name replaces": 1}


def test_of_a_tar_that_is_cut_anywhere_the_whole_members_are_taken_and_the_rest_is_told(
    tar: Callable[[bytes], str],
) -> None:
    whole = tar_of(*((f"{seed}.png", picture(seed)) for seed in range(4)))
    for end in [*range(512, 5000, 131), 1024, 2048, 4096]:
        found = seen(tar(whole[:end]))
        complete = (end // 512) // 2  # each member: a header and one block of data
        in_last = 1024 * complete + 512 + len(picture(0)) <= end  # its data are there, their padding is not
        assert len(found.files) == min(4, complete + in_last), end
        assert all(picture(int(name[6])) == raw for name, raw in found.files.items())
        assert len(found.broken) == (end <= 4096), (end, found.broken)  # then only zeros are missing


def test_a_tar_that_grows_is_read_on(tmp_path: Path) -> None:
    whole = tar_of(*((f"{seed}.png", picture(seed)) for seed in range(3)))
    (tmp_path / "a.tar").write_bytes(whole[: 2048 + 600])
    workspace = workspace_at(f"webdataset:{tmp_path}")
    first = pipeline.ingest(workspace, "mine")
    assert (first.new_images, [(each.file, each.reason) for each in first.rejects]) == (
        2,
        [("a.tar/2.png", Reason.UNREADABLE)],
    )
    (tmp_path / "a.tar").write_bytes(whole)
    second = pipeline.ingest(workspace, "mine")
    assert (second.images, second.new_images, second.rejects) == (3, 1, [])


def test_damage_is_told_with_what_was_taken_before_it(tar: Callable[[bytes], str]) -> None:
    whole = bytearray(tar_of(*((f"{seed}.png", picture(seed)) for seed in range(4))))
    whole[1024:1536] = b"x" * 512
    found = seen(tar(bytes(whole)))
    assert list(found.files) == ["a.tar/0.png"]
    assert found.broken == {"a.tar": "no whole tar (byte 1,024 begins no header); 1 members before it were taken"}


def test_tars_that_were_appended_as_a_whole_are_told(tar: Callable[[bytes], str]) -> None:
    found = seen(tar(tar_of(("a.png", picture(1))) + tar_of(("b.png", picture(2)))))
    assert list(found.files) == ["a.tar/a.png"]
    assert "goes on behind its end" in found.broken["a.tar"]


@pytest.mark.parametrize("raw", [b"", b"\x1f\x8b" + b"x" * 2000, b"PK" + b"\1" * 600, b"\xff" * 1024])
def test_what_is_no_tar_is_told(tar: Callable[[bytes], str], raw: bytes) -> None:
    found = seen(tar(raw))
    assert found.files == {}
    assert found.broken["a.tar"].startswith("no whole tar (a header cannot be read")


def header_with_size(size: bytes, kind: bytes = b"0") -> bytes:
    raw = bytearray(tarfile.TarInfo("a.png").tobuf(tarfile.GNU_FORMAT))
    raw[124:136], raw[156:157] = size, kind
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


@pytest.mark.parametrize(
    "header",
    [
        header_with_size(b"\xff" * 11 + b"\0"),  # a negative size: the next header would lie before this one
        header_with_size(b"\xff" * 11 + b"\0", b"L"),
        header_with_size(b"77777777777\0", b"L"),  # a name of 8 GB
        header_with_size(b"77777777777\0", b"x"),
        header_with_size(b"00000000000\0", b"L") * 3000,  # each header extends the next
    ],
)
def test_headers_that_lie_end_the_tar_and_nothing_else(tar: Callable[[bytes], str], header: bytes) -> None:
    found = seen(tar(tar_of(("good.png", picture(1)))[:1024] + header + bytes(1024)))
    assert list(found.files) == ["a.tar/good.png"]
    assert list(found.broken) == ["a.tar"]


def test_a_pax_header_that_points_back_ends_the_tar(tar: Callable[[bytes], str]) -> None:
    header = tarfile.TarInfo("a.png")
    header.pax_headers = {"size": "-4096"}
    raw = header.tobuf(tarfile.PAX_FORMAT)
    found = seen(tar(tar_of(("good.png", picture(1)))[:1024] + raw + bytes(4096)))
    assert list(found.files) == ["a.tar/good.png"]
    assert list(found.broken) == ["a.tar"]


def test_long_names_are_whole(tar: Callable[[bytes], str]) -> None:
    name = "folder/" * 40 + "a.png"
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        assert seen(tar(tar_of((name, picture(1)), format=form))).files == {f"a.tar/{name}": picture(1)}


def test_a_compressed_tar_is_a_reject_and_alone_it_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "b.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(SourceError, match=r"1 are compressed.*unpack it"):
        seen(f"webdataset:{tmp_path}")
    shard(tmp_path / "a.tar", range(1))
    assert "unpack it" in seen(f"webdataset:{tmp_path}").broken["b.tar.gz"]


@pytest.mark.parametrize(
    ("location", "told"),
    [("{0..9999999}.tar", "more than 100,000 files"), ("nowhere", "is no folder"), ("{{0..1}.tar", "do not match")],
)
def test_locations_that_cannot_be_meant(tmp_path: Path, location: str, told: str) -> None:
    with pytest.raises(SourceError, match=told):
        seen(f"webdataset:{tmp_path}/{location}")


def test_a_tar_that_changes_after_it_was_listed_gives_no_other_image(tmp_path: Path) -> None:
    from taskgalaxy_ops.settings import SourceSettings
    from taskgalaxy_ops.sources.listing import source_files

    path = tmp_path / "a.tar"
    path.write_bytes(tar_of(("a.png", picture(1)), ("b.png", picture(2))))
    with source_files("mine", SourceSettings(location=f"webdataset:{path}"), {}) as files:
        path.write_bytes(tar_of(("c.png", picture(3)), ("b.png", picture(2))))
        first, second = files
        with pytest.raises(UnreadableError, match="has changed since it was listed"):
            first.read()
        assert second.read() == picture(2)


def test_only_changed_tars_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from taskgalaxy_ops.sources.kinds import webdataset as kind

    shard(tmp_path / "s-0.tar", range(3))
    workspace = workspace_at(f"webdataset:{tmp_path}")
    assert pipeline.ingest(workspace, "mine").new_images == 3
    read: list[str] = []
    inner = kind.WebDatasetSource._read

    def noted(self: kind.WebDatasetSource, tar: kind.Container, *rest: int) -> bytes:
        read.append(tar.name)
        return inner(self, tar, *rest)

    monkeypatch.setattr(kind.WebDatasetSource, "_read", noted)
    assert pipeline.ingest(workspace, "mine").new_images == 0
    assert read == []
    shard(tmp_path / "s-1.tar", range(3, 5))
    assert pipeline.ingest(workspace, "mine").new_images == 2
    assert read == ["s-1.tar"] * 2
    shard(tmp_path / "s-0.tar", range(1, 3))  # one image is gone
    os.utime(tmp_path / "s-0.tar", ns=(1, 1))
    last = pipeline.ingest(workspace, "mine")
    assert (last.images, last.new_images) == (4, 0)
    assert sorted(files_of(workspace)) == [f"s-{0 if seed < 3 else 1}.tar/{seed:06}.png" for seed in range(1, 5)]


def test_notes_beside_the_tars_say_whose_they_are(tmp_path: Path) -> None:
    shard(tmp_path / "s.tar", range(1))
    (tmp_path / "source.json").write_text('{"licence": "CC0-1.0"}')
    workspace = workspace_at(f"webdataset:{tmp_path}")
    pipeline.ingest(workspace, "mine")
    assert [claim.licence for claim in workspace.registry.claims()] == ["CC0-1.0"]


def test_tars_in_a_bucket_through_ingest(seaweedfs: SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in seaweedfs.environment.items():
        monkeypatch.setenv(key, value)
    place = f"s3://{seaweedfs.bucket}/shards {tmp_path.name}"
    bucket = connect(place, **seaweedfs.s3_options)
    for number in range(2):
        raw = shard(tmp_path / "s.tar", range(10 * number, 10 * number + 5)).read_bytes()
        bucket.replace(f"deep/s-{number:03}.tar", raw)
    workspace = workspace_at(f"webdataset:{place}", MemoryStore())
    workspace.__dict__["s3_options"] = seaweedfs.s3_options
    receipt = pipeline.ingest(workspace, "mine")
    assert (receipt.images, receipt.rejects, receipt.left_out) == (10, [], {"metadata of a sample": 30})
    assert files_of(workspace)["deep/s-001.tar/000012.png"] == sha256_hex(picture(12))
    by_range = seen(f"webdataset:{place}/deep/s-{{001..002}}.tar", seaweedfs.s3_options)
    assert by_range.files == {f"s-001.tar/{seed:06}.png": picture(seed) for seed in range(10, 15)}
    assert by_range.broken == {"s-002.tar": "no such object"}
    bucket.replace("deep/s-001.tar", shard(tmp_path / "s.tar", range(10, 16)).read_bytes())  # one more
    again = pipeline.ingest(workspace, "mine")
    assert (again.images, again.new_images) == (11, 1)


def test_an_index_is_kept_whole_or_not_at_all(tmp_path: Path, _cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from taskgalaxy_ops.sources.kinds import webdataset as kind

    location = f"webdataset:{shard(tmp_path / 'a.tar', range(4))}"
    inner = kind._indexed

    def broken(tar: kind.Container, option: str | None) -> Iterator[Any]:
        yield next(inner(tar, option))
        raise StoreError("the bucket does not reply")

    monkeypatch.setattr(kind, "_indexed", broken)
    with pytest.raises(StoreError):
        seen(location)
    assert list((_cache / "tars").iterdir()) == []
    monkeypatch.setattr(kind, "_indexed", inner)
    first = seen(location)
    [kept] = (_cache / "tars").iterdir()
    assert seen(location) == first
    kept.write_bytes(kept.read_bytes()[:-5])
    with pytest.raises(SourceError, match=r"cached index cannot be read.*Delete it"):
        seen(location)
    monkeypatch.setenv("TASKGALAXY_CACHE", "/proc/nowhere")  # where nothing can be written
    assert seen(location) == first


def test_the_index_of_a_tar_in_a_bucket_is_kept(
    seaweedfs: SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from taskgalaxy_ops.sources.kinds import webdataset as kind

    place = f"s3://{seaweedfs.bucket}/kept {tmp_path.name}"
    connect(place, **seaweedfs.s3_options).replace("a.tar", shard(tmp_path / "a.tar", range(4)).read_bytes()[:-10241])
    first = seen(f"webdataset:{place}/a.tar", seaweedfs.s3_options)
    assert len(first.files) == 4
    monkeypatch.setattr(kind, "_indexed", lambda *_: pytest.fail("its headers are read again"))
    assert seen(f"webdataset:{place}/a.tar", seaweedfs.s3_options) == first
