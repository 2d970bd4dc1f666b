"""What a pile of images that is not registered would add, from embeddings alone.

The files are read and checked as a scan would, and matched as a run would. Nothing is registered or written, and no
model is asked: whether a task type fits is what the filter would say; here it is expected as it said so far.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from taskgalaxy_ops.generation.coverage import Coverage, Numbers
from taskgalaxy_ops.generation.match_run import nearest
from taskgalaxy_ops.models.encoders.base import EmbeddingMatrix
from taskgalaxy_ops.models.encoders.stream import encode_files
from taskgalaxy_ops.operations.coverage import starving
from taskgalaxy_ops.operations.wishes import samples_an_image
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.records import Image, TaskTypePath
from taskgalaxy_ops.settings import SourceSettings
from taskgalaxy_ops.sources.checking import Images, scan
from taskgalaxy_ops.sources.listing import source_files
from taskgalaxy_ops.storage.scan_staging import ScanStaging
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace

_NAME = "the pile"  # in messages
_BATCH = 64  # images that are encoded and matched together; their files are in memory


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeAddition:
    """A task type that starves, and what the pile would bring it."""

    path: TaskTypePath
    samples: int
    target: int
    images: int  # new ones that are near it
    expected: float  # samples, if they give as many as images near it have given so far


@dataclass(frozen=True, slots=True, kw_only=True)
class Addition:
    """What a pile of images would add: files = new + known + rejected."""

    location: str
    files: int
    new: int
    known: int  # images that the store has already, or that were taken down
    rejected: Mapping[str, int]  # files that are no usable image, by reason
    left_out: Mapping[str, int]  # what a scan passes by, by kind; no files of it
    starving: int  # task types
    reached: int  # of these, those that a new image is near
    filled: int  # of these, those that are expected to reach their target
    matches: int  # of new images, with all task types
    types: Sequence[TypeAddition]  # the reached ones, worst first


def against(
    workspace: Workspace,
    source: SourceSettings,
    coverage: Coverage,
    targets: Numbers,
    progress: Progress | None = None,
) -> Addition:
    """What the images at a location would add. Raises SourceError, StoreError, EncoderError."""
    progress, view = progress or Silent(), workspace.snapshot()
    new = _New(view)
    images = Images(known=view.registry.known(), denied=view.registry.denied(), keep=new.keep)
    with (
        source_files(_NAME, source, view.s3_options, view.settings.ingest) as files,
        ScanStaging(_NAME) as staging,
    ):
        files.look(staging.was_image)
        progress.stage("read", len(files), "files")
        scan(files, staging, images, view.settings.ingest, lambda bad: progress.advance("read", rejects=int(bad)))
        new.finish()
        rejected = Counter(str(each.reason) for each in staging.file_rejects())
        types = _types(coverage, targets, new.near)
        return Addition(
            location=source.location,
            files=len(files),
            new=staging.images,
            known=staging.claims - staging.images,
            rejected=dict(sorted(rejected.items())),
            left_out=files.left_out,
            starving=int(starving(coverage.counts, targets).sum()),
            reached=len(types),
            filled=sum(each.samples + each.expected >= each.target for each in types),
            matches=new.near.total(),
            types=types,
        )


class _New:
    """Takes the files of new images, which several threads bring, and matches them, a batch at a time."""

    def __init__(self, view: Workspace) -> None:
        self._view = view
        self._types = TaxonomyStore(view).embeddings(keep=False)
        self._waiting: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self.near: Counter[TaskTypePath] = Counter()  # new images, by task type

    def keep(self, image: Image, raw: bytes) -> None:
        """Take an image's file; it is dropped as soon as the image is matched."""
        with self._lock:
            self._waiting[image.image] = raw
            if len(self._waiting) >= _BATCH:
                self._match()

    def finish(self) -> None:
        """Match what waits."""
        with self._lock:
            self._match()

    def _match(self) -> None:
        encoder = self._view.checked_encoder()
        for ids, vectors in encode_files(encoder, list(self._waiting), self._waiting.__getitem__):
            images = EmbeddingMatrix(tuple(ids), vectors)
            self.near.update(each.task_type for each in nearest(self._view, images, self._types))
        self._waiting = {}


def _types(coverage: Coverage, targets: Numbers, near: Counter[TaskTypePath]) -> list[TypeAddition]:
    counts, gives = coverage.counts, samples_an_image(coverage)
    lacks = starving(counts, targets)
    found = [
        TypeAddition(
            path=path,
            samples=int(counts.samples[row]),
            target=int(targets[row]),
            images=near[asked],
            expected=round(near[asked] * float(gives[row]), 2),
        )
        for row, (path, asked) in enumerate(zip(coverage.types, coverage.asked, strict=True))
        if lacks[row] and near[asked]
    ]
    return sorted(found, key=lambda each: (each.samples / each.target, -each.images, each.path))
