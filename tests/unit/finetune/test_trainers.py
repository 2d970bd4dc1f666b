"""What each trainer is told: its makers' own flags, the published hyper-parameters, and every example."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from trainers.mixtures import forms_part, release_part, unread_part

from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.finetune.jobs import BLANK, Rendered
from taskgalaxy_ops.finetune.mixture import Part
from taskgalaxy_ops.finetune.recipes import BaseData, Lora, Recipe, load_recipe, shipped
from taskgalaxy_ops.finetune.trainers import TRAINERS

# Liu et al., 2023 (scripts/v1_5/finetune.sh, finetune_lora.sh); InternVL-Chat as in the paper of TaskGalaxy: global
# batch, learning rate, weight decay, warm-up, epochs, LoRA's r and alpha.
LLAVA = (128, 2e-5, 0.0, 0.03, 1.0, None)
LLAVA_LORA = (128, 2e-4, 0.0, 0.03, 1.0, (128, 256))
PUBLISHED: dict[str, tuple[int, float, float, float, float, tuple[int, int] | None]] = {
    "llava-v1.5-7b": LLAVA,
    "llava-v1.5-13b": LLAVA,
    "llava-v1.5-7b-lora": LLAVA_LORA,
    "llava-v1.5-13b-lora": LLAVA_LORA,
    "internvl-chat-v1.0-7b": (512, 1e-5, 0.05, 0.03, 1.0, None),
    "internvl-chat-v2.0-8b": (128, 4e-5, 0.05, 0.03, 1.0, None),
}
PAIRS = [(name, trainer) for name in PUBLISHED for trainer in load_recipe(name).trainers]


@dataclass
class HuggingFaceArguments:
    """Of transformers.TrainingArguments as LLaVA (4.31) and InternVL (4.37) pin it, what a recipe may use."""

    output_dir: str
    overwrite_output_dir: bool = False
    do_train: bool = False
    evaluation_strategy: str = "no"
    save_strategy: str = "steps"
    save_steps: int = 500
    save_total_limit: int | None = None
    num_train_epochs: float = 3.0
    per_device_train_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    learning_rate: float = 5e-5
    weight_decay: float = 0.0
    warmup_ratio: float = 0.0
    lr_scheduler_type: str = "linear"
    logging_steps: int = 500
    dataloader_num_workers: int = 0
    gradient_checkpointing: bool = False
    group_by_length: bool = False
    bf16: bool = False
    tf32: bool | None = None
    deepspeed: str | None = None
    report_to: str = "all"
    seed: int = 42


@dataclass
class LlavaArguments(HuggingFaceArguments):
    """The fields of ModelArguments, DataArguments and TrainingArguments in llava/train/train.py."""

    model_name_or_path: str | None = "facebook/opt-125m"
    version: str | None = "v0"
    freeze_backbone: bool = False
    tune_mm_mlp_adapter: bool = False
    vision_tower: str | None = None
    mm_vision_select_layer: int | None = -1
    pretrain_mm_mlp_adapter: str | None = None
    mm_projector_type: str | None = "linear"
    mm_use_im_start_end: bool = False
    mm_use_im_patch_token: bool = True
    mm_vision_select_feature: str | None = "patch"
    data_path: str | None = None
    lazy_preprocess: bool = False
    is_multimodal: bool = False
    image_folder: str | None = None
    image_aspect_ratio: str = "square"
    image_grid_pinpoints: str | None = None
    cache_dir: str | None = None
    optim: str = "adamw_torch"
    remove_unused_columns: bool = False
    freeze_mm_mlp_adapter: bool = False
    mpt_attn_impl: str | None = "triton"
    model_max_length: int = 512
    double_quant: bool = True
    quant_type: str = "nf4"
    bits: int = 16
    lora_enable: bool = False
    lora_r: int = 64
    lora_alpha: int = 16
    lora_dropout: float = 0.05
    lora_weight_path: str = ""
    lora_bias: str = "none"
    mm_projector_lr: float | None = None
    group_by_modality_length: bool = False


@dataclass
class InternvlArguments(HuggingFaceArguments):
    """The fields of ModelArguments and DataTrainingArguments in internvl/train/internvl_chat_finetune.py."""

    model_name_or_path: str | None = None
    vision_path: str | None = None
    llm_path: str | None = None
    mlp_path: str | None = None
    freeze_llm: bool = False
    freeze_backbone: bool = False
    freeze_mlp: bool = False
    unfreeze_vit_layers: int = 0
    vision_select_layer: int = -1
    use_backbone_lora: int = 0
    use_llm_lora: int = 0
    unfreeze_lm_head: bool = False
    grad_checkpoint: bool = True
    drop_path_rate: float = 0.0
    ps_version: str = "v2"
    use_fast_tokenizer: bool = False
    max_seq_length: int = 8192
    force_image_size: int = 448
    down_sample_ratio: float = 0.5
    pad2square: bool = False
    conv_style: str = "internlm2-chat"
    meta_path: str | None = None
    use_data_resampling: bool = False
    dynamic_image_size: bool = False
    use_thumbnail: bool = False
    min_dynamic_patch: int | None = 1
    max_dynamic_patch: int | None = 12
    normalize_type: str = "imagenet"
    use_packed_ds: bool = False


def render(recipe: Recipe | str, trainer: str, parts: list[Part], folder: Path, blind: bool = False) -> Rendered:
    found = load_recipe(recipe) if isinstance(recipe, str) else recipe
    return TRAINERS.get(trainer).render(found, parts, folder, blind=blind)


def parsed(rendered: Rendered, kind: type[Any]) -> Any:
    """The command's flags as the trainer's own parser takes them: a name that it does not know is an error."""
    from transformers import HfArgumentParser

    script = next(place for place, text in enumerate(rendered.command) if text.endswith(".py"))
    (found,) = HfArgumentParser(kind).parse_args_into_dataclasses(args=list(rendered.command[script + 1 :]))
    return found


def told(recipe: str, trainer: str, folder: Path) -> dict[str, Any]:
    """What a trainer is told, by one set of names."""
    rendered = render(recipe, trainer, [release_part(folder / "images")], folder)
    devices = load_recipe(recipe).devices
    if trainer == "llamafactory":
        flags = yaml.safe_load(rendered.files["train.yaml"])
        assert rendered.environment["NPROC_PER_NODE"] == str(devices)
        lora = (flags["lora_rank"], flags["lora_alpha"]) if flags["finetuning_type"] == "lora" else None
        return {**flags, "lora": lora, "max_length": flags["cutoff_len"], "model": flags["model_name_or_path"]}
    if trainer == "ms-swift":
        flags = {name: values[0] for name, values in swift_flags(rendered).items()}
        assert rendered.environment["NPROC_PER_NODE"] == str(devices)
        lora = (int(flags["lora_rank"]), int(flags["lora_alpha"])) if flags["tuner_type"] == "lora" else None
        return {**flags, "lora": lora}
    found = parsed(rendered, LlavaArguments if trainer == "llava" else InternvlArguments)
    lora, length = None, getattr(found, "max_seq_length", None)
    if trainer == "llava":
        assert f"--num_gpus={devices}" in rendered.command
        lora, length = ((found.lora_r, found.lora_alpha) if found.lora_enable else None), found.model_max_length
    else:
        assert f"--nproc_per_node={devices}" in rendered.command
    return {**vars(found), "lora": lora, "max_length": length, "model": found.model_name_or_path}


def swift_flags(rendered: Rendered) -> dict[str, list[str]]:
    flags: dict[str, list[str]] = {}
    arguments = rendered.command[rendered.command.index("sft") + 1 :]
    for text in arguments:
        if text.startswith("--"):
            name = text.removeprefix("--")
            assert name not in flags, f"{name} is told twice"
            flags[name] = []
        else:
            flags[name].append(text)
    return flags


def test_every_recipe_that_an_upstream_trainer_takes_is_checked() -> None:
    assert set(shipped()) - {"tiny"} == set(PUBLISHED)


@pytest.mark.parametrize(("recipe", "trainer"), PAIRS)
def test_a_trainer_is_told_what_was_published(recipe: str, trainer: str, tmp_path: Path) -> None:
    batch, rate, decay, warm_up, epochs, lora = PUBLISHED[recipe]
    found = told(recipe, trainer, tmp_path)
    loaded = load_recipe(recipe)
    steps = int(found["per_device_train_batch_size"]) * int(found["gradient_accumulation_steps"])
    assert steps * loaded.devices == batch
    assert float(found["learning_rate"]) == rate
    assert float(found["weight_decay"]) == decay
    assert float(found["warmup_ratio"]) == warm_up
    assert float(found["num_train_epochs"]) == epochs
    assert found["lr_scheduler_type"] == "cosine"
    assert str(found["bf16"]) == "True"
    assert found["lora"] == lora
    assert int(found["max_length"]) == (4096 if recipe == "internvl-chat-v2.0-8b" else 2048)
    zero = json.loads(render(recipe, trainer, [release_part(tmp_path)], tmp_path).files["zero.json"])
    assert zero["zero_optimization"]["stage"] == (1 if recipe == "internvl-chat-v2.0-8b" else 3)
    assert Path(found["deepspeed"]).name == "zero.json"


@pytest.mark.parametrize("recipe", [name for name, trainer in PAIRS if trainer == "llava"])
def test_llava_puts_the_model_together_as_published(recipe: str, tmp_path: Path) -> None:
    found = told(recipe, "llava", tmp_path)
    internvl = recipe.startswith("internvl")
    tower = "./pretrained/InternViT-6B-448px" if internvl else "openai/clip-vit-large-patch14-336"
    assert found["vision_tower"] == tower
    assert found["mm_vision_select_layer"] == (-4 if internvl else -2)
    assert found["mm_projector_type"] == "mlp2x_gelu"
    assert (found["version"], found["image_aspect_ratio"]) == ("v1", "pad")
    assert (found["mm_use_im_start_end"], found["mm_use_im_patch_token"]) == (False, False)
    assert found["mm_projector_lr"] == (2e-5 if recipe.endswith("-lora") else None)
    assert "vicuna" in found["model"]


def test_internvl_is_told_what_its_script_says(tmp_path: Path) -> None:
    found = told("internvl-chat-v2.0-8b", "internvl", tmp_path)
    expected = {
        **{"conv_style": "internlm2-chat", "force_image_size": 448, "max_dynamic_patch": 6, "down_sample_ratio": 0.5},
        **{"drop_path_rate": 0.1, "freeze_llm": False, "freeze_mlp": False, "freeze_backbone": True},
        **{"vision_select_layer": -1, "use_thumbnail": True, "dynamic_image_size": True, "ps_version": "v2"},
        **{"grad_checkpoint": True, "group_by_length": True, "do_train": True, "pad2square": False, "use_llm_lora": 0},
    }
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("recipe", ["llava-v1.5-7b", "llava-v1.5-7b-lora"])
def test_the_projector_learns_and_the_vision_tower_does_not(recipe: str, tmp_path: Path) -> None:
    lora = recipe.endswith("lora")
    factory = told(recipe, "llamafactory", tmp_path)
    assert (factory["freeze_vision_tower"], factory["freeze_multi_modal_projector"]) == (True, False)
    assert factory.get("additional_target") == ("multi_modal_projector" if lora else None)
    swift = told(recipe, "ms-swift", tmp_path)
    assert (swift["freeze_vit"], swift["freeze_llm"]) == ("True", "False")
    assert swift["freeze_aligner"] == str(lora)  # no adapter in it: it is among what is trained whole
    assert swift.get("modules_to_save") == ("multi_modal_projector" if lora else None)
    assert swift.get("aligner_lr") == ("2e-05" if lora else None)


def seen_by_internvl(rendered: Rendered, folder: Path) -> list[dict[str, Any]]:
    """The rows of an epoch, as LazySupervisedDataset takes them from the meta file."""
    found = []
    for entry in json.loads(rendered.files["data/meta.json"]).values():
        assert entry["annotation"].endswith("jsonl")
        path = Path(entry["annotation"])
        text = rendered.files.get(str(path.relative_to(folder))) if path.is_relative_to(folder) else None
        lines = (text if text is not None else path.read_bytes()).decode().split("\n")[:-1]
        assert entry["length"] == len(lines)
        times = entry["repeat_time"]
        if times < 1:
            lines = lines[: int(len(lines) * times)]
        if times > 1:
            assert isinstance(times, int)
            lines = lines * times
        for line in lines:
            row = json.loads(line)
            if "image" in row:
                row["image"] = os.path.join(entry["root"], row["image"])  # noqa: PTH118 - as the trainer does
            found.append(row)
    return found


@pytest.mark.parametrize(("repeat", "rows"), [(1.0, 4), (2.0, 8), (1.5, 6), (0.5, 2)])
def test_internvl_sees_the_release_as_often_as_asked(repeat: float, rows: int, tmp_path: Path) -> None:
    part = release_part(tmp_path / "images", repeat)
    seen = seen_by_internvl(render("internvl-chat-v2.0-8b", "internvl", [part], tmp_path / "job"), tmp_path / "job")
    assert len(seen) == rows
    assert [row["id"] for row in seen] == [f"sample-{number % 4}" for number in range(rows)]
    assert all(Path(row["image"]).is_file() for row in seen if row["id"] != "sample-3")


def test_internvl_reads_base_data_where_they_lie(tmp_path: Path) -> None:
    part = unread_part(tmp_path, 2.0, suffix="jsonl")
    rendered = render("internvl-chat-v2.0-8b", "internvl", [part], tmp_path / "job")
    seen = seen_by_internvl(rendered, tmp_path / "job")
    assert [row["id"] for row in seen] == ["own-0", "own-1", "own-2"] * 2
    assert all(Path(row["image"]).is_file() for row in seen if "image" in row)
    assert not any(name.startswith("data/own") for name in rendered.files)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"repeat": 1.5}, "repeats by whole numbers, not 1.5"),
        ({"annotations": "/data/own.json"}, "reads jsonl, not /data/own.json"),
    ],
)
def test_internvl_says_what_base_data_it_cannot_take(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    part = replace(unread_part(tmp_path, suffix="jsonl"), **change)
    with pytest.raises(SettingsError, match=message):
        render("internvl-chat-v2.0-8b", "internvl", [part], tmp_path)


def test_internvl_with_lora(tmp_path: Path) -> None:
    recipe = load_recipe("internvl-chat-v2.0-8b")
    adapted = recipe.model_copy(update={"lora": Lora(r=16, alpha=32)})
    found = parsed(render(adapted, "internvl", [release_part(tmp_path)], tmp_path), InternvlArguments)
    assert (found.use_llm_lora, found.freeze_llm, found.freeze_mlp) == (16, True, True)
    other = recipe.model_copy(update={"lora": Lora(r=16, alpha=16)})
    with pytest.raises(SettingsError, match="alpha as 2 r"):
        render(other, "internvl", [release_part(tmp_path)], tmp_path)


@pytest.mark.parametrize(("repeat", "entries"), [(1.0, [None]), (2.5, [None, None, 2]), (0.1, [1])])
def test_llamafactory_lists_a_part_as_often_as_it_is_seen(
    repeat: float, entries: list[int | None], tmp_path: Path
) -> None:
    rendered = render("llava-v1.5-7b", "llamafactory", [release_part(tmp_path / "images", repeat)], tmp_path)
    listed = json.loads(rendered.files["data/dataset_info.json"])
    assert [entry.get("num_samples") for entry in listed.values()] == entries
    assert {entry["file_name"] for entry in listed.values()} == {"taskgalaxy-v1.jsonl"}
    assert yaml.safe_load(rendered.files["train.yaml"])["dataset"].split(",") == list(listed)


def test_llamafactory_is_not_told_of_a_column_that_no_row_has(tmp_path: Path) -> None:
    part = release_part(tmp_path)
    assert part.examples
    texts = replace(part, examples=part.examples[3:], rows=1)
    rendered = render("llava-v1.5-7b", "llamafactory", [texts], tmp_path)
    (entry,) = json.loads(rendered.files["data/dataset_info.json"]).values()
    assert entry["columns"] == {"messages": "conversations"}


@pytest.mark.parametrize(("repeat", "suffix"), [(1.0, ""), (2.5, "#10"), (0.1, "#1")])
def test_swift_is_told_how_many_rows_it_takes(repeat: float, suffix: str, tmp_path: Path) -> None:
    rendered = render("llava-v1.5-7b", "ms-swift", [release_part(tmp_path / "images", repeat)], tmp_path)
    assert swift_flags(rendered)["dataset"] == [f"data/taskgalaxy-v1.jsonl{suffix}"]
    rows = [json.loads(line) for line in rendered.files["data/taskgalaxy-v1.jsonl"].decode().split("\n")[:-1]]
    assert [len(row["images"]) for row in rows] == [1, 1, 1, 0]
    assert [row["messages"][0]["content"].count("<image>") for row in rows] == [1, 1, 1, 0]
    assert [turn["role"] for turn in rows[1]["messages"]] == ["user", "assistant"] * 2


@pytest.mark.parametrize(
    ("trainer", "recipe"),
    [("llamafactory", "llava-v1.5-7b"), ("ms-swift", "llava-v1.5-7b")],
)
def test_base_data_that_the_trainer_reads(trainer: str, recipe: str, tmp_path: Path) -> None:
    own = unread_part(tmp_path)
    rendered = render(recipe, trainer, [release_part(tmp_path / "images"), own], tmp_path / "job")
    if trainer == "llamafactory":
        assert yaml.safe_load(rendered.files["train.yaml"])["media_dir"] == own.images
        assert json.loads(rendered.files["data/dataset_info.json"])["own-data"]["file_name"] == own.annotations
    else:
        assert rendered.environment["ROOT_IMAGE_DIR"] == own.images
        assert swift_flags(rendered)["dataset"][1] == own.annotations
    other = replace(unread_part(tmp_path / "other"), name="other")
    with pytest.raises(SettingsError, match="one folder"):
        render(recipe, trainer, [own, other], tmp_path)
    with pytest.raises(SettingsError, match="how many rows"):
        render(recipe, trainer, [replace(own, rows=0, repeat=1.5)], tmp_path)


@pytest.mark.parametrize(("recipe", "trainer"), PAIRS)
def test_a_blind_run_shows_one_picture(recipe: str, trainer: str, tmp_path: Path) -> None:
    part, job = release_part(tmp_path / "images"), tmp_path / "job"
    rendered = render(recipe, trainer, [part], job, blind=True)
    data = b"".join(raw for name, raw in rendered.files.items() if name.startswith("data/")).decode()
    assert data.count(str(job / BLANK)) == 3
    assert "bild" not in data
    assert "bild" in b"".join(render(recipe, trainer, [part], job).files.values()).decode()


@pytest.mark.parametrize("blind", [False, True])
@pytest.mark.parametrize(
    ("recipe", "trainer"),
    [
        ("internvl-chat-v2.0-8b", "internvl"),
        ("llava-v1.5-7b", "llamafactory"),
        ("llava-v1.5-7b", "ms-swift"),
        ("tiny", "trl"),
    ],
)
def test_of_several_images_all_are_given_with_a_mark_for_each(
    recipe: str, trainer: str, blind: bool, tmp_path: Path
) -> None:
    part = forms_part(tmp_path / "images")
    (raw,) = (
        raw
        for name, raw in render(recipe, trainer, [part], tmp_path / "job", blind=blind).files.items()
        if name.startswith("data/") and b"Which image is darker" in raw
    )
    rows = json.loads(raw) if trainer == "trl" else list(map(json.loads, raw.decode().splitlines()))
    assert len(rows) == len(part.examples or ())
    for row, example in zip(rows, part.examples or (), strict=True):
        given = row["images"] if trainer in {"ms-swift", "llamafactory"} else row["image"]
        given = [given] if isinstance(given, str) else given
        turns = row["messages" if trainer == "ms-swift" else "conversations"]
        first = turns[0].get("content") or turns[0]["value"]
        assert given == ([str(tmp_path / "job" / BLANK)] * len(given) if blind else list(example.images))
        assert first == "<image>\n" * len(example.images) + example.turns[0][1]


def test_a_trainer_of_one_image_a_sample_says_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="one image a sample"):
        render("llava-v1.5-7b", "llava", [forms_part(tmp_path)], tmp_path)


@pytest.mark.parametrize("trainer", ["internvl", "llamafactory", "ms-swift"])
def test_what_was_not_read_cannot_be_blinded(trainer: str, tmp_path: Path) -> None:
    part = unread_part(tmp_path, suffix="jsonl")
    with pytest.raises(SettingsError, match=r"own-data: the trainer reads .* cannot be replaced"):
        render("internvl-chat-v2.0-8b", trainer, [part], tmp_path, blind=True)


@pytest.mark.parametrize("trainer", ["internvl", "llamafactory", "ms-swift"])
def test_two_parts_of_one_name(trainer: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="has this name"):
        render("internvl-chat-v2.0-8b", trainer, [release_part(tmp_path), release_part(tmp_path)], tmp_path)


@pytest.mark.parametrize("trainer", ["internvl", "llamafactory", "ms-swift"])
def test_the_smallest_recipe(trainer: str, tmp_path: Path) -> None:
    """No DeepSpeed, no template, one device: nothing that is None is told."""
    recipe = Recipe(
        **{"name": "small", "trainers": (trainer,), "base": {"model": "m"}, "learning_rate": 1e-4},
        **{"global_batch": 1, "device_batch": 1, "precision": "fp32"},
        base_data=(BaseData(name="own", annotations="a.jsonl"),),
    )
    rendered = render(recipe, trainer, [release_part(tmp_path)], tmp_path)
    assert "zero.json" not in rendered.files
    assert not any("None" in text for text in rendered.command)
    assert b"null" not in rendered.files.get("train.yaml", b"")


def run(rendered: Rendered, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Its command in the job's folder, with a stand-in for the trainer that tells what it was given."""
    programs = folder.parent / "bin"
    programs.mkdir(exist_ok=True)
    text = '#!/bin/sh\nprintf "%s\\n" "$PWD" "$PYTHONPATH" "$@"\n'
    text += '[ -z "$CHECKPOINT" ] || { d=output/checkpoint-$CHECKPOINT; mkdir -p $d; touch $d/trainer_state.json; }\n'
    for name in ("torchrun", "swift"):
        (programs / name).write_text(f"{text}exit ${{CODE:-0}}\n", encoding="utf-8")
        (programs / name).chmod(0o755)
    for name, raw in rendered.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(raw)
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", **variables}
    return subprocess.run(rendered.command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def leave_checkpoint(folder: Path, step: int, *, whole: bool = True) -> None:
    checkpoint = folder / "output" / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    if whole:
        (checkpoint / "trainer_state.json").touch()


def test_internvl_runs_in_its_clone_and_goes_on_where_it_was(tmp_path: Path) -> None:
    job, clone = tmp_path / "a job's $(folder)", tmp_path / "the clone"
    (clone / "internvl_chat").mkdir(parents=True)
    rendered = render("internvl-chat-v2.0-8b", "internvl", [release_part(tmp_path)], job)
    lost = run(rendered, job)
    assert lost.returncode != 0
    assert "set it to a clone of InternVL" in lost.stderr
    first = run(rendered, job, INTERNVL_HOME=str(clone), PYTHONPATH="/elsewhere").stdout.splitlines()
    inside = str(clone / "internvl_chat")
    assert first[:2] == [inside, f"{inside}:/elsewhere"]
    assert first[-2:] == ["--overwrite_output_dir", "True"]
    assert str(job / "output") in first
    leave_checkpoint(job, 200)
    assert run(rendered, job, INTERNVL_HOME=str(clone)).stdout.splitlines()[-2:] == ["--overwrite_output_dir", "False"]


def test_swift_goes_on_where_it_was_and_says_where_it_ended(tmp_path: Path) -> None:
    job = tmp_path / "a job's $(folder)"
    rendered = render("llava-v1.5-7b", "ms-swift", [release_part(tmp_path)], job)
    assert "--resume_from_checkpoint" not in run(rendered, job, CHECKPOINT="500").stdout
    assert json.loads((job / "result.json").read_text()) == {"checkpoint": str(job / "output" / "last")}
    assert (job / "output" / "last").resolve() == job / "output" / "checkpoint-500"
    leave_checkpoint(job, 1000)
    leave_checkpoint(job, 1500, whole=False)
    again = run(rendered, job, CHECKPOINT="2000").stdout.splitlines()
    assert again[-2:] == ["--resume_from_checkpoint", "output/checkpoint-1000"]
    assert (job / "output" / "last").resolve() == job / "output" / "checkpoint-2000"


def test_swift_says_nothing_where_it_failed(tmp_path: Path) -> None:
    job = tmp_path / "job"
    rendered = render("llava-v1.5-7b", "ms-swift", [release_part(tmp_path)], job)
    assert run(rendered, job, CODE="3").returncode == 3
    assert not (job / "result.json").exists()
