"""A folder of images."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from taskgalaxy_ops.errors import SourceError
from taskgalaxy_ops.sources import context, left_out
from taskgalaxy_ops.sources.kinds import NOTES_FILE, Found, FoundImage, LeftOut, Place, SourceEntry, parsed_notes

_SIDECARS = ("txt", "json")
_TEXT_BYTES = 1 << 16  # of a text beside an image that are read
_JSON_BYTES = 4 << 20  # of a JSON file beside an image, which is read whole or not at all


class FolderSource:
    """The files below a folder, and below the folders that its links lead to, as far as the settings follow them."""

    def __init__(self, place: Place, folder: Path) -> None:
        name = place.source
        if not folder.is_dir():
            raise SourceError(
                f"source {name!r}: {folder} is no folder. Name one with images: `sources.{name}.location` in the "
                "settings, or Location in the form of galaxy_ingest."
            )
        self._folder = folder
        self._follow, self._hidden = place.follow_links, place.hidden
        notes = folder / NOTES_FILE
        self._notes = parsed_notes(name, notes.read_bytes()) if notes.is_file() else {}

    def list(self) -> Iterator[Found | LeftOut]:
        """The files in any order, and what was passed by. A folder is read once, by its own name if it has one here."""
        root = os.path.join(os.fsencode(self._folder), b"")  # noqa: PTH118 - bytes: names need not be UTF-8
        walk = _Walk(root, self._follow, self._hidden)
        yield from walk.below(root)
        while walk.links:  # after all else, so that a linked folder keeps its own name where it lies inside
            walk.links.sort(reverse=True)
            yield from walk.below(walk.links.pop())

    def open(self, place: bytes) -> bytes:
        return self.path(place).read_bytes()

    def head(self, place: bytes, length: int) -> bytes:
        return self.part(place, 0, length)

    def part(self, place: bytes, start: int, length: int) -> bytes:
        """At most ``length`` bytes of a file, from ``start`` on."""
        with self.path(place).open("rb") as file:
            file.seek(start)
            return file.read(length)

    def path(self, place: bytes) -> Path:
        """The path of a file that was listed: places are paths below the folder."""
        return self._folder / os.fsdecode(place)

    def describe(self) -> Mapping[str, Any]:
        return self._notes


class FolderKind:
    """Opens a folder by its path."""

    options = {  # noqa: RUF012 - never changed
        "sidecar": "txt or json: beside an image lies a file of its name with this suffix, which is its context; "
        "left out: none does",
        "context": context.OPTION,
    }

    def __call__(self, place: Place) -> FolderSource | FolderWithSidecars:
        folder = FolderSource(place, Path(place.rest))
        sidecar = place.options.get("sidecar")
        if sidecar is None:
            return folder
        if sidecar not in _SIDECARS:
            raise SourceError(
                f"source {place.source!r}: the option `sidecar` is {sidecar!r}. It is {' or '.join(_SIDECARS)}."
            )
        return FolderWithSidecars(folder, sidecar, place.options.get("context"))


opened = FolderKind()


class FolderWithSidecars:
    """A folder in which a file with an image's name and another suffix says what is known of it.

    sidecar: the suffix. option: which fields of JSON are context.
    """

    def __init__(self, folder: FolderSource, sidecar: str, option: str | None) -> None:
        self._sidecar, self._option = sidecar, option
        self.open, self.head, self.describe = folder.open, folder.head, folder.describe
        self._files, self._path = folder.list, folder.path

    def list(self) -> Iterator[SourceEntry]:
        for each in self._files():
            if isinstance(each, LeftOut) or each[0].lower().endswith(f".{self._sidecar}"):
                yield each
                continue
            name, version, place = each
            said = self._said(os.path.splitext(place)[0] + f".{self._sidecar}".encode())  # noqa: PTH122 - bytes
            if said is None:
                yield LeftOut(left_out.METADATA_UNREAD)
            yield FoundImage(name=name, version=version, place=place, context=said, certain=False)

    def _said(self, place: bytes) -> Mapping[str, Any] | None:
        """What the file beside an image says; {} where there is none, None where it cannot be read. Links are none."""
        path = self._path(place)
        try:
            if not stat.S_ISREG(path.lstat().st_mode):
                return {}
            with path.open("rb") as file:
                if self._sidecar == "txt":
                    said: Any = {"text": file.read(_TEXT_BYTES).decode("utf-8", "backslashreplace")}
                else:
                    raw = file.read(_JSON_BYTES + 1)
                    said = json.loads(raw) if len(raw) <= _JSON_BYTES else None
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError):
            return None
        return {field: said[field] for field in context.taken(self._option, said)} if isinstance(said, dict) else None


class _Walk:
    """A walk over folders. ``links``: linked folders that are still to be read."""

    def __init__(self, root: bytes, follow: str, hidden: bool) -> None:
        self._root, self._follow, self._hidden = root, follow, hidden
        self._real = os.path.join(os.path.realpath(root), b"")  # noqa: PTH118
        self._seen: set[tuple[int, int]] = set()  # device and inode of each folder that was read
        self.links: list[bytes] = []

    def below(self, start: bytes) -> Iterator[Found | LeftOut]:
        """The files below a folder; links to folders are noted in ``links``."""
        folders = [start]
        while folders:
            folder = folders.pop()
            try:
                status = os.stat(folder)  # noqa: PTH116
                if (status.st_dev, status.st_ino) in self._seen:
                    yield LeftOut(left_out.FOLDER_AGAIN)
                    continue
                self._seen.add((status.st_dev, status.st_ino))
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.name.startswith(b".") and not self._hidden:
                            yield LeftOut(left_out.HIDDEN)
                        elif entry.is_symlink():
                            yield from self._linked(entry)
                        elif entry.is_dir(follow_symlinks=False):
                            folders.append(entry.path)
                        elif entry.is_file(follow_symlinks=False):
                            yield self._found(entry)
                        else:
                            yield LeftOut(left_out.SPECIAL)
            except FileNotFoundError:  # removed meanwhile
                continue
            except OSError:
                yield LeftOut(left_out.FOLDER_CLOSED)

    def _linked(self, entry: os.DirEntry[bytes]) -> Iterator[Found | LeftOut]:
        if self._follow == "never":
            yield LeftOut(left_out.LINK)
            return
        try:
            target = os.path.realpath(entry.path, strict=True)
            mode = os.stat(target).st_mode  # noqa: PTH116
        except OSError:  # it leads nowhere, in a circle, or where we may not look
            yield LeftOut(left_out.BROKEN_LINK)
            return
        inside = self._follow == "anywhere" or os.path.join(target, b"").startswith(self._real)  # noqa: PTH118
        if stat.S_ISDIR(mode):
            if inside:
                self.links.append(entry.path)
            else:
                yield LeftOut(left_out.FOLDER_OUTSIDE)
        elif stat.S_ISREG(mode):
            yield self._found(entry) if inside else LeftOut(left_out.FILE_OUTSIDE)
        else:
            yield LeftOut(left_out.SPECIAL)

    def _found(self, entry: os.DirEntry[bytes]) -> Found:
        within = entry.path.removeprefix(self._root)
        return _name(within), _version(entry), within


def _version(entry: os.DirEntry[bytes]) -> str:
    try:
        status = entry.stat()
    except OSError:  # removed since it was listed; reading it will fail with a reason
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}"


def _name(path: bytes) -> str:
    """A path within the source. Bytes that are no UTF-8 are escaped, because tables cannot store them."""
    return path.decode("utf-8", "backslashreplace")
