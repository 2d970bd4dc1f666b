"""Calibrate an encoder in int8, once for a store, on the store's own images; refuse it where it matches otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice

import numpy as np

from taskgalaxy_ops.errors import EncoderError, OriginError
from taskgalaxy_ops.generation.stages.match import match
from taskgalaxy_ops.hashing import fingerprint
from taskgalaxy_ops.models.encoders.base import (
    CalibratingEncoder,
    EmbeddingMatrix,
    PreparingEncoder,
    Recipe,
    Vectors,
)
from taskgalaxy_ops.records import ImageId, TaskTypePath
from taskgalaxy_ops.sources.originals import read_image
from taskgalaxy_ops.storage.registry.state import ImageShard
from taskgalaxy_ops.taxonomy import label_text
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace

LEAST_RECALL = 0.95  # of the task types that float32 finds
EQUAL = 1e-3  # similarities that differ by less count as equal

_IMAGES = 64  # that the ranges are taken from
_CHECKED = 64  # others that are matched both ways, as far as there are as many
_TYPES = 1000
_TOP = 10


def ensure_calibrated(workspace: Workspace, shards: Sequence[ImageShard]) -> None:
    """Store the int8 network if the settings ask for one and the store has none.

    Raises EncoderError where the encoder has no int8, where packages are missing, or where fewer than `LEAST_RECALL` of
    the nearest task types are those of float32.
    """
    chosen, key = workspace.settings.encoder, workspace.encoder_network_key
    if chosen.precision != "int8" or next(iter(workspace.store.list(key)), None):
        return
    exact = workspace.open_encoder(Recipe(None, None, chosen.decode, chosen.fit))
    if not isinstance(exact, CalibratingEncoder):
        raise EncoderError(f"encoder {chosen.name!r} has no int8.\n  Leave encoder.precision unset.")
    denied = workspace.registry.denied()
    ids = sorted({image for shard in shards for image in workspace.registry.image_ids(shard)} - denied)
    if not ids:
        return
    images = [exact.prepare(raw) for raw in islice(readable(workspace, ids), _IMAGES + _CHECKED)]
    network = exact.calibrated(images[:_IMAGES])
    small = workspace.open_encoder(Recipe(chosen.runtime, chosen.precision, chosen.decode, chosen.fit, network))
    leaves = drawn_types(workspace)
    types = EmbeddingMatrix(tuple(leaves), exact.encode_texts([label_text(path) for path in leaves]))
    checked = images[-_CHECKED:]
    assert isinstance(small, PreparingEncoder)
    found = recall(exact.encode_prepared(checked), small.encode_prepared(checked), types)
    if found < LEAST_RECALL:
        raise EncoderError(
            f"encoder {chosen.name!r}: in int8, {found:.3f} of the nearest task types of {len(checked)} images are "
            f"those of float32; {LEAST_RECALL} is the least.\n  Leave encoder.precision unset."
        )
    workspace.store.put_if_absent(key, network)


def readable(workspace: Workspace, images: Iterable[ImageId]) -> Iterator[bytes]:
    """The files of these images, without those whose originals cannot be read: a run tells of them."""
    for image in images:
        with suppress(OriginError):
            yield read_image(workspace, image)


def recall(exact: Vectors, found: Vectors, types: EmbeddingMatrix, k: int = _TOP) -> float:
    """The share of the k nearest task types by ``found`` vectors (n, d) that are among the k nearest by ``exact`` ones.

    A type counts if it is at most `EQUAL` less similar than the kth: which of equals comes first means nothing.
    """
    names = tuple(f"{number:06d}" for number in range(len(exact)))
    similarity = exact @ types.vectors.T
    k = min(k, len(types.ids))
    least = np.sort(similarity, axis=1)[:, -k] - EQUAL
    column = {path: at for at, path in enumerate(types.ids)}
    hits = [
        similarity[int(each.image), column[each.task_type]] >= least[int(each.image)]
        for each in match(EmbeddingMatrix(names, found), types, k=k)
    ]
    return float(np.mean(hits)) if hits else 1.0


def drawn_types(workspace: Workspace) -> list[TaskTypePath]:
    """Up to a thousand task types of the newest version, drawn by hash: those that recall is counted among."""
    return sorted(TaxonomyStore(workspace).version().asked(), key=_drawn)[:_TYPES]


def _drawn(path: str) -> str:
    return fingerprint("calibration", path)
