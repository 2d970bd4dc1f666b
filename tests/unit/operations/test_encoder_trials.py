"""What the doctor tries of an encoder: every way that is possible, why others are not, and what to set."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import MemoryStore
from tiny import TinyEncoder, tiny_images, tiny_seeds, tiny_settings
from tiny_clip import tiny_clip

from taskgalaxy_ops import pipeline, workspace
from taskgalaxy_ops.cli import main
from taskgalaxy_ops.operations import encoder_trials as trials
from taskgalaxy_ops.operations.encoder_trials import EncoderTrials, Trial
from taskgalaxy_ops.reports.text.encoder_trials import recommended, tried
from taskgalaxy_ops.settings import EncoderSettings
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.workspace import Workspace

PLAIN = Trial(runtime=None, precision=None, decode=None, forward=10, whole=10, recall=1.0, settings=True)
SMALL = replace(PLAIN, runtime="openvino", precision="int8", whole=40, recall=0.97, settings=False)
CHOSEN = EncoderSettings(name="open_clip", model="ViT-B-32", pretrained="openai", fit="pad")


def found(*measured: Trial, stored: int = 400) -> EncoderTrials:
    return EncoderTrials(encoder="e", cores=2, images=64, stored=stored, task_types=9, trials=list(measured))


@pytest.mark.parametrize(
    ("measured", "best"),
    [
        ((PLAIN, SMALL), SMALL),
        ((PLAIN, replace(SMALL, recall=0.94)), PLAIN),  # finds others
        ((PLAIN, replace(SMALL, whole=10.5)), PLAIN),  # not clearly quicker
        ((replace(PLAIN, recall=None), replace(SMALL, recall=None)), replace(PLAIN, recall=None)),  # not known
        ((replace(PLAIN, settings=False), replace(SMALL, settings=True, recall=0.5)), replace(PLAIN, settings=False)),
    ],
)
def test_the_quickest_way_that_finds_the_same_is_recommended(measured: tuple[Trial, ...], best: Trial) -> None:
    assert found(*measured).best == best


def test_what_to_set_is_told_in_words_and_as_settings() -> None:
    lines = recommended(found(PLAIN, SMALL), CHOSEN)
    assert lines[0] == (
        "Recommended: int8 by openvino with full decoding, 4.0 times the images a second of the settings, "
        "with a recall of 0.970:"
    )
    assert lines[2:9] == [
        "encoder:",
        "  name: open_clip",
        "  model: ViT-B-32",
        "  pretrained: openai",
        "  runtime: openvino",
        "  precision: int8",
        "  fit: pad",
    ]
    assert "embed all 400 images anew (here about 10 s)" in lines[-1]
    assert recommended(found(PLAIN), CHOSEN)[0].startswith("Recommended: the settings as they are")


@pytest.fixture
def store(tmp_path: Path) -> Workspace:
    pytest.importorskip("nncf")
    model, file = tiny_clip(tmp_path)
    seeds = tiny_seeds(tmp_path / "seeds.yaml")
    encoder = {"name": "open_clip", "model": model, "pretrained": file, "decode": "quick"}
    settings = tiny_settings(tiny_images(tmp_path / "images", 5), taxonomy={"seeds": str(seeds)}, encoder=encoder)
    return Workspace(settings, MemoryStore())


def test_every_way_is_tried_or_said_why_not_and_nothing_is_written(
    store: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "computes_bf16", lambda: False)
    pipeline.ingest(store, "mine")
    assert isinstance(store.store, MemoryStore)
    before = set(store.store.objects)
    tells = trials.encoder_trials(store, seconds=300)
    ways = {(each.runtime, each.precision, each.decode): each for each in tells.trials}
    assert {*ways} >= {
        (None, None, None),
        (None, None, "quick"),
        ("openvino", "int8", None),
        ("openvino", None, "quick"),
    }
    assert all(each.whole > 0 and (each.forward or 0) > 0 and 0 <= (each.recall or 0) <= 1 for each in tells.trials)
    assert [each.decode for each in tells.trials if each.settings] == ["quick"]
    assert (tells.stored, tells.images, tells.task_types) == (5, 5, 9)
    assert "does not compute in bf16" in tells.missing["bf16"]
    assert {key for key in set(store.store.objects) - before if not key.startswith(keys.CACHES)} == set()
    lines = tried(tells, store.settings.encoder)
    assert any(line.endswith("<- settings") for line in lines)
    assert [line for line in lines if line.startswith("not tried: ") and "openvino bf16" in line]


def test_no_further_way_is_begun_once_the_time_is_over(store: Workspace) -> None:
    pipeline.ingest(store, "mine")
    tells = trials.encoder_trials(store, seconds=0)
    assert [(each.runtime, each.decode) for each in tells.trials] == [(None, None)], "what others are compared with"
    assert set(tells.missing.values()) == {"the 0 seconds were over"}


def test_the_command_recommends_nothing_untested_where_the_store_has_no_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(workspace, "open_encoder", lambda *_: TinyEncoder())
    raw = tiny_images(tmp_path / "images", 1) / "000.png"
    monkeypatch.setattr(trials, "_made", lambda count: [raw.read_bytes()])
    file = tmp_path / "settings.yaml"
    settings = tiny_settings(tmp_path / "images", store=f"file://{tmp_path}/store")
    file.write_text(json.dumps(settings.model_dump(mode="json")))  # JSON is YAML, too
    assert main(["doctor", "--settings", str(file), "--quiet", "--json", "--encoder"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["stored"], told["task_types"], told["recommended"]["recall"]) == (0, 0, None)
    assert (told["recommended"]["precision"], told["recommended"]["decode"]) == (None, None)
