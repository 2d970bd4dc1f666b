"""Taxonomy versions in the store, and the embeddings of their leaves.

Versions are a log: entry n is version n - 1; seeds are version 0. Each is immutable. Embeddings of task types are kept
for each encoder in a log of tables; the first that was written counts, so that another machine's rounding changes no
rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from taskgalaxy_ops.errors import TaxonomyError
from taskgalaxy_ops.models.encoders.base import EmbeddingMatrix, Vectors, normalise
from taskgalaxy_ops.records import LabelReject, Node, TaskTypePath
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.log import Log, LogEntry
from taskgalaxy_ops.storage.parquet import columns, to_table
from taskgalaxy_ops.storage.shards import TableRef, embedding_table, table
from taskgalaxy_ops.taxonomy import TaxonomyVersion, label_text, load_seeds
from taskgalaxy_ops.workspace import Workspace

_SEEDS = "seeds"  # origin of version 0


@dataclass(frozen=True, slots=True)
class Proposal:
    """A version that is not published until a person or a rule approves it."""

    number: int
    base: int  # the version that it grows
    nodes: tuple[Node, ...]  # all of them, the base's included
    added: tuple[Node, ...]
    rejects: tuple[LabelReject, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """Task types, in order of path, and the embeddings that the store has of them and of others."""

    paths: list[str]
    log: Log
    vectors: dict[str, Vectors]  # by path, (d,)


class TaxonomyStore:
    """The taxonomy of a store."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._log = Log(workspace.store, keys.VERSIONS_LOG)

    def versions(self) -> list[Mapping[str, Any]]:
        """The log's entry of each version, oldest first: base, origin, numbers of leaves and rejects."""
        if entries := self._log.read():
            return [{"version": entry.number - 1, **entry.body} for entry in entries]
        leaves = len(self._seeds.leaves())
        return [{"version": 0, "base": None, "origin": _SEEDS, "leaves": leaves, "rejected": 0}]

    def node_columns(self, names: Sequence[str]) -> list[pa.Table]:
        """Columns of each version's nodes, oldest first."""
        if entries := self._log.read():
            return [columns(self._workspace.store.get(entry.body["nodes"]["key"]), names) for entry in entries]
        return [to_table(self._seeds.nodes, Node).select(list(names))]

    def version(self, number: int | None = None) -> TaxonomyVersion:
        """A version, by default the newest; version 0 is the seeds, also before a run has published them.

        Raises TaxonomyError.
        """
        entries = self._log.read()
        newest = max(0, len(entries) - 1)
        number = newest if number is None else number
        if not 0 <= number <= newest:
            raise TaxonomyError(f"taxonomy version {number}: there are 0 to {newest}.")
        if not entries:
            return self._seeds
        body = entries[number].body
        nodes = self._workspace.stage_outputs.read(TableRef(**body["nodes"]), Node)
        return TaxonomyVersion(number, body.get("base"), tuple(nodes))

    @cached_property
    def _seeds(self) -> TaxonomyVersion:
        """The seeds of the settings, as version 0."""
        own = self._workspace.settings.taxonomy.seeds
        seeds = load_seeds(Path(own) if own else None)
        return TaxonomyVersion(0, None, tuple(sorted(seeds, key=lambda node: node.path)))

    def ensure_seeds(self) -> None:
        """Publish the seeds as version 0 if there is no version. Whoever runs, or adds task types, begins with it."""
        if not self._log.read():
            self.publish(None, self._seeds.nodes, [], _SEEDS)

    def propose(self, base: int, nodes: Sequence[Node], rejects: Sequence[LabelReject]) -> int:
        """Store a proposal to follow version ``base``, and return its number; an equal one again adds nothing."""
        node_ref = self._workspace.stage_outputs.write(table(sorted(nodes, key=lambda node: node.path), Node))
        reject_ref = self._workspace.stage_outputs.write(table(rejects, LabelReject))
        body = {"base": base, "nodes": asdict(node_ref), "rejects": asdict(reject_ref)}
        log = self._proposals()

        def decide(entries: list[LogEntry]) -> Mapping[str, Any] | None:
            same = entries and (entries[-1].body["base"], entries[-1].body["nodes"]["rows_hash"]) == (
                base,
                node_ref.rows_hash,
            )
            return None if same else body

        log.append_if(decide)
        return log.last

    def proposal(self, number: int) -> Proposal:
        """A proposal by its number. Raises TaxonomyError."""
        for entry in self._proposals().read():
            if entry.number == number:
                nodes = tuple(self._workspace.stage_outputs.read(TableRef(**entry.body["nodes"]), Node))
                rejects = tuple(self._workspace.stage_outputs.read(TableRef(**entry.body["rejects"]), LabelReject))
                old = {node.path for node in self.version(entry.body["base"]).nodes}
                added = tuple(node for node in nodes if node.path not in old)
                return Proposal(number, entry.body["base"], nodes, added, rejects)
        raise TaxonomyError(f"taxonomy: there is no proposal {number}. Expand again.")

    def refuse(self, proposal: int, paths: Iterable[TaskTypePath]) -> None:
        """Remember nodes of a proposal, with all below them, as refused: no later expansion proposes them again."""
        refused = sorted(set(paths))
        known = self.refused()
        if new := [path for path in refused if path not in known]:
            Log(self._workspace.store, keys.REFUSED_LOG).append({"proposal": proposal, "paths": new})

    def refused(self) -> dict[TaskTypePath, int]:
        """By path, the proposal in which a person refused it first."""
        found: dict[TaskTypePath, int] = {}
        for entry in Log(self._workspace.store, keys.REFUSED_LOG).read():
            for path in entry.body["paths"]:
                found.setdefault(path, entry.body["proposal"])
        return found

    def _proposals(self) -> Log:
        return Log(self._workspace.store, keys.PROPOSALS_LOG)

    def publish(self, base: int | None, nodes: Sequence[Node], rejects: Sequence[LabelReject], origin: str) -> int:
        """Append the version that follows ``base``, and return its number; an equal newest version is left as it is.

        Raises TaxonomyError if another version was published meanwhile.
        """
        if base is not None:
            self.ensure_seeds()
        number = 0 if base is None else base + 1
        node_ref = self._workspace.stage_outputs.write(table(sorted(nodes, key=lambda node: node.path), Node))
        reject_ref = self._workspace.stage_outputs.write(table(rejects, LabelReject))
        leaves = len(TaxonomyVersion(number, base, tuple(nodes)).leaves())
        lost = False

        def decide(entries: list[LogEntry]) -> Mapping[str, Any] | None:
            nonlocal lost
            same = entries and entries[-1].body["nodes"]["rows_hash"] == node_ref.rows_hash
            lost = not same and len(entries) != number
            if same or lost:
                return None
            refs = {"nodes": asdict(node_ref), "rejects": asdict(reject_ref)}
            return {"base": base, "origin": origin, "leaves": leaves, "rejected": len(rejects), **refs}

        self._log.append_if(decide)
        if lost:
            raise TaxonomyError(f"taxonomy: a version beside {number} was published meanwhile. Run again on top of it.")
        return len(self._log.known()) - 1

    def embeddings(self, version: int | None = None, *, keep: bool = True) -> EmbeddingMatrix:
        """The embeddings of a version's task types ``(m, d)``, by the paths as they are asked, in order; encodes those
        that have none yet.

        keep: if False, the new embeddings are not stored, for a caller that only reads.
        """
        return self.complete(self.known(version), keep=keep)

    def embed_labels(self, paths: Sequence[str], *, keep: bool = True) -> EmbeddingMatrix:
        """Embeddings of task types ``(m, d)``, in order of path; encodes those that have none yet.

        keep: if False, the new embeddings are not stored.
        """
        return self.complete(self._known(paths), keep=keep)

    def known(self, version: int | None = None) -> Known:
        """What ``complete`` makes a version's embeddings of. Only reads: it may run beside an encoder."""
        return self._known(self.version(version).asked())

    def _known(self, paths: Sequence[str]) -> Known:
        log = Log(self._workspace.store, keys.type_embeddings(self._workspace.type_encoder_id))
        return Known(sorted(set(paths)), log, self._read(log.read()))

    def complete(self, known: Known, *, keep: bool = True) -> EmbeddingMatrix:
        """The embeddings of these task types, as ``embeddings`` has them."""
        wanted, log, found = known.paths, known.log, known.vectors
        if missing := [path for path in wanted if path not in found]:
            vectors = self.encoded([label_text(path) for path in missing])
            if keep:
                ref = self._workspace.stage_outputs.write(embedding_table(missing, vectors))
                log.append({"table": asdict(ref)})
                found |= self._read(log.read())  # if another worker wrote the same types first, its embeddings count
            else:
                found.update(zip(missing, vectors, strict=True))
        if not wanted:  # every task type is retired
            return EmbeddingMatrix((), np.empty((0, 0), np.float32))
        return EmbeddingMatrix(tuple(wanted), np.stack([found[path] for path in wanted]).astype(np.float32))

    def label_vectors(self) -> dict[str, Vectors]:
        """The embeddings of labels that the store has, by path; none where they are means over templates."""
        return {} if self._workspace.settings.encoder.templates else self._known([]).vectors

    def keep_label_vectors(self, vectors: Mapping[str, Vectors]) -> None:
        """Store embeddings of labels of task types, where the store keeps them and has them not yet."""
        if self._workspace.settings.encoder.templates:
            return
        known = self._known([])
        if missing := sorted(vectors.keys() - known.vectors.keys()):
            table_of = embedding_table(missing, np.stack([vectors[path] for path in missing]))
            known.log.append({"table": asdict(self._workspace.stage_outputs.write(table_of))})

    def encoded(self, texts: Sequence[str]) -> Vectors:
        """Embeddings (m, d) of texts: each the mean of it in the settings' templates; without these, of itself."""
        encoder, templates = self._workspace.checked_encoder(), self._workspace.settings.encoder.templates
        if not templates:
            return encoder.encode_texts(texts)
        total = np.zeros((len(texts), encoder.dim), np.float64)
        for template in templates:
            total += encoder.encode_texts([template.replace("{}", text) for text in texts])
        return normalise(total)

    def _read(self, entries: Sequence[LogEntry]) -> dict[str, Vectors]:
        found: dict[str, Vectors] = {}
        for entry in entries:
            ids, vectors = self._workspace.stage_outputs.read_embeddings(TableRef(**entry.body["table"]))
            for path, vector in zip(ids, vectors, strict=True):
                found.setdefault(path, vector)
        return found


def type_logs(workspace: Workspace) -> list[str]:
    """The keys of the logs of task types' embeddings, one for every encoder that the store has used."""
    listed = (each.key.split("/") for each in workspace.store.list(keys.EMBEDDINGS))
    return [keys.type_embeddings(name) for name in sorted({parts[1] for parts in listed if parts[2:3] == ["types"]})]
