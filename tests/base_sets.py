"""Writes small sets in the layouts in which ShareGPT-4V, ALLaVA-4V, Cambrian-1 and LLaVA-OneVision are published."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

Row = dict[str, Any]


def png(number: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (40, 40), (number * 37 % 256, number * 91 % 256, 7)).save(out, "PNG")
    return out.getvalue()


def said(question: str, answer: str = "It is.") -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def picture(folder: Path, named: str, number: int) -> str:
    file = folder / named
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(png(number))
    return named


def sharegpt4v(folder: Path, rows: int = 6) -> Path:
    """A JSON array; ids repeat, images lie below folders of their sources."""
    found = [
        {
            "id": f"{number // 2:012d}",
            "image": picture(folder, f"coco/train2017/{number:012d}.png", number),
            "conversations": said(
                f"What do you see? {number}\n<image>" if number % 2 else f"<image>\nDescribe {number}."
            ),
        }
        for number in range(rows)
    ]
    return written(folder / "sharegpt4v_instruct_gpt4-vision_cap100k.json", json.dumps(found))


def allava(folder: Path) -> list[Path]:
    """JSON arrays: with `original_caption` and `url`; and of text alone, with `idx` in place of `id`."""
    pictured = {
        "id": "allava_laion_cap_1",
        "image": picture(folder, "allava_laion/images/1.jpeg", 41),
        "conversations": said("<image>\nPlease depict the image in words."),
        "original_caption": "a ring",
        "url": "https://example.org/ring.jpg",
    }
    text = {"idx": "heR0vZB", "conversations": said("Who are you?")}
    return [
        written(folder / "allava_laion/ALLaVA-Caption-LAION-4V.json", json.dumps([pictured])),
        written(folder / "allava_text/Evol-Instruct-GPT4-Turbo-143K.json", json.dumps([text])),
    ]


def cambrian(folder: Path) -> Path:
    """JSON lines with `source`; what has no image says "None", or leaves it out; one has a system turn."""
    rows: list[Row] = [
        {
            "id": 0,
            "source": "a.json",
            "image": picture(folder, "clevr/0.png", 50),
            "conversations": said("<image>\nQ0?"),
        },
        {"id": 1, "source": "b.json", "image": "None", "conversations": said("Q1?")},
        {"id": 2, "source": "b.json", "conversations": said("Q2?")},
        {"id": 3, "source": "b.json", "conversations": [{"from": "system", "value": "Be brief."}, *said("Q3?")]},
    ]
    return lines(folder / "Cambrian7M_withsystemprompt.jsonl", rows)


def onevision(folder: Path, configurations: Sequence[str] = ("geo3k", "magpie_pro(l3_80b_mt)")) -> Path:
    """A folder a configuration: Parquet with pictures; of geo3k one has no mark, of magpie none a picture."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    turns = pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())]))
    schema = pa.schema([("id", pa.string()), ("image", image), ("conversations", turns), ("data_source", pa.string())])
    for number, name in enumerate(configurations):
        rows = [
            {
                "id": f"{name}_{row}",
                "image": None if name.startswith("magpie") else {"bytes": png(60 + row), "path": f"{row}.png"},
                "conversations": said(f"Q{row}?" if number or not row else f"<image>\nQ{row}?"),
                "data_source": name,
            }
            for row in range(4)
        ]
        file = folder / name / "train-00000-of-00001.parquet"
        file.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), file, row_group_size=2)
    return folder


def lines(file: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    return written(file, "".join(f"{json.dumps(row)}\n" for row in rows))


def written(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file
