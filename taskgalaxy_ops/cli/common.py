"""Shared by the commands: how they are added, open the store, and print."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Protocol

from taskgalaxy_ops.settings import Settings, load_settings
from taskgalaxy_ops.workspace import Workspace

PENDING = 3  # exit code: something has no answer yet
LOST = 4  # exit code: everything ended, but more than run.lost_share of it without an answer

Command = Callable[[argparse.Namespace], int]


class AddCommand(Protocol):
    """Adds a command's parser, with the options that all commands share unless ``shared`` is False.

    "again": for an action of a command that has them too, so that they may stand before the action or behind it.
    """

    def __call__(
        self, name: str, command: Command, about: str, group: Any = None, shared: bool | Literal["again"] = True
    ) -> argparse.ArgumentParser: ...


def loaded(chosen: argparse.Namespace) -> Settings:
    """The settings of the file ``--settings``, with the store of ``--store`` if given. Raises SettingsError."""
    return load_settings(chosen.settings, {"store": chosen.store} if chosen.store else None)


def workspace_of(chosen: argparse.Namespace) -> Workspace:
    """Open the workspace of the command's settings. Raises SettingsError, StoreError."""
    return Workspace.open(loaded(chosen))


def to_json(record: Any, **keys: str) -> dict[str, Any]:
    """A dataclass as a dict for JSON. keys: by field, another name in the JSON, kept from its first version."""
    return {keys.get(name, name): value for name, value in asdict(record).items()}


def say(chosen: argparse.Namespace, value: dict[str, Any], lines: Sequence[str]) -> None:
    """Print ``value`` as a JSON object if ``--json`` is given, else ``lines``."""
    print(json.dumps(value, ensure_ascii=False, indent=1, default=str) if chosen.json else "\n".join(lines))


def write_whole(out: Path, text: str) -> None:
    """Write a file and rename it into place, so that no reader sees half of it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(out)


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)
