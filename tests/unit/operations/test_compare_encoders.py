"""Two encoders beside each other: counted right, nothing kept of it, and a page that trusts no text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import MemoryStore
from tiny import TinyEncoder, tiny_images, tiny_seeds, tiny_settings

from taskgalaxy_ops import pipeline, workspace
from taskgalaxy_ops.cli import main
from taskgalaxy_ops.errors import EncoderError, SettingsError
from taskgalaxy_ops.generation.stages.match import match
from taskgalaxy_ops.models.encoders.base import EmbeddingMatrix
from taskgalaxy_ops.models.rendering import upright
from taskgalaxy_ops.operations.compare_encoders import compare, encoder_settings
from taskgalaxy_ops.operations.takedown import take_down
from taskgalaxy_ops.reports.html import thumbnail
from taskgalaxy_ops.reports.pages.encoder_comparison import comparison_page
from taskgalaxy_ops.settings import EncoderSettings
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace

OTHER = EncoderSettings(name="open_clip", model="other")


class OtherEncoder(TinyEncoder):
    """Places each image and text by the hash of its bytes in reverse."""

    identity = {"name": "open_clip", "weights": "others", "model": "other"}  # noqa: RUF012

    def _points(self, raws: Any) -> Any:
        return super()._points([raw[::-1] for raw in raws])


@pytest.fixture
def matched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A store whose images are matched by a tiny encoder; every other encoder is ``OtherEncoder``."""
    monkeypatch.setattr(workspace, "open_encoder", lambda *_: OtherEncoder())
    seeds = tiny_seeds(tmp_path / "seeds.yaml", [f"{top}~{top} & {n}" for top in ("ocr", "colour") for n in range(9)])
    folder = tiny_images(tmp_path / "images", 7)
    shutil.move(folder / "000.png", folder / "<b>&.png")
    opened = Workspace(tiny_settings(folder, taxonomy={"seeds": str(seeds)}), MemoryStore())
    opened.__dict__["encoder"] = TinyEncoder()
    pipeline.ingest(opened, "mine")
    pipeline.generate(opened, pipeline.RunOptions(last_stage="match"))
    return opened


def nearest(opened: Workspace, encoder: TinyEncoder) -> dict[str, set[str]]:
    """What an encoder finds for each image, without the code under test."""
    alone = opened.with_settings(encoder=OTHER)
    alone.__dict__["encoder"] = encoder
    types, found = TaxonomyStore(alone.snapshot()).embeddings(keep=False), dict[str, set[str]]()
    for claim in opened.registry.claims():
        vectors = encoder.encode_images([upright(opened.store.get(keys.blob(claim.image)))])
        found[claim.image] = {each.task_type for each in match(EmbeddingMatrix((claim.image,), vectors), types, k=3)}
    return found


def test_what_each_finds_is_counted(matched: Workspace) -> None:
    one, other = nearest(matched, TinyEncoder()), nearest(matched, OtherEncoder())
    found = compare(matched, OTHER)
    shared = {image: len(one[image] & other[image]) for image in one}
    assert (found.images, found.of, found.k) == (7, 7, 3)
    assert (found.matches.first, found.matches.second, found.matches.both) == (21, 21, sum(shared.values()))
    assert found.overlap == pytest.approx(np.mean([count / 3 for count in shared.values()]))
    assert found.same == sum(count == 3 for count in shared.values())
    assert found.disjoint == sum(count == 0 for count in shared.values())
    paths, others = (set().union(*each.values()) for each in (one, other))
    counts = found.task_types
    assert (counts.first, counts.second, counts.both) == (len(paths), len(others), len(paths & others))
    assert sum(each.first for each in found.branches.values()) == 21
    assert found.branches["ocr"].both == sum(
        path.startswith("ocr~") for image in one for path in one[image] & other[image]
    )
    for each in found.differing:
        assert {path for path, *_ in each.both} == one[each.image] & other[each.image]
        assert {alone.task_type for alone in each.first} == one[each.image] - other[each.image]
        assert {alone.task_type for alone in each.second} == other[each.image] - one[each.image]
    assert [each.overlap for each in found.differing] == sorted(each.overlap for each in found.differing)
    assert not {each.image for each in found.drawn} & {each.image for each in found.differing}


