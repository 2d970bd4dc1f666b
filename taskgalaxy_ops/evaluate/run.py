"""Scores of a fine-tune: before and after, with the controls, kept in the store as Parquet and as a result card."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from taskgalaxy_ops.errors import EvaluationError, NotFoundError
from taskgalaxy_ops.evaluate import compare, lmms
from taskgalaxy_ops.evaluate.compare import Comparison, Interval
from taskgalaxy_ops.evaluate.questions import EASY_VQA, HELD_OUT, Asked, easy_questions, held_out
from taskgalaxy_ops.evaluate.scores import Score
from taskgalaxy_ops.finetune import run as finetune_run
from taskgalaxy_ops.finetune.run import AFTER, BEFORE, BLIND, Tuning, root
from taskgalaxy_ops.finetune.tiny import TINY
from taskgalaxy_ops.hashing import fingerprint
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.release.local_copy import ReleaseCopy
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.log import Log
from taskgalaxy_ops.workspace import Workspace

OWN = (HELD_OUT, EASY_VQA)
SCORE_VERSION = 1  # one more whenever the same checkpoints and questions give other scores


@dataclass(frozen=True)
class Scored:
    """The outcome of scoring a fine-tune's checkpoints."""

    identity: str
    comparisons: Sequence[Comparison]
    scores: Sequence[Score]
    unrankable: int  # held-out questions whose answer is too long, or the only one of their task type
    page: str = ""  # the result card's name

    def as_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode()

    @classmethod
    def of_json(cls, raw: bytes) -> Scored:
        fields = json.loads(raw)
        fields["scores"] = [Score(**each) for each in fields["scores"]]
        fields["comparisons"] = [
            Comparison(
                **{
                    **each,
                    "scores": {name: Interval(**value) for name, value in each["scores"].items()},
                    "gain": Interval(**each["gain"]),
                    "seeing": Interval(**each["seeing"]),
                }
            )
            for each in fields["comparisons"]
        ]
        return cls(**fields)


def score_tuning(
    workspace: Workspace, tuning: Tuning, benchmarks: Sequence[str] = OWN, progress: Progress | None = None
) -> Scored:
    """Score the checkpoints of a fine-tune whose jobs have succeeded; scores that are in the store are read from there.

    Raises what ``score_checkpoints`` raises, and JobError while a job has not succeeded.
    """
    results = finetune_run.results(workspace, tuning.jobs)
    asked, unrankable = questions(workspace, tuning.copy, benchmarks)
    model = f"{tuning.recipe.name}, {tuning.release.name}"
    basis = {
        "version": SCORE_VERSION,
        "release": tuning.copy.identity,
        "jobs": {role: [job.key, results[role].get("weights_sha256")] for role, job in tuning.jobs.items()},
        "published": tuning.published,
        "benchmarks": list(benchmarks),
        "questions": [each.id for each in asked],
    }
    if set(benchmarks) - set(OWN) and (chosen := workspace.settings.finetune.lmms):
        basis["lmms"] = chosen.model_dump(mode="json", exclude={"python", "judge_key_env"})
    identity = fingerprint("scores", basis)
    with contextlib.suppress(NotFoundError):
        return Scored.of_json(workspace.store.get(keys.comparisons(identity)))
    checkpoints = {role: str(result["checkpoint"]) for role, result in results.items()}
    if tuning.published:
        checkpoints = {BEFORE: tuning.published, **checkpoints}
    comparisons, scores = _scores(workspace, checkpoints, benchmarks, asked, model, progress)
    scored = _keep(workspace, Scored(identity, comparisons, scores, unrankable), model)
    workspace.store.put_if_absent(keys.comparisons(identity), scored.as_json())
    return scored


def score_checkpoints(
    workspace: Workspace,
    copy: ReleaseCopy,
    checkpoints: Mapping[str, str],
    benchmarks: Sequence[str],
    *,
    model: str,
    progress: Progress | None = None,
) -> Scored:
    """Score checkpoints by role (before, after, and blind where there is one), and keep the scores.

    benchmarks: ``held-out`` and ``easy-vqa`` are ranked here; others are lmms-eval's, named as in docs/benchmarks.md.
    The scores are stored under their fingerprint.
    Raises SourceError where a checkpoint cannot be loaded, EvaluationError where lmms-eval is not configured or fails.
    """
    asked, unrankable = questions(workspace, copy, benchmarks)
    comparisons, scores = _scores(workspace, checkpoints, benchmarks, asked, model, progress)
    identity = fingerprint("scores", [copy.identity, scores])
    return _keep(workspace, Scored(identity, comparisons, scores, unrankable), model)


def _scores(
    workspace: Workspace,
    checkpoints: Mapping[str, str],
    benchmarks: Sequence[str],
    asked: Sequence[Asked],
    model: str,
    progress: Progress | None,
) -> tuple[list[Comparison], list[Score]]:
    """Comparisons over the questions ``asked`` here, and the scores of all benchmarks under the name ``model``."""
    comparisons = []
    if asked:
        comparisons = compare.compare(asked, right_answers(asked, checkpoints, progress or Silent()))
    scores = compare.as_scores(comparisons, model)
    if others := [name for name in benchmarks if name not in OWN]:
        for role, method in ((BEFORE, compare.BEFORE), (AFTER, compare.AFTER)):
            scores += _by_lmms(workspace, checkpoints[role], others, model, method)
    return comparisons, scores


