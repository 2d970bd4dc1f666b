"""Run jobs as processes of this machine, which continue when the process that started them ends.

A job runs in a session of its own, so that neither the end of an Airflow task nor Ctrl-C stops it. Its processes hold a
lock on ``<folder>/lock`` as long as one of them lives. This lock, and not a pid, tells that the job runs, and prevents
a second start.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from taskgalaxy_ops.errors import JobError
from taskgalaxy_ops.finetune.jobs import CANCELLED, EXIT, PYTHON, SCRIPT, Job, State, exit_state

_LOCK = "lock"
_PID = "pid"
_NEEDED = {"trl": ("torch", "transformers", "trl")}
_GRACE = 10.0  # seconds from SIGTERM to SIGKILL


class LocalBackend:
    """Processes of this machine."""

    name = "local"

    def render(self, job: Job) -> Job:
        return job

    def submit(self, job: Job) -> str:
        """Start the job unless it runs, and return its name. Raises JobError where it cannot be started."""
        before = _ended_at(job.folder)
        if self.state(job, None) is State.RUNNING:
            return job.name
        missing = [name for name in _NEEDED.get(job.trainer, ()) if find_spec(name) is None]
        if missing:
            raise JobError(f"job {job.name}: {', '.join(missing)} not installed. pip install 'taskgalaxy-ops[train]'.")
        with _locked(job.folder, fcntl.LOCK_EX, seconds=1.0) as lock:  # callers of `state` hold it for an instant
            if lock is None or _ended_at(job.folder) != before:  # another caller's job runs, or ran while we waited
                return job.name
            for left in (EXIT, CANCELLED, _PID):
                (job.folder / left).unlink(missing_ok=True)
            try:
                process = subprocess.Popen(
                    ["sh", str(job.folder / SCRIPT)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                    env={**os.environ, PYTHON: sys.executable},
                    pass_fds=[lock],  # the job's processes inherit the lock, and hold it when this process closes it
                )
            except OSError as error:
                raise JobError(f"job {job.name}: cannot be started ({error}).") from error
            (job.folder / _PID).write_text(str(process.pid))
        return job.name

    def find(self, job: Job) -> str | None:
        return job.name if self.state(job, None) is not State.UNKNOWN else None

    def state(self, job: Job, handle: str | None) -> State:  # noqa: ARG002 - the folder says it all
        with _locked(job.folder, fcntl.LOCK_SH) as lock:
            if lock is None:
                return State.RUNNING
            if (job.folder / CANCELLED).exists():
                return State.CANCELLED
            return exit_state(job.folder) or State.UNKNOWN

    def cancel(self, job: Job, handle: str | None) -> None:
        if self.state(job, handle) is not State.RUNNING:
            return
        (job.folder / CANCELLED).touch()
        try:
            pid = int((job.folder / _PID).read_text())
        except (OSError, ValueError) as error:
            (job.folder / CANCELLED).unlink(missing_ok=True)
            raise JobError(f"job {job.name}: its pid is not known yet. Try again.") from error
        give_up = time.monotonic() + _GRACE
        while self.state(job, handle) is State.RUNNING:
            kind = signal.SIGTERM if time.monotonic() < give_up else signal.SIGKILL
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, kind)
            if time.monotonic() > 2 * _GRACE + give_up:
                raise JobError(f"job {job.name}: process group {pid} does not end. See `ps -g {pid}`.")
            time.sleep(0.2)


def _ended_at(folder: Path) -> int | None:
    try:
        return (folder / EXIT).stat().st_mtime_ns
    except OSError:
        return None


@contextlib.contextmanager
def _locked(folder: Path, kind: int, seconds: float = 0.0) -> Iterator[int | None]:
    """Hold the folder's lock and yield its descriptor; yield None if it is still held by others after ``seconds``.

    kind: ``fcntl.LOCK_EX``, or ``fcntl.LOCK_SH`` to test only whether a job holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    opened = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    give_up = time.monotonic() + seconds
    try:
        while True:
            try:
                fcntl.flock(opened, kind | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() < give_up:
                    time.sleep(0.02)
                    continue
                yield None
            else:
                yield opened
            return
    finally:
        os.close(opened)
