"""WebDataset: tars whose members are images, each beside members with what is known of it (``000.jpg``, ``000.json``).

A tar is indexed by its headers at each listing, and never extracted: a member is read by its place in the tar. A
member's name is only a name: it is no path, and nothing is written under it.
"""

from __future__ import annotations

import json
import os
import struct
import tarfile
import threading
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from taskgalaxy_ops.errors import NotFoundError, SourceError, UnreadableError
from taskgalaxy_ops.hashing import fingerprint
from taskgalaxy_ops.sources import context, left_out
from taskgalaxy_ops.sources.content import suffix_of
from taskgalaxy_ops.sources.kinds import FoundImage, LeftOut, Place, SourceEntry, Unreadable
from taskgalaxy_ops.sources.kinds.containers import Container, Containers, place_in, split_place
from taskgalaxy_ops.text import shown

_COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
# What the package webdataset decodes as something else than an image, and what readers keep beside a sample.
_METADATA = frozenset(
    (
        *(".json", ".jsn", ".jsonl", ".txt", ".text", ".transcript", ".caption", ".url", ".csv", ".tsv"),
        *(".cls", ".cls2", ".index", ".inx", ".id", ".pyd", ".pickle", ".pkl", ".pth", ".npy", ".npz"),
        *(".ten", ".tb", ".mp", ".msg", ".cbor"),
    )
)
_JSON = (".json", ".jsn")
_TEXTS = {".txt": "text", ".text": "text", ".caption": "caption"}  # by suffix: the field that the member is
_TEXT_BYTES = 1 << 16  # of a text that are read
_JSON_BYTES = 4 << 20  # of a JSON member, which is read whole or not at all
_SAMPLE = 256  # images of a sample that wait for its metadata
_BLOCK = tarfile.BLOCKSIZE
_LONGEST = 4096  # characters of a member's name
_EXTENDED = 1 << 20  # bytes of a header that extends another: a hostile one would fill the memory
_EXTENDING = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_END = 2 * tarfile.RECORDSIZE  # what may lie behind the last member: zeros that fill a record
_PLACE = struct.Struct(">QQI")  # in its tar: where the data begin, their bytes, CRC-32 of the member's header
_NEAR = 1 << 16  # bytes between two reads that still count as reading on
_AHEAD = 8 << 20  # bytes that are fetched at a time where reads follow each other


class WebDatasetSource:
    """Tars at a location: a file, ranges in braces, a folder or a prefix."""

    by_place = True
    options = {"context": context.OPTION}  # noqa: RUF012 - never changed

    def __init__(self, place: Place) -> None:
        self._source, self._location = place.source, place.location
        self._context = place.options.get("context")
        self._containers = Containers(place, (".tar", *_COMPRESSED))
        self._tars: dict[str, Container] = {}
        self._ahead = _Ahead()

    def list(self) -> Iterator[SourceEntry]:
        self._tars = {}
        compressed = 0
        for each in self._containers.list():
            if not isinstance(each, Container):
                yield each
            elif each.name.lower().endswith(_COMPRESSED):
                compressed += 1
                yield Unreadable(each.name, each.version, _UNPACK)
            else:
                self._tars[each.name] = each
                for found in _members(each, self._context):
                    yield found.entry(each) if isinstance(found, _Member) else found
        if not self._tars:
            more = f" ({compressed} are compressed: {_UNPACK})" if compressed else ""
            raise SourceError(
                f"source {self._source!r}: {self._location} holds no tar{more}.\n"
                "  Name a .tar, several by braces (shard-{0000..0012}.tar), or the folder or prefix that they lie in."
            )

    def open(self, place: bytes) -> bytes:
        tar, start, size, check = self._place(place)
        return self._read(tar, start, size, check, size)

    def head(self, place: bytes, length: int) -> bytes:
        tar, start, size, check = self._place(place)
        return self._read(tar, start, size, check, min(size, length))

    def _place(self, place: bytes) -> tuple[Container, int, int, int]:
        name, within = split_place(place, _PLACE.size)
        if not self._tars:  # nothing was listed
            self._tars = {each.name: each for each in self._containers.list() if isinstance(each, Container)}
        if name not in self._tars:
            raise UnreadableError(f"{name} is gone")
        return self._tars[name], *_PLACE.unpack(within)

    def _read(self, tar: Container, start: int, size: int, check: int, length: int) -> bytes:
        """``length`` bytes of a member, and its header before them, which must be the one that was listed."""
        ahead = length == size and tar.url is not None
        raw = (self._ahead.part if ahead else Container.part)(tar, start - _BLOCK, _BLOCK + length)
        if len(raw) < _BLOCK + length or zlib.crc32(raw[:_BLOCK]) != check:
            raise UnreadableError(f"{tar.name} has changed since it was listed: scan it again")
        return raw[_BLOCK:]

    def describe(self) -> Mapping[str, Any]:
        return self._containers.describe()