def _keep(workspace: Workspace, scored: Scored, model: str) -> Scored:
    """Write the scores, and log them as the latest of ``model``; the result names its card."""
    workspace.store.put_if_absent(keys.scores(scored.identity), parquet(scored.scores))
    Log(workspace.store, keys.FINETUNE_LOG).append({"kind": "scored", "identity": scored.identity, "model": model})
    return replace(scored, page=f"finetune-{scored.identity[:16]}")


def latest(workspace: Workspace) -> tuple[str, str, list[Score]] | None:
    """The scores that were logged last: their model, their identity, and they; None: there are none."""
    for entry in reversed(Log(workspace.store, keys.FINETUNE_LOG).read()):
        if entry.body["kind"] == "scored":
            model, identity = entry.body["model"], entry.body["identity"]
            return model, identity, _read(workspace, identity)
    return None


def _read(workspace: Workspace, identity: str) -> list[Score]:
    return [Score(**row) for row in pq.read_table(io.BytesIO(workspace.store.get(keys.scores(identity)))).to_pylist()]


def kept(workspace: Workspace) -> list[Score]:
    """The latest scores of each model in the store."""
    newest = {}
    for entry in Log(workspace.store, keys.FINETUNE_LOG).read():
        if entry.body["kind"] == "scored":
            newest[entry.body["model"]] = entry.body["identity"]
    return [score for identity in newest.values() for score in _read(workspace, identity)]


def _by_lmms(workspace: Workspace, checkpoint: str, benchmarks: Sequence[str], model: str, method: str) -> list[Score]:
    chosen = workspace.settings.finetune.lmms
    if chosen is None:
        raise EvaluationError(
            f"{', '.join(benchmarks)}: run by lmms-eval, and finetune.lmms does not say where it is. See "
            "docs/benchmarks.md."
        )
    judge = None
    if chosen.judge_key_env:
        judge = lmms.JudgeSettings(os.environ.get(chosen.judge_key_env, ""), chosen.judge_url, chosen.judge_model)
    folder = root(workspace) / "lmms" / fingerprint("lmms", [checkpoint, list(benchmarks)])[:32]
    harness = lmms.Harness(
        python=Path(chosen.python).expanduser(),
        limit=chosen.limit,
        judge=judge,
        adapter=chosen.adapter,
        arguments=lmms.CPU if chosen.cpu else {},
    )
    given = Path(checkpoint) if Path(checkpoint).is_dir() else checkpoint
    return lmms.run(given, benchmarks, harness, model=model, method=method, folder=folder)


def questions(workspace: Workspace, copy: ReleaseCopy, benchmarks: Sequence[str]) -> tuple[list[Asked], int]:
    """The questions of the benchmarks that are ranked here, and how many of the release's cannot be."""
    most = workspace.settings.finetune.questions
    asked, unrankable = held_out(copy, most) if HELD_OUT in benchmarks else ([], 0)
    if EASY_VQA in benchmarks:
        asked += easy_questions(most, finetune_run.known_images(workspace, copy))
    return asked, unrankable


def right_answers(
    asked: Sequence[Asked], checkpoints: Mapping[str, str], progress: Progress
) -> dict[str, np.ndarray[Any, Any]]:
    """For each method (n,): 1.0 where it answers the question rightly, else 0.0. Loads one checkpoint at a time."""
    from taskgalaxy_ops.evaluate.rank import Ranker

    methods = {
        BEFORE: {compare.BEFORE: {}, compare.BEFORE_SWAPPED: {"swap": True}},
        AFTER: {compare.AFTER: {}, compare.AFTER_SWAPPED: {"swap": True}},
        BLIND: {compare.BLIND: {"blind": True}},
    }
    right = {}
    answers = sum(len(each.candidates) for each in asked)
    progress.stage("score", answers * sum(len(methods[role]) for role in checkpoints), "answers")
    for role, checkpoint in checkpoints.items():
        ranker = Ranker(checkpoint)
        for method, options in methods[role].items():

            def rank(asked: Sequence[Asked], images: Sequence[str | None], ranker: Ranker = ranker) -> list[int]:
                return ranker.rank(asked, images, lambda done: progress.advance("score", done))

            right[method] = compare.answers(asked, rank, **options)
    return right


def parquet(scores: Sequence[Score]) -> bytes:
    """Scores as a Parquet file, a row each, without dates: equal scores give equal bytes."""
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([asdict(each) for each in scores]), out, compression="zstd")
    return out.getvalue()


def summary(tuning: Tuning, results: Mapping[str, Mapping[str, Any]], scored: Scored) -> dict[str, Any]:
    """The fine-tune's part of ``summary.json``: losses by job, and scores and verdicts by benchmark and family."""
    return {
        "model": tuning.recipe.name,
        "release": tuning.release.name,
        "loss": {
            role: {"first": result.get("loss_first"), "last": result.get("loss_last"), "steps": result.get("steps")}
            for role, result in results.items()
        },
        "benchmarks": [
            {
                "benchmark": each.benchmark,
                "family": each.family or "all",
                "questions": each.questions,
                "scores": {method: asdict(found) for method, found in each.scores.items()},
                "gain": asdict(each.gain),
                "seeing": asdict(each.seeing),
                "verdict": each.verdict,
            }
            for each in scored.comparisons
        ],
        "unrankable": scored.unrankable,
        "note": NOTE if tuning.recipe.base.model == TINY else None,
    }


NOTE = (
    "This shows plumbing and direction, not quality: a model of a million parameters, trained from nothing for a "
    "minute on what simulated models wrote."
)
