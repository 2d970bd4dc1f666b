"""The later turns of a conversation before one judge: each is understood by those before it, and answered anew."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from taskgalaxy_ops.simulator import follow_ups, templates
from taskgalaxy_ops.simulator.follow_ups import Turn
from taskgalaxy_ops.simulator.judges.checking import check
from taskgalaxy_ops.simulator.judges.finding import Finding


def check_later(
    judge: str, image: Image.Image, path: str, turns: Sequence[tuple[str, str | None]], first: Finding, key: str = ""
) -> Finding:
    """What a judge finds of a conversation: right if every turn is, and unsure where it cannot tell of one.

    path: the task type of the first question. turns: all questions with their answers, None where they are not shown.
    first: what the judge finds of the first turn.
    """
    unsure = first if first.right is None else None
    params = templates.load()[path].params(turns[0][0]) if path in templates.load() else None
    if first.right is False or params is None:
        return first
    before = [Turn(path=path, params=params, answer=turns[0][1])]
    for number, (question, answer) in enumerate(turns[1:], 2):
        meant = follow_ups.understood(path, before, question)
        if meant is None:
            if any(shown is None for _, shown in turns):
                break  # it may hang on an answer that is not shown
            return Finding(False, f"question {number} makes no sense after the turns before it")
        if meant in [(turn.path, turn.params) for turn in before]:
            return Finding(False, f"question {number} was asked before")
        asked = templates.load()[meant[0]].fill(0, **meant[1])
        found = check(judge, image, meant[0], asked, answer, None, key)
        if found.right is False:
            return Finding(False, f"turn {number}: {found.reason}")
        if found.right is None and unsure is None:
            unsure = Finding(None, f"turn {number}: {found.reason}")
        before.append(Turn(path=meant[0], params=meant[1], answer=answer))
    return unsure or Finding(True, f"all {len(turns)} turns hold; {first.reason}")
