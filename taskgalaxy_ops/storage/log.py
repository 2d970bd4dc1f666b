"""The log: the one structure through which processes agree.

A log is a sequence of objects numbered from 1 without gaps, ``<log>/e/0000000001`` …, each written put-if-absent. A
writer that loses a number to another reads the winner's entry and decides again. An entry is a JSON object with its
writer's ``nonce``. An entry above 4 KiB is compressed with Zstandard (RFC 8878) and a checksum, which its first bytes
show; entries that earlier versions compressed with gzip are read, too.

A base, ``<log>/b/<number>``, replaces the entries up to that number: it holds the entries that are kept, and the nonces
of all that it replaced. An append counts if a read after it finds no base at or above its number, or a base that lists
its nonce. A reader lists entries before bases, and starts again if an entry is gone or a number is missing.
"""

from __future__ import annotations

import gzip
import json
import random
import sys
import time
import uuid
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

from taskgalaxy_ops.errors import DamageError, NotFoundError, StoreError
from taskgalaxy_ops.storage.base import Store

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_COMPRESS_ABOVE = 4096  # bytes
_TRIES = 50  # numbers lost in a row; more of them mean that something is wrong
_READERS = 8  # entries fetched at once
_LOST_AT_ONCE = 2  # numbers lost before a writer waits for others
_WAIT_SECONDS = 0.05  # the longest first wait; doubled with each further number lost
_WAIT_LONGEST = 2.0
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"  # first bytes of a compressed entry
# An entry of 64 replies takes three quarters of the bytes that gzip makes of it, in a quarter of the time.
_PACKING: dict[int, int] = {zstd.CompressionParameter.compression_level: 1, zstd.CompressionParameter.checksum_flag: 1}


class LogEntry:
    """One entry of a log: its number and the body that was appended."""

    __slots__ = ("_body", "_packed", "number")

    def __init__(self, number: int, body: Mapping[str, Any], packed: bytes = b"") -> None:
        self.number = number
        self._body: Mapping[str, Any] | None = body
        self._packed = packed  # the bytes in the store

    @property
    def body(self) -> Mapping[str, Any]:
        """The body that was appended. A packed entry decodes it each time."""
        if self._body is not None:
            return self._body
        body: Mapping[str, Any] = _decode(self._packed)["body"]
        return body

    def pack(self) -> None:
        """Keep only the compressed bytes, a thirtieth of the memory, if the body will seldom be read again."""
        self._packed = self._packed or _encode({"body": self.body})
        self._body = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LogEntry) and (self.number, self.body) == (other.number, other.body)

    def __repr__(self) -> str:
        return f"LogEntry({self.number}, {self.body})"

    __hash__ = None  # type: ignore[assignment]  # its body, a mapping, cannot be hashed


