"""What a run lost by our fault or a model's: its share, its sentence, and the exit code."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from taskgalaxy_ops.cli.run import _exit_code
from taskgalaxy_ops.funnel import StageCounts
from taskgalaxy_ops.generation.lost import lost
from taskgalaxy_ops.records import Reason

STAGES = [
    StageCounts("filter", 100, 80, {Reason.NOT_FITTING: 15, Reason.MALFORMED: 3, Reason.REFUSED: 2}),
    StageCounts("write", 80, 79, {Reason.TOO_LONG: 1}),
]


def test_what_is_lost_is_what_ended_by_our_fault_or_a_models() -> None:
    found = lost(STAGES)
    assert (found.reasons, found.units) == ({"malformed reply": 3, "too long for the model": 1}, 180)
    assert found.words().startswith("4 of 180 units (2.2%) ended without an answer: 3 malformed reply, 1 too long")
    assert "taskgalaxy forget --where terminal='malformed reply'" in found.words()
    assert lost([]).share == 0


@pytest.mark.parametrize(("pending", "too_many", "code"), [(0, False, 0), (0, True, 4), (5, True, 3), (5, False, 3)])
def test_pending_beats_lost(pending: int, too_many: bool, code: int) -> None:
    results = SimpleNamespace(pending=pending, lost_too_many=too_many)
    assert _exit_code(results) == code  # type: ignore[arg-type]
