"""The demo: SeaweedFS, the simulated models and Airflow on loopback, and the whole pipeline on images that ship.

A demo that was killed is gone on with: its servers are stopped first, and nothing that was answered is asked again.
``--without-airflow`` calls the library itself, in this process.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
import time
import uuid
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from taskgalaxy_ops import (
    finetuning,
    forecasting,
    money_views,
    pipeline,
    provisioning,
    publishing,
    reporting,
    scoring,
    views,
)
from taskgalaxy_ops.airflow_stack import USER, AirflowStack, dag_ids
from taskgalaxy_ops.canonical import fingerprint, sha256_hex
from taskgalaxy_ops.catalogue import Catalogue
from taskgalaxy_ops.conducting import Conducted, Conductor
from taskgalaxy_ops.console import show_progress
from taskgalaxy_ops.errors import PendingError, SettingsError, SourceError, TaskGalaxyError
from taskgalaxy_ops.evaluate.comparing import AFTER, AFTER_SWAPPED, BEFORE, BLIND, MAJORITY
from taskgalaxy_ops.evaluate.questions import EASY_VQA
from taskgalaxy_ops.expansion import ExpandResult, expand
from taskgalaxy_ops.galaxy import Galaxy
from taskgalaxy_ops.harvest import Bill, Harvest, bill
from taskgalaxy_ops.models.chat import Usage
from taskgalaxy_ops.pipeline import IngestReceipt
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.publishing import Published, ReleaseReceipt
from taskgalaxy_ops.release import MANIFEST
from taskgalaxy_ops.services import SeaweedFS, Simulator, stop_left_over
from taskgalaxy_ops.settings import Settings, load_settings, parse_settings
from taskgalaxy_ops.storage.budget import NANO

_DEMO_SETTINGS = Path(__file__).with_name("demo.yaml")
_STUDY_SETTINGS = Path(__file__).with_name("study.yaml")
_OWN_STORE = "s3://taskgalaxy/own-"  # and a hash: in the demo's S3
_COUNTED = ("calls", "prompt_tokens", "completion_tokens", "cost", "list_cost")  # of a usage and of a bill
_NEW_TYPES = 40  # nodes that the demo's expansion adds


def up(chosen: argparse.Namespace) -> int:
    """Start the servers and leave them running; print addresses, user and password, and the settings file."""
    folder: Path = chosen.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    stop_left_over(folder)
    with ExitStack() as undo:
        seaweed, simulator = SeaweedFS(folder), Simulator(folder)
        for service in (seaweed, simulator):
            undo.callback(service.stop)
            service.start()
        variables = [f"export {name}={value}" for name, value in seaweed.environment.items()]
        os.environ.update(seaweed.environment)
        settings = _up_settings(folder / "taskgalaxy.yaml", simulator.base_url)
        stack = AirflowStack(folder, settings, parse_seconds=30, more={"TASKGALAXY_CACHE": str(folder / "sources")})
        undo.callback(stack.stop)
        _start(stack, load_settings(settings))
        undo.pop_all()
    command = shlex.join([str(Path(sys.executable).parent / "taskgalaxy"), "status", "--settings", str(settings)])
    print(
        f"\nAirflow   {stack.url}\nuser      {USER}\npassword  {stack.password}\n"
        f"settings  {settings}  (yours to change)\nmodels    {simulator.base_url}  (simulated, any key)\n\n"
        "`galaxy_watch` looks at the settings' sources every five minutes; trigger it to begin now, or ingest\n"
        "your own with the form of `galaxy_ingest`. A grown taxonomy waits for your approval.\n"
        "`make down` stops everything. From a shell:\n\n" + "\n".join([*variables, command])
    )
    return 0


def _up_settings(file: Path, base_url: str) -> Path:
    """The settings file of ``up``: made once, since it is the user's; simulated models get today's address."""
    if file.exists():
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    else:
        raw = _demo_settings(base_url, {})
        raw["airflow"] = {**raw["airflow"], "schedules": {"watch": "*/5 * * * *"}}
        raw["taxonomy"] = {"approval": "required"}
    former = yaml.safe_dump(raw, sort_keys=False)
    for model in (raw["teacher"], *raw["judges"]):
        if model.get("simulated"):
            model["base_url"] = base_url
    now = yaml.safe_dump(raw, sort_keys=False, allow_unicode=True)
    if now != former or not file.exists():
        file.write_text(now, encoding="utf-8")
    return file


def _start(stack: AirflowStack, settings: Settings) -> None:
    """Start Airflow with what the settings need."""
    stack.start(lambda text: print(text, file=sys.stderr, flush=True))
    provisioning.apply(stack.client(), settings)
    stack.wait_for_dags(dag_ids())


def down(chosen: argparse.Namespace) -> int:
    """Stop what ``up`` started."""
    print(f"stopped: {', '.join(stop_left_over(chosen.folder)) or 'nothing was running'}")
    return 0


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
        if str(own.get("store", _OWN_STORE)).startswith(_OWN_STORE):  # another is reached with the user's own keys
            os.environ.update(stack.enter_context(SeaweedFS(folder)).environment)
        simulator = stack.enter_context(Simulator(folder)) if "teacher" not in own else None
        raw = _demo_settings(simulator.base_url, own) if simulator else own
        raw["finetune"] = {
            **_demo_settings("", {})["finetune"],
            "folder": str(folder / "finetune"),
            **own.get("finetune", {}),
        }
        galaxy = Galaxy.open(parse_settings(raw, chosen.settings or "of the demo"))
        tune = not chosen.without_finetune and _can_tune()
        if chosen.without_airflow:
            with show_progress() as progress:
                run = _run(galaxy, progress, tune)
        else:
            run = _conduct(galaxy, raw, folder, stack, tune)
        _report(folder, run)
        if run.release:
            _copy(galaxy, run.release.release, folder / "release")
        summary = _summary(run, folder, time.monotonic() - started)
    (folder / "summary.json").write_text(json.dumps(summary, indent=1, ensure_ascii=False), encoding="utf-8")
    print("\n".join(_lines(run, summary, folder)))
    if run.harvest.pending:
        return 3
    return 1 if run.failures else 0


def study_data(folder: Path, progress: Progress) -> Galaxy:
    """A release for the study, of images that ship, by simulated models; made once, and gone on with after a kill."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TASKGALAXY_CACHE", str(folder / "sources"))
    stop_left_over(folder)
    with Simulator(folder) as simulator:
        raw = _demo_settings(simulator.base_url, yaml.safe_load(_STUDY_SETTINGS.read_text(encoding="utf-8")))
        raw |= {
            "store": (folder / "store").as_uri(),
            "finetune": {**raw["finetune"], "folder": str(folder / "finetune")},
        }
        galaxy = Galaxy.open(parse_settings(raw, "of the study"))
        for name in galaxy.settings.sources:
            pipeline.ingest(galaxy, name, progress=progress)
        harvest = Harvest(galaxy, pipeline.generate(galaxy, progress=progress))
        publishing.publish(galaxy, harvest=harvest, progress=progress)
    return galaxy


