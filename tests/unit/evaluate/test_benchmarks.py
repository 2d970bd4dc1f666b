"""The 16 benchmarks, their table, and the line between what was measured and what others published."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from taskgalaxy_ops.errors import EvaluationError
from taskgalaxy_ops.evaluate.benchmarks import AVERAGED, BENCHMARKS, MME, NAMES, average, find, markdown
from taskgalaxy_ops.evaluate.published import FILE, published
from taskgalaxy_ops.evaluate.scores import Score
from taskgalaxy_ops.evaluate.table import AVERAGE, frame, poster

POSTER = (
    *("MME", "MMBench", "MMBench-CN", "POPE", "LLaVA-in-the-Wild", "MM-Vet", "TextVQA", "ScienceQA", "MathVista"),
    *("ChartQA", "AI2D", "Q-Bench", "Q-Bench-CN", "HallusionBench", "SEED", "MMMU"),
)


def score(benchmark: str = "POPE", value: float = 80.0, method: str = "TaskGalaxy", **more: object) -> Score:
    return replace(
        Score(model="tiny", method=method, benchmark=benchmark, family="", metric="exact_match", value=value), **more
    )  # type: ignore[arg-type]


def row(table: str, method: str) -> list[str]:
    """The cells of a method's row."""
    line = next(line for line in table.splitlines() if f"| {method}" in line or f"*{method}*" in line)
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_the_posters_benchmarks_in_the_posters_order() -> None:
    assert NAMES == POSTER
    assert [each.name for each in find(["SEED", "MME"])] == ["SEED", "MME"]
    assert [each.name for each in BENCHMARKS if each.judge] == [
        *("MMBench", "MMBench-CN", "LLaVA-in-the-Wild", "MM-Vet", "MathVista", "HallusionBench")
    ]
    assert [each.name for each in BENCHMARKS if each.task is None] == ["Q-Bench-CN"]
    with pytest.raises(EvaluationError, match=r"'GQA' is unknown\. Known: MME, "):
        find(["GQA"])


def test_mme_is_not_in_the_average() -> None:
    figures = {name: 50.0 + number for number, name in enumerate(AVERAGED)}
    assert len(AVERAGED) == 15
    assert average(figures) == average({**figures, MME: 1500.0}) == pytest.approx(57.0)


@pytest.mark.parametrize("missing", AVERAGED)
def test_an_incomplete_average_is_empty(missing: str) -> None:
    scores = [score(name) for name in NAMES if name != missing]
    assert average({each.benchmark: each.value for each in scores}) is None
    assert math.isnan(frame(scores).loc[0, AVERAGE])
    assert row(poster(scores), "TaskGalaxy")[2 + NAMES.index(missing)] == ""
    assert row(poster(scores), "TaskGalaxy")[2 + len(NAMES)] == ""


def test_a_whole_row() -> None:
    table = frame([score(name, 1500.0 if name == MME else 60.0) for name in reversed(NAMES)])
    assert list(table.columns) == ["model", "method", "measured", "source", *NAMES, AVERAGE]
    assert table.loc[0, AVERAGE] == 60.0
    cells = row(poster([score(name, 1500.0 if name == MME else 60.0) for name in NAMES]), "TaskGalaxy")
    assert cells == ["tiny", "TaskGalaxy", "1500", *["60.0"] * 16]


def test_what_is_published_never_completes_what_was_measured() -> None:
    measured = [score(name, 70.0) for name in AVERAGED[:-1]]
    others = score(AVERAGED[-1], 10.0, measured=False, source="a paper")
    table = frame([*measured, others])
    assert list(table["measured"]) == [True, False]
    assert table[AVERAGE].isna().all()
    assert math.isnan(table.loc[0, AVERAGED[-1]])


def test_two_sources_are_two_rows() -> None:
    two = [score(value=value, measured=False, source=source) for value, source in ((1.0, "one"), (2.0, "two"))]
    assert list(frame(two)["POPE"]) == [1.0, 2.0]
    assert "¹ Published, not measured here: one\n\n² Published, not measured here: two" in poster(two)


