"""What is rendered for LLaMA-Factory and ms-swift, loaded with their own parsers and trained with on a tiny model.

Skipped unless TASKGALAXY_TRAINERS names Pythons that have them (``make check-trainers`` makes such).
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from taskgalaxy_ops.finetune.jobs import OUTPUT, Job, folder_of, result_of
from taskgalaxy_ops.finetune.mixture import Part
from taskgalaxy_ops.finetune.recipes import Recipe, load_recipe, shipped
from taskgalaxy_ops.finetune.tiny import save_tiny
from taskgalaxy_ops.finetune.trainers import TRAINERS
from taskgalaxy_ops.generation.forms import FORMS
from trainers.mixtures import ANSWERS, forms_part, release_part, unread_part

CHECK = Path(__file__).with_name("check.py")
LIBRARIES = ("llamafactory", "ms-swift")
PAIRS = [(recipe, trainer) for recipe in shipped() for trainer in load_recipe(recipe).trainers if trainer in LIBRARIES]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LLaVA-shaped: in the place of the weights that a recipe names."""
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny(folder)
    return folder


def job_of(recipe: Recipe, trainer: Any, parts: list[Part], root: Path) -> Job:
    folder = folder_of(root, "f" * 64)
    rendered = TRAINERS.get(trainer).render(recipe, parts, folder, blind=False)
    job = Job(
        key="f" * 64,
        recipe=recipe,
        trainer=trainer,
        release="v1",
        folder=folder,
        command=rendered.command,
        files=rendered.files,
        environment=rendered.environment,
    )
    job.write()
    return job


