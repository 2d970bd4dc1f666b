"""Questions of the package easy-vqa (Victor Zhou, MIT) on images that no source claims: base data, and a benchmark.

The source ``builtin:shapes`` takes the package's images in the order of a hash; these questions take them from the
other end of that order, and leave out every image that a source claims nevertheless (by its sha256).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.sources.builtin import package_folder

KINDS = ("yes/no", "shape", "colour")
_ANSWERS = {
    "yes/no": ("yes", "no"),
    "shape": ("circle", "rectangle", "triangle"),
    "colour": ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EasyQuestion:
    """One of the package's own questions."""

    id: str
    file: Path
    image: str  # sha256
    question: str
    answer: str
    kind: str  # one of KINDS

    @property
    def candidates(self) -> tuple[str, ...]:
        return _ANSWERS[self.kind]


def questions(part: Literal["train", "test"], count: int, excluded: frozenset[str]) -> list[EasyQuestion]:
    """``count`` questions of a part, equally many of each kind, at most one of each kind an image; in a fixed order.

    excluded: images (sha256) that a source claims. Raises SourceError where the package is missing.
    """
    wanted = dict.fromkeys(KINDS, -(-count // len(KINDS)))
    chosen: list[EasyQuestion] = []
    for each in _all(part, excluded):
        if wanted[each.kind]:
            wanted[each.kind] -= 1
            chosen.append(each)
        if not any(wanted.values()):
            break
    return chosen[:count]


def most_frequent() -> dict[str, str]:
    """By kind, the most frequent answer of the training part."""
    file = package_folder("easy_vqa", "easy-vqa==1.0") / "data" / "train" / "questions.json"
    counts = Counter(answer for _, answer, _ in json.loads(file.read_text(encoding="utf-8")))
    return {kind: min(answers, key=lambda each: (-counts[each], each)) for kind, answers in _ANSWERS.items()}


def _all(part: str, excluded: frozenset[str]) -> Iterator[EasyQuestion]:
    data = package_folder("easy_vqa", "easy-vqa==1.0") / "data" / part
    asked: dict[int, list[tuple[str, str]]] = {}
    for question, answer, number in json.loads((data / "questions.json").read_text(encoding="utf-8")):
        asked.setdefault(number, []).append((question, answer))

    def drawn(*what: object) -> bytes:
        return hashlib.sha256("/".join(map(str, what)).encode()).digest()

    seen: set[str] = set()
    for number in sorted(asked, key=lambda number: drawn(0, part, number), reverse=True):
        file = data / "images" / f"{number}.png"
        image = sha256_hex(file.read_bytes())
        if image in excluded or image in seen:
            continue
        seen.add(image)
        kinds: set[str] = set()
        for question, answer in sorted(asked[number], key=lambda pair: drawn(part, number, pair[0])):
            kind = next(kind for kind, answers in _ANSWERS.items() if answer in answers)
            if kind not in kinds:
                kinds.add(kind)
                yield EasyQuestion(
                    id=f"easy-vqa/{part}/{number}/{kind}",
                    file=file,
                    image=image,
                    question=question,
                    answer=answer,
                    kind=kind,
                )
