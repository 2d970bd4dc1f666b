"""The log of coverage: how many samples each task type had when an entry was recorded.

``match.prefer_starving`` reads the newest entry, and the keys of match outputs name its content: matches change when
somebody records another entry, and not with every new image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from taskgalaxy_ops.hashing import fingerprint
from taskgalaxy_ops.records import TaskTypePath
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.base import Store
from taskgalaxy_ops.storage.log import Log, LogEntry


@dataclass(frozen=True, slots=True)
class CoverageEntry:
    """An entry of the log."""

    number: int  # 0: it is not recorded
    taxonomy: int  # version
    samples: Mapping[TaskTypePath, int]  # of the task types that had any

    @property
    def hash(self) -> str:
        """The fingerprint of the samples, by which keys name the entry."""
        return fingerprint("coverage", dict(self.samples))


class CoverageLog:
    """Reads and extends the log of a store."""

    def __init__(self, store: Store) -> None:
        self._log = Log(store, keys.COVERAGE_LOG)

    def newest(self) -> CoverageEntry | None:
        """The newest entry; None: there is none."""
        entries = self._log.read()
        return _entry(entries[-1]) if entries else None

    def record(self, taxonomy: int, samples: Mapping[TaskTypePath, int], *, first: bool = False) -> CoverageEntry:
        """Append an entry, unless the newest one has the same samples; returns the newest.

        first: only if there is no entry at all.
        """
        body = {"taxonomy": taxonomy, "samples": {path: samples[path] for path in sorted(samples)}}

        def decide(entries: list[LogEntry]) -> Mapping[str, Any] | None:
            if entries and (first or entries[-1].body["samples"] == body["samples"]):
                return None
            return body

        self._log.append_if(decide)
        return _entry(self._log.known()[-1])


def _entry(entry: LogEntry) -> CoverageEntry:
    return CoverageEntry(entry.number, entry.body["taxonomy"], entry.body["samples"])
