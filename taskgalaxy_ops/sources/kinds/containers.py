"""Files that hold many images (tars, tables), or say which there are: found and read in parts, locally and in S3.

A location names one file, several by ranges in braces (``shard-{0000..0012}.tar``), or all below a folder or prefix.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from taskgalaxy_ops.errors import SourceError
from taskgalaxy_ops.sources import left_out
from taskgalaxy_ops.sources.content import suffix_of
from taskgalaxy_ops.sources.kinds import NOTES_FILE, LeftOut, Place, Unreadable
from taskgalaxy_ops.sources.kinds.bucket import BucketSource, version_of
from taskgalaxy_ops.sources.kinds.folder import FolderSource

_BUFFER = 1 << 20  # bytes that a request to a bucket asks for at least, while a file is read through
_MOST = 100_000  # files that a location's braces may name
_S3 = "s3://"


class _Files(Protocol):
    def part(self, place: bytes, start: int, length: int) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A file that holds images."""

    name: str  # its path within the source, "/"-separated
    size: int  # bytes
    version: str  # from the listing; it changes when the content may have changed; "": not known
    place: bytes
    files: _Files
    path: Path | None = None  # of a local file
    url: str | None = None  # of an object in a bucket

    @property
    def address(self) -> str:
        """Where the file lies, as a URL."""
        return str(self.url) if self.path is None else self.path.absolute().as_uri()

    def part(self, start: int, length: int) -> bytes:
        """At most ``length`` bytes from ``start`` on."""
        return self.files.part(self.place, start, length)

    def file(self) -> BinaryIO:
        """The container as a file that can seek; of a bucket's object, only what is read is fetched."""
        if self.path is not None:
            return self.path.open("rb")
        return cast(BinaryIO, io.BufferedReader(_Ranged(self), _BUFFER))

    def inside(self, name: str) -> str:
        """The name within the source of something in this file."""
        return f"{self.name}/{name}"


class Containers:
    """The files with one of these suffixes at a location, and the notes beside them.

    names: only these files of a folder or prefix. Raises SourceError if there is no such folder, or the location names
    more files than can be meant.
    """

    def __init__(self, place: Place, suffixes: Iterable[str], names: Sequence[str] | None = None) -> None:
        self._suffixes = tuple(suffixes)
        self._named: Sequence[str] | None
        base, self._named = _split(place, self._suffixes) if names is None else (place.rest, names)
        self._base = base
        self._files: FolderSource | BucketSource
        if base.startswith(_S3):
            self._files = BucketSource(replace(place, location=base))
        else:
            self._files = FolderSource(place, Path(base))

    def describe(self) -> Mapping[str, Any]:
        """What the notes beside the files say."""
        return self._files.describe()

    def open(self, place: bytes) -> bytes:
        """The content of a container, by its place. Raises as ``Source.open``."""
        return self._files.open(place)

    def list(self) -> Iterator[Container | Unreadable | LeftOut]:
        """The files in any order, but each time in the same; and what else lies there."""
        if isinstance(self._files, BucketSource):
            yield from self._in_bucket(self._files)
        elif self._named is None:
            yield from self._in_folder(self._files)
        else:
            for name in self._named:
                yield self._local(name, os.fsencode(name), self._files)

    def _in_folder(self, files: FolderSource) -> Iterator[Container | Unreadable | LeftOut]:
        found = []
        for each in files.list():
            if isinstance(each, LeftOut):
                yield each
            elif self._wanted(each[0]):
                found.append((each[0], each[2]))
            else:
                yield from _passed_by(each[0])
        for name, place in sorted(found):
            yield self._local(name, place, files)

    def _local(self, name: str, place: bytes, files: FolderSource) -> Container | Unreadable:
        path = files.path(place)
        try:
            status = path.stat()
        except OSError as error:
            return Unreadable(name, "", error.strerror or str(error))
        # In Hugging Face's cache a file is a link to what is named by its content, whenever it was fetched.
        linked = path.readlink().name if _cached(path) else ""
        version = linked or f"{status.st_size}-{status.st_mtime_ns}"
        return Container(name=name, size=status.st_size, version=version, place=place, files=files, path=path)

    def _in_bucket(self, files: BucketSource) -> Iterator[Container | Unreadable | LeftOut]:
        missing = None if self._named is None else set(self._named)
        for each in files.objects(os.path.commonprefix(self._named or [""])):  # noqa: RUF071 - keys are no paths
            key = each.key
            if missing is None and not self._wanted(key):
                yield from _passed_by(key)
            elif missing is None or key in missing:
                (missing or set()).discard(key)
                url = f"{self._base.rstrip('/')}/{key}"
                version = version_of(each)
                yield Container(name=key, size=each.size, version=version, place=key.encode(), files=files, url=url)
        for name in sorted(missing or ()):
            yield Unreadable(name, "", "no such object")

    def _wanted(self, name: str) -> bool:
        return name.lower().endswith(self._suffixes)


def place_in(container: str, within: bytes) -> bytes:
    """The place of something in a container, which says the container's name: whoever opens it need not list."""
    return container.encode() + b"\0" + within


def split_place(place: bytes, length: int) -> tuple[str, bytes]:
    """A container's name, and the ``length`` bytes that say where in it."""
    return place[: -length - 1].decode(), place[-length:]


def _cached(path: Path) -> bool:
    return path.is_symlink() and path.readlink().parent.name == "blobs" and "snapshots" in path.parts


def _passed_by(name: str) -> Iterator[LeftOut]:
    if name != NOTES_FILE:
        yield LeftOut(left_out.suffix_kind(suffix_of(name)))


def _split(place: Place, suffixes: tuple[str, ...]) -> tuple[str, list[str] | None]:
    """The folder or prefix of a location, and the names of its files below it; None: all that lie there."""
    location = place.rest
    if not location.startswith(_S3):
        location = location.removeprefix("file://")
        if Path(location).is_dir():
            return location, None
        if Path(location).is_file():
            return str(Path(location).parent), [Path(location).name]
    if "{" in location:
        base, slash, _ = location[: location.index("{")].rpartition("/")
        below = base or slash or "."
        return below, [each[len(base + slash) :] for each in _expanded(place.source, location)]
    if location.startswith(_S3) and location.lower().endswith(suffixes):
        base, _, name = location.rpartition("/")
        return base, [name]
    return location, None


def _expanded(source: str, location: str) -> list[str]:
    from itertools import islice

    from braceexpand import UnbalancedBracesError, braceexpand  # type: ignore[attr-defined]

    try:
        named = list(islice(braceexpand(location), _MOST + 1))
    except UnbalancedBracesError as error:
        raise SourceError(f"source {source!r}: {location}: its braces do not match ({error}). Mend them.") from error
    if len(named) > _MOST:
        raise SourceError(f"source {source!r}: {location} names more than {_MOST:,} files. Name their folder instead.")
    return sorted(set(named))


class _Ranged(io.RawIOBase):
    """An object of a bucket, fetched in ranges."""

    def __init__(self, container: Container) -> None:
        self._container, self._at = container, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._container.size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._container.size - self._at)
        if wanted <= 0:
            return 0
        got = self._container.part(self._at, wanted)[:wanted]
        buffer[: len(got)] = got
        self._at += len(got)
        return len(got)
