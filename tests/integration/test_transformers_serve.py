"""`transformers serve`: an OpenAI server that nobody here wrote, with a model that says one of a few whole replies.

It ignores `response_format` without a word, so that the form of a reply stands in the text alone.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import tiny_weights
from tiny import tiny_images, tiny_seeds, tiny_settings, tiny_workspace

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.demo.services import free_ports
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.operations import doctor
from taskgalaxy_ops.operations.verify import verify
from taskgalaxy_ops.release.publish import publish
from taskgalaxy_ops.settings import Settings
from taskgalaxy_ops.storage.journal import Journal

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("torch", "transformers", "fastapi"))), reason="no torch and transformers"
)

_UP_SECONDS = 300.0  # only ends a test that would wait for ever


def replies() -> list[str]:
    """What the model may say: good for every role, since each reads its own key; three of four say yes."""
    said = []
    for number in range(4):
        reason = f"as is seen, {number}"
        fields = {
            "verdicts": [{"index": 1, "fits": number > 0, "reason": reason}],
            "pairs": [{"index": 1, "question": f"What is it, {number}?", "answer": "noise", "reasoning": reason}],
            "votes": [{"index": 1, "vote": int(number > 0), "reason": reason}],
            "children": ["noise"],
        }
        said.append(json.dumps(fields))
    return said


@dataclass(frozen=True)
class Server:
    """The server, its model's name, and its log."""

    url: str
    model: str
    log: Path

    @property
    def served(self) -> int:
        """Chat completions that ended with 200."""
        return self.log.read_text(errors="replace").count('"POST /v1/chat/completions HTTP/1.1" 200')


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    tiny_weights.save(folder / "model", replies=replies())
    (port,) = free_ports(1)
    log = folder / "log"
    code = "import sys; from transformers.cli.transformers import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "serve", str(folder / "model"), "--device", "cpu"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # threads that spin would slow down the tests beside
        )
    try:
        began = time.monotonic()
        while not up(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None and time.monotonic() - began < _UP_SECONDS, log.read_text(errors="replace")
            time.sleep(0.2)
        yield Server(f"http://127.0.0.1:{port}/v1", str(folder / "model"), log)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def up(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def settings_of(server: Server, folder: Path, **model: object) -> Settings:
    fields = {"base_url": server.url, "model": server.model, "api_key_env": "SERVED_KEY", "temperature": 0.7, **model}
    names = ("teacher", "a", "b", "c")
    teacher, *judges = (
        {"name": name, "revision": name, "image_side": 64, "timeout_seconds": 60, **fields} for name in names
    )
    return tiny_settings(
        tiny_images(folder / "images", 3),
        taxonomy={"seeds": str(tiny_seeds(folder / "seeds.yaml"))},
        match={"k": 2},
        run={"units_a_request": 1},
        teacher=teacher,
        judges=judges,
    )


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVED_KEY", "none")


def test_a_pipeline_from_images_to_a_release(server: Server, tmp_path: Path) -> None:
    settings = settings_of(server, tmp_path)
    workspace = tiny_workspace(settings)
    before = server.served
    pipeline.ingest(workspace, "mine")
    result = pipeline.generate(workspace)
    assert result.pending == 0, result.reasons
    results = RunResults(workspace, result)
    assert results.count("filter", "relevant") and results.count("write", "pairs") and results.count("vote", "samples")
    assert not [reject for reject in results.rejects if reject.reason in {"refused", "malformed reply"}]
    journals = [Journal(workspace.store, shard.id) for shard in workspace.registry.shards()]
    kept = [reply for journal in journals for reply in journal.replies() if reply["raw"]]
    assert server.served - before == len(kept), "each reply of the server is in a journal"
    assert all(reply["usage"]["prompt_tokens"] > 0 for reply in kept)
    publish(workspace, results=results)
    assert not verify(workspace).damage
    assert pipeline.generate(workspace).usage.calls == 0


def test_the_doctor_says_what_it_takes(server: Server, tmp_path: Path) -> None:
    findings = list(doctor.models(settings_of(server, tmp_path)))
    assert findings and all(each.fine for each in findings), findings


def test_a_wrong_name_leaves_all_pending_and_says_the_servers_word(server: Server, tmp_path: Path) -> None:
    workspace = tiny_workspace(settings_of(server, tmp_path, model="nobody"))
    pipeline.ingest(workspace, "mine")
    result = pipeline.generate(workspace)
    assert result.pending == 3 * 2
    assert "Server is pinned to" in " ".join(result.reasons)
