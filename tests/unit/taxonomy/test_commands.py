"""The commands that edit and look at the taxonomy: what they print, change, and refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from taskgalaxy_ops.cli import main


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Runs `taskgalaxy taxonomy …` on a store of its own; returns exit code, output and errors."""
    seeds = tmp_path / "seeds.yaml"
    seeds.write_text("ocr:\n  signs: What a sign says.\n  notes:\nart: [style, period]\n", "utf-8")
    settings = tmp_path / "settings.yaml"
    shared = {"base_url": "http://127.0.0.1:9/v1", "simulated": True}
    names = {name: {"name": name, "model": name, **shared} for name in "tabc"}
    raw = {
        "store": (tmp_path / "store").as_uri(),
        "taxonomy": {"seeds": str(seeds)},
        "teacher": names["t"],
        "judges": [names[name] for name in "abc"],
    }
    settings.write_text(json.dumps(raw), "utf-8")

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main(["taxonomy", *map(str, arguments), "--settings", str(settings)])
        out, error = capsys.readouterr()
        return code, out, error

    return run


def test_renamed_moved_merged_and_compared(run):
    code, out, _ = run("rename", "ocr~notes", "Jottings, etc.")
    assert code == 0
    assert out == "version 1:\n> ocr~notes -> ocr~Jottings, etc. (renamed)\nno answer of these was paid for\n"
    assert run("move", "ocr", "art")[0] == 0
    assert run("merge", "art~ocr~signs", "art~style", "art~looks", "--answers", "ask-again")[0] == 0
    _, out, _ = run("diff", "0")
    assert out.splitlines() == [
        "> art~style -> art~looks (renamed; asked again)",
        "> ocr -> art~ocr (moved)",
        "> ocr~notes -> art~ocr~Jottings, etc. (renamed)",
        "> ocr~signs -> art~looks (merged; its answers do not count for it)",
    ]
    _, out, _ = run("diff", "1", "2")
    assert out.splitlines() == ["> ocr -> art~ocr (moved, with 2 nodes below it)"]
    found = json.loads(run("diff", "0", "--json")[1])
    assert found["renamed"][1] == {"before": "ocr", "after": "art~ocr", "how": "moved", "kept": True}
    _, out, _ = run("tree")
    assert "      Jottings, etc." in out.splitlines()
    assert "    notes  [now ocr~Jottings, etc.]" in out.splitlines()


def test_a_dry_run_changes_nothing(run, tmp_path):
    types = tmp_path / "types.labels"
    types.write_text("art~style\nnew, one\n", "utf-8")
    for command in (("rename", "ocr", "text"), ("import", types, "--replace")):
        code, out, _ = run(*command, "--dry-run")
        assert code == 0
    assert out.splitlines() == [
        "version 0: 4 task types",
        "1 would be added, 0 would be changed, 4 would be retired",
        "  + new, one",
        "  - art~period",
        "  - ocr",
        "  - ocr~notes",
        "  - ocr~signs",
    ]
    assert json.loads(run("list", "--json")[1])["versions"][-1]["version"] == 0
    assert run("import", types, "--replace")[1].startswith("version 1: 2 task types\n1 added, 0 changed, 4 retired")


@pytest.mark.parametrize("form", ["yaml", "json", "csv", "labels"])
def test_exported_and_imported(run, tmp_path, form):
    file = tmp_path / f"types.{form}"
    code, out, error = run("export", "--format", form, "--to", file)
    assert (code, out) == (0, f"version 0 written to {file}\n")
    assert ("1 descriptions" in error) == (form == "labels")
    assert run("export", "--format", form)[1] == file.read_text("utf-8")
    code, out, _ = run("import", file, "--replace")
    assert (code, out) == (0, "version 0: 4 task types\n0 added, 0 changed, 0 retired\n")


def test_a_file_that_is_wrong_changes_nothing(run, tmp_path):
    file = tmp_path / "types.csv"
    file.write_text("path\nfine\n<b>x\n=1\n", "utf-8")
    code, _, error = run("import", file)
    assert code == 1
    assert "line 3: level 1 '<b>x': holds markup" in error and "line 4: begins with '='" in error
    assert len(json.loads(run("list", "--json")[1])["versions"]) == 1


def test_the_numbers_and_a_search(run):
    run("retire", "ocr~notes")
    _, out, _ = run("stats")
    assert out.splitlines()[:2] == [
        "version 1: 3 task types in 2 first-level nodes",
        "5 live nodes, 0 of them renamed; 1 retired",
    ]
    assert json.loads(run("stats", "--json", "--version", 0)[1])["task_types"] == 4
    _, out, _ = run("search", "sign", "says", "--words-only")
    assert out == "version 1: nodes with these words: 1\n  ocr~signs\n"
    found = json.loads(run("search", "NOTES", "--words-only", "--json")[1])
    assert [node["status"] for node in found["by_words"]] == ["retired"]


def test_what_cannot_be_done_names_the_node(run):
    code, _, error = run("move", "ocr~gone", "art")
    assert code == 1 and "'ocr~gone' is not there" in error
