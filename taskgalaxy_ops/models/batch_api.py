"""Client of the provider's Batch API: OpenAI's files and batches, through the official library.

A batch carries its nonce in its metadata, so that it can be found if the reply to its creation was lost. Failed reads
are tried again, and so are uploads, which cost nothing. Creating a batch is not tried again here, since the provider
may have created it before the failure.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic_core import to_json

from taskgalaxy_ops.errors import ModelError
from taskgalaxy_ops.models.http import Outcome, Sender, read, refused
from taskgalaxy_ops.models.rate_limit import backoff
from taskgalaxy_ops.models.refusals import unsigned
from taskgalaxy_ops.settings import Model

if TYPE_CHECKING:
    import openai
    from openai.types import Batch

ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
NONCE = "taskgalaxy"  # the field of a batch's metadata that holds its nonce

# What providers say when too many batches, requests or tokens of ours are queued; a later or smaller batch fits.
_CROWDED = re.compile(
    r"token_limit|enqueued|queue|too many (batches|requests)|batch\w* (limit|quota)|concurrent batch|rate.?limit"
)
_ENDED = {"completed", "failed", "expired", "cancelled"}
_CLOCKS_DIFFER = 86_400.0  # seconds by which the provider's clock and ours may differ
_SECONDS = 60.0  # to wait for a reply
_UPLOAD_SECONDS = 600.0

T = TypeVar("T")


class NoReplyError(Exception):
    """The provider gave no usable reply. ``heard``: it may have received the request and acted on it.

    crowded: it has no room now, since too many batches, requests or tokens are queued. wait: seconds that it asks to
    wait; 0: it does not say.
    """

    def __init__(self, why: str, heard: bool, crowded: bool = False, wait: float = 0.0) -> None:
        super().__init__(why)
        self.heard = heard
        self.crowded = crowded
        self.wait = wait


class GoneError(ModelError):
    """The provider does not have the object, or does not have it any more."""


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """The state of a batch, as the provider reports it."""

    id: str
    status: str
    files: tuple[str, ...]  # ids of its result files
    why: str  # the reason if the whole batch failed
    seconds: float  # from its creation to its end

    @property
    def crowded(self) -> bool:
        """Whether the provider failed the batch because its queue had no room for it."""
        return self.status == "failed" and bool(_CROWDED.search(self.why.lower()))

    @property
    def ended(self) -> bool:
        """Whether the provider has finished the batch, in whatever way."""
        return self.status in _ENDED


def line(name: str, body: Mapping[str, Any]) -> bytes:
    """One line of a batch's input file: the request ``body`` under the name ``name``."""
    return bytes(to_json({"custom_id": name, "method": "POST", "url": ENDPOINT, "body": body})) + b"\n"


