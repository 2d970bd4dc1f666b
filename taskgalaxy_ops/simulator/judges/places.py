"""Where a text or a shape is: each judge measures in its own reading, and cuts a line's box to the ink in it."""

from __future__ import annotations

import numpy as np

from taskgalaxy_ops.simulator.boxes import Box, Sought
from taskgalaxy_ops.simulator.judges import figures, layout, rules_shapes
from taskgalaxy_ops.simulator.judges.finding import SenselessError
from taskgalaxy_ops.simulator.judges.views import View


def box(view: View, sought: Sought) -> Box:
    """The box of the one thing that is sought. Raises SenselessError where there is none, or more than one."""
    if sought.text:
        return _inked(view, sought.text)
    found = [
        figure.box
        for figure in figures.figures(view)
        if figure.shape == sought.shape
        and (not sought.colour or sought.colour in rules_shapes.colour_names(view, figure))
    ]
    if len(found) != 1:
        raise SenselessError(f"I see {len(found) or 'no'} {sought.colour} {sought.shape}".replace("  ", " "))
    return found[0]


def _inked(view: View, text: str) -> Box:
    piece = layout.located(view, text)
    left, top = max(0, int(piece.left)), max(0, int(piece.top))
    ink = layout.ink(np.asarray(view.image.crop((left, top, int(piece.right) + 1, int(piece.bottom) + 1)).convert("L")))
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    if not len(rows):
        return piece.left / view.width, piece.top / view.height, piece.right / view.width, piece.bottom / view.height
    return (
        (left + int(columns[0])) / view.width,
        (top + int(rows[0])) / view.height,
        (left + int(columns[-1]) + 1) / view.width,
        (top + int(rows[-1]) + 1) / view.height,
    )
