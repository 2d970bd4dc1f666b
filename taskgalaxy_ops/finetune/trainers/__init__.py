"""The trainers: each renders its own files and command from a recipe and a mixture of data.

A module each, by name in the registry of trainers.
"""

from __future__ import annotations

from taskgalaxy_ops import extensions
from taskgalaxy_ops.extensions import Registry
from taskgalaxy_ops.finetune.jobs import Trainer

TRAINERS: Registry[Trainer] = extensions.TRAINERS
