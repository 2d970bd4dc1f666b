"""Export a published release into a folder that trains as it lies: all its images, and the formats that are asked for.

The folder's ``manifest.json`` is the release's own where all files are the release's; otherwise it lists the files that
are there, and says in ``exported`` of which manifest they were made, and whether it is complete. An export goes on
where an earlier one of the same release ended, and takes out what was withdrawn from it since.
"""

from __future__ import annotations

import io
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image as Pillow

from taskgalaxy_ops.errors import DamageError, NotFoundError, SettingsError
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.records import ImageId, leading_id
from taskgalaxy_ops.release import croissant
from taskgalaxy_ops.release.agreement import Ballots
from taskgalaxy_ops.release.build import HISTORY, MANIFEST, README, as_json, entry
from taskgalaxy_ops.release.card import PAGE, page, without_references
from taskgalaxy_ops.release.choosing import choose
from taskgalaxy_ops.release.copying import Made, copy_listed, manifest_of, write_file
from taskgalaxy_ops.release.formats import FORMATS, PICTURES, folder_of
from taskgalaxy_ops.release.formats.parquet import rewritten
from taskgalaxy_ops.release.inputs import ReleaseInputs, TaxonomySummary
from taskgalaxy_ops.release.published_rows import opened, stored_picture
from taskgalaxy_ops.release.restaged import restage
from taskgalaxy_ops.release.select import Selection
from taskgalaxy_ops.release.sqlite_staging import EXTENSIONS, database
from taskgalaxy_ops.settings import ReleaseSettings
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.base import in_parts
from taskgalaxy_ops.workspace import Workspace

_AT_ONCE = 8  # images that are copied together
_PART = 1000  # images that wait for a thread
_EVERYTHING = 1 << 62  # bytes
_UNFINISHED = {".part", ".bin"}  # suffixes of files that are not written yet, or not named


@dataclass(frozen=True, slots=True)
class Exported:
    """What lies in a folder. referred: images that the store does not have any more, so that rows only name them."""

    folder: Path
    formats: tuple[str, ...]
    samples: int
    images: int
    referred: int


