"""A folder of images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from taskgalaxy_ops.errors import SourceError
from taskgalaxy_ops.sources.kinds import NOTES_FILE, Found, Place, parsed_notes


class FolderSource:
    """The files below a folder; links to folders are not followed."""

    def __init__(self, name: str, folder: Path) -> None:
        if not folder.is_dir():
            raise SourceError(
                f"source {name!r}: {folder} is no folder. Set `sources.{name}.location` to one with images."
            )
        self._folder = folder
        notes = folder / NOTES_FILE
        self._notes = parsed_notes(name, notes.read_bytes()) if notes.is_file() else {}

    def list(self) -> Iterator[Found]:
        """The files in any order."""
        root = os.path.join(os.fsencode(self._folder), b"")  # noqa: PTH118 - bytes: names need not be UTF-8
        folders = [root]
        while folders:
            with suppress(PermissionError, FileNotFoundError), os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif _is_file(entry):
                        yield _name(entry.path.removeprefix(root)), _version(entry), entry.path

    def open(self, place: bytes) -> bytes:
        return Path(os.fsdecode(place)).read_bytes()

    def describe(self) -> Mapping[str, Any]:
        return self._notes


def opened(place: Place) -> FolderSource:
    """A folder by its path."""
    return FolderSource(place.source, Path(place.rest))


def _is_file(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # links in a circle
        return False


def _version(entry: os.DirEntry[bytes]) -> str:
    try:
        stat = entry.stat()
    except OSError:  # removed since it was listed; reading it will fail with a reason
        return ""
    return f"{stat.st_size}-{stat.st_mtime_ns}"


def _name(path: bytes) -> str:
    """A path within the source. Bytes that are no UTF-8 are escaped, because tables cannot store them."""
    return path.decode("utf-8", "backslashreplace")
