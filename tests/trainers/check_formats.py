"""Loads an exported release as a library does, in the Python that has it, and tells what it found.

``check_formats.py READER <release's folder> <model>``: a local model in place of a recipe's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

Found = dict[str, Any]  # of a row of the training split: id or texts of the turns, and images

_MARK = "<image>\n"


def llamafactory(folder: Path, model: str) -> list[Found]:
    from llamafactory.data.loader import _get_merged_dataset
    from llamafactory.hparams import get_train_args

    told = {
        "model_name_or_path": model,
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "template": "llava",
        "dataset": "taskgalaxy",
        "dataset_dir": str(folder / "sharegpt"),
        "output_dir": str(Path(model).parent / "output"),
        "use_cpu": True,
        "report_to": "none",
    }
    models, data, training, *_ = get_train_args(told)
    return [
        {
            "turns": [turn["content"] for turn in [*row["_prompt"], *row["_response"]]],
            "images": row["_images"] or [],
        }
        for row in _get_merged_dataset(data.dataset, models, data, training, stage="sft")
    ]


def swift(folder: Path, _: str) -> list[Found]:
    from swift.dataset import load_dataset
    from swift.template.vision_utils import load_image

    os.environ["ROOT_IMAGE_DIR"] = str(folder)
    rows, _rest = load_dataset([str(folder / "swift" / "train.jsonl")], strict=True)
    found = []
    for row in rows:
        paths = [image["path"] for image in row["images"]]
        assert [load_image(path).size for path in paths] == [_size(folder / path) for path in paths]
        found.append({"turns": [turn["content"] for turn in row["messages"]], "images": paths})
    return found


def energon(folder: Path, _: str) -> list[Found]:
    from megatron.energon import (
        Cooker,
        DefaultTaskEncoder,
        Sample,
        WorkerConfig,
        basic_sample_keys,
        get_loader,
        get_val_dataset,
        stateless,
    )

    @dataclass
    class Asked(Sample):
        pictures: Any
        said: Any

    @stateless
    def cook(raw: dict[str, Any]) -> Asked:
        return Asked(**basic_sample_keys(raw), pictures=_pictures(raw), said=raw["json"])

    class Encoder(DefaultTaskEncoder):
        cookers: ClassVar = [Cooker(cook)]

        def batch(self, samples: list[Asked]) -> list[Asked]:
            return samples

    tars = folder / "webdataset"
    prepare = ["prepare", str(tars), "--non-interactive", "--no-progress", "--num-workers", "1"]
    parts = ["--split-parts", "train:train-.*", "--split-parts", "val:validation-.*", "--split-parts", "test:test-.*"]
    command = [str(Path(sys.executable).with_name("energon")), *prepare, *parts, "--sample-type", "CrudeWebdataset"]
    subprocess.run(command, check=True, stdout=sys.stderr)
    config = WorkerConfig.default_worker_config(0)
    encoder = Encoder()
    dataset = get_val_dataset(str(tars), split_part="train", worker_config=config, batch_size=1, task_encoder=encoder)
    found: list[Found] = []
    for [each] in get_loader(dataset):
        sizes = [(picture.shape[2], picture.shape[1]) for picture in each.pictures]
        assert sizes == [_size(folder / image) for image in each.said["images"]]
        found += _asked(each.said)
    return found


def webdataset(folder: Path, _: str) -> list[Found]:
    from webdataset import WebDataset

    found: list[Found] = []
    for tar in sorted((folder / "webdataset").glob("train-*.tar")):
        for each in WebDataset(str(tar), shardshuffle=False).decode("pil"):
            said = each["json"]
            assert [picture.size for picture in _pictures(each)] == [_size(folder / image) for image in said["images"]]
            found += _asked(said)
    return found


def datasets(folder: Path, model: str) -> list[Found]:
    """The flat rows; those of the other tables are read, too."""
    found = []
    for table in ("data", "prompt_completion", "verifiable", "preference"):
        for row in _table(folder, model, table):
            columns = (row.get("image"), *(row.get("further_images") or ()), *row.get("images", ()))
            pictures = [picture for picture in columns if picture]
            for picture in pictures:
                assert (folder / picture["path"]).read_bytes() == picture["bytes"]
            if table == "data":
                found.append({"id": row["id"], "images": [picture["path"] for picture in pictures]})
    return found


def mlcroissant(folder: Path, _: str) -> list[Found]:
    from mlcroissant import Dataset

    found = []
    for record in Dataset(jsonld=str(folder / "croissant.json")).records("samples"):
        row = {key.removeprefix("samples/"): value for key, value in record.items()}
        if row["split"] == b"train":
            found.append({"id": row["id"].decode()})
            assert row["image"].size[0] > 0
    return found


def trl(folder: Path, model: str) -> list[Found]:
    """The rows of ``messages``; they, preference pairs and prompts pass through TRL's own collators."""
    from datasets import load_dataset
    from transformers import AutoProcessor
    from trl.data_utils import prepare_multimodal_messages
    from trl.trainer.dpo_trainer import DataCollatorForVisionPreference
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    from taskgalaxy_ops.release.formats.verifiable import reward

    processor = AutoProcessor.from_pretrained(model)
    instruct = DataCollatorForVisionLanguageModeling(processor, max_length=None)
    prefer = DataCollatorForVisionPreference(processor, max_length=None)
    cache = str(Path(model).parent / "cache")

    def rows(table: str, collate: Callable[[list[Found]], Any]) -> Iterable[Found]:
        if (folder / table).is_dir():
            for batch in load_dataset(str(folder / table), split="train", cache_dir=cache).iter(8):
                each = [dict(zip(batch, row, strict=True)) for row in zip(*batch.values(), strict=True)]
                images = sum(len(row["images"]) for row in each)
                assert len(collate([dict(row) for row in each])["pixel_values"]) in {images, 2 * images}
                yield from each

    def prompts(each: list[Found]) -> Any:
        told = [prepare_multimodal_messages(row["prompt"], images=row["images"]) for row in each]
        columns = {name: [row[name] for row in each] for name in each[0] if name not in {"prompt", "images"}}
        assert reward([row["answer"] for row in each], **columns) == [1.0] * len(each)
        return processor.apply_chat_template(
            told, add_generation_prompt=True, tokenize=True, return_dict=True, padding=True, return_tensors="pt"
        )

    assert all(row["margin"] > 0 and row["chosen"] != row["rejected"] for row in rows("preference", prefer))
    assert all(row["check"] for row in rows("verifiable", prompts))
    found = []
    for row, stored in zip(rows("messages", instruct), _table(folder, model, "messages"), strict=True):
        texts = ["".join(part["text"] or _MARK for part in message["content"]) for message in row["messages"]]
        found.append({"id": row["id"], "turns": texts, "images": [picture["path"] for picture in stored["images"]]})
    return found


