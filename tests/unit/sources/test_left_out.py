"""What a scan leaves out of a source is counted by kind; which files are looked into, and which links are followed."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from fakes import MemoryStore
from odd_files import HEIC
from PIL import Image as Pillow
from tiny import tiny_settings, tiny_workspace

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.errors import NotFoundError, SourceError, StoreError, UnreadableError
from taskgalaxy_ops.operations.status import status
from taskgalaxy_ops.operations.verify import verify
from taskgalaxy_ops.records import Reason
from taskgalaxy_ops.reports.text import run as run_text
from taskgalaxy_ops.reports.text import status as status_text
from taskgalaxy_ops.settings import SourceSettings
from taskgalaxy_ops.sources import left_out
from taskgalaxy_ops.sources.content import by_suffix, holds_image, suffix_of
from taskgalaxy_ops.sources.decoders import Decoders
from taskgalaxy_ops.sources.inspecting import lacks_decoder, pages
from taskgalaxy_ops.sources.kinds import bucket, folder
from taskgalaxy_ops.sources.listing import Listing, source_files
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.log import Log
from taskgalaxy_ops.workspace import Workspace


def picture(seed: int, kind: str = "PNG", frames: int = 1) -> bytes:
    out = io.BytesIO()
    images = [Pillow.new("RGB", (32, 32), (seed * 37 % 256, seed * 91 % 256, frame * 50)) for frame in range(frames)]
    more = {"save_all": True, "append_images": images[1:]} if frames > 1 else {}
    images[0].save(out, kind, **more)
    return out.getvalue()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


def files_of(location: Path | str, **more: object) -> Listing:
    found = source_files("mine", SourceSettings(location=str(location), **more), {})  # type: ignore[arg-type]
    found.look()
    return found


def names(location: Path | str, **more: object) -> list[str]:
    return [file.name for file in files_of(location, **more)]


@pytest.fixture
def workspace_of(images: Path) -> Callable[..., Workspace]:
    store = MemoryStore()

    def opened(**source: object) -> Workspace:
        settings = tiny_settings(images, sources={"mine": {"location": str(images), **source}})
        return tiny_workspace(settings, store)

    return opened


# Which files are images


def test_a_file_without_a_telling_suffix_is_read_where_its_content_is_an_image(images: Path) -> None:
    for number, name in enumerate(("a.jfif", "b", "c.image", "d.JPE", "e.2024-05-01", "f.heic", "g.png")):
        (images / name).write_bytes(picture(number, "JPEG"))
    for name in ("README", "LICENSE", "x.unknown", "empty"):
        (images / name).write_bytes(b"" if name == "empty" else b"some text")
    for name in ("notes.txt", "table.CSV", "clip.mp4", "raw.dng"):
        (images / name).write_bytes(picture(9))  # the suffix says clearly that it is something else
    found = files_of(images)
    assert [file.name for file in found] == ["a.jfif", "b", "c.image", "d.JPE", "e.2024-05-01", "f.heic", "g.png"]
    assert found.left_out == {
        "no known image": 4,
        "suffix .csv": 1,
        "suffix .dng": 1,
        "suffix .mp4": 1,
        "suffix .txt": 1,
    }
    assert left_out.told(found.left_out) == (
        "left out: 4 by suffix (.csv 1, .dng 1, .mp4 1, .txt 1; see `suffixes`), 4 that are no known images"
    )


def test_images_of_other_suffixes_are_said(images: Path, workspace_of: Callable[..., Workspace]) -> None:
    for number, name in enumerate(("a.jfif", "b", "c.heic", "d", "e.png")):
        (images / name).write_bytes(picture(number, "JPEG"))
    receipt = pipeline.ingest(workspace_of(), "mine")
    assert receipt.unusual == {"suffix .heic": 1, "suffix .jfif": 1, "suffix none": 2}
    assert run_text.ingested([receipt])[1] == ("  with another suffix, by content: 4 images (none 2, .heic 1, .jfif 1)")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000"])
def test_every_usual_format_is_known_by_its_first_bytes(kind: str) -> None:
    raw = picture(1, kind)
    assert holds_image(raw[:32])
    assert not holds_image(raw[1:33])
    assert pages(raw) == 1


NO_IMAGES = (
    b"", b"MM is a text", b"II. Chapter", b"BMW is a car, and this is a text", b"\xff\xd8", b"%PDF-1.7",
    b"RIFF\0\0\0\0WAVE", b"\0\0\0\x18ftypmp42", b"\0\0\0\x14ftypqt  ", b"\x7fELF", b"PK\3\4", bytes(32),
)  # fmt: skip


def test_no_text_program_or_film_is_taken_for_an_image() -> None:
    for raw in NO_IMAGES:
        assert not holds_image(raw)


def test_a_clear_suffix_is_skipped_without_being_read(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []
    whole = folder.FolderSource.head
    monkeypatch.setattr(
        folder.FolderSource, "head", lambda self, place, length: read.append(place) or whole(self, place, length)
    )
    for name in ("a.txt", "b.json", "c.parquet", "d.png", "e", "f.strange"):
        (images / name).write_bytes(picture(1))
    assert names(images) == ["d.png", "e", "f.strange"]
    assert [os.path.basename(place) for place in read] == [b"e", b"f.strange"]  # noqa: PTH119


def test_own_suffixes_are_all_that_counts(images: Path) -> None:
    for number, name in enumerate(("a.png", "b.jpg", "c", "d.heic", "e.scan")):
        (images / name).write_bytes(picture(number))
    found = files_of(images, suffixes=[".png", ".scan"])
    assert [file.name for file in found] == ["a.png", "e.scan"]
    assert found.left_out == {"suffix .heic": 1, "suffix .jpg": 1, "suffix none": 1}


def test_suffixes_are_known_whatever_their_case() -> None:
    assert [suffix_of(name) for name in ("a.JPG", "a/b.tar.gz", "noext", ".hidden", "a.b/c", "x.")] == [
        *(".jpg", ".gz", "", "", "", ".")
    ]
    assert (by_suffix(".jfif"), by_suffix(".txt"), by_suffix(""), by_suffix(".scan")) == (True, False, None, None)


def test_odd_suffixes_are_counted_together_and_never_printed(images: Path) -> None:
    for number in range(30):
        (images / f"{number}.s{number}").write_bytes(b"x")
    (images / "a.png").write_bytes(picture(1))
    (images / "b.\x1b[31m").write_bytes(b"x")
    (images / "c.a very long suffix indeed").write_bytes(b"x")
    found = files_of(images, suffixes=[".png"]).left_out
    assert sum(found.values()) == 32
    assert len(found) == 12
    assert found["suffix others"] == 21
    assert "\x1b" not in left_out.told(found)


def test_heic_without_its_decoder_is_a_reject_that_names_the_extra(
    images: Path, workspace_of: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskgalaxy_ops.sources.checking.Decoders", partial(Decoders, preload=["without_heif"]))
    (images / "a.heic").write_bytes(HEIC)
    (images / "IMG_0001").write_bytes(HEIC)
    (images / "b.png").write_bytes(picture(1))
    receipt = pipeline.ingest(workspace_of(), "mine")
    assert [reject.file for reject in receipt.rejects] == ["IMG_0001", "a.heic"]
    assert {reject.reason for reject in receipt.rejects} == {Reason.UNREADABLE}
    assert "taskgalaxy-ops[heif]" in receipt.rejects[0].detail
    assert lacks_decoder(picture(1, "AVIF")) == ""


def test_heic_is_read_where_the_extra_is_installed(images: Path, workspace_of: Callable[..., Workspace]) -> None:
    pytest.importorskip("pi_heif", reason="the extra `heif` is not installed")
    (images / "a").write_bytes(HEIC)
    receipt = pipeline.ingest(workspace_of(), "mine")
    assert (receipt.images, list(receipt.rejects)) == (1, [])
    (image,) = workspace_of().registry.image_index().values()
    assert (image.width, image.height, image.format) == (64, 48, "heif")


# Hidden files, links, pages, the limit


def test_hidden_files_and_folders_are_left_out_and_counted(images: Path) -> None:
    (images / ".cache" / "deep").mkdir(parents=True)
    for name in ("a.png", "._a.png", ".DS_Store", ".cache/b.png", ".cache/deep/c.png"):
        (images / name).write_bytes(b"x" if name == ".DS_Store" else picture(len(name)))
    found = files_of(images)
    assert [file.name for file in found] == ["a.png"]
    assert found.left_out == {"hidden": 3}
    assert "(hidden: true)" in left_out.told(found.left_out)
    assert names(images, hidden=True) == ["._a.png", ".cache/b.png", ".cache/deep/c.png", "a.png"]


@pytest.fixture
def linked(images: Path, tmp_path: Path) -> Path:
    """A folder with links to a file and a folder inside, in a hidden folder, and outside; circles; and broken ones."""
    outside = tmp_path / "outside"
    for place in (images / "real", images / ".kept", outside / "deep"):
        place.mkdir(parents=True)
    for number, file in enumerate(("images/real/a.png", "images/.kept/b.png", "outside/c.png", "outside/deep/d.png")):
        (tmp_path / file).write_bytes(picture(number))
    for link, target in {
        "file inside.png": images / "real" / "a.png",
        "folder inside": images / "real",
        "folder kept": images / ".kept",
        "file outside.png": outside / "c.png",
        "folder outside": outside,
        "up": images,
        "nowhere.png": tmp_path / "gone",
        "self": images / "self",
    }.items():
        (images / link).symlink_to(target)
    (outside / "back").symlink_to(images)
    (outside / "circle").symlink_to(outside)
    os.mkfifo(images / "pipe.png")
    return images


_COMMON = {"broken link": 2, "hidden": 1, "neither file nor folder": 1}


def test_links_are_followed_inside_the_folder(linked: Path) -> None:
    found = files_of(linked)
    assert [file.name for file in found] == ["file inside.png", "folder kept/b.png", "real/a.png"]
    assert found.left_out == {
        **_COMMON,
        "link to a file outside": 1,
        "link to a folder outside": 1,
        "link to a folder that is read anyway": 2,
    }
    assert "1 link to a folder outside (follow_links: anywhere)" in left_out.told(found.left_out)
    assert files_of(linked).left_out == found.left_out


def test_links_are_followed_anywhere_and_circles_end(linked: Path) -> None:
    found = files_of(linked, follow_links="anywhere")
    assert [file.name for file in found] == [
        *("file inside.png", "file outside.png", "folder kept/b.png", "folder outside/c.png"),
        *("folder outside/deep/d.png", "real/a.png"),
    ]
    assert found.left_out == {**_COMMON, "link to a folder that is read anyway": 4}


def test_links_are_followed_never(linked: Path) -> None:
    found = files_of(linked, follow_links="never")
    assert [file.name for file in found] == ["real/a.png"]
    assert found.left_out == {"hidden": 1, "link": 8, "neither file nor folder": 1}
    assert "8 links (follow_links: inside)" in left_out.told(found.left_out)


def test_a_location_that_is_itself_a_link_is_read(linked: Path, tmp_path: Path) -> None:
    (tmp_path / "by another name").symlink_to(linked)
    assert names(tmp_path / "by another name") == names(linked)


def test_a_folder_that_may_not_be_opened_is_counted(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (images / "closed").mkdir()
    (images / "a.png").write_bytes(picture(1))
    scandir = os.scandir

    def guarded(path: bytes) -> object:
        if path.endswith(b"closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("taskgalaxy_ops.sources.kinds.folder.os", SimpleNamespace(**{**vars(os), "scandir": guarded}))
    assert files_of(images).left_out == {"folder that may not be opened": 1}


def test_the_limit_counts_images_and_what_lies_beyond_is_said(images: Path) -> None:
    for name in ("0 text", "1", "2.png", "3 text", "4.png", "5.png", "6"):
        (images / name).write_bytes(b"text" if "text" in name else picture(int(name[0])))
    found = files_of(images, limit=2)
    assert [file.name for file in found] == ["1", "2.png"]
    assert found.left_out == {"no known image": 2, "over the limit": 3}
    assert names(images, limit=4) == ["1", "2.png", "4.png", "5.png"]
    assert names(images, limit=100) == ["1", "2.png", "4.png", "5.png", "6"]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_further_frames_and_pages_are_counted(kind: str, images: Path, workspace_of: Callable[..., Workspace]) -> None:
    (images / "three").write_bytes(picture(1, kind, frames=3))
    (images / "one.png").write_bytes(picture(2))
    receipt = pipeline.ingest(workspace_of(), "mine")
    assert (receipt.images, receipt.left_out) == (2, {"further page or frame": 2})
    kept = workspace_of().registry.scans()["mine"].pages
    assert kept is not None
    assert kept.key in workspace_of().registry.named(), "garbage collection would take it"
    (images / "new.png").write_bytes(picture(3))
    assert pipeline.ingest(workspace_of(), "mine").left_out == {"further page or frame": 2}, "it was not read again"
    (images / "three").unlink()
    assert pipeline.ingest(workspace_of(), "mine").left_out == {}
    assert verify(workspace_of()).damage == []


# What the registry keeps


def test_receipt_and_status_say_what_was_left_out(images: Path, workspace_of: Callable[..., Workspace]) -> None:
    for name in ("a.png", "b.txt", ".hidden.png", "README"):
        (images / name).write_bytes(picture(1) if name == "a.png" else b"x")
    counts = {"hidden": 1, "no known image": 1, "suffix .txt": 1}
    line = "left out: 1 by suffix (.txt 1; see `suffixes`), 1 hidden (hidden: true), 1 that is no known image"
    for _ in range(2):  # the second is an unchanged source's
        receipt = pipeline.ingest(workspace_of(), "mine")
        assert (receipt.files, receipt.images, receipt.left_out) == (1, 1, counts)
        assert run_text.ingested([receipt])[1].strip() == line
    (source,) = status(workspace_of()).sources
    assert source.left_out == counts
    assert any(each.strip() == line for each in status_text.status(status(workspace_of())))
    assert workspace_of().registry.last() == 1


def test_an_unchanged_source_is_not_read_again_but_its_counts_are_kept_up(
    images: Path, workspace_of: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    for how in ("head", "open"):
        real = getattr(folder.FolderSource, how)

        def noted(self: object, place: bytes, *more: int, how: str = how, real: Callable[..., bytes] = real) -> bytes:
            read.append(f"{how} {os.path.basename(place).decode()}")  # noqa: PTH119
            return real(self, place, *more)

        monkeypatch.setattr(folder.FolderSource, how, noted)
    for name in ("a.png", "b", "README"):
        (images / name).write_bytes(b"text" if name == "README" else picture(len(name)))
    pipeline.ingest(workspace_of(), "mine")
    assert sorted(read) == ["head README", "head b", "open a.png", "open b"]
    read.clear()
    pipeline.ingest(workspace_of(), "mine")
    assert read == []
    (images / "more.txt").write_bytes(b"x")
    assert pipeline.ingest(workspace_of(), "mine").left_out == {"no known image": 1, "suffix .txt": 1}
    (images / "c.png").write_bytes(picture(77))
    pipeline.ingest(workspace_of(), "mine")
    assert read == ["open c.png"], "what was looked into before is not looked into again"


def test_a_scan_without_counts_is_read_and_nothing_of_it_is_read_again(
    images: Path, workspace_of: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a store holds it that was made before anything was counted."""
    (images / "a.png").write_bytes(picture(1))
    pipeline.ingest(workspace_of(), "mine")
    workspace = workspace_of()
    (entry,) = Log(workspace.store, keys.REGISTRY_LOG).read()
    assert entry.body.pop("left_out") == {}
    workspace.store.objects.clear()  # type: ignore[attr-defined]
    Log(workspace.store, keys.REGISTRY_LOG).append(dict(entry.body))
    old = workspace_of().registry.scans()["mine"]
    assert (old.left_out, old.pages) == (None, None)
    assert left_out.told(old.left_out) == ""


