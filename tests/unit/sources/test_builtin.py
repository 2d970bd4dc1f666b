"""The sources that ship: the same bytes for the same parameters, truth aside, nothing alike, nothing half done."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from taskgalaxy_ops.errors import SourceError
from taskgalaxy_ops.records import Image
from taskgalaxy_ops.settings import IngestSettings, SourceSettings
from taskgalaxy_ops.sources import builtin
from taskgalaxy_ops.sources.builtin import BUILTIN, build, documents, openclipart, truth_file
from taskgalaxy_ops.sources.inspecting import inspect
from taskgalaxy_ops.sources.listing import source_files

SOME = len(documents.LAYOUTS) + 9


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Each source is built once for the tests that only read it."""
    folders: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in folders:
            limit = {"documents": SOME, "shapes": 40}.get(name)
            folders[name] = build(name, tmp_path_factory.mktemp("sources") / name, limit)
        return folders[name]

    return get


def images_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "source.json"}


def truths_of(folder: Path) -> dict[str, dict]:
    lines = truth_file(folder).read_text(encoding="utf-8").splitlines()
    return {truth["file"]: truth for truth in map(json.loads, lines)}


@pytest.mark.parametrize("name", ["photos", "documents", "shapes"])
def test_every_image_passes_ingest_and_none_is_there_twice(name, built):
    raws = images_of(built(name))
    images = [inspect(raw, IngestSettings()) for raw in raws.values()]
    assert all(isinstance(image, Image) for image in images)
    assert len({image.image for image in images}) == len(images)
    assert len(images) >= {"photos": 15, "documents": SOME, "shapes": 40}[name]


@pytest.mark.parametrize("name", ["photos", "documents", "shapes"])
def test_it_is_a_source_with_licence_and_attribution(name, built):
    folder = built(name)
    files = list(source_files(name, SourceSettings(location=str(folder)), {}))
    assert [file.name for file in files] == sorted(images_of(folder))
    assert all(file.licence and file.attribution for file in files)


@pytest.mark.parametrize("name", ["photos", "documents", "shapes"])
def test_the_truth_lies_aside_and_names_every_image(name, built):
    folder = built(name)
    truths = truths_of(folder)
    assert set(truths) == set(images_of(folder))
    assert all(set(truth) == {"file", "kind", "truth"} and truth["truth"] for truth in truths.values())
    notes = json.loads((folder / "source.json").read_text(encoding="utf-8"))
    assert set(notes) == {"files", "made_by"}
    assert all(set(own) <= {"licence", "attribution", "origin"} for own in notes["files"].values())


def test_documents_have_many_layouts_from_the_start(built):
    kinds = [truth["kind"] for truth in truths_of(built("documents")).values()]
    assert len(documents.LAYOUTS) >= 24
    assert kinds[: len(documents.LAYOUTS)] == list(documents.LAYOUTS)


def test_no_two_documents_look_alike(built):
    images = [inspect(raw, IngestSettings()) for raw in images_of(built("documents")).values()]
    hashes = [int(image.phash, 16) for image in images]
    assert min((a ^ b).bit_count() for a, b in itertools.combinations(hashes, 2)) > 3


def test_documents_are_of_a_readable_size_and_their_texts_are_apart(built):
    for _, drawn in documents.documents(len(documents.LAYOUTS), seed=5):
        assert min(drawn.image.size) >= 200
        assert max(drawn.image.size) <= 1100
        assert drawn.legible()


def test_a_smaller_set_of_documents_is_the_start_of_a_larger_one(built, tmp_path):
    large = images_of(built("documents"))
    small = images_of(build("documents", tmp_path / "small", 12))
    assert list(small.items()) == list(large.items())[:12]
    assert list(truths_of(tmp_path / "small").values()) == list(truths_of(built("documents")).values())[:12]


def test_another_seed_gives_other_documents(built, tmp_path):
    other = images_of(build("documents", tmp_path / "other", 12, seed=1))
    assert not set(other.values()) & set(images_of(built("documents")).values())


@pytest.mark.parametrize("layout", list(documents.LAYOUTS))
def test_each_layout_draws_for_any_chance_and_tells_what_it_drew(layout):
    drawings = [documents.LAYOUTS[layout](Random(f"{layout}/{chance}")) for chance in range(4)]
    assert sum(drawn.legible() for drawn in drawings) >= 2
    for drawn in drawings:
        assert json.loads(json.dumps(drawn.truth)) == drawn.truth
        assert drawn.texts or layout == "coloured_shapes"


def told(built: Callable[[str], Path], kind: str) -> list[dict]:
    found = [truth["truth"] for truth in truths_of(built("documents")).values() if truth["kind"] == kind]
    assert found
    return found


