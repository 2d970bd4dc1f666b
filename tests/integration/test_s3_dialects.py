"""A store through each dialect of S3: a small piece of the pipeline on it, or a refusal that says what to do."""

from __future__ import annotations

import errno
import io
import logging
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.config import Config
from PIL import Image as Pillow
from s3_dialects import DIALECTS, OPERATIONS, REFUSED, Dialect, DialectProxy, Refused, policies
from serving import served
from tiny import TinyEncoder, tiny_settings

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.demo.services import SeaweedFS
from taskgalaxy_ops.errors import ForbiddenError, StoreError
from taskgalaxy_ops.operations import doctor
from taskgalaxy_ops.operations.status import status
from taskgalaxy_ops.operations.verify import verify
from taskgalaxy_ops.records import Reason
from taskgalaxy_ops.storage import Store, connect, keys, open_store
from taskgalaxy_ops.storage.leases import Lease
from taskgalaxy_ops.storage.log import Log
from taskgalaxy_ops.storage.s3_services import SERVICES, UNKNOWN, service
from taskgalaxy_ops.workspace import Workspace

ODD = ["plain.png", "a+b.png", "100%.png", "with space.png", "größe/画像 🪐.png", "a%2Fb.png", "a&b=c#d?.png"]


def picture(seed: int) -> bytes:
    out = io.BytesIO()
    Pillow.new("RGB", (16, 16), (seed * 37 % 256, seed * 91 % 256, 99)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting between tries, and every name below ``localhost`` is this machine."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda self, context: 0)
    monkeypatch.setattr("taskgalaxy_ops.storage.s3.time.sleep", lambda seconds: None)
    look_up = socket.getaddrinfo

    def here(host: Any, *arguments: Any, **options: Any) -> Any:
        return look_up("127.0.0.1" if str(host).endswith(".localhost") else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", here)


@contextmanager
def speaking(server: SeaweedFS, dialect: Dialect, prefix: str) -> Iterator[tuple[DialectProxy, dict[str, Any]]]:
    """The proxy of a dialect, and what ``connect`` takes to go through it."""
    proxy = DialectProxy(server, dialect, prefix)
    with served(proxy.handler) as url:
        if dialect.virtual:
            url = url.replace("127.0.0.1", "localhost")
        more = {"addressing": "virtual"} if dialect.virtual else {}
        yield proxy, {**server.s3_options, "endpoint_url": url, **more}


def put(server: SeaweedFS, prefix: str, names: list[str]) -> None:
    """Put pictures into the bucket, past every dialect."""
    client = boto3.session.Session().client("s3", region_name="us-east-1", config=Config(), **server.s3_options)
    for number, name in enumerate(names):
        client.put_object(Bucket=server.bucket, Key=f"{prefix}/{name}", Body=picture(number))


@pytest.fixture(scope="module")
def pile(seaweedfs: SeaweedFS) -> str:
    """Where pictures with odd names lie."""
    put(seaweedfs, "dialects/pile", [*ODD, "unreadable.png"])
    return f"s3://{seaweedfs.bucket}/dialects/pile"


def workspace_on(store: Store, location: str, options: dict[str, Any]) -> Workspace:
    settings = tiny_settings(location, store=store.url, ingest={"min_side": 8})
    workspace = Workspace(settings, store)
    workspace.__dict__.update(encoder=TinyEncoder(), s3_options=options)
    return workspace


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_the_pipeline_works_through_a_dialect(dialect: Dialect, seaweedfs: SeaweedFS, pile: str) -> None:
    with speaking(seaweedfs, dialect, "dialects") as (proxy, options):
        store = open_store(f"s3://{seaweedfs.bucket}/dialects/{uuid.uuid4().hex}", **options)
        workspace = workspace_on(store, pile, options)
        receipt = pipeline.ingest(workspace, "mine")
        claimed = {claim.file for claim in workspace.registry.claims()}
        if dialect.unreadable:
            assert claimed == set(ODD)
            assert [(reject.file, reject.reason) for reject in receipt.rejects] == [
                ("unreadable.png", Reason.UNREADABLE)
            ]
        else:
            assert claimed == {*ODD, "unreadable.png"}
        # Every promise that the pipeline builds on.
        assert store.put_if_absent("k+ %/ö", b"first")
        assert store.put_if_absent("k+ %/ö", b"first")
        assert not store.put_if_absent("k+ %/ö", b"second")
        assert store.get("k+ %/ö", start=1, length=3) == b"irs"
        store.copy("k+ %/ö", "copied+ %/ö")
        assert store.get("copied+ %/ö") == b"first"
        assert store.age("k+ %/ö") >= 0
        log = Log(store, "log")
        for number in range(3):
            log.append({"n": number})
        assert [entry.body["n"] for entry in Log(store, "log").read()] == [0, 1, 2]
        with Lease(store, "h") as lease:
            lease.check()
        store.delete("k+ %/ö")
        store.delete("k+ %/ö")
        assert [each.key for each in store.list("k")] == []
        assert verify(workspace).damage == []
        assert set(proxy.refused) <= {"s3:GetBucketVersioning"}


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.dialect.name)
def test_what_a_service_cannot_promise_is_refused_with_its_own_setting(
    case: Refused, seaweedfs: SeaweedFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    with speaking(seaweedfs, case.dialect, "") as (_, options):
        if case.host:
            monkeypatch.setattr("taskgalaxy_ops.storage.s3.urlsplit", lambda url: SimpleNamespace(hostname=case.host))
        with pytest.raises(StoreError, match=rf"(?s){case.says}"):
            open_store(f"s3://{seaweedfs.bucket}/refused/{uuid.uuid4().hex}", **options)


@pytest.mark.parametrize("case", [case for case in REFUSED if case.dialect.documented], ids=lambda c: c.dialect.name)
def test_a_source_may_lie_where_no_store_can(case: Refused, seaweedfs: SeaweedFS, pile: str) -> None:
    with speaking(seaweedfs, case.dialect, "") as (_, options):
        here = open_store(f"s3://{seaweedfs.bucket}/stores/{uuid.uuid4().hex}", **seaweedfs.s3_options)
        assert pipeline.ingest(workspace_on(here, pile, options), "mine").images == len(ODD) + 1


def test_the_policy_of_a_source_lets_it_be_read_and_nothing_more(seaweedfs: SeaweedFS, pile: str) -> None:
    with speaking(seaweedfs, Dialect(name="", policy="A source"), "dialects/pile") as (proxy, options):
        here = open_store(f"s3://{seaweedfs.bucket}/stores/{uuid.uuid4().hex}", **seaweedfs.s3_options)
        assert pipeline.ingest(workspace_on(here, pile, options), "mine").images == len(ODD) + 1
        assert proxy.refused == {}
        with pytest.raises(ForbiddenError):
            connect(pile, **options).replace("k", b"")


def test_whoever_may_only_read_a_store_can_look_at_it(seaweedfs: SeaweedFS, pile: str) -> None:
    url = f"s3://{seaweedfs.bucket}/policies/read"
    with speaking(seaweedfs, Dialect(name="", policy="Reading a store"), "policies/read") as (proxy, options):
        with pytest.raises(ForbiddenError, match="Check endpoint_url, the keys, and what they may do"):
            open_store(url, **options)  # there is none yet, and it may not be made
        writer = workspace_on(open_store(url, **seaweedfs.s3_options), pile, seaweedfs.s3_options)
        pipeline.ingest(writer, "mine")
        proxy.refused.clear()
        reader = workspace_on(open_store(url, **options), pile, options)
        assert status(reader).images == len(ODD) + 1
        assert verify(reader).damage == []
        assert set(proxy.refused) <= {"s3:GetBucketVersioning", "s3:PutObject"}
        with pytest.raises(ForbiddenError):
            reader.store.put_if_absent("k", b"")
        with pytest.raises(ForbiddenError):
            reader.store.delete(keys.LAYOUT)


def test_what_cannot_be_looked_up_is_a_warning_when_the_store_is_made(
    seaweedfs: SeaweedFS, caplog: pytest.LogCaptureFixture
) -> None:
    dialect = Dialect(name="", versioning=(403, "AccessDenied"))
    with speaking(seaweedfs, dialect, "") as (_, options), caplog.at_level(logging.WARNING):
        for _ in range(2):
            open_store(f"s3://{seaweedfs.bucket}/warned", **options)
    (said,) = [record.message for record in caplog.records]
    assert "whether the bucket keeps versions could not be looked up" in said
    assert "s3:GetBucketVersioning" in said


def test_a_service_that_goes_on_asking_for_less_is_waited_for(
    seaweedfs: SeaweedFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also once many requests in parallel have used up botocore's quota of retries, so that it gives up at once."""
    monkeypatch.setattr("botocore.retries.standard.RetryQuotaChecker.acquire_retry_quota", lambda self, context: False)
    with speaking(seaweedfs, Dialect(name="", slow=(503, "SlowDown")), "") as (_, options):
        store = connect(f"s3://{seaweedfs.bucket}/slow", **options)
        assert store.put_if_absent("k", b"v")
        assert store.get("k") == b"v"


def test_an_error_in_every_body_is_no_content(seaweedfs: SeaweedFS) -> None:
    with speaking(seaweedfs, Dialect(name="", error_within="InternalError"), "") as (proxy, options):
        store = connect(f"s3://{seaweedfs.bucket}/within", **options)
        store.replace("k", b"v")
        monkey = type("Never", (set,), {"__contains__": lambda self, kind: "GetObject" not in kind})
        proxy._began = monkey()
        with pytest.raises(StoreError, match="200 with an error in the body: InternalError"):
            store.get("k")


def test_a_folder_that_may_only_be_read_can_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(tmp_path / "store"))
    store.put_if_absent("k", b"v")

    def refused(folder: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("taskgalaxy_ops.storage.folder._make_folder", refused)
    reader = open_store(str(tmp_path / "store"))
    assert reader.get("k") == b"v"
    with pytest.raises(ForbiddenError, match="Read-only"):
        reader.put_if_absent("other", b"")
    finding = next(doctor.store(tiny_settings(tmp_path, store=str(tmp_path / "store"))))
    assert not finding.fine, "no run could work on it"
    assert "Read-only" in finding.detail
    with pytest.raises(StoreError, match="Read-only"):
        open_store(str(tmp_path / "another"))


def test_every_service_is_in_the_documents_table_with_its_source() -> None:
    rows = [line for line in OPERATIONS.read_text("utf-8").splitlines() if line.startswith("| ")]
    services = [
        dialect.documented for dialect in (*DIALECTS, *(case.dialect for case in REFUSED)) if dialect.documented
    ]
    assert {each.name for each in SERVICES} == set(services)
    for name in services:
        (row,) = [row for row in rows if row.startswith(f"| {name}")]
        assert "](http" in row, f"{name}: its row names no source"
    assert policies().keys() == {"A store", "A source", "Reading a store"}


def test_a_service_is_known_by_its_address_or_by_what_it_calls_itself() -> None:
    assert service("", "").name == "AWS S3"
    assert service("s3.eu-west-1.amazonaws.com", "").name == "AWS S3"
    assert service("abc.r2.cloudflarestorage.com", "cloudflare").name == "Cloudflare R2"
    assert service("minio.lan", "MinIO").name == "MinIO"
    assert service("evil-amazonaws.com", "nginx") is UNKNOWN
