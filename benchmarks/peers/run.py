"""Run a peer's script in its venv as a separate process, and return what it took.

``python -m benchmarks.peers.run <peer> <base_url> <folder> <count> <in_flight>`` runs one by hand and prints this.
The venvs of peers that do not run in this project's own come from ``make bench-peers``.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
VENVS = ROOT / "build" / "peers"
SCRIPTS = {
    "aiohttp": "aiohttp_loop",
    "openai": "openai_loop",
    "curator": "curator_run",
    "datadesigner": "datadesigner_run",
    "distilabel": "distilabel_run",
}
OWN = ("aiohttp", "openai")  # run in the project's venv
TIMEOUT = 1800.0  # seconds: some hang when they get 429
# Peers connect to the server only, without a proxy, and log no line for each request.
QUIET = {
    "CURATOR_DISABLE_CACHE": "1",
    "DISTILABEL_LOG_LEVEL": "WARNING",
    "HF_HUB_OFFLINE": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "NEMO_TELEMETRY_ENABLED": "false",
    "NO_PROXY": "*",
    "TELEMETRY_ENABLED": "false",  # curator's
}
_SAMPLE = 0.2  # seconds between measurements of the memory of the processes


class PeerError(Exception):
    """A peer that is not installed, or that failed."""


def peer(
    name: str, base_url: str, folder: Path, count: int, in_flight: int, timeout: float = TIMEOUT
) -> dict[str, Any]:
    """Run a peer over the first ``count`` images of a folder; returns what work.py's ``main`` prints, and:

    ``peak``, bytes, of the process and its descendants together; ``whole_cpu``, their processor seconds from start to
    exit (no other child of this process may end meanwhile). Raises PeerError for a peer without a venv, one that fails,
    and one that is not done after ``timeout`` seconds.
    """
    python = Path(sys.executable) if name in OWN else VENVS / name / "bin" / "python"
    if not python.exists():
        raise PeerError(f"peer {name!r} is not installed: there is no {python}. Run `make bench-peers`.")
    arguments = [base_url, str(folder.resolve()), str(count), str(in_flight)]
    command = [str(python), "-m", f"benchmarks.peers.{SCRIPTS[name]}", *arguments]
    # A home folder of its own, so that caches start empty, and nothing is left behind.
    with (
        tempfile.TemporaryDirectory() as home_folder,
        (Path(home_folder) / "errors").open("w+", encoding="utf-8") as errors,
    ):
        kept = {key: value for key, value in os.environ.items() if key in ("PATH", "LANG", "TMPDIR")}
        process = subprocess.Popen(
            command,
            cwd=home_folder,
            env={**kept, **QUIET, "HOME": home_folder, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        peak, left, before = 0, timeout, _ended_cpu()
        try:
            while True:
                try:
                    printed, _ = process.communicate(timeout=_SAMPLE)
                    whole_cpu = _ended_cpu() - before
                    break
                except subprocess.TimeoutExpired:
                    peak, left = max(peak, _family_memory(process.pid)), left - _SAMPLE
                    if left < 0:
                        raise PeerError(f"peer {name!r} is not done after {timeout:g} s.") from None
        finally:
            with contextlib.suppress(ProcessLookupError):  # also children that it left
                os.killpg(process.pid, signal.SIGKILL)
        if process.returncode:
            errors.seek(0)
            raise PeerError(f"peer {name!r} failed with status {process.returncode}:\n{errors.read().strip()[-4000:]}")
    report: dict[str, Any] = json.loads(printed.strip().rpartition("\n")[2])
    return {**report, "peak": max(peak, report["peak"]), "whole_cpu": whole_cpu}


def _ended_cpu() -> float:
    """Processor seconds of the children that have ended, and of their children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _family_memory(pid: int) -> int:
    """The memory of a process and its descendants in bytes, with shared pages counted once (Linux).

    0 for a process without children: the peak that it reports itself is exact."""
    family = list(_family(pid))
    return sum(map(_memory, family)) if len(family) > 1 else 0


def _family(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):  # it has ended
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text(encoding="ascii").split():
                yield from _family(int(child))


def _memory(pid: int) -> int:
    with contextlib.suppress(OSError):
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
        return 1024 * next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)
    return 0


def main(name: str, base_url: str, folder: str, count: str, in_flight: str) -> None:
    """Run one peer, and print what it took."""
    print(json.dumps(peer(name, base_url, Path(folder), int(count), int(in_flight))))


if __name__ == "__main__":
    main(*sys.argv[1:])
