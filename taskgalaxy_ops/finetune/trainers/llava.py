"""LLaVA's own trainer (haotian-liu/LLaVA, llava/train/train_mem.py), and InternVL's fork of it.

The command runs in a clone of the repository, which ``LLAVA_HOME`` names on the machine that runs the job.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.finetune.jobs import OUTPUT, Rendered, Trainer
from taskgalaxy_ops.finetune.mixture import Part
from taskgalaxy_ops.finetune.recipes import Recipe
from taskgalaxy_ops.finetune.trainers.shared import ZERO, arguments, data_file, training_flags, zero

DATA = "data/train.json"


def render(recipe: Recipe, parts: list[Part], folder: Path, *, blind: bool) -> Rendered:
    """``deepspeed train_mem.py`` with the flags of the published scripts; one data file, absolute image paths."""
    base = recipe.base
    if not recipe.freeze_vision:
        raise SettingsError(
            f"recipe {recipe.name}: LLaVA's trainer keeps the vision tower frozen. Set freeze_vision: true."
        )
    if any(example.further_images for part in parts for example in part.examples or ()):
        raise SettingsError(
            f"recipe {recipe.name}: LLaVA's trainer takes one image a sample. Set the recipe's variants to question "
            "forms about one image, or take another trainer."
        )
    flags: dict[str, Any] = {}
    if recipe.lora:
        flags |= {"lora_enable": True, "lora_r": recipe.lora.r, "lora_alpha": recipe.lora.alpha}
        flags |= {"lora_dropout": recipe.lora.dropout}
        flags |= {"mm_projector_lr": recipe.projector_learning_rate or recipe.learning_rate}
    flags |= {
        **training_flags(recipe),
        "deepspeed": str(folder / ZERO) if recipe.zero_stage else None,
        "model_name_or_path": base.language_model or base.model,
        "version": recipe.template.get("llava", "v1"),
        "data_path": str(folder / DATA),
        "image_folder": "/",
        "vision_tower": base.vision_tower,
        "pretrain_mm_mlp_adapter": base.projector,
        "mm_projector_type": recipe.projector_type,
        "mm_vision_select_layer": recipe.vision_layer,
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "image_aspect_ratio": "pad" if recipe.pad_to_square else "square",
        "group_by_modality_length": True,
        "output_dir": str(folder / OUTPUT),
        "save_steps": 500,
        "tf32": True,
        "model_max_length": recipe.max_length,
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "lazy_preprocess": True,
    }
    script = "llava/train/train.py" if recipe.lora else "llava/train/train_mem.py"
    command = ("deepspeed", f"--num_gpus={recipe.devices}", script, *arguments(flags))
    # The script's path is relative to the clone.
    wrapped = ("sh", "-c", 'cd "${LLAVA_HOME:?set it to a clone of LLaVA}" && exec "$@"', "sh", *command)
    files = {DATA: data_file(parts, folder, blind=blind), ZERO: json.dumps(zero(recipe), indent=1).encode()}
    return Rendered(wrapped, files)


LLAVA = Trainer(render)
