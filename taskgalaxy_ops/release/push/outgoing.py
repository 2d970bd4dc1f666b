"""What a push sends, and what a destination promises."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import Any, BinaryIO, Protocol, TypeVar, cast

from taskgalaxy_ops.errors import DamageError
from taskgalaxy_ops.progress import Progress

_T = TypeVar("_T")

_IN_MEMORY = 4 << 20  # bytes: larger files wait on disk
_PART = 8 << 20  # bytes that are read at once
_THREADS = 8
_AT_ONCE = 64  # files that are handed to threads; where one fails, those behind them are not begun


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A release as it is to be sent."""

    name: str
    files: Mapping[str, Mapping[str, Any]]  # size and sha256 by path: those of its manifest, and what is no content
    made: Mapping[str, bytes]  # files that were read already, or made for this push
    release_sha256: str  # of the release's own manifest
    read: Callable[[str, int, int], bytes]  # bytes of a file: path, start, length
    ours: bool  # whether the store's log says that the destination holds a push of this store
    superseded: bool  # whether the destination may hold something that was withdrawn since

    def sha256(self, path: str) -> str:
        return str(self.files[path]["sha256"])

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """A file, buffered and seekable, at its start. Raises DamageError where it is not what the manifest says."""
        size = int(self.files[path]["size"])
        with io.BytesIO() if size <= _IN_MEMORY else TemporaryFile() as opened:
            file = cast(BinaryIO, opened)
            hashed = hashlib.sha256()
            for part in self._parts(path, size):
                hashed.update(part)
                file.write(part)
            if hashed.hexdigest() != self.sha256(path):
                raise DamageError(
                    f"release {self.name}: {path} is not what the manifest says. Run `taskgalaxy verify`."
                )
            file.seek(0)
            yield file

    def _parts(self, path: str, size: int) -> Iterator[bytes]:
        if path in self.made:
            yield self.made[path]
            return
        for start in range(0, size, _PART):
            yield self.read(path, start, _PART)


@dataclass(frozen=True, slots=True)
class Sent:
    """What a destination says at the end."""

    sent: int  # files that it did not have
    revision: str = ""
    alone: bool = True  # whether it holds nothing of earlier pushes any more, also not in its history


def in_threads(work: Callable[[str], _T], paths: Sequence[str]) -> Iterator[_T]:
    """What comes of each path, in their order; several at once. The first error is raised, and nothing more begun."""
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(paths), _AT_ONCE):
            yield from pool.map(work, paths[start : start + _AT_ONCE])


class Destination(Protocol):
    """Where a release can be pushed."""

    @property
    def to(self) -> str:
        """Where it lies, as the log and a person name it; it holds no secret."""

    def send(self, outgoing: Outgoing, progress: Progress) -> Sent:
        """Make the destination hold these files and no others; files that it has are not sent again.

        Raises PushError where it refuses, holds something that is no push of this store, or stays out of reach.
        """
