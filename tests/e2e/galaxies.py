"""What the end-to-end tests drive: the simulated models and the command line, each as processes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from taskgalaxy_ops.cli import main
from taskgalaxy_ops.demo.services import Simulator
from taskgalaxy_ops.settings import Settings


class Models(Simulator):
    """Simulated models whose counts start at nothing."""

    def stats(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/stats", timeout=10) as reply:
            found: dict[str, Any] = json.load(reply)
        return found

    def count_anew(self) -> None:
        """Fast, without faults, and with counts of nothing."""
        self.control(
            latency=0,
            batches={"seconds": 0},
            faults=dict.fromkeys(("rate_limit", "server_error", "malformed", "truncated"), 0),
        )
        request = urllib.request.Request(f"{self.url}/stats", method="DELETE")
        with urllib.request.urlopen(request, timeout=10) as reply:
            assert reply.status == 200

    def control(self, **changes: Any) -> None:
        request = urllib.request.Request(f"{self.url}/control", json.dumps(changes).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=10) as reply:
            assert reply.status == 200

    def kill(self) -> None:
        """As a machine that loses power."""
        assert self.pid is not None
        os.killpg(self.pid, signal.SIGKILL)
        self.stop(grace=0)

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Killed, and back afterwards, whatever happens meanwhile: other tests ask them, too."""
        self.kill()
        try:
            yield
        finally:
            self.start()


class Commands:
    """The command line, as a person or a scheduler would run it: as a process that can be killed, or here."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _arguments(self, settings: Settings, *arguments: str) -> list[str]:
        file = self._folder / "settings.yaml"
        file.write_text(yaml.safe_dump(settings.model_dump(mode="json")), encoding="utf-8")
        return [*arguments, "--settings", str(file), "--json"]

    def start(self, settings: Settings, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "taskgalaxy_ops.cli", *self._arguments(settings, *arguments)]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def here(self, settings: Settings, *arguments: str, code: int = 0) -> dict[str, Any]:
        """Run one in this process, which spares the seconds that imports take; what it said, once it ends so."""
        out, error = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            try:
                ended: Any = main(self._arguments(settings, *arguments))
            except SystemExit as left:
                ended = left.code
        assert ended == code, error.getvalue()
        found: dict[str, Any] = json.loads(out.getvalue()) if out.getvalue() else {"error": error.getvalue()}
        return found
