"""The result card of a fine-tune."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from taskgalaxy_ops.errors import NotFoundError
from taskgalaxy_ops.evaluate.compare import METHODS, Interval
from taskgalaxy_ops.evaluate.plots import loss_plot, score_plot
from taskgalaxy_ops.evaluate.run import NOTE, Scored
from taskgalaxy_ops.finetune import run as finetune_run
from taskgalaxy_ops.finetune.progress import points
from taskgalaxy_ops.finetune.run import Tuning
from taskgalaxy_ops.finetune.tiny import TINY
from taskgalaxy_ops.reports.html import table_page
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.workspace import Workspace


def write_card(workspace: Workspace, tuning: Tuning, scored: Scored) -> None:
    """Write the result card of a scored fine-tune to the store, unless it is already there."""
    key = keys.report(scored.page)
    with contextlib.suppress(NotFoundError):
        workspace.store.age(key)
        return
    results = finetune_run.results(workspace, tuning.jobs)
    page = tuning_page(tuning, results, scored, simulated=tuning.copy.manifest()["simulated"])
    workspace.store.replace(key, page.encode())


def tuning_page(tuning: Tuning, results: Mapping[str, Mapping[str, Any]], scored: Scored, simulated: bool) -> str:
    """The result card of a fine-tune (HTML): jobs and data, loss curves, scores with controls, verdicts."""
    recipe = tuning.recipe
    lead = [
        f"{recipe.about} Trained on {tuning.release.name}: {tuning.release.samples:,} samples of "
        f"{tuning.release.task_types:,} task types, mixed with "
        f"{', '.join(data.name for data in recipe.base_data) or 'nothing'}.",
    ]
    if recipe.base.model == TINY:
        lead.append(NOTE)
    if simulated:
        lead.append("SIMULATED: the teacher and judges that made the release are simulated models.")
    jobs = [
        (
            role,
            job.name,
            job.trainer,
            *(_shown(results[role].get(name)) for name in ("examples", "steps", "loss_first", "loss_last", "seconds")),
        )
        for role, job in tuning.jobs.items()
        if role in results
    ]
    methods = [name for name in METHODS if any(name in each.scores for each in scored.comparisons)]
    rows = [
        (
            f"{each.benchmark}: {each.family or 'all'} ({each.questions:,})",
            *(_interval(each.scores[name]) if name in each.scores else "" for name in methods),
            _interval(each.gain, sign=True),
            each.verdict,
        )
        for each in scored.comparisons
    ]
    curves = {role: [(p.step, p.loss) for p in points(job.folder)] for role, job in tuning.jobs.items()}
    return table_page(
        f"Fine-tune: {recipe.name} on {tuning.release.name}",
        lead,
        [
            ("Jobs", ("role", "job", "trainer", "examples", "steps", "first loss", "last loss", "seconds"), jobs),
            ("Scores", ("questions", *methods, "gain", "verdict"), rows),
        ],
        [("Loss", loss_plot(curves)), ("Scores with 95 % intervals", score_plot(scored.comparisons))],
    )


def _interval(interval: Interval, sign: bool = False) -> str:
    value = f"{interval.value:+.2f}" if sign else f"{interval.value:.2f}"
    return f"{value} [{interval.low:.2f}, {interval.high:.2f}]"


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"
