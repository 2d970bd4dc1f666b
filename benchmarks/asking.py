"""What judges and the teacher are asked for what they decide. ``python -m benchmarks.asking``, in ``make bench-votes``.

``votes.judge_calls``: votes that a run asks ÷ what its verdicts take: two a pair, one where these two disagree, and one
where an audit asks all the same. The verdicts are those of three judges who are asked about everything. Three levels
of disagreement; the worst counts. Answers are drawn by hash, without a server.

``write.requests``: requests of a write stage ÷ images that lack something; the canned server counts. ``SCALE=0.1`` is
a tenth of the images; arguments choose figures: judge_calls, requests, balance, planted.

``write.format_balance``: the largest distance of a question form's share of the pairs from its setting, of 10,000 pairs
of four forms; answers are drawn.

``votes.planted_caught`` and ``votes.right_kept``: in what the demo runs, the shares of planted wrong answers that the
vote rejects and of right ones that it keeps. The goal of each is the lower end of the interval in which 95 of 100 such
shares lie if judges err as they are configured to, and otherwise see what is there.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

from benchmarks import material, running
from benchmarks.figures import Book, Figure
from benchmarks.targets import Drawn
from taskgalaxy_ops import pipeline
from taskgalaxy_ops.demo.services import Simulator
from taskgalaxy_ops.demo.settings import demo_settings
from taskgalaxy_ops.generation import run as generation_run
from taskgalaxy_ops.generation.forms.multiple_choice import WRONG
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.hashing import draw, sha256_hex
from taskgalaxy_ops.models.rendering import rendered_for
from taskgalaxy_ops.models.request import RequestTemplate
from taskgalaxy_ops.settings import parse_settings
from taskgalaxy_ops.simulator.answers import errs
from taskgalaxy_ops.simulator.config import SimulatorConfig
from taskgalaxy_ops.simulator.serve import running as simulated
from taskgalaxy_ops.sources.originals import read_image
from taskgalaxy_ops.taxonomy import add_types
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace

IMAGES = 1_000
TYPES = 200
QUORUM, AUDITED = 2, 0.1
IMAGINED = 50_000  # pairs, to tell what the configured judges do
_SIGMAS = 1.96
SHARES = {"plain": 0.4, "chain_of_thought": 0.3, "multiple_choice": 0.2, "yes_no": 0.1}
_WRONG = ("That.", "", "")
APPROVING = (0.98, 0.85, 0.6)  # shares of votes for a pair: 4, 26 and 48 % of the pairs have two judges disagree


class Judged(Drawn):
    """Everything fits and is written; judges approve a share of the pairs, each of others."""

    approving: ClassVar[float] = 1.0

    @staticmethod
    def entry(template: RequestTemplate, image: str, task_type: str) -> dict[str, Any]:
        if template.stage == "filter":
            return {"fits": True, "reason": ""}
        if template.stage == "write" and template.head["variant"] == "multiple_choice":
            return {"question": f"What of {task_type}?", "answer": "This.", **dict(zip(WRONG, _WRONG, strict=True))}
        if template.stage == "write" and template.head["variant"] == "yes_no":
            return {"question_yes": f"Is it {task_type}?", "question_no": ""}
        if template.stage == "write":
            return {"question": f"What of {task_type}?", "answer": "This.", "reasoning": "Seen."}
        return {"vote": _vote(template.model.name, image, task_type), "reason": "drawn"}


def _vote(judge: str, image: str, task_type: str) -> int:
    return int(draw("approves", judge, image, task_type) < Judged.approving)


class Bench:
    """One run of the benchmark: its folder and the book that it reports to."""

    def __init__(self, book: Book, folder: Path, scale: float) -> None:
        self.book, self.folder, self.images = book, folder, max(50, round(IMAGES * scale))

    def store(self, name: str, server: str = "http://127.0.0.1:9/v1", **changes: Any) -> material.BenchWorkspace:
        """A new store with the images and task types."""
        source = self.folder / "images"
        if not source.exists():
            material.images(source, 0, self.images)
        workspace = material.BenchWorkspace.open(
            material.settings((self.folder / "stores" / name).as_uri(), source, server, **changes)
        )
        assert isinstance(workspace, material.BenchWorkspace)
        TaxonomyStore(workspace).publish(None, add_types((), material.task_types(0, TYPES)), [], "hand")
        pipeline.ingest(workspace, "images")
        return workspace


def judge_calls(bench: Bench) -> None:
    """Run a store at each level of disagreement, and compare with what its verdicts take."""
    ratios, told = [], {}
    for level in APPROVING:
        workspace = bench.store(f"votes {level}", vote={"quorum": QUORUM, "audit_share": AUDITED})
        with patch.object(generation_run, "Gateway", Judged), patch.object(Judged, "approving", level):
            before = Drawn.units["vote"]
            results = RunResults(workspace, pipeline.generate(workspace))
            asked = Drawn.units["vote"] - before
            needed = disagreed = 0
            judges = [judge.name for judge in workspace.settings.judges]
            for pair in results.pairs.values():
                votes = [_vote(judge, pair.image, pair.task_type) for judge in judges]
                if (sum(votes) >= QUORUM) != results.verdicts[pair.pair].accepted:
                    raise SystemExit(f"pair {pair.pair}: another verdict than that of all judges")
                disagreed += votes[0] != votes[1]
                needed += 3 if votes[0] != votes[1] or draw("audit", pair.pair) < AUDITED else 2
        ratios.append(asked / needed)
        told[f"approving_{level}"] = {"pairs": len(results.pairs), "disagreed": disagreed, "asked": asked}
    detail = {"images": bench.images, "ratios": ", ".join(f"{ratio:.4f}" for ratio in ratios), **told}
    bench.book.add(Figure("votes.judge_calls", max(ratios), 1.01, "lower", detail))


def requests(bench: Bench) -> None:
    """Filter a store, then write, and count the requests."""
    with Simulator(bench.folder / "server", arguments=("--canned",)) as server:
        workspace = bench.store("write", server.base_url)
        filtered = RunResults(workspace, pipeline.generate(workspace, pipeline.RunOptions(last_stage="filter")))
        images = {row.image for row in filtered.relevant}
        running.stats(server.url, "DELETE")
        pipeline.generate(workspace, pipeline.RunOptions(last_stage="write"))
        asked = running.stats(server.url)["requests"]
    detail = {"images": len(images), "pairs_to_write": len(filtered.relevant), "requests": asked}
    bench.book.add(Figure("write.requests", asked / len(images), 1.05, "lower", detail))


def balance(bench: Bench) -> None:
    """Write in four forms by their shares, and compare the shares of the pairs."""
    write = {"variants": list(SHARES), "shares": SHARES}
    workspace = bench.store("shares", write=write)
    with patch.object(generation_run, "Gateway", Judged):
        results = RunResults(workspace, pipeline.generate(workspace, pipeline.RunOptions(last_stage="write")))
    counts = Counter(pair.variant for pair in results.pairs.values())
    found = {form: counts[form] / counts.total() for form in SHARES}
    distance = max(abs(found[form] - share) for form, share in SHARES.items())
    detail = {"pairs": counts.total(), **{f"share_{form}": round(share, 4) for form, share in found.items()}}
    bench.book.add(Figure("write.format_balance", distance, 0.02, "lower", detail))


def planted(bench: Bench) -> None:
    """Run the demo's images and settings, and compare the verdicts with what the simulated teacher planted."""
    config = SimulatorConfig()
    with simulated(config) as url:
        raw = demo_settings(url, {"store": (bench.folder / "planted").as_uri(), "release": {}, "finetune": {}})
        workspace = Workspace.open(parse_settings(raw))
        for name in workspace.settings.sources:
            pipeline.ingest(workspace, name)
        results = RunResults(workspace, pipeline.generate(workspace))
        wrong = {
            (pair["image"], pair["task_type"], pair["variant"], pair["question"])
            for pair in running.stats(url.removesuffix("/v1"))["pairs"]["planted"]
        }
    teacher = workspace.settings.teacher
    sent = {}  # the server knows an image by the bytes that it was sent
    for image in results.images:
        sent[image] = sha256_hex(rendered_for(read_image(workspace, image), teacher))
    verdicts: dict[bool, list[bool]] = {True: [], False: []}
    for pair in results.pairs.values():
        planted_one = (sent[pair.image], pair.task_type, pair.variant, pair.question) in wrong
        verdicts[planted_one].append(results.verdicts[pair.pair].accepted != planted_one)
    for figure, about in (("votes.planted_caught", True), ("votes.right_kept", False)):
        expected, found = _configured(config, not about, workspace.settings.vote.quorum), verdicts[about]
        spread = _SIGMAS * math.sqrt(expected * (1 - expected) / len(found))
        detail = {"pairs": len(found), "expected": round(expected, 4)}
        bench.book.add(Figure(figure, sum(found) / len(found), round(expected - spread, 4), "higher", detail))


def _configured(config: SimulatorConfig, right: bool, quorum: int) -> float:
    """The share of right (or wrong) pairs on which judges who err as configured reach the true verdict."""
    true = 0
    for number in range(IMAGINED):
        erring = sum(errs(config, judge, f"imagined {number}", right) for judge in config.judges)
        approvals = len(config.judges) - erring if right else erring
        true += (approvals >= quorum) == right
    return true / IMAGINED


FIGURES: Mapping[str, Callable[[Bench], None]] = {
    figure.__name__: figure for figure in (judge_calls, requests, balance, planted)
}


def main(*chosen: str) -> None:
    """Measure the chosen figures, by default all."""
    with running.folder("asking", FIGURES, chosen) as folder:
        running.measure(FIGURES, chosen, Bench(Book("votes"), folder, running.scale()))


if __name__ == "__main__":
    main(*sys.argv[1:])
