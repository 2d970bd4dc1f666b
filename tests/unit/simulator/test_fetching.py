"""Images that the simulated models fetch by URL: from one place, within bounds, and a provider's error otherwise."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.simulator import fetching
from taskgalaxy_ops.simulator.config import parse_config
from taskgalaxy_ops.simulator.fetching import fetch
from taskgalaxy_ops.simulator.wire import WrongRequestError


class _Server(http.server.ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.elsewhere = ""

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        to = {"/on?x=1": "/image", "/away": self.server.elsewhere, "/round": "/round"}.get(self.path)
        if self.path == "/gone" or to is not None:
            self.send_response(404 if to is None else 302)
            if to is not None:
                self.send_header("location", to)
            self.send_header("content-length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"x" * 1000)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def servers() -> Iterator[tuple[_Server, _Server]]:
    """The place that images may be fetched from, and another."""
    with _Server() as here, _Server() as there:
        here.elsewhere = f"{there.origin}/image"
        for server in (here, there):
            threading.Thread(target=server.serve_forever, daemon=True).start()
        yield here, there
        for server in (here, there):
            server.shutdown()


def refused(url: str, origin: str) -> str:
    with pytest.raises(WrongRequestError) as caught:
        fetch(url, origin)
    assert (caught.value.status, caught.value.code) == (400, "invalid_image_url")
    return str(caught.value)


def test_what_lies_there_is_fetched_also_behind_a_redirect(servers: tuple[_Server, _Server]) -> None:
    here, _ = servers
    assert fetch(f"{here.origin}/image", here.origin) == b"x" * 1000
    assert fetch(f"{here.origin}/on?x=1", here.origin) == b"x" * 1000


def test_nothing_else_is_asked_for(servers: tuple[_Server, _Server]) -> None:
    here, there = servers
    for url in (
        f"{there.origin}/image",
        f"{here.origin}0/image",
        f"{here.origin}@127.0.0.1:{there.server_port}/image",
        f"http://a@127.0.0.1:{here.server_port}/image",
        f"http://localhost:{here.server_port}/image",
        "http://[/image",
        "file:///etc/hostname",
    ):
        assert f": only images at {here.origin} are fetched." in refused(url, here.origin)
    assert here.asked == []
    assert "it redirects to elsewhere" in refused(f"{here.origin}/away", here.origin)
    assert there.asked == []


def test_what_fails_is_an_error_that_tells_the_url(servers: tuple[_Server, _Server]) -> None:
    here, _ = servers
    assert refused(f"{here.origin}/gone", here.origin).startswith(f"Error while downloading {here.origin}/gone: ")
    assert "redirect" in refused(f"{here.origin}/round", here.origin)
    assert len(here.asked) < 8
    refused(f"{here.origin}/a b\n", here.origin)
    refused(f"{here.origin}/ä", here.origin)


def test_size_and_time_are_bounded(servers: tuple[_Server, _Server], monkeypatch: pytest.MonkeyPatch) -> None:
    here, _ = servers
    with monkeypatch.context() as patched:
        patched.setattr(fetching, "MOST_BYTES", 999)
        assert "more than 999 bytes" in refused(f"{here.origin}/image", here.origin)
    monkeypatch.setattr(fetching, "_MOST_SECONDS", -1)
    assert "not whole after -1 s" in refused(f"{here.origin}/image", here.origin)


def test_an_origin_is_no_more_than_that() -> None:
    assert parse_config({"image_origin": "http://127.0.0.1:8333"}).image_origin == "http://127.0.0.1:8333"
    for wrong in ("127.0.0.1:8333", "http://127.0.0.1:8333/", "http://a@b", "ftp://a", ""):
        with pytest.raises(SettingsError, match="image_origin"):
            parse_config({"image_origin": wrong})
