"""The source ``shapes``: coloured circles, rectangles and triangles of the package easy-vqa."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from taskgalaxy_ops.errors import SourceError
from taskgalaxy_ops.sources.builtin import Made, package_folder

_COLOUR = re.compile(r"what (?:color is|is the color of) ")
_SHAPE = re.compile(r"what (?:shape|is the \w+ shape)")


def images(limit: int | None, seed: int) -> Iterator[Made]:
    """Images of easy-vqa in the order of a hash, so that any number of them is a fair choice; no two have equal bytes.

    The truth is the package's own questions and answers, and the shape and colour if an answer names them.
    Raises SourceError if the package or its files are missing.
    """
    data = package_folder("easy_vqa", "easy-vqa==1.0") / "data"
    listed = []
    asked: dict[tuple[str, int], list[tuple[str, str]]] = defaultdict(list)
    for part in ("train", "test"):
        listed += [(part, int(path.stem), path) for path in (data / part / "images").glob("*.png")]
        questions = data / part / "questions.json"
        if not questions.is_file():
            raise SourceError(f"{questions} is missing. Run `pip install --force-reinstall easy-vqa==1.0`.")
        for question, answer, number in json.loads(questions.read_text(encoding="utf-8")):
            asked[part, number].append((question, answer))
    listed.sort(key=lambda item: hashlib.sha256(f"{seed}/{item[0]}/{item[1]}".encode()).digest())
    seen: set[bytes] = set()
    for part, number, path in listed:
        if limit is not None and len(seen) == limit:
            return
        raw = path.read_bytes()
        if raw in seen:
            continue
        seen.add(raw)
        pairs = asked[part, number]
        named = {
            name: next((answer for question, answer in pairs if pattern.match(question)), None)
            for name, pattern in (("shape", _SHAPE), ("colour", _COLOUR))
        }
        truth: dict[str, Any] = {key: value for key, value in named.items() if value}
        truth["questions"] = [{"question": question, "answer": answer} for question, answer in pairs]
        yield Made(
            file=f"{part}-{number:04d}.png",
            raw=raw,
            kind="shape",
            truth=truth,
            licence="MIT",
            attribution="Victor Zhou, easy-VQA",
            origin="https://github.com/vzhou842/easy-VQA",
        )
