"""Score checkpoints on the public benchmarks with lmms-eval, which runs as a subprocess.

lmms-eval has some hundred dependencies, torch among them, and is therefore installed in a Python of its own. It exits
with 0 when it fails, and it counts a question as wrong when the model gave no answer or the judge gave no grade: here
all of these raise EvaluationError.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taskgalaxy_ops.errors import EvaluationError
from taskgalaxy_ops.evaluate.benchmarks import EASY_VQA, LMMS_EVAL, Benchmark, find
from taskgalaxy_ops.evaluate.scores import Score

CPU = {"device": "cpu", "device_map": "cpu", "dtype": "float32"}  # arguments of llava_hf without a GPU
_TEMPLATES = Path(__file__).with_name("lmms_tasks")
_LAST_LINES = 15
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# lmms-eval logs these lines when a question was not answered or not graded; it then counts the question as wrong.
_UNANSWERED = re.compile(r"Error .* in generating")
_UNGRADED = re.compile(
    r"failed to get a score|All \d+ attempts failed|judge failed|GPT API failed to answer|Error for Question ID"
    r"|Error in extracting answer"
)


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """The model that grades free answers; it is paid for."""

    key: str = field(repr=False)
    url: str = "https://api.openai.com/v1"  # OpenAI's protocol, without /chat/completions
    model: str | None = None  # None: what lmms-eval takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Harness:
    """How lmms-eval is run."""

    python: Path | None = None  # one that has lmms-eval; None: this one
    task_folder: Path | None = None  # tasks of one's own (`write_easy_vqa`)
    limit: int | None = None  # questions a benchmark, for a trial; the scores say so
    judge: JudgeSettings | None = None
    adapter: str = "llava_hf"  # lmms-eval's `--model`
    arguments: Mapping[str, str] = field(default_factory=dict)  # further ones of lmms-eval's `--model_args`
    timeout: float | None = None  # seconds a run


def run(
    checkpoint: Path | str, benchmarks: Sequence[str], harness: Harness, *, model: str, method: str, folder: Path
) -> list[Score]:
    """Scores of a checkpoint in the table's scale, one a benchmark, in their order.

    checkpoint: a folder, or a hub's name. model, method: what the scores are labelled with. folder: gets lmms-eval's
    log, results and every reply.
    Raises EvaluationError where lmms-eval or a task is missing, a judge is needed and none is set, or a run fails.
    """
    wanted = find(benchmarks)
    _check(wanted, harness.judge, harness.task_folder)
    # lmms-eval runs in ``folder``, where paths relative to our folder would be wrong. Symlinks are not resolved,
    # because a venv's Python is one.
    local = Path(checkpoint).absolute()
    if isinstance(checkpoint, Path) and not local.is_dir():
        raise EvaluationError(f"checkpoint {checkpoint}: no such folder. A hub's name is given as text, not as a path.")
    options = {"pretrained": str(local if local.is_dir() else checkpoint), **harness.arguments}
    for name, value in options.items():
        if re.search(r"[,'\"{}\[\]]", value):  # lmms-eval would cut it there
            raise EvaluationError(
                f"{name}={value}: lmms-eval takes no comma, quote or bracket here. Rename the folder."
            )
    interpreter = (harness.python or Path(sys.executable)).absolute()
    _check_installed(interpreter)
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"results": {}, "n-samples": {}}
    for kind, group in _groups(wanted).items():
        command = [str(interpreter), "-m", "lmms_eval", "--model", harness.adapter]
        command += ["--model_args", ",".join(f"{name}={value}" for name, value in options.items())]
        command += ["--tasks", ",".join(str(each.task) for each in group)]
        command += ["--batch_size", "1", "--output_path", str(folder.resolve()), "--log_samples", "--timezone", "UTC"]
        if harness.task_folder is not None:
            command += ["--include_path", str(harness.task_folder.resolve())]
        if harness.limit is not None:
            command += ["--limit", str(harness.limit)]
        report = _run(command, folder, _environment(harness.judge, kind), harness.timeout)
        for part, values in results.items():
            values.update(report.get(part, {}))
    return scores_of(results, benchmarks, model=model, method=method, limit=harness.limit)


def scores_of(
    results: Mapping[str, Any], benchmarks: Sequence[str], *, model: str, method: str, limit: int | None = None
) -> list[Score]:
    """The scores of these benchmarks in a results file of lmms-eval. Raises EvaluationError where one has no number."""
    scores = []
    for benchmark in find(benchmarks):
        key = f"{benchmark.metric},{benchmark.filter}"
        numbers = results["results"].get(benchmark.task, {})
        value = numbers.get(key)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not 0 <= value * benchmark.scale < float("inf")
        ):
            raise EvaluationError(
                f"{benchmark.name}: lmms-eval's results have {value!r} for {benchmark.task} {key!r}; they hold "
                f"{', '.join(numbers) or 'nothing'}. They were read as lmms-eval {LMMS_EVAL} writes them."
            )
        scores.append(
            Score(
                model=model,
                method=method,
                benchmark=benchmark.name,
                family="",
                metric=benchmark.metric,
                # Ours is in 0..1, as every "accuracy" is.
                value=float(value) if benchmark is EASY_VQA else float(value) * benchmark.scale,
                questions=results.get("n-samples", {}).get(benchmark.task, {}).get("effective"),
                source=None if limit is None else f"a trial, the first {limit} questions of each benchmark",
            )
        )
    return scores


def write_easy_vqa(folder: Path, count: int, excluded: frozenset[str] = frozenset()) -> Path:
    """The task folder of `EASY_VQA`: ``count`` of easy-vqa's own test questions, for `run`; no network.

    excluded: images (sha256) that a source claims.
    """
    from taskgalaxy_ops.sources.builtin.easy_vqa import questions

    folder.mkdir(parents=True, exist_ok=True)
    data = (folder / "questions.jsonl").resolve()
    lines = [
        json.dumps({"id": each.id, "image": str(each.file), "question": each.question, "answer": each.answer})
        for each in questions("test", count, excluded)
    ]
    data.write_text("\n".join(lines) + "\n", encoding="utf-8")
    template = (_TEMPLATES / "easy_vqa.yaml").read_text(encoding="utf-8")
    (folder / "easy_vqa.yaml").write_text(template.replace("${data}", json.dumps(str(data))), encoding="utf-8")
    (folder / "utils.py").write_text((_TEMPLATES / "utils.py").read_text(encoding="utf-8"), encoding="utf-8")
    return folder


def _check(wanted: Sequence[Benchmark], judge: JudgeSettings | None, task_folder: Path | None) -> None:
    lacking = [each.name for each in wanted if each.task is None]
    if lacking:
        raise EvaluationError(f"lmms-eval {LMMS_EVAL} has no task for {', '.join(lacking)}. Leave it out.")
    judged = [each.name for each in wanted if each.judge]
    if judged and not (judge and judge.key):
        raise EvaluationError(
            f"{', '.join(judged)}: a model grades the answers, and none is configured. Give a judge with its key, or "
            "leave these out; lmms-eval alone would count every answer as wrong."
        )
    if EASY_VQA in wanted and task_folder is None:
        raise EvaluationError(f"{EASY_VQA.name}: its task is not lmms-eval's own. Write it with `write_easy_vqa`.")


def _check_installed(python: Path) -> None:
    try:
        # -P: do not find packages in the current folder, because they are not installed.
        subprocess.run(
            [python, "-P", "-c", "from importlib.metadata import version; version('lmms-eval')"],
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise EvaluationError(
            f"{python} has no lmms-eval. Install it (`pip install lmms-eval=={LMMS_EVAL}`) into a Python of its own "
            "and name that one; docs/benchmarks.md has the steps."
        ) from error


def _groups(wanted: Sequence[Benchmark]) -> dict[str | None, list[Benchmark]]:
    """Benchmarks that can share a run: with one kind of judge at most."""
    kinds: list[str | None] = list(dict.fromkeys(each.judge for each in wanted if each.judge)) or [None]
    groups: dict[str | None, list[Benchmark]] = {kind: [] for kind in kinds}
    for each in wanted:
        groups[each.judge or kinds[0]].append(each)
    return groups


def _environment(judge: JudgeSettings | None, kind: str | None) -> dict[str, str]:
    """Our environment with the given judge only, so that lmms-eval does not spend a key that is set for something else.

    kind: how the run's tasks address the judge (`Benchmark.judge`); None: they have no judge.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OPENAI_", "AZURE_")) and name not in {"API_TYPE", "MODEL_VERSION"}
    }
    if judge is not None and kind is not None:
        url = judge.url.rstrip("/")
        environment |= {"API_TYPE": "openai", "OPENAI_API_KEY": judge.key}
        environment["OPENAI_API_URL"] = f"{url}/chat/completions" if kind == "endpoint" else url
        if judge.model:
            environment["MODEL_VERSION"] = judge.model
    return environment


