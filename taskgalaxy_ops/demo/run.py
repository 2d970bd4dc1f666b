"""The demo itself: the whole pipeline, through Airflow or in this process."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.demo import start_airflow
from taskgalaxy_ops.demo.airflow_stack import AirflowStack
from taskgalaxy_ops.demo.conductor import Conductor
from taskgalaxy_ops.demo.services import SeaweedFS, Simulator, stop_left_over
from taskgalaxy_ops.demo.settings import OWN_STORE, STUDY_SETTINGS, demo_settings, settings_for_airflow
from taskgalaxy_ops.demo.summary import DemoRun, summary_lines, summary_of
from taskgalaxy_ops.errors import PendingError, SettingsError, SourceError, TaskGalaxyError
from taskgalaxy_ops.evaluate import run as evaluate_run
from taskgalaxy_ops.finetune import run as finetune_run
from taskgalaxy_ops.generation.bill import bill
from taskgalaxy_ops.generation.coverage import coverage
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.hashing import fingerprint, sha256_hex
from taskgalaxy_ops.operations import forecast
from taskgalaxy_ops.operations.coverage import targets_of
from taskgalaxy_ops.operations.coverage_groups import groups
from taskgalaxy_ops.operations.probe import probe
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.release import MANIFEST, publish
from taskgalaxy_ops.release.publish import Published, ReleaseReceipt
from taskgalaxy_ops.reports.console import show_progress
from taskgalaxy_ops.reports.pages import contact_sheet
from taskgalaxy_ops.reports.pages.coverage import coverage_page
from taskgalaxy_ops.reports.pages.finetune import write_card
from taskgalaxy_ops.reports.text import costs as costs_text
from taskgalaxy_ops.settings import parse_settings
from taskgalaxy_ops.sources.ingest import IngestReceipt
from taskgalaxy_ops.taxonomy.expand import ExpandResult, Growth, expand
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.usage import Usage
from taskgalaxy_ops.workspace import Workspace

_COUNTED = ("calls", "prompt_tokens", "completion_tokens", "cost", "list_cost")  # of a usage and of a bill
_NEW_TYPES = 64  # nodes that the demo's expansion adds


def demo(chosen: argparse.Namespace) -> int:
    """Run everything; gives 0, 3 where something is pending, or 1 where a task failed."""
    folder: Path = chosen.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    os.environ.setdefault("TASKGALAXY_CACHE", str(folder / "sources"))
    own = _own(chosen)
    if left := stop_left_over(folder):
        print(f"stopped what an earlier run left behind: {', '.join(left)}")
    with ExitStack() as stack:
        if str(own.get("store", OWN_STORE)).startswith(OWN_STORE):  # another is reached with the user's own keys
            os.environ.update(stack.enter_context(SeaweedFS(folder)).environment)
        simulator = stack.enter_context(Simulator(folder)) if "teacher" not in own else None
        raw = demo_settings(simulator.base_url, own) if simulator else own
        raw["finetune"] = {
            **demo_settings("", {})["finetune"],
            "folder": str(folder / "finetune"),
            **own.get("finetune", {}),
        }
        workspace = Workspace.open(parse_settings(raw, chosen.settings or "of the demo"))
        tune = not chosen.without_finetune and _can_tune()
        if chosen.without_airflow:
            with show_progress() as progress:
                run = _run(workspace, folder, progress, tune)
        else:
            run = _conduct(workspace, raw, folder, stack, tune)
        summary = summary_of(run, folder, time.monotonic() - started)
    (folder / "summary.json").write_text(json.dumps(summary, indent=1, ensure_ascii=False), encoding="utf-8")
    print("\n".join(summary_lines(run, summary, folder)))
    if run.results.pending:
        return 3
    return 1 if run.failures else 0


def study_data(folder: Path, progress: Progress) -> Workspace:
    """A release for the study, of images that ship, by simulated models; made once, and gone on with after a kill."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TASKGALAXY_CACHE", str(folder / "sources"))
    stop_left_over(folder)
    with Simulator(folder) as simulator:
        raw = demo_settings(simulator.base_url, yaml.safe_load(STUDY_SETTINGS.read_text(encoding="utf-8")))
        raw |= {
            "store": (folder / "store").as_uri(),
            "finetune": {**raw["finetune"], "folder": str(folder / "finetune")},
        }
        workspace = Workspace.open(parse_settings(raw, "of the study"))
        for name in workspace.settings.sources:
            pipeline.ingest(workspace, name, progress=progress)
        results = RunResults(workspace, pipeline.generate(workspace, progress=progress))
        publish.publish(workspace, results=results, progress=progress)
    return workspace


