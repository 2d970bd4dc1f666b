"""TRL's SFTTrainer: trains ``tiny`` here, and any vision-language model of transformers on a GPU."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from taskgalaxy_ops.finetune.jobs import Rendered, data_file
from taskgalaxy_ops.finetune.mixture import Part
from taskgalaxy_ops.finetune.recipes import Recipe

CONFIGURATION = "train.json"
DATA = "data/train.json"


def render(recipe: Recipe, parts: list[Part], folder: Path, *, blind: bool) -> Rendered:
    """A configuration for ``taskgalaxy_ops.finetune.train``, and one data file."""
    configuration = {"recipe": recipe.model_dump(mode="json"), "data": DATA}
    python = [sys.executable, "-m", "taskgalaxy_ops.finetune.train", str(folder)]
    if recipe.devices > 1:
        python = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={recipe.devices}", *python[1:]]
    files = {
        CONFIGURATION: json.dumps(configuration, indent=1, sort_keys=True).encode(),
        DATA: data_file(parts, folder, blind=blind),
    }
    # The job reads files alone: no hub is asked unless the recipe names one.
    offline = {"HF_HUB_OFFLINE": "1"} if recipe.base.model == "tiny" else {}
    return Rendered(tuple(python), files, {"TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1", **offline})