def test_an_encoder_finds_all_that_itself_finds(matched: Workspace) -> None:
    same = matched.settings.encoder
    found = compare(matched.with_settings(encoder=same), same)
    assert (found.overlap, found.same, found.differing, found.drawn) == (1.0, 7, [], [])


def test_nothing_is_kept_and_the_next_run_does_nothing(matched: Workspace) -> None:
    assert isinstance(matched.store, MemoryStore)
    before, passes = dict(matched.store.objects), matched.encoder_passes
    compare(matched, OTHER)
    kept = {key for key in matched.store.objects if not key.startswith(keys.CACHES)}
    assert kept == {key for key in before if not key.startswith(keys.CACHES)}
    assert matched.encoder_passes == passes, "what the store has is read"
    pipeline.generate(matched, pipeline.RunOptions(last_stage="match"))
    assert matched.encoder_passes == passes


def test_a_sample_is_drawn_by_hash_and_images_that_are_gone_are_left_out(matched: Workspace) -> None:
    small, larger = compare(matched, OTHER, images=2), compare(matched, OTHER, images=4)
    drawn = [{each.image for each in (*found.differing, *found.drawn)} for found in (small, larger)]
    assert (small.images, larger.images, small.of) == (2, 4, 7)
    assert drawn[0] <= drawn[1] or small.same
    take_down(matched, sorted(drawn[1])[:1], "asked for")
    assert compare(matched, OTHER, images=None).images == 6
    pipeline.ingest(matched, "mine")
    matched.registry.remove("mine")
    with pytest.raises(EncoderError, match="has no image"):
        compare(matched, OTHER)


def test_the_page_shows_hostile_names_as_text_and_a_take_down_finds_it(matched: Workspace) -> None:
    found = compare(matched, OTHER)
    page = comparison_page(found, lambda image: thumbnail(matched.store.get(keys.blob(image))))
    assert page.count("data:image/jpeg;base64,") == len(found.differing) + len(found.drawn) > 0
    assert "ocr › ocr &amp; " in page
    assert "<b>" not in page
    assert "mine: &lt;b&gt;&amp;.png" in page
    matched.store.replace(keys.report("encoders-0"), page.encode())
    take_down(matched, [found.differing[0].image], "asked for")
    assert not list(matched.store.list(keys.REPORTS))


def test_the_command_writes_the_page_and_matches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        workspace, "open_encoder", lambda name, *_: OtherEncoder() if name == "conse" else TinyEncoder()
    )
    folder, seeds = tiny_images(tmp_path / "images", 3), tiny_seeds(tmp_path / "seeds.yaml")
    settings = tiny_settings(folder, store=f"file://{tmp_path}/store", taxonomy={"seeds": str(seeds)})
    file = tmp_path / "settings.yaml"
    file.write_text(json.dumps(settings.model_dump(mode="json")))  # JSON is YAML, too
    common = ["--settings", str(file), "--quiet"]
    assert main(["ingest", *common]) == 0
    capsys.readouterr()
    assert main(["match", *common, "--json", "--compare", "open_clip", "--option", "model=x"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["images"], told["second"], told["matches"]["first"]) == (3, "open_clip x", 9)
    [page] = (tmp_path / "store" / "reports").iterdir()
    assert told["page"].endswith(f"reports/{page.name}")
    assert not [*(tmp_path / "store").glob("embeddings/*")], "no identity of an encoder is recorded"
    assert main(["match", *common, "--compare", "open_clip", "--sample", "2", "--to", str(tmp_path / "p.html")]) == 0
    assert "2 images, drawn by hash from 3" in capsys.readouterr().out
    assert (tmp_path / "p.html").read_text().startswith("<!doctype html>")
    assert main(["match", *common, "--to", "p.html"]) == 1
    assert "--option and --to belong to --compare" in capsys.readouterr().err


def test_an_encoder_is_named_with_fields_of_its_settings() -> None:
    given = encoder_settings("open_clip", ["model=ViT-B-32", "precision=bf16", "templates=a {}", "templates=b {}"])
    assert given == EncoderSettings(name="open_clip", model="ViT-B-32", precision="bf16", templates=("a {}", "b {}"))
    for wrong, message in (("model", "write FIELD=VALUE"), ("size=3", "size"), ("precision=int3", "precision")):
        with pytest.raises(SettingsError, match=message):
            encoder_settings("open_clip", [wrong])
