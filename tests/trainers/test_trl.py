"""The examples of docs/release.md, run as they stand there: TRL trains a step on each of the tables that are for it.

On a release of a few pictures, or on the exported folder that TASKGALAXY_RELEASE names.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from releases import COLOUR, TONE, Asked

from taskgalaxy_ops.extensions import RELEASE_FORMATS
from taskgalaxy_ops.finetune.tiny import save_tiny
from trainers.conftest import ASKED_FOR, exported

DOCS = Path(__file__).parents[2] / "docs" / "release.md"
MODEL, FOLDER = "Qwen/Qwen2.5-VL-3B-Instruct", "./data/v000001"
EXAMPLES = {
    re.findall(rf"{FOLDER}/(\w+)", code)[0]: code
    for code in re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    if MODEL in code
}
SMALL = "max_steps=1, per_device_train_batch_size=2, use_cpu=True, bf16=False, report_to='none', save_strategy='no', "
MORE = {"verifiable": "num_generations=2, max_completion_length=8, "}


def asked(colour: str) -> Sequence[Asked]:
    """One question of each kind of check, some with an answer that was voted down."""
    tone = "light" if colour == "yellow" else "dark"
    return (
        Asked(COLOUR, "What colour is it?", colour, voted_down="pink"),
        Asked(TONE, "Is it light or dark?", tone, "chain_of_thought", "It is plain.", voted_down="neither"),
        Asked(COLOUR, "How many colours are there?", "1"),
        Asked(TONE, "Is it dark?\nA. Yes\nB. No", "B" if tone == "light" else "A", "multiple_choice"),
        Asked(COLOUR, "Where is the upper half?", "[0, 0, 1000, 500]", "grounded"),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    formats = tuple(RELEASE_FORMATS.shipped)
    return exported(tmp_path_factory.mktemp("release"), 4, formats, test=0.0, asked=asked, formats=formats)


@pytest.mark.skipif(not ASKED_FOR, reason="takes half a minute: make test-trainers")
def test_what_the_documentation_says_trains(folder: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    save_tiny(tmp_path / "model")
    assert EXAMPLES.keys() == {"messages", "preference", "verifiable"}
    code = ["import json"]
    for table, example in EXAMPLES.items():
        chosen = f'{SMALL}{MORE.get(table, "")}output_dir="{tmp_path}/'
        placed = example.replace(MODEL, str(tmp_path / "model")).replace(FOLDER, str(folder))
        code += [placed.replace('output_dir="', chosen), f"trainer.save_model({table!r})"]
        code.append(f"print(json.dumps([{table!r}, trainer.state.log_history]))")
    # A process of its own: here TRL would take the folder tests/vllm for the package of this name.
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(code)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(DOCS.parents[1]), "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    told = dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith('["'))
    assert told.keys() == EXAMPLES.keys()
    before = load_file(tmp_path / "model" / "model.safetensors")
    for table, history in told.items():
        assert history[-1]["step"] == 1 and math.isfinite(history[-1]["train_loss"])
        after = load_file(tmp_path / table / "model.safetensors")
        learnt = any(not torch.equal(after[name], weight) for name, weight in before.items())
        assert learnt or (table == "verifiable" and history[0]["rewards/reward/std"] == 0)  # where no word is right
    assert 0 <= told["verifiable"][0]["rewards/reward/mean"] <= 1
