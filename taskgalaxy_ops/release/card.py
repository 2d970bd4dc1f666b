"""The card of a release: README.md with the Hugging Face header. Holds no time, cost or version number."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from taskgalaxy_ops.generation.lost import Lost, lost
from taskgalaxy_ops.generation.stages import ASKING
from taskgalaxy_ops.records import Reason
from taskgalaxy_ops.release import judged
from taskgalaxy_ops.release.agreement import agreement
from taskgalaxy_ops.release.formats import FORMATS
from taskgalaxy_ops.release.images import thumbnail_path
from taskgalaxy_ops.release.licences import identifier
from taskgalaxy_ops.release.markdown import table, text
from taskgalaxy_ops.release.rows import Sample
from taskgalaxy_ops.release.select import Selection

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_CELL = 300  # characters of model text in a cell


def card(plan: Selection) -> bytes:
    """The card as README.md, UTF-8."""
    parts = (
        header_lines(_header(plan)),
        _warnings(plan),
        _intro(plan),
        _loading(plan),
        _pictures(plan),
        _shown(plan),
        _funnel(plan),
        _taxonomy(plan),
        _judges(plan),
        _making(plan),
        _licences(plan),
        _limits(plan),
    )
    return "\n".join(line for part in parts for line in part).encode()


def header_lines(header: Mapping[str, Any]) -> list[str]:
    """The YAML header that the Hub reads, as lines, with a blank line at the end."""
    return ["---", yaml.safe_dump(dict(header), sort_keys=False, allow_unicode=True).rstrip(), "---", ""]


def _header(plan: Selection) -> dict[str, Any]:
    inputs = plan.inputs
    tags = ["taskgalaxy", "instruction-tuning", "vision-language", "image-text-to-text"]
    licences = set(map(identifier, plan.claimed.licences))
    number = plan.counts["samples"]
    return {
        "pretty_name": "TaskGalaxy release" + (" (simulated)" if inputs.simulated else ""),
        "license": sorted(licences) or ["unknown"],
        "task_categories": ["visual-question-answering"],
        "size_categories": [next((name for bound, name in _SIZES if number < bound), "n>1M")],
        "tags": tags + ["simulated"] * inputs.simulated + ["partial"] * inputs.partial,
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}-*.parquet"} for split in plan.parts],
            }
        ],
    }


def _warnings(plan: Selection) -> list[str]:
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


def _intro(plan: Selection) -> list[str]:
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


def _loading(plan: Selection) -> list[str]:
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
    for name in sorted(set(plan.settings.formats) - FORMATS.shipped.keys()):
        lines += [f"`{name}/`: {text(FORMATS.get(name).about or 'a format of an installed package')}.", ""]
    if referred:
        lines += [
            f"{plan.counts['images_copied']:,} images are in this folder. {referred:,} are referred to where they lie: "
            "`image` is then a URI or a full path, and reading it needs access to that store.",
            "",
        ]
    return lines


def _pictures(plan: Selection) -> list[str]:
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


def _shown(plan: Selection) -> list[str]:
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


def _funnel(plan: Selection) -> list[str]:
    rows = []
    for stage in plan.funnel:
        rejects = "<br>".join(
            f"{text(reason)} {number:,}" for reason, number in sorted(stage.rejects.items()) if number
        )
        rows.append((text(stage.stage), f"{stage.units_in:,}", f"{stage.units_out:,}", rejects, f"{stage.pending:,}"))
    return [
        "## Funnel",
        "",
        "Each stage in its own units: images, matches, task types that fit, question-answer pairs, samples.",
        "",
        *table(("stage", "in", "out", "rejected", "pending"), rows),
    ]


def _taxonomy(plan: Selection) -> list[str]:
    leaves: dict[str, set[str]] = defaultdict(set)
    covered: dict[str, set[str]] = defaultdict(set)
    samples: Counter[str] = Counter()
    for leaf in plan.inputs.taxonomy.leaves:
        leaves[_first(leaf)].add(leaf)
    for task_type, number in plan.task_types.items():
        first = _first(task_type)
        leaves[first].add(task_type)
        covered[first].add(task_type)
        samples[first] += number
    levels = ", ".join(f"{n:,} on level {level}" for level, n in sorted(plan.inputs.taxonomy.levels.items()))
    total = sum(map(len, leaves.values()))
    return [
        "## Task types",
        "",
        f"The taxonomy has {total:,} task types ({levels or 'no nodes'}). {plan.counts['task_types']:,} have samples.",
        "",
        *table(
            ("first level", "task types", "with samples", "samples"),
            [(text(n), f"{len(leaves[n]):,}", f"{len(covered[n]):,}", f"{samples[n]:,}") for n in sorted(leaves)],
        ),
        *_targets(plan.inputs.targets),
    ]


def _targets(found: Mapping[str, int] | None) -> list[str]:
    """How many task types have as many samples as was asked for, and why others have not."""
    if found is None:
        return []
    return [
        "A task type that has enough samples was asked no further; the settings below say how many are enough, and how "
        "many images it may try.",
        "",
        *table(("target", "task types"), [(text(standing), f"{number:,}") for standing, number in found.items()]),
    ]


def _first(path: str) -> str:
    return path.partition("~")[0]


def _judges(plan: Selection) -> list[str]:
    figures = agreement(plan.ballots, [judge.name for judge in plan.inputs.judges])
    over = (
        f"the {figures.pairs:,} audited pairs, drawn by hash and shown to every judge"
        if figures.audited
        else f"{figures.pairs:,} pairs with two votes or more. None was audited, and later judges were asked mostly "
        "where earlier ones disagreed: the figures are too low"
    )
    voted, accepted = plan.verdicts
    return [
        "## Judges and their agreement",
        "",
        f"Of {voted:,} pairs with a verdict {accepted:,} were accepted.",
        "",
        *table(
            ("judge", "approved", "rejected", "abstained", "approval share"),
            [
                (text(j.judge), f"{j.approvals:,}", f"{j.rejections:,}", f"{j.abstentions:,}", _share(j.approval_share))
                for j in figures.judges
            ],
        ),
        f"Agreement, over {over}:",
        "",
        *table(
            ("judges", "pairs", "agreed", "Cohen's kappa"),
            [
                (" and ".join(map(text, two.judges)), f"{two.pairs:,}", _of(two.agreed, two.pairs), _figure(two.kappa))
                for two in figures.two
            ],
        ),
        f"Krippendorff's alpha of all judges: {_figure(figures.alpha)} (1: always agreed, 0: as by chance). Formulas: "
        "Cohen, *A coefficient of agreement for nominal scales*, 1960; Krippendorff, *Computing Krippendorff's "
        "Alpha-Reliability*, 2011, nominal data with missing values.",
        "",
        *judged.section(plan, figures),
    ]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _of(part: int, whole: int) -> str:
    return _share(part / whole if whole else None)


def _figure(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"


def _making(plan: Selection) -> list[str]:
    made = plan.made_with
    models = [
        (role, text(model["name"]), text(model["model"]), text(model["revision"] or "–"), _yes(model["simulated"]))
        for role, model in [("teacher", made["teacher"]), *(("judge", judge) for judge in made["judges"])]
    ]
    return [
        "## How it was made",
        "",
        "After TaskGalaxy (ICLR 2025, arXiv 2502.09925): a taxonomy of task types; each image matched with the nearest "
        "ones by an encoder; a teacher keeps those that fit and writes a question and an answer for each; judges vote, "
        f"and {_rule(plan)} is a sample. The settings below say which samples were left out.",
        "",
        *table(("role", "name", "model", "revision", "simulated"), models),
        *_settings("encoder", made["encoder"]),
        *_settings("prompt (hash of its text)", made["prompts"]),
        *_settings("setting", {**made["rules"], **{f"release.{k}": v for k, v in made["release"].items()}}),
    ]


def _rule(plan: Selection) -> str:
    if (least := plan.inputs.rules.get("vote.rule.probability")) is None:
        return "a pair with a quorum of approvals"
    return (
        f"a pair that is right with a probability of {least:g} or more, by its votes and what was recorded of the "
        "judges,"
    )


def _settings(what: str, values: Mapping[str, Any]) -> list[str]:
    def shown(value: Any) -> str:
        return text(", ".join(map(str, value)) if isinstance(value, list | tuple) else value, _CELL)

    return table((what, "value"), [(text(name), shown(values[name])) for name in sorted(values)]) if values else []


def _yes(value: bool) -> str:
    return "**yes**" if value else "no"


def _licences(plan: Selection) -> list[str]:
    return [
        "## Licences and attributions",
        "",
        "As the sources state them; `licences`, `attributions` and `origins` in the Parquet files say it for each "
        "image. Two sources may say different things of one image: both count.",
        "",
        *table(("licence", "images"), _counted({(name,): n for name, n in plan.claimed.shown_licences.items()})),
        *table(("source", "licence", "attribution", "images"), _counted(plan.claimed.credits)),
        *_context(plan),
    ]


def _context(plan: Selection) -> list[str]:
    """What the rows have of the images' context; nothing is said where they have none."""
    if not plan.settings.context:
        return []
    named = ", ".join(text(name) for name in plan.settings.context)
    (number,) = plan.rows.execute("SELECT count(context) FROM pictures").fetchone()
    return [
        f"`context` holds what the sources say of {number:,} images: {named}. It is text of the sources, by "
        "the first of them that has the field, and may be wrong; of special tokens the brackets are written ‹ › and "
        "⟦ ⟧.",
        "",
    ]


