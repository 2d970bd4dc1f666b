"""``/v1/files``: what batches read and write, as OpenAI's Files API has it. Kept in memory: gone with the server."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.simulator.wire import WrongRequestError

_MOST_LISTED = 10_000


class _Identified(Protocol):
    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=_Identified)


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file and OpenAI's description of it."""

    id: str
    name: str
    purpose: str
    created_at: float
    data: bytes
    sha256: str

    def told(self) -> dict[str, Any]:
        """The file object."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": len(self.data),
            "created_at": int(self.created_at),
            "filename": self.name,
            "purpose": self.purpose,
            "status": "processed",
            "expires_at": None,
            "simulated": True,
        }


class Files:
    """The files of one server, in the order of their making. ``max_bytes`` may change while it runs."""

    def __init__(self, max_bytes: Callable[[], int], clock: Callable[[], float] = time.time) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._files: dict[str, File] = {}

    @property
    def routes(self) -> Sequence[Route]:
        """The endpoints."""
        return [
            Route("/v1/files", self._upload, methods=["POST"]),
            Route("/v1/files", self._list, methods=["GET"]),
            Route("/v1/files/{id}", self._retrieve, methods=["GET"]),
            Route("/v1/files/{id}", self._delete, methods=["DELETE"]),
            Route("/v1/files/{id}/content", self._content, methods=["GET"]),
        ]

    async def add(self, name: str, purpose: str, data: bytes) -> File:
        """Keep a file."""
        sha256 = await asyncio.to_thread(sha256_hex, data)
        file = File(
            id=f"file-{uuid.uuid4().hex}",
            name=name,
            purpose=purpose,
            created_at=self._clock(),
            data=data,
            sha256=sha256,
        )
        self._files[file.id] = file
        return file

    def get(self, id: str) -> File | None:
        """A file by its id."""
        return self._files.get(id)

    async def _upload(self, request: Request) -> Response:
        async with request.form(max_files=1) as form:
            upload, purpose = form.get("file"), form.get("purpose")
            if not isinstance(upload, UploadFile) or purpose != "batch":
                raise WrongRequestError(400, "a `file` and the purpose `batch` are needed, as multipart/form-data.")
            if (upload.size or 0) > self._max_bytes():
                raise WrongRequestError(413, f"The file is too large: at most {self._max_bytes()} bytes.")
            name = upload.filename or ""
            if not name.endswith(".jsonl"):
                raise WrongRequestError(400, "Invalid file format for Batch API. Must be .jsonl")
            return JSONResponse((await self.add(name, purpose, await upload.read())).told())

    async def _list(self, request: Request) -> Response:
        purpose = request.query_params.get("purpose")
        listed = [file for file in self._files.values() if purpose in (None, file.purpose)]
        if request.query_params.get("order") != "asc":
            listed.reverse()
        return JSONResponse(page(request, listed, File.told, _MOST_LISTED, _MOST_LISTED))

    async def _retrieve(self, request: Request) -> Response:
        return JSONResponse(self._named(request).told())

    async def _content(self, request: Request) -> Response:
        return Response(self._named(request).data, media_type="application/jsonl")

    async def _delete(self, request: Request) -> Response:
        file = self._files.pop(self._named(request).id)
        return JSONResponse({"id": file.id, "object": "file", "deleted": True})

    def _named(self, request: Request) -> File:
        id = request.path_params["id"]
        if (file := self.get(id)) is None:
            raise WrongRequestError(404, f"No such File object: {id}")
        return file


def page(
    request: Request, items: Sequence[T], told: Callable[[T], dict[str, Any]], default: int, most: int
) -> dict[str, Any]:
    """A page of a list by the query's ``after`` and ``limit``, as OpenAI writes it. Raises WrongRequestError."""
    limit, after = request.query_params.get("limit", str(default)), request.query_params.get("after")
    if not limit.isdecimal() or not 1 <= int(limit) <= most:
        raise WrongRequestError(400, f"limit: {limit!r} is no number from 1 to {most}.")
    start = 0
    if after is not None:
        start = next((place for place, item in enumerate(items, 1) if item.id == after), -1)
        if start < 0:
            raise WrongRequestError(400, f"after: nothing in the list has the id {after!r}.")
    shown = items[start : start + int(limit)]
    return {
        "object": "list",
        "data": [told(item) for item in shown],
        "first_id": shown[0].id if shown else None,
        "last_id": shown[-1].id if shown else None,
        "has_more": start + len(shown) < len(items),
    }
