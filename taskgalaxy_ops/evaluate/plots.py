"""Pictures of a fine-tune: loss curves, and scores with their intervals. SVG without dates: equal input gives equal
bytes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from taskgalaxy_ops.evaluate.compare import AFTER, AFTER_SWAPPED, BEFORE, BLIND, MAJORITY, Comparison, Interval

_COLOURS = {BEFORE: "#8a8f98", AFTER: "#1f6f8b", AFTER_SWAPPED: "#d1793b", BLIND: "#b5a642", MAJORITY: "#444444"}
_MARKS = {BEFORE: "s", AFTER: "o", AFTER_SWAPPED: "X", BLIND: "D", MAJORITY: "|"}
_STYLE = {"svg.hashsalt": "taskgalaxy", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False}


def loss_plot(curves: Mapping[str, Sequence[tuple[int, float]]]) -> bytes:
    """Loss over steps, a line a job (SVG). curves: by the job's name, points of (step, loss in nats a token)."""
    with _figure(6.4, 3.2) as (figure, axes):
        for name, points in curves.items():
            if points:
                axes.plot(*zip(*points, strict=True), label=name, linewidth=1.6)
        axes.set(xlabel="step", ylabel="loss (nats a token of the answer)")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)
        return _svg(figure)


def score_plot(comparisons: Sequence[Comparison]) -> bytes:
    """Accuracy with 95 % intervals (SVG): a row for each benchmark and family, a mark for each method."""
    rows = [each for each in comparisons if not each.family] + [each for each in comparisons if each.family]
    rows.sort(key=lambda each: (each.benchmark, each.family))
    with _figure(8.0, 1.2 + 0.55 * len(rows)) as (figure, axes):
        for number, each in enumerate(reversed(rows)):
            for place, method in enumerate(_COLOURS):
                if (score := each.scores.get(method)) is None:
                    continue
                spread = [[max(score.value - score.low, 0)], [max(score.high - score.value, 0)]]
                axes.errorbar(
                    score.value,
                    number + 0.3 - 0.15 * place,
                    xerr=None if method == MAJORITY else spread,
                    fmt=_MARKS[method],
                    color=_COLOURS[method],
                    markersize=5 if method != MAJORITY else 10,
                    linewidth=1.2,
                    label=method if number == 0 else None,
                )
        labels = [
            f"{each.benchmark}{f': {each.family}' if each.family else ', all'} ({each.questions})" for each in rows
        ]
        axes.set_yticks(range(len(rows)), list(reversed(labels)))
        axes.set(xlabel="share answered rightly, 95 % interval", xlim=(-0.02, 1.02), ylim=(-0.6, len(rows) - 0.4))
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.35, 1.0), ncols=3)
        return _svg(figure)


def study_plot(
    rows: Sequence[tuple[str, float, Interval, float]], seeds: Mapping[str, Sequence[float]], title: str
) -> bytes:
    """Accuracy above chance by number of task types (SVG).

    rows: name of the arm, number of task types, accuracy above chance, the same with swapped images. seeds: by name of
    the arm, the accuracy above chance of each seed.
    """
    with _figure(6.8, 4.0) as (figure, axes):
        types = [row[1] for row in rows]
        intervals = [row[2] for row in rows]
        low, high = [each.low for each in intervals], [each.high for each in intervals]
        axes.fill_between(types, low, high, color="#1f6f8b", alpha=0.15, linewidth=0, label="95 % interval over seeds")
        axes.plot(types, [each.value for each in intervals], "-o", color="#1f6f8b", label="mean of the seeds")
        axes.plot(types, [row[3] for row in rows], "--X", color="#d1793b", label="with images swapped")
        for number, (name, count, *_) in enumerate(rows):
            values = seeds[name]
            axes.plot([count] * len(values), values, "x", color="#8a8f98", label=None if number else "a seed")
        axes.axhline(0, color="#444444", linewidth=0.8, linestyle=":")
        axes.set_xscale("log", base=2)
        axes.set_xticks(types, [f"{name}\n({count:g})" for name, count, *_ in rows])
        axes.minorticks_off()
        axes.set(
            xlabel="share (and number) of task types trained on, at the same number of samples",
            ylabel="accuracy above chance,\nheld-out task types",
        )
        axes.set_title(title, fontsize=10)
        axes.legend(frameon=False)
        return _svg(figure)


class _figure:
    def __init__(self, width: float, height: float) -> None:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        self._style = pyplot.style.context(_STYLE)
        self._pyplot, self._size = pyplot, (width, height)

    def __enter__(self) -> tuple[Any, Any]:
        self._style.__enter__()
        self._made = self._pyplot.subplots(figsize=self._size, layout="constrained")
        return self._made

    def __exit__(self, *error: Any) -> None:
        self._pyplot.close(self._made[0])
        self._style.__exit__(*error)


def _svg(figure: Any) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None}, bbox_inches="tight")
    return out.getvalue()
