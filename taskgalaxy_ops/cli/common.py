"""What the commands share: how they open the store, how they print, and how one is added."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from taskgalaxy_ops.settings import Settings, load_settings
from taskgalaxy_ops.workspace import Workspace

PENDING = 3  # exit code: something has no answer yet

Command = Callable[[argparse.Namespace], int]


class AddCommand(Protocol):
    """Adds a command's parser, with the options that all commands share unless ``shared`` is False."""

    def __call__(
        self, name: str, command: Command, about: str, group: Any = None, shared: bool = True
    ) -> argparse.ArgumentParser: ...


def loaded(chosen: argparse.Namespace) -> Settings:
    """The settings file that the command names, with the store that it names. Raises SettingsError."""
    return load_settings(chosen.settings, {"store": chosen.store} if chosen.store else None)


def workspace_of(chosen: argparse.Namespace) -> Workspace:
    """The galaxy of these settings. Raises SettingsError, StoreError."""
    return Workspace.open(loaded(chosen))


def to_json(record: Any, **keys: str) -> dict[str, Any]:
    """A record as JSON; ``keys``: by field, the name that its JSON has had since the first version."""
    return {keys.get(name, name): value for name, value in asdict(record).items()}


def say(chosen: argparse.Namespace, value: dict[str, Any], lines: Sequence[str]) -> None:
    """One JSON object if that was asked for, else lines for people."""
    print(json.dumps(value, ensure_ascii=False, indent=1, default=str) if chosen.json else "\n".join(lines))


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)
