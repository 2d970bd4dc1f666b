"""Exact top-k: the same as the plain definition, in whatever order rows come."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskgalaxy_ops.errors import EncoderError
from taskgalaxy_ops.generation.stages import match as match_stage
from taskgalaxy_ops.generation.stages.match import match
from taskgalaxy_ops.models.encoders.base import EmbeddingMatrix
from taskgalaxy_ops.records import Match


def unit_rows(seed: int, n: int, dim: int, *, coarse: bool = False) -> np.ndarray:
    """Random unit vectors; coarse ones have few distinct directions, so that many similarities are equal."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(-1, 2, (n, dim)).astype(float) if coarse else rng.normal(size=(n, dim))
    rows[:, 0] += ~rows.any(axis=1)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def matrix(prefix: str, vectors: np.ndarray) -> EmbeddingMatrix:
    return EmbeddingMatrix(tuple(f"{prefix}{i:04d}" for i in range(len(vectors))), vectors)


def permuted(m: EmbeddingMatrix, seed: int) -> EmbeddingMatrix:
    order = np.random.default_rng(seed).permutation(len(m.ids))
    return EmbeddingMatrix(tuple(m.ids[i] for i in order), m.vectors[order])


def naive(images: EmbeddingMatrix, types: EmbeddingMatrix, k: int) -> list[Match]:
    """The definition, pair by pair, with exactly added products."""
    result = []
    for image, a in sorted(zip(images.ids, images.vectors.tolist(), strict=True)):
        pairs = []
        for name, b in zip(types.ids, types.vectors.tolist(), strict=True):
            cosine = math.fsum(x * y for x, y in zip(a, b, strict=True))
            pairs.append((-max(-1.0, min(1.0, float(np.round(cosine, 6)))), name))
        for rank, (negative, name) in enumerate(sorted(pairs)[:k], 1):
            result.append(Match(image, name, -negative + 0.0, rank))
    return result


cases = st.tuples(st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 40), st.integers(1, 33), st.booleans())


@settings(deadline=None, max_examples=60)
@given(cases, st.integers(1, 50))
def test_the_k_nearest_are_those_of_the_definition(case, k):
    seed, n, m, dim, coarse = case
    images = matrix("i", unit_rows(seed, n, dim, coarse=coarse))
    types = matrix("t", unit_rows(seed + 1, m, dim, coarse=coarse))
    assert list(match(images, types, k=k)) == naive(images, types, k)


@settings(deadline=None, max_examples=60)
@given(cases, st.integers(1, 50), st.integers(0, 2**32), st.integers(1, 2000))
def test_neither_the_order_of_rows_nor_of_blocks_changes_anything(case, k, shuffle, block_bytes):
    seed, n, m, dim, coarse = case
    images = matrix("i", unit_rows(seed, n, dim, coarse=coarse))
    types = matrix("t", unit_rows(seed + 1, m, dim, coarse=coarse))
    whole = list(match(images, types, k=k))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(match_stage, "_BLOCK_BYTES", block_bytes)
        patch.setattr(match_stage, "_PAIR_BYTES", block_bytes)
        assert list(match(permuted(images, shuffle), permuted(types, shuffle + 1), k=k)) == whole


def test_an_image_has_the_same_matches_alone_and_among_others():
    images, types = matrix("i", unit_rows(1, 50, 384)), matrix("t", unit_rows(2, 3000, 384))
    together = list(match(images, types, k=10))
    alone = [
        found
        for i, name in enumerate(images.ids)
        for found in match(EmbeddingMatrix((name,), images.vectors[i : i + 1]), types, k=10)
    ]
    assert alone == together


def test_equal_similarities_are_ordered_by_task_type():
    same = np.tile(unit_rows(3, 1, 8), (5, 1))
    types = EmbeddingMatrix(("e", "b", "d", "a", "c"), same)
    found = list(match(EmbeddingMatrix(("x",), same[:1]), types, k=3))
    assert [(f.task_type, f.similarity, f.rank) for f in found] == [
        ("a", 1.0, 1),
        ("b", 1.0, 2),
        ("c", 1.0, 3),
    ]


def test_k_above_the_number_of_task_types_gives_them_all():
    images, types = matrix("i", unit_rows(4, 2, 5)), matrix("t", unit_rows(5, 3, 5))
    assert [f.rank for f in match(images, types, k=10)] == [1, 2, 3, 1, 2, 3]


def test_nothing_matches_nothing():
    none, some = EmbeddingMatrix((), np.zeros((0, 4), np.float32)), matrix("t", unit_rows(6, 3, 4))
    assert list(match(none, some, k=2)) == list(match(some, none, k=2)) == []


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, 2.0])
def test_a_row_that_is_no_unit_vector_is_named(value):
    broken = unit_rows(7, 3, 4)
    broken[1] = value
    types = matrix("t", unit_rows(8, 3, 4))
    with pytest.raises(EncoderError, match="image 'i0001'"):
        match(matrix("i", broken), types, k=1)
    with pytest.raises(EncoderError, match="task type 'i0001'"):
        match(types, matrix("i", broken), k=1)


