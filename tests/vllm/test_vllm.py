"""The command line against a real vLLM: what holds whatever a model says.

The model is tiny, with random weights (tests/tiny_weights.py), and sampled: what it answers differs from run to run. So
these tests look at what must hold: every unit ends with an answer or a reason, or waits; the server's replies are the
journals'; nothing is given up for the server's limits; the store is whole. The tests share a server and run in order.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny_weights
import yaml

from taskgalaxy_ops.demo.services import free_ports
from taskgalaxy_ops.records import Reason
from taskgalaxy_ops.settings import load_settings
from taskgalaxy_ops.sources.builtin import build
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.workspace import Workspace

from .server import KEY, NAMES, Vllm

CONCURRENCY = 4
PENDING = 3  # exit code
WAIT_SECONDS = 1800  # ends a test that would wait for ever


@pytest.fixture(scope="module")
def vllm(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vllm]:
    folder = tmp_path_factory.mktemp("vllm")
    tiny_weights.save(folder / "model")
    (port,) = free_ports(1)
    server = Vllm(python, folder / "model", port, folder / "logs")
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def pile(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Pictures, no two alike."""
    folder = build("shapes", tmp_path_factory.mktemp("pile") / "shapes", 40)
    return sorted(path for path in folder.rglob("*") if path.suffix in {".png", ".jpg"})


@dataclass
class User:
    """Somebody with a store, pictures and the command line."""

    folder: Path
    vllm: Vllm
    pile: list[Path]

    def settings(self, served: Sequence[str] = NAMES, **fields: Any) -> Path:
        """A settings file. served: the models' names at the server. fields: of all four models, where they differ."""
        model = {
            "base_url": self.vllm.url,
            "api_key_env": "VLLM_KEY",
            "temperature": 0.7,
            "max_tokens": 256,
            "concurrency": CONCURRENCY,
            "timeout_seconds": 60,
            "patience_seconds": 1200,
            "image_side": 128,
            **fields,
        }
        names = ("teacher", "a", "b", "c")
        models = [{"name": name, "model": there, **model} for name, there in zip(names, served, strict=True)]
        file = self.folder / f"settings-{len(list(self.folder.glob('settings-*')))}.yaml"
        raw = {
            "store": (self.folder / "store").as_uri(),
            "sources": {"mine": {"location": str(self.folder / "images")}},
            "match": {"k": 3},
            # One unit: the model cannot count, and would answer for the first one twice.
            "run": {"units_a_request": 1, "lease_seconds": 20},
            "release": {"validation": 0, "test": 0},
            "teacher": models[0],
            "judges": models[1:],
        }
        file.write_text(yaml.safe_dump(raw))
        return file

    def add_images(self, number: int) -> None:
        images = self.folder / "images"
        images.mkdir(parents=True, exist_ok=True)
        there = len(list(images.iterdir()))
        for at in range(there, there + number):
            shutil.copy(self.pile[at], images / f"{at:03d}{self.pile[at].suffix}")

    def start(self, settings: Path, *arguments: str, key: str = KEY) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "taskgalaxy_ops.cli", *arguments, "--settings", str(settings), "--json"]
        environment = {**os.environ, "VLLM_KEY": key}
        return subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, settings: Path, *arguments: str, key: str = KEY) -> tuple[int, dict[str, Any], str]:
        """Exit code, what was printed as JSON, and standard error."""
        return ended(self.start(settings, *arguments, key=key), arguments)

    def workspace(self, settings: Path) -> Workspace:
        return Workspace.open(load_settings(settings))

    def replies(self, settings: Path) -> Counter[str]:
        """The journals' replies by kind: answered (by the server, with 200), canary (of these), other."""
        workspace, counts = self.workspace(settings), Counter[str]()
        for shard in workspace.registry.shards():
            for reply in Journal(workspace.store, shard.id).replies():
                if not reply["raw"]:
                    continue  # it only adds answers to a reply that was counted
                counts["answered" if reply["raw"].get("choices") else "other"] += 1
                counts["canary"] += bool((reply.get("note") or {}).get("canary"))
        return counts

    def reasons(self, settings: Path) -> Counter[str]:
        """The terminal answers of all units, by reason."""
        workspace = self.workspace(settings)
        answers = [a for s in workspace.registry.shards() for a in Journal(workspace.store, s.id).answers.values()]
        return Counter(str(answer.terminal) for answer in answers if answer.terminal)


@pytest.fixture
def up(vllm: Vllm) -> Vllm:
    """The server as a test before left it, or started anew."""
    if not vllm.running:
        vllm.start()
    return vllm


@pytest.fixture
def user(tmp_path: Path, vllm: Vllm, pile: list[Path]) -> User:
    return User(tmp_path, vllm, pile)


def ended(process: subprocess.Popen[str], arguments: tuple[str, ...]) -> tuple[int, dict[str, Any], str]:
    began = time.monotonic()
    out, error = process.communicate(timeout=WAIT_SECONDS)
    print(
        f"\n  {' '.join(arguments[:1])}: exit {process.returncode} after {time.monotonic() - began:.0f} s", flush=True
    )
    assert out.startswith("{") or process.returncode, error
    return process.returncode, json.loads(out) if out.startswith("{") else {}, error[-3000:]


