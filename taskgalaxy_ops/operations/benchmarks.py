"""Benchmarks: read their items once, and keep what releases are compared with (docs/decontamination.md)."""

from __future__ import annotations

import io
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.models.copy_detector import CopyDetector
from taskgalaxy_ops.models.encoders.stream import encode_files
from taskgalaxy_ops.models.rendering import upright
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.records import Image
from taskgalaxy_ops.release.copy_vectors import copy_detector
from taskgalaxy_ops.release.decontaminate.benchmark import BenchmarkPicture
from taskgalaxy_ops.release.decontaminate.likeness import FINE, FINE_COLOURS
from taskgalaxy_ops.release.decontaminate.pictures import CROPS, picture_hash
from taskgalaxy_ops.release.decontaminate.questions import BenchmarkQuestion, question_print
from taskgalaxy_ops.release.decontaminate.reading import Item, read_items
from taskgalaxy_ops.sources.inspecting import Bounds, inspect
from taskgalaxy_ops.sources.pdq import pdq, unpacked
from taskgalaxy_ops.sources.thumbnail import fine_thumbnail
from taskgalaxy_ops.storage.benchmark_log import (
    COPY_VECTORS,
    PICTURE_VECTORS,
    PICTURES,
    QUESTION_VECTORS,
    QUESTIONS,
    BenchmarkEntry,
    BenchmarkLog,
)
from taskgalaxy_ops.storage.shards import Table, embedding_table, table
from taskgalaxy_ops.text import shown
from taskgalaxy_ops.workspace import Workspace

_NAME = re.compile(r"[^\W_][\w. +-]{0,63}")
_SIDE = 256  # pixels, the longer side of a picture whose crops are hashed
_ROUGH = 40  # quality of a JPEG that shows whether a hash is steady
_STEADY = 24  # bits by which it may change
_AT_ONCE = 256  # items whose pictures are in memory
_MISSING = "pictures that a row names and that are not there"


@dataclass(frozen=True, slots=True)
class Added:
    """What `benchmarks add` did."""

    benchmark: BenchmarkEntry
    made: bool  # False: one of this name with the same items was there
    questions: int  # different ones
    pictures: int  # different ones


def add(workspace: Workspace, name: str, location: str, progress: Progress | None = None) -> Added:
    """Read a benchmark's items and keep their fingerprints and embeddings, in place of a benchmark of this name.

    Raises SettingsError for a name that is none, SourceError where nothing can be read, EncoderError.
    """
    if not _NAME.fullmatch(name):
        raise SettingsError(f"benchmark {shown(name)!r}: use letters, digits and . _ - + and blanks, 64 at most.")
    progress = progress or Silent()
    progress.stage("benchmark", None, "items")
    reading = _Reading(workspace=workspace, detector=copy_detector(workspace))
    items = iter(read_items(location, **workspace.s3_options))
    while part := list(islice(items, _AT_ONCE)):
        reading.take(part)
        progress.advance("benchmark", len(part))
    tables = {which: workspace.stage_outputs.write(made) for which, made in reading.tables().items()}
    entry = BenchmarkEntry(
        name=name,
        location=location,
        at=time.time(),
        items=reading.items,
        unread=dict(sorted(reading.unread.items())),
        encoder=workspace.encoder_id,
        tables=tables,
        sscd=reading.detector.weights if reading.detector else "",
    )
    made = BenchmarkLog(workspace.store).add(entry)
    standing = BenchmarkLog(workspace.store).read().get(name, entry)
    return Added(standing, made, len(reading.texts), len(reading.vectors))


def standing(workspace: Workspace) -> list[BenchmarkEntry]:
    """The benchmarks of the store, in order of name."""
    return list(BenchmarkLog(workspace.store).read().values())


def remove(workspace: Workspace, name: str) -> None:
    """No release is compared with this benchmark any more. Raises SettingsError: there is none of this name."""
    if not BenchmarkLog(workspace.store).remove(name):
        raise SettingsError(f"benchmark {shown(name)!r}: the store knows none of this name. See `benchmarks list`.")


