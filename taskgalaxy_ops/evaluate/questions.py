"""What a checkpoint is asked: a question about an image, the right answer, and others among which it must be found."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from taskgalaxy_ops.hashing import draw
from taskgalaxy_ops.release.local_copy import ReleaseCopy
from taskgalaxy_ops.sources.builtin import easy_vqa

HELD_OUT = "held-out"
EASY_VQA = "easy-vqa"
_CANDIDATES = 8
_LONGEST = 120  # characters: among longer answers the model mostly finds the shortest likeliest, whatever the image


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question to be ranked."""

    id: str
    benchmark: str
    family: str  # first-level node, or kind of question
    group: str  # task type, or kind of question
    image: str  # absolute path
    question: str
    answer: str
    candidates: tuple[str, ...]  # the answer among them, in order of text
    guess: str  # the most frequent answer of its group where nothing is held out: needs no image


def held_out(copy: ReleaseCopy, count: int, *, splits: Sequence[str] = ("test",)) -> tuple[list[Asked], int]:
    """Questions of a release's held-out split, and how many of that split cannot be ranked.

    A question cannot be ranked if its answer is too long, or the only one of its task type. The candidates are the
    right answer and others that the release gives for the same task type, at most eight in all, drawn by hash. No image
    of this split is in another one, so that no model was trained on it. count: the most questions that are returned.
    """
    answers: dict[str, set[str]] = defaultdict(set)
    trained: dict[str, Counter[str]] = defaultdict(Counter)
    for split in ("train", "validation", "test"):
        for row in copy.table([split], ["task_type", "variant", "answer"]):
            if row["variant"] == "plain" and len(row["answer"]) <= _LONGEST:
                answers[row["task_type"]].add(row["answer"])
                trained[row["task_type"]][row["answer"]] += split == "train"
    questions, unrankable = [], 0
    for row in copy.table(splits, ["id", "image", "task_type", "variant", "question", "answer"]):
        if row["variant"] != "plain":
            continue
        answer, task_type = row["answer"], row["task_type"]
        others = sorted(answers[task_type] - {answer}, key=lambda other: draw(row["id"], other))
        if not others or len(answer) > _LONGEST:
            unrankable += 1
            continue
        candidates = tuple(sorted([answer, *others[: _CANDIDATES - 1]]))
        image = copy.image({"image": row["image"]["path"]})
        family = task_type.split("~", 1)[0]
        guess = min(candidates, key=lambda each: (-trained[task_type][each], each))
        questions.append(
            Asked(
                id=row["id"],
                benchmark=HELD_OUT,
                family=family,
                group=task_type,
                image=image,
                question=row["question"],
                answer=answer,
                candidates=candidates,
                guess=guess,
            )
        )
    questions.sort(key=lambda each: draw("held-out", each.id))
    return questions[:count], unrankable


def easy_questions(count: int, excluded: frozenset[str]) -> list[Asked]:
    """easy-vqa's own test questions, a third of each kind, on images (sha256) that no source claims."""
    guesses = easy_vqa.most_frequent()
    return [
        Asked(
            id=q.id,
            benchmark=EASY_VQA,
            family=q.kind,
            group=q.kind,
            image=str(q.file),
            question=q.question,
            answer=q.answer,
            candidates=q.candidates,
            guess=guesses[q.kind],
        )
        for q in easy_vqa.questions("test", count, excluded)
    ]


def swapped(asked: Sequence[Asked], seed: int = 0) -> list[str]:
    """For each question the image of another question of its benchmark.

    A permutation of the benchmark's images, drawn by hash, that leaves no image in its place (if there are two).
    """
    images: dict[str, set[str]] = defaultdict(set)
    for each in asked:
        images[each.benchmark].add(each.image)
    replacement = {}
    for benchmark, own in images.items():
        order = sorted(own, key=lambda image: draw("swap", seed, image.rpartition("/")[2]))
        replacement.update({(benchmark, image): order[(n + 1) % len(order)] for n, image in enumerate(order)})
    return [replacement[each.benchmark, each.image] for each in asked]