def assert_settled(value: dict[str, Any]) -> None:
    """Every unit of each stage has come out, or has a reason."""
    assert value["pending"] == 0, value["reasons"]
    for stage in value["funnel"]:
        assert stage["units_in"] == stage["units_out"] + sum(stage["rejects"].values()), stage


def assert_whole(user: User, settings: Path) -> None:
    code, value, error = user.run(settings, "verify")
    assert code == 0, (value, error)
    assert not user.reasons(settings).keys() & {Reason.REFUSED, Reason.MODEL_FAILS, Reason.TOO_LONG}


def test_a_server_that_is_set_up_wrongly_loses_nothing(user: User) -> None:
    vllm = user.vllm
    vllm.start("--limit-mm-per-prompt", '{"image": 0}')
    user.add_images(4)
    good, misnamed = user.settings(), user.settings(served=("nobody", "nobody-a", "nobody-b", "nobody-c"))
    assert user.run(good, "ingest")[0] == 0
    for settings, key, words in (
        (good, "a wrong key", ("401", "Unauthorized")),
        (misnamed, KEY, ("404", "does not exist")),
        (good, KEY, ("image",)),
    ):
        code, value, error = user.run(settings, "doctor", key=key)
        assert value, error
        found = [each for each in value["findings"] if each["what"].startswith("model ")]
        assert code == 1 and not any(each["fine"] for each in found), found
        assert all(any(word in each["detail"] for word in words) for each in found), found
        code, value, _ = user.run(settings, "generate", key=key)
        assert code == PENDING and value["pending"] == 4 * 3, value
        assert any(word in " ".join(map(str, value["reasons"])) for word in words), value["reasons"]
    assert not user.reasons(good), "a unit that nobody looked at has no reason"
    vllm.terminate()
    vllm.start()
    code, value, error = user.run(good, "generate")
    assert code in {0, 4}, (value, error)
    assert_settled(value)
    assert_whole(user, good)


def test_from_doctor_to_release_the_servers_replies_are_the_journals(user: User, up: Vllm) -> None:
    vllm, settings = up, user.settings()
    user.add_images(6)
    code, value, error = user.run(settings, "doctor")
    assert code == 0, (value, error)
    before = vllm.replies()
    code, value, error = user.run(settings, "pilot", "--limit", "3")
    assert code == 0, (value, error)
    assert value["forecast"]["files"] == 6 and value["forecast"]["calls"]["expected"] > 0
    assert user.run(settings, "ingest")[0] == 0
    code, value, error = user.run(settings, "generate")
    assert code == 0, (value, error)
    assert_settled(value)
    counts = user.replies(settings)
    print(f"\n  {counts}", flush=True)
    assert vllm.replies() - before == counts["answered"]
    assert vllm.replies(400) == 0 or not counts["other"], counts
    asked = vllm.replies()
    assert user.run(settings, "generate")[1]["usage"]["calls"] == 0
    assert vllm.replies() == asked, "a second run asks nothing"
    code, value, error = user.run(settings, "release")
    assert code == 0, (value, error)
    assert_whole(user, settings)


def test_a_server_that_goes_away_in_the_middle_costs_nothing_but_what_was_in_flight(user: User, up: Vllm) -> None:
    vllm, settings = up, user.settings()
    user.add_images(8)
    assert user.run(settings, "ingest")[0] == 0
    began, lost = vllm.replies(), 0
    for end in (vllm.terminate, vllm.kill):
        before = vllm.replies()
        running = user.start(settings, "generate")
        while vllm.replies() < before + 6 and running.poll() is None:
            time.sleep(0.2)
        assert running.poll() is None, "or this test shows nothing"
        end()
        lost += CONCURRENCY * len(NAMES)  # in flight, at most
        vllm.start()
        code, value, error = ended(running, ("generate",))
        assert code == 0, (value, error)
        assert_settled(value)
        assert_whole(user, settings)
        answered = user.replies(settings)["answered"]
        assert answered <= vllm.replies() - began <= answered + lost
        user.add_images(8)
        assert user.run(settings, "ingest")[0] == 0


def test_a_context_that_is_shorter_than_the_settings_room_costs_no_unit(user: User, up: Vllm) -> None:
    """``max_tokens`` exceeds all that the model has; the longest prompt leaves it some."""
    vllm, roomy = up, user.settings()
    user.add_images(8)
    assert user.run(roomy, "ingest")[0] == 0
    assert user.run(roomy, "generate")[0] == 0
    workspace = user.workspace(roomy)
    replies = [each for s in workspace.registry.shards() for each in Journal(workspace.store, s.id).replies()]
    longest = max((reply["raw"].get("usage") or {}).get("prompt_tokens", 0) for reply in replies)
    context = longest + 300
    print(f"\n  prompts of up to {longest} tokens; a context of {context}", flush=True)
    vllm.terminate()
    vllm.start(context=context)
    shutil.rmtree(user.folder / "store")
    tight = user.settings(max_tokens=2 * context)
    refused, served = vllm.replies(400), vllm.replies()
    assert user.run(tight, "ingest")[0] == 0
    code, value, error = user.run(tight, "generate")
    assert code == 0, (value, error)
    assert_settled(value)
    assert_whole(user, tight)
    refused, served = vllm.replies(400) - refused, vllm.replies() - served
    print(f"\n  {refused} requests were too long, {served} were served", flush=True)
    assert 0 < refused < served, "each unit is refused once at most, and what was learnt is remembered"