def test_an_old_scan_is_brought_up_to_date_without_reading_its_images(
    images: Path, workspace_of: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "b.txt"):
        (images / name).write_bytes(picture(1))
    to_json = "taskgalaxy_ops.storage.registry.state.Scan.to_json"
    from taskgalaxy_ops.storage.registry.state import Scan

    now = Scan.to_json
    monkeypatch.setattr(to_json, lambda scan: {k: v for k, v in now(scan).items() if k not in {"left_out", "pages"}})
    pipeline.ingest(workspace_of(), "mine")
    monkeypatch.undo()
    assert workspace_of().registry.scans()["mine"].left_out is None
    assert status(workspace_of()).sources[0].left_out is None
    monkeypatch.setattr(folder.FolderSource, "open", lambda self, place: pytest.fail("it was read"))
    receipt = pipeline.ingest(workspace_of(), "mine")
    assert (receipt.images, receipt.new_images, receipt.left_out) == (1, 0, {"suffix .txt": 1})
    assert status(workspace_of()).sources[0].left_out == {"suffix .txt": 1}


def test_where_all_is_left_out_the_error_says_so(images: Path, workspace_of: Callable[..., Workspace]) -> None:
    (images / "a.txt").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"(?s)lists no image.*left out: 1 by suffix \(\.txt 1"):
        pipeline.ingest(workspace_of(), "mine")
    (images / "README").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"(?s)lists no image.*1 that is no known image"):
        pipeline.ingest(workspace_of(), "mine")


