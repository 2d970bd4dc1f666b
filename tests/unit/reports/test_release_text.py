"""What `release` says of what it made, and of the folder that it exported: whether that is whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from taskgalaxy_ops.funnel import StageCounts
from taskgalaxy_ops.release.changes import ReleaseChanges
from taskgalaxy_ops.release.export import Exported
from taskgalaxy_ops.release.publish import Published, ReleaseReceipt
from taskgalaxy_ops.reports.text.release import exported, released

_RELEASE = Published(version=3, content="c", manifest_sha256="m", samples=9, task_types=2, images=1500, partial=False)
_RECEIPT = ReleaseReceipt(
    release=_RELEASE, path="file:///store/releases/v000003/", made=True, funnel=StageCounts("release", 9, 9, {})
)


@pytest.mark.parametrize(
    ("referred", "says"),
    [
        (0, "It is whole: all 1,500 images are in it."),
        (300, "IT IS NOT WHOLE: 300 of 1,500 images are not"),
    ],
)
def test_an_export_says_whether_it_is_whole(referred: int, says: str) -> None:
    lines = exported(Exported(Path("/out/v000003"), ("llava", "swift"), 9, 1500, referred))
    assert lines[0] == "  exported to /out/v000003: 9 samples as llava, swift"
    assert lines[1].strip().startswith(says)


def test_a_release_says_what_it_gained_and_lost() -> None:
    changes = ReleaseChanges(since="v000002", kept=5, gained=4, lost={"over the cap": 1200, "task type retired": 2})
    lines = released(replace(_RECEIPT, changes=changes))
    assert lines[2] == (
        "  against v000002: 4 samples gained, 1,202 lost (1,200 over the cap; 2 task type retired), 5 in both"
    )
    lines = released(replace(_RECEIPT, changes=replace(changes, lost={})))
    assert lines[2] == "  against v000002: 4 samples gained, none lost, 5 in both"
