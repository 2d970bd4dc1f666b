"""The loop that minds the local Airflow's scheduler."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from taskgalaxy_ops.demo.airflow_stack import _AGAIN, failure


@pytest.mark.parametrize(("seconds", "starts"), [(1, 5), (70, 8)])
def test_a_scheduler_that_ends_is_started_again_unless_it_ends_at_once(
    tmp_path: Path, seconds: int, starts: int
) -> None:
    """``seconds``: how long it lives each time, by a clock of ours. It would end well the eighth time."""
    clock, lives = tmp_path / "clock", tmp_path / "lives"
    lives.touch()
    clock.write_text("0")
    for name, script in {
        "date": f'cat "{clock}"',
        "sleep": "true",
        "scheduler": f'echo >> "{lives}"; echo $(($(cat "{clock}") + {seconds})) > "{clock}"; '
        f'[ $(wc -l < "{lives}") -ge 8 ]',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    done = subprocess.run(
        ["/bin/sh", "-c", _AGAIN, "sh", "scheduler"], env={"PATH": path}, capture_output=True, timeout=60
    )
    assert len(lives.read_text().splitlines()) == starts, done.stderr
    assert (done.returncode == 0) == (starts == 8)


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["::group::x", "AirflowError: gone", "::endgroup::"], "AirflowError: gone"),
        (["asking", "::endgroup::"], "asking"),
        (["::endgroup::"], "its log is empty"),
        (
            [
                "Task exited",
                "TaskGalaxy: d.t (s) failed in run m__2026-12-02T01:20:53: s: budget spent",
                "::endgroup::",
            ],
            "s: budget spent",
        ),
    ],
)
def test_a_failure_is_told_by_its_own_words(lines: list[str], why: str) -> None:
    class Client:
        def log(self, _: object) -> list[str]:
            return lines

    assert failure(Client(), {}) == why  # type: ignore[arg-type]