def _own(chosen: argparse.Namespace) -> dict[str, Any]:
    """What the user sets instead of the demo's own; without a store in it, each choice has a prefix of its own.

    Without models in it, the simulated ones are asked, and what it does not set is as in the demo.
    Raises SettingsError, SourceError.
    """
    own: dict[str, Any] = {}
    if chosen.settings:
        path = Path(chosen.settings)
        try:
            own = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise SettingsError(f"settings {path}: cannot be read as YAML ({error}).") from error
        if not isinstance(own, dict) or ("teacher" in own) != ("judges" in own):
            raise SettingsError(
                f"settings {path}: a `teacher` and `judges` are needed, or neither, for the simulated models. "
                "See `taskgalaxy settings`."
            )
        if "teacher" in own:
            of_demo = demo_settings("", {})
            own = {"sources": of_demo["sources"], "match": of_demo["match"], **own}
    if chosen.source:
        source = Path(chosen.source).expanduser().resolve()
        if not source.is_dir():
            raise SourceError(f"SOURCE: {source} is no folder. Name one that holds images.")
        own["sources"] = {source.name or "images": {"location": str(source)}}
    if own:
        marks = [str(Path(value).expanduser().resolve()) for value in (chosen.settings, chosen.source) if value]
        own.setdefault("store", f"{OWN_STORE}{fingerprint('demo', marks)[:12]}")
    return own


def _can_tune() -> bool:
    """Whether the extra ``train`` is installed; says so where it is not."""
    missing = [name for name in ("torch", "transformers", "trl") if find_spec(name) is None]
    if missing:
        print(f"no fine-tune: {', '.join(missing)} not installed. pip install 'taskgalaxy-ops[train]'", file=sys.stderr)
    return not missing


def _tune(workspace: Workspace, progress: Progress) -> dict[str, Any] | None:
    """Fine-tune on the latest release and score it; None, with the reason said, where it cannot be trained on."""
    try:
        tuning = finetune_run.tuning(workspace)
        results = finetune_run.train(workspace, tuning.jobs, f"demo/{uuid.uuid4().hex}", progress)
        scored = evaluate_run.score_tuning(workspace, tuning, progress=progress)
        write_card(workspace, tuning, scored)
        return evaluate_run.summary(tuning, results, scored)
    except TaskGalaxyError as error:
        progress.note(f"no fine-tune: {error}")
        return None


def _run(workspace: Workspace, folder: Path, progress: Progress, tuned: bool) -> DemoRun:
    receipts = [pipeline.ingest(workspace, name, progress=progress) for name in workspace.settings.sources]
    grown = _grow(workspace, progress)
    probed = probe(workspace, progress=progress)
    made = forecast.forecast(workspace)
    forecast.record(workspace, made)
    for line in costs_text.forecast(made):
        progress.note(line)
    results = RunResults(workspace, pipeline.generate(workspace, progress=progress))
    release = None
    if results.pending and not results.count("vote", "samples"):
        progress.note("Nothing has been accepted yet, so there is no release.")
    else:
        release = publish.publish(workspace, partial=bool(results.pending), results=results, progress=progress)
    usage = results.result.usage
    for other in (probed.usage, *([grown.usage] if grown else [])):
        for name in _COUNTED:
            setattr(usage, name, getattr(usage, name) + getattr(other, name))
    tuned = tuned and release is not None
    _hand_over(workspace, folder, results, release, tuned, progress.note)
    scores = _tune(workspace, progress) if tuned else None
    passes = workspace.encoder_passes
    return DemoRun(
        receipts=receipts,
        grown=grown,
        results=results,
        release=release,
        encoder_passes=passes,
        forecast=forecast.checked(workspace),
        scores=scores,
    )


