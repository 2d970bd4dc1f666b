"""Runs in a trainer's own Python: loads an exported release as that trainer does, and tells what it found.

``check_formats.py llamafactory|ms-swift|energon <release's folder> <model>``: a local model in place of a recipe's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

Found = dict[str, Any]  # texts of the turns, and images, by id or in order


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
        "output_dir": str(folder / "output"),
        "use_cpu": True,
        "report_to": "none",
    }
    models, data, training, *_ = get_train_args(told)
    return [
        {
            "turns": [turn["content"] for turn in [*row["_prompt"], *row["_response"]]],
            "images": [str(Path(image).resolve()) for image in row["_images"] or []],
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
        assert all(load_image(path).size == (40, 40) for path in paths)
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
        image: Any
        said: Any

    @stateless
    def cook(raw: dict[str, Any]) -> Asked:
        return Asked(**basic_sample_keys(raw), image=raw["jpg"], said=raw["json"])

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
    found = []
    for [each] in get_loader(dataset):
        assert list(each.image.shape) == [3, 40, 40]
        for sample in each.said["samples"]:
            turns = [turn["value"] for turn in sample["conversations"]]
            found.append({"turns": turns, "images": each.said["images"]})
    return found


if __name__ == "__main__":
    trainer, where, local = sys.argv[1:]
    check = {"llamafactory": llamafactory, "ms-swift": swift, "energon": energon}[trainer]
    print("\n" + json.dumps(check(Path(where), local)))
