"""ms-swift 4: ``swift sft`` with command-line flags, and datasets in its messages-and-images form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.finetune.jobs import OUTPUT, Rendered, Trainer
from taskgalaxy_ops.finetune.mixture import Part
from taskgalaxy_ops.finetune.recipes import Recipe
from taskgalaxy_ops.finetune.trainers.llamafactory import images_of
from taskgalaxy_ops.finetune.trainers.shared import ZERO, arguments, check_parts, examples, expanded, jsonl, stem, zero
from taskgalaxy_ops.release.formats.layouts import swift

_DONE = "done.json"
# Resumes from the last complete checkpoint (the trainer writes its state last), and links the final one as output/last:
# the trainer's own create_checkpoint_symlink fails where nothing was evaluated.
_RUN = (
    "last() { ls -d output/checkpoint-*/trainer_state.json 2>/dev/null | sort -V | tail -n 1 | xargs -r dirname; }; "
    'from=$(last); "$@" ${from:+--resume_from_checkpoint "$from"} && '
    'ln -sfn "$(basename "$(last)")" output/last && cp done.json result.json'
)
_PROJECTORS = {"internvl2": "mlp1", "internvl2_5": "mlp1"}  # by template; of all others: multi_modal_projector


def render(recipe: Recipe, parts: list[Part], folder: Path, *, blind: bool) -> Rendered:
    """``swift sft`` and a jsonl a part; it reads LLaVA's JSON of unread base parts itself."""
    check_parts(parts, blind=blind)
    datasets: list[str] = []
    files: dict[str, bytes] = {}
    for part in parts:
        # A relative path, because the folder's path may contain marks of the dataset list's own syntax (``::``, ``#``).
        path = f"data/{stem(part)}.jsonl"
        if part.examples is None:
            path = str(Path(expanded(part.annotations)).resolve())
        else:
            files[path] = jsonl(swift(row.id, row.turns, row.images) for row in examples(part, folder, blind=blind))
        datasets.append(path if part.repeat == 1 else f"{path}#{_taken(part)}")
    if recipe.zero_stage:
        files[ZERO] = json.dumps(zero(recipe), indent=1).encode()
    files[_DONE] = json.dumps({"checkpoint": str(folder / OUTPUT / "last")}, ensure_ascii=False).encode()
    environment = {"NPROC_PER_NODE": str(recipe.devices), "USE_HF": "1", "PYTHONUTF8": "1"}
    if images := images_of(parts):
        environment["ROOT_IMAGE_DIR"] = images
    command = ("swift", "sft", "--dataset", *datasets, *arguments(_flags(recipe)))
    return Rendered(("sh", "-c", _RUN, "sh", *command), files, environment)


def _taken(part: Part) -> int:
    """The trainer's ``#count``: it takes whole repeats completely, and draws the rest without replacement.

    Raises SettingsError where the part's number of rows is not known.
    """
    if not part.rows:
        raise SettingsError(
            f"base data {part.name}: to repeat it {part.repeat:g} times, the trainer must know how many rows it has. "
            "Set `rows`."
        )
    return max(round(part.rows * part.repeat), 1)


def _flags(recipe: Recipe) -> dict[str, Any]:
    lora, template = recipe.lora, recipe.template.get("ms-swift")
    bf16 = recipe.precision == "bf16"
    flags: dict[str, Any] = {
        "model": recipe.base.model,
        "model_revision": recipe.base.revision,
        "template": template,
        "use_hf": True,
        "tuner_type": "lora" if lora else "full",
        "freeze_vit": recipe.freeze_vision,
        "freeze_llm": False,
        "freeze_aligner": lora is not None,  # with LoRA: the projector gets no adapter, because it is trained whole
        "aligner_lr": recipe.projector_learning_rate,
        "torch_dtype": "bfloat16" if bf16 else "float32",
        "bf16": bf16,
        "fp16": False,  # the trainer's default for float32 is fp16
        "deepspeed": ZERO if recipe.zero_stage else None,
        # A batch without images gives the projector no gradient, at which plain data parallelism fails.
        "ddp_find_unused_parameters": None if recipe.zero_stage else True,
        "max_length": recipe.max_length,
        "output_dir": OUTPUT,
        "add_version": False,
        "num_train_epochs": recipe.epochs,
        "per_device_train_batch_size": recipe.device_batch,
        "gradient_accumulation_steps": recipe.accumulation,
        "learning_rate": recipe.learning_rate,
        "weight_decay": recipe.weight_decay,
        "warmup_ratio": recipe.warmup_ratio,
        "lr_scheduler_type": recipe.schedule,
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "split_dataset_ratio": 0,
        "dataset_num_proc": 4,
        "dataloader_num_workers": 4,
        "logging_steps": 1,
        "save_steps": 500,
        "save_total_limit": 1,
        "report_to": "none",
        "seed": recipe.seed,
        "data_seed": recipe.seed,
    }
    if lora:
        projector = _PROJECTORS.get(template or "", "multi_modal_projector")
        flags |= {"target_modules": "all-linear", "modules_to_save": projector}
        flags |= {"lora_rank": lora.r, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}
    return flags


SWIFT = Trainer(render, one_file=False)
