"""What `release --to` says of the folder: whether it is whole, and how to have it so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from taskgalaxy_ops.funnel import StageCounts
from taskgalaxy_ops.release.publish import Published, ReleaseReceipt
from taskgalaxy_ops.reports.text.release import released

_RELEASE = Published(version=3, content="c", manifest_sha256="m", samples=9, task_types=2, images=1500, partial=False)
_RECEIPT = ReleaseReceipt(_RELEASE, "file:///store/releases/v000003/", True, StageCounts("release", 9, 9, {}))


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
