"""Coverage of as many samples and task types as the paper has, against DuckDB's group-by over the same files.

Both sides read the same Parquet files of one store, and count matches, fitting ones, pairs and samples by task type, by
source and by form, and the images that fit nothing. The product's side is the whole command: it lists the store, makes
the keys of all stage outputs, and checks what it reads against its hashes; DuckDB is told the files.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from benchmarks import material, running
from benchmarks.figures import Book, Figure
from taskgalaxy_ops.generation.coverage import Coverage, coverage
from taskgalaxy_ops.generation.stage_keys import StageKeys
from taskgalaxy_ops.models.encoders.base import normalise
from taskgalaxy_ops.records import Claim, Image, Match, Pair, Reject, Relevant, Verdict, Vote
from taskgalaxy_ops.storage import open_store
from taskgalaxy_ops.storage.parquet import embeddings_hash
from taskgalaxy_ops.storage.registry.state import ImageShard
from taskgalaxy_ops.storage.scan_staging import ScanStaging
from taskgalaxy_ops.storage.shards import Key, StageOutput, Stats, embedding_table, table
from taskgalaxy_ops.taxonomy import add_types
from taskgalaxy_ops.taxonomy.store import TaxonomyStore

TYPES, SAMPLES = 19_227, 413_648  # the paper's
K, SHARD = 10, 512
KEPT, ACCEPTED = 0.5, 0.8  # shares
TIMES = 3  # measured, of which the best counts

_FORMS = ("plain", "chain_of_thought")
_GROUPS = {"": "", ", source": "JOIN (SELECT DISTINCT image, source FROM {claims}) USING (image)"}


@dataclass(frozen=True, slots=True)
class Made:
    """A store, and the numbers of what was written into it."""

    workspace: material.BenchWorkspace
    samples: int
    types: int


def store(folder: Path, samples: int, types: int) -> Made:
    """A store that holds about so many samples, made without any model: rows at random, the same ones each time."""
    settings = material.settings(f"file://{folder / 'store'}", folder, "http://127.0.0.1:9/v1", match={"k": K})
    workspace = material.BenchWorkspace(settings, open_store(settings.store))
    taxonomy_store = TaxonomyStore(workspace)
    taxonomy_store.publish(None, add_types([], material.task_types(0, types)), [], "seeds")
    images = round(samples / (K * KEPT * ACCEPTED * len(_FORMS)))
    shards = _registered(workspace, images)
    matrix = taxonomy_store.embeddings()
    keys, made = StageKeys(workspace), 0
    types_hash = embeddings_hash(matrix.ids, matrix.vectors)
    for number, shard in enumerate(shards):
        rng = np.random.default_rng(number)
        popular = np.minimum((rng.pareto(1.0, 3 * K * shard.cut) * types / 40).astype(int), types - 1)
        rows = _rows(workspace.registry.image_ids(shard), popular, matrix.ids, rng)
        made += _committed(workspace, keys, shard, types_hash, rows)
    return Made(workspace, made, types)


def _registered(workspace: material.BenchWorkspace, images: int) -> list[ImageShard]:
    """The image shards of two sources, of which the second has a third of the images of the first."""
    ids = [f"{n * 0x9E3779B97F4A7C15 % 2**64:016x}{n:048x}" for n in range(images)]
    for source, own in (("all", ids), ("third", ids[::3])):
        with ScanStaging(source) as staging:
            for image in own:
                record = Image(image, 64, 64, "png", 100, "0" * 40) if source == "all" else None
                staging.claim(Claim(source, image, f"{image}.png"), record)
            workspace.registry.register("nowhere", staging, SHARD)
    return workspace.registry.shards()


Rows = dict[str, dict[str, list[Any]]]


def _rows(ids: Sequence[str], popular: Any, types: Sequence[str], rng: Any) -> Rows:
    """By stage and table, the rows of an image shard."""
    matches, relevant, pairs, samples, rejects = [], [], [], [], []
    for place, image in enumerate(ids):
        own = dict.fromkeys(popular[3 * K * place : 3 * K * (place + 1)].tolist())
        for rank, column in enumerate(list(own)[:K], 1):
            path = types[column]
            matches.append(Match(image, path, 1 - rank / 100, rank))
            if rng.random() >= KEPT:
                rejects.append(Reject("filter", image, path, "not fitting", ""))
                continue
            relevant.append(Relevant(image, path, "It shows what the task type asks about."))
            for form in _FORMS:
                pair = Pair(rng.bytes(32).hex(), image, path, form, f"What of {path}?", f"It is {rng.random():.9f}.")
                pairs.append(pair)
                if rng.random() < ACCEPTED:
                    samples.append(pair)
    return {
        "match": {"matches": matches},
        "filter": {"relevant": relevant, "rejects": rejects},
        "write": {"pairs": pairs, "rejects": []},
        "vote": {"votes": [], "verdicts": [], "samples": samples, "rejects": []},
    }


_RECORDS = {
    "matches": Match, "relevant": Relevant, "rejects": Reject, "pairs": Pair, "votes": Vote, "verdicts": Verdict,
    "samples": Pair,
}  # fmt: skip


def _committed(
    workspace: material.BenchWorkspace, keys: StageKeys, shard: ImageShard, types_hash: str, rows: Rows
) -> int:
    """Commit an image shard's stage outputs as a run would; returns its number of samples."""
    ids = workspace.registry.image_ids(shard)
    vectors = normalise(np.random.default_rng(len(ids)).standard_normal((len(ids), 64)))
    embed = keys.embed(shard, None)
    tables = {"embeddings": embedding_table(ids, vectors)}
    before = workspace.stage_outputs.commit(shard.id, "embed", str(embed.key), tables, Stats(len(ids), len(ids)))
    for stage, found in rows.items():
        key: Key = (
            keys.match(before.output, types_hash, None)
            if stage == "match"
            else keys.asking(stage, before.output, 0, shard.id)
        )
        tables = {name: table(each, _RECORDS[name]) for name, each in found.items()}
        before = workspace.stage_outputs.commit(shard.id, stage, str(key.key), tables, Stats(), key.made_of)
    return len(rows["vote"]["samples"])


