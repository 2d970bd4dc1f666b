"""Export a taxonomy version to a file, and import task types from one. Pure, but for reading the file.

JSON and CSV have every node with all of its fields. YAML (the form of the seeds) and labels (the paper's ``a~b~c``, a
line each) have the live nodes: YAML with what task types ask, labels with the task types' paths alone. What an export
holds is what an import of it gives.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import yaml

from taskgalaxy_ops.errors import TaxonomyError
from taskgalaxy_ops.records import Node
from taskgalaxy_ops.taxonomy import labels
from taskgalaxy_ops.taxonomy.seeds import SHAPE, Entry, Grown, Problem, grow, read_yaml
from taskgalaxy_ops.taxonomy.version import LIVE, RETIRED, TaxonomyVersion

_FIELDS = tuple(field.name for field in fields(Node) if field.name != "level")
_ORIGINS = ("seed", "hand", "expand")
_SUFFIXES = {".yaml": "yaml", ".yml": "yaml", ".json": "json", ".csv": "csv", ".labels": "labels"}
_SHAPES = {
    "yaml": SHAPE,
    "json": 'Write a list of paths joined by \'~\', or of {"path", "about", "status", …} as the export has them.',
    "csv": f"Write a first line with the columns' names: path, and any of {', '.join(_FIELDS[1:])}.",
    "labels": "Write a path a line, its levels joined by '~'.",
}
FORMATS = tuple(_SHAPES)


def exported(version: TaxonomyVersion, form: str) -> str:
    """A version as text. form: one of ``FORMATS``. Equal versions give equal texts."""
    return {"yaml": _yaml, "json": _json, "csv": _csv, "labels": _labels}[form](version)


def left_out(version: TaxonomyVersion, form: str) -> list[str]:
    """What a version has, and its export in this form does not: a line each."""
    if form in ("json", "csv"):
        return []
    leaves = {node.path for node in version.leaves()}
    live = [node for node in version.nodes if node.status == LIVE]
    groups = [node for node in live if node.path not in leaves]
    above = {each for leaf in leaves for each in labels.ancestors(leaf)}
    counted = {
        "retired nodes": len(version.nodes) - len(live),
        "descriptions": sum(node.about is not None for node in (live if form == "labels" else groups)),
        "groups without a task type": sum(node.path not in above for node in groups),
        "paths by which renamed task types are asked": sum(node.asked_as is not None for node in live),
    }
    return [f"{number:,} {what}" for what, number in counted.items() if number]


def _json(version: TaxonomyVersion) -> str:
    rows = [{name: value for name, value in _row(node).items() if value is not None} for node in version.nodes]
    return json.dumps(rows, ensure_ascii=False, indent=1) + "\n"


def _csv(version: TaxonomyVersion) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, _FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_row(node) for node in version.nodes)
    return out.getvalue()


def _row(node: Node) -> dict[str, Any]:
    return {name: value for name, value in asdict(node).items() if name in _FIELDS}


def _labels(version: TaxonomyVersion) -> str:
    return "".join(f"{node.path}\n" for node in version.leaves())


def _yaml(version: TaxonomyVersion) -> str:
    tree: dict[str, Any] = {}
    for leaf in sorted(version.leaves(), key=lambda node: node.path.split(labels.SEPARATOR)):
        *above, name = leaf.path.split(labels.SEPARATOR)
        group = tree
        for label in above:
            group = group.setdefault(label, {})
        group[name] = leaf.about
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return str(yaml.dump(tree, Dumper=dumper, allow_unicode=True, sort_keys=False, width=10**6, indent=2))


def imported(version: TaxonomyVersion, file: Path, form: str | None = None, *, replace: bool = False) -> Grown:
    """The nodes of a version after an import, and what its author should know. New nodes have origin "hand".

    form: one of ``FORMATS``; None: found by the file's name, or else by its content. replace: what is not in the file
    is retired. Raises TaxonomyError with all that is wrong, each with its line, or where the file cannot be read.
    """
    raw = _raw(file)
    form = form or _SUFFIXES.get(file.suffix.lower()) or _form(raw)
    entries, source = _READERS[form](file, raw), f"{form} file {file}"
    return grow(version.nodes, entries, "hand", source, update=True, only=replace, shape=_SHAPES[form])


def _raw(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig")
    except OSError as error:
        raise TaxonomyError(f"{file} cannot be read: {error.strerror}.\n  Name a file of task types.") from error
    except UnicodeDecodeError as error:
        raise TaxonomyError(f"{file} is not UTF-8 text (byte {error.start}): save it as UTF-8.") from error


def _form(raw: str) -> str:
    """The form of a text: JSON begins with a bracket, a CSV names its columns, YAML has list items or ends of keys."""
    lines = [line for line in raw.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    first = lines[0] if lines else ""
    if first.lstrip().startswith(("[", "{")):
        return "json"
    if "path" in [name.strip().lower() for name in next(csv.reader([first]), [])]:
        return "csv"
    nested = any(line.rstrip().endswith(":") or line.startswith("- ") for line in lines)
    return "yaml" if nested else "labels"


def _read_yaml(file: Path, _: str) -> Iterator[Entry]:
    return read_yaml(file)


def _read_labels(_: Path, raw: str) -> Iterator[Entry]:
    # Not splitlines, which also divides at characters that are to be named as wrong.
    for number, line in enumerate(raw.replace("\r\n", "\n").split("\n"), 1):
        if line.strip(" \t"):
            yield Entry(path=line, where=f"line {number}")


def _read_csv(_: Path, raw: str) -> Iterator[Entry]:
    reader = csv.reader(io.StringIO(raw, newline=""), strict=True)
    try:
        names = [name.strip().lower() for name in next(reader, [])]
        if wrong := _unknown(names):
            raise Problem(f"line 1: {wrong}")
        line = reader.line_num + 1
        for row in reader:
            where, line = f"line {line}", reader.line_num + 1
            if len(row) > len(names):
                wrong = f"{len(row)} fields, {len(names)} columns: put quotes around a text with commas"
                yield Entry(path="", where=where, problem=wrong)
            elif any(row):
                yield _entry(dict(zip(names, row, strict=False)), where)
    except csv.Error as error:
        raise Problem(f"line {reader.line_num}: is no CSV ({error})") from error


def _read_json(_: Path, raw: str) -> Iterator[Entry]:
    decoder, at, line = json.JSONDecoder(), _after_blanks(raw, 0), 1
    try:
        if raw[at : at + 1] != "[" or not isinstance(json.loads(raw), list):
            raise Problem("a list is to be there")
        counted, at = 0, _after_blanks(raw, at + 1)
        while raw[at] != "]":  # once more, item by item, for the lines
            line, counted = line + raw.count("\n", counted, at), at
            item, end = decoder.raw_decode(raw, at)
            yield _item(item, f"line {line}")
            at = _after_blanks(raw, end)
            at = _after_blanks(raw, at + 1) if raw[at] == "," else at
    except json.JSONDecodeError as error:
        raise Problem(f"line {error.lineno}: is no JSON ({error.msg})") from error
    except RecursionError as error:
        raise Problem("it is nested too deep") from error


def _after_blanks(raw: str, at: int) -> int:
    while raw[at : at + 1] in (" ", "\t", "\n", "\r"):
        at += 1
    return at


def _item(item: Any, where: str) -> Entry:
    if isinstance(item, str):
        return Entry(path=item, where=where)
    if not isinstance(item, dict) or not all(value is None or isinstance(value, str) for value in item.values()):
        return Entry(path="", where=where, problem="a path is to be there, or an object whose values are texts")
    if wrong := _unknown(item):
        return Entry(path="", where=where, problem=wrong)
    return _entry(item, where)


def _unknown(names: Collection[str]) -> str | None:
    """What is wrong with the names of columns or fields; None: nothing."""
    unknown = sorted(set(names) - {*_FIELDS, "level"})
    if "path" in names and not unknown:
        return None
    wrong = f"{labels.shown(unknown[0])!r} is unknown" if unknown else "'path' is missing"
    return f"{wrong}; there are {', '.join(_FIELDS)}"


def _entry(said: Mapping[str, str | None], where: str) -> Entry:
    """An entry of named texts; empty ones are not said."""
    values = {name: text for name in _FIELDS if (text := said.get(name))}
    for name, known in (("status", (LIVE, RETIRED)), ("origin", _ORIGINS)):
        if name in values and values[name] not in known:
            wrong = f"{name} {labels.shown(values[name])!r} is none of {', '.join(known)}"
            return Entry(path="", where=where, problem=wrong)
    about = " ".join(values.pop("about", "").split()) or None
    return Entry(where=where, about=about, path=values.pop("path", ""), **values)


_READERS: Mapping[str, Callable[[Path, str], Iterator[Entry]]] = {
    "yaml": _read_yaml,
    "json": _read_json,
    "csv": _read_csv,
    "labels": _read_labels,
}
