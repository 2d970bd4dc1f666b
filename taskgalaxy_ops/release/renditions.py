"""The pictures that the teacher was sent, in the store: written once, and the same bytes for every later release."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from taskgalaxy_ops.errors import NotFoundError
from taskgalaxy_ops.generation.pictures import images_apart, of_model
from taskgalaxy_ops.hashing import fingerprint
from taskgalaxy_ops.models.rendering import rendered_for
from taskgalaxy_ops.models.request import rendering
from taskgalaxy_ops.records import ImageId
from taskgalaxy_ops.sources.originals import read_image
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.workspace import Workspace


class Renditions:
    """The teacher's renditions of a store's images."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._store = workspace.store
        self._teacher = workspace.settings.teacher

    @cached_property
    def _apart(self) -> dict[ImageId, dict[str, Any]]:
        settings = self._workspace.settings
        return of_model(images_apart(self._workspace, [settings.teacher, *settings.judges]), self._teacher)

    def key(self, image: ImageId) -> str:
        """The store key of an image's rendition; the same as for a teacher that reads its images by URL."""
        how = {**rendering(self._teacher), **self._apart.get(image, {})}
        return keys.rendering(image, fingerprint("rendering", how)[:32])

    def refer(self, image: ImageId) -> None:
        """See to it that the store has the rendition of an image."""
        try:
            self._store.age(self.key(image))
        except NotFoundError:
            self.of(image, read_image(self._workspace, image))

    def of(self, image: ImageId, raw: bytes) -> bytes:
        """The rendition of an image, whose file is ``raw``. The first one that was written stays.

        Another version of the JPEG encoder may write other bytes, and a released picture must not change by that.
        """
        key = self.key(image)
        try:
            return self._store.get(key)
        except NotFoundError:
            made = rendered_for(raw, self._teacher)
            return made if self._store.put_if_absent(key, made) else self._store.get(key)
