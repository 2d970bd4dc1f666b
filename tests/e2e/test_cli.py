"""The command line as a person uses it, on a folder store; nothing here needs a model but where it says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from PIL import Image as Pillow

from taskgalaxy_ops.cli import main
from taskgalaxy_ops.settings import EXAMPLE, load_settings


@pytest.fixture
def file(tmp_path: Path, pictures: Path) -> Path:
    """Settings whose models nobody serves."""

    def model(name: str) -> dict[str, object]:
        return {
            "name": name,
            "base_url": "http://127.0.0.1:9/v1",
            "model": name,
            "simulated": True,
            "patience_seconds": 0,
        }

    raw = {
        "store": (tmp_path / "galaxy").as_uri(),
        "sources": {"mine": {"location": str(pictures)}},
        "teacher": model("t"),
        "judges": [model("a"), model("b"), model("c")],
    }
    path = tmp_path / "my settings.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    code = main([str(each) for each in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_example_settings_are_valid(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(capsys, "settings")
    assert code == 0
    assert out == EXAMPLE.read_text("utf-8")
    (tmp_path / "taskgalaxy.yaml").write_text(out, "utf-8")
    settings = load_settings(tmp_path / "taskgalaxy.yaml")
    assert len(settings.judges) == 3
    assert settings.budget.max_cost == 5.0


@pytest.mark.parametrize(
    "command",
    ["ingest", "generate", "release", "report", "pilot", "status", "plan", "explain", "verify", "simulate", "taxonomy"],
)
def test_help_tells_what_a_command_is_for(capsys: pytest.CaptureFixture[str], command: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert len(capsys.readouterr().out) > 200


def test_missing_settings_say_how_to_start(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, error = run(capsys, "status", "--settings", tmp_path / "none.yaml")
    assert code == 1
    assert "no such file" in error
    assert "taskgalaxy settings" in error


def test_what_cannot_be_asked_is_pending_and_said(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    assert run(capsys, "ingest", "--settings", file, "--quiet")[0] == 0
    code, out, _ = run(capsys, "generate", "--settings", file, "--quiet")
    assert code == 3
    assert "120 units; run again to go on" in out
    assert "gave no reply" in out
    code, out, _ = run(capsys, "plan", "--settings", file, "--json")
    assert {each["stage"]: each["units"] for each in json.loads(out)["stages"]}["filter"]["low"] == 120
    code, _, error = run(capsys, "release", "--settings", file, "--quiet")
    assert code == 3
    assert error.startswith("PendingError: release: 120 units have no answer yet.")
    code, out, _ = run(capsys, "status", "--settings", file)
    assert code == 0
    assert "12 images" in out
    assert "SIMULATED" in out


def test_sources_come_and_go(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    code, _, error = run(capsys, "ingest", "other", "--settings", file, "--quiet")
    assert code == 1
    assert "source 'other': not in the settings (there: mine)" in error
    assert run(capsys, "ingest", "--settings", file, "--quiet")[0] == 0
    code, out, _ = run(capsys, "ingest", "mine", "--remove", "--settings", file)
    assert out == "removed: mine\n"
    code, out, _ = run(capsys, "status", "--settings", file)
    assert "none yet" in out


def test_a_rejected_file_is_explained(capsys: pytest.CaptureFixture[str], file: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "no image.png").write_text("text")
    Pillow.new("RGB", (64, 64), "red").save(tmp_path / "broken" / "red.png")
    raw = yaml.safe_load(file.read_text("utf-8"))
    raw["sources"] = {"broken": {"location": str(tmp_path / "broken")}}
    file.write_text(yaml.safe_dump(raw), "utf-8")
    assert run(capsys, "ingest", "--settings", file, "--quiet")[0] == 0
    code, out, _ = run(capsys, "explain", "no image.png", "--settings", file)
    assert code == 0
    assert "was rejected: not an image" in out


def test_taxonomy_versions_are_listed_shown_and_compared(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    added = "ocr~scene text ocr~banner reading"
    assert run(capsys, "taxonomy", "add", added, "--settings", file)[0] == 0
    _, out, _ = run(capsys, "taxonomy", "list", "--settings", file)
    assert [line.split(":")[0] for line in out.splitlines()] == ["version 0", "version 1"]
    _, out, _ = run(capsys, "taxonomy", "diff", "0", "1", "--settings", file)
    assert out == f"+ {added}\n"
    _, out, _ = run(capsys, "taxonomy", "tree", "--settings", file, "--json")
    assert added in json.loads(out)["leaves"]
    code, _, error = run(capsys, "taxonomy", "tree", "--version", "7", "--settings", file)
    assert code == 1
    assert "version 7: there are 0 to 1" in error
    code, _, error = run(capsys, "taxonomy", "add", "../etc/passwd~<b>", "--settings", file)
    assert code == 1
    assert "TaxonomyError" in error


def test_task_types_are_retired_and_brought_back(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    code, out, _ = run(capsys, "taxonomy", "add", "weather~rain~drop counting", "weather~wind", "--settings", file)
    assert (code, out.splitlines()[0]) == (0, "version 1: 4 nodes added")
    code, out, _ = run(capsys, "taxonomy", "retire", " Weather ~ Rain", "weather~wind", "--settings", file)
    assert code == 0
    assert out.splitlines() == [
        "version 2: 3 nodes retired",
        "weather~rain",
        "weather~rain~drop counting",
        "weather~wind",
    ]
    code, _, error = run(capsys, "taxonomy", "retire", "weather~wind", "--settings", file)
    assert code == 1
    assert "is retired already" in error
    code, out, _ = run(capsys, "taxonomy", "add", "weather~wind", "--settings", file)
    assert out.splitlines() == ["version 3: 0 nodes added, 1 live again", "weather~wind"]
    _, out, _ = run(capsys, "taxonomy", "tree", "--settings", file)
    assert "    wind" in out.splitlines()
    assert "    rain  [retired]" in out.splitlines()


def test_verify_finds_what_was_damaged(capsys: pytest.CaptureFixture[str], file: Path, tmp_path: Path) -> None:
    run(capsys, "ingest", "--settings", file, "--quiet")
    run(capsys, "match", "--settings", file, "--quiet")
    code, out, _ = run(capsys, "verify", "--settings", file, "--quiet")
    assert code == 0
    assert out.startswith("all is well")
    store = tmp_path / "galaxy"
    image = next((store / "blobs").rglob("*/*"))
    image.write_bytes(b"another")
    table = next((store / "data").rglob("*.parquet"))
    table.unlink()
    code, out, _ = run(capsys, "verify", "--settings", file, "--quiet")
    assert code == 1
    assert image.name in out
    assert table.stem in out


def test_a_pilot_runs_some_images_and_forecasts_the_bill(
    capsys: pytest.CaptureFixture[str], file: Path, models: object, tmp_path: Path
) -> None:
    text = file.read_text("utf-8").replace("http://127.0.0.1:9/v1", models.base_url)  # type: ignore[attr-defined]
    for name, model in (("t", "sim-teacher"), ("a", "sim-judge-a"), ("b", "sim-judge-b"), ("c", "sim-judge-c")):
        text = text.replace(f"model: {name}\n", f"model: {model}\n")
    file.write_text(text, "utf-8")
    page = tmp_path / "pilot.html"
    code, out, error = run(capsys, "pilot", "--limit", "5", "--settings", file, "--json", "--out", page)
    assert code == 0, error
    found = json.loads(out)["forecast"]
    assert found["files"] == found["images"] == 12
    assert found["calls"]["low"] <= found["calls"]["expected"] <= found["calls"]["high"]
    assert "forecast" in page.read_text("utf-8").lower()
    _, out, _ = run(capsys, "status", "--settings", file, "--json")
    assert json.loads(out)["images"] == 5
    assert run(capsys, "ingest", "--settings", file, "--quiet")[0] == 0
    code, _, error = run(capsys, "pilot", "--limit", "5", "--settings", file, "--quiet", "--out", page)
    assert code == 1
    assert "was ingested already" in error
