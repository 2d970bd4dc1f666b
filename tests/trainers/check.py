"""Runs in a trainer's own Python: loads a rendered job with the trainer's own parsers, and tells what came out.

``check.py llamafactory|ms-swift <folder> <model> [flags]``: in the job's folder, with a local model for the recipe's.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def llamafactory(model: str) -> dict[str, Any]:
    import yaml
    from llamafactory.data.loader import _get_merged_dataset
    from llamafactory.data.template import TEMPLATES
    from llamafactory.hparams import get_train_args

    configuration = yaml.safe_load(Path("train.yaml").read_text(encoding="utf-8"))
    configuration |= {"model_name_or_path": model, "use_cpu": True, "preprocessing_num_workers": 1}
    configuration.pop("model_revision", None)
    models, data, training, tuning, _ = get_train_args(configuration)
    rows = _get_merged_dataset(data.dataset, models, data, training, stage="sft")
    return {
        "template": data.template in TEMPLATES,
        "lora": [tuning.lora_rank, tuning.lora_alpha] if tuning.finetuning_type == "lora" else None,
        "frozen": [tuning.freeze_vision_tower, tuning.freeze_multi_modal_projector],
        "max_length": data.cutoff_len,
        "rows": [
            {
                "turns": [turn["content"] for turn in [*row["_prompt"], *row["_response"]]],
                "images": row["_images"] or [],
            }
            for row in rows
        ],
        **_training(training),
    }


def swift(model: str, flags: list[str]) -> dict[str, Any]:
    from swift.arguments import SftArguments
    from swift.dataset import load_dataset
    from swift.template import TEMPLATE_MAPPING
    from swift.utils import parse_args

    flags[flags.index("--model") + 1] = model
    flags[flags.index("--dataset_num_proc") + 1] = "1"
    arguments, unknown = parse_args(SftArguments, [*flags, "--model_type", "llava1_5_hf", "--use_cpu", "true"])
    if unknown:
        raise SystemExit(f"unknown flags: {unknown}")
    rows, _ = load_dataset(arguments.dataset, seed=arguments.data_seed, strict=True)
    return {
        "template": arguments.template in TEMPLATE_MAPPING,
        "lora": [arguments.lora_rank, int(arguments.lora_alpha)] if arguments.tuner_type == "lora" else None,
        "frozen": [arguments.freeze_vit, arguments.freeze_aligner],
        "max_length": arguments.max_length,
        "rows": [
            {
                "turns": [turn["content"] for turn in row["messages"]],
                "images": [image["path"] for image in row.get("images") or []],
            }
            for row in rows
        ],
        **_training(arguments.training_args),
    }


def _training(arguments: Any) -> dict[str, Any]:
    zero = arguments.deepspeed
    if isinstance(zero, str):
        zero = json.loads(Path(zero).read_text(encoding="utf-8"))
    return {
        "device_batch": arguments.per_device_train_batch_size,
        "accumulation": arguments.gradient_accumulation_steps,
        "learning_rate": arguments.learning_rate,
        "weight_decay": arguments.weight_decay,
        # transformers 5.2 folds the ratio into the steps: below 1, they are a share.
        "warmup_ratio": arguments.warmup_ratio or arguments.warmup_steps,
        "epochs": arguments.num_train_epochs,
        "schedule": str(getattr(arguments.lr_scheduler_type, "value", arguments.lr_scheduler_type)),
        "bf16": arguments.bf16,
        "seed": arguments.seed,
        "zero_stage": zero["zero_optimization"]["stage"] if zero else 0,
    }


if __name__ == "__main__":
    trainer, folder, local, *told = sys.argv[1:]
    os.chdir(folder)
    result = llamafactory(local) if trainer == "llamafactory" else swift(local, told)
    Path("checked.json").write_text(json.dumps(result), encoding="utf-8")
