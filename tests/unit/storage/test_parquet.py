"""Records and embeddings as Parquet: what goes in comes out, the same rows make the same bytes, damage is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgalaxy_ops import records
from taskgalaxy_ops.errors import DamageError
from taskgalaxy_ops.records import Claim, Image, Match, Vote
from taskgalaxy_ops.storage import parquet


@dataclass(frozen=True)
class Embedding:
    id: str
    vector: tuple[float, ...]


_NO_ROWS = (records.Answer, records.Reply)  # a journal's, kept as JSON
_RECORDS = [kind for kind in vars(records).values() if hasattr(kind, "__dataclass_fields__") and kind not in _NO_ROWS]
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@pytest.mark.parametrize("record", _RECORDS)
def test_every_record_has_a_schema_and_an_empty_table(record: type) -> None:
    assert parquet.schema(record).names == list(record.__dataclass_fields__)
    assert parquet.from_parquet(parquet.to_parquet([], record), record) == []


@given(
    claims=st.lists(st.builds(Claim, source=_TEXT, image=_TEXT, file=_TEXT, origin=st.none() | _TEXT)),
    votes=st.lists(
        st.builds(Vote, pair=_TEXT, judge=_TEXT, vote=st.none() | st.integers(0, 1), reason=_TEXT, audit=st.booleans())
    ),
    matches=st.lists(
        st.builds(Match, image=_TEXT, task_type=_TEXT, similarity=st.floats(-1, 1), rank=st.integers(1, 99))
    ),
)
def test_records_come_back(claims: list[Claim], votes: list[Vote], matches: list[Match]) -> None:
    for found, record in ((claims, Claim), (votes, Vote), (matches, Match)):
        raw = parquet.to_parquet(found, record)
        again = parquet.from_parquet(raw, record)
        assert again == found
        assert parquet.rows_hash(again) == parquet.rows_hash(found)
        assert parquet.to_parquet(again, record) == raw


def test_tuples_come_back_as_tuples() -> None:
    found = [Embedding("a", (0.5, -1.0)), Embedding("b", ())]
    assert parquet.from_parquet(parquet.to_parquet(found, Embedding), Embedding) == found


@pytest.mark.parametrize(("n", "d"), [(0, 3), (1, 1), (5, 1000), (3000, 8)])
def test_embeddings_come_back_bit_for_bit(n: int, d: int) -> None:
    vectors = np.random.default_rng(n).standard_normal((n, d)).astype(np.float32)
    ids = [f"größe {k}" for k in range(n)]
    raw = parquet.embeddings_to_parquet(ids, vectors)
    again_ids, again = parquet.embeddings_from_parquet(raw)
    assert again_ids == ids
    assert again.shape == (n, d)
    assert again.dtype == np.float32
    assert again.tobytes() == vectors.tobytes()
    assert again.flags["C_CONTIGUOUS"]
    assert parquet.embeddings_to_parquet(again_ids, again) == raw
    assert parquet.embeddings_hash(again_ids, again) == parquet.embeddings_hash(ids, vectors)


def test_embeddings_are_a_fixed_size_list_for_any_reader() -> None:
    raw = parquet.embeddings_to_parquet(["a"], np.ones((1, 3), np.float32))
    assert pq.read_schema(pa.BufferReader(raw)).field("vector").type == pa.list_(pa.float32(), 3)


def test_any_layout_of_the_same_numbers_is_the_same_table() -> None:
    vectors = np.arange(12, dtype=np.float32).reshape(3, 4)
    for other in (np.asfortranarray(vectors), vectors.astype(">f4"), np.repeat(vectors, 2, axis=0)[::2]):
        assert parquet.embeddings_to_parquet(list("abc"), other) == parquet.embeddings_to_parquet(list("abc"), vectors)
        assert parquet.embeddings_hash(list("abc"), other) == parquet.embeddings_hash(list("abc"), vectors)


def test_ids_and_vectors_must_go_together() -> None:
    with pytest.raises(ValueError, match="1 ids for 2 vectors"):
        parquet.embeddings_to_parquet(["a"], np.ones((2, 3), np.float32))


def test_another_records_columns_are_damage() -> None:
    with pytest.raises(DamageError, match="not those of Image"):
        parquet.from_parquet(parquet.to_parquet([], Claim), Image)
    with pytest.raises(DamageError, match="table of embeddings"):
        parquet.embeddings_from_parquet(parquet.to_parquet([], Claim))
    with pytest.raises(DamageError, match="table of embeddings"):
        parquet.embeddings_from_parquet(parquet.to_parquet([Embedding("a", (1.0,))], Embedding))


@pytest.mark.parametrize("spoil", [lambda raw: b"", lambda raw: b"PAR1", lambda raw: raw[:-20], lambda raw: raw[40:]])
def test_a_torn_file_is_damage(spoil: Callable[[bytes], bytes]) -> None:
    with pytest.raises(DamageError, match="a table of Claim cannot be read"):
        parquet.from_parquet(spoil(parquet.to_parquet([Claim("s", "i", "f")] * 50, Claim)), Claim)
    with pytest.raises(DamageError, match="table of embeddings"):
        parquet.embeddings_from_parquet(spoil(parquet.embeddings_to_parquet(["a"] * 9, np.ones((9, 3), np.float32))))


def test_unset_fields_change_no_hash() -> None:
    @dataclass(frozen=True)
    class Later:
        source: str
        image: str
        file: str
        added_later: str | None = None

    assert parquet.rows_hash([Later("s", "i", "f")]) == parquet.rows_hash([Claim("s", "i", "f")])
