"""Rules on what kind of thing is shown: the classifier on each judge's own cuts of the image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from taskgalaxy_ops.simulator.judges import finding, things
from taskgalaxy_ops.simulator.judges.finding import Found, SenselessError
from taskgalaxy_ops.simulator.judges.views import View

if TYPE_CHECKING:
    from taskgalaxy_ops.simulator.judges.checking import Rule

Params = Mapping[str, str]
_LEAST = 0.06  # probability of a group under which the image is taken to show nothing of it
_NEAR = 0.3  # share of the likeliest class's probability from which another may be meant


def _kind(group: str, least: float = _LEAST) -> Rule:
    """A rule that asks which of a group is shown."""

    def rule(view: View, _: Params) -> Found:
        share = things.share(view, group)
        name, most = things.top(view, things.GROUPS[group])
        if share < least:
            raise SenselessError(f"I see no {group}, rather a {things.top(view)[0]}")
        return _class(view, f"the {group} is a {name}", things.GROUPS[group], most)

    return rule


def _class(view: View, said: str, group: frozenset[int] | None, most: float) -> Found:
    likely = things.probabilities(view)

    def agrees(answer: str) -> bool:
        meant = things.classes(answer)
        if group is not None:
            meant &= group
        return bool(meant) and max(float(likely[i]) for i in meant) >= _NEAR * most

    return Found(said, agrees)


def _main(view: View, _: Params) -> Found:
    name, most = things.top(view)
    return _class(view, f"I see a {name} ({most:.0%})", None, most)


def _presence(group: str) -> Rule:
    """A rule that asks whether anything of a group is there."""

    def rule(view: View, _: Params) -> Found:
        share = things.share(view, group)
        return finding.yes_no(f"{share:.0%} of what I recognise is {group}", share > 0.25)

    return rule


def _cat_or_dog(view: View, _: Params) -> Found:
    cat, dog = things.share(view, "cat"), things.share(view, "dog")
    if cat + dog < _LEAST:
        raise SenselessError("I see neither a cat nor a dog")
    return finding.choice(f"cat {cat:.0%}, dog {dog:.0%}", "cat" if cat > dog else "dog")


def _wild(view: View, _: Params) -> Found:
    animal = things.share(view, "animal")
    if animal < _LEAST:
        raise SenselessError("I see no animal")
    pets = float(things.probabilities(view)[sorted(things.GROUPS["pet"])].sum())
    return finding.choice("this kind of animal lives", "with people" if pets > animal / 2 else "in the wild")


def _element(view: View, _: Params) -> Found:
    vehicle = things.share(view, "vehicle")
    if vehicle < _LEAST:
        raise SenselessError("I see no vehicle")
    water, air = things.share(view, "vessel"), things.share(view, "air")
    shares = {"on water": water, "in the air": air, "on land": max(0.0, vehicle - water - air)}
    return finding.choice("the vehicle moves", max(shares, key=lambda k: shares[k]))


def _alive(view: View, _: Params) -> Found:
    share = things.share(view, "animal") + things.share(view, "plant")
    return finding.choice(f"{share:.0%} of what I recognise lives", "alive" if share > 0.5 else "made by people")


RULES: dict[str, Rule] = {
    "animal kind identification": _kind("animal"),
    "dog breed identification": _kind("dog"),
    "cat or dog distinction": _cat_or_dog,
    "bird species identification": _kind("bird"),
    "insect identification": _kind("insect"),
    "sea creature identification": _kind("sea creature"),
    "reptile identification": _kind("reptile"),
    "wild or domestic animal": _wild,
    "animal presence check": _presence("animal"),
    "vehicle type identification": _kind("vehicle"),
    "vehicle presence check": _presence("vehicle"),
    "boat & ship identification": _kind("vessel"),
    "land water or air vehicle": _element,
    "dish identification": _kind("food"),
    "fruit & vegetable identification": _kind("fruit"),
    "food presence check": _presence("food"),
    "main object identification": _main,
    "musical instrument identification": _kind("instrument"),
    "tool identification": _kind("tool"),
    "clothing item identification": _kind("garment"),
    "furniture identification": _kind("furniture"),
    "household appliance identification": _kind("appliance"),
    "electronic device identification": _kind("device"),
    "sports equipment identification": _kind("sports"),
    "kitchenware identification": _kind("kitchenware"),
    "living or man-made": _alive,
}
