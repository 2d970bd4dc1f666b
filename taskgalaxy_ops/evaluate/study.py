"""A test of the paper's claim: does a release of more task types train better, at the same number of samples?

Each seed holds out a third of the task types whose answers can be ranked, and orders the others by hash. From these it
takes nested subsets (an eighth, a quarter, a half, all), and of each the same number of samples, spread over its task
types. Every arm is mixed with the same base data and the same **format data**: for every task type, the held-out ones
included, its question without an image, once with each of its answers. This shows the model what answers look like, and
nothing of any image. Then each model answers the held-out task types' questions on images that no arm was trained on.

``types`` is that design; ``variants`` is the paper's second table: all samples, at most five a task type, and the same
five with chain of thought.
"""

from __future__ import annotations

import json
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from taskgalaxy_ops.errors import SourceError
from taskgalaxy_ops.evaluate import compare
from taskgalaxy_ops.evaluate.plots import study_plot
from taskgalaxy_ops.evaluate.questions import Asked, held_out
from taskgalaxy_ops.finetune import run as finetune_run
from taskgalaxy_ops.finetune.jobs import Job, Order, prepare
from taskgalaxy_ops.finetune.mixture import Example, Part
from taskgalaxy_ops.finetune.recipes import load_recipe
from taskgalaxy_ops.hashing import draw, fingerprint
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.release.local_copy import ReleaseCopy
from taskgalaxy_ops.workspace import Workspace

Design = Literal["types", "variants"]
FRACTIONS = (1 / 8, 1 / 4, 1 / 2, 1.0)
_ANSWERS = (2, 12)  # distinct answers of a task type that may be held out
_QUESTIONS = 6  # on held-out images, at least
_MAJORITY = 0.8  # share of its most frequent answer, at most
_FEWEST, _MOST = 100, 400  # samples an arm
_CAP = 5


@dataclass(frozen=True, slots=True)
class Arm:
    """One model to be trained: its samples, and the task types on which it is tested."""

    seed: int
    name: str
    task_types: int
    samples: frozenset[str]
    held_out: frozenset[str]  # task types


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmScore:
    """The scores of an arm."""

    seed: int
    name: str
    task_types: int
    samples: int
    questions: int
    above_chance: float  # accuracy less chance, mean of the held-out task types
    swapped: float  # the same with images swapped
    loss: float | None


@dataclass(frozen=True, kw_only=True)
class Study:
    """All arms, and how they were made."""

    design: Design
    recipe: str
    release: str
    simulated: bool
    samples: int  # of each arm
    arms: Sequence[ArmScore]

    def by_arm(self) -> list[tuple[str, float, compare.Interval, float]]:
        """Name, mean number of task types, score over seeds with its interval, mean with images swapped."""
        rows = []
        for name in dict.fromkeys(arm.name for arm in self.arms):
            own = [arm for arm in self.arms if arm.name == name]
            types = sum(arm.task_types for arm in own) / len(own)
            swapped = sum(arm.swapped for arm in own) / len(own)
            rows.append((name, types, t_interval([arm.above_chance for arm in own]), swapped))
        return rows


def run(
    workspace: Workspace,
    *,
    design: Design = "types",
    release: str | None = None,
    recipe: str | None = None,
    seeds: int = 3,
    samples: int | None = None,
    progress: Progress | None = None,
) -> Study:
    """Train and score every arm; arms that an earlier run trained or scored are read from its files.

    design: see the module. release, recipe: names; by default the latest release and the settings' recipe. samples: the
    most samples an arm; by default 400.
    Raises SourceError where the release is too small for the design, or ``seeds`` is less than two.
    """
    progress = progress or Silent()
    copy = finetune_run.release_copy(workspace, release)
    chosen = load_recipe(recipe or workspace.settings.finetune.recipe)
    if seeds < 2:
        raise SourceError("study: one seed says nothing of how far seeds differ. Take at least two.")
    rows = copy.table(["train"], ["id", "image_id", "task_type", "variant", "answer"])
    asked, _ = held_out(copy, 1_000_000)
    planned = [arm for seed in range(seeds) for arm in arms(rows, asked, design, seed)]
    size = min(len(arm.samples) for arm in planned) if design == "types" else None
    if size is not None:
        size = min(size, samples or _MOST)
        if size < _FEWEST:
            raise SourceError(
                f"study: the smallest arm has {size} samples, and {_FEWEST} are the least. Release more images or task "
                "types."
            )
        if (most := max(arm.task_types for arm in planned)) > size:
            raise SourceError(
                f"study: {size} samples an arm cannot show {most} task types. Take more (--samples {most}, or more), "
                "or release more of each."
            )
    excluded = finetune_run.known_images(workspace, copy)
    formats = format_part(rows, copy)
    folder = finetune_run.root(workspace) / "study"
    folder.mkdir(parents=True, exist_ok=True)
    progress.stage("study", len(planned), "models")
    scores = []
    for arm in planned:
        taken = spread(rows, arm, size)
        # The recipe's variants say what an ordinary fine-tune takes; here the arm does.
        free = chosen.model_copy(update={"variants": None})
        order = Order(recipe=free, release=copy, only=taken, seed=arm.seed, excluded=excluded, extra=(formats,))
        job = prepare(order, finetune_run.root(workspace))
        scores.append(_score(workspace, job, arm, len(taken), asked, folder))
        progress.advance("study")
    return Study(
        design=design,
        recipe=chosen.name,
        release=copy.name,
        simulated=bool(copy.manifest()["simulated"]),
        samples=size or 0,
        arms=scores,
    )


