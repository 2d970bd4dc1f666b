"""What ``write.fused`` saves the teacher. ``python -m benchmarks.fused``, in ``make bench-votes``.

``write.fused_saving``: tokens of the teacher with it ÷ without, image tokens counted, of the demo's documents with
ten task types each and one question form. The samples are the same, or the benchmark ends. These pictures are as large
as what models are mostly sent, others of the demo are smaller; the task types suit them, as a taxonomy that was grown
for them does: of the shipped ones, those that fit a fifth of the pictures or more. The detail has the ratio for all
pictures of the demo and all shipped task types, too (``demo``): few of these fit, and a picture without anything to ask
about gains nothing by the longer request.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from benchmarks import running
from benchmarks.figures import Book, Figure
from taskgalaxy_ops import pipeline
from taskgalaxy_ops.demo.settings import demo_settings
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.models.rendering import rendered_for
from taskgalaxy_ops.settings import parse_settings
from taskgalaxy_ops.simulator import teacher
from taskgalaxy_ops.simulator.config import TEACHER, SimulatorConfig
from taskgalaxy_ops.simulator.serve import running as simulated
from taskgalaxy_ops.simulator.skills import SKILLS
from taskgalaxy_ops.sources.originals import read_image
from taskgalaxy_ops.taxonomy import add_types
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace

K = 10  # task types an image
FITTING = 0.2  # share of the documents that a task type fits, to be one that suits them


@dataclass(frozen=True, slots=True)
class Taught:
    """A run, and what it asked the teacher."""

    results: RunResults
    calls: int
    tokens: int

    @property
    def made(self) -> tuple[object, ...]:
        """The funnel, and the ids of the samples."""
        return self.results.funnel, sorted(pair.pair for pair in self.results.samples)


class Bench:
    """The demo's pictures before a simulated server. ``url``: the server's."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder, self._url = folder, url

    def taught(self, name: str, task_types: Sequence[str] | None, *, fused: bool) -> Taught:
        """Run a new store of the documents; task_types: None: of all pictures, with those that ship."""
        workspace = self._opened(f"{name} {fused}", documents=task_types is not None, fused=fused)
        if task_types is not None:
            TaxonomyStore(workspace).publish(None, add_types((), task_types), [], "hand")
        server = self._url.removesuffix("/v1")
        running.stats(server, "DELETE")
        results = RunResults(workspace, pipeline.generate(workspace))
        counts = running.stats(server)
        return Taught(results, counts["calls"][TEACHER], sum(counts["tokens"][TEACHER].values()))

    def suiting(self) -> list[str]:
        """The task types that suit the documents, by what the simulated teacher sees in what it is sent."""
        workspace = self._opened("suiting", documents=True)
        sent = [
            rendered_for(read_image(workspace, row.image), workspace.settings.teacher)
            for shard in workspace.registry.shards()
            for row in workspace.registry.images(shard)
        ]
        fitting: Counter[str] = Counter()
        for raw in sent:
            image, key = Image.open(io.BytesIO(raw)).convert("RGB"), sha256_hex(raw)
            fitting.update(path for path in SKILLS if teacher.fits(image, path, key)[0])
        return sorted(path for path, images in fitting.items() if images >= FITTING * len(sent))

    def _opened(self, store: str, *, documents: bool, fused: bool = False) -> Workspace:
        own = {
            "store": (self._folder / store).as_uri(),
            "match": {"k": K},
            "write": {"variants": ["plain"], "fused": fused},
            **{section: {} for section in ("run", "release", "finetune")},
        }
        raw = demo_settings(self._url, own)
        if documents:
            raw["sources"] = {"documents": raw["sources"]["documents"]}
        workspace = Workspace.open(parse_settings(raw))
        for name in workspace.settings.sources:
            pipeline.ingest(workspace, name)
        return workspace


def main() -> None:
    """Measure."""
    with running.folder("fused", {}, ()) as folder, simulated(SimulatorConfig()) as url:
        bench = Bench(folder, url)
        suiting = bench.suiting()
        ratios = {}
        for name, task_types in (("demo", None), ("suiting", suiting)):
            together, apart = (bench.taught(name, task_types, fused=fused) for fused in (True, False))
            if together.made != apart.made:
                raise SystemExit(f"{name}: with write.fused there are other samples than without")
            ratios[name] = together.tokens / apart.tokens
        relevant = apart.results.relevant
        detail = {
            "task_types": len(suiting),
            "images": len(apart.results.images),
            "with_questions": len({row.image for row in relevant}),
            "questions": len(relevant),
            "samples": len(apart.results.samples),
            "calls": together.calls / apart.calls,
            "tokens_an_image": apart.tokens / len(apart.results.images),
            "demo": ratios["demo"],
        }
    Book("votes").add(Figure("write.fused_saving", ratios["suiting"], 0.7, "lower", detail))


if __name__ == "__main__":
    main()
