"""What goes into a stage and what comes out, in words; of ingest and release too, which are steps of their own."""

from __future__ import annotations

from taskgalaxy_ops.generation.stages import STAGES

UNITS = {
    "ingest": ("files", "images"),
    **{stage.name: stage.unit for stage in STAGES},
    "release": ("accepted", "samples"),
}
