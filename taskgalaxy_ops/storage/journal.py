"""The journal: what was paid for. Each model reply once, raw, with usage, cost and attempts, beside the unit answers
that were accepted from it.

A home's journal is a log; an entry is a **part** (``{"kind": "replies", "replies": [...]}``, up to 64 replies or a
second's worth), or ``{"kind": "forget", "units": [...]}``, written by a person. The first accepted answer of a unit
stands, until it is forgotten: an answer asked for before a forget (``seen`` is the log number that the asker had
read) does not count after it. A terminal reply that is no answer (refusal, malformed to the last repair) is kept as
an answer with ``terminal``, a reason; a later entry with a real answer replaces it (a better parser), never the
reverse.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.base import Store
from taskgalaxy_ops.storage.log import Log, LogEntry

PART_REPLIES = 64
PART_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What was accepted for one unit: ``value`` as the stage's parser gave it, or a terminal reason."""

    value: Mapping[str, Any] | None = None
    terminal: str | None = None  # a Reason: the model replied, and it is no answer
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """One model reply, as it was paid for."""

    reply: str  # nonce: identity of this reply
    stage: str
    model: str  # name in the settings
    units: tuple[str, ...]  # units asked in this request
    answers: Mapping[str, Answer]  # units answered by it
    raw: Mapping[str, Any]  # the body as it came
    usage: Mapping[str, int]  # prompt_tokens, completion_tokens
    cost: int  # nano-dollars (1e-9 USD) that this call cost
    list_cost: int  # nano-dollars at list prices: what a simulated call would have cost
    ceiling: int  # nano-dollars that the budget held for it
    block: str  # the budget's block that it drew from
    attempts: int  # requests sent, this one included
    seen: int  # number of the log that the asker had read
    at: float  # seconds since the epoch
    seconds: float  # from the first request to this reply
    simulated: bool = False
    note: Mapping[str, Any] = field(default_factory=dict)


_FIELDS = tuple(each.name for each in fields(Reply))


class Journal:
    """The journal of one home: read at opening, appended to in parts. Its methods may be called from any thread."""

    def __init__(self, store: Store, home: str) -> None:
        self._log = Log(store, keys.journal(home))
        self._writing = threading.Lock()  # the log is in use; taken before the other
        self._lock = threading.Lock()  # held for moments, so that who adds does not wait for the store
        self._buffer: list[Reply] = []
        self._since = 0.0
        self.answers: dict[str, Answer] = {}
        self.forgets = 0
        self._forgotten: dict[str, int] = {}  # unit: number of the entry that forgot it
        self._folded = 0
        self.refresh()

    @property
    def seen(self) -> int:
        """The log number read so far; a reply states it."""
        return self._log.last

    def refresh(self) -> None:
        """Read what others appended."""
        with self._writing, self._lock:
            self._log.read()
            self._fold()

    def _fold(self, own: Mapping[int, Sequence[Reply]] | None = None) -> None:
        """``own``: replies of entries that were just written, by number: their answers need not be read again."""
        for entry in self._log.known():
            if entry.number > self._folded:
                self._fold_entry(entry, (own or {}).get(entry.number))
                self._folded = entry.number

    def _fold_entry(self, entry: LogEntry, own: Sequence[Reply] | None) -> None:
        if entry.body["kind"] == "forget":
            self.forgets += 1
            for unit in entry.body["units"]:
                self.answers.pop(unit, None)
                self._forgotten[unit] = entry.number
            return
        for seen, answers in ((reply.seen, reply.answers) for reply in own) if own else _read(entry):
            for unit, answer in answers.items():
                if seen < self._forgotten.get(unit, 0):
                    continue
                known = self.answers.get(unit)
                if known is None or (known.terminal and not answer.terminal):
                    self.answers[unit] = answer

    def add(self, reply: Reply) -> None:
        """Keep a reply; written with its part, at the latest by ``flush``. Not an answer before it is written."""
        with self._lock:
            if not self._buffer:
                self._since = time.monotonic()
            self._buffer.append(reply)

    def due(self) -> bool:
        """Whether a part is full, or a second old."""
        with self._lock:
            return len(self._buffer) >= PART_REPLIES or (
                bool(self._buffer) and time.monotonic() - self._since >= PART_SECONDS
            )

    def flush(self) -> None:
        """Write what was added, in parts. Raises StoreError; what could not be written stays for the next flush."""
        with self._writing:
            with self._lock:
                taken = list(self._buffer)
            if not taken:
                return
            parts = [taken[at : at + PART_REPLIES] for at in range(0, len(taken), PART_REPLIES)]
            entries = self._log.append_all(
                {"kind": "replies", "replies": [_plain(reply) for reply in part]} for part in parts
            )
            with self._lock:
                del self._buffer[: len(taken)]
                self._since = time.monotonic()
                self._fold({entry.number: part for entry, part in zip(entries, parts, strict=True)})

    def forget(self, units: Iterable[str]) -> None:
        """Let these units be asked again; the old replies stay in the log, superseded."""
        with self._writing, self._lock:
            self._log.append({"kind": "forget", "units": sorted(units)})
            self._fold()

    def replies(self) -> Iterable[Mapping[str, Any]]:
        """Every reply in the log, as it was written, in order; once, also where a part was written again."""
        seen: set[str] = set()
        for entry in self._log.known():
            for reply in entry.body.get("replies", ()):
                if reply["reply"] not in seen:
                    seen.add(reply["reply"])
                    yield reply


def _read(entry: LogEntry) -> Iterator[tuple[int, Mapping[str, Answer]]]:
    """What each reply of a part had seen, and its answers."""
    for reply in entry.body["replies"]:
        yield reply["seen"], {unit: Answer(**raw) for unit, raw in reply["answers"].items()}


def _plain(reply: Reply) -> dict[str, Any]:
    # Not asdict, which copies each raw reply to its last leaf.
    plain = {name: getattr(reply, name) for name in _FIELDS}
    plain["answers"] = {unit: _plain_answer(answer) for unit, answer in reply.answers.items()}
    return plain


def _plain_answer(answer: Answer) -> dict[str, Any]:
    if not answer.terminal and not answer.detail:  # as nearly all
        return {} if answer.value is None else {"value": answer.value}
    plain = {"value": answer.value, "terminal": answer.terminal, "detail": answer.detail}
    return {name: value for name, value in plain.items() if value not in (None, "")}
