"""Doctor: check everything that a run needs. Each finding is fine, or names the fix."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import taskgalaxy_ops
from taskgalaxy_ops.errors import TaskGalaxyError
from taskgalaxy_ops.extensions import REGISTRIES
from taskgalaxy_ops.operations.model_check import ask_models
from taskgalaxy_ops.settings import Settings
from taskgalaxy_ops.storage import check_writes
from taskgalaxy_ops.workspace import Workspace

_FREE_BYTES = 1_000_000_000
_SHOWN_VERSIONS = (
    "openai",
    "boto3",
    "pyarrow",
    "apache-airflow",
    "torch",
    "transformers",
    "open_clip_torch",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    what: str
    fine: bool
    detail: str  # what was found; where it is not fine, with the fix


def examine(settings: Settings) -> list[Finding]:
    """Run all checks: store, models, encoder, this machine. Raises nothing; asks each model a small question a role."""
    return [finding for check in CHECKS.values() for finding in check(settings)]


def store(settings: Settings) -> Iterator[Finding]:
    """Check that the store is reached, keeps conditional writes and has a known layout, and that budget is left."""
    yield _tried("store", lambda: f"{_writable(settings)}: reached, and conditional writes hold")
    yield _tried("budget", lambda: _budget(Workspace.open(settings)))


def models(settings: Settings) -> Iterator[Finding]:
    """Teacher and judges: asked once a role, exactly as a run asks, about a plain picture."""
    store = None
    if any(model.images == "url" for model in settings.models):
        with contextlib.suppress(TaskGalaxyError):  # said by the check of the store
            store = Workspace.open(settings).store
    try:
        reports = ask_models(settings, store)
    except TaskGalaxyError as error:
        yield Finding("models", False, str(error))
        return
    for report in reports:
        yield Finding(f"model {report.model.name}", not report.fault, report.fault or report.words())


def encoder(settings: Settings) -> Iterator[Finding]:
    """Check that the encoder's weights are here, are those that the store used before, and embed a text."""

    def place() -> str:
        workspace = Workspace.open(settings)
        vectors = workspace.checked_encoder().encode_texts(["a photo of a cat"])
        return f"{settings.encoder.name}: loaded, {vectors.shape[1]} dimensions, the store's own"

    yield _tried("encoder", place)


def machine(_: Settings) -> Iterator[Finding]:
    """Room for temporary files, the versions of what is installed, and what installed packages add."""
    folder = Path(tempfile.gettempdir())
    free = shutil.disk_usage(folder).free
    fix = "" if free >= _FREE_BYTES else f": less than {_FREE_BYTES / 1e9:.0f} GB. Free some, or set TMPDIR"
    yield Finding("disk", free >= _FREE_BYTES, f"{free / 1e9:.1f} GB free in {folder}{fix}")
    own = f"taskgalaxy-ops {taskgalaxy_ops.__version__}"
    yield Finding("versions", True, ", ".join([own, *filter(None, map(_version, _SHOWN_VERSIONS))]))
    for registry in REGISTRIES:
        problems, brought = registry.problems(), registry.brought()
        if problems or brought:
            yield Finding(f"{registry.what}s", not problems, "; ".join(problems or brought))


CHECKS: dict[str, Callable[[Settings], Iterator[Finding]]] = {
    "store": store,
    "models": models,
    "encoder": encoder,
    "machine": machine,
}


def _tried(what: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, check())
    except TaskGalaxyError as error:
        return Finding(what, False, str(error))
    except Exception as error:  # noqa: BLE001 - whatever a library raises is what the doctor is there to show
        return Finding(what, False, f"{type(error).__name__}: {str(error)[:300]}")


def _writable(settings: Settings) -> str:
    """The store's URL. Raises StoreError where it may only be read: it would be opened, but no run could use it."""
    store = Workspace.open(settings).store
    check_writes(store)
    return store.url


def _budget(workspace: Workspace) -> str:
    spent, budget = workspace.ledger().spent(), workspace.settings.budget
    cost = "no cap" if budget.max_cost is None else f"of ${budget.max_cost:.2f}"
    calls = "no cap" if budget.max_calls is None else f"of {budget.max_calls:,}"
    tokens = f", {spent.tokens:,} tokens of {budget.max_tokens:,}" if budget.max_tokens is not None else ""
    text = f"${spent.cost / 1e9:.4f} {cost}, {spent.calls:,} calls {calls}{tokens}"
    if (budget.max_calls is not None and spent.calls >= budget.max_calls) or (
        (budget.max_cost is not None and spent.cost >= budget.max_cost * 1e9 > 0)
        or (budget.max_tokens is not None and spent.tokens >= budget.max_tokens)
    ):
        caps = "budget.max_cost, budget.max_calls or budget.max_tokens"
        raise TaskGalaxyError(f"budget spent: {text}. Raise {caps} to ask more.")
    return text


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return ""
