"""Check the files of a source: several at a time are read, decoded by ``decoders`` and stored; their results are taken
in the order of the files, so that they do not depend on how many are under way.

A file that does not pass becomes a reject with a reason; it never stops the others.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Container, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from queue import SimpleQueue
from types import TracebackType

from taskgalaxy_ops.errors import NotFoundError, SourceError, StoreError, UnreadableError
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.records import Claim, FileReject, Image, ImageId, Reason
from taskgalaxy_ops.settings import IngestSettings
from taskgalaxy_ops.sources.decoders import Decoded, Decoders
from taskgalaxy_ops.sources.listing import SourceFile
from taskgalaxy_ops.sources.originals import quoted
from taskgalaxy_ops.storage.scan_staging import ScanStaging
from taskgalaxy_ops.text import shown

_DETAIL = 200  # characters of a reject's detail
_BYTES_AHEAD = 256 << 20  # of files that were read and are not decoded and stored yet; one file may be larger
_READERS_A_DECODER = 4  # a decoder must not wait for a bucket that takes 50 ms to reply
_MOST_READERS = 64
_AHEAD = 4  # results for each reader that may wait for that of an earlier file


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """What the store has of images.

    known: images that have an image shard. denied: images that were taken down: a claim of one is not stored, and
    registration makes it a reject. keep: stores the bytes of a new image, and returns the bytes that are stored under
    its id already, where they are others. make_up: stores the bytes of a known image, if the store may lack them.
    Several threads call these two. again: pages of documents are drawn although they are known.
    """

    known: Container[ImageId] = ()
    denied: Container[ImageId] = ()
    keep: Callable[[Image, bytes], bytes | None]
    make_up: Callable[[ImageId, bytes], None] = lambda image, raw: None
    again: bool = False


def scan(
    files: Iterable[SourceFile],
    found: ScanStaging,
    images: Images,
    settings: IngestSettings,
    progress: Callable[[bool], None] = lambda rejected: None,
) -> None:
    """Read and check a source's files, and add a claim or a reject of each to ``found``: files = claims + rejects.

    progress: is called for each file, in order, with True if it is rejected. A file that ``found`` remembers from the
    last scan, with the same version, is not read again if its image is known; nor is one of which the listing says its
    image.

    Raises SourceError or StoreError if the source cannot be read any more, an image cannot be kept, or no process can
    decode.
    """
    with Decoders(settings) as decoders, _Readers(min(_MOST_READERS, _READERS_A_DECODER * decoders.count)) as readers:
        look = _Look(decoders, found, images)

        def take(file: SourceFile, looked: Future[_Found] | ImageId) -> None:
            if isinstance(looked, Future):
                result = looked.result()
            else:  # unchanged; read all the same where another file has its image now
                result = _Found(looked, None) if found.file_of(looked) is None else look.at(file)
            progress(_take(file, result, found) or result.image in images.denied)

        ahead: deque[tuple[SourceFile, Future[_Found] | ImageId]] = deque()
        for file in files:
            same = file.image or found.unchanged(file.name, file.version)
            done = same is not None and same in images.known and not images.again
            looked = same if done and same is not None else readers.submit(partial(look.at, file))
            ahead.append((file, looked))
            if len(ahead) > _AHEAD * readers.count:
                take(*ahead.popleft())
        while ahead:
            take(*ahead.popleft())


@dataclass(frozen=True, slots=True)
class _Found:
    """What a file holds: a new image; the id of one that is known, was taken down, or that the scan has already; or the
    reason and detail of a reject."""

    image: Image | ImageId | tuple[Reason, str]
    pages: int | None = 1  # None: as many as the last scan found


def _take(file: SourceFile, result: _Found, found: ScanStaging) -> bool:
    """Add a file to the scan's results. Returns whether it is a reject."""
    image = result.image
    if isinstance(image, str | Image):
        sha = image if isinstance(image, str) else image.image
        first = found.file_of(sha)
        if first is None:
            found.note_pages(file.name, result.pages)
            # A page of a document lies nowhere: what was drawn first is kept.
            place = quoted(file.place) if found.by_reference and file.image is None else None
            stated = (file.origin, file.licence, file.attribution, place, file.context)
            claim = Claim(found.source, sha, file.name, *stated)
            found.claim(claim, image if isinstance(image, Image) else None)
            return False
        image = Reason.DUPLICATE_FILE, f"of {first}"
    found.reject(FileReject(found.source, file.name, *image))
    return True


