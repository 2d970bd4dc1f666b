"""The command line: any step of the pipeline, without Airflow. Output on standard output, progress on standard error.

Exit codes: 0 done, 1 an error that the message explains, 2 wrong usage, 3 something is pending (budget, a model out of
reach), 130 interrupted. Whatever was answered is kept in all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import sys
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from taskgalaxy_ops import (
    doctor,
    finetuning,
    look_commands,
    money_views,
    pilot,
    pipeline,
    provisioning,
    publishing,
    reporting,
    scoring,
    views,
)
from taskgalaxy_ops.airflow_client import AirflowClient
from taskgalaxy_ops.catalogue import Catalogue
from taskgalaxy_ops.cli_upkeep import add_commands
from taskgalaxy_ops.console import show_progress
from taskgalaxy_ops.errors import PendingError, SourceError, TaskGalaxyError
from taskgalaxy_ops.expansion import expand
from taskgalaxy_ops.finetune.recipes import load_recipe, shipped
from taskgalaxy_ops.forecasting import checked, forecast
from taskgalaxy_ops.harvest import Harvest
from taskgalaxy_ops.look_commands import galaxy_of, loaded, say
from taskgalaxy_ops.settings import EXAMPLE
from taskgalaxy_ops.taxonomy import add_types, diff, normalise_path, tree

PENDING = 3
_STAGES = {
    "match": "the nearest task types of each image (encodes what has no embedding yet)",
    "filter": "match, then the teacher keeps the task types that fit",
    "write": "match and filter, then the teacher writes question-answer pairs",
    "vote": "match, filter and write, then the judges vote",
    "generate": "the whole chain: match, filter, write, vote",
}

Command = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit code."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    command: Command = chosen.command
    try:
        return command(chosen)
    except TaskGalaxyError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return PENDING if isinstance(error, PendingError) else 1
    except KeyboardInterrupt:
        print("Interrupted. What was answered is kept: run the same command again to go on.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `taskgalaxy taxonomy tree | head`
        sys.stderr.close()
        return 0
    except sqlite3.OperationalError as error:  # a temporary database that had no room to grow
        print(f"{error}. Free space where temporary files lie, or name a folder with room by TMPDIR.", file=sys.stderr)
        return 1
    except OSError as error:
        if error.filename is None:
            raise
        print(f"{error.filename}: {error.strerror}. Name another place.", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--settings", type=Path, default=Path("taskgalaxy.yaml"), help="default: %(default)s")
    common.add_argument("--store", help="instead of the settings' store: s3://bucket/prefix or file:///folder")
    common.add_argument("--json", action="store_true", help="one JSON object on standard output")
    common.add_argument("--quiet", action="store_true", help="no progress")
    parser = argparse.ArgumentParser(
        prog="taskgalaxy",
        description="Turns images into vision-language instruction data with tens of thousands of task types.",
        epilog="Start with `taskgalaxy settings > taskgalaxy.yaml`, then `taskgalaxy pilot --limit 50`.",
    )
    parser.add_argument("--version", action="version", version=version("taskgalaxy-ops"))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Command, about: str, group: Any = commands, shared: bool = True) -> Any:
        sub = group.add_parser(name, help=about, description=about, parents=[common] if shared else [])
        sub.set_defaults(command=command)
        return sub

    add("settings", _settings, "print a settings file to start from", shared=False)
    sub = add("ingest", _ingest, "register sources of the settings: read, check and keep their images")
    sub.add_argument("sources", nargs="*", metavar="SOURCE", help="default: all of the settings")
    sub.add_argument("--remove", action="store_true", help="take these sources' images out of what is made from now on")
    _add_taxonomy(add, commands)
    for name, about in _STAGES.items():
        sub = add(name, _generate, about)
        sub.add_argument("--source", action="append", metavar="SOURCE", help="only this source's shards; repeatable")
        sub.set_defaults(last_stage="vote" if name == "generate" else name)
    sub = add("release", _release, "make an immutable data set of all samples: LLaVA JSON, Parquet, card, manifest")
    sub.add_argument("--partial", action="store_true", help="although something is pending; the release says so")
    sub.add_argument("--to", type=Path, metavar="FOLDER", help="copy it there, too")
    _add_finetune(add)
    sub = add("pilot", _pilot, "run a few images to a contact sheet with a forecast of the full bill")
    sub.add_argument("--limit", type=_positive, default=50, help="images; default: %(default)s")
    sub.add_argument("--out", type=Path, default=Path("pilot.html"), help="default: %(default)s")
    look_commands.add(add)
    add_commands(add, commands, loaded, say)
    add("doctor", _doctor, "is all there that a run needs? store, models (one tiny call each), encoder, this machine")
    _add_airflow(add, commands)
    _add_local(add)
    return parser


def _add_finetune(add: Callable[..., Any]) -> None:
    sub = add("finetune", _finetune, "train a model on a release, and score what it changed; finds a job that runs")
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
    sub = add("scores", _scores, "the scores of all fine-tunes as a table in the paper's layout (Markdown)")
    sub.add_argument("--published", action="store_true", help="and what others published, in italics")
    sub = add("study", _study, "are more task types better? models trained on nested subsets of a release's task types")
    sub.add_argument("--built-in", type=Path, metavar="FOLDER", help="make the data there first: ships, simulated")
    sub.add_argument("--design", choices=["types", "variants"], default="types", help="default: %(default)s")
    sub.add_argument("--release", metavar="v000001", help="default: the latest")
    sub.add_argument("--recipe", help="default: the settings'")
    sub.add_argument("--seeds", type=_positive, default=3, help="default: %(default)s")
    sub.add_argument("--samples", type=_positive, help="of each arm, at most; default: 400")
    sub.add_argument(
        "--out", type=Path, default=Path("study"), help="gets study.json, study.md, study.svg; default: %(default)s"
    )
    sub = add(
        "evaluate", _evaluate, "score a checkpoint against another, with images swapped, on a release's test split"
    )
    sub.add_argument("checkpoint", help="a folder that transformers loads, or a hub's name")
    sub.add_argument("--before", required=True, metavar="CHECKPOINT", help="what it is compared with")
    sub.add_argument("--release", metavar="v000001", help="default: the latest")
    sub.add_argument("--benchmark", action="append", metavar="NAME", help="repeatable; default: held-out, easy-vqa")


def _add_airflow(add: Callable[..., Any], commands: Any) -> None:
    airflow = commands.add_parser("airflow", help="give an Airflow what the DAGs need: connections and pools")
    group = airflow.add_subparsers(required=True, metavar="ACTION")
    sub = add("provision", _provision, "make its connections and pools those of the settings; keys from here", group)
    sub.epilog = "The password is read from AIRFLOW_PASSWORD, keys from AWS's variables and each model's api_key_env."
    sub.add_argument(
        "--url", default=os.environ.get("AIRFLOW_URL", "http://localhost:8080"), help="default: %(default)s"
    )
    sub.add_argument("--user", default=os.environ.get("AIRFLOW_USER", "admin"), help="default: %(default)s")
    sub.add_argument("--dry-run", action="store_true", help="only print what would be set; needs no Airflow")


def _add_taxonomy(add: Callable[..., Any], commands: Any) -> None:
    taxonomy = commands.add_parser("taxonomy", help="versions of the task types: expand, add, retire, list, tree, diff")
    group = taxonomy.add_subparsers(required=True, metavar="ACTION")
    sub = add("expand", _expand, "ask the teacher for new task types at each level", group)
    sub.add_argument("--rounds", type=_positive, default=1, help="default: %(default)s; ends early when nothing is new")
    sub.add_argument("--max-new", type=_positive, help="nodes to add at most")
    sub.add_argument("--up-to", type=_positive, help="task types at which growing ends")
    sub = add("add", _add, "add task types by hand", group)
    sub.add_argument(
        "types", nargs="*", metavar="PATH", help="levels joined by ~, e.g. 'ocr~scene text ocr~sign reading'"
    )
    sub.add_argument("--file", type=Path, help="a YAML file in the form of the seeds")
    sub = add("retire", _retire, "take task types, or whole branches, out of what is made from now on", group)
    sub.epilog = "Nothing that was paid for is lost: `taxonomy add` brings them back, and asks nothing."
    sub.add_argument("types", nargs="+", metavar="PATH", help="a task type or a node above some, as the tree shows it")
    add("list", _versions, "all versions", group)
    sub = add("tree", _tree, "a version as a tree", group)
    sub.add_argument("--version", type=int, help="default: the newest")
    sub.add_argument("--depth", type=_positive, default=4, help="levels shown; default: all")
    sub = add("diff", _diff, "what changed from one version to another", group)
    sub.add_argument("old", type=int)
    sub.add_argument("new", type=int, nargs="?", help="default: the newest")


def _add_local(add: Callable[..., Any]) -> None:
    """Commands that run something on this machine; their modules load what the core does without."""

    def local(name: str) -> Command:
        def command(chosen: argparse.Namespace) -> int:
            from taskgalaxy_ops import demo

            commands: dict[str, Command] = {"demo": demo.demo, "up": demo.up, "down": demo.down}
            return commands[name](chosen)

        return command

    sub = add("simulate", _simulate, "serve the simulated models, OpenAI-compatible, on loopback", shared=False)
    sub.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    sub.add_argument("--port", type=int, default=8009, help="default: %(default)s")
    sub.add_argument("--stats", type=Path, help="a file that keeps the counts of /stats over restarts")
    sub.add_argument("--config", type=Path, help="YAML: seed, wrong_share, judges, latency, faults, limits, batches")
    set_help = "a field over it, such as latency=0.2, limits.concurrency=16 or faults.malformed=0.05; repeatable"
    sub.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help=set_help)
    sub.add_argument("--canned", action="store_true", help="replies drawn by hash at the highest rate: for benchmarks")
    for name, about in (
        ("demo", "run the whole pipeline on built-in images with simulated models (what `make demo` calls)"),
        ("up", "start SeaweedFS, the simulated models and Airflow, and leave them running"),
        ("down", "stop what `up` started"),
    ):
        sub = add(name, local(name), about, shared=False)
        sub.add_argument("--folder", type=Path, default=Path("build") / ("demo" if name == "demo" else "up"))
        if name == "demo":
            sub.add_argument("--source", help="a folder of your own images")
            sub.add_argument("--settings", help="a settings file with your own teacher and judges")
            sub.add_argument(
                "--without-airflow", action="store_true", help="the library alone, in this process: quicker"
            )
            sub.add_argument("--without-finetune", action="store_true", help="end with the release")


def _simulate(chosen: argparse.Namespace) -> int:
    from taskgalaxy_ops.models.simulated.config import load_config
    from taskgalaxy_ops.models.simulated.serve import serve

    config = load_config(chosen.config, chosen.set)
    serve(
        config,
        chosen.host,
        chosen.port,
        chosen.stats,
        announce=lambda url: print(f"serving {url}", flush=True),
        canned=chosen.canned,
    )
    return 0


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def _settings(_: argparse.Namespace) -> int:
    print(EXAMPLE.read_text(encoding="utf-8"), end="")
    return 0


def _ingest(chosen: argparse.Namespace) -> int:
    galaxy = galaxy_of(chosen)
    if chosen.remove and not chosen.sources:
        raise SourceError("ingest --remove: name the sources to remove.")
    names = chosen.sources or list(galaxy.settings.sources)
    if not names:
        raise SourceError("ingest: the settings name no source. Add one under `sources`: name, then `location`.")
    if chosen.remove:
        gone = [name for name in chosen.sources if galaxy.registry.remove(name)]
        say(chosen, {"removed": gone}, [f"removed: {', '.join(gone) or 'none'}"])
        return 0
    with show_progress(chosen.quiet or chosen.json) as progress:
        receipts = [pipeline.ingest(galaxy, name, progress=progress) for name in names]
    say(chosen, {"sources": [asdict(receipt) for receipt in receipts]}, views.ingested(receipts))
    return 0


def _expand(chosen: argparse.Namespace) -> int:
    galaxy = galaxy_of(chosen)
    with show_progress(chosen.quiet or chosen.json) as progress:
        result = expand(galaxy, rounds=chosen.rounds, max_new=chosen.max_new, up_to=chosen.up_to, progress=progress)
    say(chosen, asdict(result), views.expanded(result))
    return 0


def _add(chosen: argparse.Namespace) -> int:
    catalogue = Catalogue(galaxy_of(chosen))
    base = catalogue.version()
    nodes = add_types(base.nodes, chosen.types)
    nodes = add_types(nodes, chosen.file) if chosen.file else nodes
    number = catalogue.publish(base.number, nodes, [], "hand")
    found = diff(base, catalogue.version(number))
    added, again = [node.path for node in found.added], [node.path for _, node in found.changed]
    told = f"version {number}: {len(added)} nodes added" + (f", {len(again)} live again" if again else "")
    say(chosen, {"version": number, "added": added, "again": again}, [told, *added, *again])
    return 0


def _retire(chosen: argparse.Namespace) -> int:
    catalogue = Catalogue(galaxy_of(chosen))
    base = catalogue.version()
    following = base.retire(*map(normalise_path, chosen.types))
    number = catalogue.publish(base.number, following.nodes, [], "hand")
    retired = [node.path for node in diff(base, following).retired]
    say(chosen, {"version": number, "retired": retired}, [f"version {number}: {len(retired)} nodes retired", *retired])
    return 0


def _versions(chosen: argparse.Namespace) -> int:
    versions = Catalogue(galaxy_of(chosen)).versions()
    shown = [
        {name: each[name] for name in ("version", "base", "origin", "leaves", "rejected") if name in each}
        for each in versions
    ]
    say(chosen, {"versions": shown}, views.versions(shown))
    return 0


def _tree(chosen: argparse.Namespace) -> int:
    shown = Catalogue(galaxy_of(chosen)).version(chosen.version)
    leaves = [node.path for node in shown.leaves()]
    say(chosen, {"version": shown.number, "leaves": leaves}, tree(shown, chosen.depth))
    return 0


def _diff(chosen: argparse.Namespace) -> int:
    catalogue = Catalogue(galaxy_of(chosen))
    found = diff(catalogue.version(chosen.old), catalogue.version(chosen.new))
    say(chosen, asdict(found), views.changes(found))
    return 0


def _generate(chosen: argparse.Namespace) -> int:
    galaxy = galaxy_of(chosen)
    with show_progress(chosen.quiet or chosen.json) as progress:
        result = pipeline.generate(galaxy, sources=chosen.source, last_stage=chosen.last_stage, progress=progress)
    if chosen.last_stage == "match":
        say(chosen, {"homes": len(result.matches)}, [f"{len(result.matches)} shards matched"])
        return 0
    funnel = Harvest(galaxy, result).funnel
    value = {
        "funnel": [asdict(counts) for counts in funnel],
        "usage": asdict(result.usage),
        "pending": result.pending,
        "reasons": result.reasons,
    }
    lines = [*views.funnel(funnel), *views.ended(result)]
    if result.unaffordable:
        rest = forecast(galaxy, chosen.source)
        value, lines = (
            {**value, "rest": asdict(rest)},
            [*lines, *(f"          {line}" for line in money_views.rest(rest))],
        )
    say(chosen, value, [*lines, *money_views.checked(checked(galaxy))])
    return PENDING if result.pending else 0


def _release(chosen: argparse.Namespace) -> int:
    galaxy = galaxy_of(chosen)
    with show_progress(chosen.quiet or chosen.json) as progress:
        receipt = publishing.publish(galaxy, partial=chosen.partial, progress=progress)
    local = publishing.fetch(galaxy, receipt.release, chosen.to) if chosen.to else None
    value = {**asdict(receipt), "local": str(local) if local else None}
    say(chosen, value, views.released(receipt, local))
    return 0


def _finetune(chosen: argparse.Namespace) -> int:
    if chosen.list:
        found = [load_recipe(name) for name in shipped()]
        say(chosen, {"recipes": [recipe.model_dump(mode="json") for recipe in found]}, views.recipes(found))
        return 0
    galaxy = finetuning.on_backend(galaxy_of(chosen), chosen.backend)
    tuning = finetuning.tuning(galaxy, release=chosen.release, recipe=chosen.recipe, trainer=chosen.trainer)
    run = f"cli/{uuid.uuid4().hex}"
    if chosen.render or chosen.submit or chosen.cancel:
        jobs = finetuning.Trainings(galaxy, run).handle(tuning.jobs, submit=chosen.submit, cancel=chosen.cancel)
        lines = [f"{role:<8} {each['name']}  {each['state']:<10} {each['folder']}" for role, each in jobs.items()]
        say(chosen, {"jobs": jobs}, lines)
        return 0
    try:
        with show_progress(chosen.quiet or chosen.json) as progress:
            results = finetuning.train(galaxy, tuning.jobs, run, progress)
            scored = scoring.score_tuning(galaxy, tuning, chosen.evaluate or scoring.OWN, progress)
    except KeyboardInterrupt:
        print("Training goes on: the same command finds it again, with --cancel it stops it.", file=sys.stderr)
        return 130
    value = scoring.summary(tuning, results, scored)
    say(chosen, value, [*views.scored(scored), *views.tuned(results, galaxy.store.url, scored)])
    return 0


def _scores(chosen: argparse.Namespace) -> int:
    from taskgalaxy_ops.evaluate.published import published
    from taskgalaxy_ops.evaluate.table import poster

    found = [score for score in scoring.kept(galaxy_of(chosen)) if not score.family]
    if not found and not chosen.published:
        raise SourceError("scores: nothing has been scored yet. Run `taskgalaxy finetune`.")
    found += published() if chosen.published else []
    say(chosen, {"scores": [asdict(score) for score in found]}, [poster(found)])
    return 0


def _study(chosen: argparse.Namespace) -> int:
    from taskgalaxy_ops import study
    from taskgalaxy_ops.demo import study_data

    with show_progress(chosen.quiet or chosen.json) as progress:
        galaxy = study_data(chosen.built_in.resolve(), progress) if chosen.built_in else galaxy_of(chosen)
        found = study.run(
            galaxy,
            design=chosen.design,
            release=chosen.release,
            recipe=chosen.recipe,
            seeds=chosen.seeds,
            samples=chosen.samples,
            progress=progress,
        )
    chosen.out.mkdir(parents=True, exist_ok=True)
    value = asdict(found)
    (chosen.out / "study.json").write_text(json.dumps(value, indent=1), encoding="utf-8")
    (chosen.out / "study.md").write_text(study.page(found), encoding="utf-8")
    if chosen.design == "types":
        (chosen.out / "study.svg").write_bytes(study.picture(found))
    say(chosen, value, [study.page(found), f"written to {chosen.out.resolve()}"])
    return 0


def _evaluate(chosen: argparse.Namespace) -> int:
    galaxy = galaxy_of(chosen)
    with show_progress(chosen.quiet or chosen.json) as progress:
        found = scoring.score_checkpoints(
            galaxy,
            finetuning.release_copy(galaxy, chosen.release),
            {finetuning.BEFORE: chosen.before, finetuning.AFTER: chosen.checkpoint},
            chosen.benchmark or scoring.OWN,
            model=chosen.checkpoint,
            progress=progress,
        )
    say(chosen, {"scores": [asdict(score) for score in found.scores], "id": found.identity}, views.scored(found))
    return 0


def _pilot(chosen: argparse.Namespace) -> int:
    galaxy = galaxy_of(chosen)
    with show_progress(chosen.quiet or chosen.json) as progress:
        found = pilot.pilot(galaxy, chosen.limit, progress)
    reporting.write(chosen.out, reporting.report_data(found.harvest, title="TaskGalaxy pilot", forecast=found.forecast))
    value = {"forecast": found.forecast, "page": str(chosen.out.resolve()), "pending": found.harvest.pending}
    lines = [*views.funnel(found.harvest.funnel), *views.ended(found.harvest.result), *views.forecast(found.forecast)]
    say(chosen, value, [*lines, f"contact sheet: {chosen.out.resolve()}"])
    return PENDING if found.harvest.pending else 0


def _doctor(chosen: argparse.Namespace) -> int:
    found = doctor.examine(loaded(chosen))
    lines = [f"{'ok ' if each.fine else 'NO '} {each.what}: {each.detail}" for each in found]
    say(chosen, {"findings": [asdict(each) for each in found]}, lines)
    return 0 if all(each.fine for each in found) else 1


def _provision(chosen: argparse.Namespace) -> int:
    settings = loaded(chosen)
    if chosen.dry_run:
        done = [f"pool {pool.name}: {pool.slots} slots" for pool in provisioning.pools(settings)]
        for each in provisioning.connections(settings):
            key = "with" if each.password else "without"
            done.append(f"connection {each.connection_id}: {each.host or 'no host'}, {key} a key")
    else:
        password = os.environ.get("AIRFLOW_PASSWORD", "")
        done = provisioning.apply(AirflowClient(chosen.url, chosen.user, password), settings)
    say(chosen, {"done": done}, done)
    return 0


if __name__ == "__main__":
    sys.exit(main())
