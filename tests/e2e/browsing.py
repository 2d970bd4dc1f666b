"""A headless Chromium for the tests that look at the web UI."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

# The machine's network is closed: without these flags the browser knocks at it all the time.
_FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


@contextmanager
def browser() -> Iterator[Any]:
    """A page of 1440 by 900. Skips the test where there is no Chromium, but for continuous integration."""
    from playwright.sync_api import sync_playwright

    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium: install Debian's package chromium")
        pytest.skip("no Chromium on PATH: install Debian's package chromium")
    with sync_playwright() as started:
        running = started.chromium.launch(executable_path=found, args=_FLAGS)
        try:
            page = running.new_page(viewport={"width": 1440, "height": 900})
            page.set_default_timeout(60_000)
            yield page
        finally:
            running.close()
