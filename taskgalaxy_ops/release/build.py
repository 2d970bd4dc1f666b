"""From a selection to files, one at a time: the formats, the images, the card, the history, and the manifest last."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import SEEK_END
from itertools import chain
from typing import Any, BinaryIO

from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.hashing import fingerprint, sha256_hex
from taskgalaxy_ops.records import ImageId
from taskgalaxy_ops.release.card import DRAWINGS, PAGE, card, drawings, page
from taskgalaxy_ops.release.croissant import CROISSANT, croissant
from taskgalaxy_ops.release.decontaminate.leaks import LEAKS, leaks_json
from taskgalaxy_ops.release.formats import FORMATS, PICTURES, folder_of
from taskgalaxy_ops.release.images import copied_image, thumbnail_files, write_referred
from taskgalaxy_ops.release.select import RELEASE_VERSION, Selection
from taskgalaxy_ops.release.spooled import spooled
from taskgalaxy_ops.storage.base import Content

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
README = "README.md"
HISTORY = "history.json"


@dataclass(frozen=True, slots=True)
class Stored:
    """An image's own file, which the store already holds. Its bytes were checked when the Parquet files were made."""

    image: ImageId


def build(plan: Selection, *, version: int, history: Mapping[str, Any]) -> Iterator[tuple[str, Content | Stored]]:
    """A release's files: relative path and content, each made when it is asked for; ``manifest.json`` is the last.

    Large files are temporary files, open until the next one is asked for. version, history: data that is no content,
    such as times and version numbers. It goes to ``history.json``, the only file whose bytes the same plan does not
    determine, and which is therefore not in the manifest. Raises DamageError where an image's bytes are not those of
    its id.
    """
    plan.rows.execute("DELETE FROM files")
    for path, file in chain.from_iterable(_files(plan, name) for name in plan.settings.formats):
        _list(plan, path, entry(file))
        yield path, file
    write_referred(plan)
    for picture, image, path in plan.copied():
        raw = copied_image(plan, picture, image)
        _list(plan, path, entry(raw))
        yield path, Stored(image) if plan.settings.images == "original" else raw
    for path, raw in chain(thumbnail_files(plan), drawings(plan), _leaks(plan), _described(plan)):
        _list(plan, path, entry(raw))
        yield path, raw
    yield HISTORY, as_json({**_history(plan), **history, "version": version})
    with spooled() as file:
        _write_manifest(plan, file)
        yield MANIFEST, file


def file_count(plan: Selection) -> int:
    """The number of files that ``build`` yields."""
    formats = sum(FORMATS.get(name).count(plan) for name in plan.settings.formats)
    leaks = plan.inputs.benchmarks is not None
    described = len((*DRAWINGS, README, PAGE, CROISSANT, HISTORY, MANIFEST))
    return formats + plan.counts["images_copied"] + len(plan.shown) + leaks + described


def _leaks(plan: Selection) -> Iterator[tuple[str, bytes]]:
    if plan.inputs.benchmarks and plan.settings.decontaminate:
        yield LEAKS, leaks_json(plan.rows, plan.inputs.benchmarks, plan.settings.decontaminate)


def _described(plan: Selection) -> Iterator[tuple[str, bytes]]:
    """What the release says of itself, to people and to programs."""
    readme = card(plan)
    yield README, readme
    yield PAGE, page(readme)
    yield CROISSANT, croissant(plan)


def _files(plan: Selection, name: str) -> Iterator[tuple[str, Content]]:
    """The files of a format. Raises SettingsError for one outside its folder: nobody could take anything out of it."""
    others = {*PICTURES, *(folder_of(each) for each in FORMATS.shipped if each != name)}
    for path, content in FORMATS.get(name).files(plan):
        folder = path.partition("/")[0]
        if folder != folder_of(name) or folder in others:
            raise SettingsError(f"release format {name!r}: {path} lies in no folder of its own name. Mend it.")
        yield path, content


def _list(plan: Selection, path: str, found: Mapping[str, Any]) -> None:
    plan.rows.execute("INSERT INTO files VALUES (?, ?, ?)", (path, found["size"], found["sha256"]))


def _history(plan: Selection) -> dict[str, Any]:
    inputs = plan.inputs
    return {
        "taxonomy_version": inputs.taxonomy.version,
        "settings_hash": inputs.settings_hash,
        "usage": dict(inputs.usage),
    }


def _write_manifest(plan: Selection, file: BinaryIO) -> None:
    """Write the manifest in the form of ``as_json``, its files one by one, because there may be many."""
    manifest = {
        "format": FORMAT_VERSION,
        "code": RELEASE_VERSION,
        "content_hash": plan.content_hash,
        "simulated": plan.inputs.simulated,
        "partial": plan.inputs.partial,
        "pending": plan.inputs.pending,
        "counts": plan.counts,
        "made_with": {**plan.made_with, "fingerprint": fingerprint("release.made_with", plan.made_with)},
        "files": {},
    }
    head, tail = as_json(manifest).split(b'"files": {}')
    file.write(head + b'"files": {')
    before = b""
    for path, size, sha256 in plan.rows.execute("SELECT path, size, sha256 FROM files ORDER BY path"):
        listed = as_json({"size": size, "sha256": sha256}).rstrip().replace(b"\n", b"\n  ")
        file.write(before + b"\n  " + json.dumps(path, ensure_ascii=False).encode() + b": " + listed)
        before = b","
    file.write(b"\n }" + tail)


def entry(content: Content) -> dict[str, Any]:
    """The manifest's entry of a file: size in bytes, and sha256."""
    if isinstance(content, bytes):
        return {"size": len(content), "sha256": sha256_hex(content)}
    size = content.seek(0, SEEK_END)
    content.seek(0)
    return {"size": size, "sha256": hashlib.file_digest(content, "sha256").hexdigest()}  # type: ignore[arg-type]


def as_json(value: Mapping[str, Any]) -> bytes:
    """A JSON file of a release: keys sorted, a value a line."""
    return (json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()