def test_wrong_shapes_are_refused():
    good = unit_rows(9, 2, 4)
    with pytest.raises(EncoderError, match="4 numbers, task types' 5"):
        match(matrix("i", good), matrix("t", unit_rows(9, 2, 5)), k=1)
    with pytest.raises(EncoderError, match="1 ids for 2"):
        EmbeddingMatrix(("a",), good)
    with pytest.raises(EncoderError, match="'a' occurs twice"):
        EmbeddingMatrix(("a", "a"), good)
    with pytest.raises(EncoderError, match="float64"):
        EmbeddingMatrix(("a", "b"), good.astype(np.float64))
    with pytest.raises(ValueError, match="k is 0"):
        match(matrix("i", good), matrix("t", good), k=0)


def test_of_a_large_taxonomy_the_nearest_are_found():
    images, types = matrix("i", unit_rows(10, 7, 64)), matrix("t", unit_rows(11, 19_227, 64))
    exact = (images.vectors.astype(np.float64) @ types.vectors.astype(np.float64).T).round(6)
    order = np.argsort(-exact, axis=1, kind="stable")[:, :10]
    assert [each.task_type for each in match(images, types, k=10)] == [types.ids[at] for row in order for at in row]


def broad(found: list[Match], k: int, least: float | None, per_branch: int | None) -> list[Match]:
    """By looking at all ranked pairs of each image, one after the other."""
    result, below = [], Counter()
    for each in found:
        branch = (each.image, each.task_type.split("~")[0])
        below[branch] += 1
        taken = below[each.image]
        if taken < k and (per_branch is None or below[branch] <= per_branch):
            below[each.image] += 1
            if least is None or each.similarity >= least:
                result.append(replace(each, rank=taken + 1))
    return result


@settings(deadline=None, max_examples=60)
@given(
    cases,
    st.integers(1, 12),
    st.none() | st.sampled_from([-0.2, 0.0, 0.3, 2.0]),
    st.none() | st.integers(1, 5),
    st.integers(1, 6),
)
def test_breadth_takes_the_next_nearest_of_other_branches_and_leaves_out_what_is_not_near(
    case, k, least, per_branch, branches
):
    seed, n, m, dim, coarse = case
    images = matrix("i", unit_rows(seed, n, dim, coarse=coarse))
    vectors = unit_rows(seed + 1, m, dim, coarse=coarse)
    # A label that sorts between a node and its children, and a type that is a first-level node itself.
    names = [f"b{i % branches}" + ("" if i < branches else f"~t{i:03d}" if i % 2 else f" x~t{i:03d}") for i in range(m)]
    types = EmbeddingMatrix(tuple(names), vectors)
    found = list(match(images, types, k=k, least=least, per_branch=per_branch))
    assert found == broad(naive(images, types, m), k, least, per_branch)


def test_an_image_may_have_no_match():
    one = matrix("i", unit_rows(1, 2, 8))
    assert list(match(one, matrix("t", -one.vectors[:1]), k=3, least=0.9)) == []


# --- handicaps


def preferred(ranked: list[Match], k: int, handicaps: dict[str, float], per_branch: int | None = None) -> list[Match]:
    """The definition: of the candidates of each image, the best by similarity less handicap, one after the other."""
    found: list[Match] = []
    for image in dict.fromkeys(each.image for each in ranked):
        left = [each for each in ranked if each.image == image]
        taken: list[Match] = []
        while left and len(taken) < k:
            best = min(
                left, key=lambda each: (-round(each.similarity - handicaps.get(each.task_type, 0), 6), each.task_type)
            )
            left.remove(best)
            if per_branch is None or sum(same_branch(best, each) for each in taken) < per_branch:
                taken.append(best)
        taken.sort(key=lambda each: (-each.similarity, each.task_type))
        found += [replace(each, rank=rank) for rank, each in enumerate(taken, 1)]
    return found


def same_branch(one: Match, other: Match) -> bool:
    return one.task_type.partition("~")[0] == other.task_type.partition("~")[0]


@settings(deadline=None, max_examples=60)
@given(cases, st.integers(1, 6), st.integers(0, 2**32), st.none() | st.integers(1, 3), st.none() | st.floats(-1, 0.5))
def test_with_handicaps_the_best_of_four_times_as_many_are_chosen(case, k, seed, per_branch, least):
    number, n, m, dim, coarse = case
    images = matrix("i", unit_rows(number, n, dim, coarse=coarse))
    plain = matrix("t", unit_rows(number + 1, m, dim, coarse=coarse))
    types = EmbeddingMatrix(tuple(f"branch {i % 3}~{name}" for i, name in enumerate(plain.ids)), plain.vectors)
    rng = np.random.default_rng(seed)
    handicaps = {name: round(float(rng.random()), 2) for name in types.ids if rng.random() < 0.7}
    wider = per_branch and 4 * per_branch
    candidates = list(match(images, types, k=4 * k, least=least, per_branch=wider))
    chosen = list(match(images, types, k=k, least=least, per_branch=per_branch, handicaps=handicaps))
    assert chosen == preferred(candidates, k, handicaps, per_branch)
    assert list(match(images, types, k=k, least=least, per_branch=per_branch, handicaps={})) == list(
        match(images, types, k=k, least=least, per_branch=per_branch)
    )
