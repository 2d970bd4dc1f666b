"""Task types as a treemap: first-level nodes, in them their leaves; area is the number of items, every tile a link."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from taskgalaxy_ops.drawing.svg import count, esc, fitting
from taskgalaxy_ops.records import TaskTypePath

_WIDTH = 1200
_HEAD = 19  # height of a first-level node's caption
_HUES = 12
_MOST_TILES = 1200  # leaves that are drawn; the smaller ones of a first-level node share one tile


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels."""

    x: float
    y: float
    width: float
    height: float


def squarify(sizes: Sequence[float], box: Box) -> list[Box]:
    """Boxes that tile ``box``, with areas in proportion to ``sizes`` (positive, descending), as square as possible.

    Bruls, Huizing and van Wijk, *Squarified treemaps* (2000).
    """
    scale = box.width * box.height / sum(sizes) if sizes else 0.0
    areas = [size * scale for size in sizes]
    boxes: list[Box] = []
    while areas:
        side = min(box.width, box.height)
        row = 1
        while row < len(areas) and _worst(areas[: row + 1], side) <= _worst(areas[:row], side):
            row += 1
        thick = sum(areas[:row]) / side if side else 0.0
        along = 0.0
        for area in areas[:row]:
            length = area / thick if thick else 0.0
            if box.width >= box.height:
                boxes.append(Box(box.x, box.y + along, thick, length))
            else:
                boxes.append(Box(box.x + along, box.y, length, thick))
            along += length
        if box.width >= box.height:
            box = Box(box.x + thick, box.y, max(box.width - thick, 0), box.height)
        else:
            box = Box(box.x, box.y + thick, box.width, max(box.height - thick, 0))
        areas = areas[row:]
    return boxes


def _worst(areas: Sequence[float], side: float) -> float:
    """The worst aspect ratio in a row of boxes laid along a side."""
    total = sum(areas)
    if not total or not side:
        return float("inf")
    return max(side**2 * max(areas) / total**2, total**2 / (side**2 * min(areas)))


def treemap_svg(counts: Mapping[TaskTypePath, int], unit: str, height: int = 560) -> str:
    """The treemap as an SVG element; empty if all counts are 0. unit: what is counted, such as "samples"."""
    groups: dict[str, list[tuple[int, str]]] = {}
    drawn = sorted(((units, path) for path, units in counts.items() if units > 0), key=lambda t: (-t[0], t[1]))
    for place, (units, path) in enumerate(drawn):
        leaves = groups.setdefault(path.split("~")[0], [])
        if place < _MOST_TILES:
            leaves.append((units, path))
    totals = {name: sum(units for units, path in drawn if path.split("~")[0] == name) for name in groups}
    order = sorted(groups, key=lambda name: (-totals[name], name))
    boxes = squarify([totals[name] for name in order], Box(0, 0, _WIDTH, height))
    parts = [
        _group(name, totals[name], groups[name], box, (f"hue{place % _HUES}", unit))
        for place, (name, box) in enumerate(zip(order, boxes, strict=True))
    ]
    if not parts:
        return ""
    label = f"Treemap of {count(len(drawn))} task types by number of {unit}"
    return (
        f'<svg class="treemap" viewBox="0 0 {_WIDTH} {height}" role="group" aria-label="{esc(label)}">'
        f"{''.join(parts)}</svg>"
    )


def _group(name: str, total: int, leaves: Sequence[tuple[int, str]], box: Box, look: tuple[str, str]) -> str:
    hue, unit = look
    inner = Box(box.x + 1.5, box.y + 1.5, max(box.width - 3, 0), max(box.height - 3, 0))
    head = _HEAD if inner.height > 2.2 * _HEAD and inner.width > 34 else 0
    caption = f"{name}  {count(total)}"
    if fitting(caption, inner.width - 10, 13) != caption:
        caption = fitting(name, inner.width - 10, 13)  # 13 for a font of 12 px, because captions are bold
    parts = [
        f'<rect class="ground" x="{inner.x:.1f}" y="{inner.y:.1f}" width="{inner.width:.1f}" '
        f'height="{inner.height:.1f}" rx="3"/>'
    ]
    if head and caption:
        parts.append(f'<text class="caption" x="{inner.x + 6:.1f}" y="{inner.y + 14:.1f}">{esc(caption)}</text>')
    whole = _link(name, f"{name}: {count(total)} {unit}", "".join(parts))
    tiles = [(units, path, f"{' › '.join(path.split('~'))}: {count(units)} {unit}") for units, path in leaves]
    if rest := total - sum(units for units, _ in leaves):
        tiles.append((rest, name, f"{name}, its smaller task types together: {count(rest)} {unit}"))
    field = Box(inner.x + 2, inner.y + head + 1, max(inner.width - 4, 0), max(inner.height - head - 3, 0))
    placed = zip(tiles, squarify([units for units, _, _ in tiles], field), strict=True)
    drawn = "".join(_tile(path, units, label, at) for (units, path, label), at in placed)
    return f'<g class="{hue}">{whole}{drawn}</g>'


def _tile(path: str, units: int, label: str, box: Box) -> str:
    name = path.split("~")[-1]
    width, height = max(box.width - 1.5, 0.5), max(box.height - 1.5, 0.5)
    drawn = f'<rect class="tile" x="{box.x:.1f}" y="{box.y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2"/>'
    lines = _lines(name, width - 9, int((height - 4) // 13))
    for line, text in enumerate(lines):
        drawn += f'<text class="leaf" x="{box.x + 5:.1f}" y="{box.y + 14 + 13 * line:.1f}">{esc(text)}</text>'
    if lines and height > 13 * len(lines) + 20:
        drawn += f'<text class="units" x="{box.x + 5:.1f}" y="{box.y + 15 + 13 * len(lines):.1f}">{count(units)}</text>'
    return _link(path, label, drawn)


def _lines(name: str, width: float, most: int) -> list[str]:
    """A name in at most ``most`` lines that fit ``width`` pixels; no line where the tile is too small for text."""
    if width < 28 or most < 1:
        return []
    lines: list[str] = []
    for word in name.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and (len(lines) == most or fitting(joined, width, 11) == joined):
            lines[-1] = joined
        else:
            lines.append(word)
    return [text for line in lines if (text := fitting(line, width, 11))]


def _link(path: str, label: str, drawn: str) -> str:
    href = urlencode({"type": path}, errors="replace")
    return f'<a href="#{esc(href)}" aria-label="{esc(label)}"><title>{esc(label)}</title>{drawn}</a>'
