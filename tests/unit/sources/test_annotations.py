"""Images that annotation files name: COCO, Visual Genome, LLaVA and ShareGPT; missing, hostile and broken ones."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from sourcing import files_of, picture, seen, workspace_at

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.demo.services import SeaweedFS
from taskgalaxy_ops.errors import SourceError
from taskgalaxy_ops.records import Reason
from taskgalaxy_ops.storage import connect

COCO = {
    "info": {"year": 2017},
    "licenses": [
        {"url": "http://creativecommons.org/licenses/by-nc/2.0/", "id": 2, "name": "Attribution-NonCommercial License"},
        {"url": "", "id": 7, "name": "No known copyright restrictions"},
    ],
    "images": [
        {"id": 1, "file_name": "1.jpg", "license": 2, "flickr_url": "http://farm1.staticflickr.com/1.jpg"},
        {"id": 2, "file_name": "2.jpg", "license": 7, "coco_url": "http://images.cocodataset.org/2.jpg"},
        {"id": 3, "file_name": "3.jpg", "license": 99},
    ],
    "annotations": [{"id": 1, "image_id": 1, "caption": "a picture"}],
}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of pictures: 1.jpg to 4.jpg, and VG_100K/5.jpg."""
    (tmp_path / "im" / "VG_100K").mkdir(parents=True)
    for seed in range(1, 5):
        (tmp_path / "im" / f"{seed}.jpg").write_bytes(picture(seed))
    (tmp_path / "im" / "VG_100K" / "5.jpg").write_bytes(picture(5))
    return tmp_path / "im"


def written(images: Path, content: Any, name: str = "a.json") -> str:
    path = images.parent / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_coco_with_the_licence_of_each_image(images: Path) -> None:
    location = f"coco:{written(images, COCO)}"
    workspace = workspace_at(location, options={"images": str(images)}, licence="unknown")
    receipt = pipeline.ingest(workspace, "mine")
    claims = {claim.file: (claim.licence, claim.origin) for claim in workspace.registry.claims()}
    assert claims == {
        "1.jpg": ("http://creativecommons.org/licenses/by-nc/2.0/", "http://farm1.staticflickr.com/1.jpg"),
        "2.jpg": ("No known copyright restrictions", "http://images.cocodataset.org/2.jpg"),
        "3.jpg": ("unknown", None),
    }
    assert receipt.left_out == {"image that no entry names": 2}


def test_a_licence_that_the_file_changes_is_taken_without_reading_an_image(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from taskgalaxy_ops.sources.kinds.annotations import AnnotatedSource

    location = f"coco:{written(images, COCO)}"
    workspace = workspace_at(location, options={"images": str(images)})
    pipeline.ingest(workspace, "mine")
    monkeypatch.setattr(AnnotatedSource, "open", lambda *_: pytest.fail("an image is read again"))
    assert pipeline.ingest(workspace, "mine").images == 3
    changed = {**COCO, "licenses": [{"id": 2, "name": "CC0"}, {"id": 7, "name": "CC0"}, {"id": 99, "name": "CC0"}]}
    written(images, changed)
    pipeline.ingest(workspace, "mine")
    assert {claim.licence for claim in workspace.registry.claims()} == {"CC0"}


def test_visual_genome_by_the_end_of_each_url(images: Path) -> None:
    url = "https://cs.stanford.edu/people/rak248/VG_100K/5.jpg"
    entries = [{"image_id": 5, "width": 40, "height": 40, "url": url, "coco_id": None}]
    location = f"visual_genome:{written(images, entries)}"
    workspace = workspace_at(location, options={"images": str(images)})
    pipeline.ingest(workspace, "mine")
    assert [(claim.file, claim.origin) for claim in workspace.registry.claims()] == [("VG_100K/5.jpg", url)]


CONVERSATION = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "This."}]
LLAVA = [
    {"id": "a", "image": "1.jpg", "conversations": CONVERSATION},
    {"id": "b", "image": "1.jpg", "conversations": CONVERSATION},  # a second one about the same picture
    {"id": "c", "conversations": CONVERSATION},
    {"id": "d", "image": ["2.jpg", "./VG_100K/5.jpg"], "conversations": CONVERSATION},
    {"id": "e", "image": "gone/9.jpg", "conversations": CONVERSATION},
    {"id": "f", "image": "3.jpg", "url": "https://example.org/3", "conversations": CONVERSATION},
]


@pytest.mark.parametrize("lines", [False, True])
def test_conversations_as_a_list_and_by_lines(images: Path, lines: bool) -> None:
    content: Any = "\n".join(map(json.dumps, LLAVA)) + "\n" if lines else LLAVA
    location = f"llava:{written(images, content, 'a.jsonl' if lines else 'a.json')}"
    workspace = workspace_at(location, options={"images": str(images)})
    receipt = pipeline.ingest(workspace, "mine")
    assert sorted(files_of(workspace)) == ["1.jpg", "2.jpg", "3.jpg", "VG_100K/5.jpg"]
    assert [(each.file, each.reason) for each in receipt.rejects] == [("gone/9.jpg", Reason.UNREADABLE)]
    assert "no such file below" in receipt.rejects[0].detail
    assert receipt.left_out == {"entry without an image": 1, "image that no entry names": 1}
    assert {claim.origin for claim in workspace.registry.claims()} == {None, "https://example.org/3"}


