"""Side tables: what is known of images' pictures, a stage output of each image shard, made when it is first asked for.

A side table follows from the images' files alone, so that its marker may be deleted. A take-down drops it as it drops
all that names the image; `verify` and `gc` know it as they know every marker's tables. Ingest makes none, because most
stores never ask for one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from PIL import Image as Pillow

from taskgalaxy_ops.errors import NotFoundError, ReadOnlyError, TaskGalaxyError
from taskgalaxy_ops.generation.erase import erase_from_shard
from taskgalaxy_ops.models.rendering import upright
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.records import ImageId
from taskgalaxy_ops.sources.originals import read_image
from taskgalaxy_ops.storage.registry.state import ImageShard
from taskgalaxy_ops.storage.shards import Key, StageOutput, Stats, short, stage_output_key, table
from taskgalaxy_ops.workspace import Workspace

_AT_ONCE = 8  # images that are decoded together at most; decoders let other threads work


class _OfImage(Protocol):
    @property
    def image(self) -> ImageId: ...


Row = TypeVar("Row", bound=_OfImage)


@dataclass(frozen=True, kw_only=True)
class SideTable(Generic[Row]):
    """A kind of side table."""

    stage: str
    table: str
    version: int  # one more whenever the same picture gets another row
    record: type[Row]
    make: Callable[[ImageId, Pillow.Image], Row]  # of a picture in RGB, upright; several threads call it at once
    made_by: Mapping[str, str] = field(default_factory=dict)  # what decides the rows besides, by name


def side_rows(
    workspace: Workspace, side: SideTable[Row], shards: Sequence[ImageShard], progress: Progress | None = None
) -> Iterator[tuple[ImageShard, dict[ImageId, Row]]]:
    """The rows of image shards' images, one shard at a time; those that the store lacks are made and kept.

    An image whose file cannot be read or decoded now has none, and neither has one that was taken down, or that is not
    copied and that no source claims. Of a store that is only looked at, what is made is not kept.
    """
    progress = progress or Silent()
    dead = workspace.registry.dead_hashes()
    progress.stage(side.stage, len(shards), "shards")
    for shard in shards:
        key = _key(side, shard, dead.get(shard.id))
        committed = workspace.stage_outputs.committed(shard.id)
        output = committed.get((side.stage, str(key.key)))
        if output is None:
            yield shard, _made(workspace, side, shard, key, _known(workspace, side, committed.values()))
        else:
            yield shard, _read(workspace, side, output)
        progress.advance(side.stage)


def _key(side: SideTable[Row], shard: ImageShard, gone: str | None) -> Key:
    """Of an image shard's images. gone: the hash of those that no source claims; None: there are none."""
    left_out = gone if shard.referred else None
    key = stage_output_key(side.stage, side.version, side.made_by, {"images": shard.output, "dead": left_out})
    return Key(key, {"code": side.version, **side.made_by, "images": short(shard.output)})


def _read(workspace: Workspace, side: SideTable[Row], output: StageOutput) -> dict[ImageId, Row]:
    return {each.image: each for each in workspace.stage_outputs.load(output, side.table, side.record)}


def _known(workspace: Workspace, side: SideTable[Row], outputs: Iterable[StageOutput]) -> dict[ImageId, Row]:
    """What was made when other images of the shard were claimed: an image is decoded once."""
    found: dict[ImageId, Row] = {}
    same = {"code": side.version, **side.made_by}.items()
    for output in outputs:
        if output.stage == side.stage and same <= workspace.stage_outputs.marker(output)["made_of"].items():
            found |= _read(workspace, side, output)
    return found


def _made(
    workspace: Workspace, side: SideTable[Row], shard: ImageShard, key: Key, known: Mapping[ImageId, Row]
) -> dict[ImageId, Row]:
    denied = workspace.registry.denied()
    out = denied.union(workspace.registry.dead(shard)) if shard.referred else denied
    images = [image for image in workspace.registry.image_ids(shard) if image not in out]
    with ThreadPoolExecutor(min(_AT_ONCE, os.cpu_count() or 1)) as pool:
        made = pool.map(lambda image: known.get(image) or _row(workspace, side, image, shard.id), images)
        found = {each.image: each for each in made if each is not None}
    if len(found) < len(images):  # what cannot be read now may be read by the next that asks
        return found
    tables = {side.table: table((found[image] for image in sorted(found)), side.record)}
    try:
        workspace.stage_outputs.commit(
            shard.id, side.stage, str(key.key), tables, Stats(len(found), len(found)), key.made_of
        )
    except ReadOnlyError:
        return found
    if late := workspace.registry.denied().difference(denied).intersection(found):  # taken down while it was made
        erase_from_shard(workspace, shard.id, late)
    return {image: each for image, each in found.items() if image not in late}


def _row(workspace: Workspace, side: SideTable[Row], image: ImageId, shard: str) -> Row | None:
    try:
        picture = upright(read_image(workspace, image, shard))
    except NotFoundError:  # gone at its source, or taken down meanwhile
        return None
    except TaskGalaxyError:
        raise
    except Exception:  # noqa: BLE001 - a newer decoder refuses what an older one took
        return None
    return side.make(image, picture)
