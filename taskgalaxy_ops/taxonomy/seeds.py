"""Read task types that people write: the package's seeds, a seed file of the user's, task types added by hand.

A file is YAML in one of two shapes: nested (first level > second level > leaf, each leaf with a line on what is
asked, or a list of leaves), or a plain list of paths such as ``ocr~scene text ocr~sign reading``. Unlike a wrong
proposal of a model, anything wrong in a file is an error that names the line, because its author can correct it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from taskgalaxy_ops.errors import TaxonomyError
from taskgalaxy_ops.records import Node, TaskTypePath
from taskgalaxy_ops.taxonomy import labels
from taskgalaxy_ops.taxonomy.version import LIVE

SEEDS_FILE = Path(__file__).with_name("seeds.yaml")

_SHAPE = "Write 'first level: {second level: {leaf: what is asked}}', or a list of paths joined by '~'."
_MAX_ERRORS = 8  # shown at once


@dataclass(frozen=True, slots=True)
class _Entry:
    """A path as it is written in a file or a list, and its place there."""

    path: TaskTypePath
    about: str | None
    where: str


class _Problems(Exception):
    """Raised where a file cannot be read further; its text becomes a line of the TaxonomyError."""


def load_seeds(file: str | Path | None = None) -> list[Node]:
    """The nodes of a seed file (default: the package's), sorted by path; origin "seed".

    Raises TaxonomyError, naming file, lines and fixes, where the file cannot be read, holds no label, or holds a label
    that is invalid or occurs twice.
    """
    source = Path(file) if file is not None else SEEDS_FILE
    return _grow([], _read(source), "seed", f"seed file {source}")


def add_types(nodes: Iterable[Node], types: Iterable[str] | Path) -> list[Node]:
    """All nodes with hand-written task types added, sorted by path; new ones and missing parents have origin "hand".

    types: paths joined by ``~``, or a YAML file as for seeds. An existing type stays as it is; a retired one becomes
    live again, with the nodes above it. Raises TaxonomyError as ``load_seeds`` does.
    """
    if isinstance(types, Path):
        return _grow(nodes, _read(types), "hand", f"file of task types {types}")
    if isinstance(types, str):
        types = [types]
    entries = (_Entry(path, None, f"entry {place}") for place, path in enumerate(types, 1))
    return _grow(nodes, entries, "hand", "the list of task types")


def _grow(nodes: Iterable[Node], entries: Iterable[_Entry], origin: str, source: str) -> list[Node]:
    known = {node.path: node for node in nodes}
    seen: dict[TaskTypePath, str] = {}
    problems: list[str] = []
    try:
        for entry in entries:
            path = labels.normalise_path(entry.path)
            if (reason := labels.check_path(path)) is not None:
                problems.append(f"{entry.where}: {reason}")
            elif path in seen:
                problems.append(f"{entry.where}: '{path}' is there already ({seen[path]}); remove one")
            else:
                seen[path] = entry.where
                for each in (*labels.ancestors(path), path):
                    about = entry.about if each == path else None
                    new = Node(each, labels.level(each), origin, LIVE, about)
                    known[each] = replace(known.get(each, new), status=LIVE)
    except _Problems as problem:
        problems.append(str(problem))
    if not seen and not problems:
        problems.append("it holds no label")
    if problems:
        rest = len(problems) - _MAX_ERRORS
        more = [f"and {rest} more"] if rest > 0 else []
        lines = "\n".join(f"  {line}" for line in (*problems[:_MAX_ERRORS], *more))
        raise TaxonomyError(f"{source} cannot be used:\n{lines}\n  {_SHAPE}")
    return [known[path] for path in sorted(known)]


def _read(file: Path) -> Iterator[_Entry]:
    try:
        # compose instead of load, because the tree has line numbers, and keeps a key that occurs twice.
        root = yaml.compose(file.read_text("utf-8"), Loader=yaml.SafeLoader)
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
        raise TaxonomyError(f"taxonomy file {file}{line} is not YAML: {problem}.\n  {_SHAPE}") from error
    if isinstance(root, yaml.SequenceNode):
        yield from (_Entry(_text(item), None, _where(item)) for item in root.value)
    elif isinstance(root, yaml.MappingNode):
        yield from _walk(root, "", 1)
    elif root is not None:
        raise TaxonomyError(f"taxonomy file {file} holds a single text.\n  {_SHAPE}")


def _walk(node: yaml.Node, above: TaskTypePath, depth: int) -> Iterator[_Entry]:
    """The entries below a path, leaves and groups. Depth is limited, because a YAML alias may contain itself."""
    if depth > labels.MAX_LEVELS:
        raise _Problems(f"{_where(node)}: '{above}' has children on level {depth}; {labels.MAX_LEVELS} at most")
    if isinstance(node, yaml.SequenceNode):
        yield from (_Entry(labels.join(above, _label(item)), None, _where(item)) for item in node.value)
        return
    for key, value in node.value:
        path = labels.join(above, _label(key))
        leaf = isinstance(value, yaml.ScalarNode)
        about = " ".join(value.value.split()) if leaf and value.tag != "tag:yaml.org,2002:null" else None
        yield _Entry(path, about or None, _where(key))
        if not leaf:
            yield from _walk(value, path, depth + 1)


def _label(node: yaml.Node) -> str:
    text = _text(node)
    if labels.SEPARATOR in text:
        raise _Problems(f"{_where(node)}: '{labels.shown(text)}' holds '~': nest it, or write a list of paths")
    return text


def _text(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise _Problems(f"{_where(node)}: a label is text, not a list or mapping")
    return str(node.value)


def _where(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}"
