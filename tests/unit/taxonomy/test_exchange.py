"""Export and import: what an export holds comes back, spelling stays, and what is unsafe is named with its line."""

from __future__ import annotations

import ast
import csv
import io
import json
import sysconfig
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskgalaxy_ops.errors import TaxonomyError
from taskgalaxy_ops.models.encoders import conse
from taskgalaxy_ops.records import Node
from taskgalaxy_ops.taxonomy import TaxonomyVersion, check, diff, labels, load_seeds, normalise
from taskgalaxy_ops.taxonomy.exchange import FORMATS, exported, imported, left_out
from taskgalaxy_ops.taxonomy.seeds import Entry, grow

SEEDS = TaxonomyVersion(0, None, tuple(load_seeds()))
EMPTY = TaxonomyVersion(0, None, ())
# Written for this test: scripts that need joiners, marks or no blanks, emoji, right to left.
SCRIPTS = [
    "خواندن نشانه‌های خیابان",
    "می‌خواهم، متن فارسی",
    "قراءة اللافتات في الشارع؟",
    "קְרִיאַת שְׁלָטִים, בעברית",
    "क्‍ष और ज्ञ पढ़ना",
    "संकेत पढ़ना।",
    "อ่านป้ายถนน (ไทย)",
    "བསྒྲུབས་པ།",
    "路牌识别、招牌",
    "看板の文字を読む。",
    "거리 표지판 읽기",
    "Đọc biển báo đường phố",
    "Чтение вывесок: что написано?",
    "Ανάγνωση πινακίδων, κ.λπ.",
    "ශ්‍රී ලංකාව",
    "I ❤️ street signs",
    "👩‍🚀 in space",
    "¿Qué dice el letrero?",
    "Straßenschilder & Wegweiser",
    "İstanbul'da tabela",
]
HOSTILE = {
    "sign\u200breading": "holds the invisible character U+200B",
    "x\u202ereading": "holds the invisible character U+202E",
    "a\u200db": "holds the invisible character U+200D",
    "bell\u0007": "holds the control character U+0007",
    "esc \u001b[31mred": "holds the control character U+001B",
    "line\u2028break": "holds the control character U+2028",
    "Z\u0301\u0302\u0303\u0304\u0305\u0306algo": "holds a stack of combining marks",
    "<script>alert(1)</script>": "holds markup",
    "<!-- x": "holds markup",
    "&lt;b&gt;": "holds markup",
    "<|im_start|>system": "holds a token that models' chat templates obey",
    "a [INST] b": "holds a token that models' chat templates obey",
    "an <image> here": "holds a token that models' chat templates obey",
    "```json": "holds a code fence",
    "=HYPERLINK(1)": "begins with '=', which a spreadsheet takes for a formula",
    "@SUM(1)": "begins with '@', which a spreadsheet takes for a formula",
    "a" * 301: "301 characters, 300 at most",
    "a~~b": "empty",
    "a~b~c~d~e": "5 levels, 4 at most",
    "\ue000 private": "holds the control character U+E000",
}


def sentences() -> list[str]:
    """First lines of the docstrings of the standard library: each written by a person, no two the same task type."""
    found: dict[str, str] = {}
    folder = Path(sysconfig.get_paths()["stdlib"])
    for file in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and (text := ast.get_docstring(node)):
                line = text.splitlines()[0].strip().replace("~", "-").lstrip("-=+@ ")
                if 3 < len(line) <= labels.MAX_WRITTEN:
                    found.setdefault(labels.identity(labels.as_written(line)), line)
    return list(found.values())


def written(tmp_path: Path, text: str, name: str = "types.labels") -> Path:
    file = tmp_path / name
    file.write_text(text, "utf-8", newline="")
    return file


def of(file: Path, version: TaxonomyVersion = EMPTY, form: str | None = None, *, replace: bool = False):
    grown = imported(version, file, form, replace=replace)
    return TaxonomyVersion(version.number + 1, version.number, tuple(grown.nodes)), grown.notes


def aliased() -> TaxonomyVersion:
    """Live, retired, renamed, with and without descriptions, in spellings that files must not change."""
    nodes = [
        Node("OCR", 1, "hand", "live"),
        Node('OCR~Signs, "shop" names', 2, "hand", "live", "What, says the sign: 'x'?", "ocr~signs"),
        Node("OCR~gone", 2, "expand", "retired", None, None, "OCR~yes"),
        Node("OCR~yes", 2, "expand", "live", "#1"),
        Node("12", 1, "hand", "live", "null"),
        Node("路牌: 识别", 1, "hand", "live"),
    ]
    return TaxonomyVersion(4, 3, tuple(nodes))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("version", [SEEDS, aliased()], ids=["seeds", "aliased"])
def test_an_export_comes_back_exactly(tmp_path, form, version):
    text = exported(version, form)
    file = written(tmp_path, text, f"out.{form}")
    again, _ = of(file)
    assert exported(again, form) == text, "into an empty taxonomy"
    same, notes = of(file, version, replace=form in ("json", "csv"))
    assert (same.nodes, notes) == (version.nodes, []), "into the same one, nothing changes"
    if form in ("json", "csv"):
        assert again.nodes == version.nodes


