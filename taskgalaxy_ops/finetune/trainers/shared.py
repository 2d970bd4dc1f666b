"""Files and flags that several trainers share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.finetune.jobs import BLANK
from taskgalaxy_ops.finetune.mixture import Example, Part
from taskgalaxy_ops.finetune.recipes import Recipe
from taskgalaxy_ops.release.formats.layouts import Row, json_array, lines, llava

ZERO = "zero.json"


def data_file(parts: Iterable[Part], folder: Path, *, blind: bool) -> bytes:
    """All parts in one JSON array of LLaVA's form, a row a line.

    A part is written ``repeat`` times; of a fractional repeat the first rows are taken.
    """
    return b"".join(json_array(llava_row(each) for part in parts for each in _repeated(part, folder, blind=blind)))


def _repeated(part: Part, folder: Path, *, blind: bool) -> Iterator[Example]:
    rows = examples(part, folder, blind=blind)
    yield from (rows[number % len(rows)] for number in range(round(len(rows) * part.repeat)))


def check_parts(parts: Iterable[Part], *, blind: bool) -> None:
    """Check that the parts can be rendered.

    Raises SettingsError for two parts of one name, and for a blind run with a part that the trainer reads itself: its
    images cannot be replaced.
    """
    seen: set[str] = set()
    for part in parts:
        if stem(part) in seen:
            raise SettingsError(f"base data {part.name}: another part of the mixture has this name. Rename it.")
        seen.add(stem(part))
        if blind and part.examples is None:
            raise SettingsError(
                f"base data {part.name}: the trainer reads {part.annotations} itself, so its images cannot be replaced "
                "for a blind run. Leave it out of the recipe, or use the trainer llava."
            )


def examples(part: Part, folder: Path, *, blind: bool) -> list[Example]:
    """The examples of a part that was read, each once; blind: with one grey picture as every image."""
    found, grey = list(part.examples or ()), str(folder / BLANK)
    if not blind:
        return found
    return [
        replace(each, image=grey, further_images=(grey,) * len(each.further_images)) if each.image else each
        for each in found
    ]


def llava_row(example: Example) -> Row:
    """An example in LLaVA's form."""
    return llava(example.id, example.turns, example.images)


def stem(part: Part) -> str:
    """A part's name without characters that trainers' lists of datasets reject, such as commas, blanks and slashes."""
    return re.sub(r"[^\w.-]", "_", part.name)


def jsonl(rows: Iterable[Row]) -> bytes:
    return b"".join(lines(rows))


def expanded(path: str | None) -> str:
    """A base part's path with its ``~`` expanded; "": it has none."""
    return str(Path(path).expanduser()) if path else ""


def arguments(flags: dict[str, Any]) -> list[str]:
    """Flags as a command line (``--name value``); a flag whose value is None is left out."""
    return [text for name, value in flags.items() if value is not None for text in (f"--{name}", _shown(value))]


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def training_flags(recipe: Recipe) -> dict[str, Any]:
    """Flags of transformers' Trainer that LLaVA's and InternVL's trainers share."""
    return {
        "bf16": recipe.precision == "bf16",
        "num_train_epochs": recipe.epochs,
        "per_device_train_batch_size": recipe.device_batch,
        "gradient_accumulation_steps": recipe.accumulation,
        "evaluation_strategy": "no",
        "save_strategy": "steps",
        "save_total_limit": 1,
        "learning_rate": recipe.learning_rate,
        "weight_decay": recipe.weight_decay,
        "warmup_ratio": recipe.warmup_ratio,
        "lr_scheduler_type": recipe.schedule,
        "logging_steps": 1,
        "dataloader_num_workers": 4,
        "report_to": "none",
        "seed": recipe.seed,
    }


def zero(recipe: Recipe) -> dict[str, Any]:
    """DeepSpeed's configuration of the recipe's ZeRO stage (Rajbhandari et al., 2020)."""
    return {
        "bf16": {"enabled": recipe.precision == "bf16"},
        "train_micro_batch_size_per_gpu": "auto",
        "train_batch_size": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_optimization": {
            "stage": recipe.zero_stage,
            "overlap_comm": True,
            "contiguous_gradients": True,
            **({"stage3_gather_16bit_weights_on_model_save": True} if recipe.zero_stage == 3 else {}),
        },
    }
