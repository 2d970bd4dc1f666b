"""Decodes image files in processes of its own, so that a decoder which crashes, hangs or balloons costs one file.

``multiprocessing`` will not do: it starts no process from one of its own daemons, as Celery's workers are, and its
pools neither bound the seconds of a task nor tell which one ended a process. So there is one process that imports the
decoders, and forks (``decoder_process``), which costs 0.3 s once and a few milliseconds a worker. It is kept for the
next scan of this process for half a minute, since many small scans would otherwise wait for little else.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from taskgalaxy_ops.errors import SourceError
from taskgalaxy_ops.records import Image, Reason
from taskgalaxy_ops.settings import IngestSettings
from taskgalaxy_ops.sources.decoder_process import (
    COMMAND,
    DOCUMENT,
    END,
    INSPECT,
    LENGTH,
    NUMBER,
    OUT_OF_MEMORY,
    PAGE,
    PAGES,
    REQUEST,
    START,
    received,
)
from taskgalaxy_ops.sources.inspecting import Bounds

_ROOT = Path(__file__).parents[2]  # where the package lies
_RUN = "import sys; sys.path[:] = {path!r}; from taskgalaxy_ops.sources.decoder_process import main; main({preload!r})"
_TO_END = 5  # seconds that the first process has to end by itself


class ClosedError(Exception):
    """The decoders were closed while they were asked."""


class Decoded(NamedTuple):
    """What a file holds: an image and how many pages or frames it has, or the reason and detail of a reject."""

    image: Image | tuple[Reason, str]
    pages: int = 1


class Opened(NamedTuple):
    """A document that was opened."""

    kind: str  # ``pages.PDF`` or ``pages.TIFF``
    pages: int


class Decoders:
    """Up to ``settings.workers`` processes, started when they are first needed. A context manager; threads share it.

    What ends a worker, or takes all the memory that it may have, is tried once more in a fresh one: so a file is not
    rejected for what the one before it left behind, nor for a worker that somebody else killed.
    """

    def __init__(self, settings: IngestSettings, preload: Sequence[str] = ()) -> None:
        """preload: modules that the processes import first."""
        self.count = settings.workers or cores()
        self._settings, self._preload = settings, tuple(preload)
        self._seconds = settings.seconds_an_image
        bounds = asdict(Bounds(settings.max_pixels, settings.min_side, settings.animated))
        self._held_to = json.dumps({**bounds, "memory": settings.bytes_an_image}).encode()
        self._free = threading.BoundedSemaphore(self.count)
        self._idle: list[_Worker] = []
        self._lock = threading.Lock()  # held for a command of the first process
        self._first: _First | None = None
        self._closed = False

    def __enter__(self) -> Decoders:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill what still decodes: whoever waits for it gets ClosedError."""
        with self._lock:
            self._closed = True
            if self._first is not None:
                _keep_spare(self._first)
            while self._idle:
                self._idle.pop().connection.close()

    def inspect(self, raw: bytes) -> Decoded:
        """Decode a file. Raises ClosedError, and SourceError if no process can be started."""
        reply = self._asked(lambda worker: worker.ask(INSPECT, raw, self._seconds))
        return Decoded(reply) if isinstance(reply, tuple) else Decoded(Image(*reply[0]), reply[1])

    def pages(self, raw: bytes) -> int:
        """How many pages or frames a file has; 1 where its decoder fails. Raises as ``inspect``."""
        reply = self._asked(lambda worker: worker.ask(PAGES, raw, self._seconds))
        return reply if isinstance(reply, int) else 1

    def document(self, raw: bytes) -> Opened | tuple[Reason, str]:
        """Open a document, or say the reason and detail of its reject. Raises as ``inspect``."""
        reply = self._asked(lambda worker: worker.open(raw, self._seconds))
        return reply if isinstance(reply, tuple) else Opened(*reply)

    def page(self, document: bytes, number: int, pixels: int) -> bytes | tuple[Reason, str]:
        """A page of a document as ``pages.page`` makes it, or the reason and detail of its reject.

        A worker that was sent this very object before is not sent it again. Raises as ``inspect``.
        """
        told = json.dumps({"number": number, "pixels": pixels}).encode()

        def ask(worker: _Worker) -> Any:
            if worker.document is not document:
                reply = worker.open(document, self._seconds)
                if _refused(reply):
                    return reply
            return worker.ask(PAGE, told, self._seconds)

        reply: bytes | tuple[Reason, str] = self._asked(ask)
        return reply

    def _asked(self, ask: Callable[[_Worker], Any]) -> Any:
        """What a worker replies, or the reason and detail of a reject, or of why no worker replies."""
        with self._free:
            failure = None
            for again in (False, True):
                worker = self._worker(fresh=again)
                failure, reply = self._attempt(worker, ask)
                if failure is None:
                    self._idle.append(worker)
                    return (Reason(reply[1]), reply[2]) if _refused(reply) else reply
            return failure

    def _attempt(self, worker: _Worker, ask: Callable[[_Worker], Any]) -> tuple[tuple[Reason, str] | None, Any]:
        """Why a worker has no reply to use, after which it is ended; or the reply."""
        try:
            reply = ask(worker)
        except TimeoutError:
            self._end(worker)
            return (Reason.TOO_SLOW, f"not decoded in {self._seconds:g} s (ingest.seconds_an_image)"), None
        except (EOFError, OSError):
            return _told(self._end(worker), self._too_much), None
        if _refused(reply) and reply[1] == Reason.TOO_MUCH_MEMORY:
            self._end(worker)
            return self._too_much, None
        return None, reply

    @property
    def _too_much(self) -> tuple[Reason, str]:
        megabytes = self._settings.bytes_an_image // 1_000_000
        return Reason.TOO_MUCH_MEMORY, f"its decoder wants more than {megabytes} MB (ingest.megabytes_an_image)"

    def _worker(self, fresh: bool) -> _Worker:
        if self._idle and not fresh:
            with suppress(IndexError):  # another thread may have taken it
                return self._idle.pop()
        with self._lock:
            if self._closed:
                raise ClosedError
            for again in (False, True):
                try:
                    self._first = self._first or _spare(self._preload) or _First(self._preload)
                    return self._first.start(self._held_to)
                except (EOFError, OSError) as error:  # it was killed, or did not start
                    self._drop()
                    if again:
                        raise SourceError(
                            f"images cannot be decoded: their process does not start ({error or 'it ended at once'}). "
                            "What it wrote stands above; is there memory, and may this user start processes?"
                        ) from error
            raise AssertionError("one of two attempts returned or raised")

    def _end(self, worker: _Worker) -> int | None:
        """Kill a worker. Returns how it ended, as ``waitpid`` has it; None: nobody knows, the first process is gone."""
        worker.connection.close()  # here alone while it is asked: no other thread may close what this one reads
        with self._lock:
            if self._closed:
                raise ClosedError
            if worker.first is not self._first:
                return None
            try:
                return worker.first.end(worker)
            except (EOFError, OSError):
                self._drop()
                return None

    def _drop(self) -> None:
        """Give up a first process that no longer replies. Its workers ended with it."""
        if self._first is not None:
            self._first.close()
        self._first = None


