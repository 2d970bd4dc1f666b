"""InternVL's own trainer (OpenGVLab/InternVL, internvl_chat/internvl/train/internvl_chat_finetune.py).

The command runs in a clone of the repository: ``INTERNVL_HOME`` names it where the job runs. What lies at a relative
path, such as base data, is looked for in the clone's ``internvl_chat``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.finetune.jobs import OUTPUT, Rendered, Trainer
from taskgalaxy_ops.finetune.mixture import Part
from taskgalaxy_ops.finetune.recipes import Recipe
from taskgalaxy_ops.finetune.trainers.shared import (
    ZERO,
    arguments,
    check_parts,
    examples,
    expanded,
    jsonl,
    stem,
    training_flags,
    zero,
)

META = "data/meta.json"
# Goes on from a checkpoint that an interrupted run left whole; told to overwrite, the trainer would begin again.
_RUN = (
    "again=True; ls output/checkpoint-*/trainer_state.json >/dev/null 2>&1 && again=False; "
    'cd "${INTERNVL_HOME:?set it to a clone of InternVL}/internvl_chat" && '
    'export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" && exec "$@" --overwrite_output_dir "$again"'
)
_LORA_DROPOUT = 0.05  # the trainer's own, as is alpha = 2 r: it has no flag for either
_TILE = 448  # pixels
_TILES = 6  # of an image, at most


def render(recipe: Recipe, parts: list[Part], folder: Path, *, blind: bool) -> Rendered:
    """``torchrun internvl_chat_finetune.py`` with the flags of InternVL2's published script; a jsonl a part."""
    check_parts(parts, blind=blind)
    lora = recipe.lora
    if lora and (lora.alpha, lora.dropout) != (2 * lora.r, _LORA_DROPOUT):
        raise SettingsError(
            f"recipe {recipe.name}: InternVL's trainer takes LoRA's alpha as 2 r and its dropout as {_LORA_DROPOUT}, "
            f"not {lora.alpha} and {lora.dropout}. Change lora, or the trainer."
        )
    meta: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    for part in parts:
        entry = {"root": "/", "data_augment": False, "repeat_time": _repeat(part), "length": part.rows}
        if part.examples is None:
            if not part.annotations or not part.annotations.endswith("jsonl"):
                raise SettingsError(f"base data {part.name}: InternVL's trainer reads jsonl, not {part.annotations}.")
            entry |= {"root": expanded(part.images), "annotation": expanded(part.annotations)}
        else:
            rows = examples(part, folder, blind=blind)
            if entry["repeat_time"] is None:  # the trainer repeats by whole numbers alone
                rows = [rows[number % len(rows)] for number in range(round(len(rows) * part.repeat))]
                entry |= {"repeat_time": 1, "length": len(rows)}
            path = f"data/{stem(part)}.jsonl"
            files[path] = jsonl(rows)
            entry["annotation"] = str(folder / path)
        meta[part.name] = {**entry, "max_dynamic_patch": _TILES}
    flags: dict[str, Any] = {
        **training_flags(recipe),
        "model_name_or_path": recipe.base.model,
        "conv_style": recipe.template.get("internvl", "internlm2-chat"),
        "output_dir": str(folder / OUTPUT),
        "meta_path": str(folder / META),
        "force_image_size": _TILE,
        "max_dynamic_patch": _TILES,
        "down_sample_ratio": 0.5,
        "drop_path_rate": 0.0 if lora else 0.1,
        "pad2square": recipe.pad_to_square,
        "freeze_llm": lora is not None,  # adapters are put in after that, and learn
        "freeze_mlp": lora is not None,
        "freeze_backbone": recipe.freeze_vision,
        "use_llm_lora": lora.r if lora else None,
        "vision_select_layer": recipe.vision_layer,
        "save_steps": 200,
        "max_seq_length": recipe.max_length,
        "do_train": True,
        "grad_checkpoint": recipe.gradient_checkpointing,
        "group_by_length": True,
        "dynamic_image_size": not recipe.pad_to_square,
        "use_thumbnail": not recipe.pad_to_square,
        "ps_version": "v2",
        "deepspeed": str(folder / ZERO) if recipe.zero_stage else None,
    }
    files[META] = json.dumps(meta, indent=1, ensure_ascii=False).encode()
    if recipe.zero_stage:
        files[ZERO] = json.dumps(zero(recipe), indent=1).encode()
    # A free port, not the script's: two jobs may share a machine.
    run = ("torchrun", "--standalone", f"--nproc_per_node={recipe.devices}", "internvl/train/internvl_chat_finetune.py")
    # LAUNCHER: it takes itself for a Slurm task otherwise. UTF-8: it opens files in the locale's encoding.
    environment = {"LAUNCHER": "pytorch", "PYTHONUTF8": "1"}
    return Rendered(("sh", "-c", _RUN, "sh", *run, *arguments(flags)), files, environment)


def _repeat(part: Part) -> float | None:
    """What the trainer's ``repeat_time`` takes: a share below 1, or a whole number; None: it must be repeated here."""
    if part.repeat < 1:
        return part.repeat
    if part.repeat.is_integer():
        return int(part.repeat)
    if part.examples is None:
        raise SettingsError(
            f"base data {part.name}: InternVL's trainer repeats by whole numbers, not {part.repeat:g}. Change that."
        )
    return None


INTERNVL = Trainer(render, one_file=False)