_UNPACK = "members of a compressed tar cannot be read by their place: unpack it to a .tar"


@dataclass(frozen=True, slots=True)
class _Member:
    """A whole member of a tar that is a file."""

    name: str
    start: int  # byte of the tar where its data begin
    size: int  # bytes
    check: int  # CRC-32 of the 512 bytes before its data: its header
    context: Mapping[str, Any] | None = None  # what the metadata beside it say

    def entry(self, tar: Container) -> FoundImage:
        # A header's time and size say little of the content, and packers often set the time to a constant. So a
        # member is as old as its tar: where the tar has changed it is read again, and decoded only if it is new.
        version = f"{tar.version}@{self.start}" if tar.version else ""
        return FoundImage(
            name=tar.inside(self.name),
            version=version,
            place=place_in(tar.name, _PLACE.pack(self.start, self.size, self.check)),
            context=self.context,
            certain=False,
        )


@dataclass(frozen=True, slots=True)
class _Metadata:
    """What a member with metadata says of the images of its sample."""

    sample: str
    said: Mapping[str, Any]


class _Header(tarfile.TarInfo):
    """A header of a tar that nobody vouches for."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.size < 0 or (self.type in _EXTENDING and self.size > _EXTENDED):
            raise tarfile.ReadError(f"a header states {self.size} bytes")
        made: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]
        return made


def _members(tar: Container, option: str | None) -> Iterator[_Member | Unreadable | LeftOut]:
    """What a tar holds, and what is wrong with it. Its index is kept in a cache, if its version is known.

    option: which fields of the metadata are context.
    """
    if not tar.version:
        yield from _with_context(_indexed(tar, option))
        return
    kept = _Index(tar, option)
    yield from kept.rows() if kept.there() else kept.keeping(_with_context(_indexed(tar, option)))


def _with_context(
    found: Iterable[_Member | _Metadata | Unreadable | LeftOut],
) -> Iterator[_Member | Unreadable | LeftOut]:
    """The images with what the metadata of their sample say: members that follow each other, of one name but for what
    comes after its first dot."""
    sample: str | None = None
    images: list[_Member] = []
    said: dict[str, Any] = {}
    for each in found:
        if isinstance(each, Unreadable | LeftOut):
            yield each
            continue
        of = each.sample if isinstance(each, _Metadata) else _sample(each.name)
        if of != sample or len(images) == _SAMPLE:
            yield from _told(images, said)
            said = said if of == sample else {}
            sample, images = of, []
        if isinstance(each, _Metadata):
            said |= each.said
        else:
            images.append(each)
    yield from _told(images, said)


def _told(images: Iterable[_Member], said: Mapping[str, Any]) -> Iterator[_Member]:
    told = context.kept(said) or None
    return (replace(image, context=told) for image in images)


def _sample(name: str) -> str:
    """The sample that a member belongs to, as the package webdataset has it."""
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.partition('.')[0]}"


def _indexed(tar: Container, option: str | None) -> Iterator[_Member | _Metadata | Unreadable | LeftOut]:
    """Read a tar's headers, one by one: memory does not grow with its members."""
    taken, end = 0, 0
    with tar.file() as file:
        try:
            opened = tarfile.TarFile(fileobj=file, tarinfo=_Header, errors="surrogateescape")
            while (member := opened.next()) is not None:
                opened.members.clear()  # type: ignore[attr-defined]
                if opened.offset <= end:
                    raise tarfile.ReadError("a header points back")
                end = opened.offset
                if member.isfile() and not member.issparse() and member.offset_data + member.size > tar.size:
                    yield Unreadable(_name(tar, member.name), tar.version, "cut off by the end of the tar")
                    return
                taken += member.isfile()
                yield from _sorted(tar, member, file, option)
        except (NotFoundError, UnreadableError) as error:
            yield Unreadable(tar.name, tar.version, getattr(error, "why", str(error)))
            return
        except (tarfile.TarError, OSError, ValueError, OverflowError, RecursionError, EOFError, struct.error) as error:
            told = f"a header cannot be read: {shown(error)}"
            yield Unreadable(tar.name, tar.version, f"no whole tar ({told}); {taken} members before it were taken")
            return
        if told := _broken_end(file, opened.offset, tar.size):
            yield Unreadable(tar.name, tar.version, f"no whole tar ({told}); {taken} members before it were taken")


