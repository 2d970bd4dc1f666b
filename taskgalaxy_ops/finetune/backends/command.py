"""Run jobs in a scheduler of the user's own (Slurm, PBS, LSF, a script), with argument lists from the settings.

No shell reads them: what replaces ``{folder}`` or ``{name}`` is an argument or a part of one, whatever it holds. A
queue forgets jobs that ended; how a job ended is therefore read from the files that its script left in its folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shlex
import signal
import string
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from taskgalaxy_ops.errors import JobError, SchedulerError, SettingsError
from taskgalaxy_ops.finetune.jobs import CANCELLED, EXIT, SCRIPT, Job, State, exit_state
from taskgalaxy_ops.settings import CommandSettings

_HANDLE = "handle"
_SUBMITTING = "submitting"
_BEFORE = ("script", "folder", "name", "key", "devices")
_AFTER = (*_BEFORE, "handle")
_SHOWN_LINES = 5


class CommandBackend:
    """A scheduler that is driven by commands.

    seconds: the longest that one command may take. Raises SettingsError for an unknown placeholder, and for a pattern
    of handles that is not valid or has not exactly one group.
    """

    name = "command"

    def __init__(self, settings: CommandSettings, seconds: float = 60.0) -> None:
        self._settings, self._seconds = settings, seconds
        for field, known in (("submit", _BEFORE), ("find", _BEFORE), ("status", _AFTER), ("cancel", _AFTER)):
            _check(field, getattr(settings, field), known)
        try:
            groups = re.compile(settings.handle).groups
        except re.error as error:
            raise SettingsError(f"finetune.command.handle {settings.handle!r}: no pattern ({error}).") from error
        if groups != 1:
            raise SettingsError(f"finetune.command.handle {settings.handle!r}: has {groups} groups. Give it one.")

    def render(self, job: Job) -> Job:
        return job

    def submit(self, job: Job) -> str:
        """Submit the job unless it runs or has succeeded, and return its handle.

        Raises JobError where the scheduler refuses it, or prints nothing in which the pattern finds a handle.
        """
        with _submit_lock(job.folder):  # without the lock, two callers could both find no job, and submit it twice
            if (running := self.find(job)) and self.state(job, running) in {State.RUNNING, State.SUCCEEDED}:
                return running
            for left in (EXIT, CANCELLED, _HANDLE):
                (job.folder / left).unlink(missing_ok=True)
            output = self._run("submit", job)
            handle = self._handle(output)
            if handle is None:
                raise JobError(
                    f"job {job.name}: {self._settings.submit[0]} said {output.strip()!r}, in which "
                    f"finetune.command.handle {self._settings.handle!r} finds no handle. Correct the pattern."
                )
            (job.folder / _HANDLE).write_text(handle, encoding="utf-8")
        return handle

    def find(self, job: Job) -> str | None:
        """The handle that the scheduler reports, if the setting ``find`` is given; else that which ``submit`` wrote."""
        if self._settings.find and (handle := self._handle(self._run("find", job))):
            return handle
        with contextlib.suppress(OSError):
            return (job.folder / _HANDLE).read_text(encoding="utf-8")
        return None

    def state(self, job: Job, handle: str | None) -> State:
        # Ask the queue before reading the files: a job that leaves the queue in between has written how it ended.
        if (handle := handle or self.find(job)) and self._queued(job, handle):
            return State.RUNNING
        if (job.folder / CANCELLED).exists():
            return State.CANCELLED
        return exit_state(job.folder) or State.UNKNOWN

    def cancel(self, job: Job, handle: str | None) -> None:
        handle = handle or self.find(job)
        if handle is None or not self._queued(job, handle):
            return
        mark = job.folder / CANCELLED
        mark.touch()
        try:
            self._run("cancel", job, handle)
        except JobError:
            mark.unlink(missing_ok=True)
            if self._queued(job, handle):
                raise
            if exit_state(job.folder) is None:
                mark.touch()

    def _queued(self, job: Job, handle: str) -> bool:
        """Whether the job waits or runs. Raises JobError where neither the scheduler nor the job's files tell."""
        try:
            output = self._run("status", job, handle)
        except JobError:
            # squeue fails for a job that it has forgotten.
            if exit_state(job.folder) or (self._settings.find and self._handle(self._run("find", job)) is None):
                return False
            raise
        return any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", output) for word in self._settings.running)

    def _handle(self, said: str) -> str | None:
        match = re.search(self._settings.handle, said)
        return match[1] if match else None

    def _run(self, field: str, job: Job, handle: str = "") -> str:
        values = {
            **{"script": str(job.folder / SCRIPT), "folder": str(job.folder), "name": job.name, "key": job.key},
            **{"devices": str(job.recipe.devices), "handle": handle},
        }
        command = _fill_in(getattr(self._settings, field), values)
        shown = f"job {job.name}: {shlex.join(command)[:300]}"
        # Files instead of pipes: a process that the command leaves running would keep a pipe open, and we would wait
        # for it.
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    cwd=job.folder if job.folder.is_dir() else None,
                    start_new_session=True,
                )
            except OSError as error:
                raise JobError(f"{shown} cannot be started ({error}). See finetune.command.{field}.") from error
            try:
                code = process.wait(self._seconds)
            except subprocess.TimeoutExpired as error:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise SchedulerError(
                    f"{shown} took longer than {self._seconds:g} s{_last_lines(out, err)}. Is the scheduler up?"
                ) from error
            if code:
                raise SchedulerError(
                    f"{shown} failed with code {code}{_last_lines(out, err)}. See finetune.command.{field}."
                )
            return _read(out)


def _check(field: str, arguments: Sequence[str], known: Sequence[str]) -> None:
    for argument in arguments:
        try:
            marks = [
                (mark, spec, kind) for _, mark, spec, kind in string.Formatter().parse(argument) if mark is not None
            ]
        except ValueError as error:
            raise SettingsError(
                f"finetune.command.{field}: {argument!r} has a brace without its other ({error}). Write {{{{ or }}}}."
            ) from error
        for mark, spec, kind in marks:
            if mark not in known or spec or kind:
                raise SettingsError(
                    f"finetune.command.{field}: {argument!r} has the placeholder {{{mark}}}, and there are "
                    f"{', '.join(f'{{{each}}}' for each in known)}. For braces themselves write {{{{ and }}}}."
                )


def _fill_in(arguments: Sequence[str], values: Mapping[str, str]) -> list[str]:
    return [argument.format_map(values) for argument in arguments]


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")


def _last_lines(*files: IO[bytes]) -> str:
    lines = [line for file in files for line in _read(file).splitlines() if line.strip()]
    return f": {' / '.join(lines[-_SHOWN_LINES:])}" if lines else ""


@contextlib.contextmanager
def _submit_lock(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    opened = os.open(folder / _SUBMITTING, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)
