"""How many rows each part of a mixture gives."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from taskgalaxy_ops.release.mixing.settings import MixturePart


def wanted(parts: Sequence[MixturePart], usable: Sequence[int], samples: int | None) -> list[int]:
    """The rows that each part should give by its weight, whether or not it has as many.

    usable: the rows that each has. samples: of the mixture; None: as many as the part allows that is used up first, of
    those that are not repeated. Fractions go to the parts with the largest, of equal ones to the first.
    """
    weights = [Fraction(part.weight) for part in parts]
    total = sum(weights)
    if samples is None:
        limits = [
            rows * total / weight for part, rows, weight in zip(parts, usable, weights, strict=True) if not part.repeat
        ]
        samples = int(min(limits))
    exact = [samples * weight / total for weight in weights]
    found = [int(each) for each in exact]
    left = sorted(range(len(parts)), key=lambda part: (found[part] - exact[part], part))
    for part in left[: samples - sum(found)]:
        found[part] += 1
    return found


def taken(parts: Sequence[MixturePart], usable: Sequence[int], samples: int | None) -> list[int]:
    """The rows that each part gives: what is wanted of it, or, without ``repeat``, all that it has if that is less."""
    return [
        number if part.repeat and rows else min(number, rows)
        for part, rows, number in zip(parts, usable, wanted(parts, usable, samples), strict=True)
    ]
