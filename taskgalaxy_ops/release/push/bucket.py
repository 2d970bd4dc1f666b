"""Another bucket or folder as a release's destination: the release lies in a folder of its name, as ``fetch`` makes it.

The manifest is written first, after everything that it does not list was deleted; so a file of the right size is the
right one, and an interrupted push goes on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from taskgalaxy_ops.errors import NotFoundError, PushError
from taskgalaxy_ops.progress import Progress
from taskgalaxy_ops.release.build import MANIFEST
from taskgalaxy_ops.release.push.outgoing import Outgoing, Sent, in_threads
from taskgalaxy_ops.storage import Store, connect
from taskgalaxy_ops.storage.s3 import S3Store


class Bucket:
    """A release's own folder in a bucket or on a disk."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @classmethod
    def at(cls, url: str, name: str, **s3_options: Any) -> Bucket:
        """The folder of a release's name at ``s3://bucket/prefix`` or ``file:///path``.

        Raises StoreError for another kind of URL, and for a bucket that keeps what is deleted.
        """
        parent = connect(url, **s3_options)
        if isinstance(parent, S3Store):
            parent.check_bucket()
        return cls(connect(f"{parent.url.rstrip('/')}/{name}", **s3_options))

    @property
    def to(self) -> str:
        return self._store.url

    def send(self, outgoing: Outgoing, progress: Progress) -> Sent:
        there = {listed.key: listed.size for listed in self._store.list("")}
        manifest = outgoing.made[MANIFEST]
        if there and not outgoing.ours:
            raise PushError(f"push: {self.to} holds something that is no push of this store. Name another place.")
        before = self._manifest()
        if before != manifest:
            old: Mapping[str, Any] = json.loads(before)["files"] if before else {}
            files = outgoing.files
            for path in [path for path in there if path not in files or old.get(path) != files[path]]:
                if path != MANIFEST:
                    self._store.delete(path)
                    del there[path]
            self._store.replace(MANIFEST, manifest)
        todo = [
            path
            for path in sorted(outgoing.files)
            if path != MANIFEST and there.get(path) != outgoing.files[path]["size"]
        ]
        progress.stage("push", len(todo), "files")
        for path in there.keys() & set(todo):
            self._store.delete(path)
        for _ in in_threads(partial(self._put, outgoing), todo):
            progress.advance("push")
        return Sent(len(todo) + (before != manifest))

    def _put(self, outgoing: Outgoing, path: str) -> None:
        with outgoing.open(path) as file:
            if not self._store.put_if_absent(path, file):
                raise PushError(f"push: somebody else writes to {self.to}. Push again when that has ended.")

    def _manifest(self) -> bytes:
        try:
            return self._store.get(MANIFEST)
        except NotFoundError:
            return b""
