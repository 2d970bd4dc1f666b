"""Take-down: an image is excluded from everything that is made from then on, and what was made of it is erased.

The image is first added to the registry's denylist, so that no run begins on it and no scan brings it back. Then its
blob, the models' replies about it, its rows in stage outputs and releases, and every page that may show it are deleted.
Nothing is encoded or asked again: the markers of stage outputs that contain it are deleted, so that these are computed
again from the journal, and its rows are removed from embeddings. If the command is killed, the same command continues
it. A run that was working on the image reads the denylist after its last write, and erases what it wrote. Copies of
releases that were pushed elsewhere are named, not reached: pushing the release again takes the image out of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from taskgalaxy_ops.errors import NotFoundError, SourceError
from taskgalaxy_ops.generation.erase import erase_from_shard, held_by, ids_in
from taskgalaxy_ops.operations import gc
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.records import Claim, ImageId, is_id
from taskgalaxy_ops.release import WITHDRAWN, publish
from taskgalaxy_ops.release.formats.tables import images_in
from taskgalaxy_ops.release.push import PushedCopy, stale
from taskgalaxy_ops.sources.originals import originals
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.journal import Journal, images_of
from taskgalaxy_ops.storage.review_log import ReviewLog
from taskgalaxy_ops.workspace import Workspace


@dataclass(slots=True, kw_only=True)
class TakenDown:
    """The outcome of a take-down."""

    images: list[ImageId]  # all that were named, also those that the store never had
    by_shard: dict[str, list[ImageId]] = field(default_factory=dict)  # by image shard, those that the store had
    shards: int = 0  # stage outputs that were dropped because they contained one: they are computed again
    releases: dict[str, int] = field(default_factory=dict)  # by changed release, all samples withdrawn so far
    originals: list[str] = field(default_factory=list)  # files at sources that are not copied, which are not deleted
    pushed: list[PushedCopy] = field(default_factory=list)  # copies outside the store with something withdrawn since


def take_down(
    workspace: Workspace, images: Collection[ImageId], reason: str = "", progress: Progress | None = None
) -> TakenDown:
    """Take these images down permanently; a call for images that are already taken down continues an interrupted one.

    images: sha256 of their files; images that the store does not have are rejected when a scan brings them. Raises
    SourceError for a text that is no id.
    """
    progress = progress or Silent()
    for image in images:
        if not is_id(image):
            raise SourceError(
                f"takedown: {image!r} is no image id. Give 64 hex digits, or a file that holds the image."
            )
    found = TakenDown(images=sorted(set(images)))
    found.originals = [
        f"{claim.source}: {claim.file}" for image in found.images for claim in _at_sources(workspace, image)
    ]
    found.by_shard = dict(workspace.registry.deny(found.images, reason))
    progress.stage("take down", len(found.by_shard), "shards")
    for shard, gone in found.by_shard.items():
        found.shards += erase_from_shard(workspace, shard, gone)
        progress.advance("take down")
    ReviewLog(workspace.store).erase(found.images)
    replaced = workspace.registry.redact()
    for each in workspace.registry.shards():
        if each.id in found.by_shard:
            workspace.stage_outputs.point(each.stage_output(), "images", each.images)
    for key in replaced:
        workspace.store.delete(key)
    for image in found.images:
        workspace.store.delete(keys.blob(image))
    for version in _versions(workspace):
        found.releases |= publish.withdraw(workspace, version, found.images)
    found.pushed = stale(workspace)
    for key in [*_pages(workspace, found.images), *(each.key for each in workspace.store.list(keys.CACHES))]:
        workspace.store.delete(key)  # made again when somebody asks for it
    for key, held in _unreferenced(workspace):
        if not held.isdisjoint(found.images):
            workspace.store.delete(key)
    return found


def _at_sources(workspace: Workspace, image: ImageId) -> list[Claim]:
    shard = workspace.registry.known().get(image)
    return originals(workspace).references(shard, image) if shard else []


def finish(workspace: Workspace, progress: Progress | None = None) -> TakenDown:
    """Finish every take-down: those that were interrupted, and data of their images that was written later."""
    denied = workspace.registry.denied()
    return take_down(workspace, denied, "", progress) if denied else TakenDown(images=[])


def left(workspace: Workspace) -> Iterator[str]:
    """A line for each thing that is left of images that were taken down; no line proves that nothing is left.

    Reads nearly the whole store.
    """
    denied = workspace.registry.denied()
    if not denied:
        return
    for image in sorted(denied):
        if any(listed.key == keys.blob(image) for listed in workspace.store.list(keys.blob(image))):
            yield f"{keys.blob(image)}: the image itself"
        for listed in workspace.store.list(keys.renderings(image)):
            yield f"{listed.key}: the image as it was sent by URL"
    for shard, gone in workspace.registry.taken_down().items():
        for reply in Journal(workspace.store, shard).replies():
            if reply["units"] and not {None, *gone}.isdisjoint(images_of(reply)):
                yield f"journal of image shard {shard}: reply {reply['reply']}"
        for stage_output in workspace.stage_outputs.all(shard):
            if not held_by(workspace, stage_output).isdisjoint(denied):
                yield stage_output.marker
    for image in sorted(ReviewLog(workspace.store).images() & denied):
        yield f"{keys.REVIEWS_LOG}: people's votes on pairs of image {image}"
    for key in sorted(gc.named_by_logs(workspace)):
        if not ids_in(workspace.store.get(key)).isdisjoint(denied):
            yield f"{key}: a table that a log names"
    for version in _versions(workspace):
        yield from _left_in_release(workspace, version, denied)
    yield from _pages(workspace, denied)
    for key, held in _unreferenced(workspace):
        if not held.isdisjoint(denied):
            yield f"{key}: a table that nothing names"


def _left_in_release(workspace: Workspace, version: int, denied: Collection[ImageId]) -> Iterator[str]:
    names = {image.encode() for image in denied}
    for listed in workspace.store.list(keys.release(version)):
        path = listed.key.removeprefix(keys.release(version))
        if path == WITHDRAWN:  # it is there to name them
            continue
        held = any(image in path for image in denied)
        if path.endswith(".parquet"):
            raw = workspace.store.get(listed.key)
            held |= not (ids_in(raw, ("image_id", "further_image_ids")) | images_in(raw)).isdisjoint(denied)
        elif not path.startswith("images/"):
            raw = workspace.store.get(listed.key)
            held |= any(name in raw for name in names)
        if held:
            yield listed.key


def _pages(workspace: Workspace, images: Collection[ImageId]) -> Iterator[str]:
    """The report pages that contain the id of any of these images."""
    for listed in workspace.store.list(keys.REPORTS):
        text = workspace.store.get(listed.key).decode("utf-8", "replace")
        if any(image in text for image in images):
            yield listed.key


def _versions(workspace: Workspace) -> list[int]:
    """The versions of all releases that have a file, finished or not."""
    found = {listed.key.split("/")[1] for listed in workspace.store.list(keys.NUMBERED_RELEASES)}
    return sorted(int(name.removeprefix("v")) for name in found)


def _unreferenced(workspace: Workspace) -> Iterator[tuple[str, set[ImageId]]]:
    """Tables that nothing refers to, such as those of killed runs, with the images that they name."""
    for listed in gc.unreferenced(workspace):
        try:
            yield listed.key, ids_in(workspace.store.get(listed.key))
        except NotFoundError:  # collected meanwhile
            continue
