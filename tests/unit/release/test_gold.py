"""Gold sets: files that people write, calibration, and the prediction-powered share of right samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.release.agreement import Interval
from taskgalaxy_ops.release.gold import calibration_error, powered_share, read_gold

A, B = "a" * 64, "b" * 64


def test_both_kinds_of_file_say_the_same(tmp_path: Path) -> None:
    lines, table = tmp_path / "gold.jsonl", tmp_path / "gold.csv"
    lines.write_text(f'{{"pair": "{A}", "right": true, "who": "me"}}\n\n{{"pair": "{B}", "right": 0}}\n')
    table.write_text(f"pair,right,who\n{A},yes,me\n{B},False,\n", encoding="utf-8-sig")
    assert read_gold(lines) == read_gold(table) == {A: True, B: False}


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.jsonl", f'{{"pair": "{A}"}}', "line 1: no pair and verdict"),
        ("a.jsonl", f'{{"pair": "{A[:60]}", "right": 1}}', "line 1: no pair and verdict"),
        ("a.jsonl", '{"pair": 3, "right": 1}', "line 1: no pair and verdict"),
        ("a.jsonl", "[1]", "line 1: no pair and verdict"),
        ("a.jsonl", "{", "no JSON Lines"),
        ("a.csv", f"pair,right\n{A},perhaps\n", "line 2: no pair and verdict"),
        ("a.csv", f"pair,right\n{A},1\n{A},0\n", "is both right and wrong"),
    ],
)
def test_a_file_that_says_no_verdict_is_refused_with_its_line(tmp_path: Path, name: str, text: str, told: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SettingsError, match=told):
        read_gold(tmp_path / name)


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="Write it anew"):
        read_gold(tmp_path / "a.jsonl")


def test_calibration_is_the_mean_distance_of_probability_and_share() -> None:
    assert calibration_error([0.8] * 10, [True] * 8 + [False] * 2) == 0
    assert calibration_error([0.95, 0.95, 0.05, 0.05], [True, False, False, False]) == 0.25
    assert calibration_error([], []) is None


def test_the_share_by_predictions_covers_the_truth_and_is_narrower_than_gold_alone() -> None:
    covered, narrower = 0, 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        p = np.where(random.random(5_000) < 0.7, 0.95, 0.3)
        right = random.random(5_000) < p - 0.05  # predictions are too high
        gold = slice(0, 200)
        found = powered_share(p[200:].tolist(), p[gold].tolist(), right[gold].tolist())
        assert found is not None
        alone = Interval.of_share(int(right[gold].sum()), 200)
        covered += found.low <= 0.705 <= found.high
        narrower += found.high - found.low < alone.high - alone.low
    assert covered >= 53
    assert narrower == 60


def test_little_gold_counts_alone() -> None:
    assert powered_share([0.9] * 99, [0.9], [True]) is None
    assert powered_share([0.9] * 99, [0.9] * 10, [True] * 9 + [False]) == Interval.of_share(9, 10)
    assert powered_share([0.9] * 99, [0.8, 0.9] * 20, [True] * 40) == Interval.of_share(40, 40)
