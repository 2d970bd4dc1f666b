"""Commands that run the pipeline (settings, ingest, each stage, pilot) and `doctor`, which says if a run would work."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.cli import encoders
from taskgalaxy_ops.cli.common import LOST, PENDING, AddCommand, loaded, positive, say, workspace_of
from taskgalaxy_ops.errors import SourceError
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.generation.stages import NAMES, STAGES
from taskgalaxy_ops.operations import doctor, pilot
from taskgalaxy_ops.operations.forecast import checked, forecast
from taskgalaxy_ops.reports.console import show_progress
from taskgalaxy_ops.reports.pages import contact_sheet
from taskgalaxy_ops.reports.text import costs as costs_text
from taskgalaxy_ops.reports.text import release as release_text
from taskgalaxy_ops.reports.text import run as run_text
from taskgalaxy_ops.reports.text import targets as targets_text
from taskgalaxy_ops.settings import EXAMPLE

_CHAIN = [stage for stage in STAGES if stage.about]
_STAGES = {
    **{stage.name: stage.about for stage in _CHAIN},
    "generate": f"the whole chain: {', '.join(stage.name for stage in _CHAIN)}",
}


def add_sources(add: AddCommand) -> None:
    """Add `settings` and `ingest`."""
    add("settings", _settings, "print a settings file to start from", shared=False)
    sub = add("ingest", _ingest, "register sources of the settings: read, check and keep their images")
    sub.add_argument("sources", nargs="*", metavar="SOURCE", help="default: all of the settings")
    sub.add_argument(
        "--again",
        action="store_true",
        help="read every file, also unchanged ones, and write anew what the store has lost of them or has damaged",
    )
    sub.add_argument("--remove", action="store_true", help="take these sources' images out of what is made from now on")


def add_stages(add: AddCommand) -> None:
    """Add a command for each stage, which runs the chain up to it."""
    for name, about in _STAGES.items():
        sub = add(name, _generate, about)
        sub.add_argument("--source", action="append", metavar="SOURCE", help="only this source's shards; repeatable")
        sub.set_defaults(last_stage=NAMES[-1] if name == "generate" else name)
        if name == "match":
            encoders.add_compare(sub)


def add_pilot(add: AddCommand) -> None:
    """Add `pilot`."""
    sub = add("pilot", _pilot, "run a few images to a contact sheet with a forecast of the full bill")
    sub.add_argument("--limit", type=positive, default=50, help="images; default: %(default)s")
    sub.add_argument("--out", type=Path, default=Path("pilot.html"), help="default: %(default)s")


def add_doctor(add: AddCommand) -> None:
    """Add `doctor`."""
    sub = add(
        "doctor", _doctor, "is all there that a run needs? store, models (one tiny call each), encoder, this machine"
    )
    encoders.add_trials(sub)


def _settings(_: argparse.Namespace) -> int:
    print(EXAMPLE.read_text(encoding="utf-8"), end="")
    return 0


def _ingest(chosen: argparse.Namespace) -> int:
    workspace = workspace_of(chosen)
    if chosen.remove and not chosen.sources:
        raise SourceError("ingest --remove: name the sources to remove.")
    names = chosen.sources or list(workspace.settings.sources)
    if not names:
        raise SourceError("ingest: the settings name no source. Add one under `sources`: name, then `location`.")
    if chosen.remove:
        gone = [name for name in chosen.sources if workspace.registry.remove(name)]
        say(chosen, {"removed": gone}, [f"removed: {', '.join(gone) or 'none'}"])
        return 0
    with show_progress(chosen.quiet or chosen.json) as progress:
        receipts = [pipeline.ingest(workspace, name, again=chosen.again, progress=progress) for name in names]
    say(chosen, {"sources": [asdict(receipt) for receipt in receipts]}, run_text.ingested(receipts))
    return 0


def _generate(chosen: argparse.Namespace) -> int:
    workspace = workspace_of(chosen)
    with show_progress(chosen.quiet or chosen.json) as progress:
        result = pipeline.generate(
            workspace, pipeline.RunOptions(sources=chosen.source, last_stage=chosen.last_stage), progress=progress
        )
    if chosen.last_stage == "match":
        say(chosen, {"homes": len(result.matches)}, [f"{len(result.matches)} shards matched"])
        return 0
    results = RunResults(workspace, result)
    funnel = results.funnel
    value = {
        "funnel": [asdict(counts) for counts in funnel],
        "usage": asdict(result.usage),
        "pending": result.pending,
        "reasons": result.reasons,
        "lost": results.lost.reasons,
        **({"targets": asdict(results.targets)} if results.targets else {}),
    }
    lines = [
        *run_text.funnel(funnel),
        *targets_text.targets(results.targets),
        *run_text.ended(result),
        *run_text.lost(results.lost),
    ]
    if result.unaffordable:
        rest = forecast(workspace, chosen.source)
        value, lines = (
            {**value, "rest": asdict(rest)},
            [*lines, *(f"          {line}" for line in costs_text.rest(rest))],
        )
    say(chosen, value, [*lines, *costs_text.checked(checked(workspace))])
    return _exit_code(results)


def _exit_code(results: RunResults) -> int:
    return PENDING if results.pending else LOST if results.lost_too_many else 0


def _pilot(chosen: argparse.Namespace) -> int:
    workspace = workspace_of(chosen)
    with show_progress(chosen.quiet or chosen.json) as progress:
        piloted = pilot.pilot(workspace, chosen.limit, progress)
    contact_sheet.write(
        chosen.out, contact_sheet.report_data(piloted.results, title="TaskGalaxy pilot", forecast=piloted.full_bill)
    )
    value = {"forecast": piloted.full_bill, "page": str(chosen.out.resolve()), "pending": piloted.results.pending}
    lines = [
        *run_text.funnel(piloted.results.funnel),
        *run_text.ended(piloted.results.result),
        *release_text.forecast(piloted.full_bill),
    ]
    say(chosen, value, [*lines, f"contact sheet: {chosen.out.resolve()}"])
    return _exit_code(piloted.results)


def _doctor(chosen: argparse.Namespace) -> int:
    findings = doctor.examine(loaded(chosen))
    lines = [f"{'ok ' if each.fine else 'NO '} {each.what}: {each.detail}" for each in findings]
    say(chosen, {"findings": [asdict(each) for each in findings]}, lines)
    return 0 if all(each.fine for each in findings) else 1
