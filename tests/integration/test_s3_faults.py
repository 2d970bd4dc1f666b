"""S3 when it goes wrong: lost replies, outages, wrong keys, and services that do not keep the promises."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote, urlsplit

import botocore.auth
import pytest
from serving import Quiet, served

from taskgalaxy_ops.demo.services import SeaweedFS, free_ports
from taskgalaxy_ops.errors import NotFoundError, StoreError
from taskgalaxy_ops.storage import Store, connect, open_store
from taskgalaxy_ops.storage.leases import Lease
from taskgalaxy_ops.storage.ledger import Caps, Ledger, Spent
from taskgalaxy_ops.storage.log import Log

Fault = str | None  # "drop": done, no reply; "cut": half the body; or a status, before it is done
KEYS = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}


class Proxy:
    """Stands before a real S3 server. ``fault(method, path)`` says what goes wrong with a request."""

    def __init__(self, server: SeaweedFS) -> None:
        self.fault: Callable[[str, str], Fault] = lambda method, path: None
        self.requests: list[tuple[str, str]] = []
        behind = urlsplit(server.url).netloc
        proxy = self

        class Handler(Quiet):
            def handle_it(self) -> None:
                body = self.body()
                path = unquote(urlsplit(self.path).path)
                proxy.requests.append((self.command, path))
                fault = proxy.fault(self.command, path)
                if fault is not None and fault.isdigit():
                    code = {"409": "ConditionalRequestConflict"}.get(fault, "InternalError")
                    return self.answer(int(fault), f"<Error><Code>{code}</Code></Error>".encode())
                upstream = http.client.HTTPConnection(behind)
                upstream.request(self.command, self.path, body, dict(self.headers))  # Host too: it is signed
                reply = upstream.getresponse()
                data = reply.read()
                upstream.close()
                if fault == "drop":
                    self.close_connection = True
                    return None
                headers = {k: v for k, v in reply.getheaders() if k.lower() not in {"connection", "date", "server"}}
                if fault == "cut":
                    self.close_connection = True
                    headers["Content-Length"] = str(len(data))
                    data = data[: len(data) // 2]
                return self.answer(reply.status, data, headers)

        self.handler = Handler

    def once(self, method: str, *faults: Fault) -> None:
        """These faults, one after another, for requests of one method on objects; then none."""
        left = list(faults)

        def fault(asked: str, path: str) -> Fault:
            return left.pop(0) if left and asked == method and path.count("/") > 1 else None

        self.fault = fault


@pytest.fixture
def proxy(seaweedfs: SeaweedFS) -> Proxy:
    return Proxy(seaweedfs)


@pytest.fixture
def proxied(proxy: Proxy, seaweedfs: SeaweedFS, request: pytest.FixtureRequest) -> Iterator[Store]:
    with served(proxy.handler) as url:
        options = {**seaweedfs.s3_options, "endpoint_url": url}
        yield open_store(f"s3://{seaweedfs.bucket}/faults/{request.node.name}", **options)


def test_a_write_whose_reply_was_lost_is_read_back(proxied: Store, proxy: Proxy) -> None:
    proxy.once("PUT", "drop")
    assert proxied.put_if_absent("k", b"mine")
    assert [method for method, path in proxy.requests if path.endswith("/k")] == ["PUT", "PUT", "GET"]
    assert not proxied.put_if_absent("k", b"theirs")


def test_a_lost_reply_does_not_hide_that_another_was_first(proxied: Store, proxy: Proxy) -> None:
    proxied.put_if_absent("k", b"theirs")
    proxy.once("PUT", "drop")
    assert not proxied.put_if_absent("k", b"mine")


def test_a_log_entry_whose_reply_was_lost_is_there_once(proxied: Store, proxy: Proxy) -> None:
    log = Log(proxied, "log")
    for n in range(3):
        proxy.once("PUT", "drop")
        log.append({"n": n})
    assert [entry.body["n"] for entry in Log(proxied, "log").read()] == [0, 1, 2]


def test_a_lease_and_a_block_whose_replies_were_lost_are_held(proxied: Store, proxy: Proxy) -> None:
    proxy.once("PUT", "drop")
    with Lease(proxied, "h") as lease:
        lease.check()
    proxy.once("PUT", "drop")
    ledger = Ledger(proxied, Caps(None, 50))
    ledger.take("h", calls=2, ceiling=1)
    assert ledger.spent() == Spent(2, 2)


@pytest.mark.parametrize(("method", "status"), [("PUT", "500"), ("PUT", "503"), ("GET", "500"), ("GET", "502")])
def test_short_outages_are_ridden_out(proxied: Store, proxy: Proxy, method: str, status: str) -> None:
    proxy.once(method, status, status)
    assert proxied.put_if_absent("k", b"v")
    assert proxied.get("k") == b"v"
    assert sum(asked == method and path.endswith("/k") for asked, path in proxy.requests) == 3


def test_an_outage_that_lasts_is_waited_for_once(proxied: Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda self, context: 0)

    def tries(status: str) -> int:
        proxy.fault = lambda method, path: status
        before = len(proxy.requests)
        with pytest.raises(StoreError, match=r"Is the S3 server up\? Run again to go on"):
            list(proxied.list("k"))
        proxy.fault = lambda method, path: None
        return len(proxy.requests) - before

    assert [tries("503"), tries("500")] == [10, 1]
    assert proxied.put_if_absent("k", b"v")  # it is back
    assert tries("503") == 10


def test_a_clock_that_the_service_refuses_is_named(seaweedfs: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(f"s3://{seaweedfs.bucket}/clock", **seaweedfs.s3_options)
    signed = botocore.auth.get_current_datetime
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: signed() - timedelta(hours=1))
    with pytest.raises(StoreError, match="set this machine's clock"):
        store.put_if_absent("k", b"v")
    with pytest.raises(StoreError, match="set this machine's clock"):
        open_store(f"s3://{seaweedfs.bucket}/clock", **seaweedfs.s3_options)


def test_a_conflict_between_conditional_writes_is_tried_again(proxied: Store, proxy: Proxy) -> None:
    proxy.once("PUT", "409", "409")
    assert proxied.put_if_absent("k", b"v")


def test_a_body_that_was_cut_is_read_again(proxied: Store, proxy: Proxy) -> None:
    proxied.put_if_absent("k", b"0123456789" * 10_000)
    proxy.once("GET", "cut", "cut")
    assert proxied.get("k") == b"0123456789" * 10_000


def test_deleting_and_listing_survive_a_lost_reply(proxied: Store, proxy: Proxy) -> None:
    proxied.put_if_absent("a/k", b"v")
    proxy.once("DELETE", "drop")
    proxied.delete("a/k")
    assert list(proxied.list("a/")) == []


@pytest.mark.parametrize("wrong", ["aws_access_key_id", "aws_secret_access_key"])
def test_wrong_keys_are_named(seaweedfs: SeaweedFS, wrong: str) -> None:
    with pytest.raises(StoreError, match=r"(?s)bucket 'taskgalaxy'.*cannot be used.*Check endpoint_url, the keys"):
        open_store(f"s3://{seaweedfs.bucket}/x", **{**seaweedfs.s3_options, wrong: "wrong"})


def test_missing_keys_are_named(seaweedfs: SeaweedFS) -> None:
    with pytest.raises(StoreError, match=r"NoCredentialsError.*Check endpoint_url, the keys"):
        open_store(f"s3://{seaweedfs.bucket}/x", endpoint_url=seaweedfs.url)


def test_a_missing_bucket_is_named_and_is_no_missing_object(seaweedfs: SeaweedFS) -> None:
    with pytest.raises(StoreError, match="no-such-bucket"):
        open_store("s3://no-such-bucket/x", **seaweedfs.s3_options)
    with pytest.raises(StoreError) as caught:
        connect("s3://no-such-bucket/x", **seaweedfs.s3_options).get("k")
    assert not isinstance(caught.value, NotFoundError)


def test_a_server_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda self, context: 0)
    (port,) = free_ports(1)
    with pytest.raises(StoreError, match=rf"127.0.0.1:{port}.*Check endpoint_url"):
        open_store("s3://bucket/x", endpoint_url=f"http://127.0.0.1:{port}", **KEYS)
    with pytest.raises(StoreError, match="Is the S3 server up"):
        connect("s3://bucket/x", endpoint_url=f"http://127.0.0.1:{port}", **KEYS).put_if_absent("k", b"")


def _careless(versioning: bytes) -> type[BaseHTTPRequestHandler]:
    """An S3-like service that takes any key pair and lets every write through."""
    objects: dict[str, bytes] = {}

    class Handler(Quiet):
        def handle_it(self) -> None:
            body, path = self.body(), urlsplit(self.path).path
            if "versioning" in urlsplit(self.path).query:
                return self.answer(200, b"<VersioningConfiguration>" + versioning + b"</VersioningConfiguration>")
            if self.command == "PUT":
                objects[path] = body
                return self.answer(200, headers={"ETag": '"x"'})
            if self.command == "DELETE":
                objects.pop(path, None)
                return self.answer(204)
            return self.answer(200, objects[path]) if path in objects else self.answer(404)

    return Handler


def test_a_service_without_conditional_writes_is_refused() -> None:
    with (
        served(_careless(b"")) as url,
        pytest.raises(StoreError, match=r"ignores If-None-Match, so two workers could overwrite each other.*SeaweedFS"),
    ):
        open_store("s3://bucket/x", endpoint_url=url, **KEYS)


def test_a_bucket_that_keeps_versions_is_refused() -> None:
    with (
        served(_careless(b"<Status>Enabled</Status>")) as url,
        pytest.raises(StoreError, match="keeps versions, so a take-down could not erase anything"),
    ):
        open_store("s3://bucket/x", endpoint_url=url, **KEYS)
