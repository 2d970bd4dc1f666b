"""A whole small run against a stand-in of each server: it is met with what it takes, and nothing is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from model_dialects import DIALECTS, MODELS, Dialect, Said, StandIn
from PIL import Image as Pillow
from serving import served
from tiny import tiny_seeds, tiny_settings, tiny_workspace

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.inference import attempts
from taskgalaxy_ops.models import rate_limit
from taskgalaxy_ops.models.pricing import is_told, usage_of
from taskgalaxy_ops.models.refusals import classify
from taskgalaxy_ops.records import Reason
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.workspace import Workspace

COLOURS = {"red": (220, 30, 30), "green": (20, 220, 20), "blue": (30, 30, 220)}  # no server takes green


def pictures(folder: Path) -> Path:
    folder.mkdir()
    for number, (name, colour) in enumerate(COLOURS.items()):
        noise = np.random.default_rng(number).integers(0, 20, (16, 16, 3), np.uint8)
        Pillow.fromarray(np.array(colour, np.uint8) + noise).save(folder / f"{name}.png")
    return folder


def workspace_of(folder: Path, url: str, dialect: Dialect) -> Workspace:
    def model(name: str) -> dict[str, object]:
        return {
            "name": name,
            "base_url": f"{url}/v1",
            "model": name,
            "simulated": True,
            "image_side": 64,
            "patience_seconds": 60,
            "seed": 7,
            "top_p": 0.9,
            "price": {"input": 1, "output": 2},
            **dialect.settings,
        }

    settings = tiny_settings(
        pictures(folder / "images"),
        teacher=model("teacher"),
        judges=[model(name) for name in "abc"],
        taxonomy={"seeds": str(tiny_seeds(folder / "seeds.yaml"))},
        ingest={"shard_images": 3, "min_side": 8},
    )
    return tiny_workspace(settings)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers are waited for as they ask, and otherwise hardly."""
    for module in (attempts, rate_limit):
        monkeypatch.setattr(module, "backoff", lambda attempt: 0.01)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_a_run_against_each_server_loses_nothing(dialect: Dialect, tmp_path: Path) -> None:
    stand_in = StandIn(dialect)
    with served(stand_in.handler) as url:
        workspace = workspace_of(tmp_path, url, dialect)
        pipeline.ingest(workspace, "mine")
        result = pipeline.generate(workspace)
    assert result.pending == 0, (result.usage.unavailable, result.usage.gave_up, stand_in.said)
    happened = {"busy", "upstream", "refused", *(f"no {name}" for name in dialect.refuses)}
    assert happened <= stand_in.said.keys(), "each of its oddities was met"
    assert (stand_in.said["too long"] > 0) == (dialect.too_long is not None)
    assert all(stand_in.said[f"no {name}"] <= 16 for name in dialect.refuses), "it is found out once"

    results = RunResults(workspace)
    stages = {counts.stage: counts for counts in results.funnel}
    assert (stages["ingest"].units_out, stages["filter"].units_in, stages["filter"].units_out) == (3, 9, 6)
    for stage in ("filter", "write", "vote"):
        lost = {Reason.REFUSED: 3} if stage == "filter" else {}
        assert dict(stages[stage].rejects) == lost, "the green picture's, and nothing else"
    assert not results.lost_too_many and not results.lost.reasons

    (shard,) = workspace.registry.shards()
    kept = [reply for reply in Journal(workspace.store, shard.id).replies() if "choices" in reply["raw"]]
    assert len(kept) == len(stand_in.served), "what was served is kept, and counted once"
    assert result.usage.requests == stand_in.requests
    told = [dialect.usage(*tokens) for tokens in stand_in.served]
    assert sorted(map(sorted, (reply["usage"].items() for reply in kept))) == sorted(
        sorted(usage_of({"usage": usage}).items()) for usage in told
    )
    if not is_told(usage_of({"usage": told[0]})):
        assert all(reply["cost"] == reply["ceiling"] > 0 for reply in kept), "at its highest where it tells nothing"
    receipt = publish.publish(workspace)
    assert receipt.made and receipt.release.samples == stages["vote"].units_out > 0


WHATS = ("busy", "too_long", "refused", "no_model", "no_key", "spent", "away")
ERRORS = [
    pytest.param(said, id=f"{dialect.name}: {what}")
    for dialect in DIALECTS
    for what, said in [*((name, getattr(dialect, name)) for name in WHATS), *dialect.refuses.items()]
    if isinstance(said, Said)
]


@pytest.mark.parametrize("said", ERRORS)
def test_each_error_is_understood(said: Said) -> None:
    understood = classify(said.status, said.body, said.headers)
    assert (understood.kind, understood.parameter) == (said.kind, said.parameter)
    assert understood.wait == pytest.approx(said.wait)


def test_the_table_in_the_documentation_is_the_one_that_is_tried() -> None:
    rows = [line for line in MODELS.read_text("utf-8").partition("## Dialects")[2].splitlines() if line[:2] == "| "]
    for dialect in DIALECTS:
        (row,) = [row for row in rows if row.startswith(f"| {dialect.name} ")]
        assert "](https://" in row, "with where it is written"
