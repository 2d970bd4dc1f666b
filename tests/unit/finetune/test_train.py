"""The rows that TRL is given: a row a question, after the turns before it."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image
from trainers.mixtures import forms_part, release_part

from taskgalaxy_ops.finetune import tiny, train
from taskgalaxy_ops.finetune.recipes import load_recipe
from taskgalaxy_ops.finetune.trainers.shared import data_file
from taskgalaxy_ops.hashing import fingerprint

# Of the rows that the mixture below gave when jobs were first rendered.
TRAINED = "3f514940ba5d33b2d4944a32e16165bb9bf5e66e0c8a75da8ab70475b61f6e43"


def test_each_question_of_a_conversation_comes_after_the_turns_before_it(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    Image.new("RGB", (16, 16), (0, 99, 0)).save(file)
    texts = ["<image>\nHow many?", "Two.", "Which is larger?", "The left one."]
    turns = [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(texts)]
    rows = [{"image": str(file), "conversations": turns}, {"conversations": turns[2:]}]
    (tmp_path / "data.json").write_text(json.dumps(rows))
    recipe = load_recipe("tiny")
    processor = tiny._processor()
    data, left_out = train._dataset(tmp_path / "data.json", processor, recipe)
    assert (len(data), left_out) == (3, 0)
    assert [len(row["images"]) for row in data] == [1, 1, 0]
    assert [row["completion"][0]["content"][0]["text"] for row in data] == ["Two.", "The left one.", "The left one."]
    told = [processor.apply_chat_template(row["prompt"], tokenize=False) for row in data]
    first, second = "<s>USER: <image>\nHow many? ASSISTANT:", "USER: Which is larger? ASSISTANT:"
    assert told == [first, f"{first} Two.</s>{second}", f"<s>{second}"]

    long = [*turns[:2], {"from": "human", "value": "x " * recipe.max_length}, turns[3]]
    (tmp_path / "data.json").write_text(json.dumps([{"image": str(file), "conversations": long}]))
    data, left_out = train._dataset(tmp_path / "data.json", processor, recipe)
    assert (len(data), left_out) == (1, 1)


def test_a_question_about_several_images_has_them_all(tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.png" for name in "ab"]
    for number, file in enumerate(files):
        Image.new("RGB", (16, 16), (0, 99 * number, 0)).save(file)
    turns = [{"from": "human", "value": "<image>\n<image>\nWhich is darker?"}, {"from": "gpt", "value": "Image 1."}]
    rows = [{"image": [str(file) for file in files], "conversations": turns}]
    (tmp_path / "data.json").write_text(json.dumps(rows))
    processor = tiny._processor()
    data, _ = train._dataset(tmp_path / "data.json", processor, load_recipe("tiny"))
    assert [image.getpixel((0, 0)) for image in data[0]["images"]] == [(0, 0, 0), (0, 99, 0)]
    told = processor.apply_chat_template(data[0]["prompt"], tokenize=False)
    assert told.count("<image>") == 2 and told.endswith("Which is darker? ASSISTANT:")


def test_jobs_train_on_the_rows_that_they_were_rendered_for(tmp_path: Path) -> None:
    parts = [release_part(tmp_path / "a", 1.5), forms_part(tmp_path / "b")]
    (tmp_path / "data.json").write_bytes(data_file(parts, tmp_path, blind=False))
    data, left_out = train._dataset(tmp_path / "data.json", tiny._processor(), load_recipe("tiny"))
    rows = [{**row, "images": [[image.size, image.getpixel((0, 0))] for image in row["images"]]} for row in data]
    assert (fingerprint("trained", rows), left_out) == (TRAINED, 0)
    assert str(data.features["prompt"]) == str(data.features["completion"])
