"""WebDataset tars, which the package webdataset streams and megatron-energon's ``energon prepare`` takes.

An image is there once, with all that is asked about it: ``<id>.jpg`` beside ``<id>.json``, ``{"images", "samples"}``
with a sample as ``{"id", "task_type", "conversations"}``. Several images that are asked about together are
``<id>.0.jpg``, ``<id>.1.jpg`` and so on. Of an image that the release only refers to, there is its location alone.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import PurePosixPath
from typing import BinaryIO

from taskgalaxy_ops.hashing import fingerprint
from taskgalaxy_ops.release.formats import Gone, ReleaseFormat
from taskgalaxy_ops.release.formats.layouts import Row, conversations, line, said_in
from taskgalaxy_ops.release.images import fetch, image_bytes
from taskgalaxy_ops.release.rows import Sample
from taskgalaxy_ops.release.select import Selection
from taskgalaxy_ops.release.spooled import spooled
from taskgalaxy_ops.release.sqlite_staging import SPLITS

_SHARD_BYTES = 256 << 20  # about the size of a tar
_TEXT_BYTES = 2000  # about what a sample takes beside its images
_AT_ONCE = 200  # samples whose images are read together

Group = tuple[Sample, ...]  # the samples of the same images


def _files(plan: Selection) -> Iterator[tuple[str, BinaryIO]]:
    """``webdataset/<split>-000000.tar`` and so on, images in order of id; a split's tars are about as large."""
    for split in SPLITS:
        groups = _groups(plan.by_picture(split))
        for number, (_, found) in enumerate(groupby(_placed(plan, split, groups), key=lambda each: each[0])):
            with spooled() as file:
                for group in _fetched(plan, (group for _, group in found)):
                    for name, content in _members(plan, group):
                        _add(file, name, content)
                _end(file)
                yield f"webdataset/{split}-{number:06d}.tar", file


def _groups(samples: Iterable[Sample]) -> Iterator[Group]:
    """The samples of the same images, from samples in order of their first one."""
    for _, of_picture in groupby(samples, key=lambda sample: sample.picture):
        by_images: dict[tuple[str, ...], list[Sample]] = {}
        for sample in of_picture:
            by_images.setdefault(sample.locations, []).append(sample)
        yield from map(tuple, by_images.values())


def _shards(plan: Selection, split: str) -> tuple[int, int]:
    """How many tars a split has, and about their bytes together."""
    query = (
        "SELECT coalesce(sum(size), 0), coalesce(sum(samples), 0) FROM (SELECT p.held * p.copied AS size, "
        "count(*) AS samples FROM chosen c JOIN pictures p ON p.rowid = c.picture "
        "WHERE c.rowid BETWEEN ? AND ? GROUP BY c.picture)"
    )
    pictures, samples = plan.rows.execute(query, plan.range_of(split)).fetchone()
    weight = pictures + samples * _TEXT_BYTES
    return -(-weight // _SHARD_BYTES), weight


def _placed(plan: Selection, split: str, groups: Iterable[Group]) -> Iterator[tuple[int, Group]]:
    shards, weight = _shards(plan, split)
    before, last = 0, None
    for group in groups:
        yield min(shards - 1, before * shards // weight), group
        before += len(group) * _TEXT_BYTES + (group[0].size if group[0].picture != last else 0)
        last = group[0].picture


def _fetched(plan: Selection, groups: Iterable[Group]) -> Iterator[Group]:
    """The same groups, with their images read, several at once."""
    waiting: list[Group] = []
    for group in groups:
        waiting.append(group)
        if len(waiting) == _AT_ONCE:
            fetch(plan, [each[0] for each in waiting])
            yield from waiting
            waiting = []
    fetch(plan, [each[0] for each in waiting])
    yield from waiting


def _members(plan: Selection, group: Group) -> Iterator[tuple[str, bytes]]:
    first = group[0]
    images = first.locations
    key = first.image if len(images) == 1 else fingerprint("webdataset", images)
    for number, (location, raw) in enumerate(zip(images, image_bytes(plan, first), strict=True)):
        if raw is not None:
            place = "" if len(images) == 1 else f".{number}"
            yield f"{key}{place}{PurePosixPath(location).suffix}", raw
    marks = {"simulated": True} if plan.inputs.simulated else {}
    yield f"{key}.json", _content(images, [_row(sample, len(images)) for sample in group], marks)


def _row(sample: Sample, images: int) -> Row:
    said = conversations(said_in(sample), images)
    return {"id": sample.pair, "task_type": sample.task_type, "conversations": said}


def _content(images: Sequence[str], samples: Sequence[Row], marks: Row) -> bytes:
    return line({"images": list(images), "samples": list(samples), **marks}).encode()


def _add(tar: BinaryIO, name: str, content: bytes) -> None:
    """Add a file, whose header holds nothing of this machine or of the time.

    ``TarFile.addfile`` takes as long again as all else, and keeps what it added in memory.
    """
    header = tarfile.TarInfo(name)
    header.size = len(content)
    tar.write(header.tobuf(tarfile.USTAR_FORMAT) + content + b"\0" * (-len(content) % tarfile.BLOCKSIZE))


def _end(tar: BinaryIO) -> None:
    """Add what marks the end of a tar: two empty blocks, and more up to a whole record."""
    end = 2 * tarfile.BLOCKSIZE
    tar.write(b"\0" * (end + -(tar.tell() + end) % tarfile.RECORDSIZE))


def _redacted(_: str, raw: bytes, gone: Gone) -> bytes | None:
    out, before, after = io.BytesIO(), 0, 0
    with tarfile.open(fileobj=io.BytesIO(raw)) as old:
        for _key, found in groupby(old, key=lambda member: member.name.partition(".")[0]):
            contents = {member.name: _read(old, member) for member in found}
            name_of = next(reversed(contents))  # the JSON stands behind the images
            said = json.loads(contents[name_of])
            kept = [each for each in said["samples"] if not gone.holds(each["id"], *said["images"])]
            before, after = before + len(said["samples"]), after + len(kept)
            if len(kept) < len(said["samples"]):
                contents[name_of] = line({**said, "samples": kept}).encode()
            for name, content in contents.items() if kept else ():
                _add(out, name, content)
    _end(out)
    if before == after:
        return raw
    return out.getvalue() if after else None


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return file.read() if file else b""


WEBDATASET = ReleaseFormat(
    files=_files,
    redact=_redacted,
    count=lambda plan: sum(_shards(plan, split)[0] for split in plan.parts),
    about="tars for webdataset and megatron-energon, an image once with all that is asked about it",
)
