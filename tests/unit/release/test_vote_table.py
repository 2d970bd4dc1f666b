"""Votes as columns against the records that the vote stage makes."""

from __future__ import annotations

import pyarrow as pa

from taskgalaxy_ops.records import Vote
from taskgalaxy_ops.release.vote_table import ballot, ballot_table
from taskgalaxy_ops.storage.parquet import to_table

VOTES = [
    Vote("p", "a", 1, "", False),
    Vote("q", "a", 0, "", False),
    Vote("p", "b", 1, "", False),
    Vote("q", "b", None, "", False),
    Vote("q", "c", 0, "", True),
    Vote("r", "stranger", 1, "", False),
]


def test_ballots_hold_each_judges_vote_in_the_judges_order() -> None:
    table = to_table(VOTES, Vote)
    for votes in (table, pa.concat_tables([table.slice(0, 3), table.slice(3)])):
        made = ballot_table(votes, ["c", "b", "a"])
        found = {pair: ballot(code, made.judges) for pair, code in zip(made.pairs.to_pylist(), made.codes, strict=True)}
        assert found == {"p": (("b", 1), ("a", 1)), "q": (("c", 0), ("b", None), ("a", 0)), "r": ()}
        assert made.approvals().tolist() == [2, 0, 0]
        assert made.accepted(2).tolist() == [True, False, False]


def test_no_votes_make_no_ballots() -> None:
    made = ballot_table(to_table([], Vote), ["a"])
    assert (len(made.pairs), made.codes.tolist()) == (0, [])
