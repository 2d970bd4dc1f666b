"""Copies the images of drawn rows into a mixture's folder, one file an image, named by the hash of its bytes.

What was copied is noted in ``.copied``, so that a later run of the mixture reads no image again: a file of base data is
known by its path, size and time of change; an object of a store by its key.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import chain, groupby, islice
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from PIL import Image as Pillow

from taskgalaxy_ops.errors import DamageError, NotFoundError, SourceError
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.progress import Progress
from taskgalaxy_ops.release.base_data import BaseLayout
from taskgalaxy_ops.release.base_data.checking import Unusable
from taskgalaxy_ops.release.copying import write_file
from taskgalaxy_ops.release.mixing.staging import Staging
from taskgalaxy_ops.release.sqlite_staging import EXTENSIONS
from taskgalaxy_ops.sources.content import HEAD_BYTES, holds_image
from taskgalaxy_ops.storage.base import Store
from taskgalaxy_ops.text import shown

IMAGES = "images"
PATH, HELD, STORED, LOST = "path", "held", "stored", "lost"  # how references begin: where an image's bytes are
COPIED = ".copied"
_AT_ONCE = 8  # images that are copied together
_PART = 1000  # images that wait for a thread


class Taken(NamedTuple):
    """What became of an image: where it lies in the mixture, or why it cannot be had; and what it is noted by."""

    file: str | None
    problem: Unusable | None = None
    note: str | None = None  # None: it is noted, or there is nothing to note


class Pictures:
    """The images of a mixture. layouts: of base data, by the path of each file of which rows hold pictures."""

    def __init__(self, folder: Path, store: Store | None, layouts: Mapping[str, BaseLayout]) -> None:
        self._folder, self._store, self._layouts = folder, store, layouts
        self._copied = dict(self._noted())
        self._notes = (folder / COPIED).open("a", encoding="utf-8")
        self._locks = [Lock() for _ in range(256)]  # by the first byte of an image's hash

    def __enter__(self) -> Pictures:
        return self

    def __exit__(self, *_: object) -> None:
        self._notes.close()

    def copy(self, staging: Staging, progress: Progress) -> None:
        """Copy all images of drawn rows that were not looked for yet.

        Raises SourceError where a file of base data cannot be read any more, DamageError where the store has other
        bytes than a release says.
        """
        todo = {kind: staging.lacking(kind) for kind in (PATH, STORED, HELD, LOST)}
        progress.stage(IMAGES, sum(count for count, _ in todo.values()), "images")
        lost = ((ref, Taken(None, Unusable.LOST)) for ref in todo[LOST][1])
        with ThreadPoolExecutor(min(_AT_ONCE, os.cpu_count() or 1)) as pool:
            paths = _together(pool, self._of_path, todo[PATH][1])
            stored = _together(pool, self._of_store, todo[STORED][1])
            for ref, taken in chain(paths, stored, self._of_rows(todo[HELD][1]), lost):
                if taken.note:
                    self._notes.write(f"{taken.note} {taken.file}\n")
                staging.found(ref, taken.file, taken.problem)
                progress.advance(IMAGES)
        self._notes.flush()

    def _of_path(self, ref: str) -> Taken:
        path = Path(ref.partition(":")[2])
        try:
            if known := self._known(note := _note(path)):
                return Taken(known)
            with path.open("rb") as file:  # what holds no image is not read to its end
                head = file.read(HEAD_BYTES)
                raw = head + file.read() if holds_image(head) else head
        except OSError:
            return Taken(None, Unusable.MISSING)
        return self._written(raw, note)

    def _of_store(self, ref: str) -> Taken:
        rest = ref.partition(":")[2]
        key, _, sha256 = rest.rpartition(":")
        if known := self._known(note := sha256_hex(rest.encode())):
            return Taken(known)
        assert self._store is not None
        try:
            raw = self._store.get(key)
        except NotFoundError:
            return Taken(None, Unusable.LOST)
        if sha256 and sha256_hex(raw) != sha256:
            raise DamageError(f"{key} is not what the release's manifest says. Run `taskgalaxy verify`.")
        return self._written(raw, note)

    def _of_rows(self, refs: Iterator[str]) -> Iterator[tuple[str, Taken]]:
        for name, of_file in groupby(refs, lambda ref: ref.partition(":")[2].rsplit(":", 2)[0]):
            wanted: dict[int, dict[int, str]] = {}  # references by row and place
            for ref in of_file:
                row, place = map(int, ref.rsplit(":", 2)[1:])
                wanted.setdefault(row, {})[place] = ref
            try:
                yield from self._of_file(Path(name), wanted)
            except (OSError, ValueError) as error:
                raise SourceError(f"base data: {name} cannot be read any more ({shown(error)}). Mix again.") from error

    def _of_file(self, path: Path, wanted: dict[int, dict[int, str]]) -> Iterator[tuple[str, Taken]]:
        noted = _note(path)
        for row in list(wanted):
            known = {ref: self._known(f"{noted}-{row}-{place}") for place, ref in wanted[row].items()}
            if all(known.values()):
                del wanted[row]
                yield from ((ref, Taken(file)) for ref, file in known.items())
        for row, held in self._layouts[str(path)].pictures(path, sorted(wanted)) if wanted else ():
            for place, ref in wanted.pop(row).items():
                raw = held[place] if place < len(held) else None
                yield ref, self._written(raw or b"", f"{noted}-{row}-{place}")
        if wanted:
            raise ValueError("it has fewer rows than before")

    def _written(self, raw: bytes, note: str) -> Taken:
        """Write an image under its hash, unless it is there."""
        suffix = _suffix(raw)
        if suffix is None:
            return Taken(None, Unusable.NO_IMAGE)
        sha256 = sha256_hex(raw)
        file = f"{IMAGES}/{sha256[:2]}/{sha256}.{suffix}"
        local = self._folder / file
        with self._locks[int(sha256[:2], 16)]:
            if not local.is_file() or local.stat().st_size != len(raw):
                write_file(local, [raw])
        return Taken(file, None, note)

    def _known(self, note: str) -> str | None:
        file = self._copied.get(note)
        return file if file and (self._folder / file).is_file() else None

    def _noted(self) -> Iterator[tuple[str, str]]:
        notes = self._folder / COPIED
        if notes.is_file():
            with notes.open(encoding="utf-8", errors="replace") as file:
                for line in file:
                    note, blank, copied = line.rstrip("\n").partition(" ")
                    if blank and line.endswith("\n"):  # a killed run may have left half a line
                        yield note, copied


def _note(path: Path) -> str:
    found = path.stat()
    return sha256_hex(f"{path}\0{found.st_size}\0{found.st_mtime_ns}".encode("utf-8", "surrogateescape"))


def _together(pool: Executor, take: Callable[[str], Taken], refs: Iterator[str]) -> Iterator[tuple[str, Taken]]:
    while part := list(islice(refs, _PART)):
        yield from zip(part, pool.map(take, part), strict=True)


def _suffix(raw: bytes) -> str | None:
    """The suffix of an image file by its content; None for what is no image, or cannot be opened."""
    if not holds_image(raw[:HEAD_BYTES]):
        return None
    try:
        with Pillow.open(io.BytesIO(raw)) as image:
            kind = (image.format or "").lower()
    except Exception:  # noqa: BLE001 - decoders raise what their authors did not foresee
        return None
    return EXTENSIONS.get(kind, kind) or None
