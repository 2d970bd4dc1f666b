"""The object store in a folder, with the same promises as S3: temporary file, fsync, hard link."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from taskgalaxy_ops.errors import ForbiddenError, NotFoundError, StoreError
from taskgalaxy_ops.storage.base import Content, Listed, holds

_TEMPORARY = ".tmp"
_STALE_SECONDS = 3600.0  # a temporary file this old belongs to a writer that died


class FolderStore:
    """A store under one folder. Safe for several processes of one machine, or on a network disk with hard links."""

    def __init__(self, root: Path) -> None:
        self._root = root
        try:
            (root / _TEMPORARY).mkdir(parents=True, exist_ok=True)
            if leftovers := list((root / _TEMPORARY).iterdir()):
                now = self._now()
                for file in leftovers:
                    with contextlib.suppress(OSError):  # gone meanwhile, or we may only read
                        if now - file.stat().st_mtime > _STALE_SECONDS:
                            file.unlink()
        except OSError as error:
            if (root / _TEMPORARY).is_dir():  # a store that we may only read
                return
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
            kind = ForbiddenError if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS} else StoreError
            raise kind(f"store {self._root}: writing {key} failed ({error}). Free space or fix the rights.") from error
        finally:
            with contextlib.suppress(PermissionError):
                temporary.unlink(missing_ok=True)

    def put_if_absent(self, key: str, data: Content) -> bool:
        try:
            return self._place(key, data, over=False) or holds(self, key, data)
        except NotFoundError:  # deleted between the two steps: whoever deleted it was not us
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
                target.hardlink_to(source)  # replace() writes a new file, so that neither changes with the other
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
        objects = self._listed(prefix, after)
        yield from sorted(objects, key=lambda listed: listed.key.encode()) if ordered else objects

    def _listed(self, prefix: str, after: str) -> Iterator[Listed]:
        above, _, beginning = prefix.rpartition("/")
        start = self._root / above

        def unreadable(error: OSError) -> None:
            # A folder that vanished meanwhile is no error, but one that may not be read must not look empty.
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                raise StoreError(f"store {self._root}: listing {prefix} failed ({error}).") from error

        for folder, folders, files in os.walk(start, onerror=unreadable):
            if folder == str(start):  # no other folder at this level can hold keys with the prefix
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
        """The disk's own time: the clocks of a network disk and of other workers may differ from ours."""
        probe = self._root / _TEMPORARY / uuid.uuid4().hex
        try:
            probe.touch()
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)


def _nameless(folder: Path) -> IO[bytes] | None:
    """An open file without a name, which vanishes if the process dies before ``_name`` gives it one.

    None if the system or the disk has no such files (macOS, NFS).
    """
    try:
        return os.fdopen(os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o666), "wb")
    except (AttributeError, OSError):
        return None


def _name(file: IO[bytes], path: Path) -> None:
    """Link an open file under this path; does nothing if it is its own. Raises FileExistsError."""
    if isinstance(file.name, int):
        # src_dir_fd, unused for an absolute path, makes Python call linkat(2): link(2) would not follow /proc's link.
        os.link(f"/proc/self/fd/{file.name}", path, src_dir_fd=file.fileno(), follow_symlinks=True)
    elif Path(file.name) != path:
        path.hardlink_to(file.name)


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Write the folder's entries to disk, so that new names survive a power cut."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