class _Look:
    """Reads files, has them decoded, and stores the new images. Several threads call it."""

    def __init__(self, decoders: Decoders, found: ScanStaging, images: Images) -> None:
        self._decoders, self._found, self._images = decoders, found, images
        self._under_way: dict[ImageId, Future[_Found]] = {}
        self._changes = threading.Condition()
        self._held = 0  # bytes of files that are read or were read
        self._largest = 0  # bytes of a file

    def at(self, file: SourceFile) -> _Found:
        """What a file holds. Raises SourceError and StoreError as ``scan``."""
        if file.image is not None and (
            self._found.file_of(file.image) is not None
            or file.image in self._images.denied
            or (file.image in self._images.known and not self._images.again)
        ):
            return _Found(file.image)
        held = self._room()
        try:
            raw = _read(file)
            if isinstance(raw, _Found):
                return raw
            held = self._hold(len(raw), held)
            return self._content(file.image or sha256_hex(raw), raw, page=file.image is not None)
        finally:
            self._hold(0, held)

    def _room(self) -> int:
        """Wait until a file as large as the largest so far may be read. Returns the bytes that are held for it."""
        with self._changes:
            self._changes.wait_for(lambda: not self._held or self._held + self._largest <= _BYTES_AHEAD)
            self._held += self._largest
            return self._largest

    def _hold(self, length: int, instead_of: int) -> int:
        with self._changes:
            self._held += length - instead_of
            self._largest = max(self._largest, length)
            self._changes.notify_all()
        return length

    def _content(self, sha: ImageId, raw: bytes, *, page: bool) -> _Found:
        if self._found.file_of(sha) is not None:
            return _Found(sha)
        if sha in self._images.denied:
            return _Found(sha, self._decoders.pages(raw))
        if sha in self._images.known:
            if page or not self._found.by_reference:
                self._images.make_up(sha, raw)
            return _Found(sha, self._decoders.pages(raw))
        with self._changes:
            looked, first = self._under_way.get(sha), Future[_Found]()
            if looked is None:
                self._under_way[sha] = first
        if looked is not None:  # the same bytes, in another thread
            return looked.result()
        try:
            result = self._decoded(sha, raw)
            first.set_result(result)
            return result
        except BaseException as error:
            first.set_exception(error)
            raise
        finally:
            del self._under_way[sha]

    def _decoded(self, sha: ImageId, raw: bytes) -> _Found:
        image, pages = self._inspected(sha, raw)
        if not isinstance(image, Image) or (self._found.by_reference and image.content is None):
            return _Found(image, pages)
        stored = self._images.keep(image, raw)
        return _Found(image, pages) if stored is None else _Found(*self._inspected(sha, stored))

    def _inspected(self, sha: ImageId, raw: bytes) -> Decoded:
        found = self._decoders.inspect(raw)
        if isinstance(found.image, Image) and found.image.image != sha:
            return found._replace(image=replace(found.image, image=sha, content=found.image.image))
        return found


def _read(file: SourceFile) -> bytes | _Found:
    try:
        return file.read()
    except UnreadableError as error:  # archived, encrypted, forbidden
        return _unreadable(error.why, Reason(error.reason))
    except NotFoundError as error:  # removed since it was listed
        return _unreadable(error)
    except (SourceError, StoreError):  # none of the source's files can be read any more
        raise
    except Exception as error:  # noqa: BLE001 - whatever a kind of source raises for a file is this file's reject
        return _unreadable(str(error) or type(error).__name__)


def _unreadable(why: object, reason: Reason = Reason.UNREADABLE) -> _Found:
    return _Found((reason, shown(why)[:_DETAIL]))


class _Readers:
    """Threads that look at files. Nothing waits for them in the end: an interrupted scan does not wait for a bucket."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._started = 0
        self._work: SimpleQueue[tuple[Callable[[], _Found], Future[_Found]] | None] = SimpleQueue()
        self._stopped = False

    def __enter__(self) -> _Readers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped = True
        for _ in range(self._started):
            self._work.put(None)

    def submit(self, call: Callable[[], _Found]) -> Future[_Found]:
        """Have a call made in the order of the calls."""
        future = Future[_Found]()
        self._work.put((call, future))
        if self._started < self.count:
            self._started += 1
            threading.Thread(target=self._run, daemon=True, name="ingest reader").start()
        return future

    def _run(self) -> None:
        while (work := self._work.get()) is not None and not self._stopped:
            call, future = work
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - raised where the result is wanted
                future.set_exception(error)
