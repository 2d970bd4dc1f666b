"""The skills of the simulated teacher, by the path of the task type that each serves; importing this registers all."""

from taskgalaxy_ops.simulator.skills import (
    amounts,
    charts,
    colours,
    layout,
    numbers,
    objects,
    quality,
    screens,
    shapes,
    tables,
    text,
)
from taskgalaxy_ops.simulator.skills.base import SKILLS, Asked, Found, NoFit, Skill

__all__ = [
    "SKILLS",
    "Asked",
    "Found",
    "NoFit",
    "Skill",
    "amounts",
    "charts",
    "colours",
    "layout",
    "numbers",
    "objects",
    "quality",
    "screens",
    "shapes",
    "tables",
    "text",
]
