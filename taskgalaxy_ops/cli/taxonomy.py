"""Commands for versions of the task types: growing, editing and looking at them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from taskgalaxy_ops.cli.common import AddCommand, positive, say, workspace_of
from taskgalaxy_ops.operations.carried_answers import carried_answers
from taskgalaxy_ops.operations.weak_branches import weak_branches
from taskgalaxy_ops.reports.console import show_progress
from taskgalaxy_ops.reports.text import run as run_text
from taskgalaxy_ops.reports.text import taxonomy as taxonomy_text
from taskgalaxy_ops.taxonomy import TaxonomyVersion, add_types, aliases, diff, tree, weaknesses
from taskgalaxy_ops.taxonomy.exchange import FORMATS, exported, imported, left_out
from taskgalaxy_ops.taxonomy.expand import Growth, expand
from taskgalaxy_ops.taxonomy.search import search
from taskgalaxy_ops.taxonomy.stats import taxonomy_stats
from taskgalaxy_ops.taxonomy.store import TaxonomyStore


def add(add_command: AddCommand, commands: Any) -> None:
    """Add `taxonomy` and its actions."""
    taxonomy = commands.add_parser("taxonomy", help="versions of the task types: expand, import, rename, search, …")
    group = taxonomy.add_subparsers(required=True, metavar="ACTION")
    sub = add_command("expand", _expand, "ask the teacher for new task types at each level", group)
    sub.add_argument(
        "--rounds", type=positive, help="default: 1, with --up-to as many as it takes; ends early when nothing is new"
    )
    sub.add_argument("--max-new", type=positive, help="nodes to add at most")
    sub.add_argument("--up-to", type=positive, help="task types at which growing ends, breadth first until then")
    sub = add_command("add", _add, "add task types by hand", group)
    sub.add_argument(
        "types", nargs="*", metavar="PATH", help="levels joined by ~, e.g. 'ocr~scene text ocr~sign reading'"
    )
    sub.add_argument("--file", type=Path, help="a YAML file in the form of the seeds")
    sub = add_command("retire", _retire, "take task types, or whole branches, out of what is made from now on", group)
    sub.epilog = "Nothing that was paid for is lost: `taxonomy add` brings them back, and asks nothing."
    sub.add_argument("types", nargs="+", metavar="PATH", help="a task type or a node above some, as the tree shows it")
    _add_aliases(add_command, group)
    sub = add_command("import", _import, "add task types from a file: YAML, JSON, CSV, or paths joined by ~", group)
    sub.add_argument("file", type=Path)
    sub.add_argument("--format", choices=FORMATS, help="default: by the file's name, or else by its content")
    sub.add_argument("--replace", action="store_true", help="retire what is not in the file")
    sub.add_argument("--dry-run", action="store_true", help="only say what would change")
    sub = add_command("export", _export, "a version as a file that `taxonomy import` reads", group)
    sub.add_argument("--format", choices=FORMATS, default="yaml", help="default: %(default)s; json and csv hold all")
    sub.add_argument("--to", type=Path, metavar="FILE", help="default: standard output")
    sub.add_argument("--version", type=int, help="default: the newest")
    add_command("list", _versions, "all versions", group)
    sub = add_command("stats", _stats, "how broad, deep and even a version is", group)
    sub.add_argument("--version", type=int, help="default: the newest")
    sub = add_command("search", _search, "find task types by words and by meaning", group)
    sub.add_argument("words", nargs="+", metavar="WORD")
    sub.add_argument("-n", type=int, default=10, metavar="N", help="task types found by meaning; default: %(default)s")
    sub.add_argument("--words-only", action="store_true", help="not by meaning: opens no encoder")
    sub.add_argument("--version", type=int, help="default: the newest")
    sub = add_command("tree", _tree, "a version as a tree", group)
    sub.add_argument("--version", type=int, help="default: the newest")
    sub.add_argument("--depth", type=positive, default=4, help="levels shown; default: all")
    sub = add_command("weak", _weak, "which branches a fine-tuned model is weak in, by its latest scores", group)
    sub.add_argument("--record", action="store_true", help="let growth and targets go by it (taxonomy.weaknesses)")
    sub = add_command("diff", _diff, "what changed from one version to another", group)
    sub.add_argument("old", type=int)
    sub.add_argument("new", type=int, nargs="?", help="default: the newest")


def _add_aliases(add_command: AddCommand, group: Any) -> None:
    answers = "keep: nothing is asked again; ask-again: the models see the new path. Default: %(default)s"
    sub = add_command("rename", _rename, "give a node another name; all below it goes along", group)
    sub.add_argument("old", metavar="PATH")
    sub.add_argument("new", metavar="NEW", help="its new name, or its whole new path with ~")
    moved = add_command("move", _move, "put a node, and all below it, below another one", group)
    moved.add_argument("path", metavar="PATH")
    moved.add_argument("below", metavar="BELOW", help="'' for the first level")
    merged = add_command("merge", _merge, "make one node of several; a branch's nodes are merged by name", group)
    merged.add_argument("old", nargs="+", metavar="FROM")
    merged.add_argument(
        "into", metavar="INTO", help="a node, which is asked as before; or a new path, which is asked as the first FROM"
    )
    for each in (sub, moved, merged):
        each.add_argument("--answers", choices=("keep", "ask-again"), default="keep", help=answers)
        each.add_argument("--dry-run", action="store_true", help="only say what would change, and what it would cost")


def _expand(chosen: argparse.Namespace) -> int:
    workspace = workspace_of(chosen)
    with show_progress(chosen.quiet or chosen.json) as progress:
        rounds = chosen.rounds or (None if chosen.up_to else 1)
        growth = Growth(rounds=rounds, max_new=chosen.max_new, up_to=chosen.up_to)
        result = expand(workspace, growth, progress=progress)
    say(chosen, asdict(result), run_text.expanded(result))
    return 0


def _add(chosen: argparse.Namespace) -> int:
    taxonomy_store = TaxonomyStore(workspace_of(chosen))
    base = taxonomy_store.version()
    nodes = add_types(base.nodes, chosen.types)
    nodes = add_types(nodes, chosen.file) if chosen.file else nodes
    number = taxonomy_store.publish(base.number, nodes, [], "hand")
    changes = diff(base, taxonomy_store.version(number))
    added, again = [node.path for node in changes.added], [node.path for _, node in changes.changed]
    summary = f"version {number}: {len(added)} nodes added" + (f", {len(again)} live again" if again else "")
    say(chosen, {"version": number, "added": added, "again": again}, [summary, *added, *again])
    return 0


def _retire(chosen: argparse.Namespace) -> int:
    taxonomy_store = TaxonomyStore(workspace_of(chosen))
    base = taxonomy_store.version()
    following = base.retire(*chosen.types)
    number = taxonomy_store.publish(base.number, following.nodes, [], "hand")
    retired = [node.path for node in diff(base, following).retired]
    say(chosen, {"version": number, "retired": retired}, [f"version {number}: {len(retired)} nodes retired", *retired])
    return 0


def _rename(chosen: argparse.Namespace) -> int:
    return _alias(chosen, lambda base, keep: aliases.rename(base, chosen.old, chosen.new, keep=keep))


def _move(chosen: argparse.Namespace) -> int:
    return _alias(chosen, lambda base, keep: aliases.move(base, chosen.path, chosen.below, keep=keep))


def _merge(chosen: argparse.Namespace) -> int:
    return _alias(chosen, lambda base, keep: aliases.merge(base, chosen.old, chosen.into, keep=keep))


def _alias(chosen: argparse.Namespace, change: Callable[[TaxonomyVersion, bool], TaxonomyVersion]) -> int:
    workspace = workspace_of(chosen)
    taxonomy_store = TaxonomyStore(workspace)
    base = taxonomy_store.version()
    following = change(base, chosen.answers == "keep")
    renamed = diff(base, following).renamed
    answers = carried_answers(workspace, base, renamed)
    number = base.number
    if not chosen.dry_run:
        number = taxonomy_store.publish(base.number, following.nodes, [], "hand")
    summary = f"version {number}{' (nothing is changed)' if chosen.dry_run else ''}:"
    value = {"version": number, "renamed": [asdict(each) for each in renamed], "answers": asdict(answers)}
    say(chosen, value, [summary, *taxonomy_text.renamed(renamed), *taxonomy_text.carried(answers)])
    return 0


def _import(chosen: argparse.Namespace) -> int:
    taxonomy_store = TaxonomyStore(workspace_of(chosen))
    base = taxonomy_store.version()
    grown = imported(base, chosen.file, chosen.format, replace=chosen.replace)
    following = TaxonomyVersion(base.number + 1, base.number, tuple(grown.nodes))
    changes, number = diff(base, following), base.number
    if not chosen.dry_run:
        number = taxonomy_store.publish(base.number, following.nodes, [], "import")
    summary = f"version {number}: {len(following.leaves() if not chosen.dry_run else base.leaves()):,} task types"
    value = {"version": number, "dry_run": chosen.dry_run, **asdict(changes), "notes": grown.notes}
    say(chosen, value, [summary, *taxonomy_text.imported(changes, grown.notes, dry_run=chosen.dry_run)])
    return 0


def _export(chosen: argparse.Namespace) -> int:
    version = TaxonomyStore(workspace_of(chosen)).version(chosen.version)
    text, lacking = exported(version, chosen.format), left_out(version, chosen.format)
    if chosen.to is None:
        print(text, end="")
    else:
        chosen.to.write_text(text, "utf-8", newline="")
        value = {"version": version.number, "file": str(chosen.to), "left_out": lacking}
        say(chosen, value, [f"version {version.number} written to {chosen.to}"])
    if lacking and not chosen.json:
        print(f"{chosen.format} does not hold: {', '.join(lacking)}. json and csv do.", file=sys.stderr)
    return 0


def _stats(chosen: argparse.Namespace) -> int:
    found = taxonomy_stats(TaxonomyStore(workspace_of(chosen)).version(chosen.version))
    say(chosen, asdict(found), taxonomy_text.stats(found))
    return 0


def _search(chosen: argparse.Namespace) -> int:
    number = 0 if chosen.words_only else max(0, chosen.n)
    words = " ".join(chosen.words)
    found = search(TaxonomyStore(workspace_of(chosen).snapshot()), words, number, chosen.version)
    value = {
        "version": found.version,
        "by_words": [asdict(node) for node in found.by_words],
        "by_meaning": [{"task_type": path, "similarity": cosine} for path, cosine in found.by_meaning],
    }
    say(chosen, value, taxonomy_text.search(found))
    return 0


def _versions(chosen: argparse.Namespace) -> int:
    versions = TaxonomyStore(workspace_of(chosen)).versions()
    shown = [
        {name: each[name] for name in ("version", "base", "origin", "leaves", "rejected") if name in each}
        for each in versions
    ]
    say(chosen, {"versions": shown}, run_text.versions(shown))
    return 0


def _tree(chosen: argparse.Namespace) -> int:
    version = TaxonomyStore(workspace_of(chosen)).version(chosen.version)
    leaves = [node.path for node in version.leaves()]
    say(chosen, {"version": version.number, "leaves": leaves}, tree(version, chosen.depth))
    return 0


def _weak(chosen: argparse.Namespace) -> int:
    workspace = workspace_of(chosen)
    found = weak_branches(workspace)
    lines = [f"{found.model}: the weakest branch first; 1 is the average", *run_text.weak_branches(found)]
    if chosen.record:
        lines.append(f"recorded as number {weaknesses.record(workspace.store, found)}")
        if workspace.settings.taxonomy.weaknesses is None:
            lines.append("Nothing goes by it yet: set taxonomy.weaknesses to {}.")
    say(chosen, asdict(found), lines)
    return 0


def _diff(chosen: argparse.Namespace) -> int:
    taxonomy_store = TaxonomyStore(workspace_of(chosen))
    changes = diff(taxonomy_store.version(chosen.old), taxonomy_store.version(chosen.new))
    say(chosen, asdict(changes), taxonomy_text.changes(changes))
    return 0
