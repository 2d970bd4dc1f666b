"""A data set repository of the Hugging Face hub as a release's destination.

Contents are uploaded first, a few files at a time, which nobody sees; the commits that show them follow, the card's
last. The hub keeps what was uploaded, so that a push that was killed sends only the rest. Files go as open files, which
``huggingface_hub`` uploads over plain HTTP (git LFS).

A repository has a history: where an earlier push holds something that was withdrawn since, the history is squashed and
the objects that the release has no more are deleted for good.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from taskgalaxy_ops.errors import PushError
from taskgalaxy_ops.progress import Progress
from taskgalaxy_ops.release.push.outgoing import Outgoing, Sent, in_threads

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.hf_api import RepoFile

_BATCH_FILES = 64  # uploaded together
_BATCH_BYTES = 256 << 20
_COMMIT_FILES = 1_000  # of one commit: the hub ends a request after a minute
_COMMIT_BYTES = 64 << 20  # of its files that are no LFS objects
_FOLDER_FILES = 10_000  # the hub takes no more in a folder
_PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds between tries, unless the hub says how long
_KIND = "dataset"

_T = TypeVar("_T")


class Hub:
    """A data set repository, ``OWNER/NAME``; it is made private if there is none.

    public: it may be one that everybody can read. sleep: waits a number of seconds. The token is ``HF_TOKEN``'s or that
    of ``hf auth login``, the hub's address ``HF_ENDPOINT``'s. Raises PushError for no such name, and for want of a
    token.
    """

    def __init__(self, repo: str, *, public: bool = False, sleep: Callable[[float], None] = time.sleep) -> None:
        try:
            from huggingface_hub import HfApi, get_token
            from huggingface_hub.errors import HFValidationError
            from huggingface_hub.utils._validators import validate_repo_id
        except ImportError as error:
            raise PushError("push: the hub needs the extra `hub`: pip install 'taskgalaxy-ops[hub]'") from error
        try:
            validate_repo_id(repo)
        except HFValidationError as error:
            raise PushError(f"push: {repo!r} is no name of a repository ({error}). Write hf://OWNER/NAME.") from error
        if "/" not in repo:
            raise PushError(f"push: {repo!r} names no owner. Write hf://OWNER/NAME.")
        if get_token() is None:
            raise PushError("push: the hub needs a token that may write. Set HF_TOKEN, or run `hf auth login`.")
        self._repo, self._public, self._sleep = repo, public, sleep
        self._api: HfApi = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, library_name="taskgalaxy")

    @property
    def to(self) -> str:
        return f"hf://datasets/{self._repo}"

    def send(self, outgoing: Outgoing, progress: Progress) -> Sent:
        _check_folders(outgoing)
        with _quiet(), self._errors():
            self._make()
            there = self._tree()
            if not outgoing.ours and any(not path.startswith(".") for path in there):
                raise PushError(f"push: {self.to} holds something that is no push of this store. Name another one.")
            todo = [path for path in _in_order(outgoing) if not _holds(there.get(path), outgoing, path)]
            gone = [path for path in there if path not in outgoing.files and not path.startswith(".")]
            progress.stage("push", len(todo), "files")
            revision = self._send(outgoing, todo, gone, progress)
            if missing := outgoing.files.keys() - self._tree().keys():
                raise PushError(f"push: {self.to} took {min(missing)} and does not list it. Push again.")
            if outgoing.superseded:
                self._erase_history(outgoing)
            return Sent(len(todo), revision or self._head(), alone=outgoing.superseded)

    def _make(self) -> None:
        private = not self._public
        self._patiently(lambda: self._api.create_repo(self._repo, repo_type=_KIND, private=private, exist_ok=True))
        if not self._patiently(lambda: self._api.repo_info(self._repo, repo_type=_KIND)).private and not self._public:
            raise PushError(
                f"push: everybody can read {self.to}. Say --public if that is meant, or name another repository."
            )

    def _tree(self) -> dict[str, RepoFile]:
        """The repository's files by path."""
        from huggingface_hub.hf_api import RepoFile

        listed = self._patiently(lambda: list(self._api.list_repo_tree(self._repo, recursive=True, repo_type=_KIND)))
        return {each.path: each for each in listed if isinstance(each, RepoFile)}

    def _head(self) -> str:
        return str(self._patiently(lambda: self._api.repo_info(self._repo, repo_type=_KIND)).sha)

    def _send(self, outgoing: Outgoing, todo: Sequence[str], gone: Sequence[str], progress: Progress) -> str:
        """Upload files, and commit them, the deletions with the last. Returns the last commit; "": there was none."""
        from huggingface_hub import CommitOperationDelete

        waiting: list[CommitOperationAdd | CommitOperationDelete] = []
        size, revision = 0, ""
        for paths in _batches(outgoing, todo):
            uploaded = self._upload(outgoing, paths)
            in_commit = sum(len(each.path_or_fileobj) for each in uploaded if isinstance(each.path_or_fileobj, bytes))
            if waiting and (len(waiting) + len(uploaded) > _COMMIT_FILES or size + in_commit > _COMMIT_BYTES):
                revision = self._commit(outgoing, waiting)
                waiting, size = [], 0
            waiting += uploaded
            size += in_commit
            progress.advance("push", len(paths))
        waiting += [CommitOperationDelete(path, is_folder=False) for path in gone]
        return self._commit(outgoing, waiting) if waiting else revision

    def _upload(self, outgoing: Outgoing, paths: Sequence[str]) -> list[CommitOperationAdd]:
        """Upload the contents of files that the hub keeps as objects; the others' go with the commit."""
        from huggingface_hub import CommitOperationAdd

        with ExitStack() as opened:
            files = list(in_threads(lambda path: opened.enter_context(outgoing.open(path)), paths))
            operations = [CommitOperationAdd(path, file) for path, file in zip(paths, files, strict=True)]
            self._patiently(
                lambda: self._api.preupload_lfs_files(self._repo, operations, repo_type=_KIND, num_threads=4)
            )
            for operation, file in zip(operations, files, strict=True):
                if operation.path_or_fileobj is file:
                    file.seek(0)
                    operation.path_or_fileobj = file.read()
        return operations

    def _commit(self, outgoing: Outgoing, operations: Sequence[CommitOperationAdd | CommitOperationDelete]) -> str:
        message = f"TaskGalaxy release {outgoing.name}"
        made = self._patiently(
            lambda: self._api.create_commit(self._repo, operations, commit_message=message, repo_type=_KIND)
        )
        return str(made.oid)

    def _erase_history(self, outgoing: Outgoing) -> None:
        self._patiently(lambda: self._api.super_squash_history(self._repo, repo_type=_KIND))
        kept = {outgoing.sha256(path) for path in outgoing.files}
        listed = self._patiently(lambda: list(self._api.list_lfs_files(self._repo, repo_type=_KIND)))
        if left := [each for each in listed if each.file_oid not in kept]:
            self._patiently(lambda: self._api.permanently_delete_lfs_files(self._repo, left, repo_type=_KIND))

    def _patiently(self, call: Callable[[], _T]) -> _T:
        """Call, and call again where the hub is busy or out of reach for a moment."""
        import httpx2
        from huggingface_hub.errors import HfHubHTTPError

        for pause in _PAUSES:
            try:
                return call()
            except HfHubHTTPError as error:
                if (status := error.response.status_code) not in {408, 429} and status < 500:
                    raise
                self._sleep(_asked_to_wait(error.response) or pause)
            except httpx2.TransportError:
                self._sleep(pause)
        return call()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        import httpx2
        from huggingface_hub.errors import HfHubHTTPError

        try:
            yield
        except (httpx2.HTTPError, OSError, RuntimeError, ValueError) as error:
            refused = error.__cause__ if isinstance(error, RuntimeError) else error  # of a thread that uploads
            if isinstance(refused, HfHubHTTPError):
                raise PushError(self._told(refused.response.status_code, refused)) from error
            raise PushError(f"push: {self.to}: {_short(error)}. Push again: it goes on where it stopped.") from error

    def _told(self, status: int, error: Exception) -> str:
        if status == 401:
            return f"push: the hub refuses the token for {self.to} (401). Set HF_TOKEN, or run `hf auth login` again."
        if status in {403, 404}:
            return (
                f"push: the token may not write to {self.to} ({status}). Give it the right to, or name another "
                "repository."
            )
        if status == 429 or status >= 500:
            return f"push: the hub stays busy ({status}). Push again later: it goes on where it stopped."
        return f"push: the hub refuses this for {self.to} ({status}): {_short(error)}"


