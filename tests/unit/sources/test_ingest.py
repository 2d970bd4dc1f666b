"""Ingest: broken files are named with their reason, and what passes never fails later."""

import base64
import hashlib
import io
import json
import os
import random
import re
import struct
import zlib

import numpy as np
import pytest
from fakes import MemoryStore
from PIL import Image as Pillow

from taskgalaxy_ops.errors import SourceError, StoreError
from taskgalaxy_ops.models.rendering import render, upright
from taskgalaxy_ops.records import FileReject, Image, Reason
from taskgalaxy_ops.settings import IngestSettings, SourceSettings
from taskgalaxy_ops.sources.checking import Images, scan
from taskgalaxy_ops.sources.inspecting import inspect, perceptual_hash
from taskgalaxy_ops.sources.kinds import bucket
from taskgalaxy_ops.sources.listing import SourceFile, source_files
from taskgalaxy_ops.storage.parquet import from_parquet, to_parquet
from taskgalaxy_ops.storage.scan_staging import ScanStaging

SETTINGS = IngestSettings()


def picture(width=64, height=48, seed=0):
    """Noise in RGB: it cannot be compressed away, so that half a file lacks half of the image."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Pillow.fromarray(values)


def encoded(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def turned(image, kind, orientation=6):
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    return encoded(image, kind, exif=exif)


def deep(kind, mode="I;16", width=64, height=48, step=16, **options):
    """A grey picture of 16 bits a pixel, in either byte order."""
    values = (np.arange(width * height) * step % 65536).astype(">u2" if mode == "I;16B" else "<u2")
    return encoded(Pillow.frombytes(mode, (width, height), values.tobytes()), kind, **options)


def bomb(width, height):
    """A PNG that claims to be huge: a good header, and nothing to speak of behind it."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def bad_checksum():
    raw = bytearray(encoded(picture(), "PNG"))
    raw[raw.index(b"IDAT") + 10] ^= 0xFF
    return bytes(raw)


