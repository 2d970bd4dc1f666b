"""What S3 services do differently, as a table, and a proxy that makes SeaweedFS speak each dialect.

docs/operations.md has the same services, with where each difference is written.
"""

from __future__ import annotations

import http.client
import json
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from serving import Quiet

from taskgalaxy_ops.demo.services import SeaweedFS

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
Error = tuple[int, str]  # status and code


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How a service differs from S3 as it is documented."""

    name: str
    documented: str = ""  # its row in docs/operations.md begins so; "": no row of its own
    server: str = ""  # its Server header
    policy: str = ""  # heading of the policy in docs/operations.md that is all that the keys may do
    versioning: Error | str = ""  # the reply to GetBucketVersioning: an error, or a status such as "Enabled"
    written_version: str = ""  # x-amz-version-id of each write
    exists: Error = (412, "PreconditionFailed")  # a conditional write of an object that is there
    no_condition: Error | None = None  # the reply to any conditional write
    ignores_condition: bool = False
    refuses_checksums: bool = False  # headers and trailers of boto3 >= 1.36
    virtual: bool = False  # the bucket's name stands before the host's
    ignores_range: bool = False
    slow: Error | None = None  # the first reply to each kind of request, without Retry-After
    error_within: str = ""  # code of an error in the body of a 200: the first reply to each kind of request
    unreadable: Error | None = None  # reply to a GET of an object called unreadable.png


DIALECTS = (
    Dialect(name="S3 as it is documented"),
    Dialect(name="AWS, least privilege", documented="AWS S3", server="AmazonS3", policy="A store"),
    Dialect(name="AWS, in virtual style", server="AmazonS3", virtual=True),
    Dialect(
        name="R2",
        documented="Cloudflare R2",
        server="cloudflare",
        versioning=(501, "NotImplemented"),
        written_version="7e6f1a2b",
        refuses_checksums=True,
    ),
    Dialect(name="MinIO", documented="MinIO", server="MinIO", unreadable=(403, "InvalidObjectState")),
    Dialect(name="MinIO of before April 2024", server="MinIO", exists=(304, "NotModified")),
    Dialect(
        name="Ceph", documented="Ceph", server="Ceph Object Gateway (squid)", unreadable=(403, "AccessDenied"),
        refuses_checksums=True,
    ),
    Dialect(name="SeaweedFS", documented="SeaweedFS", server="SeaweedFS S3"),
    Dialect(name="by error code, 409", exists=(409, "PreconditionFailed"), versioning=(405, "MethodNotAllowed")),
    Dialect(name="by error code, 400", exists=(400, "ObjectAlreadyExists"), versioning=(400, "InvalidRequest")),
    Dialect(name="SlowDown", slow=(503, "SlowDown"), unreadable=(400, "KMS.DisabledException")),
    Dialect(name="429 without a code that S3 knows", slow=(429, "TooManyRequests"), ignores_range=True),
    Dialect(name="200 with an error in the body", error_within="InternalError", versioning=(403, "AccessDenied")),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A dialect that can hold no store, and what the message must say."""

    dialect: Dialect
    host: str = ""  # of the endpoint, by which the service is known
    says: str


