"""Base data: fine-tuning sets that others published, which releases are mixed with; a file for each of their layouts.

A layout says which files it has, how their rows are read, and what a row holds. Which rows can be used is one rule for
all (``checking``). A package adds a layout by an entry point (docs/extending.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskgalaxy_ops import extensions
from taskgalaxy_ops.errors import SourceError
from taskgalaxy_ops.extensions import Registry
from taskgalaxy_ops.release.base_data.files import held_pictures, rows_of
from taskgalaxy_ops.sources.content import suffix_of
from taskgalaxy_ops.sources.json_rows import NoJson
from taskgalaxy_ops.text import shown


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseRow:
    """A row as its layout has it: unchecked, and as untrusted as the file."""

    id: str  # "": it has none
    turns: tuple[tuple[str, str], ...]  # (role, text); a text has the mark ``<image>`` where a picture stands
    images: tuple[str, ...] = ()  # as the row names them, below the folder of images
    held: int = 0  # pictures that the row itself holds; then ``images`` is empty
    system: bool = False  # whether it has a prompt for the system beside its turns
    video: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseLayout:
    """A layout in which base data are published.

    suffixes: of its files, with their dots. row: what a row of a file holds; it raises KeyError, TypeError or
    ValueError for one that has another form. rows: a file's rows in their order, those that are no JSON as ``NoJson``;
    it raises OSError or ValueError where the file cannot be read. pictures: of rows of a file, by their number from 1,
    the bytes of the pictures that they hold; None for one that is not there. about: who publishes so. version: another
    one whenever a row is read otherwise.
    """

    suffixes: tuple[str, ...]
    row: Callable[[Mapping[str, Any]], BaseRow]
    rows: Callable[[Path], Iterable[Any]] = rows_of
    pictures: Callable[[Path, Sequence[int]], Iterator[tuple[int, list[bytes | None]]]] = held_pictures
    about: str = ""
    version: str | None = None  # None: it ships


LAYOUTS: Registry[BaseLayout] = extensions.BASE_LAYOUTS


def files_in(name: str, layout: str, locations: Iterable[str]) -> list[Path]:
    """The files of base data, in order: each location is one, or a folder of them; ``~`` is the home folder.

    Raises SourceError for a location that is none, or holds none of the layout's files.
    """
    suffixes = LAYOUTS.get(layout).suffixes
    found: dict[Path, None] = {}
    for location in locations:
        path = Path(location).expanduser()
        below = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
        files = [each for each in below if suffix_of(each.name) in suffixes]
        if not files or not path.exists():
            raise SourceError(
                f"base data {name}: {location} is no file {' or '.join(suffixes)}, and no folder that holds some.\n"
                f"  These are the files of the layout {layout!r}. Mend the location, or name another layout."
            )
        found |= dict.fromkeys(files)
    return list(found)


def rows_in(name: str, layout: str, file: Path) -> Iterator[tuple[int, BaseRow]]:
    """The rows of a file of base data, each with its number, from 1.

    Raises SourceError where the file cannot be read, and for a row that the layout does not have so.
    """
    chosen = LAYOUTS.get(layout)
    number = 0
    try:
        for raw in chosen.rows(file):
            number += 1
            if isinstance(raw, NoJson):
                raise ValueError(f"the line is no JSON: {raw.why}")
            if not isinstance(raw, Mapping):
                raise TypeError("it is no object")
            yield number, chosen.row(raw)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise unreadable(name, layout, file, number, error) from error


def unreadable(name: str, layout: str, file: Path, number: int, error: Exception) -> SourceError:
    """What is told of a row that a layout does not have so; number 0: of the whole file."""
    where = f"{file}, row {number:,}," if number else f"{file}"
    told = f"it has no {error}" if isinstance(error, KeyError) else shown(error)
    return SourceError(
        f"base data {name}: {where} cannot be read as {layout!r} ({told}).\n"
        f"  Mend or remove it, or name another layout: {', '.join(LAYOUTS.names())}."
    )
