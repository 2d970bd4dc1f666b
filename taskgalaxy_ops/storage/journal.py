"""The journal: every model reply that was paid for, once and raw, with usage, cost and attempts, and the answers that
were accepted from it. A unit is the key of a request item.

An image shard's journal is a log. An entry is a **part** (``{"kind": "replies", "replies": [...]}``, up to 64 replies
or a second's worth), a person's edit (``{"kind": "forget", "edit", "units": [...]}`` or ``{"kind": "erase", "images":
[...]}``), or about a batch (journal_batches.py). The first accepted answer of a unit counts, until the unit is
forgotten. A reply states in ``seen`` which entry its sender had read last; a reply that was asked for before a forget
does not count after it. A terminal reply (a refusal, or malformed after the last repair) is kept as an answer with a
reason, ``terminal``; a later real answer, of a better parser, replaces it, never the reverse. A reply that
``corrects`` another (what a better parser read in that one again) replaces exactly the answers that came from it: of
two such, and of one beside a forget, the first in the log counts. Of a reply about an erased image, whenever it
arrived, only the cost is kept.
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


_FIELDS = tuple(field.name for field in fields(Reply))
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
        self._writing = threading.Lock()  # held while the log is in use; always taken before _lock
        self._lock = threading.Lock()  # held for moments only, so that add() does not wait for the store
        self._buffer: list[Reply] = []
        self._since = 0.0  # when the buffer's first reply was added, on the monotonic clock
        self.answers: dict[str, Answer] = {}
        self.sources: dict[str, str] = {}  # unit: the reply that its answer came from
        self._images: dict[str, _About] = {}  # unit: the images that its answer is about
        self._outlines: dict[str, Mapping[str, Any]] = {}  # by reply: see outlines()
        self.batches = JournalBatches()
        self.forgets = 0  # edits that forgot units
        self._forgotten: dict[str, int] = {}  # unit: number of the entry that forgot it
        self._edits: set[str] = set()  # ids of the forgets: one that was written twice counts once
        self._erased: set[str] = set()  # images
        self._folded = 0
        self.refresh()
        for edit, units in (begun or {}).items():
            if edit not in self._edits:
                self._drop(units, self._log.last)

    @property
    def seen(self) -> int:
        """The number of the last entry read; a reply states it."""
        return self._log.last

    def refresh(self) -> None:
        """Read the entries that others appended."""
        with self._writing, self._lock:
            self._log.read()
            self._fold()

    def _fold(self, own: Mapping[int, Sequence[Reply]] | None = None) -> None:
        """Take in new entries. ``own``: the replies of entries that we just wrote, by number; they need no decoding."""
        for entry in self._log.known():
            if entry.number > self._folded:
                self._fold_entry(entry, (own or {}).get(entry.number))
                entry.pack()  # a journal's memory is mostly raw replies
                self._folded = entry.number

    def _fold_entry(self, entry: LogEntry, own: Sequence[Reply] | None = None) -> None:
        body = entry.body
        if body["kind"] == "forget" and body.get("edit") not in self._edits:
            self.forgets += 1
            self._edits |= {body["edit"]} if "edit" in body else set()
            self._drop(body["units"], entry.number)
        elif body["kind"] == "erase":
            self._erased.update(body["images"])
            gone = {None, *self._erased}
            for unit in [unit for unit in self.answers if not gone.isdisjoint(self._images[unit])]:
                del self.answers[unit], self.sources[unit]
            self.batches.erase(self._erased)
        elif body["kind"] in journal_batches.KINDS:
            self.batches.fold(body, self._erased)
        elif body["kind"] == "replies":
            for name, images, seen, answers, outline in map(_parts_of, own) if own else map(_parse, body["replies"]):
                self._outlines.setdefault(name, outline)
                if corrected := outline["corrects"]:
                    for unit in [unit for unit in answers if self.sources.get(unit) == corrected]:
                        self.answers[unit], self.sources[unit] = answers[unit], name
                    continue
                if not (self._erased or self._forgotten) and self.answers.keys().isdisjoint(answers):  # nearly always
                    self.answers.update(answers)
                    self.sources.update(dict.fromkeys(answers, name))
                    self._images.update(dict.fromkeys(answers, images))
                    continue
                for unit, answer in answers.items():
                    if not self._erased.isdisjoint(images) or seen < self._forgotten.get(unit, 0):
                        continue
                    known = self.answers.get(unit)
                    if known is None or (known.terminal and not answer.terminal):
                        self.answers[unit], self.sources[unit], self._images[unit] = answer, name, images

    def _drop(self, units: Sequence[str], number: int) -> None:
        """Forget the answers of these units; ``number``: of the entry that says so."""
        for unit in units:
            self.answers.pop(unit, None)
            self.sources.pop(unit, None)
            self._forgotten[unit] = number
        self.batches.forget(units)

    def add(self, reply: Reply) -> None:
        """Keep a reply until the next ``flush`` writes it. Its answers count only once it is written."""
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
        """Whether the journal has this reply already."""
        return reply in self._outlines

    def is_erased(self, *images: str | None) -> bool:
        """Whether one of the images was erased, so that nothing said about them may be kept."""
        return not self._erased.isdisjoint(images)

    def due(self) -> bool:
        """Whether the replies to be written fill a part, or the first of them is a second old."""
        with self._lock:
            return len(self._buffer) >= PART_REPLIES or (
                bool(self._buffer) and time.monotonic() - self._since >= PART_SECONDS
            )

    def flush(self) -> None:
        """Write the replies that were added, in parts. Raises StoreError; the next flush writes them again then."""
        with self._writing:
            with self._lock:
                taken = list(self._buffer)
            if not taken:
                return
            parts = [taken[at : at + PART_REPLIES] for at in range(0, len(taken), PART_REPLIES)]
            entries = self._log.append_all(
                {"kind": "replies", "replies": [_to_json(reply) for reply in part]} for part in parts
            )
            with self._lock:
                del self._buffer[: len(taken)]
                self._since = time.monotonic()
                self._fold({entry.number: part for entry, part in zip(entries, parts, strict=True)})

    def forget(self, units: Iterable[str], edit: str) -> None:
        """Drop the answers of these units, so that they are asked for again; their replies stay in the log.

        ``edit``: the id of this forget; a second one with the same id changes nothing.
        """
        with self._writing, self._lock:
            if edit not in self._edits:
                self._log.append({"kind": "forget", "edit": edit, "units": sorted(units)})
                self._fold()

    def erase(self, images: Iterable[str]) -> None:
        """Remove all replies about these images from the log, except what they cost."""
        with self._writing, self._lock:
            self._log.read()
            self._fold()
            if new := sorted(set(images) - self._erased):
                self._log.append({"kind": "erase", "images": new})
            self._compact()
            self._fold()

    def attribute(self, images: Mapping[str, str]) -> None:
        """Add the image to replies that older versions wrote without one. ``images``: the image of each unit."""

        def attributed(entries: list[LogEntry]) -> Iterator[LogEntry]:
            for entry in entries:
                body = entry.body
                if body["kind"] == "replies":
                    replies = [_attributed(reply, images) for reply in body["replies"]]
                    yield LogEntry(entry.number, {**body, "replies": replies})
                elif body["kind"] != "note":
                    yield entry

        with self._writing, self._lock:
            entries = self._log.read()
            if any("image" not in reply for entry in entries for reply in entry.body.get("replies", ())):
                self._log.append({"kind": "note"})  # compact() does nothing without an entry behind the last base
                self._log.compact(attributed)

    def compact(self) -> None:
        """Compact the log into a base, without what says anything about erased images."""
        with self._writing, self._lock:
            self._compact()

    def _compact(self) -> None:
        self._log.compact(_without_erased)
        while self._mentions_erased():
            self._log.append(
                {"kind": "note"}
            )  # another writer's base or a late reply came first: compact again after it
            self._log.compact(_without_erased)

    def _mentions_erased(self) -> bool:
        if not (erased := _erased(entry.body for entry in self._log.known())):
            return False
        bodies = (entry.body for entry in self._log.known())
        return any(_about(body, erased) or journal_batches.tells_of(body, erased) for body in bodies)

    def forgotten(self, unit: str) -> int:
        """The number of the entry that last forgot the unit; 0 if none did. Older replies do not count."""
        return self._forgotten.get(unit, 0)

    def accepted_replies(self) -> dict[str, Mapping[str, Any]]:
        """By unit: the reply that its answer came from, in the form that the log holds."""
        by_name = {reply["reply"]: reply for reply in self.replies()}
        return {unit: by_name[self.sources[unit]] for unit in self.answers}

    def outlines(self) -> Iterable[Mapping[str, Any]]:
        """Each reply's cost and origin without its content: ``raw`` is True for a call, ``answers`` lists units."""
        return self._outlines.values()

    def replies(self) -> Iterable[Mapping[str, Any]]:
        """Every reply in the log, in the form that the log holds, in order; once if it was written twice."""
        seen: set[str] = set()
        for entry in self._log.known():
            for reply in entry.body.get("replies", ()):
                if reply["reply"] not in seen:
                    seen.add(reply["reply"])
                    yield reply