REFUSED = (
    Refused(
        dialect=Dialect(name="B2", documented="Backblaze B2", no_condition=(501, "NotImplemented"), versioning="x"),
        host="s3.us-west-004.backblazeb2.com",
        says=r"refuses If-None-Match.*NotImplemented.*Backblaze B2 has no conditional writes.*sources may lie here",
    ),
    Refused(
        dialect=Dialect(name="GCS", documented="Google Cloud Storage", server="UploadServer", ignores_condition=True),
        says=r"ignores If-None-Match.*x-goog-if-generation-match.*sources may lie here",
    ),
    Refused(
        dialect=Dialect(name="MinIO behind a careless proxy", server="MinIO", ignores_condition=True),
        says=r"ignores If-None-Match.*MinIO.*update the server",
    ),
    Refused(
        dialect=Dialect(name="a header that is refused", server="nginx", no_condition=(400, "InvalidArgument")),
        says=r"refuses If-None-Match.*InvalidArgument.*switch them on",
    ),
    Refused(
        dialect=Dialect(name="MinIO with versions", server="MinIO", versioning="Enabled"),
        says=r"keeps versions.*mc version suspend",
    ),
    Refused(
        dialect=Dialect(
            name="AWS with versions, seen by a write alone", server="AmazonS3", versioning=(403, "AccessDenied"),
            written_version="3HL4kqtJlcpXroDTDmJ",
        ),
        says=r"keeps versions.*put-bucket-versioning",
    ),
    Refused(dialect=Dialect(name="GCS with versions", server="UploadServer", versioning="Enabled"), says="gcloud"),
)  # fmt: skip


def policies() -> dict[str, list[dict[str, Any]]]:
    """The policies of docs/operations.md, by the bold words before each: their statements."""
    found: dict[str, list[dict[str, Any]]] = {}
    before, *rest = OPERATIONS.read_text("utf-8").split("```json\n")
    for part in rest:
        body, _, after = part.partition("```")
        named = re.findall(r"\*\*(.+?)\*\*", before.strip().rpartition("\n")[2])  # in the line before
        found.update({name: json.loads(body)["Statement"] for name in named})
        before = after
    return found


def allowed(statements: Collection[dict[str, Any]], action: str, resource: str, prefix: str) -> bool:
    """Whether IAM would allow a request. prefix: of a listing; "": there is none."""
    for statement in statements:
        condition = statement.get("Condition", {}).get("StringLike", {}).get("s3:prefix")
        if (
            action in _listed(statement["Action"])
            and any(fnmatchcase(resource, pattern) for pattern in _listed(statement["Resource"]))
            and (condition is None or any(fnmatchcase(prefix, pattern) for pattern in _listed(condition)))
        ):
            return True
    return False


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


