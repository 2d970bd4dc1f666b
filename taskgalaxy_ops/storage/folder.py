"""The object store in a folder: temporary file, fsync, hard link. The same promises as S3, on one machine's disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from taskgalaxy_ops.errors import NotFoundError, StoreError
from taskgalaxy_ops.storage.base import Content, Listed, holds

_TEMPORARY = ".tmp"
_STALE_SECONDS = 3600.0  # a temporary file this old belongs to a writer that died


class FolderStore:
    """A store under one folder; safe between processes of one machine, or over a network disk with hard links."""

    def __init__(self, root: Path) -> None:
        self._root = root
        try:
            (root / _TEMPORARY).mkdir(parents=True, exist_ok=True)
            if there := list((root / _TEMPORARY).iterdir()):
                now = self._now()
                for left in there:
                    with contextlib.suppress(FileNotFoundError):
                        if now - left.stat().st_mtime > _STALE_SECONDS:
                            left.unlink()
        except OSError as error:
            raise StoreError(
                f"store {root}: cannot be written ({error}). Name a folder that you may write to."
            ) from error

    @property
    def url(self) -> str:
        return self._root.absolute().as_uri()

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        if any(part in {"", ".", "..", _TEMPORARY} or "\0" in part for part in parts):
            raise StoreError(f"store {self._root}: {key!r} is no key (empty or relative part).")
        return self._root.joinpath(*parts)

    def _place(self, key: str, data: Content, *, over: bool) -> bool:
        target = self._path(key)
        temporary = self._root / _TEMPORARY / uuid.uuid4().hex
        try:
            _make_folder(target.parent)
            with _nameless(temporary.parent) or temporary.open("wb") as file:
                if isinstance(data, bytes):
                    file.write(data)
                else:
                    data.seek(0)
                    shutil.copyfileobj(data, file)
                file.flush()
                os.fsync(file.fileno())
                try:
                    _name(file, temporary if over else target)
                except FileExistsError:
                    return False
            if over:
                temporary.replace(target)
            _sync_folder(target.parent)
            return True
        except OSError as error:
            raise StoreError(
                f"store {self._root}: writing {key} failed ({error}). Free space or fix the rights."
            ) from error
        finally:
            temporary.unlink(missing_ok=True)

    def put_if_absent(self, key: str, data: Content) -> bool:
        try:
            return self._place(key, data, over=False) or holds(self, key, data)
        except NotFoundError:  # deleted between the two: whoever deleted it saw it first
            return False

    def replace(self, key: str, data: bytes) -> None:
        self._place(key, data, over=True)

    def copy(self, key: str, to: str) -> None:
        source, target = self._path(key), self._path(to)
        try:
            if not source.is_file():
                raise NotFoundError(f"store {self._root}: no object {key}.")
            _make_folder(target.parent)
            with contextlib.suppress(FileExistsError):
                target.hardlink_to(source)  # objects are replaced whole, so that neither changes with the other
            _sync_folder(target.parent)
        except FileNotFoundError as error:
            raise NotFoundError(f"store {self._root}: no object {key}.") from error
        except OSError as error:
            raise StoreError(f"store {self._root}: copying {key} to {to} failed ({error}).") from error

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        try:
            with self._path(key).open("rb") as file:
                file.seek(start)
                return file.read() if length is None else file.read(length)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise NotFoundError(f"store {self._root}: no object {key}.") from error
        except OSError as error:
            raise StoreError(f"store {self._root}: reading {key} failed ({error}).") from error

    def list(self, prefix: str, *, after: str = "", ordered: bool = True) -> Iterator[Listed]:
        found = self._listed(prefix, after)
        yield from sorted(found, key=lambda listed: listed.key.encode()) if ordered else found

    def _listed(self, prefix: str, after: str) -> Iterator[Listed]:
        above, _, beginning = prefix.rpartition("/")
        start = self._root / above

        def unreadable(error: OSError) -> None:
            # What vanished meanwhile is no error; what may not be read must not look empty.
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                raise StoreError(f"store {self._root}: listing {prefix} failed ({error}).") from error

        for folder, folders, files in os.walk(start, onerror=unreadable):
            if folder == str(start):  # below others there is nothing of this prefix
                folders[:] = [name for name in folders if name.startswith(beginning)]
            if Path(folder) == self._root and _TEMPORARY in folders:
                folders.remove(_TEMPORARY)
            for name in files:
                path = Path(folder, name)
                key = path.relative_to(self._root).as_posix()
                if key.startswith(prefix) and key.encode() > after.encode():
                    try:
                        stat = path.stat()
                    except FileNotFoundError:
                        continue
                    yield Listed(key, stat.st_size, str(stat.st_mtime_ns), stat.st_mtime)

    def delete(self, key: str) -> None:
        try:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                self._path(key).unlink()
        except OSError as error:
            raise StoreError(f"store {self._root}: deleting {key} failed ({error}).") from error

    def age(self, key: str) -> float:
        path = self._path(key)
        try:
            if not path.is_file():
                raise NotFoundError(f"store {self._root}: no object {key}.")
            return max(0.0, self._now() - path.stat().st_mtime)
        except FileNotFoundError as error:
            raise NotFoundError(f"store {self._root}: no object {key}.") from error
        except OSError as error:
            raise StoreError(f"store {self._root}: the age of {key} cannot be told ({error}).") from error

    def _now(self) -> float:
        """The disk's own time: a network disk's, and other workers', may be apart from ours."""
        probe = self._root / _TEMPORARY / uuid.uuid4().hex
        try:
            probe.touch()
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)


def _nameless(folder: Path) -> IO[bytes] | None:
    """A file that has no name until it gets one, so that who dies while writing leaves nothing behind.

    None where the system or the disk has no such files (macOS, NFS).
    """
    try:
        return os.fdopen(os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o666), "wb")
    except (AttributeError, OSError):
        return None


def _name(file: IO[bytes], path: Path) -> None:
    """Give an open file this name, too; nothing where it is its own. Raises FileExistsError."""
    if isinstance(file.name, int):
        # With a folder, which an absolute path ignores, Python calls linkat(2): link(2) would not follow /proc's link.
        os.link(f"/proc/self/fd/{file.name}", path, src_dir_fd=file.fileno(), follow_symlinks=True)
    elif Path(file.name) != path:
        path.hardlink_to(file.name)


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Make the names in it outlive a power cut."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