def _check_folders(outgoing: Outgoing) -> None:
    folders = Counter(path.rpartition("/")[0] for path in outgoing.files)
    for folder, number in folders.items():
        if number > _FOLDER_FILES:
            fix = (
                "Say --without-images: the Parquet files hold them too"
                if folder.startswith("images")
                else "Push to a bucket"
            )
            raise PushError(
                f"push: {folder}/ has {number:,} files, and the hub takes {_FOLDER_FILES:,} in a folder. {fix}."
            )


def _holds(found: RepoFile | None, outgoing: Outgoing, path: str) -> bool:
    """Whether the hub's file is the release's: by its SHA-256, or of small files by git's hash of their content."""
    from huggingface_hub.utils.sha import git_hash

    if found is None or found.size != outgoing.files[path]["size"]:
        return False
    if found.lfs:
        return found.lfs.sha256 == outgoing.sha256(path)
    with outgoing.open(path) as file:
        return found.blob_id == git_hash(file.read())


def _in_order(outgoing: Outgoing) -> list[str]:
    """The paths, the card and what else lies at the top last."""
    return sorted(outgoing.files, key=lambda path: ("/" not in path, path))


def _batches(outgoing: Outgoing, paths: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for path in paths:
        own = int(outgoing.files[path]["size"])
        if batch and (len(batch) == _BATCH_FILES or size + own > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(path)
        size += own
    if batch:
        yield batch


def _asked_to_wait(response: Any) -> float:
    text = response.headers.get("Retry-After", "")
    return min(float(text), 300.0) if text.isdecimal() else 0.0


def _short(error: Exception) -> str:
    cause = error.__cause__ or error
    return " ".join(f"{cause}".split())[:300].rstrip(".") or type(cause).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's own bars and lines off the terminal: progress and errors are told by us."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    logger = logging.getLogger("huggingface_hub")
    level, bars = logger.level, not are_progress_bars_disabled()
    logger.setLevel(logging.ERROR)
    disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars:
            enable_progress_bars()