def _counted(numbers: Mapping[Any, int]) -> Iterable[tuple[str, ...]]:
    return [(*map(text, names), f"{numbers[names]:,}") for names in sorted(numbers)]


def _lost(found: Lost) -> list[str]:
    """What is missing by the pipeline's fault or a model's; nothing is said where nothing is."""
    if not found.reasons:
        return []
    named = ", ".join(f"{number:,} {text(reason)}" for reason, number in found.reasons.items())
    return [f"- {found.share:.1%} of what models were asked ended without an answer that could be used: {named}."]


def _limits(plan: Selection) -> list[str]:
    bits = plan.settings.near_duplicate_bits
    if bits < 0:
        alike = "Images that look alike were kept, and may lie in different splits."
    else:
        near = f"perceptual hashes differ in {bits} of 160 bits at most" if bits else "perceptual hashes are equal"
        alike = f"Of images whose {near}, one was kept. Crops and mirrored copies may lie in different splits."
    return [
        "## Limits",
        "",
        "- Questions, answers and reasoning are text of models, accepted by models. No person has read all of it.",
        "- A judge's approval is an opinion: the agreement above says how far to trust it.",
        f"- {alike}",
        *_reviewed(plan),
        *_tokens(plan.neutralised),
        *_lost(lost(stage for stage in plan.funnel if stage.stage in ASKING)),
        "- Nothing was checked against the test sets of benchmarks.",
        "- `history.json` holds times, costs and version numbers; `manifest.json` has each file's size and SHA-256.",
        "",
    ]


def _reviewed(plan: Selection) -> list[str]:
    """What people's votes changed; nothing is said where they decide nothing."""
    if "review.rule" not in plan.inputs.rules:
        return []
    wrong = plan.funnel[-1].rejects.get(Reason.FOUND_WRONG, 0)
    (answers,) = plan.rows.execute("SELECT count(*) FROM chosen WHERE votes IS NULL").fetchone()
    return [
        f"- Pairs that people found wrong, and that were left out: {wrong:,}. Samples with a person's answer, which "
        f"have no votes: {answers:,}."
    ]


def _tokens(number: int) -> list[str]:
    if not number:
        return []
    named = "1 sample names" if number == 1 else f"{number:,} samples name"
    return [
        f"- {named} special tokens of tokenizers, as `s` or `INST` in their brackets. So that no trainer reads them as "
        "its own, their brackets are written ‹ › and ⟦ ⟧."
    ]
