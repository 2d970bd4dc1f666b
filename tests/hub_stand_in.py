"""A stand-in of the Hugging Face hub: the part of its HTTP API that a push uses, over real HTTP on loopback.

One data set repository at most for each name; files above ``LFS_BYTES`` or of a binary kind are LFS objects, as the hub
decides by its ``.gitattributes``. Faults are planned: a status for the next request whose path holds a word.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

TOKEN = "hf_stand_in_token"
LFS_BYTES = 1 << 20
_BINARY = (".parquet", ".jpg", ".png", ".tar")
Files = dict[str, tuple[str, bytes]]  # by path: the object's sha256 ("": no LFS object), and a small file's content


@dataclass
class Repo:
    """A repository: its commits, oldest first, each with all its files."""

    private: bool
    commits: list[Files] = field(default_factory=lambda: [{".gitattributes": ("", b"*.parquet filter=lfs\n")}])
    objects: dict[str, bytes] = field(default_factory=dict)  # LFS objects, by sha256

    @property
    def sha(self) -> str:
        told = [[sorted((path, oid, len(raw)) for path, (oid, raw) in each.items())] for each in self.commits]
        return hashlib.sha1(json.dumps(told).encode()).hexdigest()

    def content(self, path: str) -> bytes:
        oid, raw = self.commits[-1][path]
        return self.objects[oid] if oid else raw

    def files(self) -> dict[str, bytes]:
        """What somebody who downloads the head gets, without files of the hub's own."""
        return {path: self.content(path) for path in self.commits[-1] if not path.startswith(".")}


