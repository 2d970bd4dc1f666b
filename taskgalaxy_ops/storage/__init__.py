"""Opens object stores. ``open_store`` returns one that was checked to keep the promises of ``base.Store``."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from taskgalaxy_ops.errors import ForbiddenError, NotFoundError, StoreError
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.base import Listed, Store
from taskgalaxy_ops.storage.folder import FolderStore
from taskgalaxy_ops.storage.s3 import S3Store

__all__ = [
    "Listed",
    "Store",
    "check_writes",
    "connect",
    "layout_of",
    "link",
    "open_store",
    "s3_options_from_environment",
]


_LOG = logging.getLogger(__name__)


def connect(url: str, **s3_options: Any) -> Store:
    """The store at a URL: ``s3://bucket/prefix``, ``file:///path`` or a plain path; its content is not read.

    ``s3_options``: boto3's client arguments. Raises StoreError for a URL of another form.
    """
    parts = urlsplit(url)
    if parts.scheme == "s3":
        if not parts.netloc:
            raise StoreError(f"store {url!r}: no bucket. Write s3://bucket/prefix.")
        # The prefix is taken as it is written: urlsplit would cut it at '#' or '?'.
        return S3Store(parts.netloc, url.split(parts.netloc, 1)[1], **s3_options)
    if parts.scheme == "file":
        # file://./galaxy and file://galaxy are relative, as people mean them; urlsplit takes their start for a host.
        return FolderStore(Path(unquote(parts.netloc.removeprefix("localhost") + parts.path)))
    if parts.scheme:
        raise StoreError(f"store {url!r}: unknown kind {parts.scheme!r}. Use s3://bucket/prefix or file:///path.")
    return FolderStore(Path(url))


def open_store(url: str, **s3_options: Any) -> Store:
    """Connect, check that conditional writes work, and check or write the layout version.

    Whoever may only read an existing store gets it too: its first write will raise ForbiddenError. Raises StoreError if
    the store accepts a second conditional write, keeps versions, or its layout is not this version's.
    """
    store = connect(url, **s3_options)
    warning = store.check_bucket() if isinstance(store, S3Store) else ""
    try:
        check_writes(store)
    except ForbiddenError:
        try:
            _check_layout(store, store.get(keys.LAYOUT))
        except NotFoundError:
            pass
        else:
            return store
        raise
    if warning and isinstance(store, S3Store):  # R2 names a version for each write, and keeps none
        store.check_written()
    try:
        raw = store.get(keys.LAYOUT)
    except NotFoundError:
        if warning:  # once, when the store is made
            _LOG.warning(warning)
        store.put_if_absent(keys.LAYOUT, json.dumps({"layout": keys.LAYOUT_VERSION}).encode())
        raw = store.get(keys.LAYOUT)
    _check_layout(store, raw)
    return store


def check_writes(store: Store) -> None:
    """Raises ForbiddenError if the store may only be read, StoreError if it has no conditional writes."""
    # Every process writes the same object with the same content, so a killed process leaves nothing to clean up.
    store.replace(keys.PROBE, b"first")
    if store.put_if_absent(keys.PROBE, b"second") or store.get(keys.PROBE) != b"first":
        fix = store.service.conditional if isinstance(store, S3Store) else "Use another disk."
        raise StoreError(
            f"store {store.url}: it ignores If-None-Match, so two workers could overwrite each other. {fix}"
        )


def _check_layout(store: Store, raw: bytes) -> None:
    layout = _layout(store, raw)
    if layout != keys.LAYOUT_VERSION:
        older = 0 < layout < keys.LAYOUT_VERSION
        fix = "Run `taskgalaxy upgrade` while no run is at work" if older else "Use the version that wrote it"
        raise StoreError(
            f"store {store.url}: layout {layout}, this version reads layout {keys.LAYOUT_VERSION}. "
            f"{fix}, or use another prefix."
        )


def link(store: Store, key: str, *, seconds: float, content_type: str) -> str:
    """A URL from which anybody can read the object for ``seconds``. Raises StoreError if the store has no URLs."""
    if not isinstance(store, S3Store):
        raise StoreError(f"store {store.url}: has no URLs that others could read. Use s3://bucket/prefix.")
    return store.link(key, seconds, content_type)


def layout_of(store: Store) -> int:
    """The layout version of an existing store. Raises StoreError if there is no store."""
    try:
        return _layout(store, store.get(keys.LAYOUT))
    except NotFoundError as error:
        raise StoreError(
            f"store {store.url}: there is no store yet. The first `taskgalaxy ingest` makes it."
        ) from error


def _layout(store: Store, raw: bytes) -> int:
    try:
        return int(json.loads(raw)["layout"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"store {store.url}: {keys.LAYOUT} is damaged; is this a TaskGalaxy store?") from error


def s3_options_from_environment(
    endpoint_url: str | None, region: str | None, addressing: str = "auto"
) -> dict[str, Any]:
    """What ``connect`` takes for S3, from the settings; keys come from AWS's own environment variables or files."""
    options: dict[str, Any] = {}
    if endpoint := endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
        options["endpoint_url"] = endpoint
    if region:
        options["region_name"] = region
    if addressing != "auto":
        options["addressing"] = addressing
    return options