def _own(chosen: argparse.Namespace) -> dict[str, Any]:
    """What the user sets instead of the demo's own; without a store in it, each choice has a prefix of its own.

    Raises SettingsError, SourceError.
    """
    own: dict[str, Any] = {}
    if chosen.settings:
        path = Path(chosen.settings)
        try:
            own = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise SettingsError(f"settings {path}: cannot be read as YAML ({error}).") from error
        if not isinstance(own, dict) or "teacher" not in own or "judges" not in own:
            raise SettingsError(f"settings {path}: a `teacher` and `judges` are needed. See `taskgalaxy settings`.")
        demo_settings = _demo_settings("", {})
        own = {"sources": demo_settings["sources"], "match": demo_settings["match"], **own}
    if chosen.source:
        source = Path(chosen.source).expanduser().resolve()
        if not source.is_dir():
            raise SourceError(f"SOURCE: {source} is no folder. Name one that holds images.")
        own["sources"] = {source.name or "images": {"location": str(source)}}
    if own:
        marks = [str(Path(value).expanduser().resolve()) for value in (chosen.settings, chosen.source) if value]
        own.setdefault("store", f"{_OWN_STORE}{fingerprint('demo', marks)[:12]}")
    return own


def _demo_settings(base_url: str, own: dict[str, Any]) -> dict[str, Any]:
    text = _DEMO_SETTINGS.read_text(encoding="utf-8").replace("BASE_URL", base_url or "http://127.0.0.1/v1")
    settings: dict[str, Any] = yaml.safe_load(text)
    return {**settings, **own}


