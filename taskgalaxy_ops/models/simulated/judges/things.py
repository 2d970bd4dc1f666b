"""Recognising things: each judge shows the classifier other cuts of the image. ``a`` the middle and its mirror image,
``b`` all of it, padded to a square, ``c`` overlapping squares along the longer side and one that is closer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from taskgalaxy_ops.models import conse
from taskgalaxy_ops.models.simulated.judges import words
from taskgalaxy_ops.models.simulated.judges.views import View


def _spans(text: str) -> frozenset[int]:
    """Class indices of a list such as "7-24 80 127-146"."""
    found: set[int] = set()
    for part in text.split():
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return frozenset(found)


# Groups of ImageNet's classes, by index (models/imagenet_classes.json).
GROUPS = {
    "animal": _spans("0-397"),
    "dog": _spans("151-268"),
    "cat": _spans("281-285"),
    "bird": _spans("7-24 80-100 127-146"),
    "insect": _spans("69-79 300-326"),
    "sea creature": _spans("0-6 107-126 147-150 327-329 389-397 33-34 65"),
    "reptile": _spans("33-68"),
    "vehicle": _spans(
        "403-405 407 408 417 428 436 444 450 466 468 472 484 510 511 537 547 554 555 561 565 569 573 575 576 586 595 603"
        " 609 612 621 625 627 628 654 656 657 661 665 670 671 675 690 705 717 724 734 751 757 779 780 802 803 812 814"
        " 817 820 829 833 847 856 864 866 867 870 871 874 880 895 908 913 914"
    ),
    "vessel": _spans("403 408 472 484 510 536 554 576 625 628 724 780 814 833 871 913 914"),
    "food": _spans("924-969 987 415 923 567 809 412"),
    "fruit": _spans("936-957 987 988 989 990"),
    "instrument": _spans(
        "401 402 420 432 486 494 513 541 546 558 566 577 579 593 594 641 642 683 684 687 699 776 822 875 881 889"
    ),
    "tool": _spans(
        "462 473 477 491 499 512 587 596 606 621 677 695 696 710 726 730 731 740 783 784 792 772 473 623 910 571 798 769"
    ),
    "garment": _spans(
        "399 400 411 433 434 439 445 451 452 457 459 464 465 474 490 501 502 514 515 518 529 552 560 568 578 601 608 610"
        " 614 617 630 638 639 652 655 658 667 689 697 735 770 774 775 793 796 806 808 824 834 841 842 869 887 906 715"
    ),
    "furniture": _spans(
        "423 431 453 493 495 516 520 526 532 548 553 559 564 648 703 736 765 831 846 857 861 894 721 619"
    ),
    "appliance": _spans("521 534 545 550 589 606 651 700 760 766 786 811 827 859 882 891 897 505 753 534 739"),
    "device": _spans(
        "409 482 485 487 508 527 528 530 531 590 592 605 613 620 632 650 662 664 673 681 688 707 713 732 742 745 754 759"
        " 761 782 848 851 480 481 755 844 886"
    ),
    "sports": _spans(
        "416 422 429 430 444 522 543 560 574 602 671 702 722 746 747 752 768 795 801 805 852 890 433 615 880 981"
    ),
    "kitchenware": _spans(
        "438 441 469 473 499 503 504 505 512 521 544 550 567 572 618 647 659 666 725 766 773 809 813 828 849 868 891 899 909 910 923 968 969 967 550"
    ),
    "plant": _spans("984-998 936-957"),
    "pet": _spans("7 8 1 151-268 281-285 330-333 338 339 341 345 348-349 355 99"),
    "air": _spans("404 405 417 657 812 895 908 401"),
}
# Everyday names of kinds; others are looked for in the classes' own names.
_KINDS = {
    "dog": GROUPS["dog"], "cat": GROUPS["cat"], "bird": GROUPS["bird"], "snake": _spans("52-68"),
    "lizard": _spans("38-48"), "turtle": _spans("33-37"), "crocodile": _spans("49-50"), "frog": _spans("30-32"),
    "salamander": _spans("25-29"), "spider": _spans("72-77"), "insect": _spans("300-326"),
    "beetle": _spans("300-307"), "butterfly": _spans("321-326"), "fish": _spans("0-6 389-397"),
    "shark": _spans("2-4"), "ray": _spans("5-6"), "crab": _spans("118-121 125"), "lobster": _spans("122-124"),
    "whale": _spans("147-148"), "wolf": _spans("269-272"), "fox": _spans("277-280"), "big cat": _spans("286-293"),
    "wild cat": _spans("286-293"), "bear": _spans("294-297"), "rabbit": _spans("330-332"), "horse": _spans("339"),
    "pig": _spans("341-343"), "cow": _spans("345-347"), "cattle": _spans("345-347"), "sheep": _spans("348-349"),
    "antelope": _spans("350-353"), "camel": _spans("354-355"), "monkey": _spans("369-384"), "ape": _spans("365-369"),
    "elephant": _spans("101 385 386"), "panda": _spans("387-388"), "wild dog": _spans("269-275"),
    "rodent": _spans("333-338"), "seal": _spans("149-150"), "snail": _spans("112-114"),
}  # fmt: skip


def probabilities(view: View) -> NDArray[np.float64]:
    """(1000,): how likely each class is, the mean over this judge's cuts."""

    def make() -> NDArray[np.float64]:
        model = conse.classifier()
        return np.mean([model.probabilities(cut).astype(float) for cut in _cuts(view.judge, view.image)], axis=0)

    return view.part("classes", make)


def _cuts(judge: str, image: Image.Image) -> Iterable[Image.Image]:
    if judge == "a":
        yield image
        yield ImageOps.mirror(image)
        return
    side = max(image.size)
    if judge == "b":  # the classifier cuts off a sixteenth on each side: as much is added
        middle = tuple(int(v) for v in np.asarray(image.resize((8, 8), Image.Resampling.BOX)).mean(axis=(0, 1)))
        square = Image.new("RGB", (side * 8 // 7, side * 8 // 7), (middle[0], middle[1], middle[2]))
        square.paste(image, ((square.width - image.width) // 2, (square.height - image.height) // 2))
        yield square
        yield image
        return
    short = min(image.size)
    for share in (0.25, 0.5, 0.75) if side > 1.1 * short else (0.5,):
        left, top = round((image.width - short) * share), round((image.height - short) * share)
        yield image.crop((left, top, left + short, top + short))
    yield ImageOps.crop(image, round(short * 0.08))


def share(view: View, group: str) -> float:
    """How likely the image shows something of a group, 0 to 1."""
    return float(probabilities(view)[sorted(GROUPS[group])].sum())


def classes(name: str) -> frozenset[int]:
    """The classes that go by a name: one class, or those of a kind ("dog"); none if the name is not known."""
    wanted = name.strip().lower().rstrip(".")
    names = [n.lower() for n in conse.classifier().names]
    exact = {i for i, n in enumerate(names) if words.squash(n) == words.squash(wanted)}
    exact = exact or {i for i, n in enumerate(names) if words.squash(re.sub(r"\(.*?\)", "", n)) == words.squash(wanted)}
    if wanted in _KINDS:
        return _KINDS[wanted]
    return frozenset(exact or {i for i, n in enumerate(names) if re.search(rf"\b{re.escape(wanted)}$", n)})


def top(view: View, group: frozenset[int] | None = None) -> tuple[str, float]:
    """The likeliest class, of a group where given, and how likely it is."""
    likely = probabilities(view)
    index = max(sorted(group), key=lambda i: likely[i]) if group else int(likely.argmax())
    return conse.classifier().names[index], float(likely[index])
