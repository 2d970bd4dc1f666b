"""Doctor: check everything that a run needs. Each finding is fine, or names the fix."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from taskgalaxy_ops.errors import TaskGalaxyError
from taskgalaxy_ops.models import pricing
from taskgalaxy_ops.models.local.transformers import Chat, Generator, Written
from taskgalaxy_ops.models.request import GREETING
from taskgalaxy_ops.settings import BudgetSettings, Model, Settings
from taskgalaxy_ops.workspace import Workspace

_FREE_BYTES = 1_000_000_000
_SHOWN_VERSIONS = (
    "taskgalaxy-ops",
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
    yield _tried("store", lambda: f"{Workspace.open(settings).store.url}: reached, and conditional writes hold")
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
    """Room for temporary files, and the versions of what is installed."""
    folder = Path(tempfile.gettempdir())
    free = shutil.disk_usage(folder).free
    fix = "" if free >= _FREE_BYTES else f": less than {_FREE_BYTES / 1e9:.0f} GB. Free some, or set TMPDIR"
    yield Finding("disk", free >= _FREE_BYTES, f"{free / 1e9:.1f} GB free in {folder}{fix}")
    yield Finding("versions", True, ", ".join(filter(None, map(_version, _SHOWN_VERSIONS))))


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


def _greet_there(model: Model, budget: BudgetSettings) -> str:
    import openai

    price = pricing.priced(model, money=budget.counts_money)
    key = os.environ.get(model.api_key_env, "")
    if not key and not model.simulated:
        return _raise(f"the environment variable {model.api_key_env} holds no key. Set it, or the model's connection.")
    client = openai.OpenAI(base_url=model.base_url, api_key=key or "none", max_retries=1, timeout=30)
    try:
        reply = client.chat.completions.create(
            model=model.model,
            messages=[{"role": "user", "content": GREETING}],
            extra_body={model.room_field: 16},
        )
    except openai.OpenAIError as error:
        said = getattr(error, "message", str(error))
        return _raise(f"{model.base_url}: {said[:300]}. Check base_url, model ({model.model!r}) and the key.")
    finally:
        client.close()
    used = f", {reply.usage.total_tokens} tokens" if reply.usage else ""
    rates = f"${price.input:g} and ${price.output:g} a million tokens of input and output"
    return f"{model.base_url} answers as {reply.model}{used}; {rates}"


def _raise(text: str) -> str:
    raise TaskGalaxyError(text)


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return ""
