"""The process of a ``trl`` job: ``python -m taskgalaxy_ops.finetune.train FOLDER``. Resumes from its last checkpoint.

TRL's SFTTrainer gets prompt and completion, so that the loss covers the answer only. Images are decoded once, and
reduced to the size that the model sees. No example is truncated (``max_length=None``), because that could cut through
an image's tokens; an example that is too long is left out and counted.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from taskgalaxy_ops.finetune.jobs import OUTPUT, RESULT
from taskgalaxy_ops.finetune.progress import PROGRESS, points
from taskgalaxy_ops.finetune.recipes import Recipe
from taskgalaxy_ops.finetune.tiny import TINY, save_tiny
from taskgalaxy_ops.release.formats.layouts import llava_images, parts, said_of
from taskgalaxy_ops.release.formats.tables import IMAGES_COLUMN, MESSAGES_COLUMN

_COLUMNS = {"images": IMAGES_COLUMN, "prompt": MESSAGES_COLUMN, "completion": MESSAGES_COLUMN}
_LOG_STEPS = 10
_KEPT_SIDE = 2048  # pixels: the longest side of images for other models than `tiny`


def main(folder: Path) -> None:
    """Train as ``train.json`` says; writes the checkpoint to ``output/final`` and its figures to ``result.json``."""
    began = time.monotonic()
    configuration = json.loads((folder / "train.json").read_text(encoding="utf-8"))
    recipe = Recipe.model_validate(configuration["recipe"])
    model, processor = _base(folder, recipe)
    data, left_out = _dataset(folder / configuration["data"], processor, recipe)
    from trl import SFTTrainer  # it takes seconds to load: a model or data that cannot be read are told before

    trainer = SFTTrainer(
        model=model,
        args=_arguments(folder, recipe),
        train_dataset=data,
        processing_class=processor,
        callbacks=[_progress_callback(folder / PROGRESS)],
        peft_config=_lora(recipe),
    )
    trainer.train(resume_from_checkpoint=_last_checkpoint(folder / OUTPUT))
    final = folder / OUTPUT / "final"
    if recipe.lora:
        trainer.model = trainer.model.merge_and_unload()
    trainer.save_model(str(final))
    processor.save_pretrained(final)
    if not trainer.is_world_process_zero():
        return
    logged = points(folder)  # from the first step, also if this process resumed the job
    result = {
        "checkpoint": str(final),
        "weights_sha256": _weights_sha256(final),
        "examples": len(data),
        "left_out": left_out,
        "steps": trainer.state.global_step,
        "loss_first": logged[0].loss if logged else None,
        "loss_last": logged[-1].loss if logged else None,
        "parameters": sum(weight.numel() for weight in trainer.model.parameters()),
        "seconds": round(time.monotonic() - began, 1),
    }
    part = folder / f"{RESULT}.part"
    part.write_text(json.dumps(result, indent=1), encoding="utf-8")
    part.replace(folder / RESULT)
    print(f"trained {result['steps']} steps on {result['examples']} examples in {result['seconds']} s", flush=True)


def _base(folder: Path, recipe: Recipe) -> tuple[Any, Any]:
    """The model to train, what the recipe freezes frozen, and its processor."""
    source = recipe.base.model
    if Path(source).is_absolute() and not Path(source).is_dir():  # told before anything is loaded, which takes seconds
        raise FileNotFoundError(f"there is no model at {source}: mend the recipe's base.model")
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    if source == TINY:
        source = str(folder / "untrained")
        save_tiny(Path(source), recipe.seed)
    processor = AutoProcessor.from_pretrained(source, revision=recipe.base.revision)
    dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
    model = AutoModelForImageTextToText.from_pretrained(source, revision=recipe.base.revision, dtype=dtype)
    if recipe.freeze_vision:
        for name, weight in model.named_parameters():
            if "vision_tower" in name or "vision_model" in name:
                weight.requires_grad = False
    return model, processor


def _arguments(folder: Path, recipe: Recipe) -> Any:
    """The recipe as TRL's SFTConfig."""
    import torch
    from trl import SFTConfig

    return SFTConfig(
        output_dir=str(folder / OUTPUT),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.device_batch,
        gradient_accumulation_steps=recipe.accumulation,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        warmup_steps=recipe.warmup_ratio,  # below 1, a share
        lr_scheduler_type=recipe.schedule,
        gradient_checkpointing=recipe.gradient_checkpointing,
        bf16=recipe.precision == "bf16",
        use_cpu=not torch.cuda.is_available(),
        seed=recipe.seed,
        max_length=None,
        logging_steps=_LOG_STEPS,
        logging_first_step=True,
        save_strategy="steps",
        save_steps=100,
        save_total_limit=1,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
    )


