"""The paper's 16 benchmarks in the poster's order: lmms-eval 0.7.3's task for each, and the metric that is its score.

Scores of these sixteen, measured or published, are in the table's scale: 0..100, MME in points. Task names and metrics
are those of lmms-eval's registry; a test compares them with the installed one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from taskgalaxy_ops.errors import EvaluationError

LMMS_EVAL = "0.7.3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """One benchmark, and where lmms-eval has it."""

    name: str
    asks: str  # what it measures, in a few words
    task: str | None  # lmms-eval's; None: it has none
    metric: str  # the key of its results that is the score
    filter: str = "none"  # lmms-eval's name of how replies were read; part of the key
    scale: float = 100  # what the metric is multiplied by to give the table's figure
    maximum: float = 100
    # The kind of judge, a model that grades the answers; None: there is none. "base" tasks read <url> from a variable
    # and ask <url>/chat/completions. "endpoint" tasks expect that whole address in the same variable, so that the two
    # kinds cannot share a run.
    judge: Literal["base", "endpoint"] | None = None
    submission: str | None = None  # lmms-eval's task for the split whose answers only a server can grade
    note: str = ""
    about: tuple[str, ...] = ()  # the branches of the shipped taxonomy that it measures most


MME = "MME"
BENCHMARKS = (
    Benchmark(
        name=MME,
        asks="perception, yes or no",
        about=("object recognition", "scene understanding"),
        task="mme",
        metric="mme_perception_score",
        scale=1,
        maximum=2000,
        note="Points for perception; cognition (0..800) is beside it in lmms-eval's results. Not in the average.",
    ),
    Benchmark(
        name="MMBench",
        asks="multiple choice, 20 abilities",
        about=("scene understanding", "object recognition", "spatial relations"),
        task="mmbench_en_dev",
        metric="gpt_eval_score",
        scale=1,
        judge="endpoint",
        submission="mmbench_en_test",
        note="Development split. The judge is asked only where a reply names no option.",
    ),
    Benchmark(
        name="MMBench-CN",
        asks="MMBench in Chinese",
        task="mmbench_cn_dev",
        metric="gpt_eval_score",
        scale=1,
        judge="endpoint",
        submission="mmbench_cn_test",
        note="Development split. The judge is asked only where a reply names no option.",
    ),
    Benchmark(
        name="POPE",
        asks="objects that are not there",
        about=("object recognition",),
        task="pope",
        metric="pope_f1_score",
        note="F1, not accuracy.",
    ),
    Benchmark(
        name="LLaVA-in-the-Wild",
        asks="free answers",
        about=("image description",),
        task="llava_in_the_wild",
        metric="gpt_eval_llava_all",
        scale=1,
        maximum=math.inf,
        judge="base",
        note="Relative to GPT-4's answers that come with it; may exceed 100.",
    ),
    Benchmark(
        name="MM-Vet",
        asks="free answers, combined abilities",
        about=("logical reasoning",),
        task="mmvet",
        metric="gpt_eval_score",
        scale=1,
        judge="base",
    ),
    Benchmark(
        name="TextVQA",
        asks="reading in photographs",
        about=("ocr",),
        task="textvqa_val",
        metric="exact_match",
        submission="textvqa_test",
        note="Without OCR tokens in the prompt: LLaVA's own figures had them, and do not compare.",
    ),
    Benchmark(
        name="ScienceQA",
        asks="school science",
        about=("science",),
        task="scienceqa_img",
        metric="exact_match",
        note="The questions that have an image.",
    ),
    Benchmark(
        name="MathVista",
        asks="mathematics in figures",
        about=("mathematics",),
        task="mathvista_testmini_format",
        metric="llm_as_judge_eval",
        scale=1,
        judge="base",
        submission="mathvista_test",
        note="testmini. The judge extracts the answer.",
    ),
    Benchmark(
        name="ChartQA",
        asks="charts",
        about=("charts & tables",),
        task="chartqa",
        metric="relaxed_overall",
        note="Right within 5 %.",
    ),
    Benchmark(
        name="AI2D", asks="diagrams", about=("science",), task="ai2d", metric="exact_match", filter="flexible-extract"
    ),
    Benchmark(
        name="Q-Bench",
        asks="image quality",
        about=("image quality & photography",),
        task="qbench_dev",
        metric="qbench_acc",
        note="Development split.",
    ),
    Benchmark(
        name="Q-Bench-CN",
        asks="Q-Bench in Chinese",
        task=None,
        metric="qbench_acc",
        note="lmms-eval has no such task: its score must come from another tool, and until then there is no average.",
    ),
    Benchmark(
        name="HallusionBench",
        asks="illusions and hallucinations",
        about=("comparison",),
        task="hallusion_bench_image",
        metric="aAcc",
        scale=1,
        judge="endpoint",
        note="Accuracy over all questions. The task asks for the model `gpt-4`, whatever is set.",
    ),
    Benchmark(
        name="SEED",
        asks="multiple choice, images and video frames",
        about=("scene understanding", "spatial relations"),
        task="seedbench",
        metric="seed_all",
        note="Images and video.",
    ),
    Benchmark(
        name="MMMU",
        asks="college subjects",
        about=("science", "mathematics", "art & style"),
        task="mmmu_val",
        metric="mmmu_acc",
        submission="mmmu_test",
        note="Validation split.",
    ),
)
NAMES = tuple(each.name for each in BENCHMARKS)
AVERAGED = tuple(name for name in NAMES if name != MME)  # MME's points would drown the rest

# Our own, asked in words; "easy-vqa" without an addition is the same questions ranked by likelihood.
EASY_VQA = Benchmark(
    name="easy-vqa, generated", asks="colours and shapes", task="taskgalaxy_easy_vqa", metric="accuracy"
)


def find(names: Iterable[str]) -> list[Benchmark]:
    """The benchmarks of these names, in the order given. Raises EvaluationError at an unknown one."""
    known = {each.name: each for each in (*BENCHMARKS, EASY_VQA)}
    benchmarks = []
    for name in names:
        if name not in known:
            raise EvaluationError(f"benchmark {name!r} is unknown. Known: {', '.join(known)}.")
        benchmarks.append(known[name])
    return benchmarks


def average(figures: Mapping[str, float]) -> float | None:
    """Mean of the 15 without MME, in the table's scale; None unless all 15 are there: fewer are another average."""
    if any(name not in figures for name in AVERAGED):
        return None
    return sum(figures[name] for name in AVERAGED) / len(AVERAGED)


def markdown() -> list[str]:
    """Lines of the table in docs/benchmarks.md."""
    lines = [
        "| benchmark | asks | lmms-eval's task | metric | judge | server-graded split | |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in BENCHMARKS:
        task = f"`{each.task}`" if each.task else "**lacking**"
        metric = f"`{each.metric}`" + (" × 100" if each.scale == 100 else "")
        judge = "needed" if each.judge else ""
        split = f"`{each.submission}`" if each.submission else ""
        lines.append(f"| {each.name} | {each.asks} | {task} | {metric} | {judge} | {split} | {each.note} |")
    return lines