@dataclass
class HubStandIn:
    """What it holds and was asked; ``faults``: (word of the path, status), each for one request."""

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    faults: list[tuple[str, int]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)  # method and path
    stop_after: int | None = None  # uploads after which it fails for good

    def app(self) -> Starlette:
        api = "/api/datasets/{owner}/{name}"
        routes = [
            ("POST", "/api/repos/create", self._create),
            ("POST", "/api/validate-yaml", self._validate),
            ("GET", api, self._info),
            ("POST", f"{api}/preupload/main", self._preupload),
            ("POST", "/datasets/{owner}/{name}.git/info/lfs/objects/batch", self._batch),
            ("PUT", "/upload/{owner}/{name}/{oid}", self._upload),
            ("POST", f"{api}/commit/main", self._commit),
            ("GET", f"{api}/tree/main", self._tree),
            ("POST", f"{api}/super-squash/main", self._squash),
            ("GET", f"{api}/lfs-files", self._lfs_files),
            ("POST", f"{api}/lfs-files/batch", self._lfs_delete),
        ]
        return Starlette(routes=[Route(path, self._guarded(each), methods=[verb]) for verb, path, each in routes])

    def _guarded(self, handler: Any) -> Any:
        async def guarded(request: Request) -> Response:
            path = request.url.path
            self.requests.append(f"{request.method} {path}")
            body = await request.body()
            for fault in self.faults:
                if fault[0] in path:
                    self.faults.remove(fault)
                    return JSONResponse({"error": "planned"}, fault[1], headers={"Retry-After": "7"})
            if "/upload/" not in path and request.headers.get("Authorization") != f"Bearer {TOKEN}":
                return JSONResponse({"error": "Invalid credentials"}, 401)
            if "name" in request.path_params and self._name(request) not in self.repos:
                return JSONResponse({"error": "not found"}, 404, headers={"X-Error-Code": "RepoNotFound"})
            return handler(request, body)  # type: ignore[no-any-return]

        return guarded

    def _name(self, request: Request) -> str:
        return f"{request.path_params['owner']}/{request.path_params['name']}"

    def _repo(self, request: Request) -> Repo:
        return self.repos[self._name(request)]

    def _create(self, request: Request, body: bytes) -> Response:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if asked["organization"] != "acme":
            return JSONResponse({"error": f"no right in {asked['organization']}"}, 403)
        if name in self.repos:
            return JSONResponse({"error": "exists", "url": f"{self.url}/datasets/{name}"}, 409)
        self.repos[name] = Repo(asked.get("visibility") == "private" or bool(asked.get("private")))
        return JSONResponse({"url": f"{self.url}/datasets/{name}"})

    def _validate(self, request: Request, body: bytes) -> Response:
        asked = json.loads(body)
        assert asked["repoType"] == "dataset" and asked["content"].startswith("---\n")
        return JSONResponse({"errors": [], "warnings": []})

    def _info(self, request: Request, body: bytes) -> Response:
        repo = self._repo(request)
        return JSONResponse({"id": self._name(request), "private": repo.private, "sha": repo.sha, "siblings": []})

    def _preupload(self, request: Request, body: bytes) -> Response:
        head = self._repo(request).commits[-1]
        told = []
        for each in json.loads(body)["files"]:
            lfs = each["size"] > LFS_BYTES or each["path"].endswith(_BINARY)
            oid, raw = head.get(each["path"], ("", None))
            known = oid or (_git_hash(raw) if raw is not None else None)
            told.append(
                {"path": each["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False, "oid": known}
            )
        return JSONResponse({"files": told})

    def _batch(self, request: Request, body: bytes) -> Response:
        repo, name = self._repo(request), self._name(request)
        objects = []
        for each in json.loads(body)["objects"]:
            there = each["oid"] in repo.objects
            action = {"upload": {"href": f"{self.url}/upload/{name}/{each['oid']}"}}
            objects.append(each if there else {**each, "actions": action})
        return JSONResponse({"transfer": "basic", "objects": objects})

    def _upload(self, request: Request, body: bytes) -> Response:
        if self.stop_after == 0:
            return JSONResponse({"error": "gone"}, 400)
        if self.stop_after is not None:
            self.stop_after -= 1
        assert hashlib.sha256(body).hexdigest() == request.path_params["oid"]
        self._repo(request).objects[request.path_params["oid"]] = body
        return Response(status_code=200)

    def _commit(self, request: Request, body: bytes) -> Response:
        repo = self._repo(request)
        files = dict(repo.commits[-1])
        for line in body.splitlines():
            found = json.loads(line)
            kind, value = found["key"], found["value"]
            if kind == "file":
                files[value["path"]] = ("", base64.b64decode(value["content"]))
            elif kind == "lfsFile":
                assert value["oid"] in repo.objects, "a commit names an object that was not uploaded"
                files[value["path"]] = (value["oid"], b"")
            elif kind == "deletedFile":
                del files[value["path"]]
            else:
                assert kind == "header" and value["summary"]
        repo.commits.append(files)
        url = f"{self.url}/datasets/{self._name(request)}/commit/{repo.sha}"
        return JSONResponse({"success": True, "commitOid": repo.sha, "commitUrl": url})

    def _tree(self, request: Request, body: bytes) -> Response:
        repo = self._repo(request)
        listed = []
        for path, (oid, raw) in sorted(repo.commits[-1].items()):
            content = repo.objects[oid] if oid else raw
            one: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": _git_hash(content)}
            if oid:
                one["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 130}
            listed.append(one)
        return JSONResponse([{"type": "directory", "path": "data", "oid": "0" * 40}, *listed])

    def _squash(self, request: Request, body: bytes) -> Response:
        repo = self._repo(request)
        repo.commits = repo.commits[-1:]
        return JSONResponse({})

    def _lfs_files(self, request: Request, body: bytes) -> Response:
        at = "2026-01-01T00:00:00.000Z"
        repo = self._repo(request)
        return JSONResponse(
            [
                {"fileOid": oid, "filename": "?", "oid": oid, "pushedAt": at, "size": len(raw)}
                for oid, raw in repo.objects.items()
            ]
        )

    def _lfs_delete(self, request: Request, body: bytes) -> Response:
        repo = self._repo(request)
        for oid in json.loads(body)["deletions"]["sha"]:
            assert all(oid != held for files in repo.commits for held, _ in files.values())
            del repo.objects[oid]
        return JSONResponse({})


def _git_hash(raw: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(raw) + raw).hexdigest()


@contextmanager
def hub_stand_in() -> Iterator[HubStandIn]:
    """A stand-in that runs until the ``with`` block ends."""
    import uvicorn

    hub = HubStandIn()
    server = uvicorn.Server(uvicorn.Config(hub.app(), host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
    hub.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield hub
    finally:
        server.should_exit = True
        thread.join()
