"""One value, one form of bytes: what every key in the store rests on."""

from __future__ import annotations

import json
import math
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgalaxy_ops.hashing import canonical_json, draw, fingerprint, sha256_hex

_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT
_VALUES = st.recursive(_SCALARS, lambda inner: st.lists(inner) | st.dictionaries(_TEXT, inner), max_leaves=20)


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Point:
    x: int
    y: float | None = None
    tags: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"b": 1, "a": [True, None, "é"]}, '{"a":[true,null,"é"],"b":1}'),
        ({"unset": None}, "{}"),
        ("e\u0301", '"é"'),
        ([1.0, -0.0, 0.5, 1e22], "[1,0,0.5,1e+22]"),
        (Colour.RED, '"red"'),
        (Point(1, tags=("a",)), '{"tags":["a"],"x":1}'),
        ((1, (2,)), "[1,[2]]"),
        ({1: "a"}, '{"1":"a"}'),
    ],
)
def test_the_form(value: Any, expected: str) -> None:
    assert canonical_json(value).decode() == expected


@pytest.mark.parametrize("value", [math.nan, math.inf, [-math.inf]])
def test_what_is_no_number_has_no_form(value: Any) -> None:
    with pytest.raises(ValueError, match="no canonical form"):
        canonical_json(value)


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object()])
def test_what_is_no_json_has_no_form(value: Any) -> None:
    with pytest.raises(TypeError, match="no canonical form"):
        canonical_json(value)


@given(_VALUES)
def test_the_form_is_stable(value: Any) -> None:
    raw = canonical_json(value)
    assert canonical_json(json.loads(raw)) == raw


@given(st.dictionaries(_TEXT, _SCALARS))
def test_order_and_unicode_form_do_not_matter(value: dict[str, Any]) -> None:
    value = {unicodedata.normalize("NFC", key): of for key, of in value.items()}
    turned = {unicodedata.normalize("NFD", key): value[key] for key in reversed(value)}
    assert canonical_json(value) == canonical_json(turned)


def test_fingerprints_are_known_and_kept_apart_by_kind() -> None:
    assert fingerprint("unit", {"a": 1}) == sha256_hex(b'{"kind":"unit","of":{"a":1},"v":1}')
    assert fingerprint("unit", 1) != fingerprint("other", 1)


@given(st.lists(_TEXT, min_size=1, max_size=4))
def test_draws_depend_on_their_parts_alone(parts: list[str]) -> None:
    assert 0 <= draw(*parts) < 1
    assert draw(*parts) == draw(*parts)


def test_draws_are_spread_evenly() -> None:
    drawn = [draw("seed", n) for n in range(10_000)]
    assert 0.48 < sum(drawn) / len(drawn) < 0.52
    assert 900 < sum(number < 0.1 for number in drawn) < 1100
