"""LLaMA-Factory: ``llamafactory-cli train`` with a YAML file and a list of datasets in ShareGPT's form.

It has no separate learning rate for the projector: with LoRA, the projector learns at the adapters' rate.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.finetune.jobs import OUTPUT, Rendered, Trainer
from taskgalaxy_ops.finetune.mixture import Part
from taskgalaxy_ops.finetune.recipes import Recipe
from taskgalaxy_ops.finetune.trainers.shared import ZERO, check_parts, examples, expanded, jsonl, stem, zero
from taskgalaxy_ops.release.formats.layouts import sharegpt
from taskgalaxy_ops.release.formats.sharegpt import COLUMNS, ENTRY, INFO

CONFIGURATION = "train.yaml"
DATASETS = f"data/{INFO}"


def render(recipe: Recipe, parts: list[Part], folder: Path, *, blind: bool) -> Rendered:
    """``train.yaml``, ``dataset_info.json`` and a jsonl a part; the paths of these files are relative to the folder."""
    check_parts(parts, blind=blind)
    datasets: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    for part in parts:
        columns = {"messages": COLUMNS["messages"]}
        if part.examples is None:
            file = str(Path(expanded(part.annotations)).resolve())
            columns["images"] = "image"
        else:
            rows = examples(part, folder, blind=blind)
            file = f"{stem(part)}.jsonl"
            files[f"data/{file}"] = jsonl(sharegpt(row.id, row.turns, row.images) for row in rows)
            if any(row.images for row in rows):  # of empty lists alone, the trainer's reader cannot tell what they hold
                columns = COLUMNS
        datasets |= _entries(part, {"file_name": file, **ENTRY, "columns": columns})
    if recipe.zero_stage:
        files[ZERO] = json.dumps(zero(recipe), indent=1).encode()
    files[DATASETS] = json.dumps(datasets, indent=1, ensure_ascii=False).encode()
    configuration = _configuration(recipe, list(datasets), images_of(parts))
    files[CONFIGURATION] = yaml.safe_dump(configuration, sort_keys=False).encode()
    # With these it starts torchrun with as many processes as the recipe has devices; by default as the machine has.
    environment = {"FORCE_TORCHRUN": "1", "NPROC_PER_NODE": str(recipe.devices), "PYTHONUTF8": "1"}
    return Rendered(("llamafactory-cli", "train", CONFIGURATION), files, environment)


def images_of(parts: list[Part]) -> str | None:
    """The folder from which the image paths of unread base parts start; None: there is none.

    Raises SettingsError where there are two, because the trainer takes one.
    """
    folders = {part.images: part for part in parts if part.examples is None and part.images}
    if len(folders) > 1:
        raise SettingsError(
            f"base data {', '.join(part.name for part in folders.values())}: this trainer looks for images in one "
            f"folder, not in {', '.join(folders)}. Let images be their common folder."
        )
    return str(Path(expanded(next(iter(folders)))).resolve()) if folders else None


def _entries(part: Part, entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of the part's file for each whole repeat, and one that samples the rest.

    One entry with ``num_samples`` would draw all repeats but the first at random.
    """
    whole, rest = divmod(part.repeat, 1)
    names = [stem(part) if number == 0 else f"{stem(part)}-again-{number}" for number in range(int(whole))]
    entries = dict.fromkeys(names, entry)
    if rest:
        if not part.rows:
            raise SettingsError(
                f"base data {part.name}: to repeat it {part.repeat:g} times, its trainer must know how many rows it"
                " has. Set `rows`."
            )
        # At least one: the trainer reads 0 as all samples.
        entries[f"{stem(part)}-share"] = {**entry, "num_samples": max(round(part.rows * rest), 1)}
    return entries


def _configuration(recipe: Recipe, datasets: list[str], images: str | None) -> dict[str, Any]:
    lora = recipe.lora
    configuration: dict[str, Any] = {
        "model_name_or_path": recipe.base.model,
        "model_revision": recipe.base.revision,
        "disable_gradient_checkpointing": not recipe.gradient_checkpointing,
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora" if lora else "full",
        "freeze_vision_tower": recipe.freeze_vision,
        "freeze_multi_modal_projector": False,
        "freeze_language_model": False,
        "deepspeed": ZERO if recipe.zero_stage else None,
        "dataset_dir": "data",
        "media_dir": images,
        "dataset": ",".join(datasets),
        "template": recipe.template.get("llamafactory", "llava"),
        "cutoff_len": recipe.max_length,
        "preprocessing_num_workers": 4,
        "dataloader_num_workers": 4,
        "output_dir": OUTPUT,
        "overwrite_output_dir": False,  # it resumes from the last checkpoint
        "logging_steps": 1,
        "save_steps": 500,
        "save_total_limit": 1,
        "report_to": "none",
        "per_device_train_batch_size": recipe.device_batch,
        "gradient_accumulation_steps": recipe.accumulation,
        "num_train_epochs": recipe.epochs,
        "learning_rate": recipe.learning_rate,
        "weight_decay": recipe.weight_decay,
        "warmup_ratio": recipe.warmup_ratio,
        "lr_scheduler_type": recipe.schedule,
        "bf16": recipe.precision == "bf16",
        "seed": recipe.seed,
    }
    if lora:
        # The projector is trained whole, as LLaVA's own script does.
        configuration |= {"lora_rank": lora.r, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}
        configuration |= {"lora_target": "all", "additional_target": "multi_modal_projector"}
    return {name: value for name, value in configuration.items() if value is not None}


LLAMAFACTORY = Trainer(render, one_file=False)
