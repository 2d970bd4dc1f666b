"""The benchmarks of a store, read for a release, and what the store has of the release's images and questions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.release.decontaminate.benchmark import Benchmark, BenchmarkInputs, BenchmarkPicture
from taskgalaxy_ops.release.decontaminate.pictures import no_prints
from taskgalaxy_ops.release.decontaminate.questions import BenchmarkQuestion
from taskgalaxy_ops.storage.benchmark_log import (
    PICTURE_VECTORS,
    PICTURES,
    QUESTION_VECTORS,
    QUESTIONS,
    BenchmarkEntry,
    BenchmarkLog,
)
from taskgalaxy_ops.storage.shards import short
from taskgalaxy_ops.workspace import Workspace


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
    return {"release.decontaminate.with": [f"{each.name} {short(each.hash)}" for each in found]} if found else {}


def benchmark_inputs(workspace: Workspace) -> BenchmarkInputs | None:
    """What a release is compared with; None: the settings compare nothing. Raises as ``compared_with``."""
    entries = compared_with(workspace)
    if not entries:
        return None
    own = [entry.encoder == workspace.encoder_id for entry in entries]
    return BenchmarkInputs(
        benchmarks=[loaded(workspace, entry, embedded) for entry, embedded in zip(entries, own, strict=True)],
        encode=(lambda texts: workspace.checked_encoder().encode_texts(texts)) if any(own) else None,
        prints=lambda images: no_prints(images, images),
    )


def loaded(workspace: Workspace, entry: BenchmarkEntry, embedded: bool) -> Benchmark:
    """A benchmark with its tables. embedded: with its embeddings, too. Raises DamageError."""
    outputs = workspace.stage_outputs

    def vectors(name: str) -> Mapping[str, NDArray[np.float32]]:
        if not embedded or name not in entry.tables:
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
    )
