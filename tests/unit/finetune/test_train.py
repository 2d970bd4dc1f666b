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
