"""Pages of documents as images: what they are, how they are called, and what odd documents cost."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bad_pages
import numpy as np
import pytest
from fakes import MemoryStore
from papers import Sheet, pdf, striped, tiff
from PIL import Image
from sourcing import files_of, seen, workspace_at
from tiny import TinyModels, tiny_models, tiny_seeds, tiny_settings, tiny_workspace
from zoo import picture as colours

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.cli.maintain import _image
from taskgalaxy_ops.demo.services import SeaweedFS
from taskgalaxy_ops.errors import DamageError, SourceError, UnreadableError
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.hashing import fingerprint, sha256_hex
from taskgalaxy_ops.operations.takedown import take_down
from taskgalaxy_ops.operations.verify import verify
from taskgalaxy_ops.records import Image as ImageRecord
from taskgalaxy_ops.release.publish import publish
from taskgalaxy_ops.settings import IngestSettings, SourceSettings
from taskgalaxy_ops.sources import pages
from taskgalaxy_ops.sources.decoders import Decoders, Opened
from taskgalaxy_ops.sources.inspecting import Bounds
from taskgalaxy_ops.sources.kinds import FoundImage, Unreadable, documents, found_source
from taskgalaxy_ops.sources.kinds.containers import Containers
from taskgalaxy_ops.sources.preview import preview
from taskgalaxy_ops.sources.watch import watch
from taskgalaxy_ops.storage import connect, keys
from taskgalaxy_ops.workspace import Workspace

__all__ = ["tiny_models"]

SMALL = {"pixels": "200"}


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TASKGALAXY_CACHE", str(folder))
    return folder


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The documents that are read, in the order in which they are."""
    read: list[str] = []
    inner = Containers.open

    def noted(self: Containers, place: bytes) -> bytes:
        read.append(os.fsdecode(place).rpartition("/")[2])
        return inner(self, place)

    monkeypatch.setattr(Containers, "open", noted)
    return read


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the pages that are drawn."""
    found: list[int] = []
    inner = Decoders.page

    def noted(self: Decoders, document: bytes, number: int, pixels: int) -> Any:
        found.append(number)
        return inner(self, document, number, pixels)

    monkeypatch.setattr(Decoders, "page", noted)
    return found


def image(raw: bytes) -> Image.Image:
    return Image.open(io.BytesIO(raw))


def records(workspace: Workspace) -> dict[str, ImageRecord]:
    """The registered images by file."""
    index = workspace.registry.image_index()
    return {file: index[image] for file, image in files_of(workspace).items()}


def rejects(workspace: Workspace) -> dict[str, tuple[str, str]]:
    return {each.file: (each.reason, each.detail) for each in workspace.registry.rejects("mine")}


def blobs(workspace: Workspace) -> dict[str, bytes]:
    return {file: workspace.store.get(keys.blob(each.image)) for file, each in records(workspace).items()}


def test_every_page_of_a_pdf_is_an_image(tmp_path: Path) -> None:
    """A PDF as matplotlib writes it; A4, some with text, some with curves."""
    import matplotlib as mpl
    from matplotlib.backends.backend_pdf import PdfPages
    from matplotlib.figure import Figure

    with mpl.rc_context({"backend": "agg"}), PdfPages(tmp_path / "report.pdf") as file:
        for number in range(3):
            sheet = Figure(figsize=(8.27, 11.69))
            sheet.text(0.1, 0.5, f"Page {number}", fontsize=40)
            sheet.subplots().plot([1, 2, number])
            file.savefig(sheet)
    workspace = workspace_at(f"documents:{tmp_path}")
    receipt = pipeline.ingest(workspace, "mine")
    assert (receipt.files, receipt.images, receipt.rejects, receipt.unusual) == (3, 3, [], {})
    raw = (tmp_path / "report.pdf").read_bytes()
    found = dict(sorted(records(workspace).items()))
    assert list(found) == [f"report.pdf/{number:05}" for number in range(1, 4)]
    for number, page in enumerate(found.values(), 1):
        assert (page.width, page.height, page.format) == (1449, 2048, "png")
        document = {"document": sha256_hex(raw), "page": number, "rendering": {"kind": "pdf", "pixels": 2048}}
        assert page.image == fingerprint("page", document)
        assert page.content == sha256_hex(workspace.store.get(keys.blob(page.image)))
    assert len({page.phash for page in found.values()}) == 3, "they look different"
    assert verify(workspace).damage == []


def test_a_damaged_page_is_found_by_verify(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf([striped(1), striped(2)]))
    workspace = workspace_at(f"documents:{tmp_path}", options=SMALL)
    pipeline.ingest(workspace, "mine")
    page = records(workspace)["a.pdf/00002"]
    raw = bytearray(workspace.store.get(keys.blob(page.image)))
    raw[len(raw) // 2] ^= 1
    workspace.store.replace(keys.blob(page.image), bytes(raw))
    [damage] = verify(workspace).damage
    assert keys.blob(page.image) in str(damage)


def test_frames_of_a_tiff_are_pages_as_models_see_them(tmp_path: Path) -> None:
    """Of every depth, turned, transparent; in black and white, in grey, or in colours: without any loss."""
    noise = np.random.default_rng(0)
    grey = Image.fromarray(noise.integers(0, 256, (50, 40), np.uint8))
    bilevel = grey.convert("1")
    turned = Image.Exif()
    turned[0x0112] = 6
    clear = Image.new("RGBA", (40, 50), (255, 0, 0, 0))
    frames = [bilevel, grey, colours(40, 50), colours(40, 50).convert("CMYK"), clear]
    (tmp_path / "scan.tif").write_bytes(tiff(frames, compression="tiff_lzw"))
    (tmp_path / "turned.TIFF").write_bytes(tiff([colours(60, 40)], exif=turned))
    deep = Image.fromarray(np.tile(np.arange(50, dtype=np.uint16) * 1000, (40, 1)))
    (tmp_path / "deep.tif").write_bytes(tiff([deep, deep]))
    workspace = workspace_at(f"documents:{tmp_path}")
    assert pipeline.ingest(workspace, "mine").rejects == [], "the second frame of deep.tif is another page"
    made = {file: image(raw) for file, raw in blobs(workspace).items()}
    scan, deeps = [f"scan.tif/0000{number}" for number in range(1, 6)], ["deep.tif/00001", "deep.tif/00002"]
    modes = dict(zip(scan, ["1", "L", "RGB", "RGB", "1"], strict=True)) | dict.fromkeys(deeps, "L")
    assert {file: each.mode for file, each in made.items()} == modes | {"turned.TIFF/00001": "RGB"}
    assert made["scan.tif/00001"].tobytes() == bilevel.tobytes()
    assert made["scan.tif/00002"].tobytes() == grey.tobytes()
    assert made["scan.tif/00003"].tobytes() == colours(40, 50).tobytes()
    assert made["scan.tif/00005"].getextrema() == (255, 255)
    assert made["turned.TIFF/00001"].size == (40, 60)
    assert made["deep.tif/00001"].getextrema()[1] > 250, "not nearly black"
    assert verify(workspace).damage == []
    as_files = workspace_at(str(tmp_path))
    assert pipeline.ingest(as_files, "mine").left_out == {"further page or frame": 5}
    assert set(files_of(as_files)) == {"scan.tif", "turned.TIFF", "deep.tif"}, "elsewhere the first frame alone"


def test_only_what_is_new_is_read_and_drawn(tmp_path: Path, opened: list[str], drawn: list[int], _cache: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf([striped(1), striped(2)]))
    (tmp_path / "b.tif").write_bytes(tiff([colours(40, 50), colours(50, 40)]))
    workspace = workspace_at(f"documents:{tmp_path}", options=SMALL)
    first = pipeline.ingest(workspace, "mine")
    assert (first.images, first.new_images) == (4, 4)
    assert (sorted(opened), sorted(drawn)) == (["a.pdf", "b.tif"], [1, 1, 2, 2]), "each document once, each page once"
    before = files_of(workspace)

    opened.clear(), drawn.clear()
    assert pipeline.ingest(workspace, "mine").new_images == 0
    assert (opened, drawn) == ([], []), "a listing is enough"

    (tmp_path / "c.pdf").write_bytes(pdf([striped(3)]))
    assert pipeline.ingest(workspace, "mine").new_images == 1
    assert (opened, drawn) == (["c.pdf"], [1])

    opened.clear(), drawn.clear()
    (tmp_path / "a.pdf").write_bytes(pdf([striped(2), striped(1)]))  # another document with the same pages
    (tmp_path / "b.tif").unlink()
    last = pipeline.ingest(workspace, "mine")
    assert (last.images, last.new_images) == (3, 2)
    assert (opened, sorted(drawn)) == (["a.pdf"], [1, 2])
    now = files_of(workspace)
    assert set(now) == {"a.pdf/00001", "a.pdf/00002", "c.pdf/00001"}
    assert not set(now.values()) & {before["a.pdf/00001"], before["a.pdf/00002"]}, "pages of another document"

    opened.clear(), drawn.clear()
    (tmp_path / "c.pdf").rename(tmp_path / "d.pdf")
    assert pipeline.ingest(workspace, "mine").new_images == 0
    assert (opened, drawn) == (["d.pdf"], [])

    opened.clear()
    shutil.rmtree(_cache / "documents")
    assert pipeline.ingest(workspace, "mine").new_images == 0
    assert "mine" in watch(workspace).same
    assert (opened, drawn) == ([], []), "on another machine, too"


def test_what_is_not_scanned_yet_is_counted_once_on_a_machine(tmp_path: Path, opened: list[str], _cache: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf([striped(1), striped(2)]))
    (tmp_path / "b.pdf").write_bytes(pdf([striped(1)])[:-60])
    settings = SourceSettings(location=f"documents:{tmp_path}")
    first = [*found_source("mine", settings, {}).list()]
    assert (len(first), sorted(opened)) == (3, ["a.pdf", "b.pdf"])
    assert [*found_source("mine", settings, {}).list()] == first
    assert len(opened) == 2
    for kept in (_cache / "documents").iterdir():
        kept.write_text('{"version": "damaged')
    assert [*found_source("mine", settings, {}).list()] == first
    assert len(opened) == 4


def test_more_documents_than_are_kept_are_read_twice_at_most(
    tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "_KEPT_BYTES", 1)
    for number in range(3):
        (tmp_path / f"{number}.pdf").write_bytes(pdf([striped(10 * number + page) for page in range(5)]))
    workspace = workspace_at(f"documents:{tmp_path}", options=SMALL)
    workspace.settings.ingest.__dict__["workers"] = 1
    assert pipeline.ingest(workspace, "mine").new_images == 15
    assert all(opened.count(f"{number}.pdf") <= 3 for number in range(3)), opened


def test_the_same_document_twice_is_one(tmp_path: Path) -> None:
    for name in ("a.pdf", "b.pdf"):
        (tmp_path / name).write_bytes(pdf([striped(1), striped(2)]))
    workspace = workspace_at(f"documents:{tmp_path}", options=SMALL)
    receipt = pipeline.ingest(workspace, "mine")
    assert (receipt.images, receipt.files) == (2, 4)
    assert rejects(workspace) == {f"b.pdf/0000{n}": ("duplicate", f"of a.pdf/0000{n}") for n in (1, 2)}


def test_a_place_says_all_that_is_needed(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf([striped(1), striped(2)]))
    settings = SourceSettings(location=f"documents:{tmp_path}", options=SMALL)
    [first, second] = found_source("mine", settings, {}).list()
    assert isinstance(first, FoundImage) and isinstance(second, FoundImage)
    made = found_source("mine", settings, {}).open(second.place)
    assert image(made).size == (200, 100)
    other = SourceSettings(location=f"documents:{tmp_path}", options={"pixels": "300"})
    assert found_source("mine", other, {}).open(second.place) == made, "drawn as it was when it was listed"
    (tmp_path / "a.pdf").write_bytes(pdf([striped(1), striped(2), striped(3)]))
    with pytest.raises(UnreadableError, match="has changed since it was listed"):
        found_source("mine", settings, {}).open(first.place)


def test_options_say_how_many_pixels_and_pages(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf([striped(n) for n in range(40)] * 75))
    found = seen(f"documents:{tmp_path}", options={"pixels": "500", "pages": "3"})
    assert {file: image(raw).size for file, raw in found.files.items()} == dict.fromkeys(found.order, (500, 250))
    assert (len(found.order), found.left_out) == (3, {"page over the limit of its document": 2997})
    listed = [*found_source("mine", SourceSettings(location=f"documents:{tmp_path}/a.pdf"), {}).list()]
    assert len(listed) == 1000 + 1, "the default, and what is left out"
    for options in ({"pixels": "0"}, {"pixels": "99999"}, {"pages": "many"}, {"pages": ""}, {"pages": "9" * 5000}):
        with pytest.raises(SourceError, match=f"option {next(iter(options))} is .*\n.*a whole number from 1 to"):
            seen(f"documents:{tmp_path}", options=options)
    workspace = workspace_at(f"documents:{tmp_path}", options={"pixels": "100", "pages": "2"})
    before = pipeline.ingest(workspace, "mine")
    assert (before.images, before.left_out) == (2, {"page over the limit of its document": 2998})
    more = SourceSettings(location=f"documents:{tmp_path}", options={"pixels": "110", "pages": "3"})
    assert pipeline.ingest(workspace, "mine", chosen=more).new_images == 3, "drawn otherwise, they are other images"


@pytest.mark.parametrize(
    ("raw", "reason", "detail"),
    [
        (b"", "unreadable", "the file is empty"),
        (b"no document at all", "unreadable", "neither a PDF nor a TIFF"),
        (b"%PDF-1.7\n%%EOF", "unreadable", "damaged: Failed to load document (PDFium: Data format error)."),
        (pdf([striped(1)], password="secret"), "unreadable", "protected by a password: save a copy without it"),
        (pdf([]), "unreadable", "the document has no pages"),
        (pdf([striped(1)])[:-60], "truncated", "it has no end: it is still being written, or was cut off"),
        (
            pdf([striped(1)]).replace(b"/Catalog", b"/Catalog /Linearized 1 /L 9000"),
            "truncated",
            f"{len(pdf([striped(1)])) + 22} of 9,000 bytes are there",
        ),
        (tiff([colours(40, 50)])[:6], "not an image", "no known image format"),
    ],
    ids=["empty", "text", "nothing in it", "password", "no pages", "cut off", "linearized", "TIFF's head"],
)
def test_a_document_that_is_none_is_a_reject(raw: bytes, reason: str, detail: str, tmp_path: Path) -> None:
    (tmp_path / "bad.pdf").write_bytes(raw)
    (tmp_path / "good.pdf").write_bytes(pdf([striped(1)], password=""))
    workspace = workspace_at(f"documents:{tmp_path}", options=SMALL)
    receipt = pipeline.ingest(workspace, "mine")
    assert set(files_of(workspace)) == {"good.pdf/00001"}, "encrypted, and nobody needs the password"
    tones = [tone for _, tone in image(blobs(workspace)["good.pdf/00001"]).getcolors() or []]
    assert {(255, 0, 0), (255, 255, 255)} <= set(tones)
    assert rejects(workspace) == {"bad.pdf": (reason, detail)}
    assert receipt.files == 2
    again = seen(f"documents:{tmp_path}", options=SMALL)
    assert again.broken == {"bad.pdf": detail}, "from the cache"


def test_odd_pages_cost_themselves_alone(tmp_path: Path) -> None:
    sheets = [
        Sheet(14_400, 14_400, "0 g 0 0 7200 7200 re f"),  # 200 inches
        Sheet(14_400, 9),
        Sheet(3, 2, "0 g 0 0 1 1 re f"),
        striped(7),
    ]
    raw = pdf(sheets, count=1_000_000_000)
    (tmp_path / "a.pdf").write_bytes(raw)
    (tmp_path / "lost.pdf").write_bytes(pdf(sheets[-1:], count=5))
    workspace = workspace_at(f"documents:{tmp_path}", options={"pixels": "600"})
    workspace.settings.ingest.__dict__["max_pixels"] = 300_000
    pipeline.ingest(workspace, "mine")
    found = {file: (each.width, each.height) for file, each in records(workspace).items()}
    assert found["a.pdf/00003"] == (600, 400)
    assert found["a.pdf/00004"] == (600, 300)
    told = rejects(workspace)
    assert told["a.pdf/00001"] == ("too many pixels", "600 x 600, ingest.max_pixels is 300000")
    assert told["a.pdf/00002"][0] == "too small"
    assert set(found) | set(told) >= {"lost.pdf/00001"}


@pytest.mark.parametrize(
    ("width", "reason"),
    [
        (bad_pages.CRASHES, "crashes its decoder"),
        (bad_pages.HANGS, "too slow to decode"),
        (bad_pages.BALLOONS, "too much memory"),
    ],
)
def test_a_page_that_ends_its_process_costs_one_page(
    width: int, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "_PRELOAD", ("pypdfium2", "bad_pages"))
    (tmp_path / "a.pdf").write_bytes(pdf([striped(1), Sheet(width), striped(3), striped(4)]))
    (tmp_path / "b.pdf").write_bytes(pdf([Sheet(bad_pages.OPENING)]))
    workspace = workspace_at(f"documents:{tmp_path}", options=SMALL)
    workspace.settings.ingest.__dict__.update(workers=1, seconds_an_image=2, megabytes_an_image=200)
    pipeline.ingest(workspace, "mine")
    assert set(files_of(workspace)) == {f"a.pdf/0000{number}" for number in (1, 3, 4)}
    told = rejects(workspace)
    assert {file: each[0] for file, each in told.items()} == {"a.pdf/00002": reason, "b.pdf": "crashes its decoder"}
    monkeypatch.setattr(documents, "_PRELOAD", ("pypdfium2",))
    assert pipeline.ingest(workspace, "mine").new_images == 2, "on a calmer machine they pass"
    assert rejects(workspace) == {}


def test_another_version_of_pdfium_changes_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf([striped(1), striped(2)]))
    workspace = workspace_at(f"documents:{tmp_path}", options=SMALL)
    pipeline.ingest(workspace, "mine")
    before, stored = records(workspace), blobs(workspace)
    monkeypatch.setattr(documents, "_PRELOAD", ("pypdfium2", "other_pages"))
    store = MemoryStore()
    store.objects.update({keys.blob(before["a.pdf/00001"].image): stored["a.pdf/00001"]})  # by a scan that was killed
    other = workspace_at(f"documents:{tmp_path}", store, options=SMALL)
    pipeline.ingest(other, "mine")
    now = records(other)
    assert files_of(other) == files_of(workspace)
    assert now["a.pdf/00001"] == before["a.pdf/00001"], "what was stored first stays, and is what is registered"
    assert now["a.pdf/00002"].content != before["a.pdf/00002"].content, "the other one is drawn otherwise indeed"
    assert verify(other).damage == []
    (tmp_path / "a.pdf").touch()
    assert pipeline.ingest(workspace, "mine").new_images == 0
    assert (records(workspace), blobs(workspace)) == (before, stored)


def test_a_page_is_taken_down_by_its_picture(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf([striped(1), striped(2)]))
    workspace = workspace_at(f"documents:{tmp_path}", options=SMALL)
    pipeline.ingest(workspace, "mine")
    page = records(workspace)["a.pdf/00001"]
    (tmp_path / "copy.png").write_bytes(workspace.store.get(keys.blob(page.image)))
    assert _image(workspace, str(tmp_path / "copy.png")) == page.image
    take_down(workspace, {page.image})
    pipeline.ingest(workspace, "mine")
    assert set(files_of(workspace)) == {"a.pdf/00002"}
    assert rejects(workspace) == {"a.pdf/00001": ("taken down", "")}
    assert not [*workspace.store.list(keys.blob(page.image))]


def test_what_forms_were_filled_in_with_is_drawn() -> None:
    form = (
        pdf([striped(1)])
        .replace(b"/Catalog", b"/Catalog /AcroForm << /Fields [9 0 R] >>")
        .replace(b"/Contents 4 0 R", b"/Contents 4 0 R /Annots [9 0 R]")
    )
    field = (
        b"9 0 obj\n<< /Type /Annot /Subtype /Widget /FT /Tx /T (name) /V (x) /Rect [100 10 190 90] /F 4 "
        b"/AP << /N 10 0 R >> >>\nendobj\n10 0 obj\n<< /Type /XObject /Subtype /Form /BBox [0 0 90 80] /Length 22 >>\n"
        b"stream\n0 0 1 rg 0 0 90 80 re f\nendstream\nendobj\n"
    )
    raw = form.replace(b"xref\n0", field + b"xref\n0", 1)
    with Decoders(IngestSettings(workers=1), ["pypdfium2"]) as decoders:
        made = decoders.page(raw, 1, 200)
    assert isinstance(made, bytes)
    assert image(made).getpixel((145, 50)) == (0, 0, 255)


def test_notes_of_a_document_are_those_of_its_pages(tmp_path: Path) -> None:
    for name in ("a.pdf", "b.pdf"):
        (tmp_path / name).write_bytes(pdf([striped(ord(name[0]) % 50)]))
    notes = {"licence": "CC0-1.0", "files": {"b.pdf": {"licence": "CC-BY-4.0", "origin": "https://example.org/b"}}}
    (tmp_path / "source.json").write_text(json.dumps(notes))
    workspace = workspace_at(f"documents:{tmp_path}", options=SMALL)
    pipeline.ingest(workspace, "mine")
    said = {claim.file: (claim.licence, claim.origin) for claim in workspace.registry.claims()}
    assert said == {"a.pdf/00001": ("CC0-1.0", None), "b.pdf/00001": ("CC-BY-4.0", "https://example.org/b")}


def test_documents_in_a_bucket(seaweedfs: SeaweedFS, tmp_path: Path, opened: list[str]) -> None:
    place = f"s3://{seaweedfs.bucket}/papers {tmp_path.name}"
    bucket = connect(place, **seaweedfs.s3_options)
    bucket.replace("deep/a.pdf", pdf([striped(1), striped(2)]))
    bucket.replace("b.tif", tiff([colours(40, 50), colours(50, 40)]))
    workspace = workspace_at(f"documents:{place}", options=SMALL)
    workspace.__dict__["s3_options"] = seaweedfs.s3_options
    assert pipeline.ingest(workspace, "mine").images == 4
    assert sorted(files_of(workspace)) == [
        *(f"b.tif/0000{n}" for n in (1, 2)),
        *(f"deep/a.pdf/0000{n}" for n in (1, 2)),
    ]
    assert sorted(opened) == ["a.pdf", "b.tif"]
    bucket.replace("deep/a.pdf", pdf([striped(3)]))
    again = pipeline.ingest(workspace, "mine")
    assert (again.images, again.new_images) == (3, 1)
    one = seen(f"documents:{place}/deep/a.pdf", seaweedfs.s3_options, options=SMALL)
    assert one.order == ["a.pdf/00001"]


def test_a_preview_shows_pages_and_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf([striped(1), striped(2)]))
    (tmp_path / "b.pdf").write_bytes(pdf([striped(1)])[:-60])
    found = preview("mine", SourceSettings(location=f"documents:{tmp_path}", options=SMALL), IngestSettings(), {}, 1)
    assert [(each.file, each.image) for each in found.first] == [("a.pdf/00001", "200 x 100 png")]
    assert [(each.file, each.reject.partition(" ")[0]) for each in found.first_broken] == [("b.pdf", "truncated")]


def test_what_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match=r"holds no document.*\n.*\.pdf \.tif \.tiff"):
        seen(f"documents:{tmp_path}")
    monkeypatch.setitem(sys.modules, "pypdfium2.version", None)
    with pytest.raises(SourceError, match=r"needs the extra `documents`.*\n.*pip install"):
        seen(f"documents:{tmp_path}")


def test_a_document_that_is_too_large_is_not_read(tmp_path: Path, opened: list[str]) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf([striped(1)]))
    os.truncate(tmp_path / "a.pdf", 20_000_000)
    decoding = IngestSettings(megabytes_an_image=16)
    [found] = found_source("mine", SourceSettings(location=f"documents:{tmp_path}"), {}, decoding).list()
    assert isinstance(found, Unreadable) and found.reason == "too much memory"
    assert "20,000,000 bytes, more than 16 MB (ingest.megabytes_an_image)" in found.why
    assert opened == []


def _flipped(raw: bytes, luck: random.Random) -> bytes:
    made = bytearray(raw)
    for _ in range(luck.randint(1, 6)):
        start = luck.randrange(len(made) or 1)
        match luck.randrange(4):
            case 0:
                made[start : start + luck.randint(1, 40)] = luck.randbytes(luck.randint(1, 40))
            case 1:
                del made[start : start + luck.randint(1, 40)]
            case 2:
                made[start : start + 1] = str(luck.choice((0, 1, 7, 99, 4294967295, -1))).encode()
            case _:
                made[start : start + 1] = bytes([luck.choice((0, 1, 127, 128, 255))])
    return bytes(made)


_WHOLE: dict[str, Callable[[], bytes]] = {
    "pdf": lambda: pdf([striped(1), striped(2), Sheet(120, 300, "BT ET 0 0 1 rg 9 9 90 200 re f")]),
    "tiff": lambda: tiff([colours(40, 50), colours(50, 40).convert("L")], compression="tiff_deflate"),
}


@pytest.mark.parametrize("kind", _WHOLE)
def test_whatever_is_damaged_ends_in_pages_or_in_reasons(kind: str) -> None:
    whole = _WHOLE[kind]()
    outcomes: set[str] = set()
    with Decoders(IngestSettings(workers=1, seconds_an_image=5, megabytes_an_image=300), ["pypdfium2"]) as decoders:
        for seed in range(150):
            raw = _flipped(whole, random.Random(f"{kind} {seed}"))
            found = decoders.document(raw)
            if not isinstance(found, Opened):
                outcomes.add(f"document {found[0]}")
                continue
            for number in range(1, min(found.pages, 4) + 1):
                made = decoders.page(raw, number, 100)
                if isinstance(made, bytes):
                    image(made).load()
                outcomes.add("page" if isinstance(made, bytes) else f"page {made[0]}")
    assert {"page", "document unreadable"} <= outcomes
    assert outcomes <= {
        "page",
        *(f"{what} {reason}" for what in ("page", "document") for reason in _REASONS),
    }, outcomes


_REASONS = ("unreadable", "truncated", "too many pixels", "too much memory", "not an image")


def test_a_page_can_be_drawn_again() -> None:
    for raw in (tiff([colours(seed=seed) for seed in range(3)]), pdf([striped(9), striped(40), striped(70)])):
        document = pages.opened(raw, Bounds(10_000_000, 8))
        assert not isinstance(document, tuple)
        drawn = {number: pages.page(document, number, 64) for number in (1, 2, 3)}
        assert all(isinstance(each, bytes) for each in drawn.values())
        for number in (3, 3, 1, 1, 2):
            assert pages.page(document, number, 64) == drawn[number]


def test_pages_are_drawn_in_this_process_as_in_others() -> None:
    """What tests of histories rely on."""
    raw = tiff([colours(40, 50), colours(50, 40)])
    document = pages.opened(raw, Bounds(50_000_000, 32))
    assert not isinstance(document, tuple)
    with Decoders(IngestSettings(workers=1)) as decoders:
        made = [decoders.page(raw, number, 1) for number in (1, 1, 2, 1)]
    assert made == [pages.page(document, number, 1) for number in (1, 1, 2, 1)]
    assert all(isinstance(page, bytes) for page in made), "also where it was drawn before"


@pytest.mark.parametrize("images", ["rendition", "original"])
def test_pages_are_released_as_other_images_are(images: str, tmp_path: Path, tiny_models: TinyModels) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf([striped(number) for number in range(0, 48, 6)]))
    types = tiny_seeds(tmp_path / "types.yaml")
    settings = tiny_settings(
        "unused",
        sources={"mine": {"location": f"documents:{tmp_path}", "options": SMALL}},
        taxonomy={"seeds": str(types)},
        release={"validation": 0, "test": 0, "near_duplicate_bits": -1, "images": images},
    )
    workspace = tiny_workspace(settings)
    pipeline.ingest(workspace, "mine")
    result = pipeline.generate(workspace)
    assert result.pending == 0
    results = RunResults(workspace, result)
    pages_of = {page.image: page for page in records(workspace).values()}
    damaged = keys.blob(results.samples[0].image)
    whole = workspace.store.get(damaged)
    workspace.store.replace(damaged, whole + b"more")
    with pytest.raises(DamageError, match="checksum"):
        publish(workspace, results=results)
    workspace.store.replace(damaged, whole)
    prefix = keys.release(publish(workspace, results=results).release.version)
    told = {}
    for listed in workspace.store.list(f"{prefix}images/"):
        raw = workspace.store.get(listed.key)
        page = pages_of[Path(listed.key).stem]
        assert (sha256_hex(raw) == page.content) == (images == "original")
        told[page.image] = raw
    assert len(told) > 3
    assert verify(workspace).damage == []
