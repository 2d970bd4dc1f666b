"""Local copies of large S3 objects, such as an encoder's weights: each version of an object is downloaded once."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

from taskgalaxy_ops.errors import NotFoundError, StoreError
from taskgalaxy_ops.hashing import fingerprint
from taskgalaxy_ops.storage import connect
from taskgalaxy_ops.storage.base import Listed, Store

_PART = 64 << 20  # bytes a request
_SUFFIXES = {".pt", ".pth", ".bin", ".safetensors", ".npz", ".ckpt"}  # by which libraries choose a reader


def downloaded(url: str, **s3_options: Any) -> Path:
    """A local copy of the object at ``s3://bucket/key``, below ``cache_folder``.

    It is known by the object's URL and version (ETag), and checked against the SHA-256 that was noted when it was
    downloaded; a copy that differs is downloaded anew. Copies may be deleted at any time.

    Raises NotFoundError where there is no such object, StoreError where the service fails or the object is replaced
    meanwhile, OSError where the copy cannot be written.
    """
    prefix, _, name = url.rpartition("/")
    store = connect(prefix, **s3_options)
    listed = _listed(store, name, url)
    suffix = PurePosixPath(name).suffix.lower()
    file = cache_folder() / fingerprint("download", [url, listed.version, listed.size])[:32]
    file = file.with_suffix(suffix if suffix in _SUFFIXES else ".bin")
    noted = file.with_name(f"{file.name}.sha256")
    with contextlib.suppress(OSError):
        if _sha256(file) == noted.read_text(encoding="ascii"):
            return file
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="part-", dir=file.parent) as folder:
        part, whole = Path(folder, "part"), hashlib.sha256()
        with part.open("wb") as out:
            for start in range(0, listed.size, _PART):
                raw = store.get(name, start=start, length=min(_PART, listed.size - start))
                whole.update(raw)
                out.write(raw)
        if part.stat().st_size != listed.size or _listed(store, name, url).version != listed.version:
            raise StoreError(f"{url}: it was replaced while it was downloaded.\n  Run again.")
        note = Path(folder, "sha256")
        note.write_text(whole.hexdigest(), encoding="ascii")
        part.replace(file)
        note.replace(noted)
    return file


def cache_folder() -> Path:
    """Where copies lie: ``taskgalaxy`` in ``XDG_CACHE_HOME``, by default ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "taskgalaxy" / "downloads"


def _listed(store: Store, name: str, url: str) -> Listed:
    for each in store.list(name):
        if each.key == name:
            return each
    raise NotFoundError(f"{url}: no such object.\n  Check the bucket and the key.")


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
