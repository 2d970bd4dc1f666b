"""What the commands share: how they open the store, how they print, and how one is added."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from taskgalaxy_ops.settings import Settings, load_settings
from taskgalaxy_ops.workspace import Galaxy

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


def galaxy_of(chosen: argparse.Namespace) -> Galaxy:
    """The galaxy of these settings. Raises SettingsError, StoreError."""
    return Galaxy.open(loaded(chosen))


def say(chosen: argparse.Namespace, value: dict[str, Any], lines: Sequence[str]) -> None:
    """One JSON object if that was asked for, else lines for people."""
    print(json.dumps(value, ensure_ascii=False, indent=1, default=str) if chosen.json else "\n".join(lines))


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)
