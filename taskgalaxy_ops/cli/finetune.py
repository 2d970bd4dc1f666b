"""Commands that train on a release and score the checkpoints: finetune, scores, study, evaluate."""

from __future__ import annotations

import argparse
import json
import sys
import uuid
from dataclasses import asdict
from pathlib import Path

from taskgalaxy_ops.cli.common import AddCommand, positive, say, workspace_of
from taskgalaxy_ops.errors import SourceError
from taskgalaxy_ops.evaluate import run as evaluate_run
from taskgalaxy_ops.finetune import run as finetune_run
from taskgalaxy_ops.finetune.recipes import load_recipe, shipped
from taskgalaxy_ops.reports.console import show_progress
from taskgalaxy_ops.reports.pages.finetune import write_card
from taskgalaxy_ops.reports.text import finetune as finetune_text


def add(add_command: AddCommand) -> None:
    """Add the parsers of finetune, scores, study and evaluate."""
    sub = add_command(
        "finetune", _finetune, "train a model on a release, and score what it changed; finds a job that runs"
    )
    sub.add_argument("--release", metavar="v000001", help="default: the latest")
    sub.add_argument("--recipe", help="one that ships (--list) or a YAML file; default: the settings'")
    sub.add_argument("--backend", choices=["local", "command", "kubernetes"], help="default: the settings'")
    sub.add_argument("--trainer", help="another of the recipe's trainers than its first")
    sub.add_argument("--evaluate", action="append", metavar="BENCHMARK", help="repeatable; default: held-out, easy-vqa")
    what = sub.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="the recipes that ship")
    what.add_argument("--render", action="store_true", help="only write the jobs' files, and say where; submit nothing")
    what.add_argument("--submit", action="store_true", help="do not wait: the same command finds the jobs again")
    what.add_argument("--cancel", action="store_true", help="stop the jobs that this command names")
    sub = add_command("scores", _scores, "the scores of all fine-tunes as a table in the paper's layout (Markdown)")
    sub.add_argument("--published", action="store_true", help="and what others published, in italics")
    sub = add_command(
        "study", _study, "are more task types better? models trained on nested subsets of a release's task types"
    )
    sub.add_argument("--built-in", type=Path, metavar="FOLDER", help="make the data there first: ships, simulated")
    sub.add_argument("--design", choices=["types", "variants"], default="types", help="default: %(default)s")
    sub.add_argument("--release", metavar="v000001", help="default: the latest")
    sub.add_argument("--recipe", help="default: the settings'")
    sub.add_argument("--seeds", type=positive, default=3, help="default: %(default)s")
    sub.add_argument("--samples", type=positive, help="of each arm, at most; default: 400")
    sub.add_argument(
        "--out", type=Path, default=Path("study"), help="gets study.json, study.md, study.svg; default: %(default)s"
    )
    sub = add_command(
        "evaluate", _evaluate, "score a checkpoint against another, with images swapped, on a release's test split"
    )
    sub.add_argument("checkpoint", help="a folder that transformers loads, or a hub's name")
    sub.add_argument("--before", required=True, metavar="CHECKPOINT", help="what it is compared with")
    sub.add_argument("--release", metavar="v000001", help="default: the latest")
    sub.add_argument("--benchmark", action="append", metavar="NAME", help="repeatable; default: held-out, easy-vqa")


def _finetune(chosen: argparse.Namespace) -> int:
    if chosen.list:
        recipes = [load_recipe(name) for name in shipped()]
        say(chosen, {"recipes": [recipe.model_dump(mode="json") for recipe in recipes]}, finetune_text.recipes(recipes))
        return 0
    workspace = finetune_run.on_backend(workspace_of(chosen), chosen.backend)
    tuning = finetune_run.tuning(workspace, release=chosen.release, recipe=chosen.recipe, trainer=chosen.trainer)
    run = f"cli/{uuid.uuid4().hex}"
    if chosen.render or chosen.submit or chosen.cancel:
        jobs = finetune_run.Trainings(workspace, run).handle(tuning.jobs, submit=chosen.submit, cancel=chosen.cancel)
        lines = [f"{role:<8} {each['name']}  {each['state']:<10} {each['folder']}" for role, each in jobs.items()]
        say(chosen, {"jobs": jobs}, lines)
        return 0
    try:
        with show_progress(chosen.quiet or chosen.json) as progress:
            results = finetune_run.train(workspace, tuning.jobs, run, progress)
            scored = evaluate_run.score_tuning(workspace, tuning, chosen.evaluate or evaluate_run.OWN, progress)
            write_card(workspace, tuning, scored)
    except KeyboardInterrupt:
        print("Training goes on: the same command finds it again, with --cancel it stops it.", file=sys.stderr)
        return 130
    value = evaluate_run.summary(tuning, results, scored)
    say(chosen, value, [*finetune_text.scored(scored), *finetune_text.tuned(results, workspace.store.url, scored)])
    return 0


def _scores(chosen: argparse.Namespace) -> int:
    from taskgalaxy_ops.evaluate.published import published
    from taskgalaxy_ops.evaluate.table import poster

    scores = [score for score in evaluate_run.kept(workspace_of(chosen)) if not score.family]
    if not scores and not chosen.published:
        raise SourceError("scores: nothing has been scored yet. Run `taskgalaxy finetune`.")
    scores += published() if chosen.published else []
    say(chosen, {"scores": [asdict(score) for score in scores]}, [poster(scores)])
    return 0


def _study(chosen: argparse.Namespace) -> int:
    from taskgalaxy_ops.demo.run import study_data
    from taskgalaxy_ops.evaluate import study

    with show_progress(chosen.quiet or chosen.json) as progress:
        workspace = study_data(chosen.built_in.resolve(), progress) if chosen.built_in else workspace_of(chosen)
        result = study.run(
            workspace,
            design=chosen.design,
            release=chosen.release,
            recipe=chosen.recipe,
            seeds=chosen.seeds,
            samples=chosen.samples,
            progress=progress,
        )
    chosen.out.mkdir(parents=True, exist_ok=True)
    value = asdict(result)
    (chosen.out / "study.json").write_text(json.dumps(value, indent=1), encoding="utf-8")
    (chosen.out / "study.md").write_text(study.page(result), encoding="utf-8")
    if chosen.design == "types":
        (chosen.out / "study.svg").write_bytes(study.picture(result))
    say(chosen, value, [study.page(result), f"written to {chosen.out.resolve()}"])
    return 0


def _evaluate(chosen: argparse.Namespace) -> int:
    workspace = workspace_of(chosen)
    with show_progress(chosen.quiet or chosen.json) as progress:
        scored = evaluate_run.score_checkpoints(
            workspace,
            finetune_run.release_copy(workspace, chosen.release),
            {finetune_run.BEFORE: chosen.before, finetune_run.AFTER: chosen.checkpoint},
            chosen.benchmark or evaluate_run.OWN,
            model=chosen.checkpoint,
            progress=progress,
        )
    say(
        chosen,
        {"scores": [asdict(score) for score in scored.scores], "id": scored.identity},
        finetune_text.scored(scored),
    )
    return 0