def _conduct(workspace: Workspace, raw: dict[str, Any], folder: Path, servers: ExitStack, tuned: bool) -> DemoRun:
    """The same through Airflow. Raises TaskGalaxyError where not even a source could be ingested."""
    file = folder / "taskgalaxy.yaml"
    file.write_text(yaml.safe_dump(settings_for_airflow(raw), sort_keys=False, allow_unicode=True), encoding="utf-8")
    cache = {"TASKGALAXY_CACHE": os.environ["TASKGALAXY_CACHE"]}
    stack = AirflowStack(folder, file, more=cache)
    servers.callback(stack.stop)
    start_airflow(stack, workspace.settings)
    paid, released = bill(workspace).all, publish.published(workspace)
    conductor = Conductor(stack.client(), workspace)
    conductor.ingest(_NEW_TYPES)
    if not workspace.registry.scans():
        raise TaskGalaxyError("\n".join(conductor.conducted().failures) or "no source was ingested")
    print("\n".join(costs_text.forecast(forecast.forecast(workspace))), flush=True)
    conductor.generate()
    results = RunResults(workspace)
    if results.pending and results.count("vote", "samples"):
        conductor.release_partial()
        results = RunResults(workspace)
    release = publish.latest_release(workspace, released)
    tuned = tuned and bool(publish.published(workspace)) and not conductor.conducted().failures
    _hand_over(workspace, folder, results, release, tuned, lambda text: print(text, flush=True))
    scores = None
    if tuned:
        conductor.finetune()
        if not conductor.conducted().failures:
            # What the DAG trained and scored is found by its keys: nothing is done again.
            scores = _tune(workspace, Silent())
    now = results.paid.all
    results.result.usage = Usage(**{name: getattr(now, name) - getattr(paid, name) for name in _COUNTED})
    done = conductor.conducted()
    receipts = [
        IngestReceipt(
            source=scan.source,
            files=scan.claims.rows + scan.rejects.rows,
            images=scan.claims.rows,
            new_images=done.ingested.get(scan.source, {}).get("new_images", 0),
            new_shards=done.ingested.get(scan.source, {}).get("new_shards", 0),
            rejects=[reject for reject in results.file_rejects if reject.source == scan.source],
            left_out=scan.left_out or {},
        )
        for scan in workspace.registry.scans().values()
    ]
    return DemoRun(
        receipts=receipts,
        results=results,
        release=release,
        encoder_passes=done.encoded,
        forecast=forecast.checked(workspace),
        airflow=done,
        scores=scores,
    )


def _grow(workspace: Workspace, progress: Progress) -> ExpandResult | None:
    """One small round of expansion, if the seeds are all there is. A round cut short is left for the next run."""
    if len(TaxonomyStore(workspace).versions()) > 1:
        return None
    try:
        return expand(workspace, Growth(max_new=_NEW_TYPES), progress=progress)
    except PendingError as error:
        progress.note(str(error))
        return None


def _hand_over(
    workspace: Workspace,
    folder: Path,
    results: RunResults,
    release: ReleaseReceipt | None,
    tuned: bool,
    say: Callable[[str], None],
) -> None:
    """Copy the release, write its contact sheet and the coverage, and say where all are: before the fine-tune."""
    page, covered = folder / "contact-sheet.html", folder / "coverage.html"
    counts = release.funnel if release else None
    contact_sheet.write(page, contact_sheet.report_data(results, release_counts=counts))
    if release:
        _copy(workspace, release.release, folder / "release")
        one = release.release
        where = folder / "release" / one.name
        say(f"release:       {where} ({one.samples:,} samples of {one.task_types:,} task types)")
    say(f"contact sheet: {page}")
    found = coverage(workspace)
    targets = targets_of(workspace, found, None)
    covered.write_text(coverage_page(workspace, found, targets, groups(workspace, found)), encoding="utf-8")
    say(f"coverage:      {covered}")
    if tuned:
        say("the fine-tune follows: a tiny model is trained on the release, and scored")


def _copy(workspace: Workspace, one: Published, folder: Path) -> None:
    """Copy a release; what a demo on other images left there under the same number makes way, whole."""
    manifest = folder / one.name / MANIFEST
    if not manifest.is_file() or sha256_hex(manifest.read_bytes()) != one.manifest_sha256:
        shutil.rmtree(folder / one.name, ignore_errors=True)
    publish.fetch(workspace, one, folder)