def _sorted(
    tar: Container, member: tarfile.TarInfo, file: Any, option: str | None
) -> Iterator[_Member | _Metadata | Unreadable | LeftOut]:
    name = member.name.removeprefix("./")
    if member.isdir():
        return
    if member.issym() or member.islnk():
        yield LeftOut(left_out.TAR_LINK)
    elif not member.isfile():
        yield LeftOut(left_out.SPECIAL)
    elif suffix_of(name) in _METADATA:
        said = {} if option == "" or member.issparse() else _said(member, suffix_of(name), file)
        if said is None:
            yield LeftOut(left_out.METADATA_UNREAD)
            return
        yield LeftOut(left_out.METADATA)
        if told := {field: said[field] for field in context.taken(option, said)}:
            yield _Metadata(_sample(_escaped(name)), told)
    elif member.issparse():
        yield Unreadable(_name(tar, name), tar.version, "a sparse member, which has no bytes of its own: pack it anew")
    elif why := _hostile(name):
        yield Unreadable(_name(tar, name), tar.version, why)
    else:
        file.seek(member.offset_data - _BLOCK)
        yield _Member(_escaped(name), member.offset_data, member.size, zlib.crc32(file.read(_BLOCK)))


def _said(member: tarfile.TarInfo, suffix: str, file: Any) -> Mapping[str, Any] | None:
    """The fields of a member with metadata; {} of one that holds no texts, None where it cannot be read."""
    if suffix in _TEXTS:
        file.seek(member.offset_data)
        return {_TEXTS[suffix]: file.read(min(member.size, _TEXT_BYTES)).decode("utf-8", "backslashreplace")}
    if suffix not in _JSON:
        return {}
    if member.size > _JSON_BYTES:
        return None
    try:
        file.seek(member.offset_data)
        read = json.loads(file.read(member.size))
    except (ValueError, RecursionError):
        return None
    return {str(name): value for name, value in read.items()} if isinstance(read, dict) else {}


def _hostile(name: str) -> str:
    if len(name) > _LONGEST:
        return f"its name has {len(name):,} characters, more than {_LONGEST:,}"
    if name.startswith("/") or ".." in name.split("/"):
        return "its name leads out of the tar: pack it with relative names"
    return "its name has control characters" if any(ord(letter) < 32 for letter in name) else ""


def _name(tar: Container, name: str) -> str:
    return tar.inside(_escaped(name[:200]))


