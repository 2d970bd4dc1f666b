"""The page of coverage in a browser: it draws, goes into branches, filters, and asks for nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e.browsing import browser

from taskgalaxy_ops.reports.html.coverage import CoveragePage, PicturedGroup, render_coverage

HOSTILE = "<img src=x onerror=alert(1)>"
TYPES = [f"ocr~signs~sign {n}" for n in range(30)] + ["colour~main colour", f"colour~{HOSTILE}"]


def page_of(types: list[str]) -> str:
    number = len(types)
    samples = [n % 7 for n in range(number)]
    columns: dict[str, Any] = {
        "types": types,
        "samples": samples,
        "target": [3] * number,
        "matched": [10] * number,
        "kept": [5] * number,
        "pairs": samples,
        "why": ["" if each else "no pair is written" for each in samples],
    }
    return render_coverage(
        CoveragePage(
            facts=[("task types", str(number))],
            notes=[HOSTILE],
            columns=columns,
            flood=4,
            groups_lead="one",
            groups=[PicturedGroup(1, [], [HOSTILE])],
            sums={"source": {HOSTILE: {"samples": 1, "pairs": 1, "kept": 1, "matched": 1}}, "form": {}},
            simulated=True,
        )
    )


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as page:
        yield page


@pytest.mark.parametrize("many", [False, True])
def test_the_chart_and_the_list_follow_each_other(chromium: Any, tmp_path: Path, many: bool) -> None:
    types = sorted([*TYPES, *([f"gui~part {n // 40}~thing {n}" for n in range(2000)] if many else [])])
    file = tmp_path / "coverage.html"
    file.write_text(page_of(types), encoding="utf-8")
    trouble: list[str] = []
    asked: list[str] = []
    for event in ("console", "pageerror"):
        chromium.on(event, lambda found: trouble.append(str(found)))
    chromium.on("request", lambda request: asked.append(request.url))
    chromium.goto(file.as_uri())
    chromium.wait_for_selector("#chart canvas")
    assert chromium.inner_text("#count") == f"{len(types):,} task types"
    chromium.fill("#q", "sign 12")
    assert chromium.inner_text("#count") == "1 task type"
    assert "ocr › signs › sign 12" in chromium.inner_text("#rows")
    chromium.fill("#q", "")
    chromium.select_option("#branch", "colour")
    assert chromium.inner_text("#count") == "2 task types"
    assert HOSTILE in chromium.inner_text("#rows")
    chromium.select_option("#branch", "")
    box = chromium.locator("#chart canvas").bounding_box()
    chromium.mouse.click(box["x"] + box["width"] / 2, box["y"] + 20)  # the head of the branch in the middle
    chromium.wait_for_function("document.getElementById('branch').value !== ''")
    chromium.select_option("#area", "samples")
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert trouble == []
