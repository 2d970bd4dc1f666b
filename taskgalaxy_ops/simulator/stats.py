"""What the simulated models were asked and what they did: counted from the content received, kept through a kill -9.

A record a request, one JSON line, is given to the operating system before the reply is sent; at start the file is read
back. A last line that a death tore is cut off.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskgalaxy_ops.errors import DamageError, SettingsError

_VOTE_COUNTS = (
    *("true_accept", "false_accept", "true_reject", "false_reject", "unknown"),
    *("cannot_tell", "found_right", "erred_on_right", "found_wrong", "erred_on_wrong"),
)


@dataclass(slots=True)
class _UnitCount:
    model: str
    stage: str
    asked: int = 0
    answered: int = 0


class Stats:
    """Counts requests; for one thread. ``path`` None: in memory alone.

    Raises SettingsError where another server holds the file or it cannot be written, DamageError where it holds
    something else than this server's records.
    """

    def __init__(self, path: Path | None) -> None:
        self._file: int | None = None
        self._empty()
        if path is not None:
            self._open(path)

    def _empty(self) -> None:
        self._attempts: Counter[str] = Counter()
        self._units: dict[str, _UnitCount] = {}
        self._calls: Counter[str] = Counter()
        self._requests: Counter[str] = Counter()
        self._tokens: dict[str, list[int]] = {}
        self._faults: Counter[str] = Counter()
        self._refused_requests: Counter[str] = Counter()
        self._pairs: dict[str, bool] = {}
        self._written: dict[str, Mapping[str, Any]] = {}  # by unit
        self._votes: dict[str, tuple[str, Mapping[str, Any]]] = {}  # by unit
        self._labels: dict[str, list[Mapping[str, Any]]] = {}  # by unit

    def _open(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            data = path.read_bytes()
        except BlockingIOError as error:
            self.close()
            raise SettingsError(
                f"statistics {path}: another server writes there. Stop it, or name another file."
            ) from error
        except OSError as error:
            self.close()
            raise SettingsError(f"statistics {path}: cannot be written ({error}). Name another file.") from error
        whole = data.rfind(b"\n") + 1
        os.ftruncate(self._file, whole)
        for number, line in enumerate(data[:whole].splitlines(), 1):
            try:
                record = json.loads(line)
                self._attempts[record["request"]] += 1
                self._fold(record)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                self.close()
                raise DamageError(
                    f"statistics {path}: line {number} is no record of this server ({error!r}). Name another file."
                ) from error

    def clear(self) -> None:
        """Count from nothing again, in the file too."""
        if self._file is not None:
            os.ftruncate(self._file, 0)
        self._empty()

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def attempt(self, request: str) -> int:
        """Count an attempt at a request (by its content); gives its number, from 1."""
        self._attempts[request] += 1
        return self._attempts[request]

    def add(self, record: Mapping[str, Any]) -> None:
        """Keep what was done with one attempt; it is the operating system's when this returns.

        Fields: request (key), model, stage, units and answered (keys), fault (or None), tokens (prompt, completion;
        None where there was no reply that is paid for), pairs, votes and labels (answers.py).
        """
        if self._file is not None:
            line = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
            while line:
                line = line[os.write(self._file, line) :]
        self._fold(record)

    def wrong(self, status: int) -> None:
        """Count a request that nothing could be answered to; not kept."""
        self._refused_requests[str(status)] += 1

    def _fold(self, record: Mapping[str, Any]) -> None:
        model, stage = record["model"], record["stage"]
        answered = set(record["answered"])
        self._requests[model] += 1
        for unit in record["units"]:
            count = self._units.setdefault(unit, _UnitCount(model, stage))
            count.asked += 1
            count.answered += unit in answered
        if record["fault"]:
            self._faults[record["fault"]] += 1
        if record["tokens"]:
            self._calls[model] += 1
            tokens = self._tokens.setdefault(model, [0, 0])
            tokens[0] += record["tokens"][0]
            tokens[1] += record["tokens"][1]
        for pair in record.get("pairs", ()):
            if pair["unit"] in answered:
                self._written.setdefault(pair["unit"], pair)
                self._pairs[pair["pair"]] = pair["planted"]
        for vote in record.get("votes", ()):
            if vote["unit"] in answered:
                self._votes.setdefault(vote["unit"], (model, vote))
        if answered and (labels := record.get("labels")):
            self._labels.setdefault(record["units"][0], labels)

    def summary(self) -> dict[str, Any]:
        """All counts, JSON-like. Answers count once a unit, however often it was asked."""
        planted = [pair for pair in self._written.values() if pair["planted"]]
        again = {key: count for key, count in self._units.items() if count.asked > 1}
        kinds = [label for labels in self._labels.values() for label in labels]
        return {
            "simulated": True,
            "requests": sum(self._requests.values()),
            "requests_by_model": dict(self._requests),
            "wrong_requests": dict(self._refused_requests),
            "calls": dict(self._calls),
            "tokens": {model: {"prompt": p, "completion": c} for model, (p, c) in self._tokens.items()},
            "faults": dict(self._faults),
            "units": {
                "distinct": len(self._units),
                "by_stage": dict(Counter(count.stage for count in self._units.values())),
                "asked": sum(count.asked for count in self._units.values()),
                "answered": sum(count.answered for count in self._units.values()),
            },
            "asked_again": [
                {"unit": key, "model": c.model, "stage": c.stage, "asked": c.asked, "answered": c.answered}
                for key, c in again.items()
            ],
            "answered_again": sum(count.answered > 1 for count in again.values()),
            "pairs": {
                "written": len(self._written),
                "planted": [{name: value for name, value in pair.items() if name != "pair"} for pair in planted],
            },
            "votes": self._vote_counts(),
            "labels": dict(Counter(label["kind"] for label in kinds)),
            "planted_labels": [label for label in kinds if label["kind"] != "new"],
        }

    def _vote_counts(self) -> dict[str, dict[str, int]]:
        """By judge: votes against the truth (planted or not), the seeded errors, and what it could not tell.

        A pair counts as unknown where its answer was not shown, or this server did not write it.
        """
        counts: dict[str, Counter[str]] = {}
        for model, vote in self._votes.values():
            count = counts.setdefault(model, Counter())
            planted = self._pairs.get(vote["pair"] or "")
            if planted is None:
                count["unknown"] += 1
            else:
                truth = "false" if bool(vote["vote"]) == planted else "true"
                count[f"{truth}_{'accept' if vote['vote'] else 'reject'}"] += 1
            if vote["found"] is None:
                count["cannot_tell"] += 1
            else:
                found = "right" if vote["found"] else "wrong"
                count[f"found_{found}"] += 1
                count[f"erred_on_{found}"] += vote["erred"]
        return {model: {name: count[name] for name in _VOTE_COUNTS} for model, count in sorted(counts.items())}