class Batches:
    """Creates batches and reads their results. All methods raise ModelError (refused for good) and NoReplyError."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    async def upload(self, model: Model, name: str, lines: bytes) -> str:
        """Upload these lines as a new file; returns its id."""
        api = self._api(model)
        file = await self._again(
            model,
            lambda: api.files.create(file=(f"{name}.jsonl", lines), purpose="batch", timeout=_UPLOAD_SECONDS),
        )
        return file.id

    async def make(self, model: Model, nonce: str, file: str) -> str:
        """Create a batch of an uploaded file; returns the batch's id."""
        api = self._api(model)
        made = await _once(
            model,
            lambda: api.batches.create(
                input_file_id=file,
                endpoint=ENDPOINT,
                completion_window="24h",
                metadata={NONCE: nonce},
                timeout=_SECONDS,
            ),
        )
        return made.id

    async def find(self, model: Model, nonce: str, since: float) -> BatchStatus | None:
        """The batch with this nonce; None if the list lacks it. ``since``: its earliest creation, Unix seconds."""
        api = self._api(model)

        async def look() -> BatchStatus | None:
            async for batch in api.batches.list(limit=100, timeout=_SECONDS):  # newest first
                if (batch.metadata or {}).get(NONCE) == nonce:
                    return _status_of(batch)
                if batch.created_at < since - _CLOCKS_DIFFER:
                    break
            return None

        return await self._again(model, look)

    async def look(self, model: Model, id: str) -> BatchStatus:
        """The state of a batch. Raises GoneError, too."""
        api = self._api(model)
        return _status_of(await self._again(model, lambda: api.batches.retrieve(id, timeout=_SECONDS)))

    async def results(self, model: Model, batch: BatchStatus) -> dict[str, Outcome]:
        """The outcome of each request in the batch's result files, by the request's name. Damaged lines are skipped."""
        outcomes: dict[str, Outcome] = {}
        async for raw in self._lines(model, batch):
            try:
                entry = json.loads(raw)
                name, outcome = entry["custom_id"], _outcome_of(entry, by_url=model.images == "url")
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                continue
            if isinstance(name, str):
                outcomes.setdefault(name, outcome)
        return outcomes

    async def _lines(self, model: Model, batch: BatchStatus) -> AsyncIterator[bytes]:
        api = self._api(model)
        for file in batch.files:
            try:
                content = await self._again(model, partial(api.files.content, file, timeout=_UPLOAD_SECONDS))
            except GoneError:  # providers delete results, some after a month
                continue
            for raw in content.content.splitlines():
                yield raw

    async def clear(self, model: Model, files: tuple[str, ...]) -> None:
        """Delete files that are not needed any more; stops silently at the first that cannot be deleted."""
        import openai

        for file in files:
            try:
                await self._api(model).files.delete(file, timeout=_SECONDS)
            except openai.OpenAIError:
                return

    def _api(self, model: Model) -> openai.AsyncOpenAI:
        return self._sender.client(model)

    async def _again(self, model: Model, ask: Callable[[], Awaitable[T]]) -> T:
        for tries in range(1, model.retries + 1):
            try:
                return await _once(model, ask)
            except NoReplyError:
                await asyncio.sleep(backoff(tries))
        return await _once(model, ask)


async def _once(model: Model, ask: Callable[[], Awaitable[T]]) -> T:
    import aiohttp
    import openai

    where = f"model {model.name!r} at {model.base_url}, batches"
    try:
        return await ask()
    except openai.NotFoundError as error:
        raise GoneError(
            f"{where}: {unsigned(error.message)[:200]} Set mode: chat where it has no Batch API."
        ) from error
    except openai.APIStatusError as error:
        outcome = refused(error.status_code, error.body or error.message, error.response.headers)
        crowded = outcome.kind == "busy" or bool(_CROWDED.search(outcome.why.lower()))
        if outcome.kind == "fatal" or not (crowded or outcome.kind in {"slow", "failed"}):
            raise ModelError(
                f"{where}: {outcome.why}. Check base_url, model, key and credit, or set mode: chat."
            ) from error
        why = f"{where}: {outcome.why}"
        raise NoReplyError(why, heard=not crowded, crowded=crowded, wait=outcome.wait) from error
    except (openai.APIError, aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise NoReplyError(f"{where}: {type(error).__name__}: {error}", heard=True) from error


def _status_of(batch: Batch) -> BatchStatus:
    files = tuple(file for file in (batch.output_file_id, batch.error_file_id) if file)
    errors = (batch.errors.data if batch.errors else None) or []
    why = "; ".join(f"{error.code or ''} {unsigned(str(error.message))[:200]}".strip() for error in errors[:3])
    ended = batch.completed_at or batch.expired_at or batch.cancelled_at or batch.failed_at or batch.created_at
    return BatchStatus(batch.id, batch.status, files, why, float(ended - batch.created_at))


def _outcome_of(told: Mapping[str, Any], *, by_url: bool) -> Outcome:
    """The outcome in one line of a result file. Raises ValueError, KeyError, TypeError or AttributeError."""
    response = told.get("response")
    if not response:
        return Outcome(kind="failed", data={}, why=str((told.get("error") or {}).get("code")), left=False)
    body = response["body"]
    if response["status_code"] == 200:
        try:
            return read(body, None)
        except ValueError as error:
            return Outcome(kind="failed", data={}, why=str(error), billed=True)
    return refused(response["status_code"], body, {}, by_url=by_url)
