"""vLLM's OpenAI server on the CPU, as a process that a test starts, counts and kills."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import psutil

KEY = "the right key"
NAMES = ("tiny-teacher", "tiny-a", "tiny-b", "tiny-c")

_STARTUP = Path(__file__).with_name("startup")
_UP_SECONDS = 900.0  # it takes 40 to 200 s on two cores; this only ends a test that would wait for ever
_DOWN_SECONDS = 120.0
_REPLY = re.compile(r'"POST /v1/chat/completions HTTP/1\.1" (\d{3})')
_ENVIRONMENT = {
    "PYTHONPATH": str(_STARTUP),
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_TARGET_DEVICE": "cpu",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
# One engine process beside the server; no blanks between JSON's marks, with which a weak model would fill its room.
_OPTIONS = (
    *("--dtype", "float32", "--enforce-eager", "--distributed-executor-backend", "uni", "--max-num-seqs", "8"),
    *("--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}'),
)


@dataclass
class Vllm:
    """One vLLM on one port, started again and again. Each start has a log of its own in ``folder``."""

    python: Path
    model: Path
    port: int
    folder: Path
    _process: subprocess.Popen[bytes] | None = None
    _logs: list[Path] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def running(self) -> bool:
        return self._process is not None

    def start(self, *options: str, context: int = 4096) -> None:
        """Start it, and wait until it answers. Prints how long that took, and its memory."""
        assert self._process is None
        self.folder.mkdir(parents=True, exist_ok=True)
        self._logs.append(self.folder / f"start-{len(self._logs) + 1}.log")
        # The module: the command `vllm` of the package vllm-cpu looks for a package `vllm`, and ends.
        command = [str(self.python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(self.model)]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--api-key", KEY, "--served-model-name", *NAMES]
        command += ["--max-model-len", str(context), *_OPTIONS, *options]
        with self._logs[-1].open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **_ENVIRONMENT},
                start_new_session=True,
            )
        self._wait()

    def _wait(self) -> None:
        """Wait until it answers. Raises AssertionError with the log's end if it does not."""
        began = time.monotonic()
        while not self._is_up():
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() - began > _UP_SECONDS:
                raise AssertionError(f"vLLM does not answer:\n{self._logs[-1].read_text(errors='replace')[-3000:]}")
            time.sleep(0.5)
        print(f"\nvLLM: up after {time.monotonic() - began:.0f} s, {self.memory() >> 20} MiB resident", flush=True)

    def _is_up(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False

    def memory(self) -> int:
        """Resident bytes of the server and its engine."""
        assert self._process is not None
        own = psutil.Process(self._process.pid)
        return sum(each.memory_info().rss for each in (own, *own.children(recursive=True)))

    def replies(self, status: int = 200) -> int:
        """How many chat completions ended with this status, over all starts."""
        told = "".join(log.read_text(errors="replace") for log in self._logs)
        return sum(int(found) == status for found in _REPLY.findall(told))

    def terminate(self) -> None:
        """As an operator stops it."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """As a machine that loses power."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if number == signal.SIGKILL:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        try:
            process.wait(_DOWN_SECONDS)
        except subprocess.TimeoutExpired:
            print("\nvLLM: did not end by itself", flush=True)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what it left over
        process.wait()
