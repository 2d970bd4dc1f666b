"""The card's YAML header, which the Hugging Face hub and ``datasets`` read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from taskgalaxy_ops.release.licences import identifier
from taskgalaxy_ops.release.select import Selection

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def header_lines(header: Mapping[str, Any]) -> list[str]:
    """The YAML header that the Hub reads, as lines, with a blank line at the end."""
    return ["---", yaml.safe_dump(dict(header), sort_keys=False, allow_unicode=True).rstrip(), "---", ""]


def header(plan: Selection) -> dict[str, Any]:
    inputs = plan.inputs
    tags = ["taskgalaxy", "instruction-tuning", "vision-language", "image-text-to-text"]
    licences = set(map(identifier, plan.claimed.licences))
    number = plan.counts["samples"]
    return {
        "pretty_name": "TaskGalaxy release" + (" (simulated)" if inputs.simulated else ""),
        "annotations_creators": ["machine-generated"],
        "license": sorted(licences) or ["unknown"],
        "task_categories": ["visual-question-answering"],
        "size_categories": [next((name for bound, name in _SIZES if number < bound), "n>1M")],
        "tags": tags + ["simulated"] * inputs.simulated + ["partial"] * inputs.partial,
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}-*.parquet"} for split in plan.parts],
            }
        ],
    }