def _weights_sha256(folder: Path) -> str:
    """The SHA-256 of a checkpoint's weights: of its files' bytes, in order of name."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _dataset(file: Path, processor: Any, recipe: Recipe) -> tuple[Any, int]:
    """The dataset (a row an answer: prompt, completion, images), and how many answers were too long.

    A conversation has a row for each of its answers, after the turns before it: what builds on them makes no sense
    without.
    """
    from datasets import Dataset, Features

    side = _side(processor, recipe)
    images: dict[str, Any] = {}
    rows, left_out = [], 0
    for row in json.loads(file.read_text(encoding="utf-8")):
        paths = llava_images(row)
        images |= {path: _small(Path(path), side) for path in paths if path not in images}
        said = said_of(row["conversations"], len(paths))
        told = parts(said, len(paths))
        for answer in range(1, len(said), 2):
            if len(processor.tokenizer.encode(" ".join(text for _, text in said[: answer + 1]))) > recipe.max_length:
                left_out += 1
                continue
            asked = {"prompt": told[:answer], "completion": told[answer : answer + 1]}
            rows.append({"images": [images[path] for path in paths], **asked})
    features = Features.from_dict({name: feature for name, (_, feature) in _COLUMNS.items()})
    return Dataset.from_list(rows, features=features), left_out


def _last_checkpoint(output: Path) -> str | None:
    """The newest complete checkpoint: the trainer writes ``trainer_state.json`` last."""
    complete = [path.parent for path in output.glob("checkpoint-*/trainer_state.json")]
    return str(max(complete, key=lambda path: int(path.name.rpartition("-")[2]))) if complete else None


def _side(processor: Any, recipe: Recipe) -> int:
    size = getattr(processor.image_processor, "crop_size", None) or {}
    return int(size["height"]) if recipe.base.model == TINY else _KEPT_SIDE


def _small(file: Path, side: int) -> Any:
    """The image as PNG bytes: as models are shown it, and small, because training decodes it many times."""
    import io

    from taskgalaxy_ops.models.rendering import upright

    image = upright(file.read_bytes())
    image.thumbnail((side, side))
    image.info.clear()
    out = io.BytesIO()
    image.save(out, "PNG")
    return {"bytes": out.getvalue(), "path": None}


def _lora(recipe: Recipe) -> Any:
    if recipe.lora is None:
        return None
    from peft import LoraConfig

    chosen = recipe.lora
    return LoraConfig(
        r=chosen.r,
        lora_alpha=chosen.alpha,
        lora_dropout=chosen.dropout,
        target_modules="all-linear",
        exclude_modules=r".*(vision_tower|vision_model).*" if recipe.freeze_vision else None,
        task_type="CAUSAL_LM",
    )


def _progress_callback(file: Path) -> Any:
    """A callback that appends what the trainer logs to ``file``, a JSON line a step, for `points` to read."""
    from transformers import TrainerCallback

    class Story(TrainerCallback):  # type: ignore[misc]
        _began: tuple[float, int] | None = None

        def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:  # noqa: ARG002
            self._began = (time.monotonic(), state.global_step)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:  # noqa: ARG002
            if not logs or "loss" not in logs or self._began is None or not state.is_world_process_zero:
                return
            began, first = self._began
            done = max(state.global_step - first, 1)
            left = (time.monotonic() - began) / done * (state.max_steps - state.global_step)
            row = {
                "step": state.global_step,
                "steps": state.max_steps,
                "loss": float(logs["loss"]),
                "learning_rate": logs.get("learning_rate"),
                "seconds_left": round(left, 1),
            }
            with file.open("a", encoding="utf-8") as out:
                out.write(json.dumps(row) + "\n")

    return Story()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