def test_sharegpt_with_absolute_paths_beside_its_images(images: Path) -> None:
    rows = [{"messages": [], "images": [str(images / "1.jpg"), f"{images}/VG_100K/5.jpg"]}]
    (images / "data.json").write_text(json.dumps(rows))
    found = seen(f"sharegpt:{images}/data.json")
    assert found.files == {"1.jpg": picture(1), "VG_100K/5.jpg": picture(5)}
    assert found.left_out == {"image that no entry names": 3}


def test_entries_that_are_added_are_read_and_those_that_vanish_are_recorded(images: Path) -> None:
    location = f"llava:{written(images, LLAVA[:2])}"
    workspace = workspace_at(location, options={"images": str(images)})
    assert pipeline.ingest(workspace, "mine").new_images == 1
    written(images, LLAVA[3:4])
    second = pipeline.ingest(workspace, "mine")
    assert (second.images, second.new_images) == (2, 2)
    assert sorted(files_of(workspace)) == ["2.jpg", "VG_100K/5.jpg"]


def test_paths_that_lead_elsewhere_name_nothing(images: Path) -> None:
    (images.parent / "secret.jpg").write_bytes(picture(9))
    (images / "out.jpg").symlink_to(images.parent / "secret.jpg")
    hostile = ["../secret.jpg", str(images.parent / "secret.jpg"), "out.jpg", "", "a\0b", "\ud800.jpg", "x" * 5000]
    entries = [{"image": path} for path in [*hostile, "http://127.0.0.1/a.jpg", "x/../1.jpg"]]
    lines = "\n".join(map(json.dumps, entries))
    found = seen(f"llava:{written(images, lines, 'a.jsonl')}", options={"images": str(images)})
    assert found.files == {"1.jpg": picture(1)}
    assert len(found.broken) == 7  # of "" nothing is named: the entry has no image
    assert "\\ud800.jpg" in found.broken
    assert found.left_out["link to a file outside"] == 1


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("coco", json.dumps(COCO)[:200]),  # cut off within its images
        ("coco", json.dumps({"annotations": []})),
        ("coco", json.dumps({"images": [{"id": 1}]})),
        ("coco", json.dumps({"images": ["1.jpg"]})),
        ("coco", "<html>"),
        ("visual_genome", json.dumps(COCO)),
        ("visual_genome", json.dumps([{"url": None}])),
        ("llava", json.dumps(LLAVA)[:-20]),
        ("llava", "id,image\n"),
        ("sharegpt", ""),
    ],
)
def test_a_file_that_is_broken_or_of_another_kind_ends_the_scan(images: Path, kind: str, content: str) -> None:
    with pytest.raises(SourceError, match=r"cannot be read as this kind of annotation file|lists no image"):
        seen(f"{kind}:{written(images, content)}", options={"images": str(images)})


def test_a_line_that_is_broken_is_a_reject(images: Path) -> None:
    lines = [json.dumps(LLAVA[0]), '{"image": "2.jp', "[" * 100_000, "[]", '{"image": 7}', '{"image": [{"x": 1}]}']
    found = seen(f"llava:{written(images, chr(10).join(['{}', *lines]), 'a.jsonl')}", options={"images": str(images)})
    assert found.files == {"1.jpg": picture(1)}
    assert sorted(found.broken) == [f"a.jsonl/{number}" for number in range(3, 8)]


def test_the_location_is_one_file_that_is_there(images: Path) -> None:
    for location in (f"coco:{images}", f"coco:{images}/nowhere.json"):
        with pytest.raises(SourceError, match=r"Name one .json or .jsonl file|is no folder"):
            seen(location)
    with pytest.raises(SourceError, match="is no folder"):
        seen(f"coco:{written(images, COCO)}", options={"images": "/nowhere"})


def test_memory_does_not_grow_with_the_file(images: Path) -> None:
    entry = {"image": "1.jpg", "conversations": [{"from": "gpt", "value": "x" * 2000}]}
    location = f"llava:{written(images, [entry] * 10_000)}"
    assert os.path.getsize(location.removeprefix("llava:")) > 20e6  # noqa: PTH202
    tracemalloc.start()
    try:
        assert len(seen(location, options={"images": str(images)}).files) == 1
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


def test_coco_in_a_bucket(seaweedfs: SeaweedFS, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in seaweedfs.environment.items():
        monkeypatch.setenv(key, value)
    url = f"s3://{seaweedfs.bucket}/coco {tmp_path.name}"
    bucket = connect(url, **seaweedfs.s3_options)
    bucket.replace("annotations/captions.json", json.dumps(COCO).encode())
    for seed in range(1, 3):
        bucket.replace(f"val2017/{seed}.jpg", picture(seed))
    workspace = workspace_at(f"coco:{url}/annotations/captions.json", options={"images": f"{url}/val2017"})
    workspace.__dict__["s3_options"] = seaweedfs.s3_options
    receipt = pipeline.ingest(workspace, "mine")
    assert (receipt.images, [each.file for each in receipt.rejects]) == (2, ["3.jpg"])
