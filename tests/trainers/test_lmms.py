"""lmms-eval itself, offline and on a CPU: TASKGALAXY_LMMS names a Python that has it (docs/benchmarks.md)."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import psutil
import pytest

from taskgalaxy_ops.evaluate import lmms
from taskgalaxy_ops.evaluate.benchmarks import BENCHMARKS, EASY_VQA

# As this process was started: tests/conftest.py takes such variables away.
PYTHON = psutil.Process().environ().get("TASKGALAXY_LMMS", "")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not PYTHON, reason="TASKGALAXY_LMMS names no Python with lmms-eval")]

_REGISTRY = """
import json
from lmms_eval.tasks import TaskManager
index = TaskManager("ERROR").task_index
print("@" + json.dumps({name: str(entry["yaml_path"]) for name, entry in index.items() if entry["type"] == "task"}))
"""


def test_names_and_metrics_are_lmms_evals_own() -> None:
    out = subprocess.run([PYTHON, "-c", _REGISTRY], check=True, capture_output=True, text=True).stdout
    files = json.loads(next(line for line in out.splitlines() if line.startswith("@"))[1:])
    assert "mme" in files
    for each in BENCHMARKS:
        if each.task is None:
            assert not [name for name in files if re.search(r"q_?bench.*(cn|zh|chinese)", name)], each.name
            continue
        text = Path(files[each.task]).read_text(encoding="utf-8")
        assert re.search(rf"^\s*- metric: {each.metric}$", text, re.MULTILINE), each.name
        assert ("filter_list" in text) == (each.filter != "none"), each.name
        assert each.filter == "none" or f'- name: "{each.filter}"' in text, each.name
        assert each.submission is None or each.submission in files, each.name


def test_a_checkpoint_is_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny model that was taught one word: its score is that word's share among the answers, and nothing else."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    _teach(tmp_path / "tiny", "no")
    tasks = lmms.write_easy_vqa(tmp_path / "tasks", 12)
    answers = [json.loads(line)["answer"] for line in (tasks / "questions.jsonl").read_text().splitlines()]
    [score] = lmms.run(
        tmp_path / "tiny",
        [EASY_VQA.name],
        lmms.Harness(python=Path(PYTHON), task_folder=tasks, arguments=lmms.CPU, timeout=300),
        model="tiny",
        method="Baseline",
        folder=tmp_path / "out",
    )
    assert 0 < answers.count("no") < len(answers)
    assert score.value == pytest.approx(answers.count("no") / len(answers))
    assert (score.questions, score.metric, score.measured) == (12, "accuracy", True)


def _teach(folder: Path, word: str) -> None:
    """A checkpoint that answers ``word`` to everything."""
    import torch
    from PIL import Image
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    from taskgalaxy_ops.finetune.tiny import save_tiny

    save_tiny(folder)
    processor = AutoProcessor.from_pretrained(folder)
    model = LlavaForConditionalGeneration.from_pretrained(folder)
    image = Image.new("RGB", (64, 64), "white")
    questions = ("is there a shape?", "what color is the shape?", "what shape is present?", "does it not contain red?")
    asked = processor(
        text=[f"<s>USER: <image>\n{question} ASSISTANT: {word}</s>" for question in questions],
        images=[image] * len(questions),
        return_tensors="pt",
        padding=True,
    )
    end = processor.tokenizer.convert_tokens_to_ids("</s>")
    taught = {end, *processor.tokenizer(f" {word}", add_special_tokens=False)["input_ids"]}
    labels = asked["input_ids"].clone()
    for line in labels:
        kept = [at for at, token in enumerate(line.tolist()) if token in taught][-len(taught) :]
        line[[at for at in range(len(line)) if at not in kept]] = -100
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(30):
        model(**asked, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
