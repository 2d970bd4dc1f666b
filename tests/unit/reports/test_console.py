"""What a person sees of a long run, where there is no terminal and where there is one."""

from __future__ import annotations

import pytest

from taskgalaxy_ops.reports import console
from taskgalaxy_ops.reports.console import show_progress, usage_line
from taskgalaxy_ops.usage import Usage

USAGE = Usage(calls=1234, prompt_tokens=5000, completion_tokens=500, cost=1_500_000, list_cost=20_000_000)


@pytest.mark.parametrize("terminal", [False, True])
def test_counts_calls_and_money_are_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    if terminal:
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with show_progress() as progress:
        progress.stage("generate", 2, "shards")
        progress.usage("generate", USAGE)
        progress.advance("generate", rejects=7)
        progress.advance("generate", pending=0)
        progress.note("[b]a note[/b] as it is")
    shown = capsys.readouterr().err
    assert "7 rejects" in shown
    assert "1,234 calls, 5,500 tokens, $0.0015 ($0.0200 at list prices)" in shown
    assert "[b]a note[/b] as it is" in shown
    assert ("2/2" if terminal else "2 of 2 shards") in shown


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress(quiet=True) as progress:
        progress.stage("generate", 2, "shards")
        progress.advance("generate")
        progress.usage("generate", USAGE)
        progress.note("a note")
    assert capsys.readouterr().err == ""


def test_without_list_prices_the_money_stands_alone() -> None:
    assert usage_line(Usage(calls=1, cost=5, list_cost=5)) == "1 calls, 0 tokens, $0.0000"


def test_of_an_unknown_number_the_done_ones_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_LINE_SECONDS", 0)
    told: list[str] = []
    lines = console.Lines(told.append)
    lines.stage("benchmark", None, "items")
    lines.advance("benchmark", 64)
    lines.advance("benchmark", 6)
    assert told == ["benchmark: 64 items", "benchmark: 70 items"]
