"""How a long run reports its progress: one interface, shown as live lines on a terminal, else as plain lines."""

from __future__ import annotations

from typing import Protocol

from taskgalaxy_ops.usage import Usage


class Progress(Protocol):
    """What the pipeline reports to while it works."""

    def stage(self, name: str, total: int | None, unit: str) -> None:
        """A stage begins and has ``total`` items to do (None: not known); ``unit`` names them ("images", "shards")."""

    def advance(self, name: str, done: int = 1, **counts: int) -> None:
        """The stage did ``done`` more items; ``counts`` are added to its running sums (rejects, calls …)."""

    def usage(self, name: str, usage: Usage) -> None:
        """The calls, tokens and money of a stage so far."""

    def note(self, text: str) -> None:
        """Show a line of text to the person who watches."""


class Silent:
    """Shows nothing."""

    def stage(self, name: str, total: int | None, unit: str) -> None:
        pass

    def advance(self, name: str, done: int = 1, **counts: int) -> None:
        pass

    def usage(self, name: str, usage: Usage) -> None:
        pass

    def note(self, text: str) -> None:
        pass
