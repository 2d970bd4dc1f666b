"""The shape of the code: short modules and functions, few parameters, large records built by keyword, a small root.

An exception is named here, with its reason, and goes when it is no longer needed.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "taskgalaxy_ops"
FOLDERS = (PACKAGE, ROOT / "plugins", ROOT / "dags")

MODULE_LINES = 450
FUNCTION_LINES = 60  # without the docstring
PARAMETERS = 7  # without self and cls
POSITIONAL_FIELDS = 5  # a record with more is built by keyword
ROOT_MODULES = 10
FACADE_LINES = 60  # of pipeline.py

_ROW = "a row of a table: read from tables and SQL by position, by the million"
_DRAWING = "a drawing call in Pillow's manner: place, text, size, and the style by keyword"
EXCEPTIONS = {
    "taskgalaxy_ops/records.py::Claim": _ROW,
    "taskgalaxy_ops/records.py::Image": _ROW,
    "taskgalaxy_ops/records.py::Node": _ROW,
    "taskgalaxy_ops/records.py::Pair": _ROW,
    "taskgalaxy_ops/records.py::Reject": _ROW,
    "taskgalaxy_ops/release/decontaminate/benchmark.py::BenchmarkPicture": _ROW,
    "taskgalaxy_ops/sources/builtin/documents/canvas.py::Sheet.box": _DRAWING,
    "taskgalaxy_ops/sources/builtin/documents/canvas.py::Sheet.paragraph": _DRAWING,
    "taskgalaxy_ops/sources/builtin/documents/canvas.py::Sheet.text": _DRAWING,
}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def breaches(path: str, source: str) -> dict[str, str]:
    """What a module breaks of the rules on size and signatures: ``path`` or ``path::qualified name``, and how."""
    found = {}
    if (lines := len(source.splitlines())) > MODULE_LINES:
        found[path] = f"{lines} lines, {MODULE_LINES} at most"
    for name, node in _definitions(ast.parse(source)):
        if told := _record(node) if isinstance(node, ast.ClassDef) else _function(node):
            found[f"{path}::{name}"] = told
    return found


def _definitions(node: ast.AST, within: str = "") -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """Classes and functions with their qualified names, nested ones included."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | Function):
            name = f"{within}.{child.name}" if within else child.name
            yield name, child
            yield from _definitions(child, name)
        else:
            yield from _definitions(child, within)


