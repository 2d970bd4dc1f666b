"""The side table of images' SSCD descriptors, by which copies are found that hashes and thumbnails miss."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from taskgalaxy_ops.models.copy_detector import CopyDetector
from taskgalaxy_ops.progress import Progress
from taskgalaxy_ops.records import CopyVector, ImageId
from taskgalaxy_ops.release.side_tables import SideTable, side_rows
from taskgalaxy_ops.storage.registry.state import ImageShard
from taskgalaxy_ops.workspace import Workspace

STAGE = "sscd"
TABLE = "vectors"

VERSION = 1  # one more whenever the same picture gets another row

_KEPT = np.dtype("<f2")  # a cosine of these differs by less than 0.001 from that in float32


def copy_detector(workspace: Workspace) -> CopyDetector | None:
    """What ``release.decontaminate.sscd`` names; None: it is not set. Raises EncoderError."""
    chosen = workspace.settings.release.decontaminate
    return CopyDetector(chosen.sscd) if chosen is not None and chosen.sscd is not None else None


def copy_vectors(
    workspace: Workspace, detector: CopyDetector, shards: Sequence[ImageShard], progress: Progress | None = None
) -> Iterator[tuple[ImageShard, dict[ImageId, NDArray[np.float32]]]]:
    """The descriptors of image shards' images, ``(d,)`` of length 1, as ``side_tables.side_rows`` gives them."""

    def make(image: ImageId, picture: Pillow.Image) -> CopyVector:
        return CopyVector(image, base64.b64encode(detector.vector(picture).astype(_KEPT).tobytes()).decode())

    side = SideTable(
        stage=STAGE,
        table=TABLE,
        version=VERSION,
        record=CopyVector,
        make=make,
        made_by={"weights": f"sha256:{detector.weights}"},
    )
    for shard, rows in side_rows(workspace, side, shards, progress):
        yield shard, {image: _unit(row) for image, row in rows.items()}


def _unit(row: CopyVector) -> NDArray[np.float32]:
    vector = np.frombuffer(base64.b64decode(row.vector), _KEPT).astype(np.float32)
    unit: NDArray[np.float32] = vector / np.linalg.norm(vector)
    return unit