class _First:
    """The process that forks the workers."""

    def __init__(self, preload: tuple[str, ...]) -> None:
        self.preload = preload
        self._workers: dict[int, _Worker] = {}
        program = _RUN.format(path=[str(_ROOT), *sys.path], preload=list(preload))
        self._control, theirs = socket.socketpair()
        # OpenBLAS would start a thread for each core, and a process with threads may not fork.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-I", "-c", program]
        with theirs:
            self._process = subprocess.Popen(command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, env=environment)

    def start(self, held_to: bytes) -> _Worker:
        """A new worker. held_to: JSON for it. Raises EOFError and OSError if this process has ended."""
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._control, [COMMAND.pack(START, len(held_to)), held_to], [theirs.fileno()])
        (process,) = NUMBER.unpack(received(self._control, NUMBER.size))
        worker = self._workers[process] = _Worker(self, process, ours)
        return worker

    def end(self, worker: _Worker) -> int:
        """Kill a worker; returns its status as ``waitpid`` does. Raises as ``start``."""
        self._control.sendall(COMMAND.pack(END, worker.process))
        (status,) = NUMBER.unpack(received(self._control, NUMBER.size))
        del self._workers[worker.process]
        return int(status)

    def end_all(self) -> None:
        """Kill the workers. Raises as ``start``."""
        for worker in list(self._workers.values()):
            self.end(worker)

    def forget(self) -> None:
        """Close the socket in a process that was forked, which leaves this process as it is."""
        self._control.close()

    def close(self) -> None:
        """End this process and its workers."""
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)  # seen even if a process that was forked here has the socket too
        self._control.close()
        try:
            self._process.wait(_TO_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


_spares: dict[tuple[str, ...], _First] = {}  # by what they import first
_spares_lock = threading.Lock()


def _spare(preload: tuple[str, ...]) -> _First | None:
    with _spares_lock:
        return _spares.pop(preload, None)


def _keep_spare(first: _First) -> None:
    """Keep a first process without its workers for the next ``Decoders``; close it if there is one, or it has ended."""
    try:
        first.end_all()
    except (EOFError, OSError):
        first.close()
        return
    with _spares_lock:
        kept = _spares.setdefault(first.preload, first)
    if kept is not first:
        first.close()


def _close_spares() -> None:
    while _spares:
        _spares.popitem()[1].close()


def _forget_spares() -> None:
    """In a process that was forked: the spares are its parent's."""
    global _spares_lock
    _spares_lock = threading.Lock()
    while _spares:
        _spares.popitem()[1].forget()


atexit.register(_close_spares)
os.register_at_fork(after_in_child=_forget_spares)


class _Worker:
    """A process that decodes: its id, and our end of its socket."""

    def __init__(self, first: _First, process: int, connection: socket.socket) -> None:
        self.first, self.process, self.connection = first, process, connection
        self.document: bytes | None = None  # the latest that it opened

    def open(self, document: bytes, seconds: float) -> Any:
        """The reply to a document, whose pages may be asked for then. Raises as ``ask``."""
        self.document = None
        reply = self.ask(DOCUMENT, document, seconds)
        if not _refused(reply):
            self.document = document
        return reply

    def ask(self, kind: bytes, raw: bytes, seconds: float) -> Any:
        """The reply to a request. Raises TimeoutError after these seconds, and EOFError or OSError if it ended."""
        until = time.monotonic() + seconds
        self.connection.settimeout(seconds)
        self.connection.sendall(REQUEST.pack(kind, len(raw)))
        self.connection.sendall(raw)
        self.connection.settimeout(max(0.001, until - time.monotonic()))
        (length,) = LENGTH.unpack(received(self.connection, LENGTH.size))
        reply = json.loads(received(self.connection, length))
        return bytes(received(self.connection, reply["bytes"])) if isinstance(reply, dict) else reply


def _refused(reply: Any) -> bool:
    return isinstance(reply, list) and reply[0] is None


def _told(status: int | None, too_much: tuple[Reason, str]) -> tuple[Reason, str]:
    """The reject of a file whose worker ended, by the worker's status."""
    code = -signal.SIGKILL if status is None else os.waitstatus_to_exitcode(status)
    if code == OUT_OF_MEMORY:
        return too_much
    if code == -signal.SIGKILL:
        how = "was killed, by the system for want of memory or by somebody"
    elif code < 0:
        how = f"crashed ({signal.strsignal(-code) or f'signal {-code}'})"
    else:
        how = f"ended with exit status {code}"
    return Reason.DECODER_CRASHES, f"twice its decoder {how}"


def cores() -> int:
    """The number of cores that this process may use; in a container fewer than the machine has."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):  # a container's share of time, where cgroup v2 bounds it: "200000 100000"
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        allowed = min(allowed, max(1, -(-int(quota) // int(period))))
    return allowed
