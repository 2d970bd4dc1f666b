"""A worker under test: ingest, generate and release by the command line's own ``main``, in one forked process."""

from __future__ import annotations

import datetime
import hashlib
import io
import itertools
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import botocore.auth
import numpy as np
from PIL import Image

from taskgalaxy_ops import cli, workspace
from taskgalaxy_ops.models.encoders.base import Encoder, Vectors
from taskgalaxy_ops.storage.s3 import S3Store

# Made before the fork: reading S3's description takes longer than a stage. A client made once warms the session.
_SESSION = boto3.session.Session()
_SESSION.client("s3", region_name="us-east-1", aws_access_key_id="-", aws_secret_access_key="-")
STAGES = ("ingest", "generate", "release")
CRASHED = 70  # exit code: an error that nobody foresaw


@dataclass(frozen=True, slots=True)
class Orders:
    """What a worker is told.

    clock: seconds that its clock is fast. room: bytes that a file may hold. page: objects in a page of a listing.
    synced: it dies before its n-th fsync, which a store in a folder calls once or twice a write.
    """

    settings: Path
    url: str  # of the proxy, which hears which stage begins
    encoder: Path
    folder: Path  # TMPDIR below it, and what it said
    environment: Mapping[str, str] = field(default_factory=dict)
    clock: float = 0.0
    room: int | None = None
    page: int | None = None
    synced: int | None = None

    @property
    def temporary(self) -> Path:
        return self.folder / "tmp"

    @property
    def said(self) -> Path:
        return self.folder / "said.txt"


def work(orders: Orders) -> None:
    """The whole chain, up to a stage that fails; exits with that one's code."""
    os.environ.update(orders.environment, TMPDIR=str(orders.temporary))
    tempfile.tempdir = None
    boto3.session.Session = lambda **_: _SESSION  # type: ignore[assignment, misc]
    workspace.open_encoder = lambda *names: Recorded(orders.encoder)  # type: ignore[assignment]
    if orders.clock:
        _shift(orders.clock)
    if orders.room is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (orders.room, resource.RLIM_INFINITY))
    if orders.synced is not None:
        _die(orders.synced)
    if orders.page is not None:
        _page(orders.page)
    said, code = io.StringIO(), 0
    try:
        with redirect_stdout(said), redirect_stderr(said):
            for stage in STAGES:
                with urllib.request.urlopen(f"{orders.url}/stage/{stage}", timeout=60):
                    pass
                if code := cli.main([stage, "--settings", str(orders.settings), "--quiet"]):
                    break
    except Exception:  # noqa: BLE001 - what it was is what the test shows
        said.write(traceback.format_exc())
        code = CRASHED
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    orders.said.write_text(said.getvalue(), "utf-8")
    sys.exit(code)


def _shift(seconds: float) -> None:
    """Set this process's clock: what is signed, what replies are dated by, and what files' ages are told by."""
    true, signed = time.time, botocore.auth.get_current_datetime
    time.time = lambda: true() + seconds
    botocore.auth.get_current_datetime = lambda *how: signed(*how) + datetime.timedelta(seconds=seconds)


def _die(at: int) -> None:
    """Kill this process before its ``at``-th fsync."""
    sync, calls = os.fsync, itertools.count(1)

    def dying(file: int) -> None:
        if next(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(file)

    os.fsync = dying


def _page(objects: int) -> None:
    """Have listings come in small pages, as those of a large store do."""
    begin = S3Store.__init__

    def paged(self: S3Store, *arguments: Any, **options: Any) -> None:
        begin(self, *arguments, **options)
        self._patient.meta.events.register(
            "provide-client-params.s3.ListObjectsV2", lambda params, **_: {**params, "MaxKeys": objects}
        )

    S3Store.__init__ = paged  # type: ignore[method-assign]


class Recorded:
    """What the real encoder gave for the few images and task types of the suite: loading it takes seconds."""

    def __init__(self, file: Path) -> None:
        with np.load(file) as found:
            self._vectors = {name: found[name] for name in found.files}
        self.identity: dict[str, Any] = json.loads(file.with_suffix(".json").read_text("utf-8"))
        self.dim = len(next(iter(self._vectors.values())))
        self.passes = 0

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        return self._taken([_digest(image.tobytes()) for image in images])

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        return self._taken([_digest(text.encode()) for text in texts])

    def _taken(self, names: Sequence[str]) -> Vectors:
        self.passes += len(names)
        return np.stack([self._vectors[name] for name in names])


def record(encoder: Encoder, images: Sequence[Image.Image], texts: Sequence[str], file: Path) -> None:
    """Write what ``Recorded`` reads."""
    names = [_digest(image.tobytes()) for image in images] + [_digest(text.encode()) for text in texts]
    vectors = np.concatenate([encoder.encode_images(images), encoder.encode_texts(texts)])
    np.savez(file, **dict(zip(names, vectors, strict=True)))
    file.with_suffix(".json").write_text(json.dumps(dict(encoder.identity)), "utf-8")


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
