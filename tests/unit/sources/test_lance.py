"""Images in Lance tables."""

from __future__ import annotations

import sys
from pathlib import Path

import lance
import pyarrow as pa
import pytest
from sourcing import picture, seen, workspace_at

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.demo.services import SeaweedFS
from taskgalaxy_ops.errors import SourceError


def rows(seeds: range) -> pa.Table:
    return pa.table({"n": list(seeds), "image": [picture(seed) for seed in seeds]})


def test_a_table_that_grows_and_loses_rows(tmp_path: Path) -> None:
    lance.write_dataset(rows(range(20)), tmp_path / "a.lance")
    location = f"lance:{tmp_path}/a.lance"
    assert seen(location).files == {f"fragment-000000/{seed:09}": picture(seed) for seed in range(20)}
    workspace = workspace_at(location)
    assert pipeline.ingest(workspace, "mine").new_images == 20
    first = seen(location).versions
    table = lance.write_dataset(rows(range(20, 25)), tmp_path / "a.lance", mode="append")
    assert first.items() <= seen(location).versions.items()
    assert pipeline.ingest(workspace, "mine").new_images == 5
    table.delete("n < 3")
    last = pipeline.ingest(workspace, "mine")
    assert (last.images, last.new_images) == (22, 0)


def test_a_row_without_an_image_is_told(tmp_path: Path) -> None:
    lance.write_dataset(pa.table({"image": [picture(1), None]}), tmp_path / "a.lance")
    found = seen(f"lance:{tmp_path}/a.lance")
    assert list(found.files.values()) == [picture(1)]
    assert found.broken == {"fragment-000000/000000001": "the row holds no image"}


def test_what_is_no_table_and_a_missing_package_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match="cannot be opened as a Lance table"):
        seen(f"lance:{tmp_path}/nowhere")
    monkeypatch.setitem(sys.modules, "lance", None)
    with pytest.raises(SourceError, match="needs the extra `lance`"):
        seen(f"lance:{tmp_path}")


def test_a_table_in_a_bucket(seaweedfs: SeaweedFS, tmp_path: Path) -> None:
    url = f"s3://{seaweedfs.bucket}/lance-{tmp_path.name}/a.lance"
    keys = {name: str(value) for name, value in seaweedfs.s3_options.items() if name != "endpoint_url"}
    there = {**keys, "aws_endpoint": seaweedfs.url, "allow_http": "true", "aws_region": "us-east-1"}
    lance.write_dataset(rows(range(3)), url, storage_options=there)
    options = {**seaweedfs.s3_options, "region_name": "us-east-1"}
    assert len(seen(f"lance:{url}", options).files) == 3