@pytest.mark.parametrize("form", FORMATS)
def test_replacing_a_version_by_its_own_export_retires_nothing(tmp_path, form):
    same, notes = of(written(tmp_path, exported(SEEDS, form), f"x.{form}"), SEEDS, replace=True)
    assert (same.nodes, notes) == (SEEDS.nodes, [])


def test_what_a_form_does_not_hold_is_said():
    assert left_out(aliased(), "json") == left_out(aliased(), "csv") == []
    assert left_out(aliased(), "yaml") == ["1 retired nodes", "1 paths by which renamed task types are asked"]
    assert left_out(aliased(), "labels") == [
        "1 retired nodes",
        "3 descriptions",
        "1 paths by which renamed task types are asked",
    ]


LABEL = st.text(alphabet=st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=20)


@settings(max_examples=150, deadline=None)
@given(paths=st.lists(st.lists(LABEL, min_size=1, max_size=3).map("~".join), min_size=1, max_size=6))
@pytest.mark.parametrize("form", FORMATS)
def test_whatever_may_be_written_comes_back(tmp_path_factory, form, paths):
    seen, entries = set(), []
    for path in map(labels.as_written, paths):
        if labels.check_written(path) is None and labels.identity(path) not in seen:
            seen.add(labels.identity(path))
            entries.append(path)
    if not entries:
        return
    folder = tmp_path_factory.mktemp("any")
    first, _ = of(written(folder, "".join(f"{path}\n" for path in entries)))
    assert {labels.identity(node.path) for node in first.leaves()} <= seen
    again, _ = of(written(folder, exported(first, form), f"x.{form}"))
    assert again.leaves() == first.leaves()


def test_a_thousand_captions_of_people_are_taken_as_they_are_spelled(tmp_path):
    classes = json.loads(Path(conse.__file__).with_name("imagenet_classes.json").read_text("utf-8"))["names"]
    assert len(classes) == 1000
    lines = [line for line in sentences() if labels.check_written(labels.as_written(line)) is None]
    refused = [line for line in sentences() if labels.check_written(labels.as_written(line))]
    assert len(lines) > 1000
    assert len(refused) < len(lines) / 200, refused
    captions = {labels.identity(labels.as_written(text)): text for text in [*lines, *classes, *SCRIPTS]}
    grown, notes = of(written(tmp_path, "".join(f"captions~{text}\n" for text in captions.values())))
    assert {labels.name(node.path) for node in grown.leaves()} == {
        labels.as_written(text) for text in captions.values()
    }
    assert notes == []
    assert sum(check(normalise(text)) is not None for text in captions.values()) > 100, "a model may not propose them"


@given(text=st.text(alphabet=" ~aZ-'\t\u2019\u00a0é", max_size=12))
def test_the_identity_is_that_of_the_normal_form(text):
    assert labels.identity(text) == labels.normalise_path(text)


@pytest.mark.parametrize("text", SCRIPTS)
def test_every_script_is_taken(text):
    assert labels.check_written(labels.as_written(text)) is None
    assert labels.identity(labels.identity(text)) == labels.identity(text)


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_unsafe_is_refused_with_file_and_line(tmp_path, text):
    file = written(tmp_path, f"fine\n{text}\nalso fine\n")
    with pytest.raises(TaxonomyError) as caught:
        of(file)
    told = str(caught.value)
    assert str(file) in told and "line 2: " in told and HOSTILE[text] in told
    assert not any(ord(c) < 32 and c != "\n" for c in told), "an error must not carry what it refuses"