def _run(command: Sequence[str], folder: Path, environment: dict[str, str], timeout: float | None) -> dict[str, Any]:
    """Run lmms-eval and return the results file that it wrote.

    Raises EvaluationError if it fails, writes no results, runs into the timeout, or logs an answer or grade as lost.
    """
    before = set(folder.rglob("*_results.json"))
    log = folder / f"lmms-eval-{len(list(folder.glob('lmms-eval-*.log'))) + 1}.log"
    with log.open("wb") as out:
        try:
            code = subprocess.run(
                command, cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT, check=False, timeout=timeout
            ).returncode
        except subprocess.TimeoutExpired as error:
            raise EvaluationError(f"lmms-eval took more than {timeout:g} s and was ended; its log is {log}.") from error
    lines = [line for line in _COLOUR.sub("", log.read_text(encoding="utf-8", errors="replace")).splitlines() if line]
    written = set(folder.rglob("*_results.json")) - before
    if code or len(written) != 1:
        last = "\n  ".join(lines[-_LAST_LINES:])
        raise EvaluationError(f"lmms-eval failed (exit code {code}); its log is {log}. Its last lines:\n  {last}")
    for what, pattern in (("the checkpoint gave no answer", _UNANSWERED), ("the judge gave no grade", _UNGRADED)):
        lost = [line for line in lines if pattern.search(line)]
        if lost:
            raise EvaluationError(
                f"{what}, and lmms-eval counted that as wrong ({len(lost)} lines of {log}), first:\n  {lost[0]}\n"
                "  Mend it and run again."
            )
    results: dict[str, Any] = json.loads(written.pop().read_text(encoding="utf-8"))
    return results
