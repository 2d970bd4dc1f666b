"""The sources that ship with TaskGalaxy: photos from packages, drawn documents, shapes, clip art.

Each is written into a folder that is a source like any other: images, and ``source.json`` with their licences and
authors. The truth about each image (such as a chart's values) goes into a file beside the folder, never into it, so
that no model can be shown it.
"""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from taskgalaxy_ops.errors import SourceError
from taskgalaxy_ops.sources.kinds import NOTES_FILE

BUILTIN: Mapping[str, str] = {
    "photos": "photographs and pictures of known licence that scientific Python packages bring",
    "documents": "charts, tables, forms, signs, receipts, pages, slides, screens, maps, diagrams: drawn by TaskGalaxy",
    "shapes": "coloured shapes with questions and answers, from the package easy-vqa",
    "openclipart": "thousands of public-domain drawings, from Debian's package openclipart-png",
}
_DEFAULT_LIMIT = {"documents": 300, "shapes": 300, "openclipart": 2000}
_LEFT_SECONDS = 3600
_VERSION = 1  # raise it when the same parameters give different images


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """One image of a source that ships."""

    file: str  # name in the source's folder
    raw: bytes
    kind: str
    truth: Mapping[str, Any]
    licence: str
    attribution: str
    origin: str | None = None


def truth_file(folder: Path) -> Path:
    """The file with the truth about a built folder: a JSON line an image, with file, kind and truth."""
    return folder.parent / f"{folder.name}-truth.jsonl"


def build(
    name: str,
    folder: Path,
    limit: int | None = None,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> Path:
    """Write source ``name`` of BUILTIN into ``folder``, unless it is there already; returns the folder.

    limit: the most images to write (default: 300 documents or shapes, 2000 drawings, all photos). progress: is called
    with the number of images so far. The same name, limit and seed give the same bytes; an unfinished build leaves
    nothing behind in ``folder``.
    Raises SourceError for an unknown name, a missing package, or a folder that holds something else.
    """
    if name not in BUILTIN:
        raise SourceError(f"builtin:{name}: no such source. Those that ship: {' '.join(BUILTIN)}.")
    if limit is not None and limit < 1:
        raise SourceError(f"builtin:{name}: limit is {limit}: make it at least 1.")
    limit = limit if limit is not None else _DEFAULT_LIMIT.get(name)
    made_by = {"name": name, "version": _VERSION, "limit": limit, "seed": seed}
    before = _made_by(folder)
    if before == made_by and truth_file(folder).is_file():
        return folder
    if before is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SourceError(f"builtin:{name}: {folder} holds something else. Choose another folder, or empty this one.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    new = folder.parent / f".{folder.name}-{uuid.uuid4().hex}"
    try:
        truths = _write(_images(name, limit, seed), new, made_by, progress)
        _put(new, truths, folder, made_by)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return folder


def _sweep(folder: Path) -> None:
    """Remove the folders of builds that were killed: those of running builds change all the time."""
    for left in folder.parent.glob(f".{folder.name}-*"):
        if time.time() - left.stat().st_mtime > _LEFT_SECONDS:
            shutil.rmtree(left, ignore_errors=True)


def _images(name: str, limit: int | None, seed: int) -> Iterator[Made]:
    from taskgalaxy_ops.sources.builtin import documents, openclipart, photos, shapes

    return {
        "photos": photos.images,
        "documents": documents.images,
        "shapes": shapes.images,
        "openclipart": openclipart.images,
    }[name](limit, seed)


def _write(images: Iterator[Made], folder: Path, made_by: Mapping[str, Any], progress: Callable[[int], None]) -> str:
    folder.mkdir()
    notes: dict[str, Any] = {}
    truths = []
    for number, made in enumerate(images, 1):
        (folder / made.file).write_bytes(made.raw)
        own = {"licence": made.licence, "attribution": made.attribution, "origin": made.origin}
        notes[made.file] = {key: value for key, value in own.items() if value is not None}
        truths.append(json.dumps({"file": made.file, "kind": made.kind, "truth": made.truth}, ensure_ascii=False))
        progress(number)
    source = {"files": notes, "made_by": made_by}
    (folder / NOTES_FILE).write_text(json.dumps(source, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return "".join(f"{line}\n" for line in truths)


def _put(new: Path, truths: str, folder: Path, made_by: Mapping[str, Any]) -> None:
    """Write the truth first, then rename the folder into place: a folder whose notes say who made it is complete."""
    aside = new.with_name(f"{new.name}-aside")
    aside.write_text(truths, encoding="utf-8")
    aside.replace(truth_file(folder))
    if folder.exists():
        folder.rename(aside)
    try:
        new.rename(folder)
    except OSError:
        if _made_by(folder) != made_by:  # unless another process built the same meanwhile
            raise
    shutil.rmtree(aside, ignore_errors=True)


def _made_by(folder: Path) -> Any:
    try:
        notes = json.loads((folder / NOTES_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return notes.get("made_by") if isinstance(notes, dict) else None


def package_folder(package: str, install: str) -> Path:
    """The folder of an installed package, which is not imported. Raises SourceError, which says what to install."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SourceError(f"the package {install} is missing. Run `pip install {install}`.")
    return Path(spec.submodule_search_locations[0])
