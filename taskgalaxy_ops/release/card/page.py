"""``card.html``: the card as a page that a browser shows as it lies in the release's folder, with its pictures.

It is made from README.md alone, so that a take-down makes it anew from what is left. Text of models and sources is
escaped in README.md already; the page's policy lets no script run and loads nothing but the release's own pictures.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from importlib import resources

from markdown_it import MarkdownIt

PAGE = "card.html"

_WARNING = re.compile(r"<blockquote>\n<p>\[!WARNING\](</p>)?\n")
_TITLE = re.compile(r"^# (.*)$", re.MULTILINE)


def page(readme: bytes) -> bytes:
    """The page of a card, UTF-8."""
    _, _, body = readme.decode().split("---\n", 2)
    shown = MarkdownIt("commonmark", {"html": True}).enable("table").render(body)  # <br> is its only HTML
    shown = _WARNING.sub(lambda found: f'<blockquote class="warning">\n{"" if found[1] else "<p>"}', shown)
    shown = shown.replace("<table>", '<div class="table"><table>').replace("</table>", "</table></div>")
    title = _TITLE.search(body)
    css = resources.files(__package__).joinpath("page.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src 'self' file:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title[1]) if title else 'TaskGalaxy release'}</title>\n"
        f"<style>{css}</style></head>\n<body><main>\n{shown}</main></body></html>\n"
    ).encode()