# A bucket


@pytest.fixture
def pile(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    store = MemoryStore()
    monkeypatch.setattr(bucket, "connect", lambda url, **options: store)
    for number in range(5):
        store.put_if_absent(f"{number}.png", picture(number))
    return store


def test_what_cannot_be_read_in_a_bucket_is_a_reject_and_the_others_go_on(pile: MemoryStore) -> None:
    failures: dict[str, StoreError] = {
        "1.png": UnreadableError("InvalidObjectState: it is archived: restore it"),
        "2.png": NotFoundError("gone"),
        "3.png": StoreError("InternalError, at every try"),
        "scan": UnreadableError("AccessDenied"),
    }

    def before(operation: str, key: str) -> None:
        if operation == "get" and key in failures:
            raise failures[key]

    pile.put_if_absent("scan", picture(9))
    pile.before = before
    workspace = tiny_workspace(tiny_settings("s3://bucket/pile"))
    receipt = pipeline.ingest(workspace, "mine")
    assert receipt.images == 2
    assert [(reject.file, reject.reason) for reject in receipt.rejects] == [
        (name, Reason.UNREADABLE) for name in ("1.png", "2.png", "3.png", "scan")
    ]
    assert "archived" in receipt.rejects[0].detail
    failures.clear()
    assert pipeline.ingest(workspace, "mine").images == 6, "it is read again once it can be"


def test_a_bucket_that_is_gone_ends_the_scan(pile: MemoryStore) -> None:
    def before(operation: str, key: str) -> None:
        if operation in {"get", "list"} and key != "source.json" and armed:
            raise StoreError("out of reach")

    armed = False
    pile.before = before
    with source_files("mine", SourceSettings(location="s3://bucket/pile"), {}) as files:
        armed = True
        with pytest.raises(StoreError, match="out of reach"):
            next(iter(files)).read()


def test_objects_without_a_telling_suffix_are_looked_into_by_range(pile: MemoryStore) -> None:
    asked: list[tuple[str, int | None]] = []
    get = pile.get

    def noted(key: str, *, start: int = 0, length: int | None = None) -> bytes:
        asked.append((key, length))
        return get(key, start=start, length=length)

    pile.get = noted  # type: ignore[method-assign]
    pile.put_if_absent("scan", picture(9))
    pile.put_if_absent("notes.txt", b"text")
    pile.put_if_absent("folder/", b"")
    pile.put_if_absent(".keep", b"x")
    found = files_of("s3://bucket/pile")
    assert [file.name for file in found] == ["0.png", "1.png", "2.png", "3.png", "4.png", "scan"]
    assert found.left_out == {"hidden": 1, "suffix .txt": 1}
    assert asked == [("source.json", None), ("scan", 32)]


def test_what_a_kind_of_source_raises_for_a_file_is_that_files_reject(
    images: Path, workspace_of: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    class BadArchiveError(Exception):
        pass

    def opened(self: object, place: bytes) -> bytes:
        if place.endswith(b"b.png"):
            raise BadArchiveError("Bad CRC-32 for file \x1b[31m")
        return (images / os.fsdecode(place)).read_bytes()

    monkeypatch.setattr(folder.FolderSource, "open", opened)
    for number, name in enumerate(("a.png", "b.png")):
        (images / name).write_bytes(picture(number))
    receipt = pipeline.ingest(workspace_of(), "mine")
    assert receipt.images == 1
    assert [(reject.file, reject.detail) for reject in receipt.rejects] == [("b.png", "Bad CRC-32 for file [31m")]
