"""InternVL's own trainer (OpenGVLab/InternVL, internvl_chat/internvl/train/internvl_chat_finetune.py).

The command runs in a clone of the repository, which ``INTERNVL_HOME`` names on the machine that runs the job. Relative
paths, such as those of base data, start from the clone's ``internvl_chat``.
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
    llava_row,
    stem,
    training_flags,
    zero,
)

META = "data/meta.json"
# If an interrupted run left a complete checkpoint, the trainer must resume: with --overwrite_output_dir it would start
# from the beginning.
_RUN = (
    "again=True; ls output/checkpoint-*/trainer_state.json >/dev/null 2>&1 && again=False; "
    'cd "${INTERNVL_HOME:?set it to a clone of InternVL}/internvl_chat" && '
    'export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" && exec "$@" --overwrite_output_dir "$again"'
)
_LORA_DROPOUT = 0.05  # fixed in the trainer, like alpha = 2 r: it has no flag for either
_TILE = 448  # pixels
_TILES = 6  # an image, at most


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
            if entry["repeat_time"] is None:  # the trainer repeats only by whole numbers
                rows = [rows[number % len(rows)] for number in range(round(len(rows) * part.repeat))]
                entry |= {"repeat_time": 1, "length": len(rows)}
            path = f"data/{stem(part)}.jsonl"
            files[path] = jsonl(map(llava_row, rows))
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
        "freeze_llm": lora is not None,  # the trainer adds the adapters after freezing: they do learn
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
    # --standalone takes a free port instead of the published script's, because two jobs may share a machine.
    run = ("torchrun", "--standalone", f"--nproc_per_node={recipe.devices}", "internvl/train/internvl_chat_finetune.py")
    # Without LAUNCHER the trainer assumes that Slurm runs it. It opens files in the locale's encoding: PYTHONUTF8.
    environment = {"LAUNCHER": "pytorch", "PYTHONUTF8": "1"}
    return Rendered(("sh", "-c", _RUN, "sh", *run, *arguments(flags)), files, environment)


def _repeat(part: Part) -> float | None:
    """A part's ``repeat_time``: a share below 1, or a whole number. None: the rows must be repeated in the file.

    Raises SettingsError where that is needed and the rows were not read.
    """
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
