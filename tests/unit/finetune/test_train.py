"""The rows that TRL is given: a row a question, after the turns before it."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from taskgalaxy_ops.finetune import tiny, train
from taskgalaxy_ops.finetune.recipes import load_recipe


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
