"""Documents, PDFs and TIFFs of several pages, in a folder or a bucket: every page is an image.

A page's id is made of the document's sha256, the page's number and how it is drawn (``records.page_id``). So a listing
has to read a document once, to count its pages. What it finds holds for as long as the document is the same: it stands
in the version of each page, as scans store it, and in a cache. Documents are opened, and pages drawn, by decoding
processes alone.
"""

from __future__ import annotations

import json
import os
import threading
import uuid
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from taskgalaxy_ops.errors import NotFoundError, SourceError, StoreError, UnreadableError
from taskgalaxy_ops.hashing import fingerprint, sha256_hex
from taskgalaxy_ops.records import Reason, page_id
from taskgalaxy_ops.sources import left_out
from taskgalaxy_ops.sources.decoders import Decoders, Opened
from taskgalaxy_ops.sources.kinds import FoundImage, LeftOut, Place, SourceEntry, Unreadable
from taskgalaxy_ops.sources.kinds.containers import Container, Containers
from taskgalaxy_ops.sources.pages import PDF
from taskgalaxy_ops.text import shown

_SUFFIXES = (".pdf", ".tif", ".tiff")
_PIXELS, _MOST_PIXELS = 2048, 10_000
_PAGES = 1000
_READERS = 8  # documents that are read at a time for a listing
_READ_AT_ONCE = 64
_KEPT_BYTES = 256 << 20  # of documents that were read lately; one may be larger
_PRELOAD = ("pypdfium2",)  # of decoding processes

# Why a document is rejected, whoever opens it: kept beside the counts of the others.
_LASTING = frozenset((Reason.UNREADABLE, Reason.TRUNCATED_FILE, Reason.NOT_AN_IMAGE))


@dataclass(frozen=True, slots=True)
class _Counted:
    """What a listing has to know of a document."""

    sha256: str
    kind: str  # ``pages.PDF`` or ``pages.TIFF``
    pages: int

    def version(self, document: Container) -> str:
        """The version of each of its pages: the document's, and what was found of it."""
        return f"{document.version}@{self.sha256}.{self.kind}.{self.pages}" if document.version else ""

    @classmethod
    def of_version(cls, version: str, document: Container) -> _Counted | None:
        """What a version says of a document; None where it is of another version of the document."""
        its, _, told = version.rpartition("@")
        if not document.version or its != document.version or told.count(".") != 2:
            return None
        sha256, kind, count = told.split(".")
        return cls(sha256, kind, int(count))


@dataclass(frozen=True, slots=True)
class _Rejected:
    """Why a document is none."""

    reason: Reason
    why: str


class DocumentSource:
    """Documents at a location: a file, ranges in braces, a folder or a prefix."""

    options = {  # noqa: RUF012 - never changed
        "pixels": f"of the longer side of a PDF's page; left out: {_PIXELS}",
        "pages": f"of a document at most, the first ones; left out: {_PAGES}",
    }

    def __init__(self, place: Place) -> None:
        try:
            from pypdfium2.version import PDFIUM_INFO
        except ImportError as error:
            raise SourceError(
                f"source {place.source!r}: {place.location} needs the extra `documents`.\n"
                "  pip install 'taskgalaxy-ops[documents]'"
            ) from error
        self._source, self._location, self._before = place.source, place.location, place.before
        self._pixels = _number(place, "pixels", _PIXELS, _MOST_PIXELS)
        self._most = _number(place, "pages", _PAGES, 1_000_000)
        self._largest = place.decoding.bytes_an_image
        self._containers = Containers(place, _SUFFIXES)
        self._cache = _Cache(str(PDFIUM_INFO))
        self._lately = _Lately(self._containers)
        self._decoders = Decoders(place.decoding, _PRELOAD)
        weakref.finalize(self, self._decoders.close)

    def list(self) -> Iterator[SourceEntry]:
        there = False
        scanned = {each.file: each.version for each in self._before() if each.file.endswith(f"/{1:05}")}

        def counted(document: Container) -> _Counted | _Rejected:
            version = scanned.get(document.inside(f"{1:05}"), "")
            return _Counted.of_version(version, document) or self._counted(document)

        with ThreadPoolExecutor(_READERS) as readers:
            found = self._containers.list()
            while part := [*islice(found, _READ_AT_ONCE)]:
                documents = [each for each in part if isinstance(each, Container)]
                yield from (each for each in part if not isinstance(each, Container))
                for document, found_in_it in zip(documents, readers.map(counted, documents), strict=True):
                    yield from self._entries(document, found_in_it)
                there = there or bool(documents)
        if not there:
            raise SourceError(
                f"source {self._source!r}: {self._location} holds no document.\n"
                f"  Name a file, or the folder or prefix that they lie in ({' '.join(_SUFFIXES)})."
            )

    def _counted(self, document: Container) -> _Counted | _Rejected:
        if (kept := self._cache.get(document)) is not None:
            return kept
        if document.size > self._largest:
            limit = f"{self._largest // 1_000_000:,} MB (ingest.megabytes_an_image)"
            return _Rejected(Reason.TOO_MUCH_MEMORY, f"the document has {document.size:,} bytes, more than {limit}")
        try:
            raw = self._containers.open(document.place)
        except UnreadableError as error:
            return _Rejected(Reason(error.reason), error.why)
        except NotFoundError as error:
            return _Rejected(Reason.UNREADABLE, str(error))
        except (SourceError, StoreError):
            raise
        except Exception as error:  # noqa: BLE001 - a file that cannot be read does not stop the others
            return _Rejected(Reason.UNREADABLE, shown(error) or type(error).__name__)
        opened = self._decoders.document(raw)
        if not isinstance(opened, Opened):
            counted: _Counted | _Rejected = _Rejected(*opened)
        else:
            counted = _Counted(sha256_hex(raw), opened.kind, opened.pages)
            self._lately.keep(counted.sha256, raw)
        if isinstance(counted, _Counted) or counted.reason in _LASTING:
            self._cache.put(document, counted)
        return counted

    def _entries(self, document: Container, counted: _Counted | _Rejected) -> Iterator[SourceEntry]:
        if isinstance(counted, _Rejected):
            yield Unreadable(document.name, document.version, counted.why, counted.reason)
            return
        # Of a TIFF the pixels are those of the file.
        rendering = {"kind": counted.kind, **({"pixels": self._pixels} if counted.kind == PDF else {})}
        said = self.describe().get("files", {}).get(document.name, {})
        for number in range(1, min(counted.pages, self._most) + 1):
            place = {
                "file": os.fsdecode(document.place),
                "sha256": counted.sha256,
                "page": number,
                "pixels": self._pixels,
            }
            yield FoundImage(
                name=document.inside(f"{number:05}"),
                version=counted.version(document),
                place=json.dumps(place).encode(),
                image=page_id(counted.sha256, number, rendering),
                context={"page": number},
                **{name: said[name] for name in ("origin", "licence", "attribution") if said.get(name)},
            )
        if counted.pages > self._most:
            yield LeftOut(left_out.OVER_PAGES, counted.pages - self._most)

    def open(self, place: bytes) -> bytes:
        """A page as a PNG. Its place says which document, in which version, and which page."""
        told = json.loads(place)
        document = self._lately.read(told["sha256"], os.fsencode(told["file"]))
        made = self._decoders.page(document, told["page"], told["pixels"])
        if isinstance(made, bytes):
            return made
        reason, why = made
        raise UnreadableError(why, reason=reason)

    def describe(self) -> Mapping[str, Any]:
        return self._containers.describe()


