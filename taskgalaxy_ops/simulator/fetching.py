"""Images that a request names by URL, fetched as a provider does: from one place alone, briefly, and not without end.

A server that fetches what it is told to reaches what its clients cannot. So the operator names the origin (scheme, host
and port) that URLs may begin with, and nothing else is asked for: not by a redirect, and not through a proxy.
"""

from __future__ import annotations

import time
import urllib.request
from http.client import HTTPException, HTTPMessage
from typing import IO
from urllib.parse import urlsplit

from taskgalaxy_ops.simulator.wire import WrongRequestError

MOST_BYTES = 20 * 1024 * 1024  # OpenAI's limit on an image
_SILENT_SECONDS = 10.0
_MOST_SECONDS = 20.0
_REDIRECTS = 3
_PIECE = 64 * 1024


def fetch(url: str, origin: str) -> bytes:
    """What lies at the URL, if that begins so. Raises WrongRequestError, with the URL in it as by OpenAI."""
    if _origin(url) != origin:
        raise _unread(f"{url}: only images at {origin} are fetched.")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _Redirects(origin))
    ends = time.monotonic() + _MOST_SECONDS
    try:
        with opener.open(url, timeout=_SILENT_SECONDS) as reply:
            parts, size = [], 0
            while part := reply.read1(_PIECE):
                parts.append(part)
                size += len(part)
                if size > MOST_BYTES:
                    raise OSError(f"more than {MOST_BYTES:,} bytes")
                if time.monotonic() > ends:
                    raise TimeoutError(f"not whole after {_MOST_SECONDS:g} s")
            return b"".join(parts)
    except (OSError, ValueError, HTTPException) as error:
        raise _unread(f"Error while downloading {url}: {error}") from error


def _origin(url: str) -> str:
    """Scheme, host and port, as they are written: a user's name before the host is a part of it, and fits none."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.netloc}"


def _unread(message: str) -> WrongRequestError:
    return WrongRequestError(400, message, "invalid_image_url")


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = _REDIRECTS

    def __init__(self, origin: str) -> None:
        self._allowed = origin

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        if _origin(newurl) != self._allowed:
            raise OSError("it redirects to elsewhere")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
