"""Documents of many layouts, drawn from a seed: charts, tables, papers, cards, screens, drawings.

Image ``index`` of a seed is the same whatever the number of images, so that a small set is the start of a larger one;
the layouts take turns. Each image comes with its truth: the facts that it shows.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from random import Random

from taskgalaxy_ops.sources.builtin import Made
from taskgalaxy_ops.sources.builtin.documents import cards, charts, diagrams, drawings, figures, papers, screens, tables
from taskgalaxy_ops.sources.builtin.documents.canvas import Drawn
from taskgalaxy_ops.sources.inspecting import perceptual_hash

_TRIES = 40
_ALIKE = 3  # bits of the perceptual hash

LAYOUTS: dict[str, Callable[[Random], Drawn]] = {
    layout.__name__: layout
    for layout in (
        charts.bar_chart,
        papers.receipt,
        screens.settings_screen,
        cards.direction_sign,
        drawings.town_map,
        tables.data_table,
        figures.clock_face,
        charts.line_chart,
        papers.letter,
        cards.poster,
        screens.web_page,
        tables.calendar,
        drawings.flowchart,
        figures.coloured_shapes,
        charts.pie_chart,
        papers.form,
        cards.business_card,
        screens.slide,
        tables.menu,
        drawings.venn_diagram,
        diagrams.labelled_diagram,
        charts.horizontal_bars,
        cards.warning_sign,
        papers.invoice,
        screens.chat,
        tables.timetable,
        drawings.floor_plan,
        figures.blackboard,
        charts.grouped_bars,
        cards.book_cover,
        papers.two_column_page,
        screens.weather,
        tables.league_table,
        drawings.food_chain,
        figures.geometry_figure,
        charts.scatter_plot,
        cards.ticket,
        screens.dialog,
        papers.recipe,
        tables.school_timetable,
        drawings.family_tree,
        figures.thermometers,
        charts.stacked_bars,
        cards.opening_hours,
        screens.inbox,
        papers.certificate,
        tables.nutrition_label,
        figures.pattern_puzzle,
        charts.histogram,
        cards.parcel_label,
        screens.code_screen,
        charts.area_chart,
        figures.noughts_and_crosses,
    )
}


def documents(number: int, seed: int = 0) -> Iterator[tuple[str, Drawn]]:
    """The first ``number`` documents of a seed, each with the name of its layout.

    A document whose texts overlap or leave the sheet, or that looks like an earlier one, is drawn again at random, up
    to 40 times.
    """
    names = list(LAYOUTS)
    seen: list[int] = []
    for index in range(number):
        name = names[index % len(names)]
        for attempt in range(_TRIES):
            drawn = LAYOUTS[name](Random(f"{seed}/{index}/{attempt}"))
            looks = int(perceptual_hash(drawn.image), 16)
            if drawn.legible() and all((looks ^ other).bit_count() > _ALIKE for other in seen):
                break
        seen.append(looks)
        yield name, drawn


def images(limit: int | None, seed: int) -> Iterator[Made]:
    """The documents as PNG files, named in order. The truth lists every text with its box, in pixels."""
    for index, (layout, drawn) in enumerate(documents(limit or 300, seed)):
        raw = io.BytesIO()
        drawn.image.save(raw, "PNG", compress_level=4)
        truth = {**drawn.truth, "texts": [{"text": text, "box": box} for text, box in drawn.texts]}
        yield Made(
            file=f"{index:05d}-{layout.replace('_', '-')}.png",
            raw=raw.getvalue(),
            kind=layout,
            truth=truth,
            licence="CC0-1.0",
            attribution="TaskGalaxy document generator",
        )
