"""Commands that show what a store holds: report, status, costs, plan, explain, verify.

They change nothing, except that `plan --cost` stores its forecast, and `plan --probe` asks models about a few images.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from taskgalaxy_ops.cli.common import AddCommand, say, to_json, workspace_of
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.models import pricing
from taskgalaxy_ops.operations.costs import costs
from taskgalaxy_ops.operations.explain import explain
from taskgalaxy_ops.operations.forecast import checked, forecast, record
from taskgalaxy_ops.operations.plan import plan
from taskgalaxy_ops.operations.probe import probe
from taskgalaxy_ops.operations.status import status
from taskgalaxy_ops.operations.takedown import left
from taskgalaxy_ops.operations.verify import glance, verify
from taskgalaxy_ops.reports.console import show_progress
from taskgalaxy_ops.reports.pages import contact_sheet
from taskgalaxy_ops.reports.text import costs as costs_text
from taskgalaxy_ops.reports.text import explain as explain_text
from taskgalaxy_ops.reports.text import plan as plan_text
from taskgalaxy_ops.reports.text import run as run_text
from taskgalaxy_ops.reports.text import status as status_text
from taskgalaxy_ops.settings import Settings


def add(add_command: AddCommand) -> None:
    """Add the parsers of report, status, costs, plan, explain and verify."""
    sub = add_command("report", _report, "write the contact sheet: one HTML page with the funnel and a gallery")
    sub.add_argument("--out", type=Path, default=Path("contact-sheet.html"), help="default: %(default)s")
    add_command("status", _status, "how far the store is: each source, each stage, spending, releases")
    sub = add_command(
        "costs", _costs, "what was paid, and for what: role, stage, model, source, run, task type; asks nothing"
    )
    sub.add_argument("--task-types", action="store_true", help="by task type too: reads every journal")
    sub = add_command("plan", _plan, "what a run would make and ask, why, and what it would take; asks nothing")
    sub.add_argument("--source", action="append", metavar="SOURCE", help="only this source's shards; repeatable")
    sub.add_argument("--taxonomy", type=int, metavar="VERSION", help="task types of this version; default: the newest")
    sub.add_argument("--cost", action="store_true", help="and forecast what it would cost, from what is answered")
    sub.add_argument(
        "--probe",
        type=int,
        nargs="?",
        const=0,
        metavar="N",
        help="first ask about N images in all (default: 100 of each source, at most 5 %% of it), where fewer are "
        "answered; their answers are kept",
    )
    sub = add_command(
        "explain", _explain, "the whole story of an image, a sample or a task type: what was made of it, and why"
    )
    sub.add_argument(
        "what",
        metavar="SAMPLE | IMAGE | TASK_TYPE",
        help="the beginning of an id, a task type's path or its last levels, or a file's path within its source",
    )
    sub = add_command(
        "verify", _verify, "check every image, stage output, journal and release against its hashes and counts"
    )
    sub.add_argument("--quick", action="store_true", help="only that all is there, by logs, markers and listings")
    sub.add_argument("--takedown", action="store_true", help="and look for what is left of images that were taken down")


def _report(chosen: argparse.Namespace) -> int:
    contact_sheet.write(chosen.out, contact_sheet.report_data(RunResults(workspace_of(chosen).snapshot())))
    say(chosen, {"page": str(chosen.out.resolve())}, [f"contact sheet: {chosen.out.resolve()}"])
    return 0


def _status(chosen: argparse.Namespace) -> int:
    workspace = workspace_of(chosen)
    state, latest_forecast = status(workspace), checked(workspace)
    value = {**asdict(state), "forecast": None if latest_forecast is None else asdict(latest_forecast)}
    say(chosen, value, [*status_text.status(state), *costs_text.checked(latest_forecast)])
    return 0


def _costs(chosen: argparse.Namespace) -> int:
    breakdown = costs(workspace_of(chosen), task_types=chosen.task_types)
    say(chosen, asdict(breakdown), costs_text.costs(breakdown))
    return 0


def _plan(chosen: argparse.Namespace) -> int:
    workspace, asked = workspace_of(chosen), None
    if chosen.probe is not None:
        with show_progress(chosen.quiet or chosen.json) as progress:
            asked = probe(workspace, chosen.probe or None, chosen.source, chosen.taxonomy, progress)
    run_plan = plan(workspace, chosen.source, chosen.taxonomy)
    value, lines = to_json(run_plan, shards="homes"), plan_text.plan(run_plan)
    if chosen.cost or chosen.probe is not None:
        made = forecast(workspace, chosen.source, chosen.taxonomy)
        record(workspace, made)
        value, lines = (
            {**value, "forecast": asdict(made), "probe": None if asked is None else asdict(asked)},
            [*lines, *costs_text.forecast(made, asked), *_unpriced(workspace.settings)],
        )
    say(chosen, value, lines)
    return 0


def _unpriced(settings: Settings) -> list[str]:
    """A line for each model without a known price, which a forecast counts as free."""
    models = dict.fromkeys(settings.models)
    return [f"unknown   {pricing.unpriced(each)}" for each in models if pricing.price_of(each) is None]


def _explain(chosen: argparse.Namespace) -> int:
    story = explain(workspace_of(chosen), chosen.what)
    say(chosen, story, explain_text.explained(story))
    return 0


def _verify(chosen: argparse.Namespace) -> int:
    with show_progress(chosen.quiet or chosen.json) as progress:
        workspace = workspace_of(chosen)
        findings = glance(workspace) if chosen.quick else verify(workspace, progress)
        if chosen.takedown:
            findings.checked["take-down"] = len(workspace.registry.denied())
            findings.damage += [f"take-down: {line}. Run `taskgalaxy takedown --finish`." for line in left(workspace)]
    say(chosen, asdict(findings), run_text.verified(findings))
    return 1 if findings.damage else 0
