"""The benchmarks of a store, read for a release, and what the store has of the release's images and questions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.generation.embed import embeddings_of
from taskgalaxy_ops.models.copy_detector import CopyDetector
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.records import ImageHash, ImageId
from taskgalaxy_ops.release.copy_vectors import copy_detector, copy_vectors
from taskgalaxy_ops.release.decontaminate.benchmark import Benchmark, BenchmarkInputs, BenchmarkPicture, ImagePrints
from taskgalaxy_ops.release.decontaminate.pictures import picture_hash
from taskgalaxy_ops.release.decontaminate.questions import BenchmarkQuestion
from taskgalaxy_ops.release.pdq_table import image_hashes
from taskgalaxy_ops.sources.pdq import BITS, unpacked
from taskgalaxy_ops.sources.thumbnail import BRIGHTNESS_SIDE, SIDE, pixels_of
from taskgalaxy_ops.storage.benchmark_log import (
    COPY_VECTORS,
    PICTURE_VECTORS,
    PICTURES,
    QUESTION_VECTORS,
    QUESTIONS,
    BenchmarkEntry,
    BenchmarkLog,
)
from taskgalaxy_ops.storage.registry.state import ImageShard
from taskgalaxy_ops.storage.shards import short
from taskgalaxy_ops.workspace import Workspace

_AT_ONCE = 4096  # images whose embeddings are in memory, or those of one image shard


def compared_with(workspace: Workspace) -> list[BenchmarkEntry]:
    """The benchmarks that a release is compared with, in order of name; []: the settings compare nothing.

    Raises SettingsError where a benchmark that they name is not in the store, or none is.
    """
    chosen = workspace.settings.release.decontaminate
    if chosen is None:
        return []
    standing = BenchmarkLog(workspace.store).read()
    wanted = sorted(standing if chosen.benchmarks is None else set(chosen.benchmarks))
    if missing := [name for name in wanted if name not in standing]:
        raise SettingsError(
            f"release.decontaminate.benchmarks: the store knows no {', '.join(missing)}. Run `benchmarks add`."
        )
    if not wanted:
        raise SettingsError(
            "release.decontaminate: the store knows no benchmark. Run `taskgalaxy benchmarks add NAME LOCATION`, or "
            "leave it unset."
        )
    return [standing[name] for name in wanted]


def benchmark_rules(workspace: Workspace) -> dict[str, Any]:
    """The benchmarks that a release depends on: by the names, what they hold; {}: it is compared with none."""
    found = compared_with(workspace)
    rules: dict[str, Any] = {"release.decontaminate.with": [f"{each.name} {short(each.hash)}" for each in found]}
    if (detector := copy_detector(workspace)) is not None:
        rules["release.decontaminate.by"] = f"SSCD {short(detector.weights)}"
    return rules if found else {}


def benchmark_inputs(workspace: Workspace, progress: Progress | None = None) -> BenchmarkInputs | None:
    """What a release is compared with; None: the settings compare nothing. Raises as ``compared_with``."""
    entries = compared_with(workspace)
    if not entries:
        return None
    own = [entry.encoder == workspace.encoder_id for entry in entries]
    detector = copy_detector(workspace)
    return BenchmarkInputs(
        benchmarks=[loaded(workspace, entry, embedded, detector) for entry, embedded in zip(entries, own, strict=True)],
        encode=(lambda texts: workspace.checked_encoder().encode_texts(texts)) if any(own) else None,
        prints=partial(_prints, workspace, embedded=any(own), detector=detector, progress=progress or Silent()),
    )


def loaded(
    workspace: Workspace, entry: BenchmarkEntry, embedded: bool, detector: CopyDetector | None = None
) -> Benchmark:
    """A benchmark with its tables. embedded: with its embeddings, too. detector: with the descriptors that it made.

    Raises DamageError.
    """
    outputs = workspace.stage_outputs
    described = detector is not None and entry.sscd == detector.weights

    def vectors(name: str, wanted: bool = embedded) -> Mapping[str, NDArray[np.float32]]:
        if not wanted or name not in entry.tables:
            return {}
        ids, found = outputs.read_embeddings(entry.tables[name])
        return dict(zip(ids, found, strict=True))

    return Benchmark(
        name=entry.name,
        items=entry.items,
        questions=outputs.read(entry.tables[QUESTIONS], BenchmarkQuestion),
        question_vectors={int(ordered): vector for ordered, vector in vectors(QUESTION_VECTORS).items()},
        pictures=outputs.read(entry.tables[PICTURES], BenchmarkPicture),
        picture_vectors=vectors(PICTURE_VECTORS),
        unread=entry.unread,
        embedded=embedded,
        copy_vectors=vectors(COPY_VECTORS, described),
        described=described or detector is None,
    )


def _prints(
    workspace: Workspace, images: Sequence[ImageId], embedded: bool, detector: CopyDetector | None, progress: Progress
) -> Iterator[ImagePrints]:
    """The prints of images, some image shards at a time. embedded: with their embeddings. detector: with its vectors.

    What the store lacks of them is made: an embedding is not kept, all else is. Raises EncoderError.
    """
    index, shards = workspace.registry.known(), {shard.id: shard for shard in workspace.registry.shards()}
    by_shard: dict[str, list[ImageId]] = {}
    for image in images:
        by_shard.setdefault(str(index.get(image)), []).append(image)
    part: list[tuple[ImageShard, list[ImageId]]] = []
    progress.stage("decontaminate", len(by_shard), "shards")
    for number, shard in enumerate(sorted(by_shard), 1):
        part.append((shards[shard], by_shard[shard]))
        if sum(len(own) for _, own in part) >= _AT_ONCE or number == len(by_shard):
            yield _prints_of(workspace, part, embedded, detector)
            progress.advance("decontaminate", len(part))
            part = []


def _prints_of(
    workspace: Workspace,
    part: Sequence[tuple[ImageShard, list[ImageId]]],
    embedded: bool,
    detector: CopyDetector | None,
) -> ImagePrints:
    hashes: dict[ImageId, ImageHash] = {}
    for _, found in image_hashes(workspace, [shard for shard, _ in part]):
        hashes |= found
    images = [image for _, own in part for image in own]
    unknown = ImageHash("", "0" * (BITS // 4), 0)  # of a file that cannot be decoded now
    known = [hashes.get(image, unknown) for image in images]
    return ImagePrints(
        images=images,
        pictures=[picture_hash(image) for image in images],
        pdq=unpacked([each.pdq for each in known]),
        quality=np.array([each.quality for each in known], np.int64),
        brightness=pixels_of([each.brightness for each in known], (BRIGHTNESS_SIDE, BRIGHTNESS_SIDE)),
        colours=pixels_of([each.thumbnail for each in known], (SIDE, SIDE, 3)),
        vectors=embeddings_of(workspace, part)[1] if embedded else None,
        copies=None if detector is None else _copies(workspace, part, detector),
    )


def _copies(
    workspace: Workspace, part: Sequence[tuple[ImageShard, list[ImageId]]], detector: CopyDetector
) -> NDArray[np.float32] | None:
    """SSCD's descriptors of images ``(n, d)``; 0 of a file that cannot be decoded now, None if none can."""
    found: dict[ImageId, NDArray[np.float32]] = {}
    for _, vectors in copy_vectors(workspace, detector, [shard for shard, _ in part]):
        found |= vectors
    if not found:
        return None
    none = np.zeros_like(next(iter(found.values())))
    return np.stack([found.get(image, none) for _, own in part for image in own])
