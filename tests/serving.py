"""HTTP servers that a test starts in a thread: a faulty proxy before a real server, or a replacement of one."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Quiet(BaseHTTPRequestHandler):
    """Passes every request to ``handle_it``, and logs nothing."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else the body, a second write, would wait for the receipt of the headers

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""

    def body(self) -> bytes:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.headers.replace_header("Expect", "")
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        self.handle_it()

    do_PUT = do_HEAD = do_DELETE = do_POST = do_GET

    def handle_it(self) -> None:
        raise AssertionError("to be overridden")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # a client that has gone is no error
            super().handle_error(request, client_address)


@contextmanager
def served(handler: type[BaseHTTPRequestHandler], port: int = 0) -> Iterator[str]:
    """The URL of a server on loopback that runs until the ``with`` block ends. ``port`` 0: any free port."""
    server = _Server(("127.0.0.1", port), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
