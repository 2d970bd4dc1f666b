"""The page of a forecast: what a run would cost."""

from __future__ import annotations

from collections.abc import Sequence

from taskgalaxy_ops.operations.forecast import Forecast
from taskgalaxy_ops.operations.probe import Probed
from taskgalaxy_ops.reports.html import table_page
from taskgalaxy_ops.reports.text import costs as costs_text

HEADER = ("source", "images left", "tokens", "cost", "at list prices", "estimated")


def forecast_page(found: Forecast, sources: Sequence[str], asked: Probed) -> str:
    """What a run of these sources would cost, with intervals (HTML). asked: by the probe before it."""
    lead = f"{', '.join(sources)}. In parentheses: the interval that holds in 95 of 100 cases."
    first, *reasons = costs_text.probed(asked)
    return table_page(
        "What a run would cost",
        [lead, f"Probe: {first}.", *reasons, *costs_text.forecast_notes(found, asked)],
        [("By source", HEADER, costs_text.forecast_rows(found))],
    )
