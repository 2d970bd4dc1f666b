"""Formats of installed packages: in folders of their own, and never left with what was taken down."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taskgalaxy_ops.errors import NotFoundError, SettingsError
from taskgalaxy_ops.release.build import _files
from taskgalaxy_ops.release.formats import FORMATS, Gone, ReleaseFormat, format_of
from taskgalaxy_ops.release.redact import withdraw

IMAGE, OTHER = "1" * 64, "2" * 64
TABLE = "data/train-00000-of-00001.parquet"


def files() -> dict[str, bytes]:
    """A release of two samples, with a file of a format that nobody here knows."""
    out = io.BytesIO()
    pq.write_table(pa.table({"id": ["a" * 64, "b" * 64], "image_id": [IMAGE, OTHER]}), out)
    made = {TABLE: out.getvalue(), "xml/train.xml": b"<samples/>"}
    manifest = {"files": {path: {"size": len(raw), "sha256": ""} for path, raw in made.items()}}
    return {**made, "manifest.json": json.dumps(manifest).encode()}


def withdrawn(made: Mapping[str, bytes]) -> Iterator[tuple[str, bytes | None]]:
    def read(path: str) -> bytes:
        if path not in made:
            raise NotFoundError(path)
        return made[path]

    return withdraw(made["manifest.json"], read, {IMAGE})


def test_nothing_is_withdrawn_while_a_file_is_there_that_nothing_can_be_taken_out_of() -> None:
    made = files()
    with pytest.raises(
        SettingsError, match=r"xml/train\.xml here: release format 'xml' is unknown(.|\n)*or delete the"
    ):
        next(withdrawn(made))
    del made["xml/train.xml"]
    steps = dict(withdrawn(made))
    assert list(steps) == ["withdrawn.json", TABLE, "xml/train.xml", "manifest.json"]
    assert steps["xml/train.xml"] is None
    assert pq.read_table(io.BytesIO(steps[TABLE] or b""))["image_id"].to_pylist() == [OTHER]


def test_what_is_of_no_format_needs_none() -> None:
    for path in ("README.md", "manifest.json", f"images/11/{IMAGE}.png", "samples/x.jpg"):
        assert format_of(path) is None
    assert format_of(TABLE) is FORMATS.get("parquet")
    assert format_of("llava/train.json") is FORMATS.get("llava")


def _format(path: str) -> ReleaseFormat:
    return ReleaseFormat(files=lambda _: [(path, b"")], redact=lambda *_: None, count=lambda _: 1, version="1")


@pytest.mark.parametrize("path", ["train.csv", "data/x.csv", "other/x.csv", "images/x.csv", "csv.txt"])
def test_a_format_writes_into_its_own_folder_alone(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    plan: Any = None
    monkeypatch.setitem(FORMATS._loaded, "csv", _format(path))
    with pytest.raises(SettingsError, match="lies in no folder of its own name"):
        list(_files(plan, "csv"))
    monkeypatch.setitem(FORMATS._loaded, "csv", _format("csv/x.csv"))
    assert list(_files(plan, "csv")) == [("csv/x.csv", b"")]


@pytest.mark.parametrize("name", ["images", "samples", "data"])
def test_no_format_takes_a_folder_that_is_anothers(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    plan: Any = None
    monkeypatch.setitem(FORMATS._loaded, name, replace(_format(f"{name}/x"), about="a thief"))
    with pytest.raises(SettingsError, match="lies in no folder of its own name"):
        list(_files(plan, name))


def test_gone_is_a_sample_by_its_id_or_by_its_image_wherever_that_lies() -> None:
    gone = Gone(frozenset({IMAGE}), frozenset({"s"}))
    assert gone.holds("s", f"images/22/{OTHER}.jpg")
    assert gone.holds("t", f"images/11/{IMAGE}.jpg") and gone.holds("t", f"s3://bucket/blobs/{IMAGE}")
    assert not gone.holds("t", f"images/22/{OTHER}.jpg")
