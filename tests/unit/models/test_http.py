"""The wire: a key and a redirect, a proxy, a certificate that nobody vouches for, connections that break."""

import asyncio
import contextlib
import datetime
import json
import socket
import ssl
import threading

import pytest

from taskgalaxy_ops.errors import ModelError
from taskgalaxy_ops.models.http import Sender, refused, wire
from taskgalaxy_ops.settings import Model

KEY = "sk-canary-7261"
BODY = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
REPLY = json.dumps({"choices": [{"message": {"content": "ready"}}], "usage": {}}).encode()
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(REPLY) + REPLY


@contextlib.contextmanager
def serving(reply, context=None):
    """A server that reads one request a connection and sends ``reply``; gives its port and what it read."""
    seen = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with contextlib.suppress(OSError, ssl.SSLError), connection:
                    stream = context.wrap_socket(connection, server_side=True) if context else connection
                    read = b""
                    while b"hello" not in read:
                        if not (more := stream.recv(65536)):
                            break
                        read += more
                    seen.append(read)
                    stream.sendall(reply)

        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1], seen
        listening.shutdown(socket.SHUT_RDWR)


def sent(monkeypatch, base_url, seconds=5.0):
    monkeypatch.setenv("A_KEY", KEY)

    async def run():
        sender = Sender()
        try:
            model = Model(name="t", base_url=base_url, model="m", api_key_env="A_KEY", simulated=True)
            return await sender.send(model, wire(model, BODY), seconds)
        finally:
            await sender.aclose()

    return asyncio.run(run())


def test_a_reply_is_read_and_the_key_sent(monkeypatch):
    with serving(OK) as (port, seen):
        assert sent(monkeypatch, f"http://127.0.0.1:{port}/v1").kind == "served"
    assert KEY.encode() in seen[0]


def test_a_key_is_not_sent_on_to_another_host(monkeypatch):
    with serving(OK) as (port, seen):
        moved = b"HTTP/1.1 307 Moved\r\nlocation: http://localhost:%d/v1/elsewhere\r\ncontent-length: 0\r\n\r\n" % port
        with serving(moved) as (first, _):
            assert sent(monkeypatch, f"http://127.0.0.1:{first}/v1").kind == "served"
    assert b"/v1/elsewhere" in seen[0]
    assert KEY.encode() not in seen[0]


def test_a_proxy_is_honoured(monkeypatch):
    with serving(OK) as (port, seen):
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert sent(monkeypatch, "http://models.test/v1").kind == "served"
    assert b"models.test" in seen[0]


def test_a_proxy_with_a_password_is_told_it_and_no_model_is(monkeypatch):
    with serving(OK) as (port, seen):
        monkeypatch.setenv("HTTP_PROXY", f"http://me:word@127.0.0.1:{port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert sent(monkeypatch, "http://models.test/v1").kind == "served"
    assert b"Proxy-Authorization: Basic bWU6d29yZA==" in seen[0]
    assert b"me:word" not in seen[0]


def test_what_cannot_be_sent_is_named_before_anything_is(monkeypatch):
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("HTTP_PROXY", "socks5://127.0.0.1:1080")
    with pytest.raises(ModelError, match="of socks5"):
        sent(monkeypatch, "http://models.test/v1")
    monkeypatch.delenv("HTTP_PROXY")
    with pytest.raises(ModelError, match="base_url a user"):
        sent(monkeypatch, "http://me:word@models.test/v1")


def test_a_request_that_an_error_repeats_says_nothing():
    asked = {"response_format": {"type": "json_schema"}, "messages": "content_filter"}
    told = {"detail": [{"type": "missing", "loc": ["body", "model"], "msg": "Field required", "input": asked}]}
    got = refused(422, told, {})
    assert (got.kind, got.parameter) == ("declined", "")
    assert refused(400, {"error": {"message": "no", "param": "response_format"}}, {}).parameter == "response_format"
    for odd in ([], None, "text", 3, {"error": "text"}, {"error": ["a"]}, {"message": {"a": 1}}):
        assert refused(500, odd, {}).kind == "failed"


def test_a_certificate_that_nobody_vouches_for_is_refused(monkeypatch, tmp_path):
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    built = built.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    certificate = built.sign(key, hashes.SHA256())
    plain = serialization.Encoding.PEM
    file = tmp_path / "both.pem"
    private = key.private_bytes(plain, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(certificate.public_bytes(plain) + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    with serving(OK, context) as (port, seen):
        got = sent(monkeypatch, f"https://localhost:{port}/v1")
    assert (got.kind, got.left) == ("fatal", False), "it does not pass by waiting"
    assert not any(KEY.encode() in each for each in seen)


@pytest.mark.parametrize("reply", [b"", OK[:-20], b"HTTP/1.1 200 OK\r\n", b"garbage\r\n\r\n"])
def test_a_reply_that_breaks_off_is_no_reply_and_may_have_been_billed(monkeypatch, reply):
    with serving(reply) as (port, _):
        got = sent(monkeypatch, f"http://127.0.0.1:{port}/v1")
    assert (got.kind, got.left, got.billed) == ("failed", True, True)
    assert KEY not in got.why


def test_nobody_there_costs_nothing(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        got = sent(monkeypatch, f"http://127.0.0.1:{taken.getsockname()[1]}/v1")
    assert (got.kind, got.left, got.billed) == ("failed", False, False)


@pytest.mark.parametrize(
    ("status", "error", "came"),
    [
        (429, {"message": "slow down"}, "busy"),
        (429, {"message": "You exceeded your current quota", "code": "insufficient_quota"}, "fatal"),
        (503, {"message": "overloaded"}, "slow"),
        (500, {"message": "oops"}, "failed"),
        (401, {"message": "who are you"}, "fatal"),
        (400, {"message": "cannot read the image"}, "declined"),
    ],
)
def test_what_a_status_means(monkeypatch, status, error, came):
    body = json.dumps({"error": error}).encode()
    head = b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\nretry-after: 3\r\ncontent-length: %d\r\n\r\n"
    with serving(head % (status, len(body)) + body) as (port, _):
        got = sent(monkeypatch, f"http://127.0.0.1:{port}/v1")
    assert got.kind == came
    assert error["message"] in got.why
    assert got.wait == 3, "on any status"


def test_a_time_out_may_have_been_billed(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listening:  # takes connections, and says nothing
        got = sent(monkeypatch, f"http://127.0.0.1:{listening.getsockname()[1]}/v1", seconds=0.2)
    assert (got.kind, got.left, got.billed) == ("slow", True, True)