_About = tuple[
    str | None, ...
]  # the images of a reply, the first first; that is None where it is not known, or of none
# Of a reply: its name, images, number of the last entry seen, answers, outline.
_ReplyParts = tuple[str, _About, int, Mapping[str, Answer], Mapping[str, Any]]


def _parts_of(reply: Reply) -> _ReplyParts:
    outline = {name: getattr(reply, name) for name in _OUTLINED}
    outline |= {"raw": bool(reply.raw), "answers": tuple(reply.answers), "corrects": reply.note.get("corrects")}
    return reply.reply, (reply.image, *reply.further_images), reply.seen, reply.answers, outline


def _parse(reply: Mapping[str, Any]) -> _ReplyParts:
    answers = {unit: Answer(**raw) for unit, raw in reply["answers"].items()}
    outline = {name: reply.get(name, "") for name in _OUTLINED}
    corrected = reply.get("note", {}).get("corrects")
    outline |= {"raw": bool(reply["raw"]), "answers": tuple(answers), "corrects": corrected}
    return reply["reply"], images_of(reply), reply["seen"], answers, outline


def images_of(reply: Mapping[str, Any]) -> _About:
    """The images that a reply in the log is about, the first first: that is None where it was not recorded."""
    return reply.get("image"), *reply.get("further_images", ())


