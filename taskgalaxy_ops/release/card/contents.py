"""The card's first sections: what the release is, how it is loaded, a few samples, what its pictures are."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from taskgalaxy_ops.extensions import ALWAYS_RELEASED
from taskgalaxy_ops.release.formats import FORMATS
from taskgalaxy_ops.release.images import thumbnail_path
from taskgalaxy_ops.release.markdown import table, text, with_code
from taskgalaxy_ops.release.rows import Sample
from taskgalaxy_ops.release.select import Selection

_REFERRED = re.compile(r"^[\d,]+ images are in this folder\. [^\n]*\n\n", re.MULTILINE)
_CELL = 300  # characters of model text in a cell


def warnings(plan: Selection) -> list[str]:
    lines = []
    if plan.inputs.simulated:
        lines += [
            "> [!WARNING]",
            "> # SIMULATED",
            "> **The questions, answers or votes here come from simulated models**, programs that stand in for a "
            "teacher and judges to try the pipeline. Do not train on them, and do not take them for a model's work.",
            "",
        ]
    if plan.inputs.partial:
        lines += [
            "> [!WARNING]",
            f"> **Partial:** {plan.inputs.pending:,} units had no answer yet when this was made.",
            "",
        ]
    return lines


def intro(plan: Selection) -> list[str]:
    counts = plan.counts
    return [
        "# TaskGalaxy release" + (" (simulated)" if plan.inputs.simulated else ""),
        "",
        f"{counts['samples']:,} questions and answers about {counts['images']:,} images, of {counts['task_types']:,} "
        "task types: instruction data for vision-language models.",
        "",
        *table(
            ("split", "samples", "images"),
            [(split, f"{counts[split]:,}", f"{number:,}") for split, number in plan.images.items()],
        ),
        *table(("source", "images"), [(text(name), f"{n:,}") for name, n in sorted(plan.claimed.sources.items())]),
    ]


def loading(plan: Selection) -> list[str]:
    referred = plan.counts["images"] - plan.counts["images_copied"]
    lines = [
        "## How to load",
        "",
        "```python",
        "from datasets import load_dataset",
        "",
        f'samples = load_dataset("path/to/this/folder")  # {", ".join(plan.parts)}',
        "```",
        "",
        "`llava/*.json` is the same for LLaVA's trainer, with this folder as the image folder; a chain of thought "
        "comes before its answer. Parquet also has the votes and what each source says of the image.",
        "",
    ]
    for name in sorted(set(plan.settings.formats) - set(ALWAYS_RELEASED)):
        lines += [f"`{name}/`: {with_code(FORMATS.get(name).about or 'a format of an installed package')}.", ""]
    lines += ["`croissant.json` describes all this to programs (Croissant 1.1), `card.html` to a browser.", ""]
    if referred:
        lines += [
            f"{plan.counts['images_copied']:,} images are in this folder. {referred:,} are referred to where they lie: "
            "`image` is then a URI or a full path, and reading it needs access to that store.",
            "",
        ]
    return lines


def without_references(text: str) -> str:
    """A card's text without what it says of images that are only referred to, for a copy that has them all."""
    return _REFERRED.sub("", text)


def shown_samples(plan: Selection) -> list[str]:
    rows = [_picture(sample) for sample in plan.shown]
    return ["## A few samples", "", *table(("image", "task type", "question", "answer", "votes"), rows)] if rows else []


def _picture(sample: Sample) -> tuple[str, ...]:
    cast = json.loads(sample.votes) if sample.votes else []
    votes = ", ".join(f"{text(vote['judge'])} {vote.get('vote', 'abstained')}" for vote in cast)
    questions, answers = ([text(each, _CELL) for each in side] for side in zip(*sample.turns, strict=True))
    if sample.reasoning:
        answers[0] = f"{text(sample.reasoning, _CELL)} **{answers[0]}**"
    picture = f"![image of this sample]({thumbnail_path(sample.pair)})"
    return picture, text(sample.task_type), _numbered(questions), _numbered(answers), votes


def _numbered(turns: Sequence[str]) -> str:
    """A cell's lines: the texts of a conversation's turns, numbered; one alone is not."""
    return turns[0] if len(turns) == 1 else "<br>".join(f"{number}. {turn}" for number, turn in enumerate(turns, 1))


def pictures(plan: Selection) -> list[str]:
    """What an image of the release is, and how many models were shown otherwise than their files have them."""
    teacher = plan.inputs.teacher
    shown = (
        f"a JPEG of 8 bits a colour, upright, on white where it is transparent, its longer side at most "
        f"{teacher.image_side:,} pixels, without EXIF"
    )
    if plan.settings.images == "rendition":
        told = (
            f"Each image is the picture that the teacher was sent: {shown}. A trainer that opens it sees what the "
            "teacher saw. Files are named by the SHA-256 of their source's file (`image_id`)."
        )
    else:
        told = (
            "Each image is its source's file, unchanged, with its EXIF, which may say where a photograph was taken. "
            f"The teacher was sent {shown}. "
            "A trainer that only opens the file sees something else where the table says so."
        )
    size = (teacher.image_side, teacher.image_quality, teacher.image_min_side)
    others = [
        f"{text(judge.name)} ({judge.image_side:,} pixels, quality {judge.image_quality})"
        for judge in plan.inputs.judges
        if (judge.image_side, judge.image_quality, judge.image_min_side) != size
    ]
    told += f" Judges that were sent another size: {', '.join(others)}." if others else " Judges were sent the same."
    rows = [(what, f"{number:,}") for what, number in plan.altered.items()]
    return [
        "## Pictures",
        "",
        told,
        "",
        *(table(("shown otherwise than the source's file has it", "images in this folder"), rows) if rows else []),
    ]
