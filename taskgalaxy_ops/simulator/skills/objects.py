"""Skills that name what a photograph shows, by an ImageNet classifier, where that is confident."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

from taskgalaxy_ops.simulator.perception import Scene
from taskgalaxy_ops.simulator.skills.base import Found, need, one, skill

_SURE = 0.72  # probability of one class
_ALL = 0.85  # of a group of classes


def _set(text: str) -> frozenset[int]:
    """Class indices written as "1 4-6"."""
    found: set[int] = set()
    for part in text.split():
        low, _, high = part.partition("-")
        found.update(range(int(low), int(high or low) + 1))
    return frozenset(found)


_ANIMALS = _set("0-50 52-68 70-150 151-397")
_DOGS, _CATS = _set("151-268"), _set("281-285")
_BIRDS = _set("7-24 80-100 127-146")
_INSECTS = _set("70-79 300-326")
_SEA = _set("0-6 107-109 112 115 117-125 147-150 327-329 389-397")
_REPTILES = _set("33-50 52-68")
# What people call an animal when they do not name its species.
_KINDS = {
    "dog": _DOGS,
    "cat": _CATS,
    "bird": _BIRDS,
    "spider": _set("72-77"),
    "butterfly": _set("321-326"),
    "beetle": _set("300-307"),
    "snake": _set("52-68"),
    "lizard": _set("38-48"),
    "turtle": _set("33-37"),
    "shark": _set("2-4"),
    "frog": _set("30-32"),
    "bear": _set("294-297"),
    "monkey": _set("370-382"),
    "fox": _set("277-280"),
    "wolf": _set("269-271"),
    "rabbit": _set("330-332"),
    "crab": _set("118-121"),
    "elephant": _set("101 385-386"),
    "horse": _set("339"),
}
_SHARD_ID = _DOGS | _CATS | _set("7-8 332-333 338-339 341 348 355")
_WILD = _set("9 21-24 49-50 84 96 100 130 145-149 269-280 286-297 340 342-344 347 349-353 361 365-388")
_LAND = _set(
    "407 436 444 466 468 511 547 555 561 565 569 573 575 595 609 612 627 654 656 661 665 670 671 675 "
    "705 717 734 751 757 "
    "779 802 803 817 820 829 864 866 867 870 874 880"
)
_WATER = _set("472 484 510 554 576 625 628 724 780 814 833 871 914")
_AIR = _set("404 405 417 895")
_VEHICLES = _LAND | _WATER | _AIR
_DISHES = _set("924-935 959 962-967 969")
_PLANTS_TO_EAT = _set("936-945 948-957")
_FOOD = _DISHES | _PLANTS_TO_EAT
_INSTRUMENTS = _set(
    "401 402 420 432 486 513 541 546 558 566 577 579 593 594 641 642 683 684 687 699 776 822 875 881 889"
)
_TOOLS = _set("473 491 512 587 596 621 726 731 740 784 792")
_CLOTHES = _set(
    "399 411 433 445 451 452 457 474 502 514 515 568 578 601 608 610 614 630 639 655 658 689 697 735 "
    "770 774 775 796 806 "
    "808 824 834 841 842 869 906"
)
_FURNITURE = _set("423 431 453 493 495 516 520 526 532 553 559 564 765 831 857 894")
_APPLIANCES = _set("505 534 545 550 589 606 651 760 786 811 827 859 882 891 897")
_DEVICES = _set(
    "482 485 487 508 527 528 530 531 590 592 605 620 662 664 673 681 707 713 732 742 745 754 759 761 782 848 851"
)
_SPORTS = _set("416 422 429 430 522 543 574 602 702 722 746 747 752 768 795 801 805 852 890")
_KITCHEN = _set("499 503 504 521 544 567 572 618 647 659 666 725 809 813 828 849 868 909 910 923")
_MADE = _set("398-923") - _set("500 599 649 672 825 905 904")
# A person who wears or uses one of these is the main thing rather.
_HELD = (
    _CLOTHES
    | _SPORTS
    | _INSTRUMENTS
    | _set("400 413 465 487 518 524 560 570 617 643 650 652 667 715 759 764 872 879 981-983")
)
_NO_THINGS = _set("916-918 921-922 970-980 406 415 424 442 454 467 498 536 582 706 762 788 819 860 865")


@lru_cache(maxsize=1)
def _names() -> tuple[str, ...]:
    from taskgalaxy_ops.models.encoders import weights

    return tuple(weights.imagenet_names())


def _photo(scene: Scene) -> None:
    need(min(scene.image.size) >= 150, "the image is too small to recognise things")
    need(scene.photo, "not a photograph of things")


def _share(scene: Scene, group: Iterable[int]) -> float:
    wanted = frozenset(group)
    return sum(p for index, p in scene.classes if index in wanted)


def _a(name: str) -> str:
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _name(scene: Scene, group: frozenset[int], what: str) -> Found:
    _photo(scene)
    index, probability = scene.classes[0]
    need(index in group, f"no {what} can be made out")
    need(probability > _SURE, f"it cannot be told with certainty which {what} it is")
    name = _names()[index]
    wrong = [_names()[i] for i, _ in scene.classes[1:] if i in group] + [
        _names()[i] for i in sorted(group)[:: max(1, len(group) // 4)]
    ]
    why = (
        f"The photograph shows {_a(name)} as its main thing. "
        f"Its form and surface match that {what} much better than any other."
    )
    return one(f"a photograph of {_a(name)}", name, wrong[:4], why)


def _naming(group: frozenset[int], what: str) -> Callable[[Scene], Found]:
    return lambda scene: _name(scene, group, what)


for _path, _group, _what in (
    ("animals~dog breed identification", _DOGS, "dog"),
    ("animals~bird species identification", _BIRDS, "bird"),
    ("animals~insect identification", _INSECTS, "insect"),
    ("animals~sea creature identification", _SEA, "sea creature"),
    ("animals~reptile identification", _REPTILES, "reptile"),
    ("vehicles~vehicle type identification", _VEHICLES, "vehicle"),
    ("vehicles~boat & ship identification", _WATER, "boat"),
    ("food & drink~dish identification", _DISHES, "dish"),
    ("food & drink~fruit & vegetable identification", _PLANTS_TO_EAT, "fruit or vegetable"),
    ("things of daily life~main object identification", frozenset(range(1000)) - _NO_THINGS - _HELD, "object"),
    ("things of daily life~musical instrument identification", _INSTRUMENTS, "instrument"),
    ("things of daily life~tool identification", _TOOLS, "tool"),
    ("things of daily life~clothing item identification", _CLOTHES, "garment"),
    ("things of daily life~furniture identification", _FURNITURE, "piece of furniture"),
    ("things of daily life~household appliance identification", _APPLIANCES, "appliance"),
    ("things of daily life~electronic device identification", _DEVICES, "device"),
    ("things of daily life~sports equipment identification", _SPORTS, "piece of sports equipment"),
    ("things of daily life~kitchenware identification", _KITCHEN, "kitchen utensil"),
):
    skill(f"object recognition~{_path}")(_naming(_group, _what))


def _kind(scene: Scene) -> str:
    """The common name of the animal. Raises NoFit if none is clear."""
    _photo(scene)
    need(_share(scene, _ANIMALS) > _ALL, "no animal can be made out with certainty")
    for name, group in _KINDS.items():
        if _share(scene, group) > _ALL:
            return name
    index, probability = scene.classes[0]
    need(probability > _SURE, "it cannot be told which animal it is")
    return _names()[index]


@skill("object recognition~animals~animal kind identification")
def animal_kind(scene: Scene) -> Found:
    kind = _kind(scene)
    why = f"The main thing in the photograph is an animal. Its head, body and coat are those of {_a(kind)}."
    return one(f"a photograph of {_a(kind)}", kind, ("horse", "lizard", "dog", "bird", "rabbit"), why)


@skill("object recognition~animals~cat or dog distinction")
def cat_or_dog(scene: Scene) -> Found:
    kind = _kind(scene)
    need(kind in ("cat", "dog"), "neither a cat nor a dog")
    why = f"The animal in the photograph can be seen well. Its head and ears are those of a {kind}."
    return one(f"a photograph of a {kind}", kind, ("cat", "dog"), why)


@skill("object recognition~animals~wild or domestic animal")
def wild_or_domestic(scene: Scene) -> Found:
    kind = _kind(scene)
    shard, wild = _share(scene, _SHARD_ID), _share(scene, _WILD)
    need(max(shard, wild) > _ALL, "the animal may live in either way")
    answer = "with people" if shard > wild else "in the wild"
    why = f"The photograph shows {_a(kind)}. Animals of that kind usually live {answer}."
    return one(f"a photograph of {_a(kind)}", answer, ("in the wild", "with people"), why)


def _presence(scene: Scene, group: frozenset[int], what: str) -> Found:
    _photo(scene)
    share = _share(scene, group)
    index, probability = scene.classes[0]
    sure_other = probability > _SURE and index not in _NO_THINGS and share < 0.004
    need(share > 0.9 or sure_other, f"it is not certain whether there is {what}")
    name = _names()[index]
    answer = "Yes" if share > 0.9 else "No"
    why = (
        f"What can be made out best in the photograph is {_a(name)}. "
        f"{f'That is {what}' if answer == 'Yes' else f'There is no sign of {what}'}"
    )
    return one(f"a photograph of {_a(name)}", answer, ("Yes", "No"), f"{why}, so the answer is {answer.lower()}.")


@skill("object recognition~animals~animal presence check")
def animal_presence(scene: Scene) -> Found:
    return _presence(scene, _ANIMALS, "an animal")


@skill("object recognition~vehicles~vehicle presence check")
def vehicle_presence(scene: Scene) -> Found:
    return _presence(scene, _VEHICLES, "a vehicle")


@skill("object recognition~food & drink~food presence check")
def food_presence(scene: Scene) -> Found:
    return _presence(scene, _FOOD, "something to eat or drink")


@skill("object recognition~vehicles~land water or air vehicle")
def where_it_moves(scene: Scene) -> Found:
    _photo(scene)
    groups = {"on land": _LAND, "on water": _WATER, "in the air": _AIR}
    shares = {answer: _share(scene, group) for answer, group in groups.items()}
    answer = max(shares, key=lambda a: shares[a])
    need(shares[answer] > _ALL, "no vehicle can be made out with certainty")
    name = next(_names()[i] for i, _ in scene.classes if i in groups[answer])
    why = f"The main thing in the photograph looks like {_a(name)}. Vehicles of that kind move {answer}."
    return one(f"a photograph of {_a(name)}", answer, groups, why)


@skill("object recognition~things of daily life~living or man-made")
def living_or_made(scene: Scene) -> Found:
    _photo(scene)
    living, made = _share(scene, _ANIMALS), _share(scene, _MADE - _HELD)
    need(max(living, made) > 0.9, "it is not certain what the main thing is")
    answer = "alive" if living > made else "made by people"
    name = _names()[scene.classes[0][0]]
    why = f"The main thing in the photograph looks like {_a(name)}. Such a thing is {answer}."
    return one(f"a photograph of what is probably {_a(name)}", answer, ("alive", "made by people"), why)
