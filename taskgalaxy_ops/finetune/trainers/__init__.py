"""Each trainer's own files and command, from one recipe."""

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
        """``folder``: the job's, an absolute path, in which the command runs."""


RENDERERS: Mapping[str, Renderer] = {
    "trl": trl.render,
    "llava": llava.render,
    "internvl": internvl.render,
    "llamafactory": llamafactory.render,
    "ms-swift": swift.render,
}
