"""The few exceptions that cross module borders. Each message names the thing, the reason and the fix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class TaskGalaxyError(Exception):
    """Base of all errors that a user may see; the command line prints its message without a traceback."""


class SettingsError(TaskGalaxyError):
    """A setting is missing, unknown or out of bounds; the message names field, value and fix."""


class StoreError(TaskGalaxyError):
    """The object store cannot do what was asked: unreachable, wrong keys, no conditional writes, wrong layout."""


class ReadOnlyError(StoreError):
    """Something was to be written through a store that was opened to look at."""


class NotFoundError(StoreError):
    """No object lies under this key."""


class OriginError(NotFoundError):
    """An image that is not copied cannot be read at its source any more, or has other bytes there."""


class UnreadableError(StoreError):
    """One object cannot be read while the store replies: archived, encrypted with a key we lack, or forbidden.

    ``why``: the same in a few words, for a table of rejects. ``reason``: the ``records.Reason`` of that reject.
    """

    def __init__(self, message: str, why: str = "", reason: str = "unreadable") -> None:
        super().__init__(message)
        self.why = why or message
        self.reason = reason


class ForbiddenError(StoreError):
    """The store replies, and refuses a write for lack of rights. Reading may be allowed."""


class LeaseLostError(StoreError):
    """Another worker holds this image shard, or the lease's deadline passed. Nothing more may be sent for the shard."""


class SourceError(TaskGalaxyError):
    """A source cannot be read, or holds no image."""


class TaxonomyError(TaskGalaxyError):
    """A seed file or a taxonomy version is not what it should be."""


class ReviewError(TaskGalaxyError):
    """People's votes cannot be taken over; the message names each row that is wrong, and nothing was imported."""


class EncoderError(TaskGalaxyError):
    """An encoder cannot be loaded, or its output is no embedding."""


class ModelError(TaskGalaxyError):
    """A model refuses every request for good (wrong key, unknown model, not an OpenAI endpoint)."""


class BudgetError(TaskGalaxyError):
    """The budget is spent. Items without an answer stay pending; a run with a raised budget asks for them."""


class UnansweredError(TaskGalaxyError):
    """A model gave no reply (rate limit, 5xx, time-out). A later request may succeed."""


class PendingError(TaskGalaxyError):
    """Items still lack an answer, so the result would be incomplete.

    ``waiting``: the batches (``inference.batch_wait.PendingBatch``) that have not ended and may bring the answers.
    ``away``: since when models have served nothing (Unix seconds), by name.
    """

    def __init__(self, message: str, waiting: Sequence[Any] = (), away: Mapping[str, float] | None = None) -> None:
        super().__init__(message)
        self.waiting = waiting
        self.away = away or {}


class LostError(TaskGalaxyError):
    """More units than the settings take as usual ended without an answer, by our fault or a model's."""


class DamageError(TaskGalaxyError):
    """What the store holds does not match its own counts and hashes."""


class PushError(TaskGalaxyError):
    """A release cannot be pushed to where it was to go: refused, out of reach, or something else lies there."""


class JobError(TaskGalaxyError):
    """A training job failed, was cancelled, or cannot be started."""


class SchedulerError(JobError):
    """The scheduler that runs the jobs does not reply. A later request may succeed."""


class EvaluationError(TaskGalaxyError):
    """A benchmark cannot be run, or its result is no score."""
