"""A run about groups of images, with a model that takes one image at first, and where its pictures are shown."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
from PIL import Image as Pillow
from tiny import TinyModels, tiny_images, tiny_models, tiny_seeds, tiny_settings, tiny_workspace

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.cli import review as cli_review
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.operations.explain import explain
from taskgalaxy_ops.operations.plan import plan
from taskgalaxy_ops.operations.review import draw_pairs
from taskgalaxy_ops.operations.takedown import left, take_down
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.release.changes import Loss
from taskgalaxy_ops.reports.html import render
from taskgalaxy_ops.reports.pages.contact_sheet import report_data
from taskgalaxy_ops.reports.text import explain as explain_text

__all__ = ["tiny_models"]


@pytest.mark.parametrize("said", ["At most 1 image(s) may be provided in one prompt.", "This cannot be done."])
def test_all_pictures_of_a_group_are_shown_and_a_model_that_takes_one_leaves_it_pending(
    said: str, tmp_path: Path, tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds, images = tiny_seeds(tmp_path / "seeds.yaml"), tiny_images(tmp_path / "images", 4)
    chosen = tiny_settings(
        images,
        taxonomy={"seeds": str(seeds)},
        ingest={"shard_images": 4, "min_side": 8},
        write={"variants": ["several_images"]},
    )
    workspace = tiny_workspace(chosen)
    pipeline.ingest(workspace, "mine")
    tiny_models.most_images, tiny_models.too_many_images = 1, said
    result = pipeline.generate(workspace)
    assert result.pending == sum(shard.stages["write"].missing for shard in result.shards) > 0, "the filter is done"
    assert "takes fewer images in a request than a group has" in result.reasons[0]
    assert all(reject.reason == "not fitting" for reject in RunResults(workspace).rejects)
    tiny_models.most_images = 4
    assert pipeline.generate(workspace).pending == 0
    asked = [unit for unit in tiny_models.seen if unit[1] in {"write", "vote"}]
    assert {len(unit[-1].split()) for unit in asked} <= {2, 3, 4}

    (drawn,) = draw_pairs(workspace, 1, ())
    first, *others = drawn.pair.images
    explained = "\n".join(explain_text.explained(explain(workspace, drawn.pair.pair)))
    assert f"with images {', '.join(others)}" in explained
    assert f"shown with image {first}" in "\n".join(explain_text.explained(explain(workspace, others[0])))
    page = render(report_data(RunResults(workspace)))
    assert json.dumps([first, *others], separators=(",", ":")) in page
    monkeypatch.setattr(cli_review, "workspace_of", lambda _: workspace)
    monkeypatch.setattr(cli_review, "say", lambda *_: None)
    where = argparse.Namespace(number=1, by=(), to=tmp_path / "out.csv", pictures_at=None, format="csv")
    assert cli_review._export(where) == 0
    with Pillow.open(tmp_path / "out-pictures" / f"{drawn.pair.pair}.jpg") as row:
        assert row.width > 16 * len(drawn.pair.images), "side by side"
    take_down(workspace, [others[-1]])
    assert list(left(workspace)) == []
    assert drawn.pair.pair not in RunResults(workspace).pairs


def test_what_a_release_loses_with_a_further_image_is_said_so(tmp_path: Path, tiny_models: TinyModels) -> None:
    seeds, images = tiny_seeds(tmp_path / "seeds.yaml"), tiny_images(tmp_path / "images", 4)
    workspace = tiny_workspace(
        tiny_settings(
            images,
            taxonomy={"seeds": str(seeds)},
            ingest={"shard_images": 4, "min_side": 8},
            write={"variants": ["several_images"]},
        )
    )
    pipeline.ingest(workspace, "mine")
    pipeline.generate(workspace)
    publish.publish(workspace)
    samples = RunResults(workspace).samples
    gone = next(image for sample in samples for image in sample.images[1:])
    (file,) = (claim.file for claim in workspace.registry.claims() if claim.image == gone)
    (images / file).unlink()
    pipeline.ingest(workspace, "mine")
    asked = tiny_models.requests
    assert pipeline.generate(workspace).pending == 0
    assert tiny_models.requests > asked, "the others form groups without it"
    changes = publish.publish(workspace).changes
    assert changes is not None
    held = [sample for sample in samples if gone in sample.images]
    assert changes.lost == {Loss.UNCLAIMED: len(held)}
    assert any(sample.image != gone for sample in held)
    tiny_images(images, 4, first=10)
    pipeline.ingest(workspace, "mine")
    passes = workspace.encoder.passes  # type: ignore[attr-defined]
    assert next(each for each in plan(workspace).stages if each.stage == "embed").units.expected == 4
    assert workspace.encoder.passes == passes, "a plan encodes nothing to know groups"  # type: ignore[attr-defined]
