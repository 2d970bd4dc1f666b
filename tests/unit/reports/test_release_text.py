"""What `release --to` says of the folder: whether it is whole, and how to have it so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from taskgalaxy_ops.funnel import StageCounts
from taskgalaxy_ops.release.changes import ReleaseChanges
from taskgalaxy_ops.release.publish import Published, ReleaseReceipt
from taskgalaxy_ops.reports.text.release import released

_RELEASE = Published(version=3, content="c", manifest_sha256="m", samples=9, task_types=2, images=1500, partial=False)
_RECEIPT = ReleaseReceipt(
    release=_RELEASE, path="file:///store/releases/v000003/", made=True, funnel=StageCounts("release", 9, 9, {})
)


@pytest.mark.parametrize(
    ("copied", "says"),
    [
        (1500, "It is whole: all 1,500 images are in it."),
        (1200, "It is not whole: 1,200 of 1,500 images are in it; the other 300 are only referred to"),
        (0, "It is not whole: no image is in it; the other 1,500 are only referred to"),
    ],
)
def test_a_local_copy_says_what_is_only_referred_to(tmp_path: Path, copied: int, says: str) -> None:
    manifest = {"counts": {"images": 1500, "images_copied": copied}, "files": {}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    last = released(_RECEIPT, tmp_path)[-1].strip()
    assert last.startswith(says)
    assert ("`release.copy_images_up_to`" in last) == (copied < 1500)
    assert len(released(_RECEIPT, None)) == 2


def test_a_release_says_what_it_gained_and_lost() -> None:
    changes = ReleaseChanges(since="v000002", kept=5, gained=4, lost={"over the cap": 1200, "task type retired": 2})
    lines = released(replace(_RECEIPT, changes=changes), None)
    assert lines[2] == (
        "  against v000002: 4 samples gained, 1,202 lost (1,200 over the cap; 2 task type retired), 5 in both"
    )
    lines = released(replace(_RECEIPT, changes=replace(changes, lost={})), None)
    assert lines[2] == "  against v000002: 4 samples gained, none lost, 5 in both"