@dataclass(frozen=True, slots=True)
class _Run:
    """What one run of the demo came to."""

    receipts: list[IngestReceipt]
    grown: ExpandResult | None
    harvest: Harvest  # its usage is this run's, expansion and probe included
    release: ReleaseReceipt | None
    encoder_passes: int
    forecast: forecasting.Checked | None  # the latest, and what was spent since
    airflow: Conducted | None = None
    scores: dict[str, Any] | None = None  # of the fine-tune

    @property
    def failures(self) -> list[str]:
        return self.airflow.failures if self.airflow else []


def _can_tune() -> bool:
    """Whether the extra ``train`` is installed; says so where it is not."""
    missing = [name for name in ("torch", "transformers", "trl") if find_spec(name) is None]
    if missing:
        print(f"no fine-tune: {', '.join(missing)} not installed. pip install 'taskgalaxy-ops[train]'", file=sys.stderr)
    return not missing


def _tune(galaxy: Galaxy, progress: Progress) -> dict[str, Any] | None:
    """Fine-tune on the latest release and score it; None, with the reason said, where it cannot be trained on."""
    try:
        tuning = finetuning.tuning(galaxy)
        results = finetuning.train(galaxy, tuning.jobs, f"demo/{uuid.uuid4().hex}", progress)
        return scoring.summary(tuning, results, scoring.score_tuning(galaxy, tuning, progress=progress))
    except TaskGalaxyError as error:
        progress.note(f"no fine-tune: {error}")
        return None


def _run(galaxy: Galaxy, progress: Progress, tuned: bool) -> _Run:
    receipts = [pipeline.ingest(galaxy, name, progress=progress) for name in galaxy.settings.sources]
    grown = _grow(galaxy, progress)
    probed = forecasting.probe(galaxy, progress=progress)
    made = forecasting.forecast(galaxy)
    forecasting.record(galaxy, made)
    for line in money_views.forecast(made):
        progress.note(line)
    harvest = Harvest(galaxy, pipeline.generate(galaxy, progress=progress))
    release = None
    if harvest.pending and not harvest.count("vote", "samples"):
        progress.note("Nothing has been accepted yet, so there is no release.")
    else:
        release = publishing.publish(galaxy, partial=bool(harvest.pending), harvest=harvest, progress=progress)
    usage = harvest.result.usage
    for other in (probed.usage, *([grown.usage] if grown else [])):
        for name in _COUNTED:
            setattr(usage, name, getattr(usage, name) + getattr(other, name))
    scores = _tune(galaxy, progress) if tuned and release else None
    passes = galaxy.encoder.passes if "encoder" in galaxy.__dict__ else 0
    return _Run(receipts, grown, harvest, release, passes, forecasting.checked(galaxy), scores=scores)


def _conduct(galaxy: Galaxy, raw: dict[str, Any], folder: Path, servers: ExitStack, tuned: bool) -> _Run:
    """The same through Airflow. Raises TaskGalaxyError where not even a source could be ingested."""
    file = folder / "taskgalaxy.yaml"
    file.write_text(yaml.safe_dump(_for_airflow(raw), sort_keys=False, allow_unicode=True), encoding="utf-8")
    cache = {"TASKGALAXY_CACHE": os.environ["TASKGALAXY_CACHE"]}
    stack = AirflowStack(folder, file, more=cache)
    servers.callback(stack.stop)
    _start(stack, galaxy.settings)
    paid, released = bill(galaxy).all, publishing.published(galaxy)
    conductor = Conductor(stack.client(), galaxy)
    conductor.ingest(_NEW_TYPES)
    if not galaxy.registry.scans():
        raise TaskGalaxyError("\n".join(conductor.conducted().failures) or "no source was ingested")
    print("\n".join(money_views.forecast(forecasting.forecast(galaxy))), flush=True)
    conductor.generate()
    harvest = Harvest(galaxy)
    if harvest.pending and harvest.count("vote", "samples"):
        conductor.release_partial()
        harvest = Harvest(galaxy)
    scores = None
    if tuned and publishing.published(galaxy) and not conductor.conducted().failures:
        conductor.finetune()
        if not conductor.conducted().failures:
            # What the DAG trained and scored is found by its keys: nothing is done again.
            scores = _tune(galaxy, Silent())
    now = harvest.paid.all
    harvest.result.usage = Usage(**{name: getattr(now, name) - getattr(paid, name) for name in _COUNTED})
    done = conductor.conducted()
    receipts = [
        IngestReceipt(
            scan.source,
            scan.claims.rows + scan.rejects.rows,
            scan.claims.rows,
            done.ingested.get(scan.source, {}).get("new_images", 0),
            done.ingested.get(scan.source, {}).get("new_shards", 0),
            [reject for reject in harvest.file_rejects if reject.source == scan.source],
        )
        for scan in galaxy.registry.scans().values()
    ]
    release = publishing.standing(galaxy, released)
    return _Run(receipts, None, harvest, release, done.encoded, forecasting.checked(galaxy), done, scores)


