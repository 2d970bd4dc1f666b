"""The files of a source, wherever they lie: a folder, an S3 prefix, or one that ships (``builtin:photos``)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from taskgalaxy_ops.errors import NotFoundError, SourceError
from taskgalaxy_ops.settings import SourceSettings
from taskgalaxy_ops.storage import connect

# A source may say whose images they are: licence, attribution, and per file also origin.
NOTES_FILE = "source.json"
_NOTED = ("origin", "licence", "attribution")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of a source, not yet read."""

    name: str  # path within the source, "/"-separated
    read: Callable[[], bytes]
    version: str = ""  # as listed: another one when the content may be another; "" is not known
    origin: str | None = None
    licence: str | None = None
    attribution: str | None = None


def source_files(name: str, settings: SourceSettings, s3_options: Mapping[str, Any]) -> Iterator[SourceFile]:
    """The source's files of the wanted suffixes, in order of name, up to its limit.

    Raises SourceError if the location cannot be read, or lists no image.
    """
    location = settings.location
    if location.startswith("builtin:"):
        listing, notes = _folder(name, built(location.removeprefix("builtin:"), settings.limit))
    elif location.startswith("s3://"):
        listing, notes = _bucket(name, location, s3_options)
    else:
        listing, notes = _folder(name, Path(location.removeprefix("file://")))
    suffixes = tuple(suffix.lower() for suffix in settings.suffixes)
    wanted = (each for each in listing if each[0].lower().endswith(suffixes))
    files = list(islice(wanted, settings.limit))
    if not files:
        raise SourceError(
            f"source {name!r}: {location} lists no image.\n"
            f"  Looked for {' '.join(settings.suffixes)} (set `sources.{name}.suffixes` for others)."
        )
    for key, version, read in files:
        own = notes.get("files", {}).get(key, {})
        yield SourceFile(
            key,
            read,
            version,
            own.get("origin"),
            own.get("licence") or settings.licence or notes.get("licence"),
            own.get("attribution") or settings.attribution or notes.get("attribution"),
        )


def built(name: str, limit: int | None) -> Path:
    """The folder of a source that ships, made on first use below ``TASKGALAXY_CACHE`` (``~/.cache/taskgalaxy``).

    Raises SourceError for an unknown name or a missing package.
    """
    from taskgalaxy_ops.sources.builtin import build

    cache = Path(os.environ.get("TASKGALAXY_CACHE") or Path.home() / ".cache" / "taskgalaxy")
    return build(name, cache / (f"{name}-{limit}" if limit else name), limit)


_Listing = Iterator[tuple[str, str, Callable[[], bytes]]]  # name, version, bytes


def _folder(name: str, folder: Path) -> tuple[_Listing, Mapping[str, Any]]:
    if not folder.is_dir():
        raise SourceError(f"source {name!r}: {folder} is no folder. Set `sources.{name}.location` to one with images.")
    paths = sorted((_name(path, folder), path) for path in folder.rglob("*") if path.is_file())
    notes = folder / NOTES_FILE
    return (
        ((key, _version(path), path.read_bytes) for key, path in paths),
        _notes(name, notes.read_bytes()) if notes.is_file() else {},
    )


def _version(path: Path) -> str:
    try:
        stat = path.stat()
    except OSError:  # gone since it was listed: reading it says so
        return ""
    return f"{stat.st_size}-{stat.st_mtime_ns}"


def _name(path: Path, folder: Path) -> str:
    """The path within the source; bytes that are no UTF-8 are escaped, since no table could hold them."""
    return os.fsencode(path.relative_to(folder).as_posix()).decode("utf-8", "backslashreplace")


def _bucket(name: str, location: str, s3_options: Mapping[str, Any]) -> tuple[_Listing, Mapping[str, Any]]:
    store = connect(location, **s3_options)
    try:
        notes = _notes(name, store.get(NOTES_FILE))
    except NotFoundError:
        notes = {}
    return (
        (listed.key, f"{listed.size}-{listed.version}" if listed.version else "", partial(store.get, listed.key))
        for listed in store.list("")
    ), notes


def _notes(name: str, raw: bytes) -> Mapping[str, Any]:
    try:
        notes = json.loads(raw)
        if not isinstance(notes, dict) or not isinstance(notes.get("files", {}), dict):
            raise ValueError("it must be an object with `licence`, `attribution` and `files`")
        for place, entry in {"": notes, **notes.get("files", {})}.items():
            texts = [entry.get(key) for key in _NOTED] if isinstance(entry, dict) else [0]
            if not all(text is None or isinstance(text, str) for text in texts):
                raise ValueError(f"{place or 'the whole'} must be an object, {', '.join(_NOTED)} in it texts")
        return notes
    except ValueError as error:
        raise SourceError(f"source {name!r}: {NOTES_FILE} cannot be read ({error}). Mend it or remove it.") from error