def _to_json(reply: Reply) -> dict[str, Any]:
    # Not asdict, which would copy each raw reply in depth.
    body = {name: getattr(reply, name) for name in _FIELDS if name != "further_images" or reply.further_images}
    body["answers"] = {unit: _answer_to_json(answer) for unit, answer in reply.answers.items()}
    return body


def _answer_to_json(answer: Answer) -> dict[str, Any]:
    if not answer.terminal and not answer.detail:  # nearly all answers
        return {} if answer.value is None else {"value": answer.value}
    body = {"value": answer.value, "terminal": answer.terminal, "detail": answer.detail}
    return {name: value for name, value in body.items() if value not in (None, "")}


def _erased(bodies: Iterable[Mapping[str, Any]]) -> set[str]:
    return {image for body in bodies if body["kind"] == "erase" for image in body["images"]}


def _about(body: Mapping[str, Any], images: set[str]) -> list[Mapping[str, Any]]:
    """The replies of an entry that may be about these images; one without an image may be about any."""
    if not images:
        return []
    return [
        reply
        for reply in body.get("replies", ())
        if reply["units"] and not {None, *images}.isdisjoint(images_of(reply))
    ]


def _without_erased(entries: list[LogEntry]) -> Iterator[LogEntry]:
    # One pass collects the entries notices other entries, since each access to a packed entry decodes it.
    notices = [body for body in (entry.body for entry in entries) if body["kind"] in {"erase", "batch_ended"}]
    erased = _erased(notices)
    ended = {body["batch"] for body in notices if body["kind"] == "batch_ended"}
    for entry in entries:
        body = entry.body
        if body["kind"] in {"batch", "batch_made"}:
            if body["batch"] not in ended:
                yield LogEntry(entry.number, journal_batches.without(body, erased))
        elif affected := [reply["reply"] for reply in _about(body, erased)]:
            replies = [_cost_of(reply) if reply["reply"] in affected else reply for reply in body["replies"]]
            yield LogEntry(entry.number, {**body, "replies": replies})
        elif body["kind"] != "note":
            yield entry


def _attributed(reply: Mapping[str, Any], images: Mapping[str, str]) -> Mapping[str, Any]:
    return reply if "image" in reply else {**reply, "image": next(map(images.get, reply["units"]), None)}


def _cost_of(reply: Mapping[str, Any]) -> dict[str, Any]:
    """The reply without its content. ``raw`` still tells whether it was a call."""
    raw = {"erased": True} if reply["raw"] else {}
    kept = {name: value for name, value in reply.items() if name != "further_images"}
    return {**kept, "units": [], "types": [], "answers": {}, "raw": raw, "image": None, "note": {}}
