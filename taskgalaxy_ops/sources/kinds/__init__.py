"""The kinds of sources, a file each: what the part of a location before its colon names.

``builtin:photos``, ``s3://bucket/prefix``, ``webdataset:/shards``; a location without such a part is a folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from taskgalaxy_ops import extensions
from taskgalaxy_ops.errors import SourceError
from taskgalaxy_ops.extensions import Registry
from taskgalaxy_ops.records import FileVersion, ImageId, Reason
from taskgalaxy_ops.settings import IngestSettings, SourceSettings

# A source may have this file, with licence and attribution of its images, and for single files also their origin.
NOTES_FILE = "source.json"
_NOTED = ("origin", "licence", "attribution")

_KIND = re.compile(r"([a-z][a-z0-9_.-]*):(//)?")
_WITH_SLASHES = {"file", "s3"}

# A file as it is listed. Name: its path within the source, "/"-separated. Version: another text when the content may be
# another, "" where that is not known. Place: what ``open`` finds it by.
Found = tuple[str, str, bytes]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something that a kind of source passed by, or several; ``kind``: one of ``sources.left_out``."""

    kind: str
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundImage:
    """A ``Found`` of which its source knows that it is an image, whatever its name says, and perhaps whose it is.

    image: its id, where that is not the sha256 of what ``open`` gives: of a page of a document.
    context: what the source says of it beside (``sources.context``): texts, numbers or lists of them, by field.
    """

    name: str
    version: str
    place: bytes
    image: ImageId | None = None
    origin: str | None = None
    licence: str | None = None
    attribution: str | None = None
    context: Mapping[str, Any] | None = None
    certain: bool = True  # False: whether it is an image is not known, as of a ``Found``


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Something that should be read and cannot be: it becomes a reject with this name and reason."""

    name: str
    version: str
    why: str
    reason: Reason = Reason.UNREADABLE


SourceEntry = Found | FoundImage | Unreadable | LeftOut


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a source lies, as its kind is told."""

    source: str  # the source's name, for messages
    location: str  # as the settings have it
    rest: str  # the location without its kind
    limit: int | None  # at most this many files will be read; None: all
    s3_options: Mapping[str, Any]  # boto3 arguments
    follow_links: str = "inside"  # of a folder: "inside", "anywhere" or "never"
    hidden: bool = False  # names that begin with a dot are wanted, too
    options: Mapping[str, str] = field(default_factory=dict)  # what else the kind is told; it names those it knows
    decoding: IngestSettings = field(default_factory=IngestSettings)  # bounds of what a kind decodes itself
    before: Callable[[], Iterable[FileVersion]] = tuple  # reads what the source's last scan listed


class Source(Protocol):
    """A source that was found: lists its files, opens one, and describes whose they are.

    One that can read the beginning of a file alone may also have ``head(place, length) -> bytes``. One whose files are
    best read in order of their places (as they lie in a container) has ``by_place = True``.
    """

    def list(self) -> Iterable[SourceEntry]:
        """Every file, in any order, whatever its suffix; and what was passed by, to be counted.

        Of several files with one name, the one with the greatest place stands; the others are counted.
        """
        ...

    def open(self, place: bytes) -> bytes:
        """The content of a file that was listed. Several threads call it.

        Raises SourceError or StoreError if no file can be read any more. Any other exception concerns this file alone.
        """
        ...

    def describe(self) -> Mapping[str, Any]:
        """``licence`` and ``attribution`` of all its images; ``files``: by name, what differs, ``origin``, ``context``.

        A ``context`` is an object of texts by field."""
        ...


class SourceKind(Protocol):
    """What the registry of sources holds under a name.

    One that takes options has ``options``: a mapping from the name of each to what it says.
    """

    def __call__(self, place: Place) -> Source:
        """The source that lies there. Raises SourceError."""
        ...


SOURCES: Registry[SourceKind] = extensions.SOURCES


def kind_of(location: str) -> tuple[str, str]:
    """The kind that a location names, and the rest of it.

    A colon may be part of a folder's name: only where ``//`` follows need the kind be known.
    """
    matched = _KIND.match(location)
    if matched and (matched[2] or (matched[1] not in _WITH_SLASHES and SOURCES.knows(matched[1]))):
        return matched[1], location[matched.end() :]
    return "file", location


def found_source(
    name: str,
    settings: SourceSettings,
    s3_options: Mapping[str, Any],
    decoding: IngestSettings | None = None,
    before: Callable[[], Iterable[FileVersion]] = tuple,
) -> Source:
    """The source at a location; ``decoding`` and ``before`` as of ``Place``.

    Raises SourceError where its kind is unknown, or it cannot be read.
    """
    location = settings.location
    kind, rest = kind_of(location)
    try:
        opener = SOURCES.get(kind)
    except SourceError as error:
        raise SourceError(f"source {name!r}: {location}: {error}") from error
    if odd := sorted(settings.options.keys() - (takes := getattr(opener, "options", {})).keys()):
        there = "; ".join(f"{option}: {about}" for option, about in takes.items()) or "none"
        raise SourceError(
            f"source {name!r}: {odd[0]!r} is no option of the kind {kind!r} (`sources.{name}.options`).\n"
            f"  Its options are: {there}."
        )
    place = Place(
        source=name,
        location=location,
        rest=rest,
        limit=settings.limit,
        s3_options=s3_options,
        follow_links=settings.follow_links,
        hidden=settings.hidden,
        options=settings.options,
        decoding=decoding or IngestSettings(),
        before=before,
    )
    return opener(place)


def parsed_notes(name: str, raw: bytes) -> Mapping[str, Any]:
    """What ``source.json`` says. Raises SourceError."""
    try:
        notes = json.loads(raw)
        if not isinstance(notes, dict) or not isinstance(notes.get("files", {}), dict):
            raise ValueError("it must be an object with `licence`, `attribution` and `files`")
        for place, entry in {"": notes, **notes.get("files", {})}.items():
            texts = [entry.get(key) for key in _NOTED] if isinstance(entry, dict) else [0]
            if not all(text is None or isinstance(text, str) for text in texts):
                raise ValueError(f"{place or 'the whole'} must be an object, {', '.join(_NOTED)} in it texts")
            if place and not isinstance(entry.get("context", {}), dict):
                raise ValueError(f"`context` of {place} must be an object")
        return notes
    except ValueError as error:
        raise SourceError(f"source {name!r}: {NOTES_FILE} cannot be read ({error}). Mend it or remove it.") from error
