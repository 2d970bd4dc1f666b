"""Withdraw images from a published release: its files are rewritten without their rows and pictures, still loadable.

``withdrawn.json`` lists what was withdrawn, ``README.md`` says so at its top, ``manifest.json`` has the new files.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import PurePosixPath
from typing import Any

import pyarrow.parquet as pq
import yaml

from taskgalaxy_ops.errors import NotFoundError, SettingsError
from taskgalaxy_ops.records import ImageId, PairId
from taskgalaxy_ops.release import croissant
from taskgalaxy_ops.release.build import MANIFEST, README, as_json, entry
from taskgalaxy_ops.release.card import PAGE, header_lines, page
from taskgalaxy_ops.release.croissant import CROISSANT
from taskgalaxy_ops.release.formats import PICTURES, Gone, folder_of, format_of
from taskgalaxy_ops.release.formats.parquet import shows_one_of
from taskgalaxy_ops.release.images import thumbnail_path

WITHDRAWN = "withdrawn.json"

_IDS = ("id", "image_id", "further_image_ids")

_NOTICE = re.compile(r"> \[!WARNING\]\n> \*\*Withdrawn in part\*\*[^\n]*\n\n")


def withdraw(
    manifest: bytes, read: Callable[[str], bytes], images: Collection[ImageId]
) -> Iterator[tuple[str, bytes | None]]:
    """The new content of a release's files without anything of these images; None: the file is to be deleted.

    manifest: the current one. read: returns a file by its path in the release, or raises NotFoundError. Yields nothing
    if the release holds none of the images; images that were withdrawn earlier stay listed. The files must be written
    in this order: ``withdrawn.json`` comes first and the manifest last, so that the same call can continue an
    interrupted one. Holds one file in memory at a time. Raises SettingsError for a file of a format that no installed
    package brings.
    """
    listed = json.loads(manifest)
    entries: dict[str, Mapping[str, Any]] = listed["files"]
    known = _read(read, WITHDRAWN)
    before = json.loads(known) if known else {"images": [], "samples": []}
    named, samples = set(before["images"]), set(before["samples"])
    out = {*images, *named}
    held: set[ImageId] = set()
    kept: set[str] = set()  # splits with rows that stay
    tables = [path for path in entries if path.startswith(f"{folder_of('parquet')}/")]
    for path in tables:
        if raw := _read(read, path):
            names = [name for name in _IDS if name in pq.read_schema(io.BytesIO(raw)).names]
            ids = pq.read_table(io.BytesIO(raw), columns=names, use_threads=False)
            gone = ids.filter(shows_one_of(ids, out))
            samples.update(gone["id"].to_pylist())
            held |= out.intersection(gone["image_id"].to_pylist())
            if "further_image_ids" in names:
                held |= out.intersection(chain.from_iterable(gone["further_image_ids"].to_pylist()))
            if len(gone) < len(ids):
                kept.add(_split(path))
    if not held and entries.get(WITHDRAWN) == (entry(known) if known else None):
        return
    _check_formats(entries, read)
    named |= held
    withdrawn = as_json({"images": sorted(named), "samples": sorted(samples)})
    yield WITHDRAWN, withdrawn
    files = {**entries, WITHDRAWN: entry(withdrawn)}
    empty = {_split(path) for path in tables} - kept
    readme = b""
    for path in sorted(entries.keys() - {WITHDRAWN}, key=lambda path: (path in {PAGE, CROISSANT}, path)):
        raw = b"" if _is_picture(path) else _read(read, path)
        new: bytes | None = None
        if raw is not None and path == PAGE:  # this and the next one last, since they are made from the others
            new = page(readme)
        elif raw is not None and path == CROISSANT:
            new = croissant.redacted(raw, files)
        elif raw is not None:
            new = redacted(path, raw, frozenset(named), frozenset(samples), empty)
        if path == README:
            readme = new or b""
        if new is None:
            del files[path]
            yield path, None
        elif not _is_picture(path):
            files[path] = entry(new)  # also where an interrupted call wrote it
            if new != raw:
                yield path, new
    listed["files"] = files
    listed["withdrawn"] = {"images": len(named), "samples": len(samples)}
    yield MANIFEST, as_json(listed)


def redacted(
    path: str,
    raw: bytes,
    images: frozenset[ImageId],
    samples: frozenset[PairId],
    empty_splits: Collection[str] = (),
) -> bytes | None:
    """A file of a release without anything of these images; None if no row is left, or it is a picture of one of them.

    images, samples: all that was withdrawn from this release so far (the samples are those of the images); the card
    says how many. empty_splits: the splits without rows, which the card's header must not name.
    """
    if _is_picture(path):
        gone = {thumbnail_path(sample) for sample in samples}
        return None if path in gone or PurePosixPath(path).stem in images else raw
    if found := format_of(path):
        return found.redact(path, raw, Gone(images, samples))
    return _card(raw.decode(), len(images), samples, empty_splits).encode() if path == README else raw


def _check_formats(paths: Iterable[str], read: Callable[[str], bytes]) -> None:
    """Whether something can be taken out of every file that is there. Raises SettingsError, before any is changed."""
    for path in sorted(paths):
        try:
            format_of(path)
        except SettingsError as error:
            if _read(read, path) is not None:
                raise SettingsError(
                    f"release: nothing can be taken out of {path} here: {error}\n"
                    "  Install the package that brings its format, or delete the file; then do this again."
                ) from error


def _read(read: Callable[[str], bytes], path: str) -> bytes | None:
    try:
        return read(path)
    except NotFoundError:
        return None


def _split(path: str) -> str:
    """The split of a path ``data/<split>-00000-of-00001.parquet``."""
    return PurePosixPath(path).name.rsplit("-", 3)[0]


def _is_picture(path: str) -> bool:
    return path.partition("/")[0] in PICTURES


def _card(text: str, images: int, samples: frozenset[PairId], empty_splits: Collection[str]) -> str:
    _, head, body = text.split("---\n", 2)
    header = yaml.safe_load(head)
    for config in header["configs"]:
        config["data_files"] = [files for files in config["data_files"] if files["split"] not in empty_splits]
    pictures = tuple(f"]({thumbnail_path(sample)})" for sample in samples)
    lines = [line for line in _NOTICE.sub("", body).split("\n") if not any(picture in line for picture in pictures)]
    notice = (
        "> [!WARNING]\n"
        f"> **Withdrawn in part** after it was made (images: {images:,}, samples: {len(samples):,}): `{WITHDRAWN}` has "
        "their ids. The figures below are those from before.\n\n"
    )
    return "\n".join(header_lines(header)) + "\n" + notice + "\n".join(lines).removeprefix("\n")
