"""Fixtures for all tests: no network beyond loopback, no AWS account, and the stores under test."""

from __future__ import annotations

import gc
import ipaddress
import os
import shutil
import socket
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from durations import SECONDS
from e2e.galaxies import Models
from hypothesis import HealthCheck, settings
from racing import Racers, racers

from taskgalaxy_ops.demo.services import SeaweedFS
from taskgalaxy_ops.sources.builtin import build
from taskgalaxy_ops.storage import Store, connect, open_store

# HYPOTHESIS_PROFILE=wide tries more examples, other ones each time.
_QUIET = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile(
    "suite", deadline=None, max_examples=40, derandomize=True, database=None, suppress_health_check=_QUIET
)
settings.register_profile("wide", deadline=None, max_examples=1000, database=None, suppress_health_check=_QUIET)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))


class NetworkForbiddenError(RuntimeError):
    """A test tried to use the network. Not an OSError, which a client would take for an outage and try again."""


def _check_loopback(host: object) -> None:
    name = host.decode() if isinstance(host, bytes) else host
    if not isinstance(name, str) or name in {"", "localhost"}:
        return
    try:
        local = ipaddress.ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        local = False
    if not local:
        raise NetworkForbiddenError(
            f"a test reached for {name}: only loopback is allowed. Start a local server instead."
        )


def _forbid_network() -> None:
    connect_to, connect_ex_to, look_up = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: Any) -> None:
        if self.family in {socket.AF_INET, socket.AF_INET6}:
            _check_loopback(address[0])
        return connect_to(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        if self.family in {socket.AF_INET, socket.AF_INET6}:
            _check_loopback(address[0])
        return connect_ex_to(self, address)

    def guarded_look_up(host: Any, *arguments: Any, **options: Any) -> Any:
        _check_loopback(host)
        return look_up(host, *arguments, **options)

    socket.socket.connect = guarded_connect  # type: ignore[method-assign]
    socket.socket.connect_ex = guarded_connect_ex  # type: ignore[method-assign]
    socket.getaddrinfo = guarded_look_up  # type: ignore[assignment]


def pytest_configure(config: pytest.Config) -> None:
    """Forbid the network and remove credentials before any test module is imported; child processes inherit it."""
    if hasattr(config.option, "loadscopereorder"):  # xdist would begin with the files that hold the most tests
        config.option.loadscopereorder = False
    _forbid_network()
    for name in list(os.environ):
        if name.startswith(("AWS_", "OPENAI_", "TASKGALAXY_")) or name.lower() in {
            *("http_proxy", "https_proxy", "all_proxy", "no_proxy")
        }:
            del os.environ[name]
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    os.environ["HF_HUB_OFFLINE"] = "1"
    # Read when torch is loaded, here or in a child: threads that spin take the core from whoever works.
    os.environ["GOMP_SPINCOUNT"] = "1000"
    # OpenVINO would report to Google Analytics by a forked process each time, also where a test imports it first.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    # Each of the many child processes would compile all that it imports, such as Airflow, anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first; within a file, the tests' own order stands."""
    items.sort(key=lambda item: -SECONDS.get(item.nodeid.partition("::")[0], 0))


def pytest_collection_finish() -> None:
    """What is loaded by now stays: no collection of garbage looks through its million objects again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)  # tests make many objects that live for a moment, and few cycles


@dataclass(frozen=True)
class Place:
    """Where a store lies. It can be sent to another process, which opens the store itself."""

    url: str
    options: dict[str, Any] = field(default_factory=dict)

    def connect(self) -> Store:
        """The store, without the checks of ``open_store``."""
        return connect(self.url, **self.options)


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """One S3 server for the session; each test uses a prefix of its own."""
    server = SeaweedFS(tmp_path_factory.mktemp("seaweedfs server"))
    try:
        yield server.start()
    finally:
        server.stop(grace=0)


@pytest.fixture(scope="session", name="racers")
def _racers() -> Iterator[Racers]:
    with racers() as started:
        yield started


@pytest.fixture(params=["folder", "seaweedfs"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty place for a store of each kind. Its name has a space and an umlaut."""
    if request.param == "folder":
        return Place((tmp_path / "störe one").as_uri())
    server: SeaweedFS = request.getfixturevalue("seaweedfs")
    return Place(f"s3://{server.bucket}/störe one/{uuid.uuid4().hex}", server.s3_options)


@pytest.fixture
def store(place: Place) -> Store:
    """An empty store of each kind."""
    return open_store(place.url, **place.options)


@pytest.fixture
def folder_store(tmp_path: Path) -> Store:
    """An empty store in a folder, for tests of code that uses a store."""
    return open_store(str(tmp_path / "store"))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with twelve images of three kinds."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, limit in (("photos", 3), ("documents", 5), ("shapes", 4)):
        made = build(name, folder / f"{name} built", limit)
        shutil.copytree(made, folder / "all" / name)
    return folder / "all"


@pytest.fixture(scope="session")
def readings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where simulated models keep what they read in images: for the servers of all workers of this run."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "readings"


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, readings: Path) -> Iterator[Models]:
    """One server of simulated models for the session, since it remembers what it read in an image."""
    server = Models(tmp_path_factory.mktemp("models"), readings=readings)
    try:
        yield server.start()
    finally:
        server.stop(grace=0)


@pytest.fixture
def models(served: Models) -> Models:
    """The session's simulated models, with their counts at 0."""
    served.count_anew()
    return served