@pytest.mark.parametrize("form", FORMATS)
def test_all_problems_are_told_at_once(tmp_path, form):
    bad = ["<b>one", "two\u200b", "A", "a"]
    text = {
        "labels": "".join(f"{each}\n" for each in bad),
        "yaml": "".join(f"- {json.dumps(each)}\n" for each in bad),
        "json": json.dumps(bad, indent=0)[2:-2].join(("[", "]")),
        "csv": "".join(f"{each}\n" for each in ["path", *bad]),
    }[form]
    with pytest.raises(TaxonomyError) as caught:
        of(written(tmp_path, text, f"x.{form}"))
    first = 2 if form == "csv" else 1
    told = str(caught.value)
    assert f"line {first}: level 1 '<b>one': holds markup" in told
    assert f"line {first + 1}: level 1 'two\\u200b'" in told
    assert f"line {first + 3}: 'a' is there already (line {first + 2}), spelled 'A'; remove one" in told


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("x.csv", "path,colour\na,red\n", "line 1: 'colour' is unknown; there are path, origin"),
        ("x.csv", "label\na\n", "line 1: 'label' is unknown"),
        ("x.csv", "path\na,b\nc\n", "line 2: 2 fields, 1 columns: put quotes"),
        ("x.csv", 'path\n"a', "is no CSV"),
        ("x.csv", "path,status\na,dead\n", "line 2: status 'dead' is none of live, retired"),
        ("x.csv", 'path,about\n"a","two\nlines"\n<b>,\n', "line 4: level 1 '<b>'"),
        ("x.json", '["a",\n {"path": "b", "about": 3}]', "line 2: a path is to be there"),
        ("x.json", '["a",\n {"name": "b"}]', "line 2: 'name' is unknown"),
        ("x.json", '{"a": 1}', "a list is to be there"),
        ("x.json", '["a"\n "b"]', "line 2: is no JSON"),
        ("x.json", "", "is to be there"),
        ("x.json", "[" * 5000, "no JSON|nested too deep"),
        ("x.json", '[{"path": "a", "asked_as": "<b>"}]', "asked_as: level 1 '<b>': holds markup"),
        ("x.csv", 'path,about\na,fine\nb,"=HYPERLINK(1)"\n', "line 3: what 'b' asks: begins with '='"),
        ("x.yaml", 'a: "bell\\a"\n', "line 1: what 'a' asks: holds the control character U+0007"),
        ("x.labels", "", "it holds no label"),
        ("x.yaml", "a: [", "line 1 is not YAML"),
    ],
)
def test_a_file_that_is_wrong_is_named_with_the_line(tmp_path, name, text, why):
    with pytest.raises(TaxonomyError) as caught:
        of(written(tmp_path, text, name))
    assert any(each in str(caught.value) for each in why.split("|")), caught.value
    assert name in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(TaxonomyError, match=r"gone\.csv cannot be read"):
        of(tmp_path / "gone.csv")
    (tmp_path / "x.csv").write_bytes(b"path\n\xff")
    with pytest.raises(TaxonomyError, match="not UTF-8"):
        of(tmp_path / "x.csv")


@pytest.mark.parametrize(
    "text",
    [
        "a~b\nc\n",
        '["a~b", "c"]',
        '[{"path": "a~b"}, {"path": "c"}]',
        "about,path\n,a~b\nx,c\n",
        "a:\n  b: x\nc: y\n",
        "- a~b\n- c\n",
        "\ufeffpath\r\na~b\r\nc\r\n",
    ],
)
def test_the_form_is_found_by_the_content(tmp_path, text):
    grown, _ = of(written(tmp_path, text, "list.txt"))
    assert [node.path for node in grown.leaves()] == ["a~b", "c"]


def test_the_form_that_is_named_counts(tmp_path):
    grown, _ = of(written(tmp_path, "path\na~b\n", "list.csv"), form="labels")
    assert [node.path for node in grown.leaves()] == ["a~b", "path"]


def test_a_spelling_that_is_there_stays_and_the_import_says_so(tmp_path):
    grown, notes = of(written(tmp_path, "OCR~printed text  OCR~Title   Reading\nOCR~New one\n"), SEEDS)
    assert [node.path for node in diff(SEEDS, grown).added] == ["ocr~New one"]
    assert "'OCR' is spelled 'ocr' here already; `taxonomy rename` changes that" in notes
    assert any("'Title Reading' is spelled 'ocr~printed text ocr~title reading' here" in note for note in notes)


def test_what_becomes_a_group_is_said(tmp_path):
    before, _ = of(written(tmp_path, "a~b\nc\n"))
    after, notes = of(written(tmp_path, "c~d\na\n"), before)
    assert [node.path for node in after.leaves()] == ["a~b", "c~d"]
    assert notes == [
        "'a' is no task type: there are nodes below it, live or retired",
        "'c' was a task type; with nodes below it, it is a group",
    ]


def test_replacing_retires_what_is_not_in_the_file_and_adding_brings_it_back(tmp_path):
    before, _ = of(written(tmp_path, "a~b\na~c\nd\n"))
    after, _ = of(written(tmp_path, "a~c\ne\n"), before, replace=True)
    assert {node.path: node.status for node in after.nodes} == {
        "a": "live",
        "a~b": "retired",
        "a~c": "live",
        "d": "retired",
        "e": "live",
    }
    again, _ = of(written(tmp_path, "a~b\n"), after)
    assert [node.path for node in again.leaves()] == ["a~b", "a~c", "e"]


def test_an_import_changes_descriptions_and_keeps_those_it_does_not_name(tmp_path):
    before, _ = of(written(tmp_path, "a: old\nb: stays\n", "x.yaml"))
    after, _ = of(written(tmp_path, "a: new\nb:\n", "x.yaml"), before)
    assert {node.path: node.about for node in after.nodes} == {"a": "new", "b": "stays"}


def test_a_csv_is_one_row_a_node():
    rows = list(csv.DictReader(io.StringIO(exported(aliased(), "csv"))))
    assert [row["path"] for row in rows] == [node.path for node in aliased().nodes]


def test_the_order_of_a_list_changes_nothing():
    entries = [Entry(path=path, where="x") for path in ("Weather~rain", "weather~snow", "WEATHER~Ice")]
    one, other = (grow([], each, "hand", "x").nodes for each in (entries, entries[::-1]))
    assert one == other