def test_what_is_told_adds_up(built):
    for truth in told(built, "receipt"):
        assert sum(round(100 * float(item["amount"])) for item in truth["items"]) == round(100 * float(truth["total"]))
    for truth in told(built, "invoice"):
        assert float(truth["total"]) == pytest.approx(float(truth["subtotal"]) + float(truth["tax"]))
    for truth in told(built, "bar_chart"):
        assert truth["values"][truth["highest"]] == max(truth["values"].values())
    for truth in told(built, "pie_chart"):
        assert sum(truth["shares"].values()) == 100


def test_what_is_told_can_be_read(built):
    for kind, keys in {
        "receipt": ["shop", "street", "number"],
        "invoice": ["number", "customer"],
        "business_card": ["name", "mail", "phone"],
        "poster": ["price"],
        "line_chart": ["title"],
    }.items():
        for truth in told(built, kind):
            texts = " ".join(line["text"].replace("\n", " ") for line in truth["texts"])
            assert all(truth[key] in texts for key in keys), (kind, keys)


def test_shapes_come_with_their_questions(built):
    for truth in truths_of(built("shapes")).values():
        assert {"question", "answer"} == set(truth["truth"]["questions"][0])
        assert truth["truth"].get("shape") in {"circle", "rectangle", "triangle", None}


def test_shapes_of_another_seed_are_others(built, tmp_path):
    other = images_of(build("shapes", tmp_path / "shapes", 40, seed=3))
    assert set(other) != set(images_of(built("shapes")))


def test_a_finished_build_is_left_alone_and_another_limit_replaces_it(tmp_path):
    folder = tmp_path / "photos"
    build("photos", folder, 3)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    build("photos", folder, 3)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    build("photos", folder, 5)
    assert len(images_of(folder)) == len(truths_of(folder)) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "photos-truth.jsonl"]


def test_a_lost_truth_is_made_again(tmp_path):
    build("photos", tmp_path / "photos", 2)
    truth_file(tmp_path / "photos").unlink()
    build("photos", tmp_path / "photos", 2)
    assert len(truths_of(tmp_path / "photos")) == 2


def test_a_build_that_breaks_leaves_nothing_behind(tmp_path):
    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build("photos", tmp_path / "photos", 3, progress=stop)
    assert not list(tmp_path.iterdir())


def test_a_folder_with_something_else_is_not_touched(tmp_path):
    (tmp_path / "mine.png").write_bytes(b"mine")
    with pytest.raises(SourceError, match="holds something else"):
        build("photos", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.png"]


def test_two_builds_at_once_end_in_one(tmp_path):
    folder = tmp_path / "photos"
    build("photos", folder, 3, progress=lambda done: build("photos", folder, 3) and None)
    assert len(images_of(folder)) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "photos-truth.jsonl"]


def test_errors_say_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(SourceError, match="Those that ship: photos documents shapes openclipart"):
        build("music", tmp_path / "x")
    with pytest.raises(SourceError, match="limit is 0"):
        build("photos", tmp_path / "x", 0)
    monkeypatch.setattr(builtin, "find_spec", lambda name: None)
    with pytest.raises(SourceError, match="pip install easy-vqa"):
        build("shapes", tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_openclipart_reads_the_drawings_that_debian_brings(tmp_path):
    with pytest.raises(SourceError, match="apt-get install openclipart-png"):
        list(openclipart.images(None, 0, tmp_path))
    drawing = next(documents.documents(1))[1].image
    for folder in ("png/animals/birds", "svg/animals/birds"):
        (tmp_path / folder).mkdir(parents=True)
    drawing.save(tmp_path / "png/animals/birds/grey_heron.png")
    drawing.save(tmp_path / "png/animals/duck_01.png")
    (tmp_path / "svg/animals/birds/grey_heron.svg").write_text(
        "<svg><metadata><cc:Work><dc:title>Grey heron</dc:title><dc:subject><rdf:Bag><rdf:li>bird</rdf:li>"
        "<rdf:li>water</rdf:li></rdf:Bag></dc:subject><dc:creator><cc:Agent><dc:title>A. Painter</dc:title>"
        "</cc:Agent></dc:creator></cc:Work></metadata></svg>"
    )
    made = {image.file: image for image in openclipart.images(None, 0, tmp_path)}
    heron = made["animals-birds-grey_heron.png"]
    assert heron.truth == {
        "title": "Grey heron",
        "keywords": ["bird", "water"],
        "author": "A. Painter",
        "subjects": ["animals", "birds"],
    }
    assert heron.attribution == "A. Painter"
    assert made["animals-duck_01.png"].truth == {"subjects": ["animals"], "title": "duck 01"}


def test_every_source_is_described():
    assert set(BUILTIN) == {"photos", "documents", "shapes", "openclipart"}