def arms(rows: Sequence[Mapping[str, Any]], asked: Sequence[Asked], design: Design, seed: int) -> list[Arm]:
    """The arms of one seed. rows: the training split. Raises SourceError where too few task types can be held out."""
    plain = [row for row in rows if row["variant"] == "plain"]
    if design == "variants":
        every = frozenset(each.group for each in asked)
        capped = _capped(rows, seed)
        planned = []
        for name, variants in (
            ("all", ("plain",)),
            ("max-5", ("plain",)),
            ("max-5, chain of thought", ("chain_of_thought",)),
        ):
            ids = frozenset(
                row["id"] for row in rows if row["variant"] in variants and (name == "all" or row["id"] in capped)
            )
            if ids:
                planned.append(Arm(seed, name, len({row["task_type"] for row in rows if row["id"] in ids}), ids, every))
        return planned
    able = sorted(_able(plain, asked), key=lambda task_type: draw("study.held-out", seed, task_type))
    if len(able) < 3:
        raise SourceError(f"study: only {len(able)} task types have answers that can be ranked. Release more images.")
    out = frozenset(able[: len(able) // 3])
    others = sorted({row["task_type"] for row in plain} - out, key=lambda task_type: draw("study", seed, task_type))
    planned = []
    for fraction in FRACTIONS:
        chosen = set(others[: max(1, round(len(others) * fraction))])
        ids = frozenset(row["id"] for row in plain if row["task_type"] in chosen)
        name = "all" if fraction == 1 else f"1/{round(1 / fraction)}"
        planned.append(Arm(seed, name, len(chosen), ids, out))
    return planned


def _able(plain: Sequence[Mapping[str, Any]], asked: Sequence[Asked]) -> list[str]:
    """Task types that can be held out: they have few answers, none of them too frequent, and enough questions."""
    answers: dict[str, list[str]] = defaultdict(list)
    for row in plain:
        answers[row["task_type"]].append(row["answer"])
    questions: dict[str, int] = defaultdict(int)
    for each in asked:
        questions[each.group] += 1
    least, most = _ANSWERS
    return [
        task_type
        for task_type, given in answers.items()
        if least <= len(set(given)) <= most
        and questions[task_type] >= _QUESTIONS
        and max(given.count(answer) for answer in set(given)) <= _MAJORITY * len(given)
    ]


def _capped(rows: Sequence[Mapping[str, Any]], seed: int) -> frozenset[str]:
    """Samples of at most five images a task type, drawn by hash: the same images in every variant."""
    images: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        images[row["task_type"]].add(row["image_id"])
    taken = {
        task_type: set(sorted(own, key=lambda image: draw("study.cap", seed, task_type, image))[:_CAP])
        for task_type, own in images.items()
    }
    return frozenset(row["id"] for row in rows if row["image_id"] in taken[row["task_type"]])


def spread(rows: Sequence[Mapping[str, Any]], arm: Arm, size: int | None) -> frozenset[str]:
    """``size`` samples of an arm (None: all), taking one of every task type before a second of any."""
    if size is None:
        return arm.samples
    types: dict[str, list[str]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: draw("study.sample", arm.seed, row["id"])):
        if row["id"] in arm.samples:
            types[row["task_type"]].append(row["id"])
    ranked = [
        (n, draw("study.turn", arm.seed, name, n), each) for name, own in types.items() for n, each in enumerate(own)
    ]
    return frozenset(each for _, _, each in sorted(ranked)[:size])


def format_part(rows: Sequence[Mapping[str, Any]], copy: ReleaseCopy) -> Part:
    """The format data: the question of every task type with at most twelve answers, once with each, and no image."""
    answers: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row["variant"] == "plain":
            answers[row["task_type"]].add(row["answer"])
    questions = {
        row["task_type"]: row["question"] for row in copy.table(["train"], ["task_type", "variant", "question"])
    }
    examples = tuple(
        Example(f"format/{number}/{n}", None, (("human", questions[task_type]), ("gpt", answer)), task_type)
        for number, task_type in enumerate(sorted(answers))
        if len(answers[task_type]) <= _ANSWERS[1]
        for n, answer in enumerate(sorted(answers[task_type]))
    )
    return Part(
        name="answer-formats",
        kind="base",
        identity=fingerprint("study.formats", examples),
        rows=len(examples),
        repeat=1.0,
        examples=examples,
    )


def _score(workspace: Workspace, job: Job, arm: Arm, samples: int, asked: Sequence[Asked], folder: Path) -> ArmScore:
    """Train one arm and rank its questions; the scores are kept in ``folder`` under the job's key."""
    questions = [each for each in asked if each.group in arm.held_out]
    kept = folder / f"{job.key[:32]}-{fingerprint('study.questions', [each.id for each in questions])[:16]}.json"
    if kept.is_file():
        # Two arms of the same samples are one model.
        scored = ArmScore(**json.loads(kept.read_text(encoding="utf-8")))
        return replace(scored, seed=arm.seed, name=arm.name, task_types=arm.task_types)
    from taskgalaxy_ops.evaluate.rank import Ranker

    result = finetune_run.train(workspace, {f"{arm.name}, seed {arm.seed}": job}, f"study/{uuid.uuid4().hex}")
    (trained,) = result.values()
    ranker = Ranker(trained["checkpoint"])
    right = compare.answers(questions, ranker.rank)
    swapped = compare.answers(questions, ranker.rank, swap=True)
    scored = ArmScore(
        seed=arm.seed,
        name=arm.name,
        task_types=arm.task_types,
        samples=samples,
        questions=len(questions),
        above_chance=above_chance(questions, right),
        swapped=above_chance(questions, swapped),
        loss=trained.get("loss_last"),
    )
    part = kept.with_suffix(".part")
    part.write_text(json.dumps(asdict(scored), indent=1), encoding="utf-8")
    part.replace(kept)
    return scored


def above_chance(asked: Sequence[Asked], right: Any) -> float:
    """Accuracy less that of a guess among the candidates: the mean over task types, each with the same weight.

    right: (n,), 1.0 where the question is answered rightly, else 0.0.
    """
    types: dict[str, list[float]] = defaultdict(list)
    for each, hit in zip(asked, right, strict=True):
        types[each.group].append(float(hit) - 1 / len(each.candidates))
    return sum(sum(own) / len(own) for own in types.values()) / len(types)


def t_interval(values: Sequence[float]) -> compare.Interval:
    """Mean and 95 % interval of a few independent values (Student's t)."""
    from statistics import fmean, stdev

    from scipy.stats import t

    mean = fmean(values)
    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return compare.Interval(mean, mean - half, mean + half)


def page(study: Study) -> str:
    """The study as Markdown: a table, and a paragraph that says what it shows and what it does not."""
    rows = study.by_arm()
    lines = [
        f"| {'task types' if study.design == 'types' else 'samples'} | of them | above chance, 95 % over seeds "
        "| with images swapped |",
        "|---|--:|--:|--:|",
    ]
    lines += [
        f"| {name} | {types:g} | {score.value:+.3f} [{score.low:+.3f}, {score.high:+.3f}] | {swapped:+.3f} |"
        for name, types, score, swapped in rows
    ]
    return "\n".join([*lines, "", conclusion(study)]) + "\n"


def conclusion(study: Study) -> str:
    """What the study shows: in how many seeds the last arm is better than the first, and by how much."""
    seeds = sorted({arm.seed for arm in study.arms})
    names = list(dict.fromkeys(arm.name for arm in study.arms))
    score = {(arm.seed, arm.name): arm.above_chance for arm in study.arms}
    seeing = {(arm.seed, arm.name): arm.above_chance - arm.swapped for arm in study.arms}
    first, last = names[0], names[-1]
    gains = t_interval([score[seed, last] - score[seed, first] for seed in seeds])
    saw = t_interval([seeing[seed, last] - seeing[seed, first] for seed in seeds])
    better = sum(score[seed, last] > score[seed, first] for seed in seeds)
    said = "more" if gains.low > 0 else "less" if gains.high < 0 else "neither more nor less for certain"
    text = (
        f"From {first} to {last}: {gains.value:+.3f} [{gains.low:+.3f}, {gains.high:+.3f}], better in {better} of "
        f"{len(seeds)} seeds; of that, {saw.value:+.3f} [{saw.low:+.3f}, {saw.high:+.3f}] vanishes when the images are "
        f"swapped. So the held-out task types gain {said} at this scale."
    )
    if study.simulated:
        text += (
            " This is a synthetic sanity check: simulated models wrote the data, and a model of a million parameters "
            "learnt from it. It tries the machinery, and says nothing of the paper's claim."
        )
    return text


def picture(study: Study) -> bytes:
    """The study as a plot (SVG)."""
    seeds: dict[str, list[float]] = defaultdict(list)
    for arm in study.arms:
        seeds[arm.name].append(arm.above_chance)
    title = f"{study.samples} samples an arm, {study.recipe}"
    return study_plot(study.by_arm(), seeds, f"SYNTHETIC SANITY CHECK: {title}" if study.simulated else title)
