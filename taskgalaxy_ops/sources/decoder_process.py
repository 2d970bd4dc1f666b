"""The processes that decode: a first one that imports the decoders once, and the workers that it forks.

``decoders.Decoders`` starts the first one, with a socket as its standard input, and talks to both:

- to the first one, by that socket: ``start``, which brings one end of a new socket and JSON of what the worker is held
  to, and is answered by the id of the process that serves it; ``end`` with such an id, which kills the worker, and is
  answered by its exit status as ``waitpid`` has it. Nobody else waits for a worker, so its id is not used again before.
- to a worker, by its own socket: ``inspect`` or ``pages`` and the bytes of a file, answered by JSON; ``document`` and
  the bytes of one, which the worker keeps until the next, answered by JSON; ``page`` and JSON that says which of its
  pages, answered by JSON, and where this is ``{"bytes": number}``, by as many bytes of a PNG.

The first one never runs a second thread, so that it may fork. It ends when its socket is closed, as it is when the
process that started it ends, however that ends; its workers end with it, whatever they are doing. It also ends when it
had no worker for a while.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import signal
import socket
import struct
import sys
import traceback
from contextlib import suppress
from dataclasses import astuple
from importlib import import_module
from pathlib import Path
from typing import Any

from PIL import Image as Pillow

from taskgalaxy_ops.models.opening import register_heif
from taskgalaxy_ops.records import Image
from taskgalaxy_ops.sources.inspecting import Bounds, inspect, pages
from taskgalaxy_ops.sources.pages import Document, opened, page

START, END = b"S", b"E"
COMMAND = struct.Struct(">cI")  # and the length of the JSON that follows, or a process id
NUMBER = struct.Struct(">I")  # a process id, or an exit status

INSPECT, PAGES, DOCUMENT, PAGE = b"I", b"P", b"D", b"N"
REQUEST = struct.Struct(">cQ")  # and the length of the file, or JSON, that follows
LENGTH = struct.Struct(">Q")  # of the JSON that follows

OUT_OF_MEMORY = errno.ENOMEM  # the exit status of a worker that could not even read the file

_SPARE_SECONDS = 30  # that the first process stays without any worker

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def received(connection: socket.socket, length: int) -> bytearray:
    """Exactly ``length`` bytes. Raises EOFError if the other side ends before, OSError, and TimeoutError."""
    data = bytearray(length)
    view, at = memoryview(data), 0
    while at < length:
        count = connection.recv_into(view[at:])
        if not count:
            raise EOFError
        at += count
    return data


def main(preload: list[str]) -> None:
    """Serve the socket that is the standard input, until it is closed. preload: modules to import first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is sent to all; who started us decides what it means
    control = socket.socket(fileno=os.dup(0))
    _read_nothing()
    register_heif()
    _one_thread_each()
    Pillow.init()
    for module in preload:
        import_module(module)
    workers: set[int] = set()
    with suppress(EOFError, ConnectionError, TimeoutError):
        while True:
            control.settimeout(None if workers else _SPARE_SECONDS)
            _obey(control, workers)
    for worker in workers:
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)


def _obey(control: socket.socket, workers: set[int]) -> None:
    """Carry out the next command. Raises EOFError if there will be none."""
    message, sockets, _, _ = socket.recv_fds(control, COMMAND.size, 1)
    if not message:
        raise EOFError
    message += received(control, COMMAND.size - len(message))
    kind, number = COMMAND.unpack(message)
    if kind == START:
        bounds = json.loads(received(control, number))
        first = os.getpid()
        worker = os.fork()
        if not worker:
            _work(socket.socket(fileno=sockets[0]), control, first, bounds)
        os.close(sockets[0])
        workers.add(worker)
        control.sendall(NUMBER.pack(worker))
    else:
        os.kill(number, signal.SIGKILL)
        _, status = os.waitpid(number, 0)
        workers.discard(number)
        control.sendall(NUMBER.pack(status))


def _work(connection: socket.socket, control: socket.socket, first: int, held_to: dict[str, Any]) -> None:
    """A worker's life: answer one request after the other, until the socket is closed. Does not return.

    held_to: ``memory``, the bytes that an image may take, and the fields of ``Bounds``.
    """
    try:
        control.close()
        _die_with(first)
        _limit(held_to.pop("memory"))
        requests = _Requests(Bounds(**held_to))
        while True:
            kind, length = REQUEST.unpack(received(connection, REQUEST.size))
            found = requests.reply(kind, bytes(received(connection, length)))
            reply = json.dumps({"bytes": len(found)} if isinstance(found, bytes) else found).encode()
            connection.sendall(LENGTH.pack(len(reply)) + reply)
            if isinstance(found, bytes):
                connection.sendall(found)
    except (EOFError, ConnectionError):
        os._exit(0)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except BaseException:  # noqa: BLE001 - nothing may return into the first process's code
        traceback.print_exc()
        os._exit(1)


class _Requests:
    """Answers a worker's requests. A reject is ``[None, reason, detail]``."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._document: Document | None = None  # the latest that was opened

    def reply(self, kind: bytes, raw: bytes) -> Any:
        """A PNG, or what is sent as JSON."""
        if kind == INSPECT:
            found = inspect(raw, self._bounds)
            return [astuple(found), pages(raw)] if isinstance(found, Image) else [None, *found]
        if kind == PAGES:
            return pages(raw)
        if kind == DOCUMENT:
            self._document = None  # the memory is free before the next takes its own
            document = opened(raw, self._bounds)
            if isinstance(document, tuple):
                return [None, *document]
            self._document = document
            return [document.kind, document.pages]
        assert self._document is not None, "a document comes before its pages"
        made = page(self._document, **json.loads(raw))
        return made if isinstance(made, bytes) else [None, *made]


def _die_with(first: int) -> None:
    """Let the system kill this process when the first one ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != first:
            os._exit(0)


def _limit(memory: int) -> None:
    """Bound this process's memory to ``memory`` bytes more than it has, and let it be the first to go when the
    machine has none left."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "linux":
        return  # elsewhere RLIMIT_DATA does not bound what decoders allocate
    has = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    bound = has + memory if hard == resource.RLIM_INFINITY else min(has + memory, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _read_nothing() -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


def _one_thread_each() -> None:
    """Decoders that would start a thread for each core get one: there is a worker for each core already."""
    from PIL import AvifImagePlugin

    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    with suppress(ImportError):
        from pi_heif import options

        options.DECODE_THREADS = 1
