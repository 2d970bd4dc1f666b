"""A small mixture as a release and a model's own data make it, for any trainer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from taskgalaxy_ops.finetune.mixture import Example, Part
from taskgalaxy_ops.generation.forms import FORMS, conversation

# What files and parsers like to trip over: quotes, line separators, other scripts, YAML's and JSON's marks.
ANSWERS = ("A “red” square: it's {the} only one, # of 3.", "zwei\u2028Zeilen\nund noch eine", "no\\t a tab", "猫 %s")


def release_part(folder: Path, repeat: float = 1.0, name: str = "taskgalaxy-v1") -> Part:
    """Four examples: three with an image of their own, one of them of two turns; one without any."""
    folder.mkdir(parents=True, exist_ok=True)
    examples = []
    for number, answer in enumerate(ANSWERS):
        image = folder / f"bild {number}.png"
        Image.new("RGB", (32, 24), (60 * number, 10, 200)).save(image)
        turns = [("human", f"What is in picture {number}?"), ("gpt", answer)]
        if number == 1:
            turns += [("human", "And else?"), ("gpt", "Nothing.")]
        examples.append(Example(f"sample-{number}", None if number == 3 else str(image), tuple(turns), "a~b"))
    return Part(
        name=name, kind="release", identity="identity", rows=len(examples), repeat=repeat, examples=tuple(examples)
    )


REPLIES: dict[str, dict[str, Any]] = {  # of a teacher, by question form
    "plain": {"question": "Which colour is it?", "answer": "Blue.", "reasoning": ""},
    "chain_of_thought": {"question": "How many are there?", "answer": "2", "reasoning": "One is left, one is right."},
    "multiple_choice": {"question": "Which is it?", "answer": "Red", "wrong_1": "Blue", "wrong_2": "4", "wrong_3": ""},
    "yes_no": {"question_yes": "Is it blue?", "question_no": "Is it red?"},
    "unanswerable": {"question": "What does the sign say?", "missing": "a sign"},
    "grounded": {"question": "Where is the dot?", "x1": 10, "y1": 200, "x2": 400, "y2": 1000},
    "long_description": {"description": "A plain. It is blue.\n\nA dot is in its middle: “<b>” it says, {x}."},
    "several_images": {"question": "Which image is darker, 1 or 2?", "answer": "Image 2."},
    "multi_turn": {
        **{"question": "What is it?", "answer": "A square.", "question_2": "Which colour?", "answer_2": "Blue."},
        **{"question_3": "And its edge?", "answer_3": "None.", "question_4": "", "answer_4": ""},
    },
}


def forms_part(folder: Path) -> Part:
    """A sample of each question form that ships, each with an image of its own; of the one about several, three."""
    folder.mkdir(parents=True, exist_ok=True)
    examples = []
    for number, name in enumerate(FORMS.shipped):
        image = folder / f"{name}.png"
        Image.new("RGB", (32, 24), (30 * number, 10, 200)).save(image)
        read = FORMS.get(name).texts({**REPLIES[name], "image": name, "task_type": "a~b", "language": ""})
        turns = [pair for turn in conversation(name, read) for pair in zip(("human", "gpt"), turn, strict=True)]
        others = [image.with_stem(f"{name} {place}") for place in (2, 3)] if FORMS.get(name).several else []
        for place, other in enumerate(others, 1):
            Image.new("RGB", (32, 24), (30 * number, 90 * place, 200)).save(other)
        examples.append(Example(name, str(image), tuple(turns), "a~b", tuple(map(str, others))))
    return Part(
        name="forms", kind="release", identity="identity", rows=len(examples), repeat=1.0, examples=tuple(examples)
    )


def unread_part(folder: Path, repeat: float = 1.0, name: str = "own-data", suffix: str = "json") -> Part:
    """Three examples in LLaVA's own file, images by relative path; the last has none. The trainer reads it."""
    images = folder / "own images"
    images.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(3):
        row = {
            "id": f"own-{number}",
            "conversations": [{"from": "human", "value": "Q?"}, {"from": "gpt", "value": "A."}],
        }
        if number < 2:
            Image.new("RGB", (16, 16), (0, 99, 50 * number)).save(images / f"{number}.png")
            row |= {"image": f"{number}.png"}
            row["conversations"][0]["value"] = "<image>\nQ?"
        rows.append(row)
    file = folder / f"own data.{suffix}"
    text = "\n".join(map(json.dumps, rows)) + "\n" if suffix == "jsonl" else json.dumps(rows)
    file.write_text(text, encoding="utf-8")
    return Part(
        name=name,
        kind="base",
        identity="identity",
        rows=len(rows),
        repeat=repeat,
        examples=None,
        annotations=str(file),
        images=str(images),
    )
