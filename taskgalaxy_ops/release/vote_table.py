"""Votes as columns: a million rows become a ballot each pair, and ballots become verdicts, without a loop over rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from taskgalaxy_ops.release.agreement import Ballot

MOST_JUDGES = 26  # whose votes a float of 53 bits can add up
_STATES: tuple[int | None, ...] = (0, 1, None)  # of a vote that was cast: rejected, approved, abstained


@dataclass(frozen=True, slots=True)
class BallotTable:
    """Each pair's ballot as a number. Its digit i, to the base 4, is of judge i, and 0 if that was not asked."""

    judges: tuple[str, ...]
    pairs: pa.Array  # (n,) ids, each once
    codes: NDArray[np.int64]  # (n,)

    def approvals(self) -> NDArray[np.int64]:
        """(n,): how many judges approved each pair."""
        found = np.zeros(len(self.codes), np.int64)
        for place in range(len(self.judges)):
            found += (self.codes >> 2 * place) & 3 == _STATES.index(1) + 1
        return found

    def accepted(self, quorum: int) -> NDArray[np.bool_]:
        """(n,): each pair's verdict. Audits are cast when they can no longer change it, so that all votes may count."""
        found: NDArray[np.bool_] = self.approvals() >= quorum
        return found


def ballot_table(votes: pa.Table, judges: Sequence[str]) -> BallotTable:
    """The ballots of votes, in the order in which pairs first appear; votes of other judges are left out.

    votes: columns ``pair``, ``judge``, ``vote`` of ``records.Vote``; of a judge one vote a pair at most.
    """
    assert len(judges) <= MOST_JUDGES
    encoded = _whole(votes["pair"]).dictionary_encode()
    judge = pc.fill_null(pc.index_in(_whole(votes["judge"]), pa.array(judges, pa.string())), -1).to_numpy()
    state = pc.fill_null(_whole(votes["vote"]), len(_STATES) - 1).to_numpy() + 1
    digits = np.where(judge < 0, 0.0, state * 4.0 ** judge.clip(min=0))
    codes = np.bincount(encoded.indices.to_numpy(), digits, len(encoded.dictionary))
    return BallotTable(tuple(judges), encoded.dictionary, codes.astype(np.int64))


def ballot(code: int, judges: Sequence[str]) -> Ballot:
    """The votes that a code of ``BallotTable`` stands for."""
    digits = ((judge, code >> 2 * place & 3) for place, judge in enumerate(judges))
    return tuple((judge, _STATES[digit - 1]) for judge, digit in digits if digit)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    found = column.combine_chunks()
    return found.chunk(0) if isinstance(found, pa.ChunkedArray) else found
