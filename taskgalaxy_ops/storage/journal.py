"""The journal: what was paid for. Each model reply once, raw, with usage, cost and attempts, beside the unit answers
that were accepted from it.

An image shard's journal is a log; an entry is a **part** (``{"kind": "replies", "replies": [...]}``, up to 64 replies
or a second's worth), or a person's edit: ``{"kind": "forget", "edit", "units": [...]}`` or ``{"kind": "erase",
"images": [...]}``; or it is about a batch (submissions.py). The first accepted answer of a unit stands, until it is
forgotten: an answer asked for before a forget (``seen`` is the log number that the asker had read) does not count after
it. A terminal reply that is no answer (refusal, malformed to the last repair) is kept as an answer with ``terminal``, a
reason; a later entry with a real answer replaces it (a better parser), never the reverse. Of a reply about an erased
image, whenever it came, only what it cost is kept.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from taskgalaxy_ops.records import Answer, Reply
from taskgalaxy_ops.storage import journal_batches, keys
from taskgalaxy_ops.storage.base import Store
from taskgalaxy_ops.storage.journal_batches import JournalBatches
from taskgalaxy_ops.storage.log import Log, LogEntry

PART_REPLIES = 64
PART_SECONDS = 1.0


_FIELDS = tuple(each.name for each in fields(Reply))
_OUTLINED = ("stage", "model", "usage", "cost", "list_cost", "ceiling", "block", "seconds", "simulated", "at", "run")


class Journal:
    """The journal of one image shard.

    Read at opening, appended to in parts. Its methods may be called from any thread.
    """

    def __init__(self, store: Store, shard: str, begun: Mapping[str, Sequence[str]] | None = None) -> None:
        """``begun``: units by edit that count as forgotten although the log may not say so yet (``Edits.begun``).

        It is for those who only read: what is asked for later counts as an answer.
        """
        self._log = Log(store, keys.journal(shard))
        self._writing = threading.Lock()  # the log is in use; taken before the other
        self._lock = threading.Lock()  # held for moments, so that who adds does not wait for the store
        self._buffer: list[Reply] = []
        self._since = 0.0
        self.answers: dict[str, Answer] = {}
        self.sources: dict[str, str] = {}  # unit: the reply that its answer stands in
        self._images: dict[str, str | None] = {}  # unit: what its answer is about
        self._outlines: dict[str, Mapping[str, Any]] = {}  # by reply
        self.batches = JournalBatches()
        self.forgets = 0
        self._forgotten: dict[str, int] = {}  # unit: number of the entry that forgot it
        self._edits: set[str] = set()  # of the forgets: one that was written twice counts once
        self._erased: set[str] = set()  # images
        self._folded = 0
        self.refresh()
        for edit, units in (begun or {}).items():
            if edit not in self._edits:
                self._drop(units, self._log.last)

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
                entry.pack()  # raw replies are most of an image shard's memory
                self._folded = entry.number

    def _fold_entry(self, entry: LogEntry, own: Sequence[Reply] | None = None) -> None:
        body = entry.body
        if body["kind"] == "forget" and body.get("edit") not in self._edits:
            self.forgets += 1
            self._edits |= {body["edit"]} if "edit" in body else set()
            self._drop(body["units"], entry.number)
        elif body["kind"] == "erase":
            self._erased.update(body["images"])
            for unit in [unit for unit in self.answers if self._images[unit] in {None, *self._erased}]:
                del self.answers[unit], self.sources[unit]
            self.batches.erase(self._erased)
        elif body["kind"] in journal_batches.KINDS:
            self.batches.fold(body, self._erased)
        elif body["kind"] == "replies":
            for name, image, seen, answers, outline in map(_told, own) if own else map(_read, body["replies"]):
                self._outlines.setdefault(name, outline)
                if not (self._erased or self._forgotten) and self.answers.keys().isdisjoint(answers):  # nearly always
                    self.answers.update(answers)
                    self.sources.update(dict.fromkeys(answers, name))
                    self._images.update(dict.fromkeys(answers, image))
                    continue
                for unit, answer in answers.items():
                    if image in self._erased or seen < self._forgotten.get(unit, 0):
                        continue
                    known = self.answers.get(unit)
                    if known is None or (known.terminal and not answer.terminal):
                        self.answers[unit], self.sources[unit], self._images[unit] = answer, name, image

    def _drop(self, units: Sequence[str], number: int) -> None:
        """Forget the answers of these units; ``number``: of the entry that says so."""
        for unit in units:
            self.answers.pop(unit, None)
            self.sources.pop(unit, None)
            self._forgotten[unit] = number
        self.batches.forget(units)

    def add(self, reply: Reply) -> None:
        """Keep a reply; written with its part, at the latest by ``flush``. Not an answer before it is written."""
        with self._lock:
            if not self._buffer:
                self._since = time.monotonic()
            self._buffer.append(reply)

    def record(self, body: Mapping[str, Any]) -> None:
        """Append an entry about a batch."""
        with self._writing, self._lock:
            self._log.append(body)
            self._fold()

    def holds(self, reply: str) -> bool:
        """Whether a reply is there already."""
        return reply in self._outlines

    def is_erased(self, image: str | None) -> bool:
        """Whether nothing may be kept of what is said about an image."""
        return image in self._erased

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

    def forget(self, units: Iterable[str], edit: str) -> None:
        """Let these units be asked again; the old replies stay in the log, superseded. ``edit`` names this forget."""
        with self._writing, self._lock:
            if edit not in self._edits:
                self._log.append({"kind": "forget", "edit": edit, "units": sorted(units)})
                self._fold()

    def erase(self, images: Iterable[str]) -> None:
        """Leave of all replies about these images only what they cost: in the log, too."""
        with self._writing, self._lock:
            self._log.read()
            self._fold()
            if new := sorted(set(images) - self._erased):
                self._log.append({"kind": "erase", "images": new})
            self._compact()
            self._fold()

    def attribute(self, images: Mapping[str, str]) -> None:
        """Say of replies that were written without it which image they are about; ``images``: by unit."""

        def told(entries: list[LogEntry]) -> Iterator[LogEntry]:
            for entry in entries:
                body = entry.body
                if body["kind"] == "replies":
                    replies = [_attributed(reply, images) for reply in body["replies"]]
                    yield LogEntry(entry.number, {**body, "replies": replies})
                elif body["kind"] != "note":
                    yield entry

        with self._writing, self._lock:
            if any("image" not in reply for e in self._log.read() for reply in e.body.get("replies", ())):
                self._log.append({"kind": "note"})  # so that a base can be written, whatever was folded before
                self._log.compact(told)

    def compact(self) -> None:
        """Fold the log into a base, without what was erased meanwhile."""
        with self._writing, self._lock:
            self._compact()

    def _compact(self) -> None:
        self._log.compact(_without_erased)
        while self._tells_of_erased():
            self._log.append({"kind": "note"})  # another's base came first, or a late reply: once more, behind it
            self._log.compact(_without_erased)

    def _tells_of_erased(self) -> bool:
        if not (erased := _erased(entry.body for entry in self._log.known())):
            return False
        bodies = (entry.body for entry in self._log.known())
        return any(_about(body, erased) or journal_batches.tells_of(body, erased) for body in bodies)

    def forgotten(self, unit: str) -> int:
        """Number of the entry that forgot a unit: what was asked for before it does not count; 0 if none did."""
        return self._forgotten.get(unit, 0)

    def standing(self) -> dict[str, Mapping[str, Any]]:
        """The reply that each unit's answer came from, as it was written."""
        by_name = {reply["reply"]: reply for reply in self.replies()}
        return {unit: by_name[self.sources[unit]] for unit in self.answers}

    def outlines(self) -> Iterable[Mapping[str, Any]]:
        """What each reply came to, without what it says: ``raw`` is whether it was a call, ``answers`` their units."""
        return self._outlines.values()

    def replies(self) -> Iterable[Mapping[str, Any]]:
        """Every reply in the log, as it was written, in order; once, also where a part was written again."""
        seen: set[str] = set()
        for entry in self._log.known():
            for reply in entry.body.get("replies", ()):
                if reply["reply"] not in seen:
                    seen.add(reply["reply"])
                    yield reply


