"""The tests' own guard: nothing beyond loopback, and nobody's account."""

from __future__ import annotations

import asyncio
import os
import socket
import urllib.request

import pytest
from conftest import NetworkForbiddenError


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("example.org", 443), ("10.0.0.1", 22)])
def test_the_network_is_forbidden(address: tuple[str, int]) -> None:
    for reach in (socket.socket().connect, socket.socket().connect_ex, socket.create_connection):
        with pytest.raises(NetworkForbiddenError, match="only loopback is allowed"):
            reach(address)


def test_clients_are_stopped_too() -> None:
    with pytest.raises(NetworkForbiddenError):
        urllib.request.urlopen("http://example.org/")
    with pytest.raises(NetworkForbiddenError):
        asyncio.run(asyncio.open_connection("192.0.2.1", 80))
    with socket.socket(socket.AF_INET6) as six, pytest.raises(NetworkForbiddenError):
        six.connect(("2001:db8::1", 80))


def test_loopback_is_open() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        for host in ("127.0.0.1", "localhost"):
            socket.create_connection((host, server.getsockname()[1])).close()


def test_no_account_of_the_users_is_seen() -> None:
    kept = {"AWS_EC2_METADATA_DISABLED", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"}
    assert {name for name in os.environ if name.startswith(("AWS_", "OPENAI_"))} == kept
