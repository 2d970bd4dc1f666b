"""TODO."""

from __future__ import annotations

from pathlib import Path

from taskgalaxy_ops.finetune.jobs import Rendered
from taskgalaxy_ops.finetune.mixture import Part
from taskgalaxy_ops.finetune.recipes import Recipe


def render(recipe: Recipe, parts: list[Part], folder: Path, *, blind: bool) -> Rendered:
    raise NotImplementedError