class Log:
    """One log. It keeps what it has read, so that a refresh reads only new entries. For one thread at a time."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store
        self._prefix = prefix
        self._reset()

    def _reset(self) -> None:
        self._base = 0
        self._base_nonces: tuple[str, ...] = ()
        self._entries: list[tuple[str, LogEntry]] = []  # nonce, entry
        self._last = 0

    def _entry_key(self, number: int) -> str:
        return f"{self._prefix}/e/{number:010d}"

    def _base_key(self, number: int) -> str:
        return f"{self._prefix}/b/{number:010d}"

    @property
    def last(self) -> int:
        """Number of the last entry read; 0 for an empty log."""
        return self._last

    def age(self, number: int) -> float | None:
        """Seconds since an entry was written, by the store's clock; None once a base has replaced it."""
        try:
            return self._store.age(self._entry_key(number))
        except NotFoundError:
            return None

    def newest(self, since: int = 0) -> int:
        """The number of the newest entry in the store, or ``since`` if that is larger. Reads no entry."""
        listing = self._store.list(f"{self._prefix}/e/", after=self._entry_key(since))
        return max(since, self._top_base(), *(_number(listed.key) for listed in listing))

    def read(self) -> list[LogEntry]:
        """All entries that are in the log now, in order. Raises StoreError if compactions keep interrupting it."""
        for _ in range(_TRIES):
            if self._advance():
                return self.known()
            self._reset()
        raise StoreError(f"log {self._prefix}: it was compacted again and again while it was read. Run again.")

    def known(self) -> list[LogEntry]:
        """The entries as of the last read. Does not access the store."""
        return [entry for _, entry in self._entries]

    def _advance(self) -> bool:
        numbers = [
            _number(listed.key) for listed in self._store.list(f"{self._prefix}/e/", after=self._entry_key(self._last))
        ]
        top = self._top_base()
        if top > self._base:
            try:
                base = _decode(self._store.get(self._base_key(top)))
            except NotFoundError:
                return False
            self._base, self._base_nonces = top, tuple(base["nonces"])
            kept = [(item["nonce"], LogEntry(item["number"], item["body"])) for item in base["entries"]]
            self._entries = kept + [pair for pair in self._entries if pair[1].number > top]
            self._last = max(self._last, top)
        fresh = sorted(number for number in numbers if number > self._last)
        if fresh != list(range(self._last + 1, self._last + 1 + len(fresh))):
            return False
        try:
            self._entries += self._fetch(fresh)
        except NotFoundError:
            return False
        self._last += len(fresh)
        return True

    def _fetch(self, numbers: Sequence[int]) -> list[tuple[str, LogEntry]]:
        def fetch(number: int) -> tuple[str, LogEntry]:
            packed = self._store.get(self._entry_key(number))
            raw = _decode(packed)
            return raw["nonce"], LogEntry(number, raw["body"], packed)

        if len(numbers) < 2:
            return [fetch(number) for number in numbers]
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(fetch, numbers))

    def _top_base(self) -> int:
        return max((_number(listed.key) for listed in self._store.list(f"{self._prefix}/b/")), default=0)

    def append(self, body: Mapping[str, Any]) -> LogEntry:
        """Append one entry, whatever other writers append meanwhile. Raises StoreError."""
        return self.append_all([body])[0]

    def append_all(self, bodies: Iterable[Mapping[str, Any]]) -> list[LogEntry]:
        """Append several entries, in this order unless a compaction comes between.

        The log is not read first: the writer tries the next number that it knows of, and reads only if another took it.
        After the last entry it checks once whether a compaction overtook any. Raises StoreError; some of the entries
        may be in the log then.
        """
        placed: dict[str, LogEntry] = {}
        waiting: Iterable[tuple[str, Mapping[str, Any]]] = ((uuid.uuid4().hex, body) for body in bodies)
        for _ in range(_TRIES):
            latest = self._place_all(waiting)
            placed |= latest
            first = min((entry.number for entry in latest.values()), default=0)
            if not latest or self._top_base() < first:
                return list(placed.values())
            self._reset()  # a compaction overtook us: which of our entries did it keep?
            self.read()
            present = {nonce for nonce, _ in self._entries}.union(self._base_nonces)
            waiting = [(nonce, entry.body) for nonce, entry in latest.items() if nonce not in present]
        raise StoreError(f"log {self._prefix}: overtaken by {_TRIES} compactions in a row. Run again.")

    def _place_all(self, bodies: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, LogEntry]:
        """Write the bodies under the next free numbers; returns the entries by nonce."""
        return {nonce: self._place(nonce, body, _encode({"nonce": nonce, "body": body})) for nonce, body in bodies}

    def _place(self, nonce: str, body: Mapping[str, Any], raw: bytes) -> LogEntry:
        for lost in range(_TRIES):
            if self._store.put_if_absent(self._entry_key(self._last + 1), raw):
                return self._took(nonce, body, raw)
            _give_way(lost)
            self.read()
        raise StoreError(f"log {self._prefix}: lost {_TRIES} numbers in a row to other writers. Run again.")

    def _took(self, nonce: str, body: Mapping[str, Any], raw: bytes) -> LogEntry:
        self._last += 1
        entry = LogEntry(self._last, body, raw)
        self._entries.append((nonce, entry))
        return entry

    def append_if(self, decide: Callable[[list[LogEntry]], Mapping[str, Any] | None]) -> LogEntry | None:
        """Append the body that ``decide`` returns for the current entries; None if ``decide`` returns None.

        ``decide`` is called again, on the longer log, each time that another writer was first. Raises StoreError.
        """
        nonce = uuid.uuid4().hex
        entries = self.read()
        for lost in range(_TRIES):
            body = decide(entries)
            if body is None:
                return None
            number = self._last + 1
            raw = _encode({"nonce": nonce, "body": body})
            if self._store.put_if_absent(self._entry_key(number), raw):
                if self._top_base() >= number:  # a compaction overtook us: did it keep our entry?
                    self._reset()
                    entries = self.read()
                    if nonce in self._base_nonces:
                        return next((entry for own, entry in self._entries if own == nonce), LogEntry(number, body))
                    continue
                return self._took(nonce, body, raw)
            _give_way(lost)
            entries = self.read()
        raise StoreError(f"log {self._prefix}: lost {_TRIES} numbers in a row to other writers. Run again.")

    def compact(self, keep: Callable[[list[LogEntry]], Iterable[LogEntry]] = list) -> None:
        """Replace all entries by a base that holds the entries that ``keep`` returns; delete the replaced objects."""
        self.read()
        top = self._last
        if top == self._base:
            return
        kept = {entry.number: entry for entry in keep(self.known())}
        nonces = [*self._base_nonces, *(nonce for nonce, entry in self._entries if entry.number > self._base)]
        base = {
            "nonces": nonces,
            "entries": [
                {"nonce": nonce, "number": entry.number, "body": kept[entry.number].body}
                for nonce, entry in self._entries
                if entry.number in kept
            ],
        }
        self._store.put_if_absent(self._base_key(top), _encode(base))  # if another writer was first, its base counts
        self._reset()
        self.read()
        self.sweep()

    def sweep(self) -> None:
        """Delete the objects that the newest base replaced, and entries that late writers put under old numbers."""
        top = self._top_base()
        for kind in ("e", "b"):
            for listed in list(self._store.list(f"{self._prefix}/{kind}/")):
                number = _number(listed.key)
                if number < top or (kind == "e" and number == top):
                    self._store.delete(listed.key)