def _function(node: Function) -> str:
    arguments = node.args
    names = [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    names += [each.arg for each in (arguments.vararg, arguments.kwarg) if each]
    if len(own := [name for name in names if name not in {"self", "cls"}]) > PARAMETERS:
        return f"{len(own)} parameters, {PARAMETERS} at most: give it an options record"
    lines = _lines(node)
    if ast.get_docstring(node) is not None:
        lines -= _lines(node.body[0])
    return f"{lines} lines, {FUNCTION_LINES} at most" if lines > FUNCTION_LINES else ""


def _lines(node: ast.stmt) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def _record(node: ast.ClassDef) -> str:
    """A dataclass's breach. Fields of class variables, and those that its constructor does not take, do not count."""
    [decorator, *_] = [each for each in node.decorator_list if _name(each) == "dataclass"] or [None]
    if decorator is None or _is_true(decorator, "kw_only"):
        return ""
    fields = [each for each in node.body if isinstance(each, ast.AnnAssign) and _is_taken(each)]
    if len(fields) > POSITIONAL_FIELDS:
        return f"{len(fields)} fields: a record with more than {POSITIONAL_FIELDS} is kw_only"
    return ""


def _is_taken(field: ast.AnnAssign) -> bool:
    value = field.value
    left_out = isinstance(value, ast.Call) and any(
        each.arg == "init" and isinstance(each.value, ast.Constant) and each.value.value is False
        for each in value.keywords
    )
    return "ClassVar" not in ast.unparse(field.annotation) and not left_out


def _name(decorator: ast.expr) -> str:
    """``dataclass`` of ``@dataclass``, ``@dataclass(...)`` and ``@dataclasses.dataclass(...)``."""
    made = decorator.func if isinstance(decorator, ast.Call) else decorator
    return made.attr if isinstance(made, ast.Attribute) else made.id if isinstance(made, ast.Name) else ""


def _is_true(decorator: ast.expr, option: str) -> bool:
    return isinstance(decorator, ast.Call) and any(
        each.arg == option and isinstance(each.value, ast.Constant) and each.value.value is True
        for each in decorator.keywords
    )


def airflow_imports(source: str) -> list[str]:
    """The modules of Airflow, and of our plugin for it, that a module imports, wherever in it."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append(node.module)
    return [name for name in found if name.split(".")[0] in {"airflow", "galaxy_airflow"}]


def _modules(*folders: Path) -> dict[str, str]:
    """The source of each module, by its path from the root of the repository."""
    files = [file for folder in folders for file in sorted(folder.rglob("*.py"))]
    return {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in files}


def test_modules_functions_signatures_and_records_are_small() -> None:
    found: dict[str, str] = {}
    for path, source in _modules(*FOLDERS).items():
        found |= breaches(path, source)
    assert {name: told for name, told in found.items() if name not in EXCEPTIONS} == {}
    assert [name for name in EXCEPTIONS if name not in found] == [], "no longer needed: remove the exception"


def test_the_root_holds_contracts_and_two_front_doors() -> None:
    modules = [file.name for file in PACKAGE.glob("*.py") if file.name != "__init__.py"]
    assert {"workspace.py", "pipeline.py"} <= set(modules)
    assert len(modules) <= ROOT_MODULES, sorted(modules)
    assert len((PACKAGE / "pipeline.py").read_text(encoding="utf-8").splitlines()) <= FACADE_LINES


def test_the_library_knows_no_airflow() -> None:
    found = {path: airflow_imports(source) for path, source in _modules(PACKAGE).items()}
    assert len(found) > 100, "the package was not found"
    assert {path: names for path, names in found.items() if names} == {}


def _broken(source: str) -> list[str]:
    return sorted(breaches("m.py", textwrap.dedent(source)))


def test_a_long_module_is_a_breach() -> None:
    assert _broken("x = 1\n" * MODULE_LINES) == []
    assert _broken("x = 1\n" * (MODULE_LINES + 1)) == ["m.py"]


@pytest.mark.parametrize("keyword", ["def", "async def"])
def test_a_long_function_is_a_breach_wherever_it_stands(keyword: str) -> None:
    docstring = '    """Says it.\n\n    In lines that do not count.\n    """\n'
    whole = f"{keyword} f():\n{docstring}" + "    x = 1\n" * (FUNCTION_LINES - 1)
    assert _broken(whole) == []
    longer = whole + "    x = 1\n"
    assert _broken(longer) == ["m.py::f"]
    assert "m.py::C.f" in _broken("class C:\n" + textwrap.indent(longer, "    "))
    assert "m.py::f" in _broken("if True:\n" + textwrap.indent(longer, "    "))


def test_a_long_signature_is_a_breach() -> None:
    assert _broken("def f(a, b, /, c, d, *, e, f, g): ...") == []
    assert _broken("def f(a, b, /, c, d, *, e, f, g, h): ...") == ["m.py::f"]
    assert _broken("def f(a, b, c, d, e, f, *g, **h): ...") == ["m.py::f"]
    assert _broken("class C:\n    def __init__(self, a, b, c, d, e, f, g): ...") == []
    assert _broken("class C:\n    def __init__(self, a, b, c, d, e, f, g, h): ...") == ["m.py::C.__init__"]


def test_a_large_record_that_takes_its_fields_by_position_is_a_breach() -> None:
    fields = "".join(f"    {name}: int\n" for name in "abcdef")
    for decorator in ("@dataclass", "@dataclass(frozen=True)", "@dataclasses.dataclass(kw_only=False)"):
        assert _broken(f"{decorator}\nclass C:\n{fields}") == ["m.py::C"]
    assert _broken(f"@dataclass(frozen=True, kw_only=True)\nclass C:\n{fields}") == []
    assert _broken(f"class C(BaseModel):\n{fields}") == []
    untaken = "    g: ClassVar[int] = 1\n    h: int = field(init=False)\n"
    assert _broken("@dataclass\nclass C:\n" + fields.replace("    f: int\n", untaken)) == []


def test_an_import_of_airflow_is_seen_wherever_it_stands() -> None:
    assert airflow_imports("def f():\n    from airflow.sdk import DAG\n") == ["airflow.sdk"]
    assert airflow_imports("import os, airflow\n") == ["airflow"]
    assert airflow_imports("from galaxy_airflow.runtime import opened\n") == ["galaxy_airflow.runtime"]
    assert airflow_imports("from taskgalaxy_ops.operations.airflow import provision\nfrom . import airflow\n") == []
