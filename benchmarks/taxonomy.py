"""What growing the taxonomy to the paper's 19,227 task types takes, and what it lets through. ``make bench-taxonomy``.

`leaves` and `growth_calls` come from the product's own command, in a process of its own, against the simulated models'
server and with the default encoder; `near_duplicates` (recall, novel_lost) from planted labels (near_labels.py);
`dedup` compares the admission of 100,000 proposals with the bare matrix products of the same; `coverage` (coverage.py)
counts the paper's 413,648 samples beside DuckDB; `targets` (targets.py: waste, met, types_cost) runs 20,000 images.
``SCALE=0.1`` takes a tenth; arguments choose figures.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import yaml

from benchmarks import coverage as coverage_of
from benchmarks import running
from benchmarks import targets as targets_of
from benchmarks.figures import Book, Figure
from benchmarks.near_labels import MEASURED, plant
from taskgalaxy_ops.hashing import draw
from taskgalaxy_ops.models.encoders.base import Vectors, normalise, open_encoder
from taskgalaxy_ops.records import LabelReject, Node, Reason
from taskgalaxy_ops.settings import Settings
from taskgalaxy_ops.simulator.config import SimulatorConfig
from taskgalaxy_ops.simulator.expansion import compositions
from taskgalaxy_ops.simulator.serve import running as simulated
from taskgalaxy_ops.taxonomy import Expansion, admit, label_text, labels, load_seeds
from taskgalaxy_ops.taxonomy.neighbours import BLOCK, TILE
from taskgalaxy_ops.taxonomy.rules import load_rules

LEAVES = 19_227
PROPOSALS = 100_000
PLANTS = 600  # labels that are reworded, by each of the seeds
DIM = 384
TURNS = 1


class Bench:
    """One run of the benchmark: its folder and the book that it reports to."""

    def __init__(self, folder: Path, book: Book, scale: float) -> None:
        self.folder = folder
        self.book = book
        self.scale = scale

    def add(self, figure: str, value: float, goal: float, better: Any, **detail: Any) -> None:
        """Report a figure."""
        detail["load"] = round(os.getloadavg()[0], 1)
        self.book.add(Figure(f"taxonomy.{figure}", round(value, 4), goal, better, detail))


def leaves(bench: Bench) -> None:
    """Grow from the shipped seeds by the command line, and look at what a person waits for afterwards."""
    wanted = round(LEAVES * bench.scale)
    with simulated(SimulatorConfig()) as url:
        settings = bench.folder / "taskgalaxy.yaml"
        model = {"base_url": url, "simulated": True}
        judges = [{**model, "name": f"sim-judge-{letter}", "model": f"sim-judge-{letter}"} for letter in "abc"]
        given = {
            "store": (bench.folder / "store").as_uri(),
            "teacher": {**model, "name": "sim-teacher", "model": "sim-teacher"},
            "judges": judges,
            "budget": {"max_cost": None, "max_calls": None},
        }
        settings.write_text(yaml.safe_dump(given), "utf-8")
        grown, seconds = _command(settings, "expand", "--up-to", str(wanted))
        again, again_seconds = _command(settings, "expand", "--up-to", str(wanted))
    tree, tree_seconds = _command(settings, "tree")
    calls, rejected = grown["usage"]["calls"], Counter(reject["reason"] for reject in grown["rejects"])
    proposals = len(grown["added"]) + sum(rejected.values())
    told = {"seconds": round(seconds), "tree_seconds": round(tree_seconds, 1), "again_calls": again["usage"]["calls"]}
    told |= {"again_seconds": round(again_seconds, 1), "nodes": len(grown["added"])}
    bench.add("leaves", len(tree["leaves"]), wanted, "higher", **told)
    each = Settings.model_fields["taxonomy"].default.children
    share = sum(rejected.values()) / proposals
    ratio = calls / (len(tree["leaves"]) / each)
    shown = {"rejected": round(share, 3), "proposals": proposals, **{str(why): n for why, n in rejected.items()}}
    bench.add("growth_calls", ratio if share <= 0.25 else float("inf"), 1.5, "lower", calls=calls, **shown)


def _command(settings: Path, *arguments: str) -> tuple[dict[str, Any], float]:
    """What ``taskgalaxy taxonomy …`` prints as JSON, and the seconds that it took. Raises SystemExit if it fails."""
    command = [sys.executable, "-m", "taskgalaxy_ops.cli", "taxonomy", *arguments, "--settings", str(settings)]
    began = time.monotonic()
    done = subprocess.run([*command, "--json"], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"taxonomy {' '.join(arguments)} failed.")
    found: dict[str, Any] = json.loads(done.stdout)
    return found, time.monotonic() - began


def near_duplicates(bench: Bench) -> None:
    """Let planted near-duplicates and novel labels meet a tree; the threshold and the rules are the defaults."""
    paths = sorted(
        labels.join(above, name) for above, names in compositions().items() if "~" in above for name in names
    )
    known = [path for path in paths if draw("known", path) < 0.1]
    nodes = _nodes(load_seeds(), known)
    there = {node.path for node in nodes}
    groups = sorted(node.path for node in nodes if node.level == 2 and node.path in compositions())
    number = max(20, round(PLANTS * bench.scale))
    plants, rules, novel = [], Counter[str](), []
    for seed in MEASURED:
        for path in sorted(known, key=lambda path: draw("planted", seed, path))[: number // len(MEASURED)]:
            if (planted := plant(labels.name(path), seed)) is not None:
                # Every other one comes below another node: the same meaning, elsewhere in the tree.
                above = labels.parent(path)
                elsewhere = groups[int(draw("elsewhere", seed, path) * len(groups))]
                plants.append((elsewhere if draw("side", seed, path) < 0.5 else above, planted))
        unknown = (path for path in paths if path not in there and labels.parent(path) in there)
        novel += sorted(unknown, key=lambda path: draw("novel", seed, path))[: number // len(MEASURED)]
    novel = sorted(set(novel))
    embed = _Remembering()
    caught = []
    for above, planted in plants:  # one at a time, so that one plant does not catch another
        (_, rejects) = _admitted([(above, planted.label)], nodes, embed)
        caught.append(any(r.reason in (Reason.NEAR_DUPLICATE_LABEL, Reason.DUPLICATE_LABEL) for r in rejects))
        rules[planted.rule] += not caught[-1]
    _, lost = _admitted([(labels.parent(path), labels.name(path)) for path in novel], nodes, embed)
    missed = {f"missed_{rule}": count for rule, count in rules.items() if count}
    threshold = Settings.model_fields["taxonomy"].default.near_duplicate
    told = {"encoder": "conse", "threshold": threshold, "nodes": len(nodes)}
    bench.add("near_duplicate_recall", sum(caught) / len(caught), 0.95, "higher", plants=len(plants), **told, **missed)
    reasons = Counter(str(reject.reason) for reject in lost)
    bench.add("novel_lost", len(lost) / len(novel), 0.02, "lower", novel=len(novel), **told, **reasons)


def _admitted(
    proposals: Iterable[tuple[str, str]], nodes: Sequence[Node], embed: Callable[[list[str]], Vectors]
) -> tuple[list[Node], list[LabelReject]]:
    asked = [(Expansion("level3", above, (), 1), label) for above, label in proposals]
    return admit(asked, nodes, embed, Settings.model_fields["taxonomy"].default.near_duplicate, None, load_rules())


def _nodes(seeds: Iterable[Node], paths: Iterable[str]) -> list[Node]:
    known = {node.path: node for node in seeds}
    for path in paths:
        for each in (*labels.ancestors(path), path):
            known.setdefault(each, Node(each, labels.level(each), "expand", "live"))
    return [known[path] for path in sorted(known)]


class _Remembering:
    """The default encoder; a path is embedded once."""

    def __init__(self) -> None:
        self._encoder = open_encoder("conse")
        self._found: dict[str, Vectors] = {}

    def __call__(self, paths: list[str]) -> Vectors:
        new = [path for path in paths if path not in self._found]
        self._found.update(zip(new, self._encoder.encode_texts([label_text(path) for path in new]), strict=True))
        return np.stack([self._found[path] for path in paths])


def dedup(bench: Bench) -> None:
    """Admit proposals below one node against the tree and themselves; every twentieth is near one before it."""
    count, others = round(PROPOSALS * bench.scale), round(LEAVES * bench.scale)
    rng = np.random.default_rng(0)
    vectors = normalise(rng.standard_normal((others + 1 + count, DIM)))
    for place in range(others + 20, len(vectors), 20):
        vectors[place] = vectors[place - 10] + 0.01 * vectors[place]
    vectors = normalise(vectors)
    names = [f"node {n:06d}" for n in range(others)] + ["there"] + [f"proposal {n:06d}" for n in range(count)]
    row = {name: n for n, name in enumerate(names)}
    nodes = [Node(name, 1, "seed", "live") for name in names[:others]]
    nodes += [Node(path, labels.level(path), "seed", "live") for path in ("above", "above~there")]
    above = Expansion("level2", "above", (), 1)
    asked = [(above, name) for name in names[others + 1 :]]
    ratios, took, alone = [], [], []
    for _ in range(TURNS):
        began = time.monotonic()
        _bare(vectors, others)
        alone.append(time.monotonic() - began)
        began = time.monotonic()
        added, rejects = admit(
            asked, nodes, lambda paths: vectors[[row[labels.name(path)] for path in paths]], 0.9, None
        )
        took.append(time.monotonic() - began)
        ratios.append(took[-1] / alone[-1])
    told = {"proposals": count, "tree": others, "seconds": round(median(took), 1), "bare": round(median(alone), 1)}
    told |= {"added": len(added), "rejected": len(rejects)}
    peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)
    bench.add("dedup", median(ratios), 2.0, "lower", **told, peak_GB=peak)


def _bare(vectors: Vectors, others: int) -> None:
    """The products of each block of proposals with all before it and with itself, and nothing else."""
    room = np.empty((BLOCK, TILE), np.float32)
    for start in range(others, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK]
        for at in range(0, start + len(block), TILE):
            tile = vectors[at : min(at + TILE, start + len(block))]
            np.matmul(block, tile.T, out=room[: len(block), : len(tile)])


def coverage(bench: Bench) -> None:
    """Count what a store of the paper's size has, by task type, source and form."""
    coverage_of.measure(bench.book, bench.folder, bench.scale)


def targets(bench: Bench) -> None:
    """Run with targets, and without them after more task types came."""
    targets_of.measure(bench.book, bench.folder, bench.scale)


FIGURES: Mapping[str, Callable[[Bench], None]] = {
    figure.__name__: figure for figure in (dedup, near_duplicates, leaves, coverage, targets)
}


def main(*chosen: str) -> None:
    """Measure the chosen figures, by default all."""
    with running.folder("taxonomy", FIGURES, chosen) as folder:
        running.measure(FIGURES, chosen, Bench(folder, Book("taxonomy"), running.scale()))


if __name__ == "__main__":
    main(*sys.argv[1:])
