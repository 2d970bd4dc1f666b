"""lmms-eval's results as scores, and what is said when it cannot run. The real run: tests/trainers/test_lmms.py."""

from __future__ import annotations

import json
import shlex
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from taskgalaxy_ops.errors import EvaluationError
from taskgalaxy_ops.evaluate import lmms
from taskgalaxy_ops.evaluate.benchmarks import BENCHMARKS, EASY_VQA
from taskgalaxy_ops.evaluate.lmms_tasks import utils
from taskgalaxy_ops.evaluate.scores import Score

JUDGE = lmms.JudgeSettings(key="a key", url="http://localhost:1/v1/", model="judge-1")
# As lmms-eval 0.7.3 writes it, cut to what is read.
RECORDED = {
    "results": {
        "pope": {
            "alias": "pope",
            "pope_accuracy,none": 0.8,
            "pope_f1_score,none": 0.75,
            "pope_f1_score_stderr,none": "N/A",
        },
        "mme": {"mme_cognition_score,none": 300.0, "mme_perception_score,none": 1234.5},
        "ai2d": {"exact_match,flexible-extract": 0.5, "exact_match_stderr,flexible-extract": 0.1},
        "mmvet": {"gpt_eval_score,none": 31.25},
        "mathvista_testmini_format": {"llm_as_judge_eval,none": None},
    },
    "n-samples": {"pope": {"original": 9000, "effective": 8}},
}
# Stands in for a Python with lmms-eval: shows what it was called with, and writes the recorded results.
STAND_IN = """import json, os, pathlib, sys
if "-c" in sys.argv:
    sys.exit({missing})
options = [each for each in sys.argv[3:] if each != "--log_samples"]
given = dict(zip(options[::2], options[1::2]))
folder = pathlib.Path(given["--output_path"])
kept = {{name: os.environ.get(name) for name in ("OPENAI_API_KEY", "OPENAI_API_URL", "MODEL_VERSION")}}
with (folder / "calls.jsonl").open("a") as calls:
    calls.write(json.dumps([given, kept]) + "\\n")
print({log!r})
for number in range({results}):
    (folder / f"{{given['--tasks']}}_{{number}}_results.json").write_text(json.dumps({recorded!r}))
sys.exit({code})
"""


def stand_in(folder: Path, *, missing: int = 0, log: str = "", results: int = 1, code: int = 0) -> Path:
    file = folder / "python"
    script = file.with_name("stand_in.py")
    text = STAND_IN.format(missing=missing, log=log, results=results, code=code, recorded=RECORDED)
    script.write_text(text, encoding="utf-8")
    # Not by its first line alone: an interpreter's path may hold a space.
    file.write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(script))} "$@"\n', encoding="utf-8"
    )
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return file


def run(tmp_path: Path, benchmarks: list[str], python: Path, **more: Any) -> list[Score]:
    harness = lmms.Harness(python=python, **more)
    return lmms.run("a/hub-name", benchmarks, harness, model="m", method="x", folder=tmp_path / "out")


def calls(tmp_path: Path) -> list[Any]:
    return [json.loads(line) for line in (tmp_path / "out" / "calls.jsonl").read_text().splitlines()]


def test_results_become_scores_in_the_tables_scale() -> None:
    pope, mme, ai2d, mmvet = lmms.scores_of(RECORDED, ["POPE", "MME", "AI2D", "MM-Vet"], model="m", method="x")
    assert (pope.value, pope.questions, pope.metric) == (75.0, 8, "pope_f1_score")
    assert (mme.value, ai2d.value, mmvet.value) == (1234.5, 50.0, 31.25)
    assert pope == Score(
        model="m", method="x", benchmark="POPE", family="", metric="pope_f1_score", value=75.0, questions=8
    )


@pytest.mark.parametrize("benchmark", ["MathVista", "ChartQA"])
def test_a_missing_number_is_no_zero(benchmark: str) -> None:
    with pytest.raises(EvaluationError, match=f"{benchmark}: lmms-eval's results have None"):
        lmms.scores_of(RECORDED, [benchmark], model="m", method="x")


def test_a_run(tmp_path: Path) -> None:
    found = run(tmp_path, ["POPE", "MME"], stand_in(tmp_path), limit=8, arguments=lmms.CPU)
    assert [each.value for each in found] == [75.0, 1234.5]
    assert found[0].source == "a trial, the first 8 questions of each benchmark"
    [(given, kept)] = calls(tmp_path)
    assert given["--tasks"] == "pope,mme"
    assert given["--limit"] == "8"
    assert given["--model_args"] == "pretrained=a/hub-name,device=cpu,device_map=cpu,dtype=float32"
    assert set(kept.values()) == {None}


