"""Randomly damaged containers: whatever they hold, each image or reject has a name, and nothing else is raised."""

from __future__ import annotations

import io
import json
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from sourcing import picture

from taskgalaxy_ops.errors import SourceError, StoreError, UnreadableError
from taskgalaxy_ops.settings import SourceSettings
from taskgalaxy_ops.sources.listing import source_files

_IMAGES = [picture(seed) for seed in range(8)]


def tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as made:
        for number, raw in enumerate(_IMAGES):
            header = tarfile.TarInfo(f"{'long/' * 25 * (number % 2)}{number}.png")
            header.size, header.mtime = len(raw), 1.5
            made.addfile(header, io.BytesIO(raw))
    return out.getvalue()


def table() -> pa.Table:
    cells = [{"bytes": raw, "path": f"{number}.png"} for number, raw in enumerate(_IMAGES)]
    return pa.table({"id": [str(number) for number in range(8)], "image": cells})


def parquet_file() -> bytes:
    out = io.BytesIO()
    parquet.write_table(table(), out, row_group_size=3)
    return out.getvalue()


def arrow(form: Callable[..., pa.RecordBatchWriter]) -> bytes:
    out = io.BytesIO()
    with form(out, table().schema) as writer:
        writer.write_table(table(), max_chunksize=3)
    return out.getvalue()


def conversations() -> bytes:
    return json.dumps([{"image": f"{number}.png", "conversations": []} for number in range(8)]).encode()


CONTAINERS = {
    "webdataset:a.tar": tar,
    "parquet:a.parquet": parquet_file,
    "arrow:a.arrow": lambda: arrow(pa.ipc.new_stream),
    "arrow:b.arrow": lambda: arrow(pa.ipc.new_file),
    "llava:a.json": conversations,
}


def damaged(raw: bytes, luck: random.Random) -> bytes:
    """Cut, flipped, spliced or doubled in places."""
    made = bytearray(raw)
    for _ in range(luck.randint(1, 4)):
        start = luck.randrange(len(made) or 1)
        length = luck.randint(1, 64)
        match luck.randrange(5):
            case 0:
                del made[start:]
            case 1:
                made[start : start + length] = luck.randbytes(length)
            case 2:
                del made[start : start + length]
            case 3:
                made[start:start] = made[: luck.randrange(len(made) or 1)]
            case _:
                made[start : start + 1] = bytes([luck.choice((0, 1, 127, 128, 255))])
    return bytes(made)


@pytest.mark.parametrize("location", CONTAINERS)
def test_damage_is_told(location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKGALAXY_CACHE", str(tmp_path / "cache"))
    kind, _, name = location.partition(":")
    whole = CONTAINERS[location]()
    outcomes = set()
    for seed in range(120):
        luck = random.Random(f"{location} {seed}")
        (tmp_path / name).write_bytes(damaged(whole, luck))
        options = {"column": "image", "id": "id"} if kind in {"parquet", "arrow"} else {}
        read = broken = 0
        try:
            with source_files(
                "mine", SourceSettings(location=f"{kind}:{tmp_path}/{name}", options=options), {}
            ) as files:
                for file in files:
                    assert file.name
                    file.name.encode()  # tables can store it
                    try:
                        read += file.read() in _IMAGES
                    except UnreadableError:
                        broken += 1
                    except (SourceError, StoreError):
                        raise
                    except Exception:  # noqa: BLE001 - this file's reject
                        broken += 1
        except SourceError as error:
            assert "mine" in str(error), seed
            outcomes.add("no source")
        else:
            outcomes |= {told for told, count in (("read", read), ("broken", broken)) if count}
    assert outcomes >= ({"no source", "broken"} if kind == "llava" else {"read", "broken"}), outcomes