def _files(made: Made, folder: Path) -> dict[str, list[str]]:
    """By table, its Parquet files, and those of the claims."""
    workspace = made.workspace
    found: dict[str, list[str]] = {"claims": [part.key for part in workspace.registry.claim_parts()]}
    for shard in workspace.registry.shards():
        for output in _outputs(workspace.stage_outputs.committed(shard.id).values()):
            for name, ref in workspace.stage_outputs.refs(output).items():
                found.setdefault(name, []).append(ref.key)
    return {name: [str(folder / "store" / key) for key in keys] for name, keys in found.items()}


def _outputs(outputs: Iterator[StageOutput] | Any) -> Iterator[StageOutput]:
    return (output for output in outputs if output.stage in {"match", "filter", "write", "vote"})


def by_duckdb(files: dict[str, list[str]]) -> dict[str, Any]:
    """The same numbers by DuckDB: by table, the rows of its group-bys."""
    found: dict[str, Any] = {}
    claims = f"read_parquet({files['claims']!r})"
    with duckdb.connect() as db:
        for name in ("matches", "relevant", "pairs", "samples"):
            forms = {", variant": ""} if name in {"pairs", "samples"} else {}
            for group, join in {**_GROUPS, **forms}.items():
                rows = f"read_parquet({files[name]!r}) {join.format(claims=claims)}"
                query = f"SELECT task_type{group}, count(*) FROM {rows} GROUP BY task_type{group}"
                found[name + group] = db.execute(query).fetchnumpy()
        fit = f"SELECT image FROM read_parquet({files['relevant']!r})"
        found["unmatched"] = db.execute(
            f"SELECT count(DISTINCT image) FROM {claims} WHERE image NOT IN ({fit})"
        ).fetchall()[0][0]
    return found


def _same(ours: Coverage, theirs: dict[str, Any]) -> None:
    """Raises AssertionError if the two sides counted otherwise."""
    own = {"matches": "matched", "relevant": "kept", "pairs": "pairs", "samples": "samples"}
    for name, field in own.items():
        numbers = dict(zip(ours.types, getattr(ours.counts, field).tolist(), strict=True))
        counted = theirs[name]
        for path, number in zip(counted["task_type"], counted["count_star()"], strict=True):
            assert numbers.pop(path) == number, path
        assert not any(numbers.values())
        for group, parts in ((", source", ours.by_source), (", variant", ours.by_form)):
            if name + group in theirs:
                total = sum(counts.sums()[field] for counts in parts.values())
                assert total == int(theirs[name + group]["count_star()"].sum()), name + group
    assert ours.unmatched == theirs["unmatched"]


def measure(book: Book, folder: Path, scale: float) -> None:
    """Add the figure ``coverage.seconds``."""
    made = store(folder, round(SAMPLES * scale), round(TYPES * scale))
    files = _files(made, folder)
    sides: dict[str, float] = {}
    for _ in range(TIMES):
        began = time.perf_counter()
        workspace = material.BenchWorkspace(made.workspace.settings, made.workspace.store)
        ours = coverage(workspace)
        middle = time.perf_counter()
        theirs = by_duckdb(files)
        ended = time.perf_counter()
        sides["ours"] = min(sides.get("ours", 1e9), middle - began)
        sides["duckdb"] = min(sides.get("duckdb", 1e9), ended - middle)
    _same(ours, theirs)
    detail = {**sides, "samples": made.samples, "types": made.types, "shards": len(workspace.registry.shards())}
    book.add(Figure("coverage.seconds", sides["ours"] / sides["duckdb"], 3.0, "lower", detail))


def main() -> None:
    """Measure it alone."""
    with running.folder("coverage", {}, ()) as folder:
        measure(Book("taxonomy"), folder, running.scale())


if __name__ == "__main__":
    main()
