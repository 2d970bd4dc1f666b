"""Read task types that people write: the package's seeds, a seed file of the user's, task types added by hand.

A file is YAML in one of two shapes: nested (first level > second level > leaf, each leaf with a line on what is
asked, or a list of leaves), or a plain list of paths such as ``ocr~scene text ocr~sign reading``. Unlike a wrong
proposal of a model, anything wrong in a file is an error that names the line, because its author can correct it. What
people write keeps its spelling; case and blanks tell no two task types apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from taskgalaxy_ops.errors import TaxonomyError
from taskgalaxy_ops.records import Node, TaskTypePath
from taskgalaxy_ops.settings.load import compose_yaml
from taskgalaxy_ops.taxonomy import labels
from taskgalaxy_ops.taxonomy.version import LIVE, RETIRED, live_leaves

SEEDS_FILE = Path(__file__).with_name("seeds.yaml")

SHAPE = "Write 'first level: {second level: {leaf: what is asked}}', or a list of paths joined by '~'."
_MAX_ERRORS = 8  # shown at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A node as a file or a list has it, and its place there. What is None is not said."""

    path: TaskTypePath  # as it is written
    where: str
    about: str | None = None
    origin: str | None = None
    status: str = LIVE
    asked_as: TaskTypePath | None = None
    successor: TaskTypePath | None = None
    problem: str | None = None  # what is wrong with it, where that is known already


class Problem(Exception):
    """Raised where a file cannot be read further; its text becomes a line of the TaxonomyError."""


@dataclass(frozen=True, slots=True)
class Grown:
    """Nodes with those of a file or a list added, sorted by path, and what their author should know."""

    nodes: list[Node]
    notes: list[str]


def load_seeds(file: str | Path | None = None) -> list[Node]:
    """The nodes of a seed file (default: the package's), sorted by path; origin "seed".

    Raises TaxonomyError, naming file, lines and fixes, where the file cannot be read, holds no label, or holds a label
    that is invalid or occurs twice.
    """
    source = Path(file) if file is not None else SEEDS_FILE
    return grow([], read_yaml(source), "seed", f"seed file {source}").nodes


def add_types(nodes: Iterable[Node], types: Iterable[str] | Path) -> list[Node]:
    """All nodes with hand-written task types added, sorted by path; new ones and missing parents have origin "hand".

    types: paths joined by ``~``, or a YAML file as for seeds. An existing type stays as it is; a retired one becomes
    live again, with the nodes above it. Raises TaxonomyError as ``load_seeds`` does.
    """
    if isinstance(types, Path):
        return grow(nodes, read_yaml(types), "hand", f"file of task types {types}").nodes
    if isinstance(types, str):
        types = [types]
    entries = (Entry(path=path, where=f"entry {place}") for place, path in enumerate(types, 1))
    return grow(nodes, entries, "hand", "the list of task types").nodes


def grow(
    nodes: Iterable[Node],
    entries: Iterable[Entry],
    origin: str,
    source: str,
    *,
    update: bool = False,
    only: bool = False,
    shape: str = SHAPE,
) -> Grown:
    """Nodes with the entries added. The order of the entries changes nothing but the notes.

    origin: of new nodes whose entry does not say theirs. update: what an entry says counts for an existing node, too.
    only: nodes that are neither among the entries nor above one are retired. source, shape: what an error names, and
    says at its end. Raises TaxonomyError with all problems.
    """
    seen, problems = _checked(entries)
    if not seen and not problems:
        problems.append("it holds no label")
    if problems:
        rest = len(problems) - _MAX_ERRORS
        more = [f"and {rest} more"] if rest > 0 else []
        lines = "\n".join(f"  {line}" for line in (*problems[:_MAX_ERRORS], *more))
        raise TaxonomyError(f"{source} cannot be used:\n{lines}\n  {shape}")
    before = list(nodes)
    known = {labels.identity(node.path): node for node in before}
    spelled, notes = _spellings(seen, known)
    live = {each for one, entry in seen.items() if entry.status == LIVE for each in (*labels.ancestors(one), one)}
    for one in sorted(spelled, key=labels.level):
        node = known.get(one)
        if node is not None:
            known[one] = _changed(node, seen.get(one), live=one in live, update=update)
            if node.successor and one in live:
                notes.append(f"'{node.path}' became '{node.successor}'; now it is a task type of its own again")
            continue
        said = seen.get(one) or Entry(path=spelled[one], where="")
        status, first = LIVE if one in live else RETIRED, said.origin or origin
        known[one] = Node(spelled[one], labels.level(one), first, status, said.about, said.asked_as, said.successor)
    if only:
        known |= {one: replace(node, status=RETIRED) for one, node in known.items() if one not in live}
    grown = sorted(known.values(), key=lambda node: node.path)
    return Grown(grown, notes + _no_task_types(before, grown, seen))


def _checked(entries: Iterable[Entry]) -> tuple[dict[str, Entry], list[str]]:
    """The entries by identity, their paths as written; and what is wrong, a line each."""
    seen: dict[str, Entry] = {}
    problems: list[str] = []
    try:
        for entry in entries:
            path = labels.as_written(entry.path)
            one = labels.identity(path)
            reasons = [
                f"{name}{reason}"
                for name, text in (("", path), ("asked_as: ", entry.asked_as), ("successor: ", entry.successor))
                if text is not None and (reason := labels.check_written(text)) is not None
            ]
            if entry.about and (reason := labels.check_about(entry.about)) is not None:
                reasons.append(f"what '{labels.shown(path)}' asks: {reason}")
            if entry.problem:
                problems.append(f"{entry.where}: {entry.problem}")
            elif reasons:
                problems += [f"{entry.where}: {reason}" for reason in reasons]
            elif one in seen:
                twin = seen[one]
                alike = "" if twin.path == path else f", spelled '{twin.path}'"
                problems.append(f"{entry.where}: '{path}' is there already ({twin.where}){alike}; remove one")
            else:
                seen[one] = replace(entry, path=path)
    except Problem as problem:
        problems.append(str(problem))
    return seen, problems


