"""Rules on where lines of text stand, alone and against one another, and whether they stand there at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from taskgalaxy_ops.simulator.judges import finding, layout, words
from taskgalaxy_ops.simulator.judges.finding import Found, SenselessError, short
from taskgalaxy_ops.simulator.judges.readers import Piece
from taskgalaxy_ops.simulator.judges.views import View

if TYPE_CHECKING:
    from taskgalaxy_ops.simulator.judges.checking import Rule

Params = Mapping[str, str]


def _half(view: View, params: Params) -> Found:
    y = layout.located(view, params["text"]).y / view.height
    right = ["upper half"] * (y < 0.52) + ["lower half"] * (y > 0.48)
    return finding.choice("the text stands in the", *right)


def _region(view: View, params: Params) -> Found:
    place = layout.located(view, params["text"])
    return finding.region("the text", place.x / view.width, place.y / view.height, slack=0.04)


def _compare(measure: Callable[[View, Piece], float], what: str, slack: Callable[[View], float]) -> Rule:
    """A rule that asks which of two lines comes first by a measure (the less the earlier)."""

    def rule(view: View, params: Params) -> Found:
        texts = params["first"], params["second"]
        first, second = (measure(view, layout.located(view, text)) for text in texts)
        if abs(first - second) <= slack(view):
            return Found(f"both are about as {what}", lambda said: None)
        right, other = texts if first < second else texts[::-1]
        return Found(
            f"'{short(right, 32)}' is {what}",
            lambda said: words.likeness(said, right) > max(0.8, words.likeness(said, other)),
        )

    return rule


def _below(view: View, params: Params) -> Found:
    place = layout.located(view, params["text"])
    lower = [line for line in [*view.lines, *view.pieces] if line.y > place.y + 0.5 * min(line.height, place.height)]
    if not lower:
        raise SenselessError("no line stands below it")
    nearest = min(line.y for line in lower)
    aligned = layout.under(view, place)
    right = [line.text for line in lower if line.y - nearest < 0.6 * line.height]
    return finding.text("the line below", *right, *([aligned.text] if aligned is not None else []))


def _claim(view: View, params: Params) -> Found:
    claimed = params["text"]
    candidates = [*view.lines, *view.pieces]
    there = any(
        words.digits(claimed) == words.digits(line.text)
        and words.likeness(claimed, line.text) > 0.93
        and words.same_words(claimed, line.text)
        for line in candidates
    )
    return finding.choice("the claim is", "true" if there else "false")


RULES: dict[str, Rule] = {
    "text position": _half,
    "text region localisation": _region,
    "left or right relation": _compare(lambda _, p: p.left, "further left", lambda view: 0.005 * view.width),
    "above or below relation": _compare(lambda _, p: p.y, "higher up", lambda view: 0.003 * view.height),
    "relative size comparison": _compare(
        lambda view, p: -layout.letters(view, p), "set in larger letters", lambda view: 0.5
    ),
    "referring expression grounding": _below,
    "visual claim verification": _claim,
}
