"""The pages: each path, module, link and class that they name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted((ROOT / "docs").glob("*.md")),
    *(page for name in ("README.md", "CONTRIBUTING.md") if (page := ROOT / name).exists()),
]
FOLDERS = ("taskgalaxy_ops/", "tests/", "plugins/", "dags/", "benchmarks/")
MADE = "build/"  # what commands write, and no checkout holds
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")


def paths(text: str) -> set[str]:
    """The code spans that look like paths of this repository; patterns such as ``test_<module>.py`` are none."""
    spans = {span for span in CODE.findall(text) if not re.search(r"[\s<>*{}…=:]", span)}
    endings = {span for span in spans if "/" in span and span.endswith((".py", ".md", ".yaml"))}
    return {span for span in endings | {s for s in spans if s.startswith(FOLDERS)} if not span.startswith(("/", MADE))}


def modules(text: str) -> set[str]:
    """The dotted names of this repository's modules in code spans and after ``python -m``."""
    return set(re.findall(r"(?<![\w./])((?:taskgalaxy_ops|benchmarks)(?:\.(?!md\b)\w+)+)", text))


def anchors(page: Path) -> set[str]:
    """The places of a page that a link can lead to, as GitHub names them."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_path_that_a_page_names_is_there(page: Path) -> None:
    named = paths(page.read_text(encoding="utf-8"))
    places = (ROOT, ROOT / "taskgalaxy_ops")  # a page may name a module as the package's own pages do
    assert not sorted(name for name in named if not any((place / name).exists() for place in places))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_module_that_a_page_names_is_there(page: Path) -> None:
    lost = []
    for name in modules(page.read_text(encoding="utf-8")):
        place = ROOT / name.replace(".", "/")
        if not (place.is_dir() or place.with_suffix(".py").exists()):
            lost.append(name)
    assert not lost


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        place = page.parent / target if target else page
        assert place.exists(), target
        assert not anchor or anchor in anchors(place), f"{target}#{anchor}"


@pytest.mark.parametrize("name", ["architecture.md", "glossary.md"])
def test_each_class_that_is_named_is_there(name: str) -> None:
    named = set(re.findall(r"`([A-Z][a-z]+(?:[A-Z]\w*)?)`", (ROOT / "docs" / name).read_text(encoding="utf-8")))
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "taskgalaxy_ops").rglob("*.py"))
    there = set(re.findall(r"^class (\w+)|^(?:type )?([A-Z]\w+) = ", source, re.MULTILINE))
    assert named
    assert not named - {name for pair in there for name in pair}


def test_architecture_names_each_package() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    packages = [path.parent.name for path in (ROOT / "taskgalaxy_ops").glob("*/__init__.py")]
    assert "storage" in packages
    assert not [name for name in packages if f"`taskgalaxy_ops/{name}/`" not in text]


def test_architecture_and_readme_lead_to_the_glossary() -> None:
    assert "](glossary.md)" in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert "](docs/glossary.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_rules_find_what_a_page_names() -> None:
    assert paths("`taskgalaxy_ops/gone/` and `docs/gone.md`, `a.py`, `tests/<name>/test_x.py`, `build/up/x.yaml`") == {
        "taskgalaxy_ops/gone/",
        "docs/gone.md",
    }
    assert modules("`python -m benchmarks.gone`, `taskgalaxy_ops/a.py`") == {"benchmarks.gone"}
