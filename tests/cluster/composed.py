"""The composed stack without Docker: each service of docker-compose.yaml as processes of this machine.

Commands, variables, mounts, health checks, order and restart policy are read from the compose file, the image's
variables and copied folders from the Dockerfile. What Docker would do is done here: names become 127.0.0.1 with a free
port for each that a service exposes, paths in a container become folders of its own, volumes shared folders.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from taskgalaxy_ops.demo.services import LOOPBACK, Service, ServiceError

ROOT = Path(__file__).resolve().parents[2]
COMPOSE, DOCKERFILE = ROOT / "docker-compose.yaml", ROOT / "Dockerfile"
MARK = "TASKGALAXY_CLUSTER_RUN"  # in the environment of every process, so that none is overlooked at the end

_VARIABLE = re.compile(r"\$(?:(?P<escaped>\$)|\{(?P<name>\w+)(?:(?P<how>:[-?])(?P<more>[^}]*))?\})")


def interpolate(value: Any, variables: Mapping[str, str]) -> Any:
    """A value of the compose file with its ``${…}`` filled in, as Compose does.

    Raises ValueError for a variable that must be set.
    """
    if isinstance(value, dict):
        return {key: interpolate(each, variables) for key, each in value.items()}
    if isinstance(value, list):
        return [interpolate(each, variables) for each in value]
    if not isinstance(value, str):
        return value

    def filled(found: re.Match[str]) -> str:
        if found["escaped"]:
            return "$"
        known = variables.get(found["name"], "")
        if not known and found["how"] == ":?":
            raise ValueError(f"{found['name']} must be set: {found['more']}")
        return known or (found["more"] or "" if found["how"] == ":-" else "")

    return _VARIABLE.sub(filled, value)


def composed(variables: Mapping[str, str]) -> dict[str, Any]:
    """The compose file, filled in."""
    found: dict[str, Any] = interpolate(yaml.safe_load(COMPOSE.read_text("utf-8")), variables)
    return found


def dockerfile() -> list[tuple[str, str]]:
    """The Dockerfile's instructions: name and the rest, with continued lines joined."""
    lines = [line for line in DOCKERFILE.read_text("utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    parts = (line.strip().partition(" ") for line in joined.splitlines() if line.strip())
    return [(name.upper(), " ".join(rest.split())) for name, _, rest in parts]


def image_environment() -> dict[str, str]:
    """What the last stages' ENV sets; ``$PATH`` stays as it is written."""
    found: dict[str, str] = {}
    for name, rest in dockerfile():
        if name == "FROM":
            found = {} if rest.endswith(" AS runtime") else found
        elif name == "ENV":
            found.update(part.split("=", 1) for part in shlex.split(rest))
    return found


def image_folders() -> dict[str, Path]:
    """Where the image has what the repository's folders hold."""
    copies = [shlex.split(rest) for name, rest in dockerfile() if name == "COPY" and not rest.startswith("--")]
    return {each[-1]: ROOT / each[0] for each in copies if each[-1].startswith("/")}


def mounts(service: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A service's mounts in one form: type, source, target."""
    found = []
    for each in service.get("volumes", []):
        if isinstance(each, str):
            source, target = each.split(":")[:2]
            each = {"type": "bind" if source[0] in "./" else "volume", "source": source, "target": target}
        found.append(each)
    return found


class Container(Service):
    """A service of the compose file that runs on."""

    start_seconds = 240.0
    stop_seconds = 10.0

    def __init__(self, cluster: Cluster, name: str) -> None:
        super().__init__(cluster.folder)
        self.name = name
        self._cluster = cluster
        self.service: dict[str, Any] = cluster.compose["services"][name]
        self.port_names = tuple(self.service.get("expose", ()))
        self.box = cluster.folder / "containers" / name

    def command(self) -> Sequence[str]:
        return self.native(self.service["command"])

    def native(self, words: Sequence[str]) -> list[str]:
        """A command line of the container for this machine."""
        return [self._cluster.native(self._own_ports(word), self) for word in words]

    def child_environment(self) -> dict[str, str]:
        own = {name: str(value) for name, value in self.service.get("environment", {}).items()}
        if self.service["image"] == self._cluster.own_image:
            own = {**image_environment(), **own}
        own = {name: self._cluster.native(self._own_ports(value), self) for name, value in own.items()}
        own["PATH"] = os.pathsep.join(
            [str(Path(sys.executable).parent), *self._cluster.tools, os.environ.get("PATH", os.defpath)]
        )
        own |= {"HOSTNAME": socket.gethostname(), "no_proxy": "*", "NO_PROXY": "*", MARK: str(self._cluster.folder)}
        return own | self._cluster.more.get(self.name, {}) | self._cluster.more.get("*", {})

    def _own_ports(self, text: str) -> str:
        """A port that this service listens on, where it is a word of its own."""
        for port in self.service.get("expose", ()):
            text = re.sub(rf"(?<![\w.:/]){port}(?![\w.:/])", str(self.ports[port]), text)
        return text

    def healthy(self) -> bool:
        check = self.service["healthcheck"]["test"]
        kind, words = check[0], self.native(check[1:])
        environment = {**os.environ, **self.child_environment()}
        time.sleep(1)  # a check may cost a second itself, and there are only so many cores
        try:
            done = subprocess.run(
                ["sh", "-c", words[0]] if kind == "CMD-SHELL" else words,
                env=environment,
                capture_output=True,
                timeout=seconds(self.service["healthcheck"]["timeout"]),
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    def run_once(self) -> str:
        """A service that ends; its output. Raises ServiceError where it fails."""
        self.prepare()
        environment = {**os.environ, **self.child_environment()}
        done = subprocess.run(self.command(), env=environment, capture_output=True, text=True, timeout=240, check=False)
        self.log_file.write_text(done.stdout + done.stderr, "utf-8")
        if done.returncode:
            raise ServiceError(f"{self.name} ended with {done.returncode}. {self._tail()}")
        return done.stdout

    def kill(self) -> None:
        """-9 for it and all its children, as when a container is killed; then what its restart policy says."""
        assert self.pid is not None
        for pid in [self.pid, *descendants(self.pid)]:
            os.kill(pid, signal.SIGKILL)
        self.stop(grace=0)

    @property
    def restarted(self) -> bool:
        """Whether Docker starts it again when it was killed."""
        return self.service.get("restart") in {"always", "unless-stopped"}


class Weed(Container):
    """Beside others on one machine it needs all its ports named."""

    more_ports = (
        "s3.port.grpc",
        *(f"{server}.port{grpc}" for server in ("master", "volume", "filer", "admin") for grpc in ("", ".grpc")),
    )

    def __init__(self, cluster: Cluster, name: str) -> None:
        super().__init__(cluster, name)
        self.port_names = (*self.port_names, *self.more_ports)

    def command(self) -> Sequence[str]:
        return [*super().command(), *(f"-{name}={self.ports[name]}" for name in self.more_ports)]


class Redis(Container):
    """Its image works in /data, and listens everywhere."""

    def command(self) -> Sequence[str]:
        return [*super().command(), "--bind", LOOPBACK, "--dir", self._cluster.native("/data", self)]


class Postgres(Container):
    """What its image's entry point does at first: a data folder with the user and the database that are named."""

    def command(self) -> Sequence[str]:
        data = Path(self._cluster.native("/var/lib/postgresql/data", self))
        environment = self.child_environment()
        if not (data / "PG_VERSION").exists():
            self._first(data, environment)
        own = ["-D", str(data), "-p", str(self.ports["5432"]), "-c", f"listen_addresses={LOOPBACK}"]
        return [*self._user(data), *super().command(), *own, "-c", f"unix_socket_directories={data}"]

    def _user(self, data: Path) -> list[str]:
        if os.geteuid():
            return []
        shutil.chown(data, "postgres", "postgres")  # Postgres refuses to run as root
        return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]

    def _first(self, data: Path, environment: Mapping[str, str]) -> None:
        user = self._user(data)
        secret = data.parent / "postgres-password"
        secret.write_text(environment["POSTGRES_PASSWORD"], "utf-8")
        secret.chmod(0o644)
        named = ["-U", environment["POSTGRES_USER"], f"--pwfile={secret}"]
        self._do([*user, "initdb", "-D", str(data), "--auth=scram-sha-256", "--encoding=UTF8", *named], environment)
        secret.unlink()
        sql = f'CREATE DATABASE "{environment["POSTGRES_DB"]}"'
        single = ["postgres", "--single", "-D", str(data), "postgres"]
        self._do([*user, *single], environment, sql)

    def _do(self, command: Sequence[str], environment: Mapping[str, str], text: str | None = None) -> None:
        done = subprocess.run(
            command, env={**os.environ, **environment}, input=text, capture_output=True, text=True, check=False, cwd="/"
        )
        if done.returncode:
            raise ServiceError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


_KINDS: Mapping[str, type[Container]] = {"postgres": Postgres, "redis": Redis, "seaweedfs": Weed}


class Cluster:
    """All services of the compose file with these profiles. ``with`` starts and stops them.

    variables: what ``.env`` would hold. more: variables on top of the compose file's, by service (``*``: all).
    """

    def __init__(
        self,
        folder: Path,
        variables: Mapping[str, str],
        *,
        profiles: Sequence[str] = (),
        more: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.folder = folder
        self.compose = composed(variables)
        self.own_image = self.compose["x-own"]["image"]
        self._known: dict[int, str] = {}  # processes by id, with their start
        self.more = {name: dict(each) for name, each in (more or {}).items()}
        self.tools = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:]]
        chosen = {
            name: service
            for name, service in self.compose["services"].items()
            if not service.get("profiles") or set(service["profiles"]) & set(profiles)
        }
        self.services = {name: _KINDS.get(name, Container)(self, name) for name in chosen}
        self._paths: dict[str, dict[str, Path]] = {name: self._places(each) for name, each in self.services.items()}
        for service in self.services.values():
            service.prepare()
        scheduler = self.services["scheduler"]
        self.more.setdefault("scheduler", {}).update(
            # The one port that a command cannot be told otherwise.
            AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT=str(scheduler.ports["8974"]),
            AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_HOST=LOOPBACK,
        )

    def _places(self, container: Container) -> dict[str, Path]:
        """Where a container's folders are on this machine, by their path in it."""
        found = {"/opt/airflow": container.box, **image_folders()}
        for mount in mounts(container.service):
            volume = mount["type"] == "volume"
            found[mount["target"]] = self.folder / "volumes" / mount["source"] if volume else Path(mount["source"])
            if volume:
                found[mount["target"]].mkdir(parents=True, exist_ok=True)
        container.box.mkdir(parents=True, exist_ok=True)
        return found

    def native(self, text: str, container: Container) -> str:
        """A container's word with this machine's paths, addresses and ports."""
        places = self._paths[container.name]
        longest = sorted(places, key=len, reverse=True)
        text = re.sub(
            rf"(?<![\w./])({'|'.join(map(re.escape, longest))})(?![\w.-])", lambda found: str(places[found[1]]), text
        )
        for name, service in self.services.items():
            for port in service.service.get("expose", ()):
                named = rf"\b(?:{re.escape(name)}|localhost):{port}\b"
                text = re.sub(named, f"{LOOPBACK}:{service.ports[port]}", text)
        text = re.sub(rf"(?<==){re.escape(container.name)}$", LOOPBACK, text)
        return re.sub(r"\blocalhost\b|\b0\.0\.0\.0\b", LOOPBACK, text)

    def address(self, service: str, port: str) -> str:
        return f"http://{LOOPBACK}:{self.services[service].ports[port]}"

    def __enter__(self) -> Cluster:
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def up(self, say: Callable[[str], None] = print) -> None:
        """Start in the order of ``depends_on``; what waits for nothing more starts at once."""
        done: set[str] = set()
        while len(done) < len(self.services):
            wave = [
                container
                for name, container in self.services.items()
                if name not in done and set(container.service.get("depends_on", ())) & set(self.services) <= done
            ]
            if not wave:
                raise ServiceError(f"depends_on is a circle among {sorted(set(self.services) - done)}")
            began = time.monotonic()
            with ThreadPoolExecutor(len(wave)) as pool:
                for future in [pool.submit(self._start, container) for container in wave]:
                    future.result()
            done |= {container.name for container in wave}
            say(f"{', '.join(container.name for container in wave)}: {time.monotonic() - began:.0f} s")

    def _start(self, container: Container) -> None:
        if "healthcheck" in container.service:
            container.start()
        else:
            container.run_once()

    def down(self) -> None:
        """Stop all, what depends on others first; and whatever a service may have left."""
        self._know()
        for container in reversed(self.services.values()):
            container.stop(grace=2)
        for pid in self.left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def left(self) -> list[int]:
        """Processes of this cluster that still run."""
        self._know()
        return sorted(pid for pid, born in self._known.items() if born_at(pid) == born)

    def _know(self) -> None:
        """By their mark; and by their parents, since a process that names itself overwrites its environment."""
        mark = f"{MARK}={self.folder}".encode()
        found = {
            pid for service in self.services.values() if service.pid for pid in (service.pid, *descendants(service.pid))
        }
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.add(int(entry.name))
        for pid in found:
            if (born := born_at(pid)) is not None:
                self._known.setdefault(pid, born)


def born_at(pid: int) -> str | None:
    """When a process started, in ticks since the machine did; None where it has ended."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else rest[18]


def descendants(pid: int) -> list[int]:
    """All processes below one."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def seconds(duration: str) -> float:
    """Of a duration as the compose file writes them: ``90s``, ``1m``."""
    number, unit = re.fullmatch(r"(\d+)(s|m|h)", duration).groups()  # type: ignore[union-attr]
    return float(number) * {"s": 1, "m": 60, "h": 3600}[unit]
