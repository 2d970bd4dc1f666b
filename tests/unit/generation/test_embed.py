"""Embedding: one stream over all image shards, an encoder's recipe that stays, and task types by templates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import MemoryStore
from tiny import TinyEncoder, tiny_images, tiny_seeds, tiny_settings
from tiny_clip import tiny_clip

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.errors import EncoderError
from taskgalaxy_ops.generation import calibrate
from taskgalaxy_ops.models.encoders.base import Vectors, normalise
from taskgalaxy_ops.models.rendering import upright
from taskgalaxy_ops.settings import Settings
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.shards import StageOutput
from taskgalaxy_ops.taxonomy import label_text
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace


def settings(tmp_path: Path, **changes: Any) -> Settings:
    folder = tiny_images(tmp_path / "images", 7)
    return tiny_settings(folder, taxonomy={"seeds": str(tiny_seeds(tmp_path / "seeds.yaml"))}, **changes)


def embedded(workspace: Workspace) -> dict[str, StageOutput]:
    shards = workspace.registry.shards()
    return pipeline.embed(workspace, shards, {one.id: workspace.stage_outputs.committed(one.id) for one in shards})


class TwoParts(TinyEncoder):
    """A tiny encoder that prepares images, three at a time."""

    batch = 3

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def prepare(self, raw: bytes) -> np.ndarray[Any, Any]:
        return np.asarray(upright(raw))

    def encode_prepared(self, images: Sequence[np.ndarray[Any, Any]]) -> Vectors:
        self.batches.append(len(images))
        return self._points([image.tobytes() for image in images])


def test_one_stream_fills_batches_across_image_shards_and_gives_each_its_own(tmp_path: Path) -> None:
    found = {}
    for encoder in (TinyEncoder(), two := TwoParts()):
        workspace = Workspace(settings(tmp_path), MemoryStore())
        workspace.__dict__["encoder"] = encoder
        pipeline.ingest(workspace, "mine")
        outputs = embedded(workspace)
        found[type(encoder)] = {shard: workspace.stage_outputs.load_embeddings(one) for shard, one in outputs.items()}
    one, other = found.values()
    assert sorted(len(ids) for ids, _ in one.values()) == [1, 2, 2, 2]
    assert two.batches == [3, 3, 1]
    assert one.keys() == other.keys()
    for shard, (ids, vectors) in one.items():
        assert ids == other[shard][0]
        assert vectors.tobytes() == other[shard][1].tobytes()


def test_settings_that_are_unset_leave_the_keys_of_stores_made_before_them(tmp_path: Path) -> None:
    workspace = Workspace(settings(tmp_path), MemoryStore())
    assert workspace.settings.encoder.model_dump() == {"name": "conse", "model": None, "pretrained": None}
    assert workspace.settings.match.model_dump() == {"k": 3}
    assert workspace._encoder_settings_hash == "adbe3a51b35135ffa9b2a856615258a2"


def test_other_templates_encode_task_types_and_no_image(tmp_path: Path) -> None:
    store, templates = MemoryStore(), ("a photo for the task of {}", "{}, as a picture")
    plain = Workspace(settings(tmp_path), store)
    plain.__dict__["encoder"] = TinyEncoder()
    pipeline.ingest(plain, "mine")
    first, before = embedded(plain), TaxonomyStore(plain).embeddings()
    chosen = plain.settings.encoder.model_copy(update={"templates": templates})
    other = plain.with_settings(encoder=chosen)
    other.__dict__["encoder"] = encoder = TinyEncoder()
    assert {shard: one.key for shard, one in embedded(other).items()} == {
        shard: one.key for shard, one in first.items()
    }
    types = TaxonomyStore(other).embeddings()
    assert encoder.passes == len(types.ids) * len(templates)
    texts = [[template.replace("{}", label_text(path)) for path in types.ids] for template in templates]
    mean = sum(TinyEncoder().encode_texts(each).astype(np.float64) for each in texts)
    assert np.allclose(types.vectors, normalise(mean), atol=1e-6)
    assert other.type_encoder_identity == {**plain.encoder_identity, "templates": list(templates)}
    assert TaxonomyStore(plain).embeddings().vectors.tobytes() == before.vectors.tobytes()


@pytest.fixture
def small(tmp_path: Path) -> Workspace:
    """A store whose encoder is a tiny CLIP in int8."""
    pytest.importorskip("open_clip")
    pytest.importorskip("nncf")
    model, file = tiny_clip(tmp_path)
    encoder = {"name": "open_clip", "model": model, "pretrained": file, "runtime": "openvino", "precision": "int8"}
    workspace = Workspace(settings(tmp_path, encoder=encoder), MemoryStore())
    pipeline.ingest(workspace, "mine")
    return workspace


def test_int8_is_calibrated_once_and_every_machine_runs_the_network_that_is_stored(small: Workspace) -> None:
    with pytest.raises(EncoderError, match="`taskgalaxy generate` calibrates it"):
        _ = Workspace(small.settings, small.store).encoder_identity
    pipeline.generate(small, pipeline.RunOptions(last_stage="match"))
    network = small.store.get(small.encoder_network_key)
    again = Workspace(small.settings, small.store)
    pipeline.generate(again, pipeline.RunOptions(last_stage="match"))
    assert again.encoder_passes == 0
    assert again.encoder.identity == small.encoder_identity
    assert small.store.get(small.encoder_network_key) == network


def test_int8_is_refused_where_it_finds_other_task_types(small: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "recall", lambda *_: 0.9)
    with pytest.raises(EncoderError, match=r"in int8, 0\.900 of the nearest task types of 7 images"):
        embedded(small)
    assert not [listed for listed in small.store.list(keys.EMBEDDINGS) if listed.key.endswith(".zip")]


def test_recall_counts_a_place_among_equals_as_found() -> None:
    types = calibrate.EmbeddingMatrix(("a", "b", "c"), normalise(np.array([[1, 0], [1, 1e-5], [0, 1]])))
    exact, near, far = (normalise(np.array([row])) for row in ([1, 0], [1, 1e-4], [0, 1]))
    assert calibrate.recall(exact, near, types, k=1) == 1.0
    assert calibrate.recall(exact, far, types, k=1) == 0.0