def _number(place: Place, option: str, default: int, most: int) -> int:
    said = place.options.get(option, str(default))
    if not (said.isascii() and said.isdigit() and len(said) < 10 and 1 <= int(said) <= most):
        raise SourceError(
            f"source {place.source!r}: its option {option} is {said!r}.\n"
            f"  Write a whole number from 1 to {most:,} (`sources.{place.source}.options.{option}`)."
        )
    return int(said)


class _Lately:
    """The documents that were read last, by sha256: pages are read one after the other. Several threads share it."""

    def __init__(self, containers: Containers) -> None:
        self._containers = containers
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._under_way: dict[str, Future[bytes]] = {}

    def keep(self, sha256: str, raw: bytes) -> None:
        """Keep a document that was read, and let go of those that were not wanted for the longest time."""
        with self._lock:
            self._kept[sha256] = raw
            while len(self._kept) > 1 and sum(map(len, self._kept.values())) > _KEPT_BYTES:
                self._kept.popitem(last=False)

    def read(self, sha256: str, place: bytes) -> bytes:
        """A document. Raises UnreadableError if it has changed, and as ``Source.open``."""
        with self._lock:
            if sha256 in self._kept:
                self._kept.move_to_end(sha256)
                return self._kept[sha256]
            first, another = Future[bytes](), self._under_way.get(sha256)
            if another is None:
                self._under_way[sha256] = first
        if another is not None:
            return another.result()
        try:
            raw = self._containers.open(place)
            if sha256_hex(raw) != sha256:
                raise UnreadableError("the document has changed since it was listed: scan it again")
            self.keep(sha256, raw)
            first.set_result(raw)
            return raw
        except BaseException as error:
            first.set_exception(error)
            raise
        finally:
            del self._under_way[sha256]


class _Cache:
    """What is known of documents that no scan stored yet, below ``TASKGALAXY_CACHE``."""

    def __init__(self, version: str) -> None:
        """version: of what counts the pages."""
        cache = Path(os.environ.get("TASKGALAXY_CACHE") or Path.home() / ".cache" / "taskgalaxy")
        self._folder, self._version = cache / "documents", version

    def _file(self, document: Container) -> Path:
        return self._folder / f"{fingerprint('document index 1', [document.address, self._version])}.json"

    def get(self, document: Container) -> _Counted | _Rejected | None:
        """What was found of this version of a document; None: nothing, or it cannot be read."""
        try:
            kept = json.loads(self._file(document).read_text("utf-8"))
            if not document.version or kept.pop("version") != document.version:
                return None
            return _Counted(**kept) if "sha256" in kept else _Rejected(Reason(kept["reason"]), kept["why"])
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def put(self, document: Container, counted: _Counted | _Rejected) -> None:
        """Keep what was found. A cache that cannot be written costs time alone."""
        file = self._file(document)
        temporary = file.with_suffix(f".{uuid.uuid4().hex}")
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps({"version": document.version, **asdict(counted)}), "utf-8")
            temporary.replace(file)
