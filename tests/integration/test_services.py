"""Local servers: started, found again after a crash, stopped exactly; data and addresses outlive them."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from taskgalaxy_ops.demo.services import LOOPBACK, SeaweedFS, Service, ServiceError, free_ports, stop_left_over
from taskgalaxy_ops.storage import open_store

_SERVER = """
import http.server, os, signal, sys
port, how = int(sys.argv[1]), sys.argv[2]
print("here is", how, flush=True)
if how == "broken":
    sys.exit("cannot do it")
if how == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
http.server.HTTPServer(("127.0.0.1", port), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


class Small(Service):
    """A server that starts at once, for what is the same for all."""

    name = "small"
    port_names = ("http",)
    stop_seconds = 0.2

    def __init__(self, folder: Path, how: str = "plain") -> None:
        super().__init__(folder)
        self.how = how

    def command(self) -> Sequence[str]:
        return [sys.executable, "-c", _SERVER, str(self.ports["http"]), self.how]

    def new_keys(self) -> dict[str, str]:
        return {"secret": os.urandom(8).hex()}

    def healthy(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((LOOPBACK, self.ports["http"])) == 0


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    here = tmp_path / "a folder"
    yield here
    stop_left_over(here, grace=0)


def _runs(pid: int | None) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_a_service_starts_healthy_and_stops_whole(folder: Path) -> None:
    with Small(folder) as service:
        pid = service.pid
        assert service.healthy()
        assert os.getsid(pid or 0) == pid
        assert stat.S_IMODE(service.state_file.stat().st_mode) == 0o600
        assert "here is plain" in service.log_file.read_text()
    assert not _runs(pid)
    assert stop_left_over(folder) == []


def test_the_next_start_has_the_same_ports_and_keys(folder: Path) -> None:
    with Small(folder) as service:
        before = dict(service.ports), dict(service.keys)
    with Small(folder) as service:
        assert (service.ports, service.keys) == before


def test_a_port_that_was_taken_meanwhile_is_replaced(folder: Path) -> None:
    with Small(folder) as service:
        before, keys = service.ports["http"], service.keys
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((LOOPBACK, before))
        taken.listen()
        with Small(folder) as service:
            assert service.ports["http"] != before
            assert service.keys == keys


def test_a_server_that_ignores_sigterm_is_killed(folder: Path) -> None:
    with Small(folder, "stubborn") as service:
        pid = service.pid
    assert not _runs(pid)


def test_a_server_that_cannot_start_shows_the_end_of_its_log(folder: Path) -> None:
    with pytest.raises(ServiceError, match=r"(?s)small ended while it started, 3 times.*small\.log.*cannot do it"):
        Small(folder, "broken").start()


def test_a_server_that_never_gets_ready_is_stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Small(folder)
    monkeypatch.setattr(service, "healthy", lambda: False)
    service.start_seconds = 0.0
    with pytest.raises(ServiceError, match=r"(?s)small was not ready after 0 s.*small\.log"):
        service.start()
    assert service.pid is None
    assert json.loads(service.state_file.read_text())["pid"] is None


_STARTER = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_services import Small
service = Small(Path({folder!r})).start()
print(service.pid, flush=True)
{then}
"""


def _start_elsewhere(folder: Path, then: str) -> tuple[subprocess.Popen[str], int]:
    script = _STARTER.format(tests=str(Path(__file__).parent), folder=str(folder), then=then)
    starter = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    return starter, int(starter.stdout.readline())


def test_what_a_killed_run_left_behind_is_stopped_by_the_next(folder: Path) -> None:
    starter, pid = _start_elsewhere(folder, "sys.stdin.read()")
    with pytest.raises(ServiceError, match=f"in use by process {starter.pid}"):
        stop_left_over(folder)
    starter.kill()
    starter.wait()
    assert _runs(pid)
    assert stop_left_over(folder) == ["small"]
    assert not _runs(pid)
    assert stop_left_over(folder) == []


def test_a_server_left_running_on_purpose_serves_on(folder: Path) -> None:
    starter, pid = _start_elsewhere(folder, "")
    starter.wait()
    assert _runs(pid)
    with Small(folder) as service:  # a start stops what was left over
        assert not _runs(pid)
        assert service.healthy()


def test_a_pid_that_was_used_again_is_left_alone(folder: Path) -> None:
    with Small(folder) as service:
        state = json.loads(service.state_file.read_text())
    stranger = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    try:
        service.state_file.write_text(json.dumps({**state, "pid": stranger.pid}))
        assert stop_left_over(folder) == []
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_starter_killed_before_it_wrote_the_state_leaves_no_server(folder: Path) -> None:
    dies = """
import json
import taskgalaxy_ops.demo.services as services
def die(file, text):
    print(json.loads(text)["pid"], flush=True)
    os._exit(9)
services._write_private = die
service = """
    script = _STARTER.format(tests=str(Path(__file__).parent), folder=str(folder), then="").replace("service = ", dies)
    ended = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 9
    pid = int(ended.stdout)
    give_up = time.monotonic() + 60
    while _runs(pid) and time.monotonic() < give_up:  # the shell reads the end of its input, and goes
        time.sleep(0.01)
    assert not _runs(pid)
    assert not (folder / "small.service.json").exists()


def test_free_ports_are_different() -> None:
    assert len(set(free_ports(20))) == 20


def test_seaweedfs_keeps_what_it_acknowledged_over_its_own_death(folder: Path) -> None:
    server = SeaweedFS(folder).start()
    store = open_store(f"s3://{server.bucket}/x y", **server.s3_options)
    keys = [f"k/{n}" for n in range(50)]
    assert all(store.put_if_absent(key, key.encode() * 1000) for key in keys)
    before = dict(server.ports)
    os.killpg(server.pid or 0, signal.SIGKILL)
    server.stop()
    with server:
        assert server.ports == before
        assert [store.get(key) for key in keys] == [key.encode() * 1000 for key in keys]
        assert not store.put_if_absent(keys[0], b"other")
        assert store.put_if_absent("new", b"")
        assert set(server.environment) >= {"AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


def test_two_seaweedfs_run_side_by_side(folder: Path, seaweedfs: SeaweedFS) -> None:
    with SeaweedFS(folder) as other:
        assert other.healthy()
        assert seaweedfs.healthy()
        assert other.keys != seaweedfs.keys
        assert not set(other.ports.values()) & set(seaweedfs.ports.values())
