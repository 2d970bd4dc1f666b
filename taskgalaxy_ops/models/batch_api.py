"""The provider's side of a batch: OpenAI's files and batches, by the official client.

A batch carries its submission's nonce in its metadata, so that one whose making was not heard of can be found. Reading
is tried again, and so is uploading, which costs nothing; making a batch never is, once it may have been heard.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic_core import to_json

from taskgalaxy_ops.errors import ModelError
from taskgalaxy_ops.models.http import Outcome, Sender, read, refused, unsigned
from taskgalaxy_ops.models.rate_limit import backoff
from taskgalaxy_ops.settings import Model

if TYPE_CHECKING:
    import openai
    from openai.types import Batch

ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
NONCE = "taskgalaxy"  # in a batch's metadata

_ENDED = {"completed", "failed", "expired", "cancelled"}
_CLOCKS_DIFFER = 86_400.0  # seconds at most, ours and the provider's
_SECONDS = 60.0  # for a reply
_UPLOAD_SECONDS = 600.0

T = TypeVar("T")


class NoReplyError(Exception):
    """The provider gave no reply. ``heard``: it may have done what it was asked."""

    def __init__(self, why: str, heard: bool) -> None:
        super().__init__(why)
        self.heard = heard


class GoneError(ModelError):
    """The provider does not have it, or not any more."""


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """A batch as the provider tells of it."""

    id: str
    status: str
    files: tuple[str, ...]  # of results
    why: str  # it failed as a whole
    seconds: float  # that it took

    @property
    def ended(self) -> bool:
        """Whether no more comes."""
        return self.status in _ENDED


def line(name: str, body: Mapping[str, Any]) -> bytes:
    """A request as a line of a batch's file."""
    return bytes(to_json({"custom_id": name, "method": "POST", "url": ENDPOINT, "body": body})) + b"\n"


class Batches:
    """Makes batches and reads what came of them. All raise ModelError (refused for good) and NoReplyError."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    async def upload(self, model: Model, name: str, lines: bytes) -> str:
        """The id of a new file that holds these lines."""
        api = self._api(model)
        file = await self._again(
            model,
            lambda: api.files.create(file=(f"{name}.jsonl", lines), purpose="batch", timeout=_UPLOAD_SECONDS),
        )
        return file.id

    async def make(self, model: Model, nonce: str, file: str) -> str:
        """Make a batch of a file; its id."""
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
        """The batch of a nonce, if the list shows it; ``since``: when it was made at the earliest, as Unix seconds."""
        api = self._api(model)

        async def look() -> BatchStatus | None:
            async for batch in api.batches.list(limit=100, timeout=_SECONDS):  # the newest first
                if (batch.metadata or {}).get(NONCE) == nonce:
                    return _standing(batch)
                if batch.created_at < since - _CLOCKS_DIFFER:
                    break
            return None

        return await self._again(model, look)

    async def look(self, model: Model, id: str) -> BatchStatus:
        """How a batch stands. Raises GoneError too."""
        api = self._api(model)
        return _standing(await self._again(model, lambda: api.batches.retrieve(id, timeout=_SECONDS)))

    async def results(self, model: Model, standing: BatchStatus) -> dict[str, Outcome]:
        """What came of each request that the results tell of, by its name."""
        found: dict[str, Outcome] = {}
        async for raw in self._lines(model, standing):
            try:
                told = json.loads(raw)
                name, sent = told["custom_id"], _sent(told, by_url=model.images == "url")
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                continue
            if isinstance(name, str):
                found.setdefault(name, sent)
        return found

    async def _lines(self, model: Model, standing: BatchStatus) -> AsyncIterator[bytes]:
        api = self._api(model)
        for file in standing.files:
            try:
                content = await self._again(model, partial(api.files.content, file, timeout=_UPLOAD_SECONDS))
            except GoneError:  # kept for a month, say
                continue
            for raw in content.content.splitlines():
                yield raw

    async def clear(self, model: Model, files: tuple[str, ...]) -> None:
        """Delete files that are of no more use, as far as the provider lets us."""
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
        sent = refused(error.status_code, error.body or error.message, error.response.headers)
        if sent.came in {"fatal", "declined"}:
            raise ModelError(
                f"{where}: {sent.why}. Check base_url, model, key and credit, or set mode: chat."
            ) from error
        raise NoReplyError(f"{where}: {sent.why}", heard=sent.came != "busy") from error
    except (openai.APIError, aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise NoReplyError(f"{where}: {type(error).__name__}: {error}", heard=True) from error


def _standing(batch: Batch) -> BatchStatus:
    files = tuple(file for file in (batch.output_file_id, batch.error_file_id) if file)
    errors = (batch.errors.data if batch.errors else None) or []
    why = "; ".join(unsigned(str(error.message))[:200] for error in errors[:3])
    ended = batch.completed_at or batch.expired_at or batch.cancelled_at or batch.failed_at or batch.created_at
    return BatchStatus(batch.id, batch.status, files, why, float(ended - batch.created_at))


def _sent(told: Mapping[str, Any], *, by_url: bool) -> Outcome:
    """A line of the results. Raises for what is none."""
    response = told.get("response")
    if not response:
        return Outcome(came="failed", data={}, why=str((told.get("error") or {}).get("code")), left=False)
    body = response["body"]
    if response["status_code"] == 200:
        try:
            return read(body, None)
        except ValueError as error:
            return Outcome(came="failed", data={}, why=str(error), billed=True)
    return refused(response["status_code"], body, {}, by_url=by_url)
