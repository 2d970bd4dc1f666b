"""Tells which files hold an image: by suffix, else by their first bytes."""

from __future__ import annotations

from taskgalaxy_ops.settings.sources import USUAL_SUFFIXES
from taskgalaxy_ops.sources.inspecting import AVIF, HEIF, brand

HEAD_BYTES = 32  # what ``holds_image`` needs of a file

# Suffixes of images that are read beside the usual ones.
_IMAGES = frozenset(
    (
        *USUAL_SUFFIXES,
        *(".jfif", ".jpe", ".jif", ".apng", ".dib", ".avifs", ".heic", ".heif", ".hif"),
        *(".jp2", ".j2k", ".jpf", ".jpx", ".pbm", ".pgm", ".ppm", ".pnm", ".tga"),
    )
)

# Suffixes that say clearly that a file is something else: it is not opened. A camera's raw file begins like a TIFF, but
# holds only a preview that could be read.
_NAMED = """
txt md rst log csv tsv json jsonl ndjson yaml yml toml ini cfg conf xml html htm xhtml css tex bib srt vtt
rtf nfo url lnk eml ics vcf sql
pdf ps eps ai svg svgz doc docx odt ppt pptx odp xls xlsx ods epub mobi djvu psd psb xcf indd sketch fig dwg
dxf skp blend obj stl ply glb gltf fbx
cr2 cr3 crw nef nrw arw sr2 srf dng orf rw2 raf pef srw x3f 3fr iiq rwl
mp4 m4v mov avi mkv webm mpg mpeg wmv flv 3gp ts mts m2ts ogv mp3 m4a aac wav flac ogg opus wma aiff aif mid
zip tar gz tgz bz2 xz zst lz4 7z rar iso dmg jar whl deb rpm apk
parquet arrow feather avro orc h5 hdf5 npy npz mat pkl pickle joblib pt pth ckpt safetensors onnx gguf tflite
pb bin dat db sqlite sqlite3 mdb lmdb tfrecord tfrecords idx rec
py pyc ipynb js mjs jsx tsx c h cc cpp hpp cu go rs java kt swift rb php pl r m sh bat ps1 exe dll so dylib o
a lib class
lock tmp temp bak swp old orig part crdownload sha1 sha256 md5 sig asc pem crt key ttf otf woff woff2
"""
_OTHERS = frozenset(f".{suffix}" for suffix in _NAMED.split())


def suffix_of(name: str) -> str:
    """The suffix of a path within a source, with its dot, in lower case; "" if it has none."""
    stem, dot, suffix = name.rpartition("/")[2].rpartition(".")
    return f".{suffix.lower()}" if dot and stem else ""


def by_suffix(suffix: str) -> bool | None:
    """Whether a file with this suffix is an image; None: the suffix does not say."""
    return True if suffix in _IMAGES else False if suffix in _OTHERS else None


def holds_image(head: bytes) -> bool:
    """Whether a file with this beginning is an image of a kind that can be read, whole or not."""
    return (
        head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a"))
        or head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"))  # TIFF and BigTIFF
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or (head[:2] == b"BM" and head[6:10] == bytes(4))  # BMP: its reserved bytes are 0
        or head.startswith((b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"))  # JPEG 2000
        or brand(head) in AVIF | HEIF
    )
