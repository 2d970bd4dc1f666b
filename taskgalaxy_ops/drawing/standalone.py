"""An SVG element of a page as a file of its own, in the page's colours; dark where the reader prefers that."""

from __future__ import annotations

from importlib import resources


def standalone(svg: str) -> bytes:
    """The element as a file, with its style and a ground. svg: what ``funnel_svg`` or ``treemap_svg`` returns."""
    svg = svg or '<svg viewBox="0 0 1 1"></svg>'  # there was nothing to draw
    css = resources.files(__package__).joinpath("standalone.css").read_text("utf-8")
    start = svg.index(">") + 1
    ground = '<rect class="paper" width="100%" height="100%" rx="6"/>'
    _, _, width, height = svg.split('viewBox="', 1)[1].split('"', 1)[0].split()
    size = f'xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
    opened = svg[:start].replace("<svg ", f"<svg {size} ", 1)
    return f"{opened}<style>{css}</style>{ground}{svg[start:]}\n".encode()