def export(
    workspace: Workspace,
    one: Made,
    folder: Path,
    formats: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Export a release to ``folder``/<its name>. formats: None: those that it was made with.

    Raises DamageError where a file differs from the release's manifest, or the folder holds another release;
    SettingsError for a format that cannot be made of a published release.
    """
    raw = manifest_of(workspace.store, one)
    return _Export(workspace, one, raw, folder / one.name, progress or Silent()).run(formats)


class _Export:
    def __init__(self, workspace: Workspace, one: Made, raw: bytes, target: Path, progress: Progress) -> None:
        self._workspace, self._store, self._one, self._progress = workspace, workspace.store, one, progress
        self._raw, self._target = raw, target
        self._manifest: dict[str, Any] = json.loads(raw)
        self._listed: Mapping[str, Mapping[str, Any]] = self._manifest["files"]
        self._files: dict[str, Mapping[str, Any]] = {}  # that lie there at the end

    def run(self, formats: Sequence[str] | None) -> Exported:
        there = {path.partition("/")[0] for path in self._listed if "/" in path} - set(PICTURES)
        wanted = formats or [*(name for name in FORMATS.shipped if folder_of(name) in there), *_brought(there)]
        self._begin()
        with closing(database()) as rows:
            staged = restage(rows, self._store, self._one.version)
            images, referred, moved = self._copy_images(rows)
            plan = self._plan(rows, staged.context)
            for name in dict.fromkeys(wanted):
                self._write_format(name, plan, moved=bool(moved))
            self._copy_rest(moved=bool(moved))
            self._sweep(rows)
        self._end(wanted, referred)
        return Exported(self._target, tuple(dict.fromkeys(wanted)), staged.samples, images, referred)

    def _begin(self) -> None:
        """Check that the folder is this release's, or nobody's, and say that something is being written."""
        local = self._target / MANIFEST
        if local.is_file():
            try:
                before = json.loads(local.read_bytes())
            except ValueError:
                before = {}
            if before.get("content_hash") != self._manifest["content_hash"]:
                raise DamageError(
                    f"{self._target} holds another release, of another store maybe. Name another folder, or remove it."
                )
            self._before = set(before["files"])
        else:
            self._before = set()
        begun = {**self._manifest, "exported": {"complete": False}}
        write_file(local, [as_json({**begun, "files": {path: {} for path in sorted(self._before)}})])

    def _copy_images(self, rows: sqlite3.Connection) -> tuple[int, int, int]:
        """Copy all images; returns how many there are, how many cannot be had, and how many were only referred to."""
        (total,) = rows.execute("SELECT count(*) FROM placed").fetchone()
        self._progress.stage("images", total, "images")
        rows.execute("CREATE TABLE lacking (image TEXT PRIMARY KEY) WITHOUT ROWID")
        moved, last = 0, ""
        chunk = "SELECT image, location FROM placed WHERE image > ? ORDER BY image LIMIT ?"
        with ThreadPoolExecutor(min(_AT_ONCE, os.cpu_count() or 1)) as pool:
            while part := rows.execute(chunk, (last, _PART)).fetchall():
                for (image, location), local in zip(
                    part, pool.map(lambda each: self._copied(*each), part), strict=True
                ):
                    moved += location not in self._listed
                    if local is None:
                        rows.execute("INSERT INTO lacking VALUES (?)", (image,))
                    else:
                        known = (local.suffix.removeprefix("."), local.stat().st_size, image)
                        rows.execute("UPDATE images SET format = ?, held = ? WHERE image = ?", known)
                    self._progress.advance("images")
                last = part[-1][0]
        (lacking,) = rows.execute("SELECT count(*) FROM lacking").fetchone()
        return total, lacking, moved

    def _copied(self, image: ImageId, location: str) -> Path | None:
        """The local file of an image, copied if it is not there; None: the store does not have it."""
        if location in self._listed:
            copy_listed(self._store, self._one, location, self._listed[location], self._target)
            return self._target / location
        key = stored_picture(location)
        place = self._target / PICTURES[0] / image[:2]
        if found := next((file for file in place.glob(f"{image}.*") if file.suffix not in _UNFINISHED), None):
            return found
        try:
            if key is None:
                return None
            local = place / f"{image}{Path(key).suffix or '.bin'}"
            write_file(local, in_parts(self._store, key))
        except NotFoundError:
            return None
        if local.suffix == ".bin":
            local = local.rename(local.with_suffix(f".{_extension(local)}"))
        return local

    def _plan(self, rows: sqlite3.Connection, context: tuple[str, ...]) -> Selection:
        """The release's samples, with all images copied but those that cannot be had."""
        settings = ReleaseSettings(images="original", copy_images_up_to=_EVERYTHING, context=context)
        simulated = bool(self._manifest["simulated"])
        inputs = ReleaseInputs(
            shards=(),
            read_image=lambda image: self._store.get(keys.blob(image)),
            image_uri=lambda image: image,
            stage_counts=(),
            taxonomy=TaxonomySummary(0, (), {}),
            teacher=self._workspace.settings.teacher.model_copy(update={"simulated": simulated}),
            judges=(),
            encoder={},
            prompts={},
            simulated=simulated,
            released=lambda image: (self._target / self._place(rows, image)[0]).read_bytes(),
        )
        choose(rows, inputs, settings)
        rows.execute(
            "UPDATE pictures SET copied = 0, location = (SELECT location FROM placed WHERE placed.image = "
            "pictures.image) WHERE image IN (SELECT image FROM lacking)"
        )
        return Selection(inputs, settings, rows, Ballots(0.0))

    def _place(self, rows: sqlite3.Connection, image: ImageId) -> tuple[str, bool]:
        """Where rows find an image, and whether it is there."""
        query = "SELECT location, copied FROM pictures WHERE image = ?"
        location, copied = rows.execute(query, (image,)).fetchone()
        return location, bool(copied)

    def _write_format(self, name: str, plan: Selection, *, moved: bool) -> None:
        own = [path for path in self._listed if path.startswith(f"{folder_of(name)}/")]
        self._progress.stage(name, len(own) or FORMATS.get(name).count(plan), "files")
        if not own and not FORMATS.get(name).of_published:
            raise SettingsError(
                f"release {self._one.name}: {name} cannot be made of a published release, which lacks what it needs. "
                f"Name it under release.formats, and release again."
            )
        if own and not moved:
            for path in own:
                copy_listed(self._store, self._one, path, self._listed[path], self._target)
                self._files[path] = self._listed[path]
                self._progress.advance(name)
        elif own and own[0].endswith(".parquet"):
            for path in own:
                self._write(path, partial(self._refill, path, plan))
                self._progress.advance(name)
        else:
            for path, content in FORMATS.get(name).files(plan):
                parts = [content] if isinstance(content, bytes) else iter(partial(content.read, 8 << 20), b"")
                self._files[path] = entry(content)  # it stands at its start afterwards
                if not isinstance(content, bytes):
                    content.seek(0)
                write_file(self._target / path, parts)
                self._progress.advance(name)

    def _write(self, path: str, make: Callable[[Path], None]) -> None:
        local = self._target / path
        local.parent.mkdir(parents=True, exist_ok=True)
        part = local.with_name(f"{local.name}.part")
        make(part)
        part.replace(local)
        with local.open("rb") as file:
            self._files[path] = entry(file)

    def _refill(self, path: str, plan: Selection, to: Path) -> None:
        """Write a Parquet file of the release with the images that it only refers to."""
        [listed] = self._store.list(keys.release(self._one.version) + path)
        (largest,) = plan.rows.execute("SELECT coalesce(max(held), 0) FROM pictures").fetchone()

        def picture(location: str) -> tuple[str, bytes | None]:
            image = next(found for part in reversed(Path(location).parts) if (found := leading_id(part)))
            place, there = self._place(plan.rows, image)
            return place, (self._target / place).read_bytes() if there else None

        rewritten(opened(self._store, listed), to, largest, picture)

    def _copy_rest(self, *, moved: bool) -> None:
        """Copy what is of no format: the card, its pictures, what was withdrawn, the history."""
        for path in self._listed:
            if path.partition("/")[0] == PICTURES[0]:
                self._files[path] = self._listed[path]
            elif "/" not in path or path.partition("/")[0] in PICTURES:
                copy_listed(self._store, self._one, path, self._listed[path], self._target)
                self._files[path] = self._listed[path]
        if moved:
            self._describe()
        history = self._store.get(keys.release(self._one.version) + HISTORY)
        write_file(self._target / HISTORY, [history])  # not in the manifest, because it is no content

    def _describe(self) -> None:
        """Write anew what the release says of itself, where its files are not those that the release has."""
        described = {README: without_references((self._target / README).read_text(encoding="utf-8")).encode()}
        if PAGE in self._files:
            described[PAGE] = page(described[README])
        if croissant.CROISSANT in self._files:
            described[croissant.CROISSANT] = croissant.redacted(
                (self._target / croissant.CROISSANT).read_bytes(), self._files
            )
        for path, raw in described.items():
            write_file(self._target / path, [raw])
            self._files[path] = entry(raw)

    def _sweep(self, rows: sqlite3.Connection) -> None:
        """Delete what an earlier export left that is not the release's any more, such as pictures of a take-down."""
        for path in self._before - self._files.keys():
            if path.partition("/")[0] != PICTURES[0]:
                (self._target / path).unlink(missing_ok=True)
        for file in self._target.glob(f"{PICTURES[0]}/*/*"):
            image = leading_id(file.name)
            if image and not rows.execute("SELECT 1 FROM placed WHERE image = ?", (image,)).fetchone():
                file.unlink()

    def _end(self, formats: Sequence[str], referred: int) -> None:
        if self._files == self._listed:
            write_file(self._target / MANIFEST, [self._raw])
            return
        counts = {**self._manifest["counts"], "images_copied": self._manifest["counts"]["images"] - referred}
        said = {"complete": True, "formats": list(dict.fromkeys(formats)), "of": self._one.manifest_sha256}
        listed = {**self._manifest, "counts": counts, "files": self._files, "exported": said}
        write_file(self._target / MANIFEST, [as_json(listed)])


def _brought(folders: set[str]) -> Iterator[str]:
    """The formats of packages whose files lie in one of these folders."""
    known = {folder_of(name) for name in FORMATS.shipped}
    yield from sorted(folders - known)


def _extension(file: Path) -> str:
    with Pillow.open(io.BytesIO(file.read_bytes())) as image:
        kind = (image.format or "bin").lower()
    return EXTENSIONS.get(kind, kind)
