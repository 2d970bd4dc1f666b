"""Images in columns of tables: Parquet, Arrow, data sets that ``datasets`` saved, the hub; whole and broken."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict, Features, Image, Sequence, Value
from pyarrow import parquet
from sourcing import files_of, picture, seen, workspace_at

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.demo.services import SeaweedFS
from taskgalaxy_ops.errors import SourceError, StoreError, UnreadableError
from taskgalaxy_ops.records import Reason
from taskgalaxy_ops.sources.kinds import tables
from taskgalaxy_ops.storage import connect


@pytest.fixture(autouse=True)
def _quiet() -> None:
    datasets.disable_progress_bars()


def hf(seeds: range, **columns: tuple[list[Any], Value]) -> Dataset:
    """A data set as ``datasets`` makes it."""
    features = Features({"image": Image(), **{name: feature for name, (_, feature) in columns.items()}})
    values = {name: values for name, (values, _) in columns.items()}
    return Dataset.from_dict({"image": [{"bytes": picture(seed), "path": None} for seed in seeds], **values}, features)


def written(path: Path, columns: dict[str, Any], **options: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(columns), path, **options)
    return f"parquet:{path}"


def pictures(seeds: range) -> list[bytes]:
    return [picture(seed) for seed in seeds]


# Parquet


def test_parquet_that_datasets_wrote(tmp_path: Path) -> None:
    hf(range(25)).to_parquet(tmp_path / "train.parquet", batch_size=10)
    found = seen(f"parquet:{tmp_path}")
    assert found.files == {f"train.parquet/{seed:09}": picture(seed) for seed in range(25)}
    assert (found.left_out, found.broken) == ({}, {})


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_a_binary_column_is_found_by_what_it_holds(tmp_path: Path, kind: pa.DataType) -> None:
    columns = {"n": [1, 2, 3], "thumb": pa.array([b"x"] * 3, pa.binary()), "photo": pa.array(pictures(range(3)), kind)}
    location = written(tmp_path / "a.parquet", columns, row_group_size=2)
    assert list(seen(location).files.values()) == pictures(range(3))


def test_which_column_is_settled_or_told(tmp_path: Path) -> None:
    columns = {"left": pictures(range(2)), "right": pictures(range(2, 4)), "text": ["a", "b"]}
    location = written(tmp_path / "a.parquet", columns)
    with pytest.raises(SourceError, match="its columns 'left', 'right' hold images: name one by the option `column`"):
        seen(location)
    assert list(seen(location, options={"column": "right"}).files.values()) == pictures(range(2, 4))
    with pytest.raises(SourceError, match="no column 'centre', but 'left', 'right', 'text'"):
        seen(location, options={"column": "centre"})
    with pytest.raises(SourceError, match="column 'text' is string, not binary"):
        seen(location, options={"column": "text"})
    with pytest.raises(SourceError, match=r"(?s)'colour' is no option of the kind 'parquet'.*column: the column of"):
        seen(location, options={"colour": "right"})
    with pytest.raises(SourceError, match=r"none of its columns \('text'\) holds images"):
        seen(written(tmp_path / "b.parquet", {"text": ["a"]}))


def test_several_images_a_row_and_rows_without_one(tmp_path: Path) -> None:
    rows: list[Any] = [[1, 2], [], None, [3]]
    cells = [row and [{"bytes": picture(seed), "path": f"/etc/{seed}"} for seed in row] for row in rows]
    Dataset.from_dict({"images": cells}, Features({"images": Sequence(Image())})).to_parquet(tmp_path / "a.parquet")
    found = seen(f"parquet:{tmp_path}")
    names = ["a.parquet/000000000/0", "a.parquet/000000000/1", "a.parquet/000000003/0"]
    assert found.files == dict(zip(names, pictures(range(1, 4)), strict=True))
    assert found.left_out == {"row without an image": 2}
    plain = pa.array([row and [picture(seed) for seed in row] for row in rows], pa.list_(pa.binary()))
    assert list(seen(written(tmp_path / "b.parquet", {"im": plain})).files.values()) == pictures(range(1, 4))


def test_a_path_in_a_row_is_never_opened(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(picture(9))
    cells = [{"bytes": picture(1), "path": "x"}, {"bytes": None, "path": str(tmp_path / "secret.png")}]
    found = seen(written(tmp_path / "a.parquet", {"image": cells}))
    assert found.files == {"a.parquet/000000000": picture(1)}
    assert "names a file instead of holding its bytes" in found.broken["a.parquet/000000001"]


def test_names_and_licences_by_columns(tmp_path: Path) -> None:
    columns = {
        "image": pictures(range(4)),
        "key": ["b/2.txt", "../a", "", None],
        "license": ["CC0-1.0", None, "CC-BY-4.0", "x"],
        "url": ["https://example.org/b", "u", "u", "u"],
    }
    location = written(tmp_path / "a.parquet", columns)
    options = {"id": "key", "licence": "license", "origin": "url", "column": "image"}
    workspace = workspace_at(location, options=options)
    receipt = pipeline.ingest(workspace, "mine")
    claims = {claim.file: (claim.origin, claim.licence) for claim in workspace.registry.claims()}
    assert claims == {"b/2.txt": ("https://example.org/b", "CC0-1.0"), "../a": ("u", None)}
    assert {(each.file, each.reason) for each in receipt.rejects} == {
        ("a.parquet/000000002", Reason.UNREADABLE),
        ("a.parquet/000000003", Reason.UNREADABLE),
    }
    assert receipt.unusual == {}  # that a name has no suffix is nothing unusual
    with pytest.raises(SourceError, match="no column 'nowhere', which the options name"):
        seen(location, options={"id": "nowhere"})


def test_ids_out_of_order_are_read_in_order_of_rows(tmp_path: Path) -> None:
    columns = {"image": pictures(range(100)), "id": list(range(100, 0, -1))}
    found = seen(written(tmp_path / "a.parquet", columns, row_group_size=30), options={"id": "id"})
    assert found.order == [str(each) for each in range(100, 0, -1)]
    assert list(found.files.values()) == pictures(range(100))


def test_a_licence_that_changes_is_taken_and_nothing_is_decoded_again(tmp_path: Path) -> None:
    columns = {"image": pictures(range(3)), "id": ["a", "b", "c"], "by": ["x", "y", "z"]}
    location = written(tmp_path / "a.parquet", columns)
    options = {"id": "id", "attribution": "by"}
    workspace = workspace_at(location, options=options)
    pipeline.ingest(workspace, "mine")
    written(tmp_path / "a.parquet", {**columns, "by": ["x", "w", "z"]})
    os.utime(tmp_path / "a.parquet", ns=(1, 1))
    assert pipeline.ingest(workspace, "mine").new_images == 0
    assert sorted(str(claim.attribution) for claim in workspace.registry.claims()) == ["w", "x", "z"]


def test_a_part_that_is_added_is_read_and_the_others_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "t" / "p-0.parquet", {"image": pictures(range(3))})
    workspace = workspace_at(f"parquet:{tmp_path}/t")
    assert pipeline.ingest(workspace, "mine").new_images == 3
    read: list[tuple[str, int]] = []
    inner = tables._Window.value

    def noted(self: tables._Window, group: int, row: int) -> Any:
        read.append((self.name, row))
        return inner(self, group, row)

    monkeypatch.setattr(tables._Window, "value", noted)
    assert pipeline.ingest(workspace, "mine").new_images == 0
    assert read == []
    written(tmp_path / "t" / "p-1.parquet", {"image": pictures(range(3, 5))})
    assert pipeline.ingest(workspace, "mine").new_images == 2
    assert read == [("p-1.parquet", 0), ("p-1.parquet", 1)]
    (tmp_path / "t" / "p-0.parquet").unlink()
    assert pipeline.ingest(workspace, "mine").images == 2
    assert sorted(files_of(workspace)) == ["p-1.parquet/000000000", "p-1.parquet/000000001"]


def test_of_broken_parquet_the_others_are_read(tmp_path: Path) -> None:
    written(tmp_path / "good.parquet", {"image": pictures(range(2))})
    raw = (tmp_path / "good.parquet").read_bytes()
    for name, broken in (
        ("cut", raw[:-9]),
        ("empty", b""),
        ("text", b"some text"),
        ("magic", b"PAR1" + bytes(8) + b"PAR1"),
    ):
        (tmp_path / f"{name}.parquet").write_bytes(broken)
    found = seen(f"parquet:{tmp_path}")
    assert list(found.files.values()) == pictures(range(2))
    assert sorted(found.broken) == ["cut.parquet", "empty.parquet", "magic.parquet", "text.parquet"]
    with pytest.raises(SourceError, match="holds no table of images that can be read"):
        seen(f"parquet:{tmp_path}/cut.parquet")


def test_damage_inside_a_parquet_file_rejects_its_rows_alone(tmp_path: Path) -> None:
    written(
        tmp_path / "a.parquet",
        {"image": pictures(range(6))},
        row_group_size=2,
        use_dictionary=False,
    )
    raw = bytearray((tmp_path / "a.parquet").read_bytes())
    raw[4:20] = b"\xff" * 16  # the first page's header
    (tmp_path / "a.parquet").write_bytes(raw)
    workspace = workspace_at(f"parquet:{tmp_path}/a.parquet", options={"column": "image"})
    receipt = pipeline.ingest(workspace, "mine")
    assert receipt.files == 6
    assert [each.file for each in receipt.rejects] == ["a.parquet/000000000", "a.parquet/000000001"]
    assert all(each.detail.startswith("the row group is damaged") for each in receipt.rejects)


def test_a_file_that_states_more_rows_than_it_can_hold_is_a_reject(tmp_path: Path) -> None:
    written(tmp_path / "a.parquet", {"n": pa.nulls(1_000_000), "image": pa.nulls(1_000_000, pa.binary())})
    with pytest.raises(SourceError, match="it states 1,000,000 rows in"):
        seen(f"parquet:{tmp_path}/a.parquet", options={"column": "image"})


def test_a_bucket_that_goes_away_ends_the_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from taskgalaxy_ops.sources.kinds import containers

    written(tmp_path / "a.parquet", {"image": pictures(range(4))})
    source = tables.ParquetSource(_place(f"parquet:{tmp_path}/a.parquet"))
    files = list(source.list())

    def away(*_: object) -> bytes:
        raise StoreError("the bucket does not reply")

    monkeypatch.setattr(containers.Container, "part", away)
    monkeypatch.setattr(tables, "_opened", lambda container, mapped: pa.PythonFile(containers._Ranged(container), "r"))
    with pytest.raises(StoreError, match="the bucket does not reply"):
        source.open(files[0].place)  # type: ignore[union-attr]


def test_a_table_that_changes_after_it_was_listed_is_told(tmp_path: Path) -> None:
    from taskgalaxy_ops.settings import SourceSettings
    from taskgalaxy_ops.sources.listing import source_files

    location = written(tmp_path / "a.parquet", {"image": pictures(range(4))}, row_group_size=1)
    with source_files("mine", SourceSettings(location=location), {}) as files:
        written(tmp_path / "a.parquet", {"image": pictures(range(2))}, row_group_size=1)
        with pytest.raises(UnreadableError, match="changed since"):
            [file.read() for file in files]


def test_memory_does_not_grow_with_a_row_group(tmp_path: Path) -> None:
    noise = [picture(1) + os.urandom(1 << 20) for _ in range(64)]
    location = written(tmp_path / "a.parquet", {"image": noise}, write_batch_size=4)  # one row group of 64 MB
    before = pa.total_allocated_bytes()
    most = 0
    source = tables.ParquetSource(_place(location))
    for each in list(source.list()):
        assert source.open(each.place)[-9:] == noise.pop(0)[-9:]  # type: ignore[union-attr]
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 48 << 20, f"{most:,} bytes"


def _place(location: str) -> Any:
    from taskgalaxy_ops.sources.kinds import Place

    return Place(source="mine", location=location, rest=location.partition(":")[2], limit=None, s3_options={})


# Arrow, and what ``save_to_disk`` writes


def test_a_data_set_that_was_saved_to_disk(tmp_path: Path) -> None:
    hf(range(30)).save_to_disk(tmp_path / "set", num_shards=3)
    (tmp_path / "set" / "cache-1.arrow").write_bytes(b"what map() leaves")
    found = seen(f"hf:{tmp_path}/set")
    assert list(found.files.values()) == pictures(range(30))
    assert next(iter(found.files)) == "data-00000-of-00003.arrow/000000000"
    assert (found.broken, found.left_out) == ({}, {})


def test_a_data_set_with_splits(tmp_path: Path) -> None:
    DatasetDict({"train": hf(range(4)), "test": hf(range(4, 6))}).save_to_disk(tmp_path / "set")
    found = seen(f"hf:{tmp_path}/set")
    assert sorted(name.split("/")[0] for name in found.files) == ["test"] * 2 + ["train"] * 4
    assert list(seen(f"hf:{tmp_path}/set/test").files.values()) == pictures(range(4, 6))


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (None, "holds no data set that `save_to_disk` wrote"),
        ("{", "state.json cannot be read"),
        ("[]", "it is no object"),
        ('{"_data_files": [{"filename": "../x.arrow"}]}', "names '../x.arrow', which is no file beside it"),
        ('{"_data_files": [{"filename": "gone.arrow"}]}', "holds no table of images"),
    ],
)
def test_what_was_not_saved_whole_is_told(tmp_path: Path, state: str | None, told: str) -> None:
    if state is not None:
        (tmp_path / "state.json").write_text(state)
    with pytest.raises(SourceError, match=told):
        seen(f"hf:{tmp_path}")


def test_an_arrow_stream_that_is_cut_gives_its_whole_batches(tmp_path: Path) -> None:
    schema = pa.schema({"image": pa.binary()})
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as out, pa.ipc.new_stream(out, schema) as writer:
        for start in range(0, 30, 10):
            writer.write_batch(pa.record_batch([pictures(range(start, start + 10))], schema=schema))
    raw = (tmp_path / "a.arrow").read_bytes()
    (tmp_path / "a.arrow").write_bytes(raw[: len(raw) * 5 // 6])
    found = seen(f"arrow:{tmp_path}/a.arrow")
    assert list(found.files.values()) == pictures(range(20))
    assert found.broken["a.arrow"].startswith("it is cut off or damaged")
    assert found.broken["a.arrow"].endswith("20 rows before it were taken")


def test_an_arrow_file(tmp_path: Path) -> None:
    schema = pa.schema({"image": pa.binary()})
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as out, pa.ipc.new_file(out, schema) as writer:
        writer.write_batch(pa.record_batch([[*pictures(range(3)), None]], schema=schema))
    found = seen(f"arrow:{tmp_path}")
    assert list(found.files.values()) == pictures(range(3))
    assert found.left_out == {"row without an image": 1}


# In a bucket, and on the hub


def test_tables_in_a_bucket_through_ingest(
    seaweedfs: SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in seaweedfs.environment.items():
        monkeypatch.setenv(key, value)
    url = f"s3://{seaweedfs.bucket}/tables {tmp_path.name}"
    bucket = connect(url, **seaweedfs.s3_options)
    hf(range(30)).save_to_disk(tmp_path / "set", num_shards=2)
    for file in (tmp_path / "set").iterdir():
        bucket.replace(f"set/{file.name}", file.read_bytes())
    written(tmp_path / "p.parquet", {"image": pictures(range(20, 45))}, row_group_size=7)
    bucket.replace("parts/p-0.parquet", (tmp_path / "p.parquet").read_bytes())
    for location, count in ((f"hf:{url}/set", 30), (f"parquet:{url}/parts/p-{{0..0}}.parquet", 25)):
        workspace = workspace_at(location)
        workspace.__dict__["s3_options"] = seaweedfs.s3_options
        receipt = pipeline.ingest(workspace, "mine")
        assert (receipt.images, receipt.rejects) == (count, [])
        assert pipeline.ingest(workspace, "mine").new_images == 0


def test_a_data_set_of_the_hub_lies_in_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    snapshot = tmp_path / "datasets--who--what" / "snapshots" / "abc"
    (tmp_path / "datasets--who--what" / "blobs").mkdir(parents=True)
    asked: list[Any] = []
    for name, seeds in (("data/train-0.parquet", range(2)), ("data/test-0.parquet", range(2, 3))):
        blob = tmp_path / "datasets--who--what" / "blobs" / f"{len(seeds):064}"
        written(blob, {"image": pictures(seeds)})
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(os.path.relpath(blob, (snapshot / name).parent))

    def fetched(repo: str, **options: Any) -> str:
        asked.append((repo, options))
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetched)
    found = seen("hf:who/what", options={"files": "data/train-*", "revision": "abc"})
    assert list(found.files.values()) == pictures(range(2))
    assert set(found.versions.values()) == {f"{2:064}"}  # by content, whenever it was fetched
    assert asked == [("who/what", {"repo_type": "dataset", "revision": "abc", "allow_patterns": ["data/train-*"]})]
    assert len(seen("hf:who/what").files) == 3
    with pytest.raises(SourceError, match="no Parquet file that fits 'x"):
        seen("hf:who/what", options={"files": "x*"})
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(SourceError, match="needs the extra `hub`: pip install"):
        seen("hf:who/what")


def test_options_of_the_hub_are_for_the_hub(tmp_path: Path) -> None:
    hf(range(1)).save_to_disk(tmp_path / "set")
    with pytest.raises(SourceError, match="is no id of the hub: remove revision"):
        seen(f"hf:{tmp_path}/set", options={"revision": "main"})
    assert json.loads((tmp_path / "set" / "state.json").read_text())["_data_files"]
