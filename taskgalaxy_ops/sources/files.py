"""The files of a source, wherever they lie: a folder, an S3 prefix, or one that ships (``builtin:photos``)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from taskgalaxy_ops.errors import SourceError
from taskgalaxy_ops.settings import SourceSettings
from taskgalaxy_ops.storage import connect

# A source may say whose images they are: licence, attribution, and per file also origin.
NOTES_FILE = "source.json"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of a source, not yet read."""

    name: str  # path within the source, "/"-separated
    read: Callable[[], bytes]
    origin: str | None = None
    licence: str | None = None
    attribution: str | None = None


def source_files(name: str, settings: SourceSettings, s3_options: Mapping[str, Any]) -> Iterator[SourceFile]:
    """The source's files of the wanted suffixes, in order of name, up to its limit.

    Raises SourceError if the location cannot be read, or lists no image.
    """
    location = settings.location
    if location.startswith("s3://"):
        listing, notes = _bucket(location, s3_options)
    else:
        listing, notes = _folder(name, Path(location.removeprefix("file://")))
    wanted = ((key, read) for key, read in listing if key.lower().endswith(settings.suffixes))
    files = list(islice(wanted, settings.limit))
    if not files:
        raise SourceError(
            f"source {name!r}: {location} lists no image.\n"
            f"  Looked for {' '.join(settings.suffixes)} (set `sources.{name}.suffixes` for others)."
        )
    for key, read in files:
        own = notes.get("files", {}).get(key, {})
        yield SourceFile(
            key,
            read,
            own.get("origin"),
            own.get("licence") or settings.licence or notes.get("licence"),
            own.get("attribution") or settings.attribution or notes.get("attribution"),
        )


_Listing = Iterator[tuple[str, Callable[[], bytes]]]


def _folder(name: str, folder: Path) -> tuple[_Listing, Mapping[str, Any]]:
    if not folder.is_dir():
        raise SourceError(f"source {name!r}: {folder} is no folder. Set `sources.{name}.location` to one with images.")
    paths = sorted(
        (path for path in folder.rglob("*") if path.is_file()), key=lambda p: p.relative_to(folder).as_posix()
    )
    notes = folder / NOTES_FILE
    return (
        ((path.relative_to(folder).as_posix(), path.read_bytes) for path in paths),
        _notes(name, notes.read_bytes()) if notes.is_file() else {},
    )


def _bucket(location: str, s3_options: Mapping[str, Any]) -> tuple[_Listing, Mapping[str, Any]]:
    store = connect(location, **s3_options)
    return ((listed.key, partial(store.get, listed.key)) for listed in store.list("")), {}


def _notes(name: str, raw: bytes) -> Mapping[str, Any]:
    try:
        notes = json.loads(raw)
        if not isinstance(notes, dict) or not isinstance(notes.get("files", {}), dict):
            raise ValueError("it must be an object with `licence`, `attribution` and `files`")
        return notes
    except ValueError as error:
        raise SourceError(f"source {name!r}: {NOTES_FILE} cannot be read ({error}). Mend it or remove it.") from error