def _escaped(name: str) -> str:
    """A member's name. Bytes that are no UTF-8 are escaped, because tables cannot store them."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _broken_end(file: Any, offset: int, size: int) -> str:
    """What is wrong where a tar's last header was read; "" if it ends as it should."""
    file.seek(offset)
    end = file.read(_END)
    if not end:
        return "it has no end: it is still being written, or was cut off"
    if any(end[:_BLOCK]):
        return f"byte {offset:,} begins no header" if len(end) >= _BLOCK else "it is cut off within a header"
    if any(end) or size > offset + _END:
        return f"it goes on behind its end at byte {offset:,}: other tars were appended as a whole"
    return ""


class _Ahead:
    """Reads a bucket's object in large parts, as long as reads follow each other. Safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tar: Container | None = None
        self._start, self._raw, self._next = 0, b"", 0

    def part(self, tar: Container, start: int, length: int) -> bytes:
        with self._lock:
            if self._tar is not tar:
                self._tar, self._start, self._raw, self._next = tar, 0, b"", 0
            within = start - self._start
            if within < 0 or within + length > len(self._raw):
                follows = 0 <= start - self._next <= _NEAR
                self._start, within = start, 0
                self._raw = tar.part(start, max(length, _AHEAD) if follows else length)
            self._next = start + length
            return self._raw[within : within + length]


_Row = list[Any]  # of an index that is kept: name, start, size, check, context; or name, why; or kind


def _to_json(each: _Member | Unreadable | LeftOut) -> _Row:
    if isinstance(each, _Member):
        return [each.name, each.start, each.size, each.check, each.context]
    return [each.name, each.why] if isinstance(each, Unreadable) else [each.kind]


def _from_json(tar: Container, row: _Row) -> _Member | Unreadable | LeftOut:
    if len(row) == 1:
        return LeftOut(row[0])
    return Unreadable(row[0], tar.version, row[1]) if len(row) == 2 else _Member(*row)


class _Index:
    """The index of a tar, kept below ``TASKGALAXY_CACHE``.

    Reading headers takes 0.1 ms a member, and in a bucket the transfer of most of the tar; sources are listed often.
    """

    def __init__(self, tar: Container, option: str | None) -> None:
        cache = Path(os.environ.get("TASKGALAXY_CACHE") or Path.home() / ".cache" / "taskgalaxy")
        name = fingerprint("tar index 2", {"tar": tar.address, "context": option})
        self._file = cache / "tars" / f"{name}.jsonl"
        self._tar = tar

    def there(self) -> bool:
        """Whether the index of this version of the tar is kept."""
        try:
            with self._file.open(encoding="utf-8") as kept:
                return bool(json.loads(kept.readline()) == self._tar.version)
        except (OSError, ValueError):
            return False

    def rows(self) -> Iterator[_Member | Unreadable | LeftOut]:
        """What is kept. Raises SourceError where it is damaged."""
        try:
            with self._file.open(encoding="utf-8") as kept:
                kept.readline()
                for line in kept:
                    yield _from_json(self._tar, json.loads(line))
        except (OSError, ValueError, TypeError) as error:
            raise SourceError(f"{self._file}: this cached index cannot be read ({error}). Delete it.") from error

    def keeping(self, found: Iterable[_Member | Unreadable | LeftOut]) -> Iterator[_Member | Unreadable | LeftOut]:
        """``found``, which is kept once all of it was taken. A cache that cannot be written costs time alone."""
        temporary = self._file.with_suffix(f".{uuid.uuid4().hex}")
        out = None
        try:
            with suppress(OSError):
                self._file.parent.mkdir(parents=True, exist_ok=True)
                out = temporary.open("w", encoding="utf-8")
                out.write(json.dumps(self._tar.version) + "\n")
            for each in found:
                try:
                    if out is not None:
                        out.write(json.dumps(_to_json(each)) + "\n")
                except OSError:
                    out = None
                yield each
            with suppress(OSError):
                if out is not None:
                    out.flush()
                    os.fsync(out.fileno())
                    temporary.replace(self._file)
        finally:
            with suppress(OSError):
                if out is not None:
                    out.close()
                temporary.unlink(missing_ok=True)
