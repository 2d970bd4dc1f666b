"""Running the simulated models: in this process until it is stopped, or beside a test in a thread of its own."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from taskgalaxy_ops.errors import ModelError
from taskgalaxy_ops.simulator.config import SimulatorConfig
from taskgalaxy_ops.simulator.memory import keep_in

if TYPE_CHECKING:
    import uvicorn

_KEEP_ALIVE_SECONDS = 75  # longer than clients keep idle connections: theirs to close, never lost in a race
_GRACE_SECONDS = 2  # for replies in the making when it is told to stop
_BACKLOG = 2048
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # malloc.h


def serve(
    config: SimulatorConfig,
    host: str = "127.0.0.1",
    port: int = 0,
    stats_path: Path | None = None,
    announce: Callable[[str], None] | None = None,
    canned: bool = False,
    readings: Path | None = None,
) -> None:
    """Serve until a signal stops it (SIGINT, SIGTERM).

    port: 0 takes a free one. announce: is given the base URL (``http://127.0.0.1:4321/v1``) once connections are
    taken. canned: replies that cost next to nothing (canned.py), without ``stats_path``. readings: a folder that keeps
    what was read in images for the next server. Raises ModelError for an address that is not free, SettingsError and
    DamageError for ``stats_path``.
    """
    import uvicorn

    _keep_memory()
    keep_in(readings)
    with _bound(host, port) as bound:
        settings = _settings(config, stats_path, canned)
        if announce:
            announce(_url(bound))
        uvicorn.Server(settings).run(sockets=[bound])


@contextlib.contextmanager
def running(
    config: SimulatorConfig, stats_path: Path | None = None, port: int = 0, canned: bool = False
) -> Iterator[str]:
    """Serve from a thread on the loopback for as long as the context lasts; gives the base URL."""
    import uvicorn

    with _bound("127.0.0.1", port) as bound:
        server = uvicorn.Server(_settings(config, stats_path, canned))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, name="simulated models", daemon=True)
        thread.start()
        try:
            yield _url(bound)
        finally:
            server.should_exit = True
            thread.join()


def _keep_memory() -> None:
    """Keep freed memory for the next image, where the C library is glibc.

    The text engine allocates hundreds of MB for each image. By default these go back to the system each time, and a
    quarter of the time is spent on getting them anew.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for name, value in ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1)):
            mallopt(name, value)


def _settings(config: SimulatorConfig, stats_path: Path | None, canned: bool = False) -> uvicorn.Config:
    import uvicorn

    from taskgalaxy_ops.simulator.app import create_app
    from taskgalaxy_ops.simulator.breaking import Protocol
    from taskgalaxy_ops.simulator.canned import Canned

    return uvicorn.Config(
        Canned(config) if canned else create_app(config, stats_path),
        http=Protocol,
        lifespan="off" if canned else "on",
        log_level="warning",
        access_log=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )


def _bound(host: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        raise ModelError(
            f"simulated models: {host}:{port} cannot be listened on ({error}). Name another port, or 0 for a free one."
        ) from error
    return bound


def _url(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"
