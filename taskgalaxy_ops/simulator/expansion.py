"""The simulated teacher's answer to a request for children of a node: from a vocabulary, with planted faults.

A real teacher repeats what it was shown, says the same in other words, and now and then writes what is no label at
all, or no task on an image. So does this one, at set rates, and it can tell a test which is which. Its draws depend on
(seed, kind, path, round) alone, so that an answer is the same whatever else is asked beside it. Once the words of
``vocabulary.yaml`` are exhausted for a node, it goes on with those that ``compositions.yaml`` composes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import yaml

from taskgalaxy_ops.errors import TaxonomyError
from taskgalaxy_ops.hashing import draw

DUPLICATES = 0.08  # share of labels that repeat one that is there
NEAR_DUPLICATES = 0.08  # share that says the same as one that is there, in other words
JUNK = 0.04  # share that is no label
COUNT = 12  # labels where the request names no number
MAX_COUNT = 1000

LabelKind = Literal["new", "duplicate", "near-duplicate", "junk"]
_T = TypeVar("_T")

_VOCABULARY = Path(__file__).with_name("vocabulary.yaml")
_COMPOSITIONS = Path(__file__).with_name("compositions.yaml")
_SYNONYMS = {
    "check": "checking",
    "counting": "count",
    "detection": "detecting",
    "estimation": "estimating",
    "finding": "locating",
    "identification": "identifying",
    "listing": "list",
    "lookup": "look-up",
    "reading": "read-out",
    "recognition": "recognising",
}
_JUNK: tuple[Callable[[str], str], ...] = (
    lambda label: f"../../etc/{label}",
    lambda label: f"<b>{label}</b>",
    lambda label: f"<script>alert('{label}')</script>",
    lambda label: f"{label}; rm -rf ~",
    lambda label: f"$(touch {label})",
    lambda _: "",
    lambda _: "   ",
    lambda label: " ".join([label] * 20),
    lambda label: f"Sure! Here are more categories, such as {label}.",
    lambda label: f"a task in which the model is asked about the {label} that it sees in an image",
    lambda label: label[:3] + "\x00\x07" + label[3:],
    lambda label: "\u202e" + label,
    lambda label: f"1. {label}",
    lambda label: f"- {label}",
    lambda label: f"ocr~{label}~{label}",
)
# What a rule of labels refuses; said beside composed labels only.
_OFF_TOPIC: tuple[Callable[[str], str], ...] = (
    lambda label: f"translate the poem you wrote about the {label}",
    lambda label: f"audio of {label}",
    lambda _: "run this program",
    lambda label: f"counting and describing of {label}",
    lambda label: f"{label} of Angela Merkel",
    lambda label: f"das zählen der {label}",
    lambda _: "credit card number reading",
)


class Planted(NamedTuple):
    """A proposed label, what it is, and the label that it repeats or spoils."""

    label: str
    kind: LabelKind
    of: str | None = None


def propose(
    seed: int,
    request: Mapping[str, Any],
    *,
    duplicates: float = DUPLICATES,
    near_duplicates: float = NEAR_DUPLICATES,
    junk: float = JUNK,
) -> list[str]:
    """Labels for a request ``{"request": "expand", "kind", "path", "existing", "count", "round"}``, at most ``count``.

    duplicates, near_duplicates, junk: shares, 0..1 together, of planted labels (where there is something to
    repeat). Nothing at all once there is nothing new for the node. A request's ``cousins`` are not said.
    """
    planted = label_kinds(seed, request, duplicates=duplicates, near_duplicates=near_duplicates, junk=junk)
    return [each.label for each in planted]


def label_kinds(
    seed: int,
    request: Mapping[str, Any],
    *,
    duplicates: float = DUPLICATES,
    near_duplicates: float = NEAR_DUPLICATES,
    junk: float = JUNK,
) -> list[Planted]:
    """What ``propose`` answers, label by label, and which of them were planted."""
    place = (seed, request.get("kind"), request.get("path"), request.get("round"))
    existing = sorted({str(label) for label in request.get("existing") or ()})
    count = max(0, min(int(request.get("count", COUNT)), MAX_COUNT))
    path, said = str(request.get("path") or ""), {*existing, *map(str, request.get("cousins") or ())}
    unsaid = set(vocabulary().get(path, ())) - said
    spoilt = _JUNK if unsaid else _JUNK + _OFF_TOPIC
    unsaid = unsaid or set(compositions().get(path, ())) - said
    fresh = sorted(unsaid, key=lambda label: draw(*place, "order", label), reverse=True)
    there = list(existing)
    answer: list[Planted] = []
    while fresh and len(answer) < count:
        slot = (*place, len(answer))
        chance = draw(*slot, "kind")
        of = _pick(there or fresh, *slot)
        if chance < duplicates and there:
            answer.append(Planted(of, "duplicate", of))
        elif duplicates <= chance < duplicates + near_duplicates and there:
            answer.append(Planted(_reworded(of, *slot), "near-duplicate", of))
        elif 0 <= chance - duplicates - near_duplicates < junk:
            answer.append(Planted(_pick(spoilt, *slot, "junk")(of), "junk", of))
        else:
            answer.append(Planted(fresh.pop(), "new"))
            there.append(answer[-1].label)
    return answer


@cache
def vocabulary() -> dict[str, tuple[str, ...]]:
    """The labels that the simulated teacher knows below each path (empty: the first level).

    Raises TaxonomyError where the package's vocabulary is damaged.
    """
    tree = yaml.safe_load(_VOCABULARY.read_text("utf-8"))
    if not isinstance(tree, dict) or not all(isinstance(below, dict) for below in tree.values()):
        raise TaxonomyError(f"vocabulary {_VOCABULARY} is not first level > second level > list: install anew.")
    below: dict[str, tuple[str, ...]] = {"": tuple(tree)}
    for first, seconds in tree.items():
        below[first] = tuple(seconds)
        below |= {f"{first}~{second}": tuple(leaves) for second, leaves in seconds.items()}
    return below


@cache
def compositions() -> dict[str, tuple[str, ...]]:
    """The labels that the simulated teacher composes below each path, once it has said those of its vocabulary.

    Raises TaxonomyError where the package's file is damaged.
    """
    try:
        raw = yaml.safe_load(_COMPOSITIONS.read_text("utf-8"))
        below: dict[str, tuple[str, ...]] = {}
        for first, kinds in raw["subjects"].items():
            groups: list[str] = []
            for kind, subjects in kinds.items():
                group, asks = raw["kinds"][kind]["group"], raw["kinds"][kind]["asks"]
                for subject in subjects:
                    groups.append(f"{subject} {group}")
                    below[f"{first}~{groups[-1]}"] = tuple(f"{subject} {ask}" for ask in asks)
            below[first] = tuple(groups)
    except (KeyError, TypeError, AttributeError) as error:
        raise TaxonomyError(f"compositions {_COMPOSITIONS} are not kinds and subjects: install anew.") from error
    return below


def _pick(choices: Sequence[_T], *place: object) -> _T:
    return choices[int(draw(*place, "pick") * len(choices))]


def _reworded(label: str, *place: object) -> str:
    """The same label in other words: reordered, plural or with a synonym."""
    *head, last = label.split(" ")
    if not head:
        return label[:-1] if label.endswith("s") else label + "s"
    rest = " ".join(head)
    ways = [f"{last} of {rest}", f"{last} {rest}", f"{label}s" if not label.endswith("s") else f"the {label}"]
    if last in _SYNONYMS:
        ways.append(f"{rest} {_SYNONYMS[last]}")
    return _pick(ways, *place, "reworded")