BROKEN = {
    "empty": (b"", Reason.NOT_AN_IMAGE),
    "text": (b"this is a text that somebody called photo.jpg", Reason.NOT_AN_IMAGE),
    "html": (b"<!doctype html><title>404</title>", Reason.NOT_AN_IMAGE),
    "zeros": (bytes(5000), Reason.NOT_AN_IMAGE),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", Reason.NOT_AN_IMAGE),
    "pdf": (b"%PDF-1.7\n%%EOF", Reason.NOT_AN_IMAGE),
    "jpeg, only its first bytes": (b"\xff\xd8\xff", Reason.NOT_AN_IMAGE),
    "jpeg, half": (encoded(picture(), "JPEG")[:2000], Reason.TRUNCATED_FILE),
    "jpeg, progressive, half": (encoded(picture(), "JPEG", progressive=True)[:2000], Reason.TRUNCATED_FILE),
    "png, half": (encoded(picture(), "PNG")[:5000], Reason.TRUNCATED_FILE),
    "png, one byte short of its data": (encoded(picture(), "PNG")[:-21], Reason.TRUNCATED_FILE),
    "webp, half": (encoded(picture(), "WEBP")[:1500], Reason.TRUNCATED_FILE),
    "webp, lossless, half": (encoded(picture(), "WEBP", lossless=True)[:5000], Reason.TRUNCATED_FILE),
    "gif, half": (encoded(picture(), "GIF")[:3000], Reason.TRUNCATED_FILE),
    "bmp, half": (encoded(picture(), "BMP")[:3000], Reason.TRUNCATED_FILE),
    "tiff, half": (encoded(picture(), "TIFF")[:5000], Reason.TRUNCATED_FILE),
    "webp, damaged inside": (encoded(picture(), "WEBP").replace(b"\x9d\x01\x2a", b"\0\0\0"), Reason.UNREADABLE),
    "png, wrong checksum": (bad_checksum(), Reason.UNREADABLE),
    "bomb over the bound": (bomb(8000, 8000), Reason.TOO_MANY_PIXELS),
    "bomb that Pillow refuses to open": (bomb(60000, 60000), Reason.TOO_MANY_PIXELS),
    "31 pixels high": (encoded(picture(100, 31), "PNG"), Reason.TOO_SMALL),
    "31 pixels wide, by its orientation": (turned(picture(100, 31), "JPEG"), Reason.TOO_SMALL),
    "one pixel": (encoded(picture(1, 1), "GIF"), Reason.TOO_SMALL),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_named_with_its_reason(kind):
    raw, reason = BROKEN[kind]
    found = inspect(raw, SETTINGS)
    assert isinstance(found, tuple), "it passed"
    assert found[0] == reason, found
    assert found[1] and len(found[1]) <= 200


def test_no_program_is_run_for_an_image(monkeypatch):
    """EPS is PostScript; Pillow would hand it to Ghostscript, whatever the file is called."""

    def run(*arguments):
        raise AssertionError("Ghostscript was called")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", run)
    found = inspect(encoded(picture(), "EPS"), SETTINGS)
    assert found == (Reason.UNREADABLE, "EPS is a program, which Ghostscript would run: convert it to PNG")


def test_reasons_that_a_setting_decides_name_it_and_the_size():
    assert inspect(bomb(8000, 8000), SETTINGS)[1] == "8000 x 8000, ingest.max_pixels is 50000000"
    assert inspect(turned(picture(100, 31), "JPEG"), SETTINGS)[1] == "31 x 100, ingest.min_side is 32"


def good_files():
    rgb = picture()
    palette = rgb.convert("P")
    clear = rgb.copy()
    clear.putalpha(0)
    files = {f"{kind}": encoded(rgb, kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")}
    files |= {
        "cmyk jpeg": encoded(rgb.convert("CMYK"), "JPEG"),
        "cmyk tiff": encoded(rgb.convert("CMYK"), "TIFF"),
        "lab tiff": encoded(rgb.convert("LAB"), "TIFF"),
        "ycbcr tiff": encoded(rgb.convert("YCbCr"), "TIFF"),
        "grey": encoded(rgb.convert("L"), "PNG"),
        "grey with alpha": encoded(rgb.convert("LA"), "PNG"),
        "black and white": encoded(rgb.convert("1"), "PNG"),
        "black and white, one clear": encoded(rgb.convert("1"), "PNG", transparency=0),
        "rgba": encoded(clear, "PNG"),
        "rgb, one colour clear": encoded(rgb, "PNG", transparency=(1, 2, 3)),
        "palette": encoded(palette, "PNG"),
        "palette, one colour clear": encoded(palette, "GIF", transparency=3),
        "palette, half clear": encoded(palette, "PNG", transparency=bytes(range(256))),
        "16 bits, png": deep("PNG"),
        "16 bits, png, one value clear": deep("PNG", transparency=0),
        "16 bits, tiff": deep("TIFF"),
        "16 bits, tiff, big-endian": deep("TIFF", "I;16B"),
        "32 bits, tiff": encoded(rgb.convert("I"), "TIFF"),
        "float, tiff": encoded(rgb.convert("F"), "TIFF"),
        "float, nothing but nan": encoded(Pillow.fromarray(np.full((40, 40), np.nan, np.float32)), "TIFF"),
        "animated gif": encoded(rgb, "GIF", save_all=True, append_images=[picture(seed=1), picture(seed=2)]),
        "animated webp": encoded(rgb, "WEBP", save_all=True, append_images=[picture(seed=1)]),
        "animated png": encoded(rgb, "PNG", save_all=True, append_images=[picture(seed=1)]),
        "several pages": encoded(rgb, "TIFF", save_all=True, append_images=[picture(80, 90)]),
        "thin": encoded(picture(4000, 32), "PNG"),
    }
    files |= {f"{kind}, turned {n}": turned(rgb, kind, n) for kind in ("PNG", "WEBP", "TIFF") for n in (3, 6, 8)}
    files |= {f"turned, orientation {n}": turned(rgb, "JPEG", n) for n in (0, 1, 2, 4, 5, 7, 9, 65535)}
    return files


GOOD = good_files()


@pytest.mark.parametrize("kind", GOOD)
def test_what_passes_decodes_and_renders_later(kind):
    found = inspect(GOOD[kind], SETTINGS)
    assert isinstance(found, Image), found
    shown = upright(GOOD[kind])
    assert (shown.mode, shown.size) == ("RGB", (found.width, found.height))
    assert found.phash == perceptual_hash(shown), "what is compared is not what models see"
    assert re.fullmatch("[0-9a-f]{40}", found.phash)
    sent = render(GOOD[kind], 256, 90)
    assert sent.startswith("data:image/jpeg;base64,")
    assert found.size == len(GOOD[kind])


def test_the_format_is_the_contents_not_the_suffixs():
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"):
        assert inspect(GOOD[kind], SETTINGS).format == kind.lower()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_an_image_is_turned_upright_and_its_place_is_not_sent_on(kind, orientation):
    corner = Pillow.new("RGB", (64, 48), "black")
    corner.paste("white", (0, 0, 24, 20))
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "taken at 48.2082 N 16.3738 E"
    raw = encoded(corner, kind, exif=exif)
    size = (48, 64) if orientation >= 5 else (64, 48)
    found, shown = inspect(raw, SETTINGS), upright(raw)
    assert (found.width, found.height) == shown.size == size
    # Where EXIF says that the first row and column of the file are (TIFF 6.0, tag 274).
    right, bottom = orientation in (2, 3, 6, 7), orientation in (3, 4, 7, 8)
    assert shown.getpixel((size[0] - 3 if right else 3, size[1] - 3 if bottom else 3)) > (200, 200, 200)
    assert shown.getpixel((3 if right else size[0] - 3, 3 if bottom else size[1] - 3)) < (50, 50, 50)
    sent = base64.b64decode(render(raw, 1024, 90).partition(",")[2])
    assert b"taken at" not in sent
    assert not Pillow.open(io.BytesIO(sent)).getexif()


def test_what_a_file_says_beside_its_pixels_is_not_sent_on():
    secret = b"at home, 12 Elm Street"
    for raw in (
        encoded(picture(), "JPEG", comment=secret),
        encoded(picture(), "JPEG", xmp=secret, icc_profile=secret),
        encoded(picture(), "PNG", icc_profile=secret),
        encoded(picture(), "WEBP", xmp=secret),
    ):
        assert secret not in base64.b64decode(render(raw, 1024, 90).partition(",")[2])


def test_deep_grey_keeps_its_shades():
    ramp = np.tile(np.linspace(0, 1, 64), (48, 1))
    for raw in (
        encoded(Pillow.fromarray((ramp * 65535).astype(np.uint16)), "PNG"),
        encoded(Pillow.fromarray(ramp.astype(np.float32)), "TIFF"),
        encoded(Pillow.fromarray((ramp * 255).astype(np.float32)), "TIFF"),
        encoded(Pillow.fromarray((ramp * 255).astype(np.int32)), "TIFF"),
        encoded(Pillow.fromarray((ramp * 65535).astype(np.int32)), "TIFF"),
        encoded(Pillow.fromarray((ramp * 2**30).astype(np.int32)), "TIFF"),
        encoded(Pillow.frombytes("I;16B", (64, 48), (ramp * 65535).astype(">u2").tobytes()), "TIFF"),
    ):
        assert np.abs(np.asarray(upright(raw)).astype(int) - np.round(ramp * 255)[..., None]).max() <= 2
    dark = encoded(Pillow.fromarray(np.full((48, 64), 600, np.uint16)), "PNG")
    assert upright(dark).getpixel((0, 0)) == (2, 2, 2), "16 bits are a scale of their own, however dark"


def test_transparency_is_white_and_two_logos_on_it_are_not_the_same_image():
    def logo(x):
        image = Pillow.new("RGBA", (96, 96), (0, 0, 0, 0))
        image.paste((0, 0, 0, 255), (x, 20, x + 30, 70))
        return encoded(image, "PNG")

    assert upright(logo(10)).getpixel((0, 0)) == (255, 255, 255)
    assert upright(logo(10)).getpixel((20, 40)) == (0, 0, 0)
    assert inspect(logo(10), SETTINGS).phash != inspect(logo(50), SETTINGS).phash
    half = Pillow.new("P", (64, 64), 1)
    half.putpalette([255, 0, 0, 0, 0, 255])
    assert upright(encoded(half, "PNG", transparency=bytes([255, 0]))).getpixel((5, 5)) == (255, 255, 255)
    assert upright(encoded(half, "PNG", transparency=bytes([0, 255]))).getpixel((5, 5)) == (0, 0, 255)


def test_the_perceptual_hash_is_shared_by_near_duplicates_alone():
    def bits(a, b):
        return (int(perceptual_hash(a), 16) ^ int(perceptual_hash(b), 16)).bit_count()

    yy, xx = np.mgrid[0:240, 0:320]
    photo = Pillow.fromarray(np.stack([xx * 0.8, yy, 255 - xx * 0.5], -1).astype(np.uint8))
    assert bits(photo, photo.resize((200, 150))) <= 4
    jpeg = Pillow.open(io.BytesIO(encoded(photo, "JPEG", quality=60)))
    assert bits(photo, jpeg) <= 4
    assert bits(photo, photo.transpose(Pillow.Transpose.FLIP_LEFT_RIGHT)) > 40
    red, blue = Pillow.new("RGB", (64, 64), "red"), Pillow.new("RGB", (64, 64), "blue")
    assert bits(red, blue) > 16, "shapes that differ in colour alone are different images"


def test_rendering_scales_down_and_never_up():
    def sent(width, height, side):
        raw = base64.b64decode(render(encoded(picture(width, height), "PNG"), side, 80).partition(",")[2])
        return Pillow.open(io.BytesIO(raw)).size

    assert sent(400, 200, 100) == (100, 50)
    assert sent(200, 400, 100) == (50, 100)
    assert sent(40, 36, 1024) == (40, 36)
    assert sent(4000, 32, 64) == (64, 1), "however thin it is, something is left"
    raw = encoded(picture(), "PNG")
    assert render(raw, 64, 90) == render(raw, 64, 90) != render(raw, 64, 30)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_no_damage_to_a_file_is_more_than_a_reject():
    """Seeded damage to every format: whatever the decoders make of it, it is an image that renders or a reject."""
    rng = random.Random(7)
    kinds = [kind for kind in GOOD if "thin" not in kind]
    outcomes = {"image": 0, "reject": 0}
    for _ in range(1500):
        raw = bytearray(GOOD[rng.choice(kinds)])
        for _ in range(rng.choice((1, 2, 8))):
            raw[rng.randrange(min(len(raw), rng.choice((40, 400, len(raw)))))] = rng.choice((0, 1, 127, 255))
        if rng.random() < 0.2:
            del raw[rng.randrange(len(raw)) :]
        found = inspect(bytes(raw), IngestSettings(max_pixels=1_000_000))
        outcomes["image" if isinstance(found, Image) else "reject"] += 1
        if isinstance(found, Image):
            assert upright(bytes(raw)).size == (found.width, found.height)
            render(bytes(raw), 128, 80)
    assert min(outcomes.values()) > 200, outcomes


# Scans


def files_of(folder, **settings):
    files = source_files("mine", SourceSettings(location=str(folder), **settings), {})
    files.look()
    return list(files)


class Result:
    """What a scan found, in order of file, and the bytes that it kept."""

    def __init__(self, files, known=(), denied=(), progress=lambda rejected: None):
        self.kept = {}
        with ScanStaging("mine") as found:
            images = Images(known=known, denied=denied, keep=lambda image, raw: self.kept.update({image.image: raw}))
            scan(files, found, images, SETTINGS, progress)
            by_shard = found.claims_by_shard(lambda image: "home")
            self.claims = sorted((claim for _, claims in by_shard for claim in claims), key=lambda claim: claim.file)
            self.images = {image.image: image for image in found.new_images()}
            self.rejects = list(found.file_rejects())


def scanned(folder, known=(), **settings):
    result = Result(files_of(folder, **settings), known)
    return result, result.kept


def test_a_scan_goes_on_behind_broken_files_and_adds_up(tmp_path):
    for number, (raw, _) in enumerate(BROKEN.values()):
        (tmp_path / f"{number:02d} broken.jpg").write_bytes(raw)
    for number, raw in enumerate(GOOD.values()):
        (tmp_path / f"{number:02d} good.png").write_bytes(raw)
    ticks = []
    found = Result(files_of(tmp_path), progress=ticks.append)
    kept = found.kept
    assert len(found.claims) + len(found.rejects) == len(BROKEN) + len(GOOD)
    assert {claim.image for claim in found.claims} == set(found.images) == set(kept)
    assert [r.reason for r in found.rejects if "broken" in r.file] == [reason for _, reason in BROKEN.values()]
    assert [r.reason for r in found.rejects if "good" in r.file] == [Reason.DUPLICATE_FILE] * (len(GOOD) - len(kept))
    assert (len(ticks), sum(ticks)) == (len(BROKEN) + len(GOOD), len(found.rejects))
    assert all(hashlib.sha256(raw).hexdigest() == sha for sha, raw in kept.items())


def test_the_same_bytes_again_are_a_duplicate_of_the_first_by_name(tmp_path):
    raw = encoded(picture(), "PNG")
    (tmp_path / "sub").mkdir()
    for name in ("b.png", "a.png", "sub/c.jpg"):
        (tmp_path / name).write_bytes(raw)
    (tmp_path / "0.png").write_bytes(b"broken")
    (tmp_path / "1.png").write_bytes(b"broken")
    found, kept = scanned(tmp_path)
    assert [claim.file for claim in found.claims] == ["a.png"]
    assert found.rejects == [
        FileReject("mine", "0.png", Reason.NOT_AN_IMAGE, "no known image format"),
        FileReject("mine", "1.png", Reason.NOT_AN_IMAGE, "no known image format"),
        FileReject("mine", "b.png", Reason.DUPLICATE_FILE, "of a.png"),
        FileReject("mine", "sub/c.jpg", Reason.DUPLICATE_FILE, "of a.png"),
    ]
    assert list(kept.values()) == [raw]


def test_a_known_image_is_claimed_and_neither_decoded_nor_kept_again(tmp_path):
    raw = encoded(picture(), "PNG")
    (tmp_path / "a.png").write_bytes(raw)
    first, kept = scanned(tmp_path)
    (sha,) = kept
    again, kept = scanned(tmp_path, {sha})
    assert (again.images, kept) == ({}, {})
    assert again.claims == first.claims


def test_what_was_taken_down_is_neither_decoded_nor_kept(tmp_path):
    raw = encoded(picture(), "PNG")
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(raw)
    (tmp_path / "c.png").write_bytes(encoded(picture(seed=1), "PNG"))
    sha = hashlib.sha256(raw).hexdigest()
    for known in ((), {sha}):
        ticks = []
        found = Result(files_of(tmp_path), known, {sha}, ticks.append)
        assert [claim.file for claim in found.claims] == ["a.png", "c.png"]  # registration makes the first a reject
        assert [(r.file, r.reason, r.detail) for r in found.rejects] == [("b.png", Reason.DUPLICATE_FILE, "of a.png")]
        assert ticks == [True, True, False]
        assert sha not in found.kept
        assert sha not in found.images


def test_a_file_that_cannot_be_read_is_a_reject(tmp_path):
    def gone():
        raise PermissionError(13, "Permission denied", "x.jpg")

    files = [SourceFile(name="x.jpg", read=gone), SourceFile(name="y.png", read=lambda: encoded(picture(), "PNG"))]
    found = Result(files)
    assert [(r.file, r.reason) for r in found.rejects] == [("x.jpg", Reason.UNREADABLE)]
    assert "Permission denied" in found.rejects[0].detail
    assert [claim.file for claim in found.claims] == ["y.png"]


def test_a_bucket_is_read_like_a_folder(monkeypatch):
    """Its notes too; what is deleted while the source is read is a reject, and the store's outage is none."""
    store = MemoryStore()
    for key, raw in (
        ("b.png", encoded(picture(), "PNG")),
        ("a/ü x.JPG", encoded(picture(seed=1), "JPEG")),
        ("gone.png", b"x"),
        ("notes.txt", b"x"),
        ("source.json", b'{"licence": "CC0", "files": {"b.png": {"licence": "MIT"}}}'),
    ):
        store.put_if_absent(key, raw)
    monkeypatch.setattr(bucket, "connect", lambda url, **options: store)
    listed = list(source_files("mine", SourceSettings(location="s3://bucket/photos"), {}))
    store.delete("gone.png")
    found = Result(listed)
    assert [(claim.file, claim.licence) for claim in found.claims] == [("a/ü x.JPG", "CC0"), ("b.png", "MIT")]
    assert [(reject.file, reject.reason) for reject in found.rejects] == [("gone.png", Reason.UNREADABLE)]
    store.delete("source.json")
    assert {file.licence for file in source_files("mine", SourceSettings(location="s3://bucket/photos"), {})} == {None}

    def outage(operation, key):
        raise StoreError("out of reach")

    store.before = outage
    with pytest.raises(StoreError):
        Result(listed)


ODD_NAMES = [
    "with space.png", "  leading.png", "-rf.png", "--help.png", "new\nline.png", "tab\t.png", "quote'.png",
    'double".png', "ümläut.png", "u\u0308mla\u0308ut.png", "日本語.png", "😀.png", "\u202egnp.exe.png",
    "semi;colon.png", "$(touch x).png", "per%20cent.png", "back\\slash.png", "*.png", "a..png",
    "[1].png", "UPPER.PNG", "~.png", "#1.png", "a~b.png",
]  # fmt: skip


def test_odd_names_are_files_like_others(tmp_path):
    folder = tmp_path / "odd folder ü'\n"
    folder.mkdir()
    for number, name in enumerate(ODD_NAMES):
        (folder / name).write_bytes(encoded(picture(seed=number), "PNG"))
    found, _ = scanned(folder)
    assert found.rejects == []
    assert [claim.file for claim in found.claims] == sorted(ODD_NAMES)
    assert from_parquet(to_parquet(found.claims, type(found.claims[0])), type(found.claims[0])) == found.claims


def test_a_name_that_is_no_utf8_is_escaped_so_that_a_table_can_hold_it(tmp_path):
    for name, raw in ((b"caf\xe9.png", encoded(picture(), "PNG")), (b"\xff\xfe.jpg", b"broken")):
        (tmp_path / os.fsdecode(name)).write_bytes(raw)
    found, _ = scanned(tmp_path)
    assert [claim.file for claim in found.claims] == ["caf\\xe9.png"]
    assert [reject.file for reject in found.rejects] == ["\\xff\\xfe.jpg"]
    for rows in (found.claims, found.rejects):
        assert from_parquet(to_parquet(rows, type(rows[0])), type(rows[0])) == rows


def test_links_in_circles_and_into_nothing_end_and_harm_nothing(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "real.png").write_bytes(encoded(picture(), "PNG"))
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    (tmp_path / "one.png").symlink_to(tmp_path / "two.png")
    (tmp_path / "two.png").symlink_to(tmp_path / "one.png")
    (tmp_path / "nothing.png").symlink_to(tmp_path / "gone")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "good.png").symlink_to(tmp_path / "a" / "real.png")
    assert [file.name for file in files_of(tmp_path)] == ["a/real.png", "good.png"]


def test_suffixes_are_those_of_the_settings_in_either_case(tmp_path):
    for name in ("a.jpg", "b.JPG", "c.Png", "d.txt", "e", "source.json", "f.tiff"):
        (tmp_path / name).write_bytes(b"{}")
    assert [file.name for file in files_of(tmp_path)] == ["a.jpg", "b.JPG", "c.Png", "f.tiff"]
    assert [file.name for file in files_of(tmp_path, suffixes=(".JPG", ".txt"))] == ["a.jpg", "b.JPG", "d.txt"]


def test_the_limit_takes_the_first_by_name(tmp_path):
    for name in ("b.png", "a/z.png", "c.png", "B.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [file.name for file in files_of(tmp_path)] == ["B.png", "a/z.png", "b.png", "c.png"]
    assert [file.name for file in files_of(tmp_path, limit=2)] == ["B.png", "a/z.png"]


def test_a_location_without_images_says_what_to_do(tmp_path):
    with pytest.raises(SourceError, match=r"'mine': .*gone is no folder\. Name one .*`sources\.mine\.location`"):
        files_of(tmp_path / "gone")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(SourceError, match=r"(?s)'mine': .* lists no image.*\.jpg .*`sources\.mine\.suffixes`"):
        files_of(tmp_path)
    with pytest.raises(SourceError, match="is no folder"):
        files_of(tmp_path / "notes.txt")


def test_a_file_url_is_a_folder(tmp_path):
    (tmp_path / "a.png").touch()
    (file,) = source_files("mine", SourceSettings(location=f"file://{tmp_path}"), {})
    assert file.name == "a.png"


def test_notes_say_whose_images_they_are(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    own = {"licence": "MIT", "origin": "https://x"}
    notes = {"licence": "CC0", "attribution": "A. U. Thor", "files": {"b.png": own}}
    (tmp_path / "source.json").write_text(json.dumps(notes))
    a, b = files_of(tmp_path)
    assert (a.origin, a.licence, a.attribution) == (None, "CC0", "A. U. Thor")
    assert (b.origin, b.licence, b.attribution) == ("https://x", "MIT", "A. U. Thor")
    a, b = files_of(tmp_path, licence="mine", attribution="me")
    assert (a.licence, a.attribution, b.licence, b.attribution) == ("mine", "me", "MIT", "me")


BAD_NOTES = (
    "{", "[]", "null", "\xff", '{"files": []}', '{"files": {"a.png": "CC0"}}', '{"licence": ["CC0"]}',
    '{"files": {"a.png": {"origin": 7}}}',
)  # fmt: skip


@pytest.mark.parametrize("notes", BAD_NOTES)
def test_notes_that_cannot_be_used_are_an_error_that_names_the_file(tmp_path, notes):
    (tmp_path / "a.png").touch()
    (tmp_path / "source.json").write_bytes(notes.encode("latin-1"))
    with pytest.raises(SourceError, match=r"(?s)'mine': source\.json cannot be read \(.+\)\. Mend it or remove it"):
        files_of(tmp_path)
