"""The log: the one primitive on which processes agree.

A log is a run of objects numbered from 1 without gaps, ``<log>/e/0000000001`` …, each written put-if-absent. Who
loses a number reads what won, and decides again. An entry is a JSON object with its writer's ``nonce``; above 4 KiB it
is compressed with Zstandard (RFC 8878), with a checksum, as its first bytes tell; gzip, of earlier versions, is read.

A base, ``<log>/b/<number>``, replaces the entries up to that number: it holds the ones that are kept, and the nonces
of all. An append counts if a read after it finds no base at or above its number, or one that lists its nonce. A
reader lists entries before bases, and starts again where an entry is gone or a number is missing.
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
_TRIES = 50  # a loser reads and decides again; more losses in a row mean that something is wrong
_READERS = 8  # entries fetched at once
_LOST_AT_ONCE = 2  # numbers lost before a writer gives way to others
_WAIT_SECONDS = 0.05  # at most, the first time; doubled with each number lost
_WAIT_LONGEST = 2.0
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"  # how such an entry begins
# A part of replies comes to three quarters of what gzip makes of it, in a quarter of the time.
_PACKING: dict[int, int] = {zstd.CompressionParameter.compression_level: 1, zstd.CompressionParameter.checksum_flag: 1}


class LogEntry:
    """One entry as it was appended."""

    __slots__ = ("_body", "_packed", "number")

    def __init__(self, number: int, body: Mapping[str, Any], packed: bytes = b"") -> None:
        self.number = number
        self._body: Mapping[str, Any] | None = body
        self._packed = packed  # as the store has it

    @property
    def body(self) -> Mapping[str, Any]:
        """What was appended; of a packed entry it is read anew each time."""
        if self._body is not None:
            return self._body
        body: Mapping[str, Any] = _decode(self._packed)["body"]
        return body

    def pack(self) -> None:
        """Keep it as the store does, which takes a thirtieth of the memory: for what is seldom looked at again."""
        self._packed = self._packed or _encode({"body": self.body})
        self._body = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LogEntry) and (self.number, self.body) == (other.number, other.body)

    def __repr__(self) -> str:
        return f"LogEntry({self.number}, {self.body})"

    __hash__ = None  # type: ignore[assignment]  # its body is none that could be


class Log:
    """One log; keeps what it has read, so that a refresh reads only what is new. Not for use by several threads."""

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

    def newest(self, since: int = 0) -> int:
        """Number of the newest entry as of now, or ``since`` if it is not above that; lists, and reads nothing."""
        found = (_number(each.key) for each in self._store.list(f"{self._prefix}/e/", after=self._entry_key(since)))
        return max(since, self._top_base(), *found)

    def read(self) -> list[LogEntry]:
        """All entries that stand, in order, as of now. Raises StoreError if the log keeps changing under the reader."""
        for _ in range(_TRIES):
            if self._advance():
                return self.known()
            self._reset()
        raise StoreError(f"log {self._prefix}: it was compacted again and again while it was read. Run again.")

    def known(self) -> list[LogEntry]:
        """What the last read found, without asking the store."""
        return [entry for _, entry in self._entries]

    def _advance(self) -> bool:
        found = [
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
        fresh = sorted(number for number in found if number > self._last)
        if fresh != list(range(self._last + 1, self._last + 1 + len(fresh))):
            return False
        try:
            self._entries += self._fetch(fresh)
        except NotFoundError:
            return False
        self._last += len(fresh)
        return True

    def _fetch(self, numbers: Sequence[int]) -> list[tuple[str, LogEntry]]:
        def one(number: int) -> tuple[str, LogEntry]:
            packed = self._store.get(self._entry_key(number))
            raw = _decode(packed)
            return raw["nonce"], LogEntry(number, raw["body"], packed)

        if len(numbers) < 2:
            return [one(number) for number in numbers]
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(one, numbers))

    def _top_base(self) -> int:
        return max((_number(listed.key) for listed in self._store.list(f"{self._prefix}/b/")), default=0)

    def append(self, body: Mapping[str, Any]) -> LogEntry:
        """Append whatever the others append meanwhile."""
        return self.append_all([body])[0]

    def append_all(self, bodies: Iterable[Mapping[str, Any]]) -> list[LogEntry]:
        """Append several; in this order, unless a compaction comes between.

        The log is not read first: the next number that we know of is tried, and a loser reads. Whether a compaction
        overtook any of them is asked once, behind the last. Raises StoreError; some of them may stand then.
        """
        placed: dict[str, LogEntry] = {}
        waiting: Iterable[tuple[str, Mapping[str, Any]]] = ((uuid.uuid4().hex, body) for body in bodies)
        for _ in range(_TRIES):
            latest = self._place_all(waiting)
            placed |= latest
            first = min((entry.number for entry in latest.values()), default=0)
            if not latest or self._top_base() < first:
                return list(placed.values())
            self._reset()  # overtaken: what did the compaction take along?
            self.read()
            standing = {nonce for nonce, _ in self._entries}.union(self._base_nonces)
            waiting = [(nonce, entry.body) for nonce, entry in latest.items() if nonce not in standing]
        raise StoreError(f"log {self._prefix}: overtaken by {_TRIES} compactions in a row. Run again.")

    def _place_all(self, bodies: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, LogEntry]:
        """Write bodies under the next numbers that are free; the entries by nonce."""
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
        """Append what ``decide`` makes of the log as it stands; None if it declines.

        ``decide`` is called again, on the longer log, each time that another writer was first.
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
                if self._top_base() >= number:  # a compaction overtook us: did it take our entry along?
                    self._reset()
                    entries = self.read()
                    if nonce in self._base_nonces:
                        return next((e for n, e in self._entries if n == nonce), LogEntry(number, body))
                    continue
                return self._took(nonce, body, raw)
            _give_way(lost)
            entries = self.read()
        raise StoreError(f"log {self._prefix}: lost {_TRIES} numbers in a row to other writers. Run again.")

    def compact(self, keep: Callable[[list[LogEntry]], Iterable[LogEntry]] = list) -> None:
        """Replace all entries by a base that holds the ones that ``keep`` gives; then delete the replaced objects."""
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
        self._store.put_if_absent(self._base_key(top), _encode(base))  # a lost race: the other's base stands
        self._reset()
        self.read()
        self.sweep()

    def sweep(self) -> None:
        """Delete what the newest base has replaced, a late writer's entries under old numbers included."""
        top = self._top_base()
        for kind in ("e", "b"):
            for listed in list(self._store.list(f"{self._prefix}/{kind}/")):
                number = _number(listed.key)
                if number < top or (kind == "e" and number == top):
                    self._store.delete(listed.key)


def _give_way(lost: int) -> None:
    """Wait a random time, longer with each number lost: of hundreds of writers, one gets through at a time."""
    if lost >= _LOST_AT_ONCE:
        time.sleep(random.uniform(0, min(_WAIT_LONGEST, _WAIT_SECONDS * 2.0 ** (lost - _LOST_AT_ONCE))))


def _number(key: str) -> int:
    return int(key.rpartition("/")[2])


def _encode(value: Mapping[str, Any]) -> bytes:
    # Not the canonical form: a raw reply is kept as it came, character for character.
    try:
        plain = to_json(value)  # three times as fast
    except PydanticSerializationError:  # half a surrogate pair, which has no UTF-8: escaped, it comes back as it was
        plain = json.dumps(value, separators=(",", ":")).encode()
    return plain if len(plain) <= _COMPRESS_ABOVE else zstd.compress(plain, options=_PACKING)


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
