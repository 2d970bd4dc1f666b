"""Images that an annotation file names: COCO, Visual Genome, and conversations as LLaVA and ShareGPT have them.

The file says which images are in the source; they lie below a folder or prefix (the option ``images``). What the file
states is looked up among the names that lie there, and never opened as a path. Files are streamed: memory grows neither
with them nor with the number of images.
"""

from __future__ import annotations

import posixpath
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from taskgalaxy_ops.errors import SourceError
from taskgalaxy_ops.sources import context, left_out
from taskgalaxy_ops.sources.content import by_suffix, suffix_of
from taskgalaxy_ops.sources.json_rows import NoJson, json_items, json_rows
from taskgalaxy_ops.sources.kinds import Found, FoundImage, LeftOut, Place, SourceEntry, Unreadable
from taskgalaxy_ops.sources.kinds.bucket import BucketSource
from taskgalaxy_ops.sources.kinds.containers import Container, Containers
from taskgalaxy_ops.sources.kinds.folder import FolderSource
from taskgalaxy_ops.text import shown

_LONGEST = 1024  # characters of an image's path
_S3 = "s3://"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An image that an annotation file names."""

    path: str  # below the option ``images``, as the file writes it
    origin: str | None = None
    licence: str | None = None
    attribution: str | None = None
    context: Mapping[str, Any] | None = None


_IMAGES = {"images": "the folder or prefix of the images; left out: the annotation file's own"}


class AnnotatedSource:
    """The images that an annotation file names."""

    options: Mapping[str, str] = _IMAGES

    def __init__(self, place: Place) -> None:
        self._place = place
        self._source, self._location = place.source, place.location
        containers = Containers(place, (".json", ".jsonl"))
        files = [each for each in containers.list() if isinstance(each, Container)]
        if len(files) != 1:
            what = "names no annotation file" if not files else f"names {len(files)} annotation files"
            raise SourceError(f"source {self._source!r}: {self._location} {what}. Name one .json or .jsonl file.")
        self._file = files[0]
        self._root = (place.options.get("images") or place.rest.rpartition("/")[0] or ".").removeprefix("file://")
        self._root = self._root.rstrip("/") or "/"
        # Hidden names are looked up, too: the annotation file decides.
        below = replace(place, location=self._root, rest=self._root, hidden=True)
        self._images: FolderSource | BucketSource
        if self._root.startswith(_S3):
            self._images = BucketSource(below)
        else:
            self._images = FolderSource(below, Path(self._root))

    def entries(self, file: Container) -> Iterator[Entry | Unreadable | LeftOut]:
        """What the annotation file names, in any order. Raises ValueError where it is none."""
        raise NotImplementedError

    def list(self) -> Iterator[SourceEntry]:
        with _Names(self._images.list()) as names:
            try:
                for entry in self.entries(self._file):
                    yield self._found(entry, names) if isinstance(entry, Entry) else entry
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise SourceError(
                    f"source {self._source!r}: {self._location} cannot be read as this kind of annotation file "
                    f"({shown(error)}).\n  Mend the file, or name its kind: coco, visual_genome, llava or sharegpt."
                ) from error
            names.left_out[left_out.NOT_NAMED] += names.unnamed()
            yield from map(LeftOut, names.left_out.elements())

    def _found(self, entry: Entry, names: _Names) -> FoundImage | Unreadable:
        path = entry.path.removeprefix(f"{self._root}/")
        found = names.take(posixpath.normpath(path)) if len(path) <= _LONGEST else None
        if found is None:
            return Unreadable(
                path[:_LONGEST] or "(no path)", "", f"no such file below {self._root} (the option `images`)"
            )
        name, version, place = found
        return FoundImage(
            name=name,
            version=version,
            place=place,
            origin=entry.origin,
            licence=entry.licence,
            attribution=entry.attribution,
            context=entry.context,
        )

    def open(self, place: bytes) -> bytes:
        return self._images.open(place)

    def describe(self) -> Mapping[str, Any]:
        return self._images.describe()


class CocoSource(AnnotatedSource):
    """COCO (``instances_*.json``, ``captions_*.json``): each image with its own licence, captions and categories."""

    options = {**_IMAGES, "context": "captions or categories, which are context; left out: both; empty: none"}  # noqa: RUF012

    def entries(self, file: Container) -> Iterator[Entry | Unreadable | LeftOut]:
        with file.file() as opened, _Texts() as texts:
            if wanted := self._wanted():
                texts.add(_of_coco(opened), wanted)
            licences = {
                each["id"]: _text(each.get("url") or each["name"]) for each in json_items(opened, "licenses.item")
            }
            count = 0
            for image in json_items(opened, "images.item"):
                count += 1
                origin = image.get("flickr_url") or image.get("coco_url")
                yield Entry(
                    path=_text(image["file_name"]),
                    origin=_text(origin) if origin else None,
                    licence=licences.get(image.get("license")),
                    context=texts.of(image.get("id")),
                )
        if not count:
            raise ValueError("it has no list `images`")

    def _wanted(self) -> list[str]:
        """The fields of the context. Raises SourceError for one that there is not."""
        known = ("captions", "categories")
        option = self._place.options.get("context", ",".join(known))
        if odd := set(context.names(option)).difference(known):
            raise SourceError(
                f"source {self._source!r}: the option `context` names {sorted(odd)[0]!r}, which COCO has not.\n"
                f"  It has {' and '.join(known)}."
            )
        return context.names(option)


class VisualGenomeSource(AnnotatedSource):
    """Visual Genome (``image_data.json``): images by the folder and name of their URL, ``VG_100K/2.jpg``."""

    options = {  # noqa: RUF012 - never changed
        **_IMAGES,
        "regions": "region_descriptions.json, whose phrases are context; left out: none",
        "objects": "objects.json, whose names are context; left out: none",
    }

    def entries(self, file: Container) -> Iterator[Entry | Unreadable | LeftOut]:
        count = 0
        with file.file() as opened, _Texts() as texts:
            for field, read in (("regions", _regions), ("objects", _objects)):
                if named := self._place.options.get(field):
                    try:
                        with self._beside(named) as other:
                            texts.add(read(other), [field])
                    except (ValueError, KeyError, TypeError) as error:
                        raise SourceError(
                            f"source {self._source!r}: {named}, the option `{field}`, is no such file of Visual Genome "
                            f"({shown(error)})."
                        ) from error
            for image in json_items(opened, "item"):
                count += 1
                url = _text(image["url"])
                of = image.get("image_id", image.get("id"))
                yield Entry(path="/".join(url.split("/")[-2:]), origin=url, context=texts.of(of))
        if not count:
            raise ValueError("it is no list of images")

    def _beside(self, named: str) -> BinaryIO:
        """A file that an option names. Raises SourceError where there is none."""
        below = replace(self._place, rest=named, location=named)
        try:
            found = [each for each in Containers(below, (".json",)).list() if isinstance(each, Container)]
        except SourceError:  # it speaks of a folder, which nobody named
            found = []
        if len(found) != 1:
            raise SourceError(f"source {self._source!r}: {named} names no single .json file. Mend the options.")
        return found[0].file()


class ConversationsSource(AnnotatedSource):
    """Conversations as LLaVA and ShareGPT have them, JSON or JSONL: each names its ``image``, or several ``images``."""

    def entries(self, file: Container) -> Iterator[Entry | Unreadable | LeftOut]:
        with file.file() as opened:
            for number, entry in json_rows(opened):
                if isinstance(entry, NoJson):
                    yield Unreadable(file.inside(str(number)), file.version, f"the line is no JSON: {entry.why}")
                    continue
                if not isinstance(entry, dict):
                    yield Unreadable(file.inside(str(number)), file.version, "the entry is no object")
                    continue
                paths = _paths(entry)
                if not paths:
                    yield LeftOut(left_out.NO_ENTRY_IMAGE)
                for path in paths:
                    if isinstance(path, str):
                        yield Entry(path=_text(path), origin=_origin(entry) if len(paths) == 1 else None)
                    else:
                        yield Unreadable(file.inside(str(number)), file.version, "its image is no path")


_Text = tuple[Any, str, str]  # of an image's number: a field, and a text of it


def _of_coco(opened: BinaryIO) -> Iterator[_Text]:
    """What is annotated; annotations of another form say nothing."""
    categories = (each for each in json_items(opened, "categories.item") if isinstance(each, dict))
    named = {str(each.get("id")): each.get("name") for each in categories}
    for each in (each for each in json_items(opened, "annotations.item") if isinstance(each, dict)):
        category = named.get(str(each.get("category_id")))
        for field, text in (("captions", each.get("caption")), ("categories", category)):
            if isinstance(text, str):
                yield each.get("image_id"), field, text


def _regions(opened: BinaryIO) -> Iterator[_Text]:
    for image in json_items(opened, "item"):
        for region in image["regions"]:
            yield image["id"], "regions", _text(region["phrase"])


def _objects(opened: BinaryIO) -> Iterator[_Text]:
    for image in json_items(opened, "item"):
        for each in image["objects"]:
            yield from ((image["image_id"], "objects", _text(name)) for name in each["names"])


def _text(value: Any) -> str:
    """A text of the file. JSON can hold halves of characters, which tables cannot store: they are escaped."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value.encode("utf-8", "backslashreplace").decode()


