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
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
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


class Journal:
    """The journal of one home: read at opening, appended to in parts. Its methods may be called from any thread."""

    def __init__(self, store: Store, home: str) -> None:
        self._log = Log(store, keys.journal(home))
        self._lock = threading.Lock()
        self._buffer: list[Reply] = []
        self._since = 0.0
        self.answers: dict[str, Answer] = {}
        self.sources: dict[str, str] = {}  # unit: the reply that its answer stands in
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
        with self._lock:
            self._log.read()
            self._fold()

    def _fold(self) -> None:
        for entry in self._log.known():
            if entry.number > self._folded:
                self._fold_entry(entry)
                self._folded = entry.number

    def _fold_entry(self, entry: LogEntry) -> None:
        if entry.body["kind"] == "forget":
            self.forgets += 1
            for unit in entry.body["units"]:
                self.answers.pop(unit, None)
                self.sources.pop(unit, None)
                self._forgotten[unit] = entry.number
            return
        for reply in entry.body["replies"]:
            for unit, raw in reply["answers"].items():
                answer = Answer(**raw)
                if reply["seen"] < self._forgotten.get(unit, 0):
                    continue
                known = self.answers.get(unit)
                if known is None or (known.terminal and not answer.terminal):
                    self.answers[unit], self.sources[unit] = answer, reply["reply"]

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
        with self._lock:
            while self._buffer:
                part = self._buffer[:PART_REPLIES]
                self._log.append({"kind": "replies", "replies": [_plain(reply) for reply in part]})
                del self._buffer[: len(part)]
                self._fold()

    def forget(self, units: Iterable[str]) -> None:
        """Let these units be asked again; the old replies stay in the log, superseded."""
        with self._lock:
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


def _plain(reply: Reply) -> dict[str, Any]:
    plain = asdict(reply)
    plain["answers"] = {
        unit: {name: value for name, value in asdict(answer).items() if value not in (None, "")}
        for unit, answer in reply.answers.items()
    }
    return plain