@dataclass(kw_only=True)
class _Reading:
    """The fingerprints of the items that were read so far; of their pictures none is kept."""

    workspace: Workspace
    detector: CopyDetector | None
    items: int = 0
    unread: Counter[str] = field(default_factory=Counter)
    questions: list[BenchmarkQuestion] = field(default_factory=list)
    pictures: list[BenchmarkPicture] = field(default_factory=list)
    texts: dict[int, str] = field(default_factory=dict)  # the different questions
    prints: dict[str, Prints] = field(default_factory=dict)  # by picture
    vectors: dict[str, NDArray[np.float32]] = field(default_factory=dict)  # of the different pictures
    copies: dict[str, NDArray[np.float32]] = field(default_factory=dict)  # SSCD's descriptors of these
    refused: dict[str, str] = field(default_factory=dict)  # why a picture is not taken

    def take(self, part: Iterable[Item]) -> None:
        """Take some items."""
        fresh: dict[str, bytes] = {}
        for item in part:
            self.items += 1
            if item.missing:
                self.unread[_MISSING] += item.missing
            for text in dict.fromkeys(_asked(item)):
                found = question_print(text)
                self.texts.setdefault(found.ordered, text)
                self.questions.append(BenchmarkQuestion(item.item, *found))
            for raw in item.pictures:
                picture = picture_hash(sha256_hex(raw))
                if picture not in self.prints and picture not in self.refused and picture not in fresh:
                    self._look(picture, raw, fresh)
                if picture in self.refused:
                    self.unread[self.refused[picture]] += 1
                else:
                    self.pictures.append(
                        BenchmarkPicture(item=item.item, picture=picture, **self.prints[picture]._asdict())
                    )
        if fresh:
            for names, vectors in encode_files(self.workspace.checked_encoder(), list(fresh), fresh.__getitem__):
                self.vectors.update(zip(names, vectors, strict=True))

    def _look(self, picture: str, raw: bytes, fresh: dict[str, bytes]) -> None:
        chosen = self.workspace.settings.ingest
        found = inspect(raw, Bounds(chosen.max_pixels, 1))
        if isinstance(found, Image):
            image = upright(raw)
            self.prints[picture] = prints_of(image)
            if self.detector is not None:
                self.copies[picture] = self.detector.vector(image)
            fresh[picture] = raw
        else:
            self.refused[picture] = f"pictures that cannot be read: {found[0]}"

    def tables(self) -> Mapping[str, Table]:
        """The tables to be kept, in order of their ids, whatever the order of the items."""
        texts = sorted(self.texts)
        embedded = self.workspace.checked_encoder().encode_texts([self.texts[ordered] for ordered in texts])
        pictures = sorted(self.vectors)
        dim = self.workspace.checked_encoder().dim
        vectors = np.stack([self.vectors[each] for each in pictures]) if pictures else np.empty((0, dim), np.float32)
        order: Any = lambda row: (row.item, row.ordered)  # noqa: E731
        described = [self.copies[each] for each in pictures] if self.copies else []
        return {
            **({COPY_VECTORS: embedding_table(pictures, np.stack(described))} if described else {}),
            QUESTIONS: table(sorted(self.questions, key=order), BenchmarkQuestion),
            QUESTION_VECTORS: embedding_table([str(ordered) for ordered in texts], embedded),
            PICTURES: table(sorted(self.pictures, key=lambda row: (row.item, row.picture)), BenchmarkPicture),
            PICTURE_VECTORS: embedding_table(pictures, vectors),
        }


class Prints(NamedTuple):
    """What is kept of a picture, as in BenchmarkPicture."""

    quality: int
    prints: tuple[str, ...]
    brightness: str
    colours: str


def prints_of(image: Pillow.Image) -> Prints:
    """The quality of a picture's PDQ, the PDQ of the whole, of its mirror image and of its crops, and thumbnails.

    The quality is 0 where another encoding of the same picture has another hash, as that of a symmetric figure has:
    half of its coefficients are nothing but noise.
    """
    whole = pdq(image)
    mirrored = pdq(image.transpose(Pillow.Transpose.FLIP_LEFT_RIGHT))
    small = image.convert("RGB")
    small.thumbnail((_SIDE, _SIDE), Pillow.Resampling.BOX)  # a crop's hash is nearly the same, at a tenth of the work
    crops = [pdq(small.crop(box_of(small.size, crop))).bits for crop in CROPS]
    out = io.BytesIO()
    small.save(out, "JPEG", quality=_ROUGH)
    changed = np.bitwise_count(unpacked([pdq(upright(out.getvalue())).bits]) ^ unpacked([pdq(small).bits])).sum()
    return Prints(
        whole.quality if changed <= _STEADY else 0,
        (whole.bits, mirrored.bits, *crops),
        fine_thumbnail(image, FINE, "L"),
        fine_thumbnail(image, FINE_COLOURS, "RGB"),
    )


def box_of(size: tuple[int, int], crop: tuple[float, float, float]) -> tuple[int, int, int, int]:
    """The box in pixels of a crop: the part of each side that is left, and where it begins."""
    (width, height), (part, left, top) = size, crop
    x, y = round(left * width), round(top * height)
    return x, y, max(x + 1, min(width, x + round(part * width))), max(y + 1, min(height, y + round(part * height)))


def _asked(item: Item) -> Iterator[str]:
    """The texts by which an item is found: its question, and with its options, by which a short one is."""
    if item.question:
        yield item.question
        if item.options:
            yield " ".join((item.question, *item.options))
