"""The log of what is recorded of the judges: how probably a pair is right, by the votes that it has.

``vote.rule`` reads the newest entry, and the keys of vote outputs name its content: verdicts change when somebody
records another entry (`taskgalaxy judges --record`), and not with every new vote.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from taskgalaxy_ops.hashing import fingerprint
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.base import Store
from taskgalaxy_ops.storage.log import Log, LogEntry

MOST_JUDGES = 8  # that an entry can be about: it grows threefold with each


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeMeasure:
    """How probably a pair is right, by its votes.

    right: a probability for each way in which ``judges`` may have voted, 3 ** len(judges). The place of one, to the
    base 3, has a digit a judge, the first judge's the lowest: 0 for no vote or an abstention, 1 for a rejection, 2 for
    an approval. Votes of other judges say nothing.
    """

    judges: tuple[str, ...]
    right: tuple[float, ...]
    pairs: int  # with votes, that it was made of
    number: int = 0  # of the entry; 0: it is not recorded

    @property
    def hash(self) -> str:
        """The fingerprint of the probabilities, by which keys name the entry."""
        return fingerprint("judges", {"judges": list(self.judges), "right": list(self.right)})

    def probability(self, votes: Iterable[tuple[str, int | None]]) -> float:
        """That a pair with these votes, (judge, vote), is right."""
        of = {judge: int(3**place) for place, judge in enumerate(self.judges)}
        return self.right[sum(of.get(judge, 0) * (vote + 1) for judge, vote in votes if vote is not None)]


class JudgeLog:
    """Reads and extends the log of a store."""

    def __init__(self, store: Store) -> None:
        self._log = Log(store, keys.JUDGES_LOG)

    def newest(self) -> JudgeMeasure | None:
        """The newest entry; None: there is none."""
        entries = self._log.read()
        return _measure(entries[-1]) if entries else None

    def record(self, measure: JudgeMeasure) -> JudgeMeasure:
        """Append an entry, unless the newest one says the same; returns the newest."""
        body = {"judges": list(measure.judges), "right": list(measure.right), "pairs": measure.pairs}

        def decide(entries: list[LogEntry]) -> Mapping[str, Any] | None:
            return None if entries and _measure(entries[-1]).hash == measure.hash else body

        self._log.append_if(decide)
        return _measure(self._log.known()[-1])


def _measure(entry: LogEntry) -> JudgeMeasure:
    body = entry.body
    return JudgeMeasure(
        judges=tuple(body["judges"]), right=tuple(body["right"]), pairs=body["pairs"], number=entry.number
    )
