"""A benchmark's items in the layouts in which benchmarks are published."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pillow

from taskgalaxy_ops.errors import SourceError
from taskgalaxy_ops.release.decontaminate.reading import Item, read_items


def png(number: int) -> bytes:
    out = io.BytesIO()
    Pillow.fromarray(np.random.default_rng(number).integers(0, 256, (12, 12, 3), np.uint8)).save(out, "PNG")
    return out.getvalue()


def parquet(file: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file


def feature(number: int) -> dict[str, Any]:
    return {"bytes": png(number), "path": f"{number}.png"}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param(
            {"question_id": "code/1.png", "image": feature(1), "question": "Is it so?", "answer": "Yes"},
            Item(item="code/1.png", pictures=(png(1),), question="Is it so?", answer="Yes"),
            id="MME",
        ),
        pytest.param(
            {"index": 7, "question": "What?", "A": "one", "B": "two", "C": None, "answer": "B", "image": feature(1)},
            Item(item="7", pictures=(png(1),), question="What?", options=("one", "two"), answer="B"),
            id="MMBench",
        ),
        pytest.param(
            {"image": feature(1), "question": "Which?", "choices": ["a", "b"], "answer": 1},
            Item(item="test-0", pictures=(png(1),), question="Which?", options=("a", "b"), answer="1"),
            id="ScienceQA",
        ),
        pytest.param(
            {"pid": "3", "image": "images/3.jpg", "decoded_image": feature(1), "question": "How many?", "answer": "4"},
            Item(item="3", pictures=(png(1),), question="How many?", answer="4"),
            id="MathVista",
        ),
        pytest.param(
            {"id": "v_1", "question": "<image 1> or <image 2>?", "options": "['x', 'y']"}
            | {"image_1": feature(1), "image_2": feature(2), "image_3": None},
            Item(item="v_1", pictures=(png(1), png(2)), question="or  ?", options=("x", "y")),
            id="MMMU",
        ),
        pytest.param(
            {"question_id": "9", "question": "Who?", "choice_a": "p", "choice_b": "q", "answer": "A"}
            | {"image": [feature(1), feature(2)]},
            Item(item="9", pictures=(png(1), png(2)), question="Who?", options=("p", "q"), answer="A"),
            id="SEED",
        ),
    ],
)  # fmt: skip
def test_the_hubs_tables_are_read(row: dict[str, Any], expected: Item, tmp_path: Path) -> None:
    assert list(read_items(str(parquet(tmp_path / "test.parquet", [row])))) == [expected]


def test_json_beside_a_folder_of_images_is_read(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(png(1))
    turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "It."}]
    rows = [
        {"id": 1, "image": "a.png", "conversations": turns},
        {"id": 1, "image": "../../etc/passwd", "question": "And this?"},
    ]  # fmt: skip
    (tmp_path / "held_out.json").write_text(json.dumps(rows))
    assert list(read_items(tmp_path.as_uri())) == [
        Item(item="1", pictures=(png(1),), question="What is it?"),
        Item(item="1 (2)", question="And this?", missing=1),
    ]
    (tmp_path / "held_out.json").write_text(json.dumps({"v1_0": {"imagename": "a.png", "question": "Where?"}}))
    assert [item.item for item in read_items(str(tmp_path))] == ["v1_0"]


def test_json_beside_parquet_adds_what_parquet_lacks(tmp_path: Path) -> None:
    parquet(tmp_path / "test.parquet", [{"id": "1", "image": feature(1), "question": "What?"}])
    notes = [{"id": "1", "image": "gone.png", "question": "What?"}, {"id": "1", "question": "Else?"}, {"id": "2"}]
    (tmp_path / "annotations.json").write_text(json.dumps([*notes, {"id": "3", "question": "What?"}]))
    assert [(each.item, each.question, each.missing) for each in read_items(str(tmp_path))] == [
        ("1", "What?", 0),
        ("1 (2)", "Else?", 0),
        ("3", "What?", 0),
    ]


def test_tsv_with_pictures_in_base64_and_images_alone_are_read(tmp_path: Path) -> None:
    text = base64.b64encode(png(3)).decode()
    (tmp_path / "dev.tsv").write_text(f"index\tquestion\timage\tA\tB\n5\tWhich?\t{text}\tp\tq\n")
    [item] = read_items(str(tmp_path / "dev.tsv"))
    assert (item.item, item.pictures, item.options) == ("5", (png(3),), ("p", "q"))
    folder = tmp_path / "pictures"
    (folder / "b").mkdir(parents=True)
    (folder / "b" / "x.png").write_bytes(png(4))
    (folder / "notes.txt").write_text("no image")
    assert list(read_items(str(folder))) == [Item(item="b/x.png", pictures=(png(4),))]


@pytest.mark.parametrize(
    ("name", "raw"), [("a.parquet", b"PAR1 no"), ("a.json", b"{"), ("a.jsonl", b"\xff\xfe"), ("a.json", b"[" * 9**6)]
)
def test_a_damaged_file_is_named(name: str, raw: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(SourceError, match=name):
        list(read_items(str(tmp_path)))


def test_a_place_without_items_is_an_error(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(SourceError, match="benchmark at"):
            list(read_items(str(place)))