def _for_airflow(raw: dict[str, Any]) -> dict[str, Any]:
    """The settings as tasks read them, who may stand in another folder; nobody is there to approve a taxonomy."""
    settings = {**raw, "taxonomy": {"approval": "off", **raw.get("taxonomy", {})}}
    settings["airflow"] = {**_demo_settings("", {})["airflow"], **raw.get("airflow", {})}
    sources = {name: dict(source) for name, source in raw["sources"].items()}
    for source in sources.values():
        if ":" not in source["location"]:
            source["location"] = str(Path(source["location"]).expanduser().resolve())
    return {**settings, "sources": sources}


def _grow(galaxy: Galaxy, progress: Progress) -> ExpandResult | None:
    """One small round of expansion, if the seeds are all there is. A round cut short is left for the next run."""
    if len(Catalogue(galaxy).versions()) > 1:
        return None
    try:
        return expand(galaxy, max_new=_NEW_TYPES, progress=progress)
    except PendingError as error:
        progress.note(str(error))
        return None


def _report(folder: Path, run: _Run) -> None:
    counts = run.release.funnel if run.release else None
    reporting.write(folder / "contact-sheet.html", reporting.report_data(run.harvest, release_counts=counts))


def _copy(galaxy: Galaxy, one: Published, folder: Path) -> None:
    """Copy a release; what a demo on other images left there under the same number makes way, whole."""
    manifest = folder / one.name / MANIFEST
    if not manifest.is_file() or sha256_hex(manifest.read_bytes()) != one.manifest_sha256:
        shutil.rmtree(folder / one.name, ignore_errors=True)
    publishing.fetch(galaxy, one, folder)


def _summary(run: _Run, folder: Path, seconds: float) -> dict[str, Any]:
    harvest, paid = run.harvest, run.harvest.paid
    rejects = {counts.stage: dict(counts.rejects) for counts in harvest.funnel}
    released = run.release
    if released:
        rejects["release"] = dict(released.funnel.rejects)
    if run.grown:
        rejects["expand"] = dict(Counter(str(reject.reason) for reject in run.grown.rejects))
    usage = harvest.result.usage
    return {
        "simulated": harvest.simulated,
        "samples": released.release.samples if released else 0,
        "task_types": released.release.task_types if released else 0,
        "images": harvest.live_images,
        "sources": harvest.sources,
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
        "pending": harvest.pending,
        "contact_sheet": str((folder / "contact-sheet.html").resolve()),
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


def _lines(run: _Run, summary: dict[str, Any], folder: Path) -> list[str]:
    lines = ["", *views.ingested(run.receipts), ""]
    counts = [run.release.funnel] if run.release else []
    lines += [*views.funnel([*run.harvest.funnel, *counts]), ""]
    lifetime = summary["lifetime"]
    lines += [
        f"{summary['samples']:,} samples of {summary['task_types']:,} task types from {summary['images']:,} images"
        + ("  (SIMULATED models: for trying the machinery, not for training)" if summary["simulated"] else ""),
        *views.ended(run.harvest.result),
        *(f"FAILED    {each}" for each in run.failures),
        f"in all    {lifetime['calls']:,} calls, {lifetime['tokens']:,} tokens, ${lifetime['cost']:.4f}; "
        f"at list prices ${lifetime['list_cost']:.4f}",
        *money_views.checked(run.forecast),
        f"took      {summary['seconds']:.0f} s",
        "",
    ]
    if run.release:
        lines += views.released(run.release, None)
        local = (folder / "release" / run.release.release.name).resolve()
        lines.append(f'  load it: datasets.load_dataset("{local}")')
    if run.scores:
        lines += ["", *_scores(run.scores), ""]
    return [*lines, f"contact sheet: {summary['contact_sheet']}", f"summary:       {folder / 'summary.json'}"]
