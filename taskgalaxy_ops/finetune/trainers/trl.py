"""TRL's SFTTrainer: trains ``tiny`` here, and any vision-language model of transformers on a GPU."""

from __future__ import annotations

import json
from pathlib import Path

from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.finetune.jobs import PYTHON, Rendered, Trainer
from taskgalaxy_ops.finetune.mixture import Part
from taskgalaxy_ops.finetune.recipes import Recipe
from taskgalaxy_ops.finetune.tiny import TINY
from taskgalaxy_ops.finetune.trainers.shared import data_file

CONFIGURATION = "train.json"
DATA = "data/train.json"


def render(recipe: Recipe, parts: list[Part], folder: Path, *, blind: bool) -> Rendered:
    """A configuration for ``taskgalaxy_ops.finetune.train``, and one data file."""
    if recipe.zero_stage or recipe.projector_learning_rate:
        raise SettingsError(
            f"recipe {recipe.name}: zero_stage and projector_learning_rate are not for TRL here. Leave them out, or "
            "take another of its trainers."
        )
    configuration = {"recipe": recipe.model_dump(mode="json"), "data": DATA}
    module = ["-m", "taskgalaxy_ops.finetune.train", str(folder)]
    if recipe.devices > 1:
        module = ["-m", "torch.distributed.run", f"--nproc_per_node={recipe.devices}", *module]
    # The machine that runs the job may have its Python at another path.
    python = ["sh", "-c", f'exec "${{{PYTHON}:-python3}}" "$@"', "sh", *module]
    files = {
        CONFIGURATION: json.dumps(configuration, indent=1, sort_keys=True).encode(),
        DATA: data_file(parts, folder, blind=blind),
    }
    environment = {"TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
    if recipe.base.model == TINY:
        # The model is made from a configuration, without the hub. Its tensors are too small to share among threads,
        # which would busy-wait for each other (two jobs on two cores took eight times as long as one): jobs run side by
        # side instead.
        environment |= {"HF_HUB_OFFLINE": "1", "GOMP_SPINCOUNT": "1000", "OMP_NUM_THREADS": "1"}
    return Rendered(tuple(python), files, environment)


TRL = Trainer(render)
