"""Search a taxonomy version by words, and by meaning among the embeddings of its task types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from taskgalaxy_ops.records import Node, TaskTypePath
from taskgalaxy_ops.taxonomy import labels
from taskgalaxy_ops.taxonomy.store import TaxonomyStore

_DECIMALS = 6  # of a similarity: embeddings carry no more


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found."""

    version: int
    by_words: Sequence[Node]  # nodes with all the words in path or description, retired ones too, in order of path
    by_meaning: Sequence[tuple[TaskTypePath, float]]  # the nearest task types with their cosine, the nearest first


def search(taxonomy_store: TaxonomyStore, words: str, number: int, version: int | None = None) -> Found:
    """Search a version (None: the newest) for words. number: the most task types found by meaning; 0: none, and no
    encoder is opened.

    The similarities are exact: of the words, encoded as task types are, with every task type's embedding. Task types
    without an embedding are encoded, and not stored. Raises TaxonomyError, EncoderError.
    """
    taxonomy = taxonomy_store.version(version)
    wanted = labels.identity(labels.as_written(words)).split()
    said = ((node, labels.identity(f"{node.path} {node.about or ''}")) for node in taxonomy.nodes)
    by_words = [node for node, text in said if all(word in text for word in wanted)]
    if not number:
        return Found(taxonomy.number, by_words, ())
    types = taxonomy_store.embed_labels(taxonomy.asked(), keep=False)
    if not types.ids:
        return Found(taxonomy.number, by_words, ())
    (query,) = taxonomy_store.encoded([words])
    cosines = np.round(types.vectors.astype(np.float64) @ query.astype(np.float64), _DECIMALS) + 0.0
    ranked = sorted(zip(map(taxonomy.shown, types.ids), cosines.tolist(), strict=True), key=lambda x: (-x[1], x[0]))
    return Found(taxonomy.number, by_words, ranked[:number])
