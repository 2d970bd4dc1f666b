"""A small mixture as a release and a model's own data make it, for any trainer."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from taskgalaxy_ops.finetune.mixture import Example, Part

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
