"""The trainers: each renders its own files and command from a recipe and a mixture of data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from taskgalaxy_ops.finetune.jobs import Rendered
from taskgalaxy_ops.finetune.mixture import Part
from taskgalaxy_ops.finetune.recipes import Recipe
from taskgalaxy_ops.finetune.trainers import internvl, llamafactory, llava, swift, trl


class Renderer(Protocol):
    def __call__(self, recipe: Recipe, parts: list[Part], folder: Path, *, blind: bool) -> Rendered:
        """Render a job. folder: the job's folder, an absolute path, in which the command runs.

        Raises SettingsError where the trainer cannot do what the recipe says.
        """


RENDERERS: Mapping[str, Renderer] = {
    "trl": trl.render,
    "llava": llava.render,
    "internvl": internvl.render,
    "llamafactory": llamafactory.render,
    "ms-swift": swift.render,
}