# Of a reply: its name, image, what it had seen, answers, outline.
_Told = tuple[str, str | None, int, Mapping[str, Answer], Mapping[str, Any]]


def _told(reply: Reply) -> _Told:
    outline = {name: getattr(reply, name) for name in _OUTLINED}
    outline |= {"raw": bool(reply.raw), "answers": tuple(reply.answers)}
    return reply.reply, reply.image, reply.seen, reply.answers, outline


def _read(reply: Mapping[str, Any]) -> _Told:
    answers = {unit: Answer(**raw) for unit, raw in reply["answers"].items()}
    outline = {name: reply.get(name, "") for name in _OUTLINED}
    outline |= {"raw": bool(reply["raw"]), "answers": tuple(answers)}
    return reply["reply"], reply.get("image"), reply["seen"], answers, outline


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


def _erased(bodies: Iterable[Mapping[str, Any]]) -> set[str]:
    return {image for body in bodies if body["kind"] == "erase" for image in body["images"]}


def _about(body: Mapping[str, Any], images: set[str]) -> list[Mapping[str, Any]]:
    """The replies of an entry that say anything of these images; those that do not tell their image may do so."""
    if not images:
        return []
    return [
        reply
        for reply in body.get("replies", ())
        if reply["units"] and (reply.get("image") is None or reply["image"] in images)
    ]


def _without_erased(entries: list[LogEntry]) -> Iterator[LogEntry]:
    # One pass for what is about others: each look at a packed entry unpacks it.
    about = [body for body in (entry.body for entry in entries) if body["kind"] in {"erase", "batch_ended"}]
    erased = _erased(about)
    ended = {body["batch"] for body in about if body["kind"] == "batch_ended"}
    for entry in entries:
        body = entry.body
        if body["kind"] in {"batch", "batch_made"}:
            if body["batch"] not in ended:
                yield LogEntry(entry.number, journal_batches.without(body, erased))
        elif gone := [reply["reply"] for reply in _about(body, erased)]:
            replies = [_cost_of(reply) if reply["reply"] in gone else reply for reply in body["replies"]]
            yield LogEntry(entry.number, {**body, "replies": replies})
        elif body["kind"] != "note":
            yield entry


def _attributed(reply: Mapping[str, Any], images: Mapping[str, str]) -> Mapping[str, Any]:
    return reply if "image" in reply else {**reply, "image": next(map(images.get, reply["units"]), None)}


def _cost_of(reply: Mapping[str, Any]) -> dict[str, Any]:
    """A reply without its content: ``raw`` still tells that it was a call."""
    raw = {"erased": True} if reply["raw"] else {}
    return {**reply, "units": [], "types": [], "answers": {}, "raw": raw, "image": None, "note": {}}