class DialectProxy:
    """Stands before SeaweedFS, and signs each request anew, so that it may change anything in it."""

    def __init__(self, server: SeaweedFS, dialect: Dialect, prefix: str = "") -> None:
        """prefix: of the store, which replaces PREFIX in the policy."""
        self.dialect = dialect
        self.refused: Counter[str] = Counter()  # actions that the policy does not grant
        self._server, self._behind = server, urlsplit(server.url).netloc
        self._began: set[str] = set()  # kinds of request that were answered once
        text = json.dumps(policies().get(dialect.policy, []))
        self._policy = json.loads(text.replace("BUCKET", server.bucket).replace("PREFIX", prefix))
        proxy = self

        class Handler(Quiet):
            def version_string(self) -> str:
                return dialect.server or "SeaweedFS"

            def handle_it(self) -> None:
                proxy.handle(self)

        self.handler: type[BaseHTTPRequestHandler] = Handler

    def handle(self, asked: Any) -> None:
        """Answer a request by the dialect, or as SeaweedFS does."""
        dialect, body = self.dialect, asked.body()
        url = urlsplit(asked.path)
        path, query = url.path, parse_qs(url.query, keep_blank_values=True)
        host = asked.headers["Host"].partition(":")[0]
        if dialect.virtual:
            assert host.startswith(f"{self._server.bucket}."), "the bucket's name is not in the host's"
            path = f"/{self._server.bucket}{path}"
        headers = {name.lower(): value for name, value in asked.headers.items()}
        key = unquote(path).removeprefix(f"/{self._server.bucket}").removeprefix("/")
        action = _action(asked.command, key, query)
        if error := self._own(asked, action, key, headers, query):
            return self._answer(asked, error)
        if "if-none-match" in headers and asked.command == "PUT" and dialect.ignores_condition:
            del headers["if-none-match"]
        if dialect.ignores_range:
            headers.pop("range", None)
        status, data, replied = self._forward(asked.command, path, url.query, headers, body)
        if self._policy and status == 404 and action == "s3:GetObject":
            return self._answer(asked, (403, "AccessDenied"))  # not to be told from one that may not be read
        if status == 412:
            return self._answer(asked, dialect.exists)
        if asked.command == "PUT" and dialect.written_version:
            replied["x-amz-version-id"] = dialect.written_version
        return asked.answer(status, data, replied)

    def _own(self, asked: Any, action: str, key: str, headers: dict[str, str], query: dict[str, Any]) -> Error | None:
        """What the dialect answers by itself: a status and a code, or a code within a 200."""
        dialect = self.dialect
        if self._policy:
            bucket = f"arn:aws:s3:::{self._server.bucket}"
            resource = f"{bucket}/{key}" if key else bucket
            if not allowed(self._policy, action, resource, query.get("prefix", [""])[0]):
                self.refused[action] += 1
                return 403, "AccessDenied"
        if action == "s3:GetBucketVersioning" and dialect.versioning:
            return dialect.versioning if isinstance(dialect.versioning, tuple) else (200, dialect.versioning)
        checksums = [name for name in headers if "checksum" in name or name == "x-amz-trailer"]
        if dialect.refuses_checksums and (checksums or "STREAMING" in headers.get("x-amz-content-sha256", "")):
            return 400, "InvalidArgument"
        if dialect.no_condition and "if-none-match" in headers and asked.command == "PUT":
            return dialect.no_condition
        if dialect.unreadable and asked.command == "GET" and key.endswith("/unreadable.png"):
            return dialect.unreadable
        kind = f"{action} {'copy' if 'x-amz-copy-source' in headers else ''}"
        if (dialect.slow or dialect.error_within) and kind not in self._began:
            self._began.add(kind)
            return dialect.slow or (200, dialect.error_within)
        return None

    def _forward(
        self, method: str, path: str, query: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, bytes, dict[str, str]]:
        own = {"authorization", "x-amz-date", "x-amz-content-sha256", "host", "connection", "content-length", "expect"}
        kept = {name: value for name, value in headers.items() if name not in own}
        target = f"http://{self._behind}{path}" + (f"?{query}" if query else "")
        request = AWSRequest(method=method, url=target, data=body, headers=kept)
        keys = self._server.s3_options
        signer = S3SigV4Auth(Credentials(keys["aws_access_key_id"], keys["aws_secret_access_key"]), "s3", "us-east-1")
        signer.add_auth(request)
        upstream = http.client.HTTPConnection(self._behind)
        upstream.request(method, target.removeprefix(f"http://{self._behind}"), body, dict(request.headers))
        reply = upstream.getresponse()
        data = reply.read()
        upstream.close()
        passed = {k: v for k, v in reply.getheaders() if k.lower() not in {"connection", "date", "server"}}
        return reply.status, data, passed

    def _answer(self, asked: Any, error: Error) -> None:
        status, code = error
        if status == 200 and code in {"Enabled", "x"}:
            body = f"<VersioningConfiguration><Status>{code}</Status></VersioningConfiguration>"
        else:
            body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>no</Message></Error>'
        asked.answer(status, b"" if status == 304 else body.encode(), {"Content-Type": "application/xml"})


_SUBRESOURCES = {"versioning", "location", "policy", "acl", "lifecycle", "encryption", "tagging", "object-lock"}


def _action(method: str, key: str, query: dict[str, Any]) -> str:
    """The action that IAM would ask about."""
    if found := _SUBRESOURCES.intersection(query):
        return {"versioning": "s3:GetBucketVersioning"}.get(min(found), f"s3:Get{min(found)}")
    if not key:
        return "s3:ListBucket" if method in {"GET", "HEAD"} else f"s3:{method}Bucket"
    return {"GET": "s3:GetObject", "HEAD": "s3:GetObject", "PUT": "s3:PutObject", "DELETE": "s3:DeleteObject"}[method]
