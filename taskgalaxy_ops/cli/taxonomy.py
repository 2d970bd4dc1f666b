"""Commands for versions of the task types: expand, add, retire, list, tree, diff."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from taskgalaxy_ops.cli.common import AddCommand, positive, say, workspace_of
from taskgalaxy_ops.reports.console import show_progress
from taskgalaxy_ops.reports.text import run as run_text
from taskgalaxy_ops.taxonomy import add_types, diff, normalise_path, tree
from taskgalaxy_ops.taxonomy.expand import Growth, expand
from taskgalaxy_ops.taxonomy.store import TaxonomyStore


def add(add_command: AddCommand, commands: Any) -> None:
    """Add `taxonomy` and its actions."""
    taxonomy = commands.add_parser("taxonomy", help="versions of the task types: expand, add, retire, list, tree, diff")
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
    add_command("list", _versions, "all versions", group)
    sub = add_command("tree", _tree, "a version as a tree", group)
    sub.add_argument("--version", type=int, help="default: the newest")
    sub.add_argument("--depth", type=positive, default=4, help="levels shown; default: all")
    sub = add_command("diff", _diff, "what changed from one version to another", group)
    sub.add_argument("old", type=int)
    sub.add_argument("new", type=int, nargs="?", help="default: the newest")


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
    following = base.retire(*map(normalise_path, chosen.types))
    number = taxonomy_store.publish(base.number, following.nodes, [], "hand")
    retired = [node.path for node in diff(base, following).retired]
    say(chosen, {"version": number, "retired": retired}, [f"version {number}: {len(retired)} nodes retired", *retired])
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


def _diff(chosen: argparse.Namespace) -> int:
    taxonomy_store = TaxonomyStore(workspace_of(chosen))
    changes = diff(taxonomy_store.version(chosen.old), taxonomy_store.version(chosen.new))
    say(chosen, asdict(changes), run_text.changes(changes))
    return 0