def _give_way(lost: int) -> None:
    """Wait a random time, longer with each number lost, so that hundreds of writers do not collide for ever."""
    if lost >= _LOST_AT_ONCE:
        time.sleep(random.uniform(0, min(_WAIT_LONGEST, _WAIT_SECONDS * 2.0 ** (lost - _LOST_AT_ONCE))))


def _number(key: str) -> int:
    return int(key.rpartition("/")[2])


def _encode(value: Mapping[str, Any]) -> bytes:
    # Not the canonical form: a model's raw reply is kept character for character.
    try:
        raw = to_json(value)  # three times as fast as json.dumps
    except PydanticSerializationError:  # half a surrogate pair has no UTF-8; json escapes it
        raw = json.dumps(value, separators=(",", ":")).encode()
    return raw if len(raw) <= _COMPRESS_ABOVE else zstd.compress(raw, options=_PACKING)


def _decode(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(_unpacked(raw))
    except (ValueError, OSError, EOFError, zlib.error, zstd.ZstdError) as error:
        raise DamageError(f"a log entry is damaged ({error}). Run `taskgalaxy verify`.") from error
    if not isinstance(value, dict):
        raise DamageError("a log entry is no JSON object. Run `taskgalaxy verify`.")
    return value


def _unpacked(raw: bytes) -> bytes:
    if raw.startswith(_ZSTD):
        return zstd.decompress(raw)
    return gzip.decompress(raw) if raw.startswith(_GZIP) else raw
