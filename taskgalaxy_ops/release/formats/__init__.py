"""The formats that a release comes in, a file each: its files, and how what was taken down leaves them.

A package adds one by an entry point (docs/extending.md); it is written where ``release.formats`` names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from taskgalaxy_ops import extensions
from taskgalaxy_ops.extensions import Registry
from taskgalaxy_ops.records import ImageId, PairId, leading_id
from taskgalaxy_ops.release.select import Selection
from taskgalaxy_ops.storage.base import Content


@dataclass(frozen=True, slots=True)
class Gone:
    """All that was taken out of a release so far; the samples are those about any of the images."""

    images: frozenset[ImageId]
    samples: frozenset[PairId]

    def holds(self, sample: PairId, *locations: str) -> bool:
        """Whether a sample is gone, or an image of it: copied or referred to, an image's location has its id in it."""
        parts = (part for location in locations for part in PurePosixPath(location).parts)
        return sample in self.samples or any(leading_id(part) in self.images for part in parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseFormat:
    """A format of a release.

    files: path and content of each file, made when it is asked for; all lie in one folder, a package's in that of the
    format's name. count: how many there will be. redact: a file (path, content) without what is gone, as loadable as
    before; None where nothing is left to load. version: another one whenever the same samples give other files.
    """

    files: Callable[[Selection], Iterable[tuple[str, Content]]]
    redact: Callable[[str, bytes, Gone], bytes | None]
    count: Callable[[Selection], int]
    folder: str = ""  # "": that of its name
    about: str = ""  # what the card says of one that is not always there
    of_published: bool = True  # whether it can be made of a published release's rows
    version: str | None = None  # None: it ships


FORMATS: Registry[ReleaseFormat] = extensions.RELEASE_FORMATS


def folder_of(name: str) -> str:
    """The folder that the files of a format lie in."""
    return FORMATS.get(name).folder or name


def format_of(path: str) -> ReleaseFormat | None:
    """The format of a file of a release; None for one that is of none, such as the card.

    Raises SettingsError for one that no installed package brings.
    """
    folder, slash, _ = path.partition("/")
    if not slash or folder in PICTURES:
        return None
    return FORMATS.get(next((name for name in FORMATS.shipped if folder_of(name) == folder), folder))


PICTURES = ("images", "samples", "card")  # folders that are of no format
