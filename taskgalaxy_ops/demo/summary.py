"""What a demo came to: summary.json, and the lines that it ends with."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from taskgalaxy_ops.demo.conductor import Conducted
from taskgalaxy_ops.evaluate.compare import AFTER, AFTER_SWAPPED, BEFORE, BLIND, MAJORITY
from taskgalaxy_ops.evaluate.questions import EASY_VQA
from taskgalaxy_ops.generation.bill import Bill
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.operations import forecast
from taskgalaxy_ops.release.publish import ReleaseReceipt
from taskgalaxy_ops.reports.text import costs as costs_text
from taskgalaxy_ops.reports.text import release as release_text
from taskgalaxy_ops.reports.text import run as run_text
from taskgalaxy_ops.sources.ingest import IngestReceipt
from taskgalaxy_ops.storage.ledger import NANO
from taskgalaxy_ops.taxonomy.expand import ExpandResult


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRun:
    """What one run of the demo came to."""

    receipts: list[IngestReceipt]
    grown: ExpandResult | None = None
    results: RunResults  # its usage is this run's, expansion and probe included
    release: ReleaseReceipt | None
    encoder_passes: int
    forecast: forecast.Checked | None  # the latest, and what was spent since
    airflow: Conducted | None = None
    scores: dict[str, Any] | None = None  # of the fine-tune

    @property
    def failures(self) -> list[str]:
        return self.airflow.failures if self.airflow else []


def summary_of(run: DemoRun, folder: Path, seconds: float) -> dict[str, Any]:
    results, paid = run.results, run.results.paid
    rejects = {counts.stage: dict(counts.rejects) for counts in results.funnel}
    released = run.release
    if released:
        rejects["release"] = dict(released.funnel.rejects)
    if run.grown:
        rejects["expand"] = dict(Counter(str(reject.reason) for reject in run.grown.rejects))
    usage = results.result.usage
    return {
        "simulated": results.simulated,
        "samples": released.release.samples if released else 0,
        "task_types": released.release.task_types if released else 0,
        "images": results.live_images,
        "sources": results.sources,
        "model_calls": usage.calls,
        "encoder_passes": run.encoder_passes,
        "release": {
            "version": released.release.name,
            "path": released.path,
            "sha256": released.release.manifest_sha256,
            "made": released.made,
        }
        if released
        else None,
        "rejects": rejects,
        "cost": usage.cost / NANO,
        "list_cost": usage.list_cost / NANO,
        "lifetime": _lifetime(paid),
        "forecast": asdict(run.forecast) if run.forecast else None,
        "pending": results.pending,
        "contact_sheet": str((folder / "contact-sheet.html").resolve()),
        "coverage": str((folder / "coverage.html").resolve()),
        "seconds": round(seconds, 1),
        "scores": run.scores,
        "airflow": {
            "tasks": run.airflow.tasks,
            "seconds_in_tasks": round(run.airflow.seconds_in_tasks, 1),
            "failed": run.failures,
        }
        if run.airflow
        else None,
    }


def _scores(found: dict[str, Any]) -> list[str]:
    """What the fine-tune came to, in a few lines: each benchmark, and the kinds of easy-vqa's questions."""
    loss = found["loss"]["after"]
    curve = f": loss {loss['first']:.2f} to {loss['last']:.2f}" if loss["first"] else ""
    lines = [f"fine-tune of {found['model']} on {found['release']}{curve}"]
    for each in found["benchmarks"]:
        if each["family"] != "all" and each["benchmark"] != EASY_VQA:
            continue
        values = {name: value["value"] for name, value in each["scores"].items()}
        gain = each["gain"]
        lines.append(
            f"  {each['benchmark']:<9} {each['family']:<7} {values[BEFORE]:.2f} before, {values[AFTER]:.2f} after "
            f"({gain['low']:+.2f} to {gain['high']:+.2f}), {values[AFTER_SWAPPED]:.2f} with images swapped, "
            f"{values.get(BLIND, float('nan')):.2f} without, {values[MAJORITY]:.2f} by the majority: {each['verdict']}"
        )
    return [*lines, *([f"  {found['note']}"] if found["note"] else [])]


def _lifetime(paid: Bill) -> dict[str, Any]:
    return {
        "calls": paid.all.calls,
        "tokens": paid.all.tokens,
        "cost": paid.all.cost / NANO,
        "list_cost": paid.all.list_cost / NANO,
    }


def summary_lines(run: DemoRun, summary: dict[str, Any], folder: Path) -> list[str]:
    lines = ["", *run_text.ingested(run.receipts), ""]
    counts = [run.release.funnel] if run.release else []
    lines += [*run_text.funnel([*run.results.funnel, *counts]), ""]
    lifetime = summary["lifetime"]
    lines += [
        f"{summary['samples']:,} samples of {summary['task_types']:,} task types from {summary['images']:,} images"
        + ("  (SIMULATED models: for trying the machinery, not for training)" if summary["simulated"] else ""),
        *run_text.ended(run.results.result),
        *(f"FAILED    {each}" for each in run.failures),
        f"in all    {lifetime['calls']:,} calls, {lifetime['tokens']:,} tokens, ${lifetime['cost']:.4f}; "
        f"at list prices ${lifetime['list_cost']:.4f}",
        *costs_text.checked(run.forecast),
        f"took      {summary['seconds']:.0f} s",
        "",
    ]
    if run.release:
        lines += release_text.released(run.release)
        local = (folder / "release" / run.release.release.name).resolve()
        lines.append(f'  load it: datasets.load_dataset("{local}")')
    if run.scores:
        lines += ["", *_scores(run.scores), ""]
    pages = [f"contact sheet: {summary['contact_sheet']}", f"coverage:      {summary['coverage']}"]
    return [*lines, *pages, f"summary:       {folder / 'summary.json'}"]
