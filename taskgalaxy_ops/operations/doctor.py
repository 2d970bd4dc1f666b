"""Doctor: check everything that a run needs. Each finding is fine, or names the fix."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import taskgalaxy_ops
from taskgalaxy_ops.errors import ModelError, TaskGalaxyError
from taskgalaxy_ops.extensions import REGISTRIES
from taskgalaxy_ops.inference.gateway import CallContext, Gateway
from taskgalaxy_ops.inference.spending import RunBudget, ShardBudget
from taskgalaxy_ops.models import pricing
from taskgalaxy_ops.models.local.transformers import Chat, Generator, Written
from taskgalaxy_ops.models.request import GREETING, RequestItem, RequestTemplate
from taskgalaxy_ops.records import Answer
from taskgalaxy_ops.settings import BudgetSettings, Model, Settings
from taskgalaxy_ops.storage import Store, check_writes
from taskgalaxy_ops.storage.folder import FolderStore
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.storage.ledger import Caps, Ledger
from taskgalaxy_ops.workspace import Workspace

_FREE_BYTES = 1_000_000_000
_ROOM = 16  # tokens for a reply to the greeting
_PATIENCE_SECONDS = 30
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
    """Run all checks: store, models, encoder, this machine. Raises nothing; sends each model one tiny request."""
    return [finding for check in CHECKS.values() for finding in check(settings)]


def store(settings: Settings) -> Iterator[Finding]:
    """Check that the store is reached, keeps conditional writes and has a known layout, and that budget is left."""
    yield _tried("store", lambda: f"{_writable(settings)}: reached, and conditional writes hold")
    yield _tried("budget", lambda: _budget(Workspace.open(settings)))


def models(settings: Settings) -> Iterator[Finding]:
    """Teacher and judges: one tiny call each, of some ten tokens; a model in process is loaded for it."""
    for model in dict.fromkeys((settings.teacher, *settings.judges)):
        yield _tried(f"model {model.name}", lambda model=model: _greet(model, settings.budget))  # type: ignore[misc]


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


def _greet(model: Model, budget: BudgetSettings) -> str:
    return _greet_here(model) if model.weights is not None else _greet_there(model, budget)


def _greet_here(model: Model) -> str:
    generator = Generator(model)
    try:
        (found,) = generator.generate([Chat(GREETING)], room=16, temperature=0)
    finally:
        generator.close()
    if not isinstance(found, Written):
        return _raise(f"{model.base_url}: {found}. Take a model with a longer context.")
    return f"{model.base_url} loads and answers, {found.prompt_tokens + found.completion_tokens} tokens"


class _Greeting(RequestTemplate):
    """A request in the form of a run's, whose text asks for no work."""

    def text(self, units: Sequence[RequestItem]) -> str:  # noqa: ARG002 - the greeting asks about none
        return GREETING


def _greet_there(model: Model, budget: BudgetSettings) -> str:
    """Ask through a run's own gateway: client, headers, proxy, and the form of structured output are those of a run."""
    price = pricing.priced(model, money=budget.counts_money)
    with tempfile.TemporaryDirectory() as folder:
        reply = asyncio.run(_reply(model, FolderStore(Path(folder))))
    usage = reply["raw"].get("usage") or {}
    used = f", {usage['total_tokens']} tokens" if "total_tokens" in usage else ""
    rates = f"${price.input:g} and ${price.output:g} a million tokens of input and output"
    return f"{model.base_url} answers as {reply['raw'].get('model')}{used}; {rates}"


async def _reply(model: Model, store: Store) -> Mapping[str, Any]:
    """The model's reply, as a journal keeps it; budget and journal lie in a store of their own.

    Raises ModelError with what a run would say: no key, a refusal, no reply.
    """
    brief = {"max_tokens": _ROOM, "timeout_seconds": _PATIENCE_SECONDS, "retries": 1, "repairs": 0}
    short = model.model_copy(update=brief)
    schema = {"type": "object", "properties": {"word": {"type": "string"}}}
    template = _Greeting(
        stage="doctor",
        prompt=GREETING,
        model=short,
        head={},
        items=None,
        replies="words",
        schema=schema,
        read=lambda item, entry: Answer(dict(entry)),
    )
    gateway, journal = Gateway(), Journal(store, "doctor")
    shard_budget = ShardBudget(RunBudget(Ledger(store, Caps(None, None, None))), "doctor", 1)
    context = CallContext(journal, shard_budget, str, lambda: None)
    try:
        await gateway.ask(template, [template.unit(None, {})], context)
    finally:
        await gateway.aclose()
    journal.flush()
    usage = gateway.usage
    # The finding names the model: what the gateway says of it begins with the address.
    for why in usage.unavailable.values():
        raise ModelError(why.removeprefix(f"model {model.name!r} at "))
    for why in usage.gave_up.values():
        address = why.removeprefix(f"{model.name} at ")
        raise ModelError(f"{address}. Check base_url, model ({model.model!r}) and the key.")
    (first, *_) = journal.replies()
    return first


def _raise(text: str) -> str:
    raise TaskGalaxyError(text)


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return ""
