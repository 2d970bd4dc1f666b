"""The side table of images' PDQ and thumbnails: a stage output of each image shard, made when it is first asked for.

It follows from the images' files alone, so that its marker may be deleted. A take-down drops it as it drops all that
names the image; `verify` and `gc` know it as they know every marker's tables. Ingest does not make it, because most
stores never ask for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from taskgalaxy_ops.errors import NotFoundError, ReadOnlyError, TaskGalaxyError
from taskgalaxy_ops.generation.erase import erase_from_shard
from taskgalaxy_ops.models.rendering import upright
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.records import ImageHash, ImageId
from taskgalaxy_ops.sources.originals import read_image
from taskgalaxy_ops.sources.pdq import pdq
from taskgalaxy_ops.sources.thumbnail import BRIGHTNESS_SIDE, fine_thumbnail, thumbnail
from taskgalaxy_ops.storage.registry.state import ImageShard
from taskgalaxy_ops.storage.shards import Key, StageOutput, Stats, short, stage_output_key, table
from taskgalaxy_ops.workspace import Workspace

STAGE = "pdq"
TABLE = "hashes"

VERSION = 3  # one more whenever the same picture gets another row

_AT_ONCE = 8  # images that are decoded together at most; decoders let other threads work


def image_hashes(
    workspace: Workspace, shards: Sequence[ImageShard], progress: Progress | None = None
) -> Iterator[tuple[ImageShard, dict[ImageId, ImageHash]]]:
    """The hashes of image shards' images, one shard at a time; those that the store lacks are made and kept.

    An image whose file cannot be read or decoded now has none, and neither has one that was taken down, or that is not
    copied and that no source claims. Of a store that is only looked at, what is made is not kept.
    """
    progress = progress or Silent()
    dead = workspace.registry.dead_hashes()
    progress.stage(STAGE, len(shards), "shards")
    for shard in shards:
        key = _key(shard, dead.get(shard.id))
        committed = workspace.stage_outputs.committed(shard.id)
        output = committed.get((STAGE, str(key.key)))
        if output is None:
            yield shard, _made(workspace, shard, key, _known(workspace, committed.values()))
        else:
            yield shard, _read(workspace, output)
        progress.advance(STAGE)


def _key(shard: ImageShard, gone: str | None) -> Key:
    """Of an image shard's images. gone: the hash of those that no source claims; None: there are none."""
    left_out = gone if shard.referred else None
    key = stage_output_key(STAGE, VERSION, {}, {"images": shard.output, "dead": left_out})
    return Key(key, {"code": VERSION, "images": short(shard.output)})


def _read(workspace: Workspace, output: StageOutput) -> dict[ImageId, ImageHash]:
    return {each.image: each for each in workspace.stage_outputs.load(output, TABLE, ImageHash)}


def _known(workspace: Workspace, outputs: Iterable[StageOutput]) -> dict[ImageId, ImageHash]:
    """What was made when other images of the shard were claimed: an image is decoded once."""
    found: dict[ImageId, ImageHash] = {}
    for output in outputs:
        if output.stage == STAGE and workspace.stage_outputs.marker(output)["made_of"].get("code") == VERSION:
            found |= _read(workspace, output)
    return found


def _made(
    workspace: Workspace, shard: ImageShard, key: Key, known: Mapping[ImageId, ImageHash]
) -> dict[ImageId, ImageHash]:
    denied = workspace.registry.denied()
    out = denied.union(workspace.registry.dead(shard)) if shard.referred else denied
    images = [image for image in workspace.registry.image_ids(shard) if image not in out]
    with ThreadPoolExecutor(min(_AT_ONCE, os.cpu_count() or 1)) as pool:
        made = pool.map(lambda image: known.get(image) or _hash(workspace, image, shard.id), images)
        found = {each.image: each for each in made if each is not None}
    if len(found) < len(images):  # what cannot be read now may be read by the next that asks
        return found
    tables = {TABLE: table((found[image] for image in sorted(found)), ImageHash)}
    try:
        workspace.stage_outputs.commit(
            shard.id, STAGE, str(key.key), tables, Stats(len(found), len(found)), key.made_of
        )
    except ReadOnlyError:
        return found
    if late := workspace.registry.denied().difference(denied).intersection(found):  # taken down while it was made
        erase_from_shard(workspace, shard.id, late)
    return {image: each for image, each in found.items() if image not in late}


def _hash(workspace: Workspace, image: ImageId, shard: str) -> ImageHash | None:
    try:
        picture = upright(read_image(workspace, image, shard))
        return ImageHash(image, *pdq(picture), thumbnail(picture), fine_thumbnail(picture, BRIGHTNESS_SIDE, "L"))
    except NotFoundError:  # gone at its source, or taken down meanwhile
        return None
    except TaskGalaxyError:
        raise
    except Exception:  # noqa: BLE001 - a newer decoder refuses what an older one took
        return None
