"""The places where training jobs run, by the name that the settings use."""

from __future__ import annotations

from taskgalaxy_ops.finetune.backends.command import CommandBackend
from taskgalaxy_ops.finetune.backends.kubernetes import KubernetesBackend
from taskgalaxy_ops.finetune.backends.local import LocalBackend
from taskgalaxy_ops.finetune.jobs import TrainBackend
from taskgalaxy_ops.settings import FinetuneSettings


def open_backend(settings: FinetuneSettings) -> TrainBackend:
    """The backend that the settings name."""
    if settings.backend == "command" and settings.command:
        return CommandBackend(settings.command)
    if settings.backend == "kubernetes" and settings.kubernetes:
        return KubernetesBackend(settings.kubernetes)
    return LocalBackend()