def _table(folder: Path, model: str, name: str) -> Iterable[Found]:
    """The rows of a Parquet table's training split, images as bytes; none where the release has no such table."""
    from datasets import Image as Decoded
    from datasets import List, load_dataset

    if not (folder / name).is_dir():
        return []
    rows = load_dataset(str(folder / name), split="train", cache_dir=str(Path(model).parent / "cache"))
    raw = {"image": Decoded(decode=False)}
    raw |= {several: List(Decoded(decode=False)) for several in ("images", "further_images")}
    for column in raw.keys() & rows.column_names:
        rows = rows.cast_column(column, raw[column])
    return rows


def _pictures(raw: Mapping[str, Any]) -> list[Any]:
    """A tar's images of a row, in their order."""
    return [raw[key] for key in sorted(raw) if key.rpartition(".")[2] in {"jpg", "png"}]


def _asked(said: Mapping[str, Any]) -> list[Found]:
    return [
        {"id": each["id"], "turns": [turn["value"] for turn in each["conversations"]], "images": said["images"]}
        for each in said["samples"]
    ]


def _size(file: Path) -> tuple[int, int]:
    with Image.open(file) as image:
        return image.size


# By reader: its package, and how it reads.
READERS: dict[str, tuple[str, Callable[[Path, str], list[Found]]]] = {
    "llamafactory": ("llamafactory", llamafactory),
    "ms-swift": ("ms-swift", swift),
    "energon": ("megatron-energon", energon),
    "trl": ("trl", trl),
    "datasets": ("datasets", datasets),
    "webdataset": ("webdataset", webdataset),
    "mlcroissant": ("mlcroissant", mlcroissant),
}


def check(reader: str, folder: Path, model: str) -> dict[str, Any]:
    """What a reader finds: its version, and the rows."""
    package, read = READERS[reader]
    return {"version": version(package), "rows": read(folder, model)}


if __name__ == "__main__":
    chosen, where, local = sys.argv[1:]
    print("\n" + json.dumps(check(chosen, Path(where), local)))