def test_the_two_kinds_of_judge_get_the_address_that_they_want(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="HallusionBench: lmms-eval's results have None"):
        run(tmp_path, ["HallusionBench", "MM-Vet", "POPE"], stand_in(tmp_path), judge=JUDGE)
    (endpoint, first), (base, second) = calls(tmp_path)
    assert endpoint["--tasks"] == "hallusion_bench_image,pope"
    assert base["--tasks"] == "mmvet"
    assert first["OPENAI_API_URL"] == "http://localhost:1/v1/chat/completions"
    assert second == {"OPENAI_API_KEY": "a key", "OPENAI_API_URL": "http://localhost:1/v1", "MODEL_VERSION": "judge-1"}


def test_a_key_that_lies_about_is_not_spent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "somebody's")
    run(tmp_path, ["POPE"], stand_in(tmp_path))
    assert calls(tmp_path)[0][1]["OPENAI_API_KEY"] is None
    assert "a key" not in repr(JUDGE)


@pytest.mark.parametrize("benchmark", [each.name for each in BENCHMARKS if each.judge])
@pytest.mark.parametrize("judge", [None, lmms.JudgeSettings(key="")])
def test_a_judge_is_needed(tmp_path: Path, benchmark: str, judge: lmms.JudgeSettings | None) -> None:
    with pytest.raises(EvaluationError, match=f"{benchmark}: a model grades the answers, and none is configured"):
        run(tmp_path, ["POPE", benchmark], stand_in(tmp_path), judge=judge)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("python", [Path("/nowhere/python"), None])
def test_lmms_eval_is_missing(tmp_path: Path, python: Path | None) -> None:
    with pytest.raises(EvaluationError, match=r"has no lmms-eval\. Install it \(`pip install lmms-eval==0\.7\.3`\)"):
        run(tmp_path, ["POPE"], python or stand_in(tmp_path, missing=1))


def test_a_task_is_missing(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"has no task for Q-Bench-CN"):
        run(tmp_path, ["Q-Bench-CN"], stand_in(tmp_path))
    with pytest.raises(EvaluationError, match="Write it with `write_easy_vqa`"):
        run(tmp_path, [EASY_VQA.name], stand_in(tmp_path))


@pytest.mark.parametrize(("code", "results"), [(1, 1), (0, 0)])  # it ends with 0 where it fails
def test_a_failure_shows_its_last_lines(tmp_path: Path, code: int, results: int) -> None:
    log = "early\n" + "more\n" * 20 + "\x1b[31mKeyError: 'image'\x1b[0m"
    with pytest.raises(
        EvaluationError, match=r"(?s)its log is .*lmms-eval-1\.log.* more\n  KeyError: 'image'$"
    ) as caught:
        run(tmp_path, ["POPE"], stand_in(tmp_path, code=code, results=results, log=log))
    assert "early" not in str(caught.value)


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("ERROR - \x1b[31mError CUDA out of memory in generating", "the checkpoint gave no answer"),
        ("17 failed to get a score.", "the judge gave no grade"),
        ("All 3 attempts failed. Last error message: 401", "the judge gave no grade"),
    ],
)
def test_what_nobody_answered_is_not_counted_as_wrong(tmp_path: Path, log: str, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        run(tmp_path, ["POPE"], stand_in(tmp_path, log=log))


def test_a_second_run_reads_its_own_results(tmp_path: Path) -> None:
    python = stand_in(tmp_path)
    run(tmp_path, ["POPE"], python)
    with pytest.raises(EvaluationError, match=r"lmms-eval-2\.log"):
        run(tmp_path, ["POPE"], stand_in(tmp_path, results=0))


def test_paths_that_lmms_eval_would_cut(tmp_path: Path) -> None:
    folder = tmp_path / "a,b"
    folder.mkdir()
    harness = lmms.Harness(python=stand_in(tmp_path))
    with pytest.raises(EvaluationError, match=r"a,b: lmms-eval takes no comma"):
        lmms.run(folder, ["POPE"], harness, model="m", method="x", folder=tmp_path / "out")
    with pytest.raises(EvaluationError, match="no such folder"):
        lmms.run(tmp_path / "c", ["POPE"], harness, model="m", method="x", folder=tmp_path / "out")


def test_the_task_of_easy_vqa(tmp_path: Path) -> None:
    folder = lmms.write_easy_vqa(tmp_path / 'ein "Ordner"', 6)
    lines = [json.loads(line) for line in (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 6
    assert "${" not in "".join(
        line for line in (folder / "easy_vqa.yaml").read_text().splitlines() if not line.startswith("#")
    )
    assert utils.picture(lines[0])[0].mode == "RGB"
    assert utils.question({"question": "what?"}, {"post_prompt": "\nOne word."}) == "what?\nOne word."
    for reply, right in ((" No.", 1.0), ("no", 1.0), ("not", 0.0), ("", 0.0)):
        assert utils.grade({"answer": "no"}, [reply]) == {"accuracy": right}