def test_published_rows_are_marked_and_measured_ones_plain() -> None:
    text = poster([score(), score(value=90.0, method="Baseline", measured=False, source="a paper")])
    assert row(text, "Baseline")[:2] == ["*tiny*", "*Baseline* ¹"]
    assert "*90.0*" in row(text, "Baseline")
    assert text.rstrip().endswith("¹ Published, not measured here: a paper")
    assert "80.0" in row(text, "TaskGalaxy")
    assert "¹" not in " ".join(row(text, "TaskGalaxy"))


def test_the_best_measured_is_bold_within_its_model() -> None:
    text = poster(
        [
            score(value=81.0),
            score(value=80.0, method="Baseline"),
            score(value=99.0, method="Others", measured=False, source="a paper"),
            score(value=98.0, method="A trial", source="a trial, the first 8 questions of each benchmark"),
            score(value=97.0, model="big", method="Alone"),
        ]
    )
    assert "**81.0**" in row(text, "TaskGalaxy")
    assert text.count("**") == 2
    assert "Measured here: a trial" in text


def test_our_own_benchmarks_follow_and_families_stay_out() -> None:
    own = score("held-out", 0.5, metric="accuracy")
    scores = [own, score("held-out", 0.1, metric="accuracy", family="ocr")]
    assert list(frame(scores).columns)[-2:] == [AVERAGE, "held-out"]
    assert frame(scores).loc[0, "held-out"] == 50.0
    assert list(frame(scores, ["held-out"]).columns)[4:] == ["held-out"]
    assert row(poster(scores, ["held-out"]), "TaskGalaxy") == ["tiny", "TaskGalaxy", "50.0"]
    assert AVERAGE in frame(scores, AVERAGED)


def test_models_stay_together() -> None:
    scores = [score(), score(model="big"), score(method="Baseline")]
    assert list(frame(scores)["model"]) == ["tiny", "tiny", "big"]


def test_text_of_the_users_shows_as_itself() -> None:
    text = poster([score(model="a|b\n*c* <img src=x>", method="[d](http://e)", source="`f` www.g", measured=False)])
    table, note = text.split("\n\n")[:2]
    assert len(table.splitlines()) == 3
    assert len({line.count("|") for line in table.splitlines()}) == 1
    for raw in ("*c*", "<img", "[d]", "http://", "`", "www.g"):
        assert raw not in text
    assert "&#60;img" in table
    assert "&#96;f&#96;" in note


def test_a_cell_has_one_number() -> None:
    with pytest.raises(EvaluationError, match="tiny, TaskGalaxy: two scores of POPE"):
        poster([score(), score(value=1.0)])
    with pytest.raises(EvaluationError, match="POPE is nan"):
        frame([score(value=math.nan)])


def test_no_scores_no_rows() -> None:
    assert frame([]).empty
    assert len(poster([]).splitlines()) == 2


def test_published_figures_have_a_source_and_no_average() -> None:
    found = published()
    assert found
    assert all(not each.measured and each.source and "https://" in each.source for each in found)
    assert {each.benchmark for each in found} <= set(NAMES)
    assert frame(found)[AVERAGE].isna().all()
    only = [each for each in found if each.model == "LLaVA-v1.5-7B"]
    assert {each.benchmark: each.value for each in only}["MM-Vet"] == 31.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "nobody"}, "LLaVA-v1.5-7B, Baseline: no source"),
        ({"figures": {"POPE": 859}}, r"POPE is 859\. Give a number in 0\.\.100"),
        ({"figures": {"POPE": "85.9"}}, "POPE is '85.9'"),
        ({"figures": {"GQA": 62.0}}, "'GQA' is unknown"),
    ],
)
def test_a_wrong_published_row_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    content = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    content["rows"][0] |= change
    file = tmp_path / "published.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(EvaluationError, match=message):
        published(file)


def test_the_docs_hold_the_table() -> None:
    text = (Path(__file__).parents[3] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert "\n".join(markdown()) in text