def _spellings(seen: Mapping[str, Entry], known: Mapping[str, Node]) -> tuple[dict[str, TaskTypePath], list[str]]:
    """By identity, how the paths of the entries and of all nodes above them are spelled; and what differs from that.

    A node that is there keeps its spelling. Of a new one, that of its own entry counts, else the first in order.
    """
    names: dict[str, set[str]] = {}
    for one, entry in seen.items():
        above = zip((*labels.ancestors(one), one), (*labels.ancestors(entry.path), entry.path), strict=True)
        for part, path in above:
            names.setdefault(part, set()).add(labels.name(path))
    spelled: dict[str, TaskTypePath] = {}
    notes: list[str] = []
    for one in sorted(names, key=lambda each: (labels.level(each), each)):
        node = known.get(one)
        own = labels.name(node.path if node else seen[one].path) if node or one in seen else min(names[one])
        spelled[one] = node.path if node else labels.join(spelled.get(labels.parent(one), ""), own)
        if others := sorted(names[one] - {own}):
            rename = " here already; `taxonomy rename` changes that" if node else ""
            notes.append(f"'{others[0]}' is spelled '{spelled[one]}'{rename}")
    return spelled, notes


def _changed(node: Node, entry: Entry | None, *, live: bool, update: bool) -> Node:
    status = LIVE if live else node.status
    if entry is None or not update:
        return replace(node, status=status, successor=None if live else node.successor)
    return replace(
        node,
        status=LIVE if live else entry.status,
        origin=entry.origin or node.origin,
        about=entry.about or node.about,
        asked_as=entry.asked_as or node.asked_as,
        successor=None if live else entry.successor or node.successor,
    )


def _no_task_types(before: Iterable[Node], after: Iterable[Node], seen: Mapping[str, Entry]) -> list[str]:
    """Of entries that are no task types because other nodes lie below them, and of task types that become groups."""
    after = list(after)
    leaves = {node.path for node in live_leaves(after)}
    live = {labels.identity(node.path): node.path for node in after if node.status == LIVE}
    above = {each for one in seen for each in labels.ancestors(one)}
    groups = [one for one, entry in seen.items() if entry.status == LIVE and one not in above]
    notes = [
        f"'{live[one]}' is no task type: there are nodes below it, live or retired"
        for one in groups
        if live[one] not in leaves
    ]
    there = set(live.values()) - leaves
    divided = (node.path for node in live_leaves(before) if node.path in there)
    return notes + [f"'{path}' was a task type; with nodes below it, it is a group" for path in divided]


def read_yaml(file: Path) -> Iterator[Entry]:
    """The entries of a YAML file. Raises TaxonomyError where it is none, and Problem at what cannot be read further."""
    try:
        # compose instead of load, because the tree has line numbers, and keeps a key that occurs twice.
        root = compose_yaml(file.read_text("utf-8"))
    except OSError as error:
        raise TaxonomyError(
            f"taxonomy file {file} cannot be read: {error.strerror}.\n"
            "  Check `taxonomy.seeds`; leave it out for the package's seeds."
        ) from error
    except UnicodeDecodeError as error:
        raise TaxonomyError(
            f"taxonomy file {file} is not UTF-8 text (byte {error.start}): save it as UTF-8."
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise TaxonomyError(f"taxonomy file {file}{line} is not YAML: {problem}.\n  {SHAPE}") from error
    if isinstance(root, yaml.SequenceNode):
        yield from (Entry(path=_text(item), where=_where(item)) for item in root.value)
    elif isinstance(root, yaml.MappingNode):
        yield from _walk(root, "", 1)
    elif root is not None:
        raise TaxonomyError(f"taxonomy file {file} holds a single text.\n  {SHAPE}")


def _walk(node: yaml.Node, above: TaskTypePath, depth: int) -> Iterator[Entry]:
    """The entries below a path, leaves and groups. Depth is limited, because a YAML alias may contain itself."""
    if depth > labels.MAX_LEVELS:
        raise Problem(f"{_where(node)}: '{above}' has children on level {depth}; {labels.MAX_LEVELS} at most")
    if isinstance(node, yaml.SequenceNode):
        yield from (Entry(path=labels.join(above, _label(item)), where=_where(item)) for item in node.value)
        return
    for key, value in node.value:
        path = labels.join(above, _label(key))
        leaf = isinstance(value, yaml.ScalarNode)
        about = " ".join(value.value.split()) if leaf and value.tag != "tag:yaml.org,2002:null" else None
        yield Entry(path=path, where=_where(key), about=about or None)
        if not leaf:
            yield from _walk(value, path, depth + 1)


def _label(node: yaml.Node) -> str:
    text = _text(node)
    if labels.SEPARATOR in text:
        raise Problem(f"{_where(node)}: '{labels.shown(text)}' holds '~': nest it, or write a list of paths")
    return text


def _text(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise Problem(f"{_where(node)}: a label is text, not a list or mapping")
    return str(node.value)


def _where(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}"
