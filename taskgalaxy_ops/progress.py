"""How a long run tells where it is: one small interface, shown as live lines on a terminal or plain lines elsewhere."""

from __future__ import annotations

from typing import Protocol

from taskgalaxy_ops.usage import Usage


class Progress(Protocol):
    """What the pipeline reports while it works."""

    def stage(self, name: str, total: int, unit: str) -> None:
        """A stage begins; ``total`` of ``unit`` ("images", "shards") are to be done."""

    def advance(self, name: str, done: int = 1, **counts: int) -> None:
        """``done`` more; ``counts`` are added to the stage's running numbers (rejects, calls …)."""

    def usage(self, name: str, usage: Usage) -> None:
        """Calls, tokens and money of a stage so far."""

    def note(self, text: str) -> None:
        """A line worth reading."""


class Silent:
    """Reports nothing."""

    def stage(self, name: str, total: int, unit: str) -> None:
        pass

    def advance(self, name: str, done: int = 1, **counts: int) -> None:
        pass

    def usage(self, name: str, usage: Usage) -> None:
        pass

    def note(self, text: str) -> None:
        pass
