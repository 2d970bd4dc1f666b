"""The side table of images' PDQ and thumbnails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from PIL import Image as Pillow

from taskgalaxy_ops.progress import Progress
from taskgalaxy_ops.records import ImageHash, ImageId
from taskgalaxy_ops.release.side_tables import SideTable, side_rows
from taskgalaxy_ops.sources.pdq import pdq
from taskgalaxy_ops.sources.thumbnail import BRIGHTNESS_SIDE, fine_thumbnail, thumbnail
from taskgalaxy_ops.storage.registry.state import ImageShard
from taskgalaxy_ops.workspace import Workspace

STAGE = "pdq"
TABLE = "hashes"

VERSION = 3  # one more whenever the same picture gets another row


def image_hashes(
    workspace: Workspace, shards: Sequence[ImageShard], progress: Progress | None = None
) -> Iterator[tuple[ImageShard, dict[ImageId, ImageHash]]]:
    """The hashes and thumbnails of image shards' images, as ``side_tables.side_rows`` gives them."""
    return side_rows(workspace, _HASHES, shards, progress)


def image_hash(image: ImageId, picture: Pillow.Image) -> ImageHash:
    """The row of a picture in RGB, upright."""
    return ImageHash(image, *pdq(picture), thumbnail(picture), fine_thumbnail(picture, BRIGHTNESS_SIDE, "L"))


_HASHES = SideTable(stage=STAGE, table=TABLE, version=VERSION, record=ImageHash, make=image_hash)
