"""A pilot's forecast: from images that are answered in full, and none where nothing is known."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import TinyModels, tiny_images, tiny_models, tiny_seeds, tiny_settings, tiny_workspace

from taskgalaxy_ops.operations.pilot import pilot
from taskgalaxy_ops.progress import Silent
from taskgalaxy_ops.reports.text.release import forecast

__all__ = ["tiny_models"]


def asked(tmp_path: Path, models: TinyModels, replies: int | None):
    """The pilot of eight images, of which the models answer so many requests."""
    models.start(replies)
    tmp_path.mkdir(exist_ok=True)
    seeds = tiny_seeds(tmp_path / "seeds.yaml")
    location = tiny_images(tmp_path / "images", 8)
    settings = tiny_settings(location, taxonomy={"seeds": str(seeds)}, run={"units_a_request": 1})
    return pilot(tiny_workspace(settings), 8, Silent())


def test_a_pilot_without_an_answer_forecasts_nothing(tmp_path: Path, tiny_models: TinyModels) -> None:
    found = asked(tmp_path, tiny_models, 0)
    assert found.results.pending == 8 * 3
    assert found.full_bill is None
    (line,) = forecast(found.full_bill)
    assert line.startswith("no forecast") and "$" not in line


def test_a_pilot_that_ended_early_forecasts_from_what_is_answered_in_full(
    tmp_path: Path, tiny_models: TinyModels
) -> None:
    whole = asked(tmp_path / "whole", tiny_models, None)
    calls = tiny_models.requests
    assert whole.full_bill is not None and whole.full_bill["pilot"] == {"images": 8, "answered": 8}
    assert "answered in full" not in " ".join(forecast(whole.full_bill))
    assert whole.full_bill["calls"]["expected"] == pytest.approx(calls)
    half = asked(tmp_path / "half", tiny_models, calls - 4)  # few wait: of few answered ones, all may be cheap
    bill = half.full_bill
    assert half.results.pending and bill is not None
    assert 0 < bill["pilot"]["answered"] < 8
    low, high = (bill["calls"][name] for name in ("low", "high"))
    assert low <= calls <= high, "images that wait for answers are not counted as cheap"
    assert f"from the {bill['pilot']['answered']} of 8 images" in forecast(bill)[0]