def environment(python: Path, job: Job, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    caches = {"MODELSCOPE_CACHE": str(job.folder / "cache"), "HF_HOME": str(job.folder / "home")}
    # A Python that shares another's torch has no torchrun of its own.
    programs = job.folder.parent / "bin"
    programs.mkdir(exist_ok=True)
    (programs / "torchrun").write_text(f'#!/bin/sh\nexec {python} -m torch.distributed.run "$@"\n', encoding="utf-8")
    (programs / "torchrun").chmod(0o755)
    path = f"{programs}:{python.parent}:{os.environ['PATH']}"
    return {**kept, **caches, **job.environment, "HF_HUB_OFFLINE": "1", "PATH": path, **more}


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


def python_of(trainer: str, pythons: dict[str, Path]) -> Path:
    if trainer not in pythons:
        pytest.skip(f"TASKGALAXY_TRAINERS names no Python that has {trainer}")
    return pythons[trainer]


@pytest.mark.parametrize(("name", "trainer"), PAIRS)
def test_the_trainer_loads_what_is_rendered(
    name: str, trainer: str, pythons: dict[str, Path], model: Path, tmp_path: Path
) -> None:
    python, recipe = python_of(trainer, pythons), load_recipe(name)
    parts = [release_part(tmp_path / "images", 1.5), unread_part(tmp_path / "own data", 2.0)]
    found = loaded(python, job_of(recipe, trainer, parts, tmp_path / "a folder's #1"), model)
    rows = found.pop("rows")
    assert found == {
        "template": True,
        "lora": [recipe.lora.r, recipe.lora.alpha] if recipe.lora else None,
        "frozen": [True, trainer == "ms-swift" and recipe.lora is not None],
        "max_length": recipe.max_length,
        "device_batch": recipe.device_batch,
        "accumulation": recipe.accumulation,
        "learning_rate": recipe.learning_rate,
        "weight_decay": recipe.weight_decay,
        "warmup_ratio": recipe.warmup_ratio,
        "epochs": recipe.epochs,
        "schedule": recipe.schedule,
        "bf16": True,
        "seed": recipe.seed,
        "zero_stage": recipe.zero_stage,
    }
    check_rows(rows, parts)


def loaded(python: Path, job: Job, model: Path) -> dict[str, Any]:
    """What the trainer's own parsers make of a job."""
    # One process of a distributed run: DeepSpeed is refused otherwise.
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    flags = job.command[job.command.index("sft") + 1 :] if job.trainer == "ms-swift" else ()
    done = subprocess.run(
        [str(python), str(CHECK), job.trainer, str(job.folder), str(model), *flags],
        env=environment(python, job, **alone, MASTER_PORT=str(free_port())),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found: dict[str, Any] = json.loads((job.folder / "checked.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("trainer", LIBRARIES)
def test_every_question_form_is_loaded_as_it_was_written(
    trainer: str, pythons: dict[str, Path], model: Path, tmp_path: Path
) -> None:
    python, part = python_of(trainer, pythons), forms_part(tmp_path / "images")
    rows = loaded(python, job_of(load_recipe("llava-v1.5-7b"), trainer, [part], tmp_path / "job"), model)["rows"]
    by_image = {tuple(row["images"]): row["turns"] for row in rows}
    assert len(rows) == len(by_image) == len(part.examples or ()) == len(FORMS.shipped)
    for example in part.examples or ():
        (_, first), *later = example.turns
        marked = "<image>\n" * len(example.images) + first
        assert by_image[example.images] == [marked, *(text for _, text in later)], example.id


def check_rows(rows: list[dict[str, Any]], parts: list[Part]) -> None:
    """Every example of the release once and half of them twice, the model's own data twice; nothing cut or escaped."""
    ours = [row for row in rows if row["turns"][-1] != "A."]
    assert len(ours) == 6
    assert len(rows) - len(ours) == 6
    assert {row["turns"][1] for row in ours} == set(ANSWERS)
    expected = {example.turns[1][1]: example for example in parts[0].examples or ()}
    for row in ours:
        example = expected[row["turns"][1]]
        assert row["images"] == ([example.image] if example.image else [])
        mark = "<image>\n" if example.image else ""
        assert row["turns"] == [f"{mark}{example.turns[0][1]}", *(text for _, text in example.turns[1:])]
    own = [Path(image).name for row in rows if row["turns"][-1] == "A." for image in row["images"]]
    assert sorted(own) == ["0.png", "0.png", "1.png", "1.png"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llava-v1.5-7b", "llava-v1.5-7b-lora"])
@pytest.mark.parametrize("trainer", LIBRARIES)
def test_the_trainer_trains(trainer: str, name: str, pythons: dict[str, Path], model: Path, tmp_path: Path) -> None:
    """The job's own script, on a CPU: what is not the recipe's is told beside it."""
    python, recipe = python_of(trainer, pythons), load_recipe(name)
    if trainer == "llamafactory" and " " in str(python):
        pytest.skip("LLaMA-Factory's launcher cuts its own path at a blank: use a clone in a folder without")
    small = {"zero_stage": 0, "devices": 1, "device_batch": 2, "global_batch": 2}
    recipe = recipe.model_copy(update={**small, "base": recipe.base.model_copy(update={"model": str(model)})})
    parts = [release_part(tmp_path / "images"), unread_part(tmp_path / "own")]
    job = job_of(recipe, trainer, parts, tmp_path / "a folder's #1")
    cpu = ("use_cpu=true", "preprocessing_num_workers=1", "dataloader_num_workers=0")
    if trainer == "ms-swift":
        cpu = ("--model_type", "llava1_5_hf", "--use_cpu", "true")
    job = Job(**{**vars(job), "command": (*job.command, *cpu)})
    job.write()
    done = subprocess.run(
        ["sh", str(job.folder / "run.sh")], env=environment(python, job, MASTER_PORT=str(free_port())), check=False
    )
    log = (job.folder / "log.txt").read_text(encoding="utf-8")
    assert done.returncode == 0, log[-4000:]
    checkpoint = Path(result_of(job.folder)["checkpoint"])
    assert checkpoint == job.folder / OUTPUT / ("last" if trainer == "ms-swift" else "")
    assert (checkpoint / ("adapter_model.safetensors" if recipe.lora else "model.safetensors")).is_file()
    from taskgalaxy_ops.finetune.progress import points

    assert [point.step for point in points(job.folder)][-1] == 4  # seven examples, two a step