def _paths(entry: Mapping[str, Any]) -> list[Any]:
    named = entry.get("image") or entry.get("images") or []
    return named if isinstance(named, list) else [named]


def _origin(entry: Mapping[str, Any]) -> str | None:
    url = entry.get("url")
    return _text(url) if isinstance(url, str) and url.startswith(("http://", "https://")) else None


class _Texts:
    """Texts of images by their number and field, in SQLite on disk; equal ones count once."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("")
        self._db.executescript("""
            PRAGMA cache_size = -4096; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
            CREATE TABLE texts (image TEXT, field TEXT, text TEXT);
        """)

    def __enter__(self) -> _Texts:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def add(self, found: Iterable[_Text], fields: Sequence[str]) -> None:
        """Add the texts of these fields."""
        rows = (
            (str(image), field, _text(text[: context.CHARACTERS + 1]))
            for image, field, text in found
            if field in fields
        )
        self._db.executemany("INSERT INTO texts VALUES (?, ?, ?)", rows)
        self._db.execute("CREATE INDEX IF NOT EXISTS of_image ON texts (image)")

    def of(self, image: Any) -> dict[str, list[str]]:
        """What is known of an image, by field."""
        found: dict[str, dict[str, None]] = {}
        for field, text in self._db.execute(
            "SELECT field, text FROM texts WHERE image = ? ORDER BY rowid", (str(image),)
        ):
            texts = found.setdefault(field, {})
            if sum(map(len, texts)) <= context.CHARACTERS:  # what comes after is cut anyway
                texts[text] = None
        return {field: list(texts) for field, texts in found.items()}


class _Names:
    """What lies below the folder of images, by name, in SQLite on disk. A context manager: on leaving, it is gone."""

    def __init__(self, files: Iterable[Found | LeftOut]) -> None:
        self.left_out: Counter[str] = Counter()
        self._db = sqlite3.connect("")
        self._db.executescript("""
            PRAGMA cache_size = -4096; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
            CREATE TABLE names (name TEXT PRIMARY KEY, version TEXT, place BLOB, image, named) WITHOUT ROWID;
        """)
        self._db.executemany("INSERT OR REPLACE INTO names VALUES (?, ?, ?, ?, 0)", self._rows(files))

    def _rows(self, files: Iterable[Found | LeftOut]) -> Iterator[tuple[str, str, bytes, bool]]:
        for each in files:
            if isinstance(each, LeftOut):
                self.left_out[each.kind] += 1
            else:
                yield *each, by_suffix(suffix_of(each[0])) is True

    def __enter__(self) -> _Names:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def take(self, name: str) -> tuple[str, str, bytes] | None:
        """The file of this name, which is noted as named; None if there is none."""
        row = self._db.execute("SELECT name, version, place FROM names WHERE name = ?", (name,)).fetchone()
        if row is None:
            return None
        self._db.execute("UPDATE names SET named = 1 WHERE name = ?", (name,))
        return row[0], row[1], row[2]

    def unnamed(self) -> int:
        """How many images lie there that were not taken."""
        return int(self._db.execute("SELECT count(*) FROM names WHERE image AND NOT named").fetchone()[0])
